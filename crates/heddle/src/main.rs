//! Heddle, a service mesh in one binary: typed arguments → resolved request → printer.
//!
//! Each subcommand is one module with one entry function; this file only says which. Parts of a
//! running mesh (`holder`, `control`, `observe`, `proxy`) are hidden subcommands of the same binary.
#![forbid(unsafe_code)]

use std::{env, process::ExitCode};

use clap::{Parser as _, error::ErrorKind};
use heddle_runtime::{netns_op, task};

mod chosen;
mod cli;
mod cluster_mesh;
mod control_client;
mod dashboard;
mod demo;
mod describe;
mod example;
mod explain;
mod failure;
mod fault;
mod generated;
mod graph;
mod habits;
mod holder;
mod holder_client;
mod init;
mod inject;
mod install;
mod kubelet_hooks;
mod log_files;
mod logs;
mod mesh;
mod naming;
mod output;
mod parts;
mod rules;
mod run;
mod sidecars;
mod split;
mod status;
mod tap;
mod termination;
mod top;
mod traces;
mod up;
mod why;
mod words;

use cli::{Cli, Command};
use failure::{Doing as _, Failure};

fn main() -> ExitCode {
    let typed: Vec<_> = env::args_os().collect();
    let json = words::ask_for_json(&typed);
    let done = match words::settled(typed, env::var_os(words::MESH_VARIABLE)) {
        Ok(words) => match Cli::try_parse_from(&words) {
            Ok(cli) => {
                logs::start(&cli.command);
                dispatch(cli.command)
            }
            Err(error) => not_understood(habits::explained(error, &words), json),
        },
        Err(wrong) => Err(Failure::usage(wrong)),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if json {
                output::json_failure(&failure)
            } else {
                output::failure(&failure)
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Help that was asked for, or what is wrong with the words.
fn not_understood(error: clap::Error, json: bool) -> Result<u8, Failure> {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if json && !asked {
        let text = error.render().to_string();
        return Err(Failure::usage(text.trim().trim_start_matches("error: ")));
    }
    // Where the reader has gone there is nobody to tell.
    drop(error.print());
    if asked { Ok(0) } else { Err(Failure::silent(failure::USAGE)) }
}

fn dispatch(command: Command) -> Result<u8, Failure> {
    let done = match command {
        Command::Run(args) => return in_runtime(run::run(*args)),
        Command::Demo(args) => in_runtime(demo::demo(args)),
        Command::Up(args) => in_runtime(up::up(args)),
        Command::Down(args) => in_runtime(status::down(args)),
        Command::Apply(args) => in_runtime(rules::apply(args)),
        Command::Get(args) => in_runtime(rules::get::get(args)),
        Command::Delete(args) => in_runtime(rules::delete(args)),
        Command::Fault(args) => in_runtime(fault::fault(*args)),
        Command::Split(args) => in_runtime(split::split(args)),
        Command::Wait(args) => in_runtime(rules::wait(args)),
        Command::Tap(args) => in_runtime(tap::tap(*args)),
        Command::Top(args) => in_runtime(top::top(args)),
        Command::Graph(args) => in_runtime(graph::graph(args)),
        Command::Logs(args) => in_runtime(log_files::logs(args)),
        Command::Traces(args) => in_runtime(traces::traces(&args)),
        Command::Explain(args) => in_runtime(explain::explain(*args)),
        Command::Why(args) => in_runtime(why::why(args)),
        Command::Describe(args) => in_runtime(describe::describe(args)),
        Command::ProxyStatus(args) => in_runtime(status::proxy_status(args)),
        Command::Status(args) => in_runtime(status::status(args)),
        Command::Dashboard(args) => in_runtime(dashboard::dashboard(args)),
        Command::Supervise(args) => in_runtime(status::supervise(args)),
        Command::Inject(args) => inject::inject(&args),
        Command::Init(args) => init::init(args),
        Command::SidecarReady(args) => kubelet_hooks::wait(&args),
        Command::SidecarDrain => kubelet_hooks::drain(),
        Command::Install(args) => in_runtime(install::install(*args)),
        Command::Upgrade(args) => in_runtime(install::upgrade(args)),
        Command::Tag(args) => in_runtime(install::tag(args)),
        Command::Check(args) => return in_runtime(install::check(args)),
        Command::Uninstall(args) => in_runtime(install::uninstall(args)),
        Command::Example(args) => example::example(&args),
        Command::Completion(args) => generated::completion(&args),
        Command::Man(args) => generated::man(&args),
        Command::Version(args) => status::version(&args),
        Command::Holder(args) => holder::run(args),
        Command::Control(args) => parts::control(args),
        Command::Observe(args) => parts::observe(args),
        Command::Proxy(args) => parts::proxy(&args),
        Command::NetnsOp => netns_op::serve().doing(|| "work inside the mesh".to_owned()),
        Command::App(args) => demo::apps::run(&args).doing(|| format!("run {}", args.role)),
    };
    done.map(|()| 0)
}

/// Runs a command's future on this thread.
fn in_runtime<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    task::run_local(command).doing(|| "start the async runtime".to_owned())?
}
