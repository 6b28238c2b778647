//! The traffic policy of a cluster: which DestinationRule says it, and what of it holds for a subset
//! and a port. Precedence as in Istio.

use std::collections::BTreeSet;

use heddle_model::{
    DestinationPort, Registry, ServiceName,
    discovery::{ClientTls, ClusterKey, ClusterPolicy, LoadBalancing, Provenance},
    resource::{DestinationRule, PolicyParts, SubsetRule, TlsSettings, TrafficPolicy},
};

use crate::{
    client::Client,
    host::Host,
    rules::{ROOT_NAMESPACE, RuleIndex, SubsetSource},
};

impl RuleIndex {
    /// The policies of every cluster that calls of `service` can reach; clusters without are left out.
    pub(crate) fn policies(
        &self,
        registry: &Registry,
        client: Client<'_>,
        service: &ServiceName,
        ports: &[DestinationPort],
    ) -> Vec<ClusterPolicy> {
        let own = |port: &DestinationPort| ClusterKey {
            service: service.clone(),
            subset: None,
            port: port.number,
        };
        let named = ports.iter().flat_map(DestinationPort::clusters).cloned();
        let clusters: BTreeSet<ClusterKey> = ports.iter().map(own).chain(named).collect();
        let policy = |cluster: ClusterKey| {
            let outside = registry.outside.get(&cluster.service);
            let names = outside.map_or(&[][..], |outside| &outside.subject_alt_names);
            self.policy(client, cluster, names)
        };
        clusters.into_iter().filter_map(policy).collect()
    }

    /// The TLS that rules ask for towards a host that a client's sidecar calls by itself.
    pub(crate) fn tls_towards(
        &self,
        client: Client<'_>,
        host: &str,
        port: u16,
    ) -> Option<ClientTls> {
        let service = match Host::read(host, ROOT_NAMESPACE) {
            Host::Service(service) => service,
            Host::Outside(host) => ServiceName::of_host(&host, client.namespace).ok()?,
            Host::Wildcard(_) => return None,
        };
        self.policy(client, ClusterKey { service, subset: None, port }, &[])?.tls
    }

    /// `names`: those that the servers' certificates hold by their entry.
    fn policy(
        &self,
        client: Client<'_>,
        cluster: ClusterKey,
        names: &[String],
    ) -> Option<ClusterPolicy> {
        let rules = self.subset_sources(client, &cluster.service);
        // Of several rules for one host the oldest that says something about all endpoints counts.
        let general = rules.iter().find_map(|one| Some((one, one.rule.policy.as_ref()?)));
        let subset = cluster.subset.as_ref().and_then(|subset| {
            rules.iter().find_map(|one| Some((one, subset_of(one.rule, &subset.name)?)))
        });
        let subset = subset.and_then(|(one, found)| Some((one, found.policy.as_ref()?)));
        let parts = merged(general.map(|(_, p)| p), subset.map(|(_, p)| p), cluster.port);
        let PolicyParts { outlier, pool, tls, balancing, retry_budget } = parts;
        let pool = pool.map(|pool| *pool).filter(|pool| !pool.is_empty());
        let (source, _) = subset.or(general)?;
        let tls = tls.and_then(|tls| match tls {
            TlsSettings::Plain => None,
            TlsSettings::Originate(mut tls) => {
                if tls.subject_alt_names.is_empty() {
                    tls.subject_alt_names = names.to_vec();
                }
                Some(named(*tls, source, &cluster.service))
            }
        });
        // What asks for no more than what is done anyway costs nothing.
        let balancing = balancing.map(|balancing| *balancing);
        let balancing = balancing.filter(|balancing| *balancing != LoadBalancing::default());
        let asks = outlier.is_some() || pool.is_some() || tls.is_some();
        if !asks && balancing.is_none() && retry_budget.is_none() {
            return None;
        }
        let provenance = Provenance(source.resource.key.to_string());
        Some(ClusterPolicy { cluster, provenance, outlier, pool, tls, balancing, retry_budget })
    }
}

/// The name to ask for: the one that is written, else the host that the rule is for, which is that of the
/// service where the rule is for several.
fn named(tls: ClientTls, source: &SubsetSource<'_>, service: &ServiceName) -> ClientTls {
    if !tls.server_name.is_empty() {
        return tls;
    }
    let server_name = match Host::read(&source.rule.host, &source.resource.key.namespace) {
        Host::Outside(host) => host,
        Host::Service(_) | Host::Wildcard(_) => service.fqdn(),
    };
    ClientTls { server_name, ..tls }
}

/// Does the rule ask somewhere for TLS and leave the name to be asked for to its host?
pub(crate) fn names_no_server(rule: &DestinationRule) -> bool {
    let unnamed = |parts: &PolicyParts| match &parts.tls {
        Some(TlsSettings::Originate(tls)) => tls.server_name.is_empty(),
        Some(TlsSettings::Plain) | None => false,
    };
    let all = rule.subsets.iter().filter_map(|subset| subset.policy.as_ref()).chain(&rule.policy);
    let mut parts = all.flat_map(|policy| {
        let of_ports = policy.ports.iter().map(|(_, parts)| parts);
        of_ports.chain([&policy.general])
    });
    parts.any(unnamed)
}

fn subset_of<'a>(rule: &'a DestinationRule, name: &str) -> Option<&'a SubsetRule> {
    rule.subsets.iter().find(|subset| subset.name == name)
}

/// What holds for a port: of the whole host, and over it part by part what a subset says.
fn merged(
    general: Option<&TrafficPolicy>,
    subset: Option<&TrafficPolicy>,
    port: u16,
) -> PolicyParts {
    let below = general.map(|policy| at(policy, PolicyParts::default(), port)).unwrap_or_default();
    match subset {
        None => below,
        Some(policy) => at(policy, below, port),
    }
}

/// Settings of a port take the place of all others, also where they say nothing.
fn at(policy: &TrafficPolicy, below: PolicyParts, port: u16) -> PolicyParts {
    if let Some((_, parts)) = policy.ports.iter().find(|(number, _)| *number == port) {
        // A budget for retries is never a port's own.
        let retry_budget = policy.general.retry_budget.or(below.retry_budget);
        return PolicyParts { retry_budget, ..parts.clone() };
    }
    let PolicyParts { outlier, pool, tls, balancing, retry_budget } = policy.general.clone();
    PolicyParts {
        outlier: outlier.or(below.outlier),
        pool: pool.or(below.pool),
        tls: tls.or(below.tls),
        balancing: balancing.or(below.balancing),
        retry_budget: retry_budget.or(below.retry_budget),
    }
}
