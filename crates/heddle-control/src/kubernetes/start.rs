//! From configuration to a control plane that serves a cluster, and to its end.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use heddle_runtime::{clock, pulse, task};
use heddle_wire::local::{control_api::Problem, pod_environment::MESH};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::{net::TcpListener, sync::watch};

use super::{
    admission::Admission,
    client::Api,
    config::KubernetesConfig,
    health::Health,
    keeper::Keeper,
    leader::Candidate,
    observers::Observers,
    registry::Cluster,
    replica::{self, Itself},
    rules::RuleBook,
    serve::{self, Pages},
    source::Source,
    status::StatusWriter,
    tokens::Reviewer,
    trust::AuthoritySecret,
};
use crate::{
    api, causes::with_causes, config::AddressRanges, control::Control, error::ControlError,
    generations::Generations, mesh::Mesh, rules::Rules, secure, server::DiscoveryServer, signals,
    webhook,
};

/// Discovery and certificates, over TLS.
const PORT_DISCOVERY: u16 = 15012;
/// Who there is, for the mesh's observer, over TLS.
pub const PORT_OBSERVERS: u16 = 15016;
/// What the API server asks before it takes an object, over TLS.
const PORT_ADMISSION: u16 = 15017;
/// What is known, on the loopback address only.
const PORT_ADMIN: u16 = 15000;
/// The Service by whose name pods reach us.
const SERVICE: &str = "heddle-control";
/// How often is looked for pods that lack their sidecar.
const MISSED_INTERVAL: Duration = Duration::from_secs(30);
/// Of those so many are told by name.
const MISSED_TOLD: usize = 20;

/// Why it could not start.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// The cluster's domain is no DNS name.
    #[error("the cluster domain: {0}")]
    ClusterDomain(#[from] heddle_model::name::NameError),
    /// It is not known how to reach the API server.
    #[error("how to reach the API server is not known: {0}")]
    Config(String),
    /// An address cannot be listened on.
    #[error("port {port} cannot be listened on: {source}")]
    Listen {
        /// Which.
        port: u16,
        /// The system's words.
        source: io::Error,
    },
    /// What any control plane may fail of.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl From<io::Error> for KubernetesError {
    fn from(error: io::Error) -> Self {
        Self::Control(error.into())
    }
}

/// Runs the control plane of a cluster on this thread until SIGTERM or SIGINT.
///
/// # Errors
/// [`KubernetesError`]: it cannot start, or an address is no longer served. What the API server refuses is none
/// of it: that is tried again, and told.
pub fn run(config: KubernetesConfig) -> Result<(), KubernetesError> {
    task::run_local(serve(config))?
}

async fn serve(config: KubernetesConfig) -> Result<(), KubernetesError> {
    pulse::answer();
    heddle_model::name::set_cluster_domain(&config.cluster_domain)?;
    let api = connect(&config).await?;
    let health = Arc::new(Health::default());
    let control = Arc::new(assemble(&config));
    let (leads, led) = watch::channel(false);
    let book = RuleBook::of_revision(&config.revision);
    let pages = Pages {
        control: control.clone(),
        health: health.clone(),
        leads: led.clone(),
        book: book.clone(),
    };
    let pages = Arc::new(pages);
    let itself = Itself { pages: pages.clone(), config: config.clone(), book: book.clone() };
    let monitoring = axum::serve(listen(serve::PORT_MONITORING).await?, serve::router(pages));
    let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT_ADMIN)).await;
    let admin = admin.map_err(|source| KubernetesError::Listen { port: PORT_ADMIN, source })?;
    let admin =
        axum::serve(admin, api::reader(control.clone()).merge(replica::router(Arc::new(itself))));
    let candidate = Candidate {
        api: api.clone(),
        namespace: config.namespace.clone(),
        revision: config.revision.clone(),
        identity: config.identity.clone(),
        leads,
    };
    let mesh = pin!(serve_mesh(&config, api, (control, book), health, led));
    let (monitoring, admin) = (pin!(async { monitoring.await }), pin!(async { admin.await }));
    let ended = |socket, reason: String| Err(ControlError::Ended { socket, reason }.into());
    tokio::select! {
        () = signals::asked_to_end() => {
            clock::within(Duration::from_secs(2), candidate.resign()).await;
            tracing::info!("control plane ends");
            Ok(())
        }
        () = candidate.run() => Ok(()),
        result = mesh => result,
        result = monitoring => ended("health and metrics", format!("{result:?}")),
        result = admin => ended("the loopback address", format!("{result:?}")),
    }
}

/// Reads the cluster, and then serves pods.
async fn serve_mesh(
    config: &KubernetesConfig,
    api: Api,
    (control, book): (Arc<Control>, RuleBook),
    health: Arc<Health>,
    leads: watch::Receiver<bool>,
) -> Result<(), KubernetesError> {
    let source = Source {
        api: api.clone(),
        control: control.clone(),
        health: health.clone(),
        book: book.clone(),
    };
    task::spawn_contained("source", source.run());
    let secret = AuthoritySecret {
        api: api.clone(),
        namespace: config.namespace.clone(),
        revision: config.revision.clone(),
        trust_domain: config.trust_domain.clone(),
    };
    let trust = secret.wait(&health).await;
    task::spawn_contained("trust", secret.follow(trust.clone(), health.clone()));
    let keeper = Keeper {
        api: api.clone(),
        revision: config.revision.clone(),
        control: control.clone(),
        health: health.clone(),
        leads: leads.clone(),
        roots: {
            let trust = trust.clone();
            Arc::new(move || trust.authority().roots_pem().to_owned())
        },
    };
    task::spawn_contained("keeper", keeper.run());
    let names = names(&config.namespace);
    let admission = Admission {
        api: api.clone(),
        control: control.clone(),
        health: health.clone(),
        config: config.clone(),
    };
    let tls =
        trust.serving_config(&names, &[], None, clock::unix_now).map_err(ControlError::from)?;
    let listener = listen(PORT_ADMISSION).await?;
    task::spawn_contained("webhook", admission.run(listener, tls.clone()));
    // A proxy that connects is answered from the whole state.
    synced(&health).await;
    tell_known(&control);
    let writer = StatusWriter {
        api: api.clone(),
        control: control.clone(),
        health: health.clone(),
        book,
        leads,
        identity: config.identity.clone(),
        revision: config.revision.clone(),
    };
    task::spawn_contained("status", writer.run());
    task::spawn_contained("missed", look_for_missed(control.clone(), health));
    let reviewer = Reviewer { api };
    let observers = Observers::new(control.clone(), reviewer.clone(), &config.namespace);
    let listener = listen(PORT_OBSERVERS).await?;
    task::spawn_contained("observers", webhook::serve(listener, tls, Arc::new(observers)));
    let listener = listen(PORT_DISCOVERY).await?;
    let discovery = Arc::new(DiscoveryServer { control });
    let reviewer = Arc::new(reviewer);
    Ok(secure::serve(listener, discovery, trust, reviewer, &names).await?)
}

fn tell_known(control: &Control) {
    let numbers = control.numbers();
    tracing::info!(
        services = numbers.services,
        pods = numbers.workloads,
        rules = numbers.rules,
        "the cluster is known; proxies are served"
    );
}

/// The names that pods, and the API server, call us by.
fn names(namespace: &str) -> Vec<String> {
    let full = format!("{SERVICE}.{namespace}.{}", heddle_model::name::service_suffix());
    let short = [format!("{SERVICE}.{namespace}"), format!("{SERVICE}.{namespace}.svc"), full];
    [SERVICE.to_owned()].into_iter().chain(short).collect()
}

async fn synced(health: &Health) {
    let mut changes = health.changes();
    while !health.missing().is_empty() {
        // The sender is here.
        changes.changed().await.ok();
    }
}

/// Tells of pods that should have a sidecar and have none, whenever they are others.
async fn look_for_missed(control: Arc<Control>, health: Arc<Health>) {
    let mut told = Vec::new();
    loop {
        let missed = control.with_cluster(Cluster::without_sidecar).unwrap_or_default();
        if missed != told {
            for (namespace, pod) in
                missed.iter().filter(|one| !told.contains(one)).take(MISSED_TOLD)
            {
                tracing::warn!(
                    namespace,
                    pod,
                    "this pod should have a sidecar and has none; delete it, so that it is made anew"
                );
            }
        }
        let names = missed.iter().take(MISSED_TOLD).map(|(namespace, pod)| {
            format!("pod {namespace}/{pod} should have a sidecar and has none: delete it, so that it is made anew")
        });
        let more = missed.len().saturating_sub(MISSED_TOLD);
        let more = (more > 0).then(|| format!("and {more} pods more lack their sidecar"));
        let reasons = names.chain(more).chain(health.troubles());
        control
            .note_cluster(reasons.map(|reason| Problem { reason, ..Problem::default() }).collect());
        told = missed;
        clock::sleep(MISSED_INTERVAL).await;
    }
}

async fn connect(config: &KubernetesConfig) -> Result<Api, KubernetesError> {
    let wrong = |error: &dyn std::error::Error| KubernetesError::Config(with_causes(error));
    let options = KubeConfigOptions { context: config.context.clone(), ..Default::default() };
    let found = match &config.kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path).map_err(|error| wrong(&error))?;
            let made = kube::Config::from_custom_kubeconfig(read, &options).await;
            made.map_err(|error| wrong(&error))?
        }
        None => kube::Config::infer().await.map_err(|error| wrong(&error))?,
    };
    let client = kube::Client::try_from(found).map_err(|error| wrong(&error))?;
    Ok(Api::new(client))
}

fn assemble(config: &KubernetesConfig) -> Control {
    let ranges = AddressRanges::default();
    let settings = ranges.settings(MESH.to_owned());
    let cluster = Cluster::new(config.trust_domain.clone(), ranges);
    // Nothing is kept, and yet numbers must not come again after a restart.
    let generations = Generations::after(clock::unix_now().as_secs().saturating_mul(1_000));
    let mut mesh = Mesh::new(settings, cluster.into(), Rules::default(), generations);
    mesh.telemetry.clone_from(&config.telemetry);
    Control::without_store(mesh)
}

/// On every address of both families, or of IPv4 where there is no other.
async fn listen(port: u16) -> Result<TcpListener, KubernetesError> {
    let any: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
    let mut refused = None;
    for ip in any {
        match TcpListener::bind((ip, port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = Some(error),
        }
    }
    let source = refused.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
    Err(KubernetesError::Listen { port, source })
}
