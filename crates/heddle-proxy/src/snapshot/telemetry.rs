//! What is to be told about calls, ready for use: formats and filters are read once per generation, not per
//! request. Who writes it down is `access_log`'s; who traces, another's.

use std::{collections::BTreeMap, sync::Arc};

use heddle_model::{
    discovery::{
        AccessLog, Collector, LogLayout, LogSink, SideTelemetry, TagChange, WorkloadTelemetry,
    },
    yaml::{
        expression::{Attribute, Expression},
        log_format::{self, Command, Header, Piece},
    },
};

use super::tracing::TracePlan;
use crate::direction::Direction;

/// What is to be told about calls in either direction.
#[derive(Debug, Default)]
pub struct TelemetryPlan {
    client: Option<Arc<SidePlan>>,
    server: Option<Arc<SidePlan>>,
}

/// The same for one direction: there is something to be told.
#[derive(Debug, Default)]
pub struct SidePlan {
    /// Access logs.
    pub logs: Vec<LogPlan>,
    /// How requests are traced; `None`: not at all.
    pub tracing: Option<Arc<TracePlan>>,
    /// Does a tag of a metric say something of a call that has to be gathered?
    pub tags: bool,
    /// Fields that somebody asks for.
    pub wants: Wants,
}

/// Fields to be kept of a request and its response, in lower case, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// Of the request.
    pub request: Vec<String>,
    /// Of the response.
    pub response: Vec<String>,
}

/// An access log.
#[derive(Debug)]
pub struct LogPlan {
    /// Where it goes.
    pub to: LogTo,
    /// How a line looks; what a collector gets as the body.
    pub line: LinePlan,
    /// What a collector is told besides, by name.
    pub attributes: Vec<(String, Vec<Piece>)>,
    /// Only calls that meet this.
    pub filter: Option<Expression>,
}

/// Where an access log goes.
#[derive(Debug)]
pub enum LogTo {
    /// Into this file.
    File(String),
    /// To a collector.
    Collector(Arc<LogCollector>),
}

/// A log that goes to a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCollector {
    /// Who takes it.
    pub to: Collector,
    /// What it is called.
    pub name: String,
}

/// How a line of an access log looks.
#[derive(Debug)]
pub enum LinePlan {
    /// Pieces of a text.
    Text(Vec<Piece>),
    /// Names with pieces of a text each, in order.
    Json(Vec<(String, Vec<Piece>)>),
}

impl TelemetryPlan {
    /// Reads everything. What does not read was refused where it came from; from a newer control plane it is
    /// left out, and said so.
    #[must_use]
    pub fn of(told: &WorkloadTelemetry) -> Self {
        Self { client: side(&told.client), server: side(&told.server) }
    }

    /// For calls in this direction; `None` where nothing is to be told.
    #[must_use]
    #[inline]
    pub fn side(&self, direction: Direction) -> Option<&Arc<SidePlan>> {
        match direction {
            Direction::Outbound => self.client.as_ref(),
            Direction::Inbound => self.server.as_ref(),
        }
    }
}

impl SidePlan {
    /// Is what is known of every call gathered for it? Of a span that is its own business.
    #[inline]
    pub(crate) fn gathers(&self) -> bool {
        self.tags || !self.logs.is_empty()
    }
}

fn side(told: &SideTelemetry) -> Option<Arc<SidePlan>> {
    let tags = tags(told);
    if !told.gathers() && tags.is_empty() {
        return None;
    }
    let read = |log: &AccessLog| match LogPlan::read(log) {
        Ok(plan) => Some(plan),
        Err(reason) => {
            let rule = &log.provenance.0;
            tracing::warn!(rule, provider = log.provider, reason, "an access log is left out");
            None
        }
    };
    let mut plan = SidePlan {
        logs: told.access_logs.iter().filter_map(read).collect(),
        tracing: told.tracing.as_deref().map(TracePlan::new).map(Arc::new),
        tags: !tags.is_empty(),
        wants: Wants::default(),
    };
    for log in &plan.logs {
        plan.wants.by_log(log);
    }
    tags.iter().for_each(|expression| plan.wants.by_expression(expression));
    Some(Arc::new(plan))
}

/// What tags of metrics ask for of a call; whose values are as written, nothing. What they come to is the metrics'.
fn tags(told: &SideTelemetry) -> Vec<Expression> {
    let changes = told.metrics.iter().flat_map(|change| change.tags.values());
    let expressions = changes.filter_map(|change| match change {
        TagChange::Value(text) => Expression::parse(text).ok(),
        TagChange::Removed => None,
    });
    let asks = |expression: &Expression| {
        let mut any = false;
        expression.attributes(&mut |_| any = true);
        any
    };
    expressions.filter(asks).collect()
}

impl LogPlan {
    fn read(log: &AccessLog) -> Result<Self, String> {
        let line = match &log.layout {
            LogLayout::Text(text) => {
                // Each call is a line, whether its format says so or not.
                LinePlan::Text(log_format::parse(text.trim_end_matches('\n'))?)
            }
            LogLayout::Json(fields) => LinePlan::Json(named(fields)?),
        };
        let to = match &log.to {
            LogSink::File(path) => LogTo::File(path.clone()),
            LogSink::Otlp(to) => {
                let (to, name) = (to.clone(), log.log_name.clone());
                LogTo::Collector(Arc::new(LogCollector { to, name }))
            }
        };
        let filter = log.filter.as_deref().map(Expression::parse_condition).transpose()?;
        Ok(Self { to, line, attributes: named(&log.attributes)?, filter })
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        let (text, json) = match &self.line {
            LinePlan::Text(pieces) => (&pieces[..], &[][..]),
            LinePlan::Json(fields) => (&[][..], &fields[..]),
        };
        let named = json.iter().chain(&self.attributes);
        text.iter().chain(named.flat_map(|(_, pieces)| pieces))
    }
}

/// Formats by name.
fn named(fields: &BTreeMap<String, String>) -> Result<Vec<(String, Vec<Piece>)>, String> {
    let read = |(name, format): (&String, &String)| Ok((name.clone(), log_format::parse(format)?));
    fields.iter().map(read).collect()
}

impl Wants {
    fn by_log(&mut self, log: &LogPlan) {
        for piece in log.pieces() {
            let (list, header) = match piece {
                Piece::Command(Command::Request(header), _) => (&mut self.request, header),
                Piece::Command(Command::Response(header), _) => (&mut self.response, header),
                _ => continue,
            };
            let Header { name, or } = header;
            add(list, name);
            or.iter().for_each(|name| add(list, name));
        }
        if let Some(filter) = &log.filter {
            self.by_expression(filter);
        }
    }

    fn by_expression(&mut self, expression: &Expression) {
        expression.attributes(&mut |attribute| match attribute {
            Attribute::RequestHeader(name) => add(&mut self.request, name),
            Attribute::ResponseHeader(name) => add(&mut self.response, name),
            _ => {}
        });
    }
}

/// Pseudo-fields are known anyway.
fn add(list: &mut Vec<String>, name: &str) {
    if !name.starts_with(':') && !list.iter().any(|known| known == name) {
        list.push(name.to_owned());
    }
}
