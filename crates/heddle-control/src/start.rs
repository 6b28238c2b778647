//! From configuration to two served sockets, and to the end.

use std::{future::Future, net::Ipv4Addr, path::Path, pin::pin, sync::Arc};

use heddle_runtime::{
    clock,
    path_socket::{self, Peers},
    pulse, task,
};
use heddle_wire::discovery::transport;

use crate::{
    api::{self, PeerListener},
    config::{AddressRanges, ControlConfig},
    control::Control,
    error::ControlError,
    files::watch::FolderWatch,
    generations::Generations,
    journal::{self, Journal},
    mesh::Mesh,
    registry::{Members, Touched, declared::declared},
    rules::Rules,
    server::{self, DiscoveryServer},
    signals,
    store::{Change, Store},
};

/// Runs the control plane on this thread until SIGTERM or SIGINT.
///
/// # Errors
/// [`ControlError`] if it cannot start, or a socket can no longer be served.
pub fn run(config: ControlConfig) -> Result<(), ControlError> {
    run_until(config, signals::asked_to_end())
}

/// Runs the control plane on this thread until `stop` ends.
///
/// # Errors
/// As for [`run`].
pub fn run_until(
    config: ControlConfig,
    stop: impl Future<Output = ()>,
) -> Result<(), ControlError> {
    task::run_local(serve(config, stop))?
}

async fn serve(config: ControlConfig, stop: impl Future<Output = ()>) -> Result<(), ControlError> {
    pulse::answer();
    check_ranges(&config.ranges)?;
    // The sockets come last: a proxy that connects is answered from the whole state.
    let control = Arc::new(assemble(&config)?);
    if let Some(folder) = &config.config_dir {
        let mut watch = FolderWatch::new(folder);
        let batch = watch.next().await;
        control.take_batch(&watch, batch).await;
        let control = control.clone();
        task::spawn_contained("folder", async move { control.follow_folder(watch).await });
    }
    task::spawn_contained("expect", control.clone().expect_sidecars());
    task::spawn_contained("journal", control.clone().keep_journal());
    task::spawn_contained("store", control.clone().keep_store());
    let peers = Peers::new()?;
    let bind = |name: &str| {
        let path = config.run_dir.join(name);
        path_socket::bind(&path).map_err(|source| ControlError::Socket { path, source })
    };
    let discovery = bind("discovery.sock")?;
    let api = PeerListener { listener: bind("control.sock")?, peers };
    let api = axum::serve(api, api::router(control.clone()));
    let service = Arc::new(DiscoveryServer { control: control.clone() });
    let discovery =
        transport::router(service).serve_with_incoming(server::accept(discovery, peers));
    tracing::info!(mesh = config.mesh, "control plane serves");
    let (stop, api, discovery) = (pin!(stop), pin!(async { api.await }), pin!(discovery));
    let ended = |socket, reason: String| Err(ControlError::Ended { socket, reason });
    tokio::select! {
        () = stop => {
            control.end();
            tracing::info!(mesh = config.mesh, "control plane ends");
            Ok(())
        }
        result = api => ended("control.sock", reason(result)),
        result = discovery => ended("discovery.sock", reason(result)),
    }
}

fn reason<E: std::fmt::Display>(result: Result<(), E>) -> String {
    result.map_or_else(|error| error.to_string(), |()| "it stopped accepting".to_owned())
}

/// Puts the mesh together from the store, the journal and the last good rule files.
fn assemble(config: &ControlConfig) -> Result<Control, ControlError> {
    let mut store = Store::open(&config.state_dir)?;
    let now = clock::unix_now().as_secs();
    let journal = Journal::new(&config.run_dir, journal::parent_life());
    let mut rules = Rules::recall(&store.content().applied);
    recall_files(&mut rules, config.config_dir.as_deref(), &store);
    let mut members = Members::new(config.ranges, &store.content().vips, now);
    let recalled = members.recall(journal.read(), now);
    for problem in &recalled.problems {
        tracing::warn!(reason = problem.reason, "member of the journal not taken back");
    }
    let services = members.declare(declared(&rules.in_force().resources), now);
    let generations = Generations::after(store.content().generation);
    let vips = recalled.vips.into_iter().map(|(name, index)| (name, Some(index)));
    let vips = vips.chain(services.vips);
    let bound = generations.to_reserve();
    let settings = config.ranges.settings(config.mesh.clone());
    let mut mesh = Mesh::new(settings, members.into(), rules, generations);
    mesh.telemetry.clone_from(&config.telemetry);
    mesh.commit(&Touched::all());
    let vips = vips.chain(mesh.take_vips()).map(|(name, index)| Change::Vip(name, index));
    let changes: Vec<Change> = vips.chain(bound.map(Change::Generation)).collect();
    // A full disk at start must not take the mesh's rules away: it is reported, and tried again.
    let unwritten = store.write(changes.clone()).err().map(|error| (error, changes));
    match &unwritten {
        None => bound.into_iter().for_each(|bound| mesh.generations.reserved(bound)),
        Some((error, _)) => tracing::error!(%error, "store not written at start"),
    }
    Ok(Control::new(mesh, store, journal, unwritten))
}

/// The last good versions of the folder's files; those of files that are gone are dropped when the
/// folder has been read.
fn recall_files(rules: &mut Rules, folder: Option<&Path>, store: &Store) {
    let Some(folder) = folder else { return };
    let known = store.content().files.iter();
    for (path, text) in known.filter(|(path, _)| Path::new(path).parent() == Some(folder)) {
        rules.files.recall(path, text);
    }
}

fn check_ranges(ranges: &AddressRanges) -> Result<(), ControlError> {
    let too_small = |(network, prefix): (Ipv4Addr, u8)| {
        Err(ControlError::Range { range: format!("{network}/{prefix}") })
    };
    let is_empty = |(first, last): (u32, u32)| last < first;
    match () {
        () if is_empty(ranges.vip_indices()) => too_small(ranges.vip_v4),
        () if is_empty(ranges.workload_indices()) => too_small(ranges.workload_v4),
        () => Ok(()),
    }
}
