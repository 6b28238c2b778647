//! Where a share of calls goes: the endpoints of a cluster with the state each is in, and the policy that holds.

use std::{collections::BTreeSet, sync::Arc};

use heddle_model::discovery::ClusterKey;
use heddle_runtime::clock;
use heddle_wire::local::sidecar_api::{
    ENDPOINTS_MAX, ToldEjection, ToldEndpoint, ToldLimit, ToldMirror, ToldTarget,
};

use super::words;
use crate::{
    breaker::{Admitted, Ejected, Place, Tries},
    refusal::Refused,
    snapshot::{Balancer, Cluster, LbEndpoint, MirrorPlan},
    upstream::nobody_left,
};

/// Points of `[0, 1)` at which groups of endpoints are looked for.
const CHANCES: u32 = 200;
/// Its multiples are spread evenly over `[0, 1)`.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// To one address.
pub(super) fn only(name: &str, port: u16) -> ToldTarget {
    let endpoint = ToldEndpoint {
        workload: name.to_owned(),
        address: name.to_owned(),
        state: "in use".to_owned(),
        weight: 1,
        ..ToldEndpoint::default()
    };
    ToldTarget {
        name: name.to_owned(),
        port,
        share: 100.0,
        balancing: "the one address".to_owned(),
        endpoints: vec![endpoint],
        ..ToldTarget::default()
    }
}

/// To nobody, because this is absent.
pub(super) fn nowhere(what: &str, share: f64, refused: &Refused) -> ToldTarget {
    ToldTarget {
        name: what.to_owned(),
        share,
        refusal: Some(words::refusal(refused)),
        ..ToldTarget::default()
    }
}

/// To one of a cluster's endpoints.
pub(super) fn cluster(cluster: &Cluster, share: f64) -> ToldTarget {
    let ClusterKey { service, subset, port } = &cluster.key;
    let policy = cluster.breaker.as_ref().map(|breaker| breaker.policy());
    let states = states(cluster);
    let is_used = states.contains(&State::Used);
    let refusal = (!is_used).then(|| {
        let rule = policy.filter(|_| !cluster.endpoints.is_empty());
        let rule = rule.map(|policy| policy.provenance.clone());
        words::refusal(&Refused { refusal: nobody_left(cluster), rule })
    });
    let out = cluster.breaker.as_ref().map(|breaker| breaker.out_now()).unwrap_or_default();
    let endpoints = cluster.endpoints.iter().zip(&states);
    let endpoints = endpoints.take(ENDPOINTS_MAX).map(|(one, state)| endpoint(one, *state, &out));
    ToldTarget {
        service: Some(service.clone()),
        name: name(&cluster.key),
        subset: subset.as_ref().map(|subset| subset.name.clone()),
        labels: subset
            .iter()
            .flat_map(|one| &one.labels)
            .map(|(k, v)| format!("{k}={v}"))
            .collect(),
        port: *port,
        share,
        refusal,
        policy: policy.map(|policy| policy.provenance.0.clone()),
        balancing: words::balancing(cluster.balancer.as_deref().map(Balancer::rule)),
        tls: cluster.tls.as_ref().map(|tls| words::tls(tls.settings())),
        ejection: policy.and_then(|policy| policy.outlier.as_ref()).map(words::ejection),
        limits: cluster.breaker.iter().flat_map(|breaker| breaker.limits()).map(limit).collect(),
        changes: Vec::new(),
        endpoints: endpoints.collect(),
        untold: cluster.endpoints.len().saturating_sub(ENDPOINTS_MAX),
    }
}

/// Who is sent copies.
pub(super) fn mirror(mirror: &MirrorPlan) -> ToldMirror {
    ToldMirror {
        to: name(&mirror.cluster.key),
        percent: mirror.percent,
        endpoints: mirror.cluster.endpoints.len(),
    }
}

/// `reviews.default:9080, subset v1`.
fn name(key: &ClusterKey) -> String {
    let subset = key.subset.as_ref().map(|subset| format!(", subset {}", subset.name));
    format!("{}:{}{}", key.service, key.port, subset.unwrap_or_default())
}

fn limit((field, most, now): (&str, u32, u32)) -> ToldLimit {
    ToldLimit { field: field.to_owned(), most, now: Some(now) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Used,
    /// Others take all there is.
    Spare,
    Out,
}

/// The state of each endpoint for the next request, as whoever picks sees it.
fn states(cluster: &Cluster) -> Vec<State> {
    let mut usable = vec![true; cluster.endpoints.len()];
    if let Some(breaker) = cluster.breaker.as_ref().filter(|_| cluster.has_ejected()) {
        let places: Vec<&Place> =
            cluster.endpoints.iter().filter_map(|one| one.place.as_deref()).collect();
        if let Admitted::Some(among) = breaker.admitted(&places, Tries::Never, clock::now()) {
            usable = vec![false; cluster.endpoints.len()];
            among.into_iter().for_each(|at| usable[at] = true);
        }
    }
    let used = cluster.balancer.as_deref().map(|balancer| used(balancer, &usable));
    let state = |(at, usable): (usize, &bool)| match usable {
        false => State::Out,
        true if used.as_ref().is_none_or(|used| used.contains(&at)) => State::Used,
        true => State::Spare,
    };
    usable.iter().enumerate().map(state).collect()
}

/// Those of the groups that requests fall on.
fn used(balancer: &Balancer, usable: &[bool]) -> BTreeSet<usize> {
    let groups = balancer.groups();
    // The second chance is spread over the first one's whole.
    let part = |at: u32| (f64::from(at) / f64::from(CHANCES), (f64::from(at) * GOLDEN).fract());
    let hit: BTreeSet<usize> =
        (0..CHANCES).filter_map(|at| balancer.group(Some(usable), part(at))).collect();
    hit.into_iter().flat_map(|group| &groups[group].members).copied().collect()
}

fn endpoint(one: &Arc<LbEndpoint>, state: State, out: &[Ejected]) -> ToldEndpoint {
    let address = one.address();
    let ejected = out.iter().find(|out| out.workload == *one.id() && out.address == address);
    let state = match (state, ejected) {
        (State::Out, _) => "ejected",
        // So few are in that those who are out are used too.
        (State::Used, Some(_)) => "ejected, and used all the same",
        (State::Used, None) => "in use",
        (State::Spare, _) => "spare",
    };
    let locality = &one.locality;
    let parts = [&locality.region, &locality.zone, &locality.subzone];
    let parts: Vec<_> =
        parts.into_iter().map(String::as_str).filter(|one| !one.is_empty()).collect();
    ToldEndpoint {
        workload: one.id().to_string(),
        version: one.workload.version.clone(),
        address: address.to_string(),
        weight: one.weight,
        locality: parts.join("/"),
        state: state.to_owned(),
        ejected: ejected.map(|out| ToldEjection {
            reason: out.reason.to_owned(),
            rule: out.rule.clone(),
            since: out.since.as_secs(),
            until: out.until.as_secs(),
        }),
    }
}
