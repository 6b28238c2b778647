//! How far each rule has come: which connected proxies do not run it yet, at this replica and, asked by the one that
//! writes statuses, at all others. Others are told counts only, since whoever reaches the port may ask.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use heddle_model::{ResourceKey, Workload, WorkloadId};
use heddle_runtime::{clock, local_http};
use serde::{Deserialize, Serialize};

use super::{registry::Cluster, rules::RuleBook};
use crate::{control::Control, revision};

/// Where a replica tells it.
pub(crate) const PATH: &str = "/progress";
/// Longest wait for one.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// So many proxies are told by name.
const NAMED_MAX: usize = 3;
/// The label by which pods of the control plane are known, and its value.
const CONTROL: (&str, &str) = ("app.kubernetes.io/name", "heddle-control");

/// What a replica says of all rules, by key.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Page {
    rules: BTreeMap<String, Told>,
}

/// What it says of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// The object's `metadata.generation` that it has read.
    generation: i64,
    /// Connected proxies that the rule concerns and that do not run it yet.
    #[serde(default, skip_serializing_if = "is_none")]
    pending: usize,
    /// Those that run it; counted where some do not.
    #[serde(default, skip_serializing_if = "is_none")]
    acknowledged: usize,
    #[serde(skip)]
    names: Vec<WorkloadId>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_none(count: &usize) -> bool {
    *count == 0
}

/// How far one rule has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Proxies that do not run it yet.
    pub(crate) pending: usize,
    /// Of so many that it concerns.
    pub(crate) concerned: usize,
    /// Some of them by name.
    pub(crate) names: Vec<WorkloadId>,
    /// Replicas that have not read it.
    pub(crate) unread: Vec<String>,
}

impl Progress {
    /// Does every proxy that it concerns run it?
    pub(crate) fn is_complete(&self) -> bool {
        self.pending == 0 && self.unread.is_empty()
    }

    /// What is not so yet, for people.
    pub(crate) fn told(&self) -> String {
        let mut told = Vec::new();
        if self.pending > 0 {
            let named: Vec<_> = self.names.iter().map(|name| name.0.as_str()).collect();
            let more = match self.pending.saturating_sub(named.len()) {
                _ if named.is_empty() => String::new(),
                0 => format!(": {}", named.join(", ")),
                more => format!(": {} and {more} more", named.join(", ")),
            };
            told.push(format!(
                "{} of {} connected proxies that it concerns do not run it yet{more}",
                self.pending, self.concerned
            ));
        }
        told.extend(self.unread.iter().map(|replica| format!("{replica} has not read it yet")));
        told.join("; ")
    }
}

/// What all replicas say at one moment.
#[derive(Debug, Default)]
pub(crate) struct Round {
    own: Page,
    /// By their pods' names. One that does not answer serves nobody, as far as is known.
    others: BTreeMap<String, Page>,
    /// Revisions whose control plane has pods in the cluster.
    pub(crate) installed: BTreeSet<String>,
}

impl Page {
    /// What this replica says.
    pub(crate) fn of(control: &Control, book: &RuleBook) -> Self {
        let least = control.least_running();
        let mut known: BTreeMap<u64, Told> = BTreeMap::new();
        let mut rules = BTreeMap::new();
        for (key, generation, carried) in book.all_carried() {
            let told = if carried <= least {
                Told::default()
            } else {
                known.entry(carried).or_insert_with(|| told(control, carried)).clone()
            };
            rules.insert(key.to_string(), Told { generation, ..told });
        }
        Self { rules }
    }
}

fn told(control: &Control, carried: u64) -> Told {
    let mut said = control.progress_of(carried);
    let pending = said.pending.len();
    said.pending.truncate(NAMED_MAX);
    Told { pending, acknowledged: said.acknowledged, names: said.pending, ..Told::default() }
}

impl Round {
    /// Looks, and asks the other replicas of `revision`, each for [`ANSWER_WAIT`] at most.
    pub(crate) async fn look(
        control: &Control,
        book: &RuleBook,
        (itself, revision, port): (&str, &str, u16),
    ) -> Self {
        let pods = control.with_cluster(pods).unwrap_or_default();
        let mut installed: BTreeSet<String> = pods.iter().map(|pod| pod.revision.clone()).collect();
        installed.insert(revision.to_owned());
        let mut others = BTreeMap::new();
        for pod in pods.iter().filter(|pod| pod.revision == revision && pod.name != itself) {
            let call = local_http::get_tcp(SocketAddr::new(pod.address, port), PATH);
            let Some(Ok(answer)) = clock::within(ANSWER_WAIT, Box::pin(call)).await else {
                continue;
            };
            if answer.status == 200
                && let Ok(page) = serde_json::from_slice(&answer.body)
            {
                others.insert(pod.name.clone(), page);
            }
        }
        Self { own: Page::of(control, book), others, installed }
    }

    /// How far this version of a rule has come.
    pub(crate) fn of(&self, key: &ResourceKey, generation: i64) -> Progress {
        let key = key.to_string();
        let mut progress = Progress::default();
        let mut add = |told: &Told| {
            progress.pending += told.pending;
            progress.concerned += told.pending + told.acknowledged;
            progress.names.extend(told.names.iter().cloned());
        };
        self.own.rules.get(&key).into_iter().for_each(&mut add);
        let mut unread = Vec::new();
        for (replica, page) in &self.others {
            match page.rules.get(&key).filter(|told| told.generation >= generation) {
                Some(told) => add(told),
                None => unread.push(replica.clone()),
            }
        }
        Progress { unread, ..progress }
    }
}

/// A pod of a control plane.
struct ControlPod {
    name: String,
    revision: String,
    address: IpAddr,
}

fn pods(cluster: &Cluster) -> Vec<ControlPod> {
    let workloads = cluster.registry().workloads.values();
    let labelled =
        |one: &&Workload| one.labels.get(CONTROL.0).is_some_and(|value| value == CONTROL.1);
    let pod = |one: &Workload| {
        let of_pod = one.id.0.split_once('.').map_or(one.id.0.as_str(), |(_, pod)| pod);
        let revision = one.labels.get(revision::INSTANCE).map_or(revision::DEFAULT, String::as_str);
        Some(ControlPod {
            name: of_pod.to_owned(),
            revision: revision.to_owned(),
            address: first(one)?,
        })
    };
    workloads.filter(labelled).filter_map(pod).collect()
}

fn first(workload: &Workload) -> Option<IpAddr> {
    let v4 = workload.addresses.v4().map(IpAddr::from);
    v4.or_else(|| workload.addresses.v6().map(IpAddr::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(told: Told) -> Page {
        Page { rules: BTreeMap::from([("VirtualService/shop/web".to_owned(), told)]) }
    }

    fn key() -> ResourceKey {
        ResourceKey {
            kind: "VirtualService".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        }
    }

    #[test]
    fn what_replicas_say_is_added_up_and_who_has_not_read_it_is_named() {
        let names = vec![WorkloadId::of_pod("shop", "a")];
        let own = Told { generation: 2, pending: 1, acknowledged: 3, names: names.clone() };
        let late = Told { generation: 1, ..Told::default() };
        let busy = Told { generation: 2, pending: 2, acknowledged: 4, names: Vec::new() };
        let others = [("b", busy), ("c", late)];
        let others = others.map(|(name, told)| (name.to_owned(), page(told)));
        let round = Round { own: page(own), others: others.into(), ..Round::default() };
        let unread = vec!["c".to_owned()];
        assert_eq!(round.of(&key(), 2), Progress { pending: 3, concerned: 10, names, unread });
    }

    #[test]
    fn others_are_told_no_names() {
        let names = vec![WorkloadId::of_pod("shop", "a")];
        let told = page(Told { generation: 2, pending: 1, acknowledged: 0, names });
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(text, r#"{"rules":{"VirtualService/shop/web":{"generation":2,"pending":1}}}"#);
        let read: Page = serde_json::from_str(&text).unwrap();
        assert_eq!(read.rules["VirtualService/shop/web"].pending, 1);
    }
}
