//! `cargo xtask bench edits`: from the start of `heddle apply`, or the closing of a file in
//! `--config`, to the acknowledgement of the last affected proxy, in the running demo.

use std::{fs, path::Path};

use serde_json::json;

use super::{
    demo::{Demo, find_number},
    heddle,
    options::Options,
    statistics::quantile,
};
use crate::time::now;

/// Edits of each kind unless told otherwise.
const EDITS: u64 = 200;
/// Calls per second of the demo's load.
const RATE: u64 = 20;
/// Upper bound of the bench, seconds.
const SECONDS_MAX: u64 = 300;

/// Runs the bench.
pub(super) fn run(options: &Options) -> Result<(), String> {
    let binary = heddle::build()?;
    let dir = std::env::temp_dir().join(format!("heddle-bench-edits-{}", std::process::id()));
    let config = dir.join("config");
    fs::create_dir_all(&config).map_err(|e| format!("{}: {e}", config.display()))?;
    let demo = Demo::start(&binary, "bench-edits", SECONDS_MAX, RATE, Some(&config))?;
    let count = options.count.unwrap_or(EDITS);
    let applied = (0..count).map(|n| apply(&demo, &dir, n)).collect::<Result<Vec<_>, _>>()?;
    let saved = (0..count).map(|n| save(&demo, &config, n)).collect::<Result<Vec<_>, _>>()?;
    drop(demo);
    drop(fs::remove_dir_all(&dir));
    let rows = [("apply", applied), ("config file", saved)].map(|(name, times)| {
        json!({ "edit": name, "count": times.len(), "p50_ms": quantile(&times, 0.5),
                "p99_ms": quantile(&times, 0.99), "max_ms": quantile(&times, 1.0) })
    });
    if options.json {
        println!("{:#}", json!({ "bench": "edits", "rows": rows }));
    } else {
        for row in rows {
            println!("{row}");
        }
    }
    Ok(())
}

/// Weights over the three versions; each number gives another rule.
fn weights(name: &str, host: &str, number: u64) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: {name}\nspec:\n  \
         hosts: [{host}]\n  http:\n    - route:\n        - destination: {{ host: {host} }}\n          \
         weight: {}\n        - destination: {{ host: {host}, port: {{ number: 80 }} }}\n          weight: 1\n",
        100 + number
    )
}

fn apply(demo: &Demo, dir: &Path, number: u64) -> Result<f64, String> {
    let file = dir.join("edit.yaml");
    fs::write(&file, weights("edit", "reviews", number)).map_err(|e| e.to_string())?;
    let file = file.to_string_lossy();
    let start = now();
    demo.call(&["apply", "-f", &file])?;
    Ok((now() - start).as_secs_f64() * 1e3)
}

/// The waiter is started before the file is written: it returns when the next generation is in force.
fn save(demo: &Demo, config: &Path, number: u64) -> Result<f64, String> {
    let status =
        demo.heddle(&["status", "--output", "json"]).output().map_err(|e| e.to_string())?;
    let status: serde_json::Value =
        serde_json::from_slice(&status.stdout).map_err(|e| format!("heddle status: {e}"))?;
    let generation =
        find_number(&status, "generation").ok_or("heddle status names no generation")?;
    let next = (generation + 1).to_string();
    let waiter =
        demo.heddle(&["wait", "--generation", &next]).spawn().map_err(|e| e.to_string())?;
    let file = config.join("edit.yaml");
    fs::write(&file, weights("saved", "ratings", number)).map_err(|e| e.to_string())?;
    let start = now();
    let output = waiter.wait_with_output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(format!("wait: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok((now() - start).as_secs_f64() * 1e3)
}
