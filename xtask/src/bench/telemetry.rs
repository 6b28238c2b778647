//! `cargo xtask bench telemetry`: what it costs to tell of calls. A sidecar that counts them only, one that also
//! sends the spans of one trace in a hundred, one that also writes a line per call into a file, and one that does both, in
//! turn within each round.

use super::{
    heddle::ONE_RULE,
    namespaces::{FAR, FAR_ADDRESSES, Pair, inside},
    options::Options,
    process::Guarded,
    rows::Rows,
    telemetry_sink::PORT,
};

/// For `--help`.
pub(super) const ABOUT: &str = "\
CPU time per request of one sidecar on one core, outbound, saturated, that has all metrics: alone, with 1 %
of traces sent to a receiver of Zipkin v2, with an access log to a file, and with both (at most 1.10). Needs root.";

/// At most this ratio with both.
const LIMIT: f64 = 1.10;
/// What its table is headed by.
const TITLE: &str = "HTTP/1.1, outbound, saturated";

/// Runs the bench.
pub(super) fn run(options: &Options) -> Result<(), String> {
    let mut rows = Rows::new(("telemetry", TITLE, "metrics alone"), options)?;
    let pair = Pair::make()?;
    let _sink = sink()?;
    rows.add("metrics", ONE_RULE, None)?;
    rows.add("spans", &rules(true, None), None)?;
    let file = |name: &str| rows.folder(name).join("access.log").to_string_lossy().into_owned();
    let (log, both) = (file("log"), file("both"));
    rows.add("log", &rules(false, Some(&log)), None)?;
    rows.add("both", &rules(true, Some(&both)), Some(LIMIT))?;
    rows.run(&pair, options)
}

/// A receiver of spans on the far side, on the application's core.
fn sink() -> Result<Guarded, String> {
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let arguments = ["-c", "1", &this.to_string_lossy(), "bench", "telemetry-sink"];
    Guarded::start(&mut inside(FAR, "taskset", &arguments))
}

/// The rule of other benches, and what is told.
fn rules(spans: bool, log: Option<&str>) -> String {
    let mut text = format!(
        "{ONE_RULE}\n---\napiVersion: heddle.dev/v1alpha1\nkind: MeshConfig\n\
         metadata: {{ name: mesh, namespace: istio-system }}\nspec:\n"
    );
    if let Some(file) = log {
        text += &format!("  accessLogFile: {file}\n");
    }
    if spans {
        text += &format!(
            "  extensionProviders:\n  - name: sink\n    zipkin: {{ service: {}, port: {PORT} }}\n  \
             defaultProviders: {{ tracing: [sink] }}\n  defaultConfig: {{ tracing: {{ sampling: 1 }} }}\n",
            FAR_ADDRESSES[2]
        );
    }
    text
}
