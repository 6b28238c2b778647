//! The running demo: its mesh, its members, and what they show.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use heddle_model::name::DEFAULT_NAMESPACE;
use heddle_runtime::{clock, local_http};
use heddle_wire::local::{
    control_api::{ApplyRequest, ApplyResponse, SourceFile, WorkloadView},
    holder_api::Publish,
};

use super::{
    member::{self, RunningMember},
    plan::{self, EDGES, FRONT_PORT, LOAD, Load},
    report::{self, Evidence, Report},
    tell,
};
use crate::{
    cli::{DemoArgs, TraceArgs, figures::FiguresArgs},
    control_client::ControlClient,
    failure::{Doing as _, Failure},
    holder_client::HolderClient,
    mesh::{MeshLock, MeshPaths, RunRoot},
    output,
    up::{MeshOptions, StartedMesh, access_log, port},
};

/// Longest wait for the workloads to listen, and for the first call on every edge. The start takes
/// a second or two; a machine that needs longer than this will not show a demo either.
const START_WAIT: Duration = Duration::from_secs(60);
/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The port people will guess, and those taken where it is in use.
const FAVOURITE_PORTS: RangeInclusive<u16> = 8080..=8099;
/// Attempts at finding a free name.
const NAMES_MAX: usize = 100;

/// The running demo.
#[derive(Debug)]
pub(super) struct Stage {
    /// Its mesh.
    pub(super) mesh: StartedMesh,
    /// Its workloads.
    pub(super) members: Vec<RunningMember>,
    dir: PathBuf,
    /// Where the host reaches the application.
    pub(super) front: SocketAddr,
    /// From exec to the first successful call on every edge.
    pub(super) startup_seconds: f64,
    /// Prints the access log, where it is asked for.
    _log: Option<access_log::Shown>,
}

impl Stage {
    /// Starts the mesh, unless `stop` says that nobody wants it any more.
    pub(super) async fn begin(
        args: &DemoArgs,
        stop: impl Future<Output = ()>,
    ) -> Result<Self, Failure> {
        let (paths, lock) = free_mesh(args).await?;
        let dashboard = match args.dashboard {
            Some(address) => vec![address],
            None => port::of_mesh(paths.name(), None),
        };
        let mut tracing = args.tracing.clone();
        let log = access_log::prepare(&mut tracing, None, &paths)?;
        let options = MeshOptions {
            paths,
            lock,
            config: args.config.clone(),
            state_dir: None,
            dashboard,
            figures: FiguresArgs::default(),
            tracing: TraceArgs {
                // Few calls, and each is to be found.
                trace_sampling: tracing.trace_sampling.or(Some(100.0)),
                ..tracing
            },
        };
        let mut progress = |text: &str| output::notice(text);
        let mesh = StartedMesh::start(options, &mut progress, stop).await?;
        let dir = mesh.paths.run_dir().join(plan::DIR);
        Ok(Self {
            mesh,
            members: Vec::new(),
            dir,
            front: any_port(),
            startup_seconds: 0.0,
            _log: log.map(|path| access_log::show(path, args.output)),
        })
    }

    /// Starts members and load; returns when every edge has carried a successful call.
    pub(super) async fn set(&mut self, args: &DemoArgs, began: Instant) -> Result<(), Failure> {
        let dir = &self.dir;
        fs::create_dir_all(dir).doing(|| format!("make the folder {}", dir.display()))?;
        plan::write_scripts(dir).doing(|| format!("write to {}", dir.display()))?;
        let load = Load { rate: args.rate, seconds: load_seconds(args) };
        let publish = front_publish(args);
        let (last, services) = plan::members()
            .split_last()
            .map_or_else(Default::default, |(last, all)| (Some(last.clone()), all.to_vec()));
        output::notice(format!("starting {} workloads", services.len() + 1));
        for member in services {
            let published = (member.service == plan::FRONT).then_some(&publish);
            self.start(member, &load, published)?;
        }
        self.wait_until_listening().await?;
        self.apply_rules().await;
        self.front = self.published().await?;
        output::notice("all services listen; starting the load");
        if let Some(load_generator) = last {
            self.start(load_generator, &load, None)?;
        }
        self.wait_until_every_edge_works().await?;
        self.startup_seconds = clock::now().duration_since(began).as_secs_f64();
        Ok(())
    }

    fn start(
        &mut self,
        member: plan::Member,
        load: &Load,
        publish: Option<&Publish>,
    ) -> Result<(), Failure> {
        let running =
            RunningMember::start(member, self.mesh.paths.name(), &self.dir, load, publish)?;
        self.members.push(running);
        Ok(())
    }

    /// Puts the demo's own rules in force, unless the user's folder holds others of their names.
    async fn apply_rules(&self) {
        let file = SourceFile { file: "the demo".to_owned(), text: plan::RULES.to_owned() };
        let request = ApplyRequest {
            files: vec![file],
            namespace: DEFAULT_NAMESPACE.to_owned(),
            dry_run: false,
            force: false,
            strict: false,
            wait_ms: 0,
        };
        let control = ControlClient::new(&self.mesh.paths);
        if let Err(failure) = control.post::<ApplyResponse>("/v1/apply", &request).await {
            output::notice(format!("the demo's own rules are not in force: {failure}"));
        }
    }

    /// The address really bound: one of several may have been asked for.
    async fn published(&self) -> Result<SocketAddr, Failure> {
        let info = HolderClient::connect(&self.mesh.paths).await?.info().await?;
        let joined = info.workloads.into_iter().flat_map(|joined| joined.published).next();
        joined.ok_or_else(|| Failure::refused("the demo's application is not published"))
    }

    async fn wait_until_listening(&mut self) -> Result<(), Failure> {
        let control = ControlClient::new(&self.mesh.paths);
        let deadline = clock::now() + START_WAIT;
        loop {
            let views: Vec<WorkloadView> = control.get("/v1/workloads").await?;
            let ready = |running: &RunningMember| {
                views.iter().any(|view| is_member(view, &running.member) && is_ready(view))
            };
            let missing: Vec<&RunningMember> =
                self.members.iter().filter(|running| !ready(running)).collect();
            if missing.is_empty() {
                return Ok(());
            }
            if clock::now() > deadline {
                let listening = self.members.len() - missing.len();
                return Err(Failure::refused(format!(
                    "{listening} of {} workloads listen after {START_WAIT:?}{}",
                    self.members.len(),
                    member::log_tails(missing, &self.dir)
                )));
            }
            self.check_members()?;
            clock::sleep(LOOK_EVERY).await;
        }
    }

    async fn wait_until_every_edge_works(&mut self) -> Result<(), Failure> {
        let deadline = clock::now() + START_WAIT;
        loop {
            let missing = self.edges_without_success().await;
            if missing.is_empty() {
                return Ok(());
            }
            if clock::now() > deadline {
                let edges: Vec<String> =
                    missing.iter().map(|(from, to)| format!("{from} → {to}")).collect();
                let callers = self.members.iter().filter(|running| {
                    missing.iter().any(|(from, _)| *from == running.member.service)
                });
                return Err(Failure::refused(format!(
                    "no successful call yet on: {}{}",
                    edges.join(", "),
                    member::log_tails(callers, &self.dir)
                )));
            }
            self.check_members()?;
            clock::sleep(LOOK_EVERY).await;
        }
    }

    async fn edges_without_success(&self) -> Vec<(&'static str, &'static str)> {
        let mut missing = Vec::new();
        for (source, destination) in EDGES {
            let mut worked = 0;
            for member in self.members.iter().filter(|m| m.member.service == source) {
                let told = member.told(&self.dir).await.unwrap_or_default();
                let count = |by_peer: &std::collections::BTreeMap<String, u64>| {
                    by_peer.get(destination).copied().unwrap_or(0)
                };
                worked += count(&told.sent).saturating_sub(count(&told.failed));
            }
            if worked == 0 {
                missing.push((source, destination));
            }
        }
        missing
    }

    fn check_members(&mut self) -> Result<(), Failure> {
        let dir = self.dir.clone();
        self.members.iter_mut().try_for_each(|member| member.check(&dir))
    }

    /// Ends the load, lets calls in flight end, scrapes every sidecar, then asks the applications.
    pub(super) async fn report(&mut self) -> Result<Report, Failure> {
        if let Some(load) = self.members.iter().find(|member| member.member.service == LOAD) {
            let socket = load.member.counts(&self.dir).unwrap_or_default();
            tell::stop(&socket).await.doing(|| "stop the load".to_owned())?;
        }
        let control = ControlClient::new(&self.mesh.paths);
        let views: Vec<WorkloadView> = control.get("/v1/workloads").await?;
        let mut evidence = Vec::new();
        for running in &self.members {
            let metrics = self.scrape(&running.member, &views).await?;
            evidence.push(Evidence { member: running.member.clone(), metrics, told: None });
        }
        for (one, running) in evidence.iter_mut().zip(&self.members) {
            one.told = running.told(&self.dir).await;
        }
        let mesh = self.mesh.paths.name();
        report::make(mesh, self.startup_seconds, &evidence).map_err(Failure::refused)
    }

    /// A sidecar's :15090, through the dashboard's address: the host has no way into the mesh.
    async fn scrape(
        &self,
        member: &plan::Member,
        views: &[WorkloadView],
    ) -> Result<String, Failure> {
        let found = views.iter().find(|view| is_member(view, member));
        let workload = &found
            .ok_or_else(|| Failure::refused(format!("workload {} has gone", member.name())))?
            .workload;
        let address =
            self.mesh.info.dashboard.ok_or_else(|| Failure::refused("no dashboard runs"))?;
        let path = format!("/sidecars/{}/stats/prometheus", workload.id);
        let body = local_http::get_tcp(address, &path)
            .await
            .doing(|| format!("read the metrics of {}", member.name()))?;
        Ok(String::from_utf8_lossy(&body.body).into_owned())
    }

    /// Ends the mesh and the members; without a mesh they end by themselves.
    pub(super) async fn strike(self) -> Result<(), Failure> {
        let Self { mesh, members, .. } = self;
        let ended = mesh.end().await;
        member::all_ended(members).await;
        ended
    }
}

fn is_member(view: &WorkloadView, member: &plan::Member) -> bool {
    let workload = &view.workload;
    workload.services.iter().any(|service| service.name == member.service)
        && workload.version == member.version
}

fn is_ready(view: &WorkloadView) -> bool {
    let ready = heddle_model::EndpointState::Ready;
    view.workload.ports.values().all(|port| port.state == ready)
}

/// The named mesh, or the first free one of `demo`, `demo-2`, …, and the right to be it.
async fn free_mesh(args: &DemoArgs) -> Result<(MeshPaths, MeshLock), Failure> {
    let root = RunRoot::open()?;
    if let Some(name) = &args.mesh {
        let paths = usable(root.mesh(name)?)?;
        return Ok((paths.clone(), paths.take_lock().await?));
    }
    for number in 1..=NAMES_MAX {
        let name = if number == 1 { "demo".to_owned() } else { format!("demo-{number}") };
        let paths = usable(root.mesh(&name)?)?;
        if let Some(lock) = paths.try_lock()? {
            return Ok((paths, lock));
        }
    }
    Err(Failure::refused(format!("{NAMES_MAX} demos are running already")))
}

/// The paths, unless they are too long for the demo's own sockets.
fn usable(paths: MeshPaths) -> Result<MeshPaths, Failure> {
    paths.check_socket(&Path::new(plan::DIR).join(plan::LONGEST_SOCKET))?;
    Ok(paths)
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Where the host is to reach the application: as asked, else at one of the favourite ports.
fn front_publish(args: &DemoArgs) -> Publish {
    let port = FRONT_PORT;
    match args.publish {
        Some(host) => Publish { host, host_port_max: host.port(), port },
        None => Publish {
            host: SocketAddr::from((Ipv4Addr::LOCALHOST, *FAVOURITE_PORTS.start())),
            host_port_max: *FAVOURITE_PORTS.end(),
            port,
        },
    }
}

/// The load ends by itself well after the demo should have ended it.
fn load_seconds(args: &DemoArgs) -> u64 {
    const DAY: u64 = 86_400;
    args.duration.map_or(DAY, |duration| duration.as_secs() + START_WAIT.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_too_long_for_the_demos_own_sockets_is_refused() {
        let root = RunRoot::at(Path::new("/run/user/1000/heddle"));
        let paths = |length| root.mesh(&"m".repeat(length)).unwrap();
        assert!(usable(paths(59)).is_ok());
        let refused = usable(paths(63)).unwrap_err();
        assert!(refused.message.contains("shorter --mesh name"), "{refused}");
    }
}
