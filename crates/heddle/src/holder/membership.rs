//! Who is in the mesh, told to the control plane: join, adopt, withdraw, leave.
//!
//! The holder remembers what each workload asked for and was given, and hands all of that to a
//! restarted control plane before anybody else may join, so that no address is given twice.

use std::{cell::Cell, time::Duration};

use heddle_model::WorkloadId;
use heddle_runtime::{
    clock,
    local_http::{CallError, Method},
    task,
};
use heddle_wire::local::control_api::{Acknowledgement, JoinRequest, JoinedWorkload, Member};
use serde::de::IgnoredAny;
use tokio::sync::{Mutex, watch};

use super::outbox::Outbox;
use crate::control_client::ControlClient;

/// Pause between two attempts to reach the control plane.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for an answer of a control plane that is there.
const CALL_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for an answer to a leave: what has gone must not hold up what ends.
const LEAVE_WAIT: Duration = Duration::from_secs(1);
/// Pause before a leave that was not answered is told again.
const LEAVE_AGAIN: Duration = Duration::from_secs(1);
/// Longest wait for the proxies to know of a withdrawal; the control plane has its own of 1 s.
const WITHDRAW_WAIT: Duration = Duration::from_millis(1200);
/// HTTP status of a control plane that is still starting.
const STARTING: u16 = 503;

/// The control plane's book of members, as the holder keeps it.
#[derive(Debug)]
pub(crate) struct Membership {
    control: ControlClient,
    /// Does the running control plane know all members?
    adopted: watch::Sender<bool>,
    /// Joins, leaves and adoptions one after the other: an adoption must not bring back who left.
    turn: Mutex<()>,
    /// The mesh ends, and its control plane with it: nobody need be told who leaves.
    closed: Cell<bool>,
}

/// Why a workload did not join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotJoined {
    /// The control plane refused it.
    Refused(String),
    /// Whoever asked has gone.
    Cancelled,
}

impl Membership {
    /// A book that no control plane knows yet.
    pub(crate) fn new(control: ControlClient) -> Self {
        Self {
            control,
            adopted: watch::Sender::new(false),
            turn: Mutex::new(()),
            closed: Cell::new(false),
        }
    }

    /// Hands all members to a control plane that has just started, and tells it again who of them
    /// is `withdrawn`: it may not have heard. Both are asked once it is our turn. Goes on until it
    /// succeeds: drop the future when that control plane ends.
    pub(crate) async fn adopt(
        &self,
        members: impl Fn() -> Vec<Member>,
        withdrawn: impl Fn() -> Vec<WorkloadId>,
    ) {
        self.hand_over(members).await;
        for id in withdrawn() {
            self.withdraw(&id).await;
        }
    }

    async fn hand_over(&self, members: impl Fn() -> Vec<Member>) {
        loop {
            let turn = self.turn.lock().await;
            let members = members();
            let call = self.control.raw::<IgnoredAny>(Method::POST, "/v1/adopt", Some(&members));
            match clock::within(CALL_WAIT, call).await {
                Some(Ok(_)) => {
                    tracing::info!(members = members.len(), "the control plane runs");
                    self.adopted.send_replace(true);
                    return;
                }
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => tracing::error!(%error, "the control plane does not adopt"),
                None => tracing::warn!("the control plane does not answer"),
            }
            drop(turn);
            clock::sleep(RETRY_PAUSE).await;
        }
    }

    /// The control plane has ended.
    pub(crate) fn lost(&self) {
        self.adopted.send_replace(false);
    }

    /// Returns once a control plane runs and knows all members.
    pub(crate) async fn ready(&self) {
        // The sender is ours, so waiting cannot fail.
        drop(self.adopted.subscribe().wait_for(|adopted| *adopted).await);
    }

    /// Asks the control plane to let a workload in, and keeps asking while there is none.
    ///
    /// # Errors
    /// [`NotJoined`].
    pub(crate) async fn join(
        &self,
        request: &JoinRequest,
        mut cancelled: watch::Receiver<bool>,
        outbox: &Outbox,
    ) -> Result<JoinedWorkload, NotJoined> {
        let mut said = false;
        loop {
            if !*self.adopted.borrow() && !said {
                said = true;
                outbox.progress("the control plane is not running: waiting for it").await;
            }
            tokio::select! {
                () = self.ready() => {}
                _ = cancelled.wait_for(|cancelled| *cancelled) => return Err(NotJoined::Cancelled),
            }
            let turn = self.turn.lock().await;
            let call = self.control.raw(Method::POST, "/v1/workloads", Some(request));
            match clock::within(CALL_WAIT, call).await {
                Some(Ok(joined)) => return Ok(joined),
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => {
                    return Err(NotJoined::Refused(self.control.explain(&error).message));
                }
                None => outbox.progress("the control plane does not answer: waiting for it").await,
            }
            drop(turn);
            clock::sleep(RETRY_PAUSE).await;
        }
    }

    /// Withdraws a workload's endpoints; returns when all proxies know, or after about a second.
    pub(crate) async fn withdraw(&self, id: &WorkloadId) {
        let path = format!("/v1/workloads/{id}/withdraw");
        let call = self.control.raw::<Acknowledgement>(Method::POST, &path, None::<&()>);
        match clock::within(WITHDRAW_WAIT, call).await {
            Some(Ok(known)) if known.pending.is_empty() => {}
            Some(Ok(known)) => {
                tracing::warn!(workload = %id, pending = known.pending.len(), "withdrawn, not known everywhere");
            }
            Some(Err(error)) => tracing::warn!(workload = %id, %error, "cannot be withdrawn"),
            None => tracing::warn!(workload = %id, "the control plane did not withdraw in time"),
        }
    }

    /// The mesh is ending: from now on nobody is told who leaves.
    pub(crate) fn close(&self) {
        self.closed.set(true);
    }

    /// Tells the control plane that a workload has gone; call it when `members` no longer lists it.
    /// A control plane that is not there learns it by what it adopts.
    pub(crate) async fn leave(&self, id: &WorkloadId) {
        if self.closed.get() {
            return;
        }
        let turn = self.turn.lock().await;
        let path = format!("/v1/workloads/{id}");
        let call = self.control.raw::<IgnoredAny>(Method::DELETE, &path, None::<&()>);
        match clock::within(LEAVE_WAIT, call).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::info!(workload = %id, %error, "left without the control plane")
            }
            None => {
                tracing::warn!(workload = %id, "the control plane does not answer to a leave");
                drop(task::spawn_contained("leave", leave_again(self.control.clone(), path)));
            }
        }
        drop(turn);
    }
}

/// Tells a control plane that was late, until it answers or has ended: the next one learns it by
/// what it adopts.
async fn leave_again(control: ControlClient, path: String) {
    loop {
        clock::sleep(LEAVE_AGAIN).await;
        let call = control.raw::<IgnoredAny>(Method::DELETE, &path, None::<&()>);
        if clock::within(CALL_WAIT, call).await.is_some() {
            return;
        }
    }
}

/// Does the error pass once the control plane has started?
fn is_passing(error: &CallError) -> bool {
    matches!(
        error,
        CallError::NotRunning { .. }
            | CallError::Broken { .. }
            | CallError::Refused { status: STARTING, .. }
    )
}

#[cfg(test)]
mod tests;
