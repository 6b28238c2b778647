//! How `heddle up` ends: after a start that failed, in order after Ctrl-C, or because its mesh has ended.

use super::{
    programs::{Programs, declared},
    started::StartedMesh,
};
use crate::{control_client::ControlClient, failure::Failure, output, termination::Termination};

/// Undoes a start that failed: what was started ends, and the mesh with it. Returns the failure.
pub(super) async fn undone(
    mesh: StartedMesh,
    programs: Option<Programs>,
    failure: Failure,
) -> Result<(), Failure> {
    let control = ControlClient::new(&mesh.paths);
    if let Some(mut programs) = programs {
        programs.stop().await;
        // Whether or not that worked, the start has failed, and this is why.
        drop(declared::withdraw(&control, &programs.plan).await);
    }
    if let Err(left) = mesh.end().await {
        output::failure(&left);
    }
    Err(failure)
}

/// Ends the programs, each before those it depends on; asked again, at once.
pub(super) async fn in_order(
    programs: &mut Programs,
    control: &ControlClient,
    signals: &mut Termination,
) {
    if programs.count() > 0 {
        output::notice("ending the programs; Ctrl-C again kills them");
    }
    let kill = programs.killer();
    tokio::select! {
        () = programs.stop() => {}
        () = async {
            signals.next().await;
            kill.send_replace(true);
            std::future::pending().await
        } => {}
    }
    if let Err(failure) = declared::withdraw(control, &programs.plan).await {
        output::notice(format!("services of the file stay declared: {failure}"));
    }
}

/// The mesh has ended by itself, and its programs with it.
pub(super) async fn with_mesh(
    name: &str,
    reason: &str,
    programs: Option<Programs>,
) -> Result<(), Failure> {
    if let Some(mut programs) = programs {
        programs.stop().await;
    }
    Err(Failure::refused(format!("mesh `{name}` has ended: {reason}")))
}
