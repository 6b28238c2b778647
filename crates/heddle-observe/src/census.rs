//! Who is there: the control plane is asked once per interval, and at once when a sidecar that nobody knows speaks.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Instant,
};

use heddle_runtime::{clock, local_http::CallError};
use heddle_wire::local::control_api::{ServiceView, WorkloadView};
use tokio::sync::Mutex;

use crate::{answers::View, config::ObserveConfig, limits, roster::Roster};

/// Fills the roster.
#[derive(Debug)]
pub(crate) struct Census {
    view: Rc<RefCell<View>>,
    config: Rc<ObserveConfig>,
    /// One question at a time, or an older answer might follow a newer one.
    turn: Mutex<()>,
    /// When the last question was answered, or given up.
    asked: Cell<Option<Instant>>,
}

type Listed = (Vec<WorkloadView>, Vec<ServiceView>);

impl Census {
    /// One that fills the roster of `view`.
    pub(crate) fn new(view: Rc<RefCell<View>>, config: Rc<ObserveConfig>) -> Self {
        Self { view, config, turn: Mutex::new(()), asked: Cell::new(None) }
    }

    /// Asks for workloads and services, for ever.
    pub(crate) async fn follow(self: Rc<Self>) {
        loop {
            let turn = self.turn.lock().await;
            self.ask().await;
            drop(turn);
            clock::sleep(self.config.scrape_interval).await;
        }
    }

    /// Is a workload of that id there? If it is not known, the control plane is asked; many who ask at one time share
    /// its answers, so that it hears no more often than each [`limits::ROSTER_REST`].
    pub(crate) async fn knows(&self, id: &str) -> bool {
        let is_known = || self.view.borrow().roster.members.contains_key(id);
        if is_known() {
            return true;
        }
        let began = clock::now();
        let turn = self.turn.lock().await;
        if let Some(asked) = self.asked.get().filter(|_| !is_known()) {
            let rest = (asked + limits::ROSTER_REST).saturating_duration_since(clock::now());
            clock::sleep(rest).await;
        }
        // An answer to a question from before we came may be older than the workload.
        if !is_known() && self.asked.get().is_none_or(|asked| asked < began + limits::ROSTER_REST) {
            self.ask().await;
        }
        drop(turn);
        is_known()
    }

    async fn ask(&self) {
        let ask = async {
            let workloads = self.config.control.get("/v1/workloads");
            let services = self.config.control.get("/v1/services");
            tokio::try_join!(workloads, services)
        };
        let answer = clock::within(self.config.control.limit(), ask).await;
        take_answer(&mut self.view.borrow_mut().roster, answer);
        self.asked.set(Some(clock::now()));
    }
}

fn take_answer(roster: &mut Roster, answer: Option<Result<Listed, CallError>>) {
    let reason = match answer {
        Some(Ok((workloads, services))) => return roster.update(workloads, services),
        Some(Err(error)) => error.to_string(),
        None => "no answer in time".to_owned(),
    };
    if roster.control {
        tracing::warn!(%reason, "the control plane does not answer; showing the members known last");
    }
    roster.unanswered();
}
