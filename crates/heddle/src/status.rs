//! `status`, `proxy-status`, `down`, `version`: what runs, and the end of it. Of a cluster: `cluster`.

use std::{fmt::Write as _, time::Duration};

use heddle_model::{EndpointState, ServiceName};
use heddle_runtime::clock;
use heddle_wire::local::{
    control_api::{ProxyStatus, Status, WorkloadView},
    holder_api::{Info, Restarts},
};
use serde::Serialize;

use crate::{
    chosen::Chosen,
    cli::{DownArgs, NamespaceFlags, Output, StatusArgs, SuperviseArgs, VersionArgs},
    control_client::{ControlClient, problem_line},
    failure::Failure,
    holder_client::HolderClient,
    mesh::{RunningMesh, UP_RECORD, UpRecord},
    output,
};

mod cluster;
mod proxies;

use proxies::{proxy_row, proxy_state};

/// `heddle status` as one document.
#[derive(Debug, Serialize)]
struct MeshStatus {
    /// What the holder says.
    info: Info,
    /// What the control plane says; absent while it does not run.
    control: Option<Status>,
    /// Why the control plane says nothing.
    control_problem: Option<String>,
}

/// `heddle status`.
///
/// # Errors
/// A refusal where no such mesh runs.
pub(crate) async fn status(args: StatusArgs) -> Result<(), Failure> {
    let mesh = match Chosen::of(&args.mesh).await? {
        Chosen::Local(mesh) => mesh,
        Chosen::Cluster(mesh) => {
            return cluster::status(&mesh, &args.namespaces, args.output).await;
        }
    };
    let mut info = HolderClient::connect(&mesh.paths).await?.info().await?;
    let control = ControlClient::new(&mesh.paths);
    let (control, control_problem) = match ask(&control).await {
        Ok((status, workloads)) => {
            take_ports(&mut info, &workloads);
            (Some(status), None)
        }
        Err(failure) => (None, Some(failure.message)),
    };
    keep(&mut info, &args.namespaces);
    let status = MeshStatus { info, control, control_problem };
    match args.output {
        Output::Json => output::json(&status),
        Output::Text => {
            output::line(status_text(&status));
            Ok(())
        }
    }
}

/// Only workloads of the namespaces that are meant.
fn keep(info: &mut Info, namespaces: &NamespaceFlags) {
    info.workloads.retain(|joined| namespaces.has(&joined.joined.workload.namespace));
}

async fn ask(control: &ControlClient) -> Result<(Status, Vec<WorkloadView>), Failure> {
    Ok((control.get("/v1/status").await?, control.get("/v1/workloads").await?))
}

/// The holder knows workloads as they joined; which ports listen by now, the control plane knows.
fn take_ports(info: &mut Info, workloads: &[WorkloadView]) {
    for joined in &mut info.workloads {
        let workload = &mut joined.joined.workload;
        if let Some(view) = workloads.iter().find(|view| view.workload.id == workload.id) {
            workload.ports.clone_from(&view.workload.ports);
        }
    }
}

/// Ports that were declared and that nothing listens on: a wrong number, or a program that is still starting.
fn silent_ports(info: &Info) -> impl Iterator<Item = String> {
    info.workloads.iter().flat_map(|joined| {
        let workload = &joined.joined.workload;
        let silent = workload.ports.values().filter(|port| port.state == EndpointState::Pending);
        silent.map(|port| {
            format!(
                "nothing listens on port {} of {} yet: no calls go there",
                port.number, workload.id.0
            )
        })
    })
}

fn status_text(status: &MeshStatus) -> String {
    let info = &status.info;
    let pid = |pid: u32| if pid == 0 { "not running".to_owned() } else { format!("process {pid}") };
    let part = |name: &str, number: u32| {
        let again = info.restarts.iter().find(|restarts| restarts.part == name);
        pid(number) + &again.map(restarted).unwrap_or_default()
    };
    let mut text = format!(
        "mesh {}, heddle {}\n  holder     {}\n  control    {}\n  observe    {}\n  folder     {}",
        info.mesh,
        info.version,
        pid(info.pids.holder),
        part("control", info.pids.control),
        part("observe", info.pids.observe),
        info.run_dir,
    );
    let mut add = |line: String| {
        write!(text, "\n{line}").expect("invariant: writing to a String never fails");
    };
    if let Some(address) = info.dashboard {
        add(format!("  dashboard  http://{address}"));
    }
    if let Some(address) = info.spans {
        add(format!("  spans      http://{address} takes those of applications"));
    }
    if let Some(control) = &status.control {
        add(format!("  rules      generation {}", control.generation));
    }
    let rows: Vec<Vec<String>> = info
        .workloads
        .iter()
        .map(|joined| {
            let workload = &joined.joined.workload;
            let published: Vec<String> = joined.published.iter().map(ToString::to_string).collect();
            vec![
                workload.id.0.clone(),
                workload.services.iter().map(ServiceName::fqdn).collect::<Vec<_>>().join(","),
                workload.addresses.first().to_string(),
                published.join(","),
            ]
        })
        .collect();
    if !rows.is_empty() {
        add(output::table(&["WORKLOAD", "SERVICE", "ADDRESS", "PUBLISHED"], &rows));
    }
    for again in info.restarts.iter().filter(|r| !["control", "observe"].contains(&&*r.part)) {
        add(format!("problem: {}{}", again.part, restarted(again)));
    }
    if let Some(control) = &status.control {
        for problem in silent_ports(info).chain(control.problems.iter().map(problem_line)) {
            add(format!("problem: {problem}"));
        }
    }
    if let Some(problem) = &status.control_problem {
        add(format!("problem: {problem}"));
    }
    text
}

/// `, started again 3 times since 2 min ago, killed once because it did not answer; last 12 s ago: it ended (…)`.
pub(crate) fn restarted(restarts: &Restarts) -> String {
    let times = |count: u64| if count == 1 { "once".to_owned() } else { format!("{count} times") };
    let why = match restarts.unanswered {
        0 => String::new(),
        count => format!(", killed {} because it did not answer", times(count)),
    };
    let now = clock::unix_now().as_secs();
    let ago = |at: u64| output::ago(now.saturating_sub(at));
    let since = match restarts.count {
        0 | 1 => String::new(),
        _ => format!(" (the first time {} ago)", ago(restarts.since)),
    };
    let last = match &*restarts.reason {
        "" => String::new(),
        reason => format!("; last {} ago: {reason}", ago(restarts.last)),
    };
    format!(", started again {}{since}{why}{last}", times(restarts.count))
}

/// `heddle proxy-status`.
///
/// # Errors
/// A refusal where no such mesh runs, or its control plane does not.
pub(crate) async fn proxy_status(args: StatusArgs) -> Result<(), Failure> {
    let mesh = match Chosen::of(&args.mesh).await? {
        Chosen::Local(mesh) => mesh,
        Chosen::Cluster(mesh) => {
            return cluster::proxy_status(&mesh, &args.namespaces, args.output).await;
        }
    };
    let control = ControlClient::new(&mesh.paths);
    let mut status: Status = control.get("/v1/status").await?;
    if args.namespaces.namespace.is_some() {
        let all: Vec<WorkloadView> = control.get("/v1/workloads").await?;
        let meant = all.iter().filter(|view| args.namespaces.has(&view.workload.namespace));
        let meant: Vec<_> = meant.map(|view| &view.workload.id).collect();
        status.proxies.retain(|proxy| meant.contains(&&proxy.workload));
    }
    match args.output {
        Output::Json => output::json(&status),
        Output::Text => {
            output::line(proxy_table(&status));
            Ok(())
        }
    }
}

fn proxy_table(status: &Status) -> String {
    let row = |proxy: &ProxyStatus| proxy_row(proxy, proxy_state(proxy, status.generation));
    let rows: Vec<Vec<String>> = status.proxies.iter().map(row).collect();
    let newest = status.proxies.iter().filter(|p| p.generation == status.generation).count();
    format!(
        "generation {}: acknowledged by {newest} of {} proxies\n{}",
        status.generation,
        status.proxies.len(),
        output::table(&["WORKLOAD", "GENERATION", "STATE", "CALLS"], &rows)
    )
}

/// `heddle down`.
///
/// # Errors
/// A refusal where no such mesh runs, or it did not end.
pub(crate) async fn down(args: DownArgs) -> Result<(), Failure> {
    let mesh = RunningMesh::select(args.mesh.mesh.as_deref())?;
    let up = UpRecord::read(&mesh.paths.run_dir().join(UP_RECORD));
    let ended = match up {
        // Whoever started programs ends each before those it depends on, and then the mesh.
        Some(up) if up.process.ask_to_end() => {
            output::notice("ending the programs of `heddle up`, each before those it depends on");
            let within = Duration::from_secs(up.ends_within);
            let gone = clock::within(within, mesh.holder_gone()).await;
            if gone.is_none() {
                output::notice(format!(
                    "`heddle up` (process {}) has not ended them within {} s: the mesh is ended now",
                    up.process.pid, up.ends_within
                ));
            }
            gone.is_some()
        }
        _ => false,
    };
    if !ended {
        HolderClient::connect(&mesh.paths).await?.shut_down("`heddle down` was called").await?;
    }
    output::line(format!("mesh {} has ended", mesh.paths.name()));
    Ok(())
}

/// `heddle supervise`.
///
/// # Errors
/// A refusal where no such mesh runs.
pub(crate) async fn supervise(args: SuperviseArgs) -> Result<(), Failure> {
    let mesh = RunningMesh::select(args.mesh.mesh.as_deref())?;
    HolderClient::connect(&mesh.paths).await?.supervise(&args.part, args.restart).await
}

/// `heddle version`.
///
/// # Errors
/// Never.
pub(crate) fn version(args: &VersionArgs) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Version {
        version: &'static str,
    }
    match args.output {
        Output::Json => output::json(&Version { version: VERSION }),
        Output::Text => {
            output::line(format!("heddle {VERSION}"));
            Ok(())
        }
    }
}

/// Heddle's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
