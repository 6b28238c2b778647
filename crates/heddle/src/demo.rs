//! `heddle demo`: a restaurant-review site in a mesh of its own, so that one command shows what a
//! mesh does. It is made of the same parts a user has: `up`'s mesh, `heddle run` for every
//! workload, and programs that know nothing of a mesh.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::{Duration, Instant},
};

use heddle_runtime::{clock, local_http};
use heddle_wire::local::{control_api::WorkloadView, holder_api::Publish};

use crate::{
    cli::{DemoArgs, Output},
    control_client::ControlClient,
    failure::{Doing as _, Failure},
    holder_client::HolderClient,
    mesh::{MeshLock, MeshPaths, RunRoot},
    output,
    termination::Termination,
    up::{MeshOptions, StartedMesh},
};

pub(crate) mod apps;
mod member;
mod plan;
mod report;
mod summary;
mod tell;

use member::RunningMember;
use plan::{EDGES, FRONT_PORT, LOAD, Load};
use report::{Evidence, Report};

/// Longest wait for the workloads to listen, and for the first call on every edge. The start takes
/// a second or two; a machine that needs longer than this will not show a demo either.
const START_WAIT: Duration = Duration::from_secs(60);
/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The port people will guess, and those taken where it is in use.
const FAVOURITE_PORTS: RangeInclusive<u16> = 8080..=8099;
/// Attempts at finding a free name.
const NAMES_MAX: usize = 100;

/// Runs the demo until Ctrl-C, or for `--for`.
///
/// # Errors
/// A refusal where the mesh cannot start, or where not every call was captured and successful.
pub(crate) async fn demo(args: DemoArgs) -> Result<(), Failure> {
    let began = clock::now();
    let mut signals = Termination::watch().doing(|| "watch for signals".to_owned())?;
    let mut stage = tokio::select! {
        stage = Stage::set(&args, began) => stage?,
        // Dropping what was started ends it: the holder and the members notice.
        () = signals.next() => return Err(Failure::silent(130)),
    };
    output::notice(summary::welcome(&stage));
    let interrupted = tokio::select! {
        () = stage.mesh.ended() => return Err(Failure::refused("the demo's mesh has ended")),
        () = signals.next() => true,
        () = clock::sleep(args.duration.unwrap_or(Duration::MAX)) => false,
    };
    // An unattended run owes a report; somebody who pressed Ctrl-C wants to be gone.
    let report = if interrupted && args.duration.is_none() {
        output::notice("ending the demo");
        None
    } else {
        Some(stage.report().await)
    };
    stage.strike().await?;
    finish(report.transpose()?, args.output)
}

fn finish(report: Option<Report>, how: Output) -> Result<(), Failure> {
    let Some(report) = report else { return Ok(()) };
    match how {
        Output::Json => output::json(&report)?,
        Output::Text => output::line(summary::result(&report)),
    }
    if report.captured_both_sides && report.failed == 0 {
        return Ok(());
    }
    Err(Failure::refused("not every call was captured on both sides and succeeded"))
}

/// The running demo.
#[derive(Debug)]
struct Stage {
    mesh: StartedMesh,
    members: Vec<RunningMember>,
    dir: PathBuf,
    front: SocketAddr,
    startup_seconds: f64,
}

impl Stage {
    /// Starts mesh, members and load; returns when every edge has carried a successful call.
    async fn set(args: &DemoArgs, began: Instant) -> Result<Self, Failure> {
        let (paths, lock) = free_mesh(args).await?;
        let options = MeshOptions {
            paths,
            lock,
            config: args.config.clone(),
            state_dir: None,
            dashboard: args.dashboard.unwrap_or_else(any_port),
        };
        let mesh = StartedMesh::start(options, &mut |text: &str| output::notice(text)).await?;
        let dir = mesh.paths.run_dir().join("demo");
        fs::create_dir_all(&dir).doing(|| format!("make the folder {}", dir.display()))?;
        plan::write_scripts(&dir).doing(|| format!("write to {}", dir.display()))?;
        let mut stage =
            Self { mesh, members: Vec::new(), dir, front: any_port(), startup_seconds: 0.0 };
        let load = Load { rate: args.rate, seconds: load_seconds(args) };
        let publish = front_publish(args);
        let (last, services) = plan::members()
            .split_last()
            .map_or_else(Default::default, |(last, all)| (Some(last.clone()), all.to_vec()));
        output::notice(format!("starting {} workloads", services.len() + 1));
        for member in services {
            let published = (member.service == plan::FRONT).then_some(&publish);
            stage.start(member, &load, published)?;
        }
        stage.wait_until_listening().await?;
        stage.front = stage.published().await?;
        output::notice("all services listen; starting the load");
        if let Some(load_generator) = last {
            stage.start(load_generator, &load, None)?;
        }
        stage.wait_until_every_edge_works().await?;
        stage.startup_seconds = clock::now().duration_since(began).as_secs_f64();
        Ok(stage)
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

    /// The address really bound: one of several may have been asked for.
    async fn published(&self) -> Result<SocketAddr, Failure> {
        let info = HolderClient::connect(&self.mesh.paths).await?.info().await?;
        let joined = info.workloads.into_iter().flat_map(|joined| joined.published).next();
        joined.ok_or_else(|| Failure::refused("the demo's application is not published"))
    }

    async fn wait_until_listening(&mut self) -> Result<(), Failure> {
        let control = ControlClient::new(&self.mesh.paths);
        let wanted = self.members.len();
        let deadline = clock::now() + START_WAIT;
        loop {
            let views: Vec<WorkloadView> = control.get("/v1/workloads").await?;
            let ready = views.iter().filter(|view| is_ready(view)).count();
            if ready >= wanted {
                return Ok(());
            }
            self.check_members()?;
            if clock::now() > deadline {
                let waiting = format!("{ready} of {wanted} workloads listen after {START_WAIT:?}");
                return Err(Failure::refused(format!(
                    "{waiting}; logs are in {}",
                    self.dir.display()
                )));
            }
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
            self.check_members()?;
            if clock::now() > deadline {
                let missing = missing.join(", ");
                return Err(Failure::refused(format!(
                    "no successful call yet on: {missing}; logs are in {}",
                    self.dir.display()
                )));
            }
            clock::sleep(LOOK_EVERY).await;
        }
    }

    async fn edges_without_success(&self) -> Vec<String> {
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
                missing.push(format!("{source} → {destination}"));
            }
        }
        missing
    }

    fn check_members(&mut self) -> Result<(), Failure> {
        let dir = self.dir.clone();
        self.members.iter_mut().try_for_each(|member| member.check(&dir))
    }

    /// Ends the load, lets calls in flight end, scrapes every sidecar, then asks the applications.
    async fn report(&mut self) -> Result<Report, Failure> {
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
        let found = views.iter().map(|view| &view.workload).find(|workload| {
            workload.service.name == member.service && workload.version == member.version
        });
        let workload = found
            .ok_or_else(|| Failure::refused(format!("workload {} has gone", member.name())))?;
        let address =
            self.mesh.info.dashboard.ok_or_else(|| Failure::refused("no dashboard runs"))?;
        let path = format!("/sidecars/{}/stats/prometheus", workload.id);
        let body = local_http::get_tcp(address, &path)
            .await
            .doing(|| format!("read the metrics of {}", member.name()))?;
        Ok(String::from_utf8_lossy(&body.body).into_owned())
    }

    /// Ends the members and the mesh.
    async fn strike(self) -> Result<(), Failure> {
        let Self { mesh, members, .. } = self;
        mesh.end().await?;
        for member in members {
            member.wait().await;
        }
        Ok(())
    }
}

fn is_ready(view: &WorkloadView) -> bool {
    let ready = heddle_model::EndpointState::Ready;
    view.workload.ports.values().all(|port| port.state == ready)
}

/// The named mesh, or the first free one of `demo`, `demo-2`, …, and the right to be it.
async fn free_mesh(args: &DemoArgs) -> Result<(MeshPaths, MeshLock), Failure> {
    let root = RunRoot::open()?;
    if let Some(name) = &args.mesh {
        let paths = root.mesh(name)?;
        return Ok((paths.clone(), paths.take_lock().await?));
    }
    for number in 1..=NAMES_MAX {
        let name = if number == 1 { "demo".to_owned() } else { format!("demo-{number}") };
        let paths = root.mesh(&name)?;
        if let Some(lock) = paths.try_lock()? {
            return Ok((paths, lock));
        }
    }
    Err(Failure::refused(format!("{NAMES_MAX} demos are running already")))
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
