//! `heddle up`: starts a mesh, and the programs of a file in it, and stays with them until they are to end.
//!
//! [`started`] is the mesh, [`programs`] what runs in it, [`ending`] how all of it ends.

use std::{
    fs,
    path::{Path, PathBuf},
};

use heddle_runtime::{clock, process};
use heddle_wire::local::holder_api::Info;

use crate::{
    cli::{Output, UpArgs},
    control_client::ControlClient,
    failure::{Doing as _, Failure},
    mesh::{END_GRACE, MeshPaths, ProcessRecord, RunRoot, UP_RECORD, UpRecord},
    output,
    termination::Termination,
};

pub(crate) mod access_log;
mod ending;
mod folder;
pub(crate) mod overlap;
pub(crate) mod port;
mod programs;
mod restarts;
mod started;

use programs::{Programs, declared, plan};
pub(crate) use started::{INTERRUPTED, MeshOptions, StartMessage, StartedMesh, log_tail};

/// The mesh that is meant where nothing names one.
const DEFAULT_MESH: &str = "local";

/// Where a mesh keeps its store unless told otherwise: `/var/lib/heddle/NAME` for root, else
/// `$XDG_STATE_HOME/heddle/NAME` or `~/.local/state/heddle/NAME`.
///
/// # Errors
/// A refusal where there is no home folder.
pub(crate) fn default_state_dir(mesh: &str) -> Result<PathBuf, Failure> {
    if process::effective_ids().0 == 0 {
        return Ok(Path::new("/var/lib/heddle").join(mesh));
    }
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .ok_or_else(|| {
            Failure::refused("neither XDG_STATE_HOME nor HOME is set: say where the rules are kept with --state-dir DIR")
        })?;
    Ok(base.join("heddle").join(mesh))
}

/// `heddle up`.
///
/// # Errors
/// A refusal where the mesh or a program of the file cannot start, or the mesh ended by itself.
pub(crate) async fn up(mut args: UpArgs) -> Result<(), Failure> {
    let mut signals = Termination::watch().doing(|| "watch for signals".to_owned())?;
    let began = clock::now();
    let plan = args.filename.as_deref().map(plan::read).transpose()?;
    if let Some(rules) = plan.as_ref().and_then(|plan| plan.rules.clone()) {
        if args.config.is_some() {
            return Err(Failure::usage("the file names a folder of `rules`, and so does --config"));
        }
        args.config = Some(rules);
    }
    let of_plan = plan.as_ref().and_then(|plan| plan.access_log.clone());
    let of_file = plan.as_ref().and_then(|plan| plan.mesh.clone());
    let name = args.mesh.clone().or(of_file).unwrap_or_else(|| DEFAULT_MESH.to_owned());
    let paths = RunRoot::open()?.mesh(&name)?;
    let shown_log = access_log::prepare(&mut args.tracing, of_plan.as_deref(), &paths)?;
    let mut mesh = start(&args, &paths, signals.next()).await?;
    let _log_task = shown_log.map(|path| access_log::show(path, args.output));
    let control = ControlClient::new(&paths);
    if let Err(failure) = declared::declare(&control, plan.as_ref()).await {
        return ending::undone(mesh, None, failure).await;
    }
    let shown = args.output == Output::Text && !args.quiet;
    let mut programs = match plan.map(|plan| Programs::begin(plan, &paths, shown)).transpose() {
        Ok(programs) => programs,
        Err(failure) => return ending::undone(mesh, None, failure).await,
    };
    if args.output == Output::Text {
        let alone = RunRoot::open()?.running()?.len() == 1;
        let seconds = clock::now().duration_since(began).as_secs_f64();
        output::line(welcome(&mesh.info, seconds, alone, programs.is_some()));
    }
    if let Some(started) = &programs
        && let Err(failure) = record(started, &paths)
    {
        return ending::undone(mesh, programs, failure).await;
    }
    if let Some(started) = &programs {
        let failure = tokio::select! {
            ready = started.ready() => ready.err(),
            () = signals.next() => Some(Failure::silent(INTERRUPTED)),
            reason = mesh.ended() => return ending::with_mesh(&name, &reason, programs).await,
        };
        if let Some(failure) = failure {
            return ending::undone(mesh, programs, failure).await;
        }
        programs::all_ready(started, began);
    }
    if args.output == Output::Json {
        output::json(&mesh.info)?;
    }
    let folder_is_watched = args.config.is_some();
    let reason = tokio::select! {
        reason = mesh.ended() => Some(reason),
        () = signals.next() => None,
        never = folder::tell(&control), if folder_is_watched => match never {},
        never = restarts::tell(&paths) => match never {},
    };
    match reason {
        Some(reason) => ending::with_mesh(&name, &reason, programs).await,
        None => {
            if let Some(programs) = &mut programs {
                ending::in_order(programs, &control, &mut signals).await;
            }
            output::notice(format!("ending mesh `{name}`"));
            mesh.end().await
        }
    }
}

/// Leaves word for `heddle down`.
fn record(programs: &Programs, paths: &MeshPaths) -> Result<(), Failure> {
    let path = paths.run_dir().join(UP_RECORD);
    let write = || {
        // One after the other at worst, and then the mesh.
        let within = programs.stop_timeouts().saturating_add(2 * END_GRACE);
        let record = UpRecord { process: ProcessRecord::own()?, ends_within: within.as_secs() };
        fs::write(&path, serde_json::to_vec(&record)?)
    };
    write().doing(|| format!("write {}", path.display()))
}

/// Starts the mesh that flags ask for.
async fn start(
    args: &UpArgs,
    paths: &MeshPaths,
    stop: impl Future<Output = ()>,
) -> Result<StartedMesh, Failure> {
    let state_dir = match &args.state_dir {
        Some(dir) => dir.clone(),
        None => default_state_dir(paths.name())?,
    };
    let options = MeshOptions {
        lock: paths.take_lock().await?,
        paths: paths.clone(),
        config: args.config.clone(),
        state_dir: Some(state_dir.clone()),
        dashboard: match args.dashboard {
            Some(address) => vec![address],
            None => port::of_mesh(paths.name(), Some(&state_dir)),
        },
        tracing: args.tracing.clone(),
        figures: args.figures.clone(),
    };
    let mut progress = |text: &str| output::notice(text);
    let mesh = StartedMesh::start(options, &mut progress, stop).await?;
    if let (None, Some(address)) = (args.dashboard, mesh.info.dashboard) {
        port::remember(&state_dir, address);
    }
    Ok(mesh)
}

fn welcome(info: &Info, seconds: f64, alone: bool, has_programs: bool) -> String {
    let dashboard = match info.dashboard {
        Some(address) => format!("\n  dashboard  http://{address}"),
        None => String::new(),
    };
    // Beside another mesh each command has to say which one it means.
    let which = if alone { String::new() } else { format!(" --mesh {}", info.mesh) };
    if has_programs {
        return format!(
            "mesh `{}` is up ({seconds:.1} s){dashboard}\n\n\
             While its programs start, in another terminal:\n  \
             heddle logs{which} NAME -f\n  \
             heddle top{which}\n",
            info.mesh
        );
    }
    format!(
        "mesh `{}` is up ({seconds:.1} s){dashboard}\n\n\
         Next, in another terminal:\n  \
         heddle run{which} --service hello --port 8000 -- python3 -m http.server 8000\n  \
         heddle run{which} --service client -- curl -s http://hello:8000/\n  \
         heddle top{which}\n\n\
         Ctrl-C ends the mesh.",
        info.mesh
    )
}
