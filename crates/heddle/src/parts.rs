//! The hidden subcommands that are parts of a running mesh: from flags to each part's own
//! configuration, and no further.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    num::NonZero,
    path::PathBuf,
    process, thread,
};

use heddle_control::{
    AddressRanges, ControlConfig, TelemetryDefault,
    kubernetes::{self, KubernetesConfig, PORT_OBSERVERS},
    reach::Part,
};
use heddle_model::name::set_cluster_domain;
use heddle_observe::{
    ClusterControl, ControlSource, DashboardListener, ObserveConfig, PrometheusSource, SpansTold,
};
use heddle_wire::local::{
    pod_environment::{self, Machine},
    proxy_config::ProxyConfig,
};

use crate::{
    cli::{ClusterArgs, ClusterObserveArgs, ControlArgs, ObserveArgs, ProxyArgs, TraceStoreArgs},
    failure::{Doing as _, Failure},
};

/// Where a kubelet asks the observer of a cluster whether it is ready.
const PORT_HEALTH: u16 = 15021;
/// Longest process name the kernel keeps, bytes.
const NAME_MAX: usize = 15;

/// `heddle control`.
///
/// # Errors
/// Where it cannot start.
pub(crate) fn control(args: ControlArgs) -> Result<(), Failure> {
    name_process("heddle-control");
    let (Some(mesh), Some(run_dir), Some(state_dir)) = (args.mesh, args.run_dir, args.state_dir)
    else {
        // Without the chart's word for it there is no store, and nobody is traced.
        args.tracing.check()?;
        let told = args.tracing.telemetry(args.trace_store.as_ref());
        // What a cluster's applications cost is not for a default of ours to say: chance alone decides.
        return cluster_control(args.cluster, Some(TelemetryDefault { at_least: 0, ..told }));
    };
    let ranges = AddressRanges::default();
    let telemetry = Some(args.tracing.telemetry(args.trace_store.as_ref()));
    let config_dir = args.config;
    let config = ControlConfig { mesh, run_dir, state_dir, config_dir, ranges, telemetry };
    heddle_control::run(config).doing(|| "run the control plane".to_owned())
}

fn cluster_control(args: ClusterArgs, telemetry: Option<TelemetryDefault>) -> Result<(), Failure> {
    let own_name = env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let config = KubernetesConfig {
        namespace: args.namespace,
        revision: args.revision,
        trust_domain: args.trust_domain,
        cluster_domain: args.cluster_domain,
        kubeconfig: args.kubeconfig,
        context: args.context,
        // Outside of a pod a replica is a process.
        identity: own_name.unwrap_or_else(|| format!("heddle-control-{}", process::id())),
        telemetry,
    };
    kubernetes::run(config).doing(|| "run the control plane".to_owned())
}

/// `heddle observe`.
///
/// # Errors
/// Where it cannot start.
pub(crate) fn observe(args: ObserveArgs) -> Result<(), Failure> {
    name_process("heddle-observe");
    let (Some(mesh), Some(run_dir), Some(fd)) = (args.mesh, args.run_dir, args.dashboard_fd) else {
        let kept = (args.history, args.figures.source());
        return cluster_observe(&args.cluster, kept, args.traces);
    };
    let control = ControlSource::Socket(run_dir.join("control.sock"));
    let mut config = ObserveConfig::new(&mesh, control, DashboardListener::Inherited(fd));
    config.run_dir = Some(run_dir);
    config.history = args.history;
    config.prometheus = args.figures.source();
    with_spans(&mut config, args.traces);
    heddle_observe::run(config).doing(|| "run the dashboard".to_owned())
}

/// Spans come in at a port of every address: who sends them may say what it likes, and looks at nothing.
fn with_spans(config: &mut ObserveConfig, args: TraceStoreArgs) {
    let port = args.spans_port.map(|port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    let inherited = args.spans_fd.map(DashboardListener::Inherited);
    config.spans = inherited.or_else(|| port.map(DashboardListener::Bind));
    config.told = SpansTold { endpoint: args.spans_endpoint, elsewhere: args.spans_elsewhere };
    config.traces = args.traces;
}

/// The dashboard is on the loopback address only: who may forward a port of the pod may look.
fn cluster_observe(
    args: &ClusterObserveArgs,
    (history, prometheus): (Option<PathBuf>, Option<PrometheusSource>),
    traces: TraceStoreArgs,
) -> Result<(), Failure> {
    set_cluster_domain(&args.cluster_domain).map_err(|e| Failure::refused(e.to_string()))?;
    let control = ClusterControl::new(&args.control, PORT_OBSERVERS, &args.roots, &args.token);
    let dashboard = SocketAddr::from((Ipv4Addr::LOCALHOST, Part::Observe.port()));
    let mut config = ObserveConfig::new(
        pod_environment::MESH,
        ControlSource::Cluster(Box::new(control)),
        DashboardListener::Bind(dashboard),
    );
    config.health = Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT_HEALTH)));
    config.scrape_interval = args.interval;
    config.history = history;
    config.prometheus = prometheus;
    with_spans(&mut config, traces);
    heddle_observe::run(config).doing(|| "run the dashboard".to_owned())
}

/// `heddle proxy`.
///
/// # Errors
/// Where it cannot start.
pub(crate) fn proxy(args: &ProxyArgs) -> Result<(), Failure> {
    name_process("heddle-proxy");
    let config = match &args.config {
        Some(file) => {
            let text = fs::read(file).doing(|| format!("read {}", file.display()))?;
            serde_json::from_slice(&text).doing(|| format!("understand {}", file.display()))?
        }
        None => of_this_pod()?,
    };
    heddle_proxy::run(config).doing(|| "run the sidecar".to_owned())
}

/// The configuration that the pod's environment describes.
fn of_this_pod() -> Result<ProxyConfig, Failure> {
    let variable = |name: &str| env::var(name).ok();
    let file = pod_environment::labels_file(&variable);
    let (labels, unread) = match fs::read_to_string(&file) {
        Ok(labels) => (labels, None),
        Err(error) => {
            let file = file.display();
            let problem = format!("{file}: {error}: mount the pod's labels (a downwardAPI volume)");
            (String::new(), Some(problem))
        }
    };
    let domain = variable("HEDDLE_CLUSTER_DOMAIN").filter(|domain| !domain.is_empty());
    let domain = domain.map_or(Ok(()), |domain| set_cluster_domain(&domain));
    let foreign = domain.err().map(|error| format!("HEDDLE_CLUSTER_DOMAIN: {error}"));
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let read = pod_environment::config(&variable, &labels, Machine { processors });
    let problems = match (read, unread.or(foreign)) {
        (Ok(config), None) => return Ok(config),
        (read, other) => read.err().into_iter().flatten().chain(other),
    };
    let lines = problems.collect::<Vec<_>>().join("\n  ");
    Err(Failure::refused(format!(
        "the environment does not describe a pod of the mesh:\n  {lines}"
    )))
}

/// Shows up in `ps` and `top` as what it is: the binary was started through `/proc/self/exe`, whose
/// name says nothing.
pub(crate) fn name_process(name: &str) {
    debug_assert!(name.len() <= NAME_MAX, "{name} is cut off");
    if let Err(error) = fs::write("/proc/self/comm", name) {
        tracing::debug!(%error, "the process keeps its name");
    }
}
