//! Rules and what they decided, what sidecars refused, and names that were not found.

use std::{cmp::Ordering, collections::BTreeMap};

use heddle_model::{ServiceName, WorkloadId};
use heddle_wire::local::observe_api::{
    NameFailure, PathRow, RefusalRow, RefusalsPage, RuleRow, RulesPage, TemplateRow,
};

use super::{TimeRange, View};
use crate::{
    limits,
    measure::{Protocol, Reporter},
    names::{FailedName, Meant},
    rates::Sums,
    roster::Member,
    store::{Measured, Period},
};

impl View {
    /// The rules in force with what they decided in the period.
    pub(crate) fn rules(&self, asked: TimeRange) -> RulesPage {
        let period = self.period(asked, 1, false);
        RulesPage {
            mesh: self.mesh.clone(),
            at: self.store.newest().unwrap_or(0) as f64,
            window: (period.to - period.from) as f64,
            known: self.rulebook.is_known(),
            rules: self.rule_rows(None, &period),
            changes: self.rulebook.changes(period.from, period.to, None),
        }
    }

    /// What the mesh refused in the period, and what was not found.
    pub(crate) fn refusals_page(&self, asked: TimeRange) -> RefusalsPage {
        let period = self.period(asked, 1, false);
        RefusalsPage {
            mesh: self.mesh.clone(),
            at: self.store.newest().unwrap_or(0) as f64,
            window: (period.to - period.from) as f64,
            refusals: self.refusals(None, &period),
            names: self.failed_names(None, &period),
            tls: self.tls_failures(),
            ejections: self.ejections(),
        }
    }

    /// Rules, or those about a service, with what they decided.
    pub(super) fn rule_rows(&self, about: Option<&ServiceName>, period: &Period) -> Vec<RuleRow> {
        let (decided, measured) = self.decided(about, period);
        let mut rows: Vec<RuleRow> =
            self.rulebook.about(about).take(limits::ROWS_MAX).cloned().collect();
        let nothing = Sums::default();
        for row in &mut rows {
            let key = format!("{}/{}/{}", row.kind, row.namespace, row.name);
            for part in &mut row.parts {
                let sums = decided.get(format!("{key}#{}", part.name).as_str());
                part.rates = sums.unwrap_or(&nothing).rates(measured);
            }
        }
        rows
    }

    /// Calls to a service by the rule that decided about them.
    pub(super) fn paths(&self, service: &ServiceName, period: &Period) -> Vec<PathRow> {
        let (decided, measured) = self.decided(Some(service), period);
        let mut rows: Vec<PathRow> = decided
            .into_iter()
            .filter(|(_, sums)| sums.any())
            .map(|(rule, sums)| {
                let part = self.rulebook.part(rule);
                PathRow {
                    rule: rule.to_owned(),
                    matches: part.map(|part| part.matches.clone()).unwrap_or_default(),
                    in_force: part.is_some(),
                    rates: sums.rates(measured),
                }
            })
            .collect();
        rows.sort_by(|a, b| b.rates.per_second.total_cmp(&a.rates.per_second));
        rows.truncate(limits::ROWS_MAX);
        rows
    }

    /// What a service is asked for, by the template of the path.
    pub(super) fn templates(&self, service: &ServiceName, period: &Period) -> Vec<TemplateRow> {
        let (asked, measured) = self.counted(Protocol::Path, Some(service), period);
        let mut rows: Vec<TemplateRow> = asked
            .into_iter()
            .filter(|(_, sums)| sums.any())
            .map(|(path, sums)| TemplateRow { path: path.to_owned(), rates: sums.rates(measured) })
            .collect();
        rows.sort_by(|a, b| b.rates.per_second.total_cmp(&a.rates.per_second));
        rows.truncate(limits::ROWS_MAX);
        rows
    }

    /// What each rule decided, by the name it is counted under.
    fn decided(
        &self,
        about: Option<&ServiceName>,
        period: &Period,
    ) -> (BTreeMap<&str, Sums>, Measured) {
        self.counted(Protocol::Rule, about, period)
    }

    /// What is counted besides traffic, by what stands for the version.
    fn counted(
        &self,
        protocol: Protocol,
        about: Option<&ServiceName>,
        period: &Period,
    ) -> (BTreeMap<&str, Sums>, Measured) {
        let whole = period.whole();
        let mut by: BTreeMap<&str, Sums> = BTreeMap::new();
        self.store.each(&whole, |_, cell, counts| {
            let is_about = about.is_none_or(|about| cell.destination == *about);
            if cell.protocol == protocol && is_about {
                by.entry(&cell.version).or_default().add(counts, &self.store.answers);
            }
        });
        (by, self.store.measured(&whole).first().copied().unwrap_or_default())
    }

    /// What sidecars refused, or those of one service.
    pub(super) fn refusals(&self, of: Option<&ServiceName>, period: &Period) -> Vec<RefusalRow> {
        let summed = self.sum(period, |cell| {
            let is_of = of.is_none_or(|service| cell.destination == *service);
            (cell.protocol == Protocol::Refusal && is_of).then(|| {
                let place = (cell.workload.clone(), cell.destination.clone());
                (place, cell.reporter, cell.version.clone())
            })
        });
        let rows = summed.by.into_iter().map(|(((by, service), reporter, code), mut sides)| {
            let outbound = reporter == Reporter::Client;
            RefusalRow {
                by: WorkloadId(by),
                service,
                direction: if outbound { "outbound" } else { "inbound" }.to_owned(),
                code,
                count: sides.side(reporter).requests,
            }
        });
        let mut rows: Vec<RefusalRow> = rows.filter(|row| row.count > 0.0).collect();
        rows.sort_by(|a, b| b.count.total_cmp(&a.count));
        rows.truncate(limits::ROWS_MAX);
        rows
    }

    /// Names that had no address in the period: all, or those that workloads of a service asked for and those that may
    /// have meant it.
    pub(super) fn failed_names(
        &self,
        about: Option<&ServiceName>,
        period: &Period,
    ) -> Vec<NameFailure> {
        let (from, to) = (period.from as f64, period.to as f64);
        let told = self.roster.present().filter(|member| member.scraped).flat_map(|member| {
            let within =
                member.names.iter().filter(move |one| one.last >= from && one.last < to + 1.0);
            within.map(move |one| (member, one))
        });
        let is_own = |member: &Member| about.is_some_and(|one| member.owner.service == *one);
        // What is known to be told comes first: so many names only are compared with all services.
        let mut told: Vec<_> = told.map(|(member, one)| (!is_own(member), member, one)).collect();
        told.sort_by(|(a_other, _, a), (b_other, _, b)| {
            a_other.cmp(b_other).then_with(|| newest(a, b))
        });
        let mut meant = Meant::new(self.roster.services.keys(), limits::ROWS_MAX);
        let rows = told.into_iter().filter_map(|(_, member, one)| {
            let namespace = &member.owner.service.namespace;
            let did_you_mean = meant.by(&one.name, namespace);
            let is_about = about.is_none_or(|service| {
                let short = did_you_mean.is_some_and(|meant| {
                    ServiceName::resolve(meant, namespace).is_ok_and(|meant| meant == *service)
                });
                is_own(member) || short
            });
            let did_you_mean = did_you_mean.map(str::to_owned);
            is_about.then_some((member, one, did_you_mean))
        });
        let mut rows: Vec<_> = rows.take(limits::ROWS_MAX).collect();
        rows.sort_by(|(_, a, _), (_, b, _)| newest(a, b));
        let row = |(member, one, did_you_mean): (&Member, &FailedName, _)| NameFailure {
            by: WorkloadId(member.owner.id.clone()),
            service: member.owner.service.clone(),
            name: one.name.clone(),
            answer: one.answer.clone(),
            count: one.count,
            last: one.last,
            did_you_mean,
        };
        rows.into_iter().map(row).collect()
    }
}

/// Which of two names was asked for last.
fn newest(a: &FailedName, b: &FailedName) -> Ordering {
    b.last.total_cmp(&a.last).then_with(|| a.name.cmp(&b.name))
}
