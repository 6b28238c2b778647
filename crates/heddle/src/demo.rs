//! `heddle demo`: a restaurant-review site in a mesh of its own, so that one command shows what a
//! mesh does. It is made of the same parts a user has: `up`'s mesh, `heddle run` for every
//! workload, and programs that know nothing of a mesh.

use std::time::Duration;

use heddle_runtime::clock;

use crate::{
    cli::{DemoArgs, Output},
    failure::{Doing as _, Failure},
    output,
    termination::Termination,
    up::INTERRUPTED,
};

pub(crate) mod apps;
mod member;
mod plan;
mod report;
mod stage;
mod summary;
mod tell;

use report::Report;
use stage::Stage;

/// Runs the demo until Ctrl-C, or for `--for`.
///
/// # Errors
/// A refusal where the mesh cannot start, or where not every call was captured and successful.
pub(crate) async fn demo(args: DemoArgs) -> Result<(), Failure> {
    let began = clock::now();
    let mut signals = Termination::watch().doing(|| "watch for signals".to_owned())?;
    let mut stage = Stage::begin(&args, signals.next()).await?;
    let set = tokio::select! {
        set = stage.set(&args, began) => set,
        () = signals.next() => Err(Failure::silent(INTERRUPTED)),
    };
    if let Err(failure) = set {
        // Whether or not the mesh is still there to be ended, this is why.
        drop(stage.strike().await);
        return Err(failure);
    }
    output::notice(summary::welcome(&stage));
    let interrupted = tokio::select! {
        reason = stage.mesh.ended() => {
            member::all_ended(stage.members).await;
            return Err(Failure::refused(format!("the demo's mesh has ended: {reason}")));
        }
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
