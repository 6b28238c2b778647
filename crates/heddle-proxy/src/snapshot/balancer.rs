//! A rule about how one of a cluster's endpoints is chosen, made ready for requests: who is used before
//! whom, and the tables that keys are looked up in. Built with the snapshot, on thread 0, and only where
//! endpoints or the rule are others than before.

use std::{collections::BTreeMap, sync::Arc};

use heddle_logic::balance::{
    hash::{Member, Table},
    locality::{Site, priority, share_of, shares},
    share::turns,
};
use heddle_model::{
    Locality,
    discovery::{ClusterPolicy, LoadBalancing, LocalityRules, Method},
};

use super::endpoint::LbEndpoint;

/// How one of a cluster's endpoints is chosen, where a rule says so.
#[derive(Debug)]
pub struct Balancer {
    plan: Plan,
    /// Of each group, where the method needs one.
    tables: Vec<Table>,
    /// Of each group, where they take turns.
    turns: Vec<Vec<u16>>,
}

/// What all of it follows from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    rule: LoadBalancing,
    groups: Vec<Group>,
    by_share: bool,
}

/// Endpoints that are used alike: of one priority, or under one share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Positions in the cluster's list.
    pub members: Vec<usize>,
    /// The share of the whole; without shares it means nothing.
    pub share: u32,
}

/// A balancer is what its plan says.
impl PartialEq for Balancer {
    fn eq(&self, other: &Self) -> bool {
        self.plan == other.plan
    }
}

impl Eq for Balancer {}

impl Plan {
    /// What `policy` means for these endpoints and a caller at `here`; `None` where it means no more than
    /// what is done without a rule.
    pub(super) fn new(
        policy: &ClusterPolicy,
        here: Site<'_>,
        endpoints: &[Arc<LbEndpoint>],
    ) -> Option<Self> {
        let rule = policy.balancing.clone().unwrap_or_default();
        let (groups, by_share) = grouped(&rule, policy.outlier.is_some(), here, endpoints);
        // All endpoints alike, chosen as without a rule: most clusters that have a policy at all.
        let plain = rule.method == Method::LeastRequest && rule.warmup.is_none();
        let all = endpoints.is_empty()
            || groups.first().is_some_and(|first| first.members.len() == endpoints.len());
        (!plain || !all).then_some(Self { rule, groups, by_share })
    }
}

impl Balancer {
    /// Builds what the plan needs.
    pub(super) fn build(plan: Plan, endpoints: &[Arc<LbEndpoint>]) -> Self {
        let groups = plan.groups.iter();
        let tables = match &plan.rule.method {
            Method::Hash(policy) => groups
                .map(|group| {
                    // As Envoy names them: every sidecar sees the same addresses.
                    let name = |at: &usize| endpoints[*at].address().to_string();
                    let names: Vec<_> = group.members.iter().map(name).collect();
                    let member = |(name, at): (_, &usize)| {
                        let name: &String = name;
                        Member { name: name.as_bytes(), weight: endpoints[*at].weight }
                    };
                    let members: Vec<_> = names.iter().zip(&group.members).map(member).collect();
                    Table::build(policy.table, &members)
                })
                .collect(),
            _ => Vec::new(),
        };
        let weights = |group: &Group| -> Vec<u32> {
            group.members.iter().map(|at| endpoints[*at].weight).collect()
        };
        let turns = match plan.rule.method {
            Method::RoundRobin | Method::Random | Method::Hash(_) => {
                plan.groups.iter().map(|group| turns(&weights(group))).collect()
            }
            Method::LeastRequest | Method::Passthrough => Vec::new(),
        };
        Self { plan, tables, turns }
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The rule.
    #[must_use]
    pub fn rule(&self) -> &LoadBalancing {
        &self.plan.rule
    }

    /// Its groups, the first first; of shares in no order.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.plan.groups
    }

    /// Are groups used by their shares, and not one before the other?
    #[must_use]
    pub fn by_share(&self) -> bool {
        self.plan.by_share
    }

    /// Whom keys of a group belong to, by position in it.
    #[must_use]
    pub fn table(&self, group: usize) -> Option<&Table> {
        self.tables.get(group)
    }

    /// One round of turns of a group, by positions in it: each as often as its weight says.
    #[must_use]
    pub fn turns(&self, group: usize) -> &[u16] {
        self.turns.get(group).map_or(&[], Vec::as_slice)
    }
}

/// The endpoints in groups, and whether these have shares.
fn grouped(
    rule: &LoadBalancing,
    ejects: bool,
    here: Site<'_>,
    endpoints: &[Arc<LbEndpoint>],
) -> (Vec<Group>, bool) {
    let everybody = || Group { members: (0..endpoints.len()).collect(), share: 100 };
    let by_default = LocalityRules::default();
    let rules = rule.locality.as_ref().unwrap_or(&by_default);
    if rules.off {
        return (vec![everybody()], false);
    }
    let is_known = !here.locality.region.is_empty();
    if let Some(shares) = shares(rules, here.locality).filter(|_| is_known) {
        let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
        for (at, endpoint) in endpoints.iter().enumerate() {
            if let Some((pattern, share)) = share_of(shares, &endpoint.locality) {
                let none = || Group { members: Vec::new(), share };
                groups.entry(pattern).or_insert_with(none).members.push(at);
            }
        }
        return (groups.into_values().collect(), true);
    }
    // As in Istio: without ejections nothing would ever fail over, and all would stay where it is.
    if !ejects || (!is_known && rules.failover_priority.is_empty()) {
        return (vec![everybody()], false);
    }
    let mut groups: BTreeMap<u32, Group> = BTreeMap::new();
    for (at, endpoint) in endpoints.iter().enumerate() {
        let there = Site { locality: &endpoint.locality, labels: &endpoint.workload.labels };
        let none = || Group { members: Vec::new(), share: 100 };
        let group = groups.entry(priority(rules, here, there)).or_insert_with(none);
        group.members.push(at);
    }
    (groups.into_values().collect(), false)
}

/// Where a sidecar's own workload is, as far as it was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Here {
    pub(super) locality: Locality,
    pub(super) labels: BTreeMap<String, String>,
}

impl Here {
    pub(super) fn site(&self) -> Site<'_> {
        Site { locality: &self.locality, labels: &self.labels }
    }
}
