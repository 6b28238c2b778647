//! Servers under a rule of the client's, called by any number of its workers.

use std::{cell::RefCell, collections::BTreeMap, net::IpAddr, rc::Rc};

use heddle_model::{
    Protocol,
    discovery::{ClusterKey, ClusterPolicy, Provenance},
};
use heddle_proxy::worker::Worker;
use heddle_testkit::resources::{PORT, service};

use crate::mesh::{End, GET, Mesh, OK, address, with_standing_clock};

/// A rule about `reviews` that asks for nothing.
pub(crate) fn policy() -> ClusterPolicy {
    ClusterPolicy {
        cluster: ClusterKey { service: service("reviews"), subset: None, port: PORT },
        provenance: Provenance("DestinationRule/default/reviews".into()),
        outlier: None,
        pool: None,
        tls: None,
        balancing: None,
        retry_budget: None,
    }
}

/// Servers of which some fail, and what each was asked.
#[derive(Clone, Default)]
pub(crate) struct Servers {
    failing: Rc<RefCell<BTreeMap<IpAddr, &'static str>>>,
    asked: Rc<RefCell<BTreeMap<IpAddr, usize>>>,
}

impl Servers {
    pub(crate) fn mesh(&self, policy: &ClusterPolicy, lasts: &[u8]) -> Mesh {
        self.speaking(Protocol::Http, policy, lasts)
    }

    pub(crate) fn speaking(
        &self,
        protocol: Protocol,
        policy: &ClusterPolicy,
        lasts: &[u8],
    ) -> Mesh {
        let servers = self.clone();
        let serve = move |end: End| servers.clone().serve(end);
        Mesh::under(std::slice::from_ref(policy), protocol, lasts, serve)
    }

    async fn serve(self, mut end: End) {
        while end.message().await.is_some() {
            *self.asked.borrow_mut().entry(end.at).or_default() += 1;
            let answer = self.failing.borrow().get(&end.at).copied().unwrap_or(OK);
            if answer.is_empty() {
                return;
            }
            end.send(answer).await;
        }
    }

    /// From now on these answer so; with nothing they close.
    pub(crate) fn fail(&self, lasts: &[u8], answer: &'static str) {
        self.failing.borrow_mut().extend(lasts.iter().map(|last| (address(*last), answer)));
    }

    /// From now on nobody fails.
    pub(crate) fn heal(&self) {
        self.failing.borrow_mut().clear();
    }

    /// What this one was asked so far, or since [`Self::taken`].
    pub(crate) fn asked(&self, last: u8) -> usize {
        self.asked.borrow().get(&address(last)).copied().unwrap_or(0)
    }

    /// What each of these was asked since the last time, when all begin anew.
    pub(crate) fn taken(&self, lasts: &[u8]) -> Vec<usize> {
        let counts = lasts.iter().map(|last| self.asked(*last)).collect();
        self.asked.borrow_mut().clear();
        counts
    }
}

/// Asks on each worker in turn, `count` times in all, each time over a new connection; tells how many answers
/// were 200.
pub(crate) async fn ask(mesh: &Mesh, workers: &[Rc<Worker>], count: usize) -> usize {
    ask_for(mesh, workers, count, GET).await
}

/// The same with another request.
pub(crate) async fn ask_for(
    mesh: &Mesh,
    workers: &[Rc<Worker>],
    count: usize,
    request: &str,
) -> usize {
    let mut well = 0;
    for at in 0..count {
        let mut call = mesh.call_on(&workers[at % workers.len()]);
        let (head, _) = call.ask(request).await;
        well += usize::from(head.starts_with("HTTP/1.1 200"));
    }
    well
}

/// Runs a test with one worker of the client's and with four.
pub(crate) fn with_workers(test: impl AsyncFn(&dyn Fn(&Mesh) -> Vec<Rc<Worker>>)) {
    with_standing_clock(async || test(&|mesh| vec![Rc::clone(&mesh.client.worker)]).await);
    with_standing_clock(async || {
        let four = |mesh: &Mesh| {
            let others = (0..3).map(|_| mesh.add_client_worker());
            [Rc::clone(&mesh.client.worker)].into_iter().chain(others).collect()
        };
        test(&four).await;
    });
}
