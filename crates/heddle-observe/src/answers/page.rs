//! One service's page.

use std::collections::BTreeMap;

use heddle_model::{ServiceName, WorkloadId};
use heddle_wire::local::observe_api::{
    Edge, Point, Response, ServicePage, ServiceSummary, Version, WorkloadRow,
};

use super::{EdgeKey, Summed, TimeRange, View, cause::causes, edge, speaking, verdict, versions};
use crate::{
    limits,
    measure::{Protocol, Reporter},
    rates::{Sides, Sums, per},
    store::{Measured, Period},
};

impl View {
    /// The page of a service; `None` if nobody has heard of it.
    pub(crate) fn page(&self, service: &ServiceName, asked: TimeRange) -> Option<ServicePage> {
        let period = self.period(asked, nice_step(asked.window), true);
        let edges = self.edges(&period, Some(service));
        let known = self.roster.services.contains_key(service)
            || self.roster.members.values().any(|member| member.services.contains(service));
        if edges.by.is_empty() && !known {
            return None;
        }
        let measured = edges.measured;
        let [callers, callees] = self.neighbours(service, &edges, asked);
        let before = period.before();
        let (summary, sides) = self.asked_of(service, &period);
        let (previous, _) = self.asked_of(service, &before);
        let mut page = ServicePage {
            series: self.series(service, &period, &summary.kind),
            responses: self.responses(&sides, measured),
            summary,
            previous,
            callers,
            callees,
            versions: self.versions_of(service, &period, measured),
            workloads: self.workloads(service, &period),
            mesh: self.mesh.clone(),
            at: period.to.min(self.store.newest().unwrap_or(0) + 1) as f64,
            window: (period.to - period.from) as f64,
            step: period.step as f64,
            previous_measured: self.measured_share(&before),
            failing_since: self.failing_since(asked.end).remove(service),
            cause: causes(&self.edges(&period, None).by).remove(service),
            faults: self.rulebook.faults(service),
            paths: self.paths(service, &period),
            templates: self.templates(service, &period),
            rules: self.rule_rows(Some(service), &period),
            // Of all rules: one about a service behind it may be what changed here.
            changes: self.rulebook.changes(period.from, period.to, None),
            refusals: self.refusals(Some(service), &period),
            names: self.failed_names(Some(service), &period),
            ejections: self.ejections().into_iter().filter(|one| one.service == *service).collect(),
            first: Vec::new(),
            on_purpose: Vec::new(),
            lost_contexts: self.lost_contexts(service),
        };
        page.first = verdict::wrong(&page);
        page.on_purpose = verdict::on_purpose(&page);
        Some(page)
    }

    /// Who calls it, and whom it calls; a service that calls itself is in both.
    fn neighbours(
        &self,
        service: &ServiceName,
        edges: &Summed<EdgeKey>,
        asked: TimeRange,
    ) -> [Vec<Edge>; 2] {
        let bytes = self.bytes(asked, Some(service));
        let mut tables = [Vec::new(), Vec::new()];
        for (key, sides) in &edges.by {
            let bytes = bytes.get(key).copied().unwrap_or_default();
            let row = edge(key.clone(), sides, edges.measured, bytes);
            if key.1 == *service {
                tables[0].push(row.clone());
            }
            if key.0 == *service {
                tables[1].push(row);
            }
        }
        tables.map(busiest)
    }

    /// Share of a period that was measured.
    fn measured_share(&self, period: &Period) -> f64 {
        let length = (period.to - period.from).max(1) as f64;
        let measured = self.store.measured(&period.whole());
        measured.first().map_or(0.0, |measured| (measured.seconds / length).min(1.0))
    }

    /// What a service was asked in a period, as a row and as sums.
    fn asked_of(&self, service: &ServiceName, period: &Period) -> (ServiceSummary, Sides) {
        let summed = self.sum(period, |cell| {
            (cell.destination == *service && cell.protocol.is_traffic()).then_some(cell.protocol)
        });
        let measured = summed.measured;
        let bytes = summed.by.get(&Protocol::Tcp).map_or((0.0, 0.0), |tcp| tcp.bytes(measured));
        let summary = self.summary(service, &summed.by, measured, bytes);
        let sides = speaking(&summed.by, &summary.kind);
        (summary, sides)
    }

    fn series(&self, service: &ServiceName, period: &Period, kind: &str) -> Vec<Point> {
        let mut steps: Vec<BTreeMap<Protocol, Sides>> = vec![BTreeMap::new(); period.steps()];
        self.store.each(period, |step, cell, counts| {
            let told = cell.protocol.is_traffic() || cell.protocol == Protocol::Saturation;
            if told
                && cell.destination == *service
                && let Some(sides) = steps.get_mut(step)
            {
                let sides = sides.entry(cell.protocol).or_default();
                sides.side(cell.reporter).add(counts, &self.store.answers);
            }
        });
        let newest = self.store.newest().unwrap_or(0);
        steps
            .into_iter()
            .zip(self.store.measured(period))
            .enumerate()
            .filter(|(_, (_, measured))| measured.rounds > 0)
            .map(|(index, (sides, measured))| {
                let end = period.from + (index as u64 + 1) * period.step;
                point(end.min(newest + 1), sides, measured, kind)
            })
            .collect()
    }

    fn versions_of(
        &self,
        service: &ServiceName,
        period: &Period,
        measured: Measured,
    ) -> Vec<Version> {
        let summed = self.sum(period, |cell| {
            (cell.destination == *service && cell.protocol.is_traffic())
                .then(|| cell.version.clone())
        });
        let by = summed.by.iter().map(|(version, sides)| (version.as_str(), sides.clone()));
        versions(by.collect(), measured)
    }

    fn responses(&self, sides: &Sides, measured: Measured) -> Vec<Response> {
        // One row for what came to the same, whichever statuses of gRPC it was.
        let mut same: BTreeMap<(u16, &str), (f64, f64)> = BTreeMap::new();
        let client = sides.client.answers.iter().map(|(number, count)| (number, *count, 0.0));
        let server = sides.server.answers.iter().map(|(number, count)| (number, 0.0, *count));
        for (number, client, server) in client.chain(server) {
            if let Some(answer) = self.store.answers.get(*number) {
                let row = same.entry((answer.code, answer.flags.as_str())).or_default();
                row.0 += client;
                row.1 += server;
            }
        }
        let mut rows: Vec<Response> = same
            .into_iter()
            .map(|((code, flags), (client, server))| Response {
                code,
                flags: flags.to_owned(),
                client_per_second: per(client, measured.seconds),
                server_per_second: per(server, measured.seconds),
            })
            .collect();
        let most = |row: &Response| row.client_per_second.max(row.server_per_second);
        rows.sort_by(|a, b| most(b).total_cmp(&most(a)).then(a.code.cmp(&b.code)));
        rows.truncate(limits::ROWS_MAX);
        rows
    }

    /// Present workloads, then those that answered in the period and have left.
    fn workloads(&self, service: &ServiceName, period: &Period) -> Vec<WorkloadRow> {
        let summed = self.sum(period, |cell| {
            (cell.destination == *service && cell.reporter == Reporter::Server)
                .then(|| (cell.workload.clone(), cell.protocol))
        });
        // In flight is told as it is now, not as it was on average.
        let now = self.period(TimeRange { window: 1, end: None }, 1, false);
        let gauges = self.sum(&now, |cell| {
            (cell.destination == *service && cell.protocol == Protocol::Saturation)
                .then(|| cell.workload.clone())
        });
        let mut rows: Vec<WorkloadRow> = Vec::new();
        for (id, member) in &self.roster.members {
            let mut received: BTreeMap<Protocol, Sides> = BTreeMap::new();
            for ((workload, protocol), sides) in &summed.by {
                if workload == id && protocol.is_traffic() {
                    received.insert(*protocol, sides.clone());
                }
            }
            if !member.services.contains(service) || (!member.present && received.is_empty()) {
                continue;
            }
            let kind = self.kind_of(service, &received);
            let gauge = gauges.by.get(id).map_or_else(Sums::default, |sides| sides.server.clone());
            rows.push(WorkloadRow {
                id: WorkloadId(id.clone()),
                version: member.owner.version.clone(),
                address: member.address.to_string(),
                scraped: member.scraped,
                in_flight: gauge.in_flight(gauges.measured, kind == "tcp"),
                rates: speaking(&received, &kind).server.rates(summed.measured),
                present: member.present,
            });
        }
        rows.sort_by_key(|row| !row.present);
        rows.truncate(limits::ROWS_MAX);
        rows
    }
}

/// One point of a series.
fn point(at: u64, mut sides: BTreeMap<Protocol, Sides>, measured: Measured, kind: &str) -> Point {
    let saturation = sides.remove(&Protocol::Saturation).unwrap_or_default();
    let (to, from) = sides.get(&Protocol::Tcp).map_or((0.0, 0.0), |tcp| tcp.bytes(measured));
    let spoken = speaking(&sides, kind);
    Point {
        at: at as f64,
        client: spoken.client.rates(measured),
        server: spoken.server.rates(measured),
        in_flight: saturation.server.in_flight(measured, kind == "tcp"),
        bytes_per_second: to + from,
    }
}

/// The busiest edges first.
fn busiest(mut rows: Vec<Edge>) -> Vec<Edge> {
    let most = |row: &Edge| row.client.per_second.max(row.server.per_second);
    rows.sort_by(|a, b| most(b).total_cmp(&most(a)));
    rows.truncate(limits::ROWS_MAX);
    rows
}

/// Seconds between points: a length people know, with at most [`limits::POINTS_MAX`] points.
fn nice_step(window: u64) -> u64 {
    const NICE: [u64; 18] = [
        1, 2, 3, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200,
    ];
    let least = window.div_ceil(limits::POINTS_MAX);
    NICE.into_iter().find(|&step| step >= least).unwrap_or(86_400)
}
