//! A rule about how one of a cluster's endpoints is chosen, made ready for requests: who is used before
//! whom, and the tables that keys are looked up in. Built with the snapshot, on thread 0, and only where
//! endpoints or the rule are others than before.

use std::{collections::BTreeMap, sync::Arc};

use heddle_logic::balance::{
    hash::{Member, Table},
    locality::{Site, Strength, distribute, priority, share_of, shares, spill},
    share::turns,
    zones,
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
    /// Which part goes to each zone while nobody is out.
    usual: Option<Vec<f64>>,
}

/// What all of it follows from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    rule: LoadBalancing,
    groups: Vec<Group>,
    by_share: bool,
    zones: Option<Zones>,
}

/// The first group, once more by zones: groups behind all others.
#[derive(Debug, Clone, PartialEq)]
struct Zones {
    /// Position of the first of them.
    first: usize,
    /// The caller's own, of them.
    own: Option<usize>,
    /// The share of the callers that is in each.
    callers: Vec<f64>,
    /// So many endpoints must take requests.
    least: usize,
}

/// Endpoints that are used alike: of one priority, in one zone of it, or under one share.
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
        here: &Here,
        endpoints: &[Arc<LbEndpoint>],
    ) -> Option<Self> {
        let rule = policy.balancing.clone().unwrap_or_default();
        let ejects = policy.outlier.is_some();
        let (mut groups, by_share) = grouped(&rule, ejects, here.site(), endpoints);
        // All endpoints alike, chosen as without a rule: most clusters that have a policy at all.
        let plain = rule.method == Method::LeastRequest && rule.warmup.is_none();
        let all = endpoints.is_empty()
            || groups.first().is_some_and(|first| first.members.len() == endpoints.len());
        let zones = zoned(&rule, here, endpoints, &mut groups);
        (!plain || !all || zones.is_some()).then_some(Self { rule, groups, by_share, zones })
    }

    /// What goes where in the first group's zones, of whose endpoints so many are well.
    fn zone_shares(&self, well: &[usize]) -> Option<Vec<f64>> {
        let zones =
            self.zones.as_ref().filter(|zones| well.iter().sum::<usize>() >= zones.least)?;
        zones::shares(&zones.callers, well, zones.own)
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
        let zones = plan.zones.as_ref().map_or(&[][..], |zones| &plan.groups[zones.first..]);
        let well: Vec<usize> = zones.iter().map(|zone| zone.members.len()).collect();
        let usual = plan.zone_shares(&well);
        Self { plan, tables, turns, usual }
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The rule.
    #[must_use]
    pub fn rule(&self) -> &LoadBalancing {
        &self.plan.rule
    }

    /// Its groups, the first first; of shares in no order. Behind them are the zones of the first, if they
    /// are told apart.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.plan.groups
    }

    /// How many groups there are but zones.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.plan.zones.as_ref().map_or(self.plan.groups.len(), |zones| zones.first)
    }

    /// Which part of the first group's requests goes to each of its zones while nobody is out; empty where
    /// zones are not told apart.
    #[must_use]
    pub fn zone_shares(&self) -> &[f64] {
        self.usual.as_deref().unwrap_or_default()
    }

    /// Are groups used by their shares, and not one before the other?
    #[must_use]
    pub fn by_share(&self) -> bool {
        self.plan.by_share
    }

    /// The group on which a request falls, for two chances in `[0, 1)`, the second within a group that has
    /// zones; `usable` says who takes requests, if not all do.
    #[must_use]
    pub fn group(&self, usable: Option<&[bool]>, (chance, within): (f64, f64)) -> Option<usize> {
        let levels = &self.plan.groups[..self.levels()];
        let strength = |group: &Group| {
            let members = &group.members;
            let well = usable.map(|usable| members.iter().filter(|at| usable[**at]).count());
            Strength { well: well.unwrap_or(members.len()), all: members.len() }
        };
        let level = match usable {
            None if levels.len() < 2 => (!levels.is_empty()).then_some(0),
            _ if self.by_share() => {
                let shares: Vec<_> = levels.iter().map(|one| (one.share, strength(one))).collect();
                distribute(&shares, chance)
            }
            None => Some(0),
            Some(_) => spill(&levels.iter().map(strength).collect::<Vec<_>>(), chance),
        }?;
        let zones = self.plan.zones.as_ref().filter(|_| level == 0);
        let zone = zones.and_then(|zones| {
            let now = usable.map(|_| {
                let groups = self.plan.groups[zones.first..].iter();
                self.plan.zone_shares(&groups.map(|one| strength(one).well).collect::<Vec<_>>())
            });
            let shares = now.as_ref().unwrap_or(&self.usual).as_deref()?;
            Some(zones.first + zones::pick(shares, within)?)
        });
        Some(zone.unwrap_or(level))
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
    // As in Istio: without ejections nothing would ever fail over, and all would stay where it is. Zones do
    // not need them: it is the region that they are in.
    if (!ejects && rules.zones.is_none()) || (!is_known && rules.failover_priority.is_empty()) {
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

/// Puts the zones of the first group behind all groups, if the rule tells them apart here. A key's own
/// endpoint is the same one from everywhere.
fn zoned(
    rule: &LoadBalancing,
    here: &Here,
    endpoints: &[Arc<LbEndpoint>],
    groups: &mut Vec<Group>,
) -> Option<Zones> {
    let rules = rule.locality.as_ref().filter(|rules| !rules.off)?;
    let least = rules.zones? as usize;
    let all: u32 = here.callers.values().sum();
    let place = here.locality.place();
    let is_counted = here.callers.get(&place).is_some_and(|callers| *callers > 0);
    if !is_counted || matches!(rule.method, Method::Hash(_) | Method::Passthrough) {
        return None;
    }
    let mut zones: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for at in &groups.first()?.members {
        zones.entry(endpoints[*at].locality.place()).or_default().push(*at);
    }
    if zones.len() < 2 {
        return None;
    }
    let callers = |zone: &String| {
        f64::from(here.callers.get(zone).copied().unwrap_or_default()) / f64::from(all)
    };
    let first = groups.len();
    let told = Zones {
        first,
        own: zones.keys().position(|zone| *zone == place),
        callers: zones.keys().map(callers).collect(),
        least,
    };
    groups.extend(zones.into_values().map(|members| Group { members, share: 100 }));
    Some(told)
}

/// Where a sidecar's own workload is, as far as it was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Here {
    pub(super) locality: Locality,
    pub(super) labels: BTreeMap<String, String>,
    /// How many of its like there are, by place.
    pub(super) callers: BTreeMap<String, u32>,
}

impl Here {
    fn site(&self) -> Site<'_> {
        Site { locality: &self.locality, labels: &self.labels }
    }
}
