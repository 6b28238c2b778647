//! The graph and the list of services.

use std::collections::{BTreeMap, BTreeSet};

use heddle_model::{ServiceName, WorkloadId};
use heddle_runtime::clock;
use heddle_wire::local::observe_api::{
    Coverage, Edge, Ejection, Graph, Node, ServiceSummary, TlsFailure, Version,
};

use super::{EdgeKey, Summed, TimeRange, View, cause::causes, edge, speaking, versions};
use crate::{
    limits::{LOST_CONTEXTS_WINDOW, TLS_FAILURES_WINDOW},
    measure::Protocol,
    rates::Sides,
    store::{Measured, Period},
};

/// What each service was asked, by protocol.
type Received = BTreeMap<ServiceName, BTreeMap<Protocol, Sides>>;
/// TCP bytes per second to the callee and back, by edge.
type Bytes = BTreeMap<EdgeKey, (f64, f64)>;

impl View {
    /// Who calls whom.
    pub(crate) fn graph(&self, asked: TimeRange) -> Graph {
        let period = self.period(asked, 1, false);
        let edges = self.edges(&period, None);
        let measured = edges.measured;
        let bytes = self.bytes(asked, None);
        let received = received(&edges.by);
        let mut versions = self.versions_by_service(&period, measured);
        let failing = self.failing_since(asked.end);
        let mut causes = causes(&edges.by);
        let nodes = self
            .names(&edges.by, &bytes)
            .into_iter()
            .map(|service| {
                let versions = versions.remove(&service).unwrap_or_default();
                let failing_since = failing.get(&service).copied();
                let cause = causes.remove(&service);
                let node = self.node(service, &received, measured, &bytes, versions);
                Node { failing_since, cause, ..node }
            })
            .collect();
        Graph {
            mesh: self.mesh.clone(),
            at: self.store.newest().unwrap_or(0) as f64,
            window: (period.to - period.from) as f64,
            nodes,
            edges: finish(edges, &bytes),
            coverage: self.coverage(),
            ejections: self.ejections(),
            changes: self.rulebook.changes(period.from, period.to, None),
        }
    }

    /// Who is out for its errors, as the sidecars last said that are in the mesh and answer.
    pub(crate) fn ejections(&self) -> Vec<Ejection> {
        let told = self.roster.present().filter(|member| member.scraped);
        told.flat_map(|member| member.ejected.iter().cloned()).collect()
    }

    /// Connections on which no TLS came about lately, as the sidecars last said.
    pub(crate) fn tls_failures(&self) -> Vec<TlsFailure> {
        let now = clock::unix_now().as_secs_f64();
        let present = self.roster.present().filter(|member| member.scraped);
        let told = present.flat_map(|member| {
            member.tls.within(now, TLS_FAILURES_WINDOW).map(|one| TlsFailure {
                by: WorkloadId(member.owner.id.clone()),
                reason: one.reason.to_owned(),
                total: one.total,
                last: one.last,
            })
        });
        told.collect()
    }

    /// Workloads of a service that lately made calls without the trace of the call they served, as their sidecars
    /// last said, in sentences.
    pub(super) fn lost_contexts(&self, service: &ServiceName) -> Vec<String> {
        let now = clock::unix_now().as_secs_f64();
        let own = self
            .roster
            .present()
            .filter(|member| member.scraped && member.services.contains(service));
        let told = own.flat_map(|member| {
            member.lost.within(now, LOST_CONTEXTS_WINDOW).map(|one| {
                let (id, total) = (&member.owner.id, one.total);
                format!("{id} does not pass trace headers on: {total:.0} of its calls had none while it served one that had. Its traces end there.")
            })
        });
        told.collect()
    }

    fn node(
        &self,
        service: ServiceName,
        received: &Received,
        measured: Measured,
        bytes: &Bytes,
        versions: Vec<Version>,
    ) -> Node {
        let empty = BTreeMap::new();
        let received = received.get(&service).unwrap_or(&empty);
        let kind = self.kind_of(&service, received);
        let sides = speaking(received, &kind);
        let (to, from) = both_ways(bytes, &service);
        Node {
            rates: sides.own().rates(measured),
            client: sides.client.rates(measured),
            bytes_per_second: to + from,
            versions,
            failing_since: None,
            cause: None,
            faults: self.rulebook.faults(&service),
            addresses: self.roster.addresses(&service),
            kind,
            service,
        }
    }

    /// All services as rows.
    pub(crate) fn services(&self, asked: TimeRange) -> Vec<ServiceSummary> {
        let period = self.period(asked, 1, false);
        let edges = self.edges(&period, None);
        let bytes = self.bytes(asked, None);
        let received = received(&edges.by);
        let empty = BTreeMap::new();
        let mut versions = self.versions_by_service(&period, edges.measured);
        // In flight is told as it is at the end, not as it was on average.
        let end = self.period(TimeRange { window: 1, ..asked }, 1, false);
        let gauges = self.sum(&end, |cell| {
            (cell.protocol == Protocol::Saturation).then(|| cell.destination.clone())
        });
        let rows = self.names(&edges.by, &bytes).into_iter().map(|service| {
            let received = received.get(&service).unwrap_or(&empty);
            let row = self.summary(&service, received, edges.measured, both_ways(&bytes, &service));
            let gauge = gauges.by.get(&service).map(|sides| &sides.server);
            let in_flight =
                gauge.map_or(0.0, |sums| sums.in_flight(gauges.measured, row.kind == "tcp"));
            let versions = versions.remove(&service).unwrap_or_default();
            ServiceSummary { in_flight: Some(in_flight), versions, ..row }
        });
        rows.collect()
    }

    fn coverage(&self) -> Coverage {
        Coverage {
            sidecars: self.roster.present().count(),
            scraped: self.roster.present().filter(|member| member.scraped).count(),
            control: self.roster.control,
        }
    }

    /// Services known or seen in the period, sorted.
    fn names(&self, edges: &BTreeMap<EdgeKey, Sides>, bytes: &Bytes) -> BTreeSet<ServiceName> {
        let known = self.roster.services.keys().cloned();
        let members = self.roster.present().flat_map(|member| member.services.iter().cloned());
        let seen = edges.keys().chain(bytes.keys());
        let seen = seen.flat_map(|(source, destination, _)| [source.clone(), destination.clone()]);
        known.chain(members).chain(seen).collect()
    }

    fn versions_by_service(
        &self,
        period: &Period,
        measured: Measured,
    ) -> BTreeMap<ServiceName, Vec<Version>> {
        let summed = self.sum(period, |cell| {
            cell.protocol.is_traffic().then(|| (cell.destination.clone(), cell.version.clone()))
        });
        let mut by_service: BTreeMap<&ServiceName, BTreeMap<&str, Sides>> = BTreeMap::new();
        for ((service, version), sides) in &summed.by {
            let known = by_service.entry(service).or_default().entry(version).or_default();
            known.merge(sides);
        }
        by_service
            .into_iter()
            .map(|(service, by)| (service.clone(), versions(by, measured)))
            .collect()
    }
}

/// Edges of the answer; those with nothing but bytes in the longer byte window included.
fn finish(edges: Summed<EdgeKey>, bytes: &Bytes) -> Vec<Edge> {
    let mut by = edges.by;
    for key in bytes.keys() {
        by.entry(key.clone()).or_default();
    }
    by.into_iter()
        .map(|(key, sides)| {
            let bytes = bytes.get(&key).copied().unwrap_or_default();
            edge(key, &sides, edges.measured, bytes)
        })
        .collect()
}

fn received(edges: &BTreeMap<EdgeKey, Sides>) -> Received {
    let mut received = Received::new();
    for ((_, destination, protocol), sides) in edges {
        let known = received.entry(destination.clone()).or_default().entry(*protocol);
        known.or_default().merge(sides);
    }
    received
}

/// Bytes per second to and from a service.
fn both_ways(bytes: &Bytes, service: &ServiceName) -> (f64, f64) {
    let of = bytes.iter().filter(|((_, destination, _), _)| destination == service);
    of.fold((0.0, 0.0), |sum, (_, (to, from))| (sum.0 + to, sum.1 + from))
}
