//! `heddle logs`: what programs of `up -f` and the parts of a mesh have written, and what they write from now on.
//!
//! A program that was started with `heddle run` writes where it was started: of it there is its sidecar's log only.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use heddle_runtime::clock;
use heddle_wire::local::control_api::WorkloadView;

use crate::{
    cli::logs::LogsArgs,
    control_client::ControlClient,
    failure::{Doing as _, Failure},
    holder_client::HolderClient,
    mesh::{MeshPaths, RunningMesh},
    output,
    rules::made::unknown,
};

pub(crate) mod lines;
mod tail;

use tail::Tail;

/// Folder of the programs' logs below the mesh's run-time folder.
const PROGRAMS: &str = "programs";
/// Parts that have a log of their own.
const PARTS: [&str; 3] = ["control", "observe", "holder"];
/// Pause between two looks at what was written.
const PACE: Duration = Duration::from_millis(200);
/// Lines of each where several are followed.
const TAIL_OF_SEVERAL: usize = 10;

/// The log of a program of `up -f`.
pub(crate) fn of_program(paths: &MeshPaths, program: &str) -> PathBuf {
    paths.run_dir().join(PROGRAMS).join(format!("{program}.log"))
}

/// What there is to read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Log {
    name: String,
    path: PathBuf,
    what: &'static str,
}

/// `heddle logs`.
///
/// # Errors
/// A refusal where no such mesh runs, or nothing in it has that name.
pub(crate) async fn logs(args: LogsArgs) -> Result<(), Failure> {
    let mesh = RunningMesh::select(args.mesh.mesh.as_deref())?;
    let workloads: Vec<WorkloadView> =
        ControlClient::new(&mesh.paths).get("/v1/workloads").await.unwrap_or_default();
    let all = all(&mesh.paths, &workloads);
    if args.names.is_empty() {
        let rows: Vec<Vec<String>> =
            all.iter().map(|log| vec![log.name.clone(), log.what.to_owned()]).collect();
        output::line(output::table(&["NAME", "LOG"], &rows));
        return Ok(());
    }
    let mut chosen: Vec<Log> = Vec::new();
    for name in &args.names {
        for log in named(name, &all, &workloads)? {
            if !chosen.contains(&log) {
                chosen.push(log);
            }
        }
    }
    show(&mesh, &args, &chosen).await
}

/// Every log of a mesh: programs, then parts, then sidecars.
fn all(paths: &MeshPaths, workloads: &[WorkloadView]) -> Vec<Log> {
    let listing = fs::read_dir(paths.run_dir().join(PROGRAMS)).into_iter().flatten().flatten();
    let names = listing.filter_map(|entry| entry.file_name().into_string().ok());
    let programs: BTreeSet<String> =
        names.filter_map(|name| name.strip_suffix(".log").map(str::to_owned)).collect();
    let programs = programs.into_iter().map(|name| {
        let path = of_program(paths, &name);
        Log { name, path, what: "what the program writes" }
    });
    let parts = PARTS.iter().map(|part| Log {
        name: (*part).to_owned(),
        path: paths.run_dir().join(format!("{part}.log")),
        what: "part of the mesh",
    });
    let sidecars = workloads.iter().map(|view| {
        let name = view.workload.id.0.clone();
        let path = paths.run_dir().join("workloads").join(&name).join("proxy.log");
        Log { name, path, what: "sidecar" }
    });
    programs.chain(parts).chain(sidecars).collect()
}

/// What a name means: a log, or those of a service's workloads.
///
/// # Errors
/// Nothing has that name: what may be meant.
fn named(name: &str, all: &[Log], workloads: &[WorkloadView]) -> Result<Vec<Log>, Failure> {
    if let Some(log) = all.iter().find(|log| log.name == name) {
        return Ok(vec![log.clone()]);
    }
    let of_service = workloads.iter().filter(|view| {
        view.workload.services.iter().any(|service| service.name == name)
            || view.workload.labels.get("app").is_some_and(|app| app == name)
    });
    let ids: BTreeSet<&str> = of_service.map(|view| view.workload.id.0.as_str()).collect();
    let found: Vec<Log> = all.iter().filter(|log| ids.contains(&*log.name)).cloned().collect();
    if found.is_empty() {
        let known: Vec<&str> = all.iter().map(|log| log.name.as_str()).collect();
        return Err(Failure::refused(unknown(&format!("log of `{name}`"), name, &known)));
    }
    output::notice(format!(
        "what `{name}` itself writes is where `heddle run` was started; this is the log of its sidecar"
    ));
    Ok(found)
}

/// Prints what there is, and with `--follow` what comes.
async fn show(mesh: &RunningMesh, args: &LogsArgs, logs: &[Log]) -> Result<(), Failure> {
    let several = logs.len() > 1;
    let usual = (several && args.follow).then_some(TAIL_OF_SEVERAL);
    let width = logs.iter().map(|log| log.name.chars().count()).max().unwrap_or(0);
    let mut tails = Vec::new();
    for log in logs {
        let prefix = if several { format!("{:width$} | ", log.name) } else { String::new() };
        let tail = Tail::open(&log.path, prefix, args.tail.or(usual));
        tails.push(tail.doing(|| format!("read {}", log.path.display()))?);
    }
    print(&mut tails);
    if !args.follow {
        tails.iter_mut().for_each(|tail| tail.end().into_iter().for_each(output::line));
        return Ok(());
    }
    let mut holder = HolderClient::connect(&mesh.paths).await?;
    let ended = holder.closed();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            why = &mut ended => {
                print(&mut tails);
                output::notice(why);
                return Ok(());
            }
            () = clock::sleep(PACE) => print(&mut tails),
        }
    }
}

fn print(tails: &mut [Tail]) {
    for tail in tails {
        loop {
            let lines = tail.lines();
            if lines.is_empty() {
                break;
            }
            lines.into_iter().for_each(output::line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nothing_has_says_what_there_is() {
        let log = |name: &str| Log { name: name.into(), path: PathBuf::new(), what: "sidecar" };
        let all = [log("control"), log("web")];
        assert_eq!(named("web", &all, &[]).unwrap(), [log("web")]);
        let said = named("contrl", &all, &[]).unwrap_err().message;
        assert!(said.contains("did you mean `control`?"), "{said}");
    }
}
