//! A finished call for those who look: matched before anything is written, then one line of JSON for each.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use heddle_logic::expression;
use heddle_model::{ServiceName, discovery::WorkloadInfo, secret, timestamp::civil};
use heddle_wire::local::tap_api::{
    Ending, Fault, LINE_BYTES_MAX, Name, Party, Refused, Side, TapFilter, TapLine, TappedCall,
};

use crate::{
    direction::Direction,
    facts::{Facts, Request},
    limits::{TAP_PATH_BYTES, TAP_TEXT_BYTES},
    memory::Pressure,
    metrics::{Grpc, ServiceLabels},
    refusal::{Flag, Flags},
    tap::{Tap, TapSet},
};

/// Who is at the other end of a call, and what was called.
#[derive(Debug)]
pub(crate) struct Parties<'a> {
    /// The other workload; `None` within where nobody knows it, `None` while that is being asked.
    pub(crate) peer: Option<Option<Arc<WorkloadInfo>>>,
    /// The service.
    pub(crate) service: &'a ServiceLabels,
}

/// What else is to be known to tell of a call.
#[derive(Debug)]
pub(crate) struct Of<'a> {
    /// Whose sidecar this is.
    pub(crate) own: &'a WorkloadInfo,
    /// Who called whom.
    pub(crate) parties: &'a Parties<'a>,
    /// How close this process is to its memory limit.
    pub(crate) pressed: Pressure,
}

/// Tells those whose filter the call meets.
#[cold]
pub(super) fn told(taps: &TapSet, facts: &Facts, of: &Of<'_>) {
    let call = Known { facts, of };
    for tap in taps.taps.iter().filter(|tap| call.is_meant_by(tap)) {
        // What is only looked at is given up first.
        if of.pressed > Pressure::None || !tap.has_room() {
            tap.lose();
            continue;
        }
        match call.line(&tap.filter) {
            Some(line) => tap.hand_over(line),
            None => tap.lose(),
        }
    }
}

/// What is known of a call.
struct Known<'a> {
    facts: &'a Facts,
    of: &'a Of<'a>,
}

impl Known<'_> {
    fn side(&self) -> Side {
        match self.facts.direction {
            Direction::Outbound => Side::Client,
            Direction::Inbound => Side::Server,
        }
    }

    fn is_meant_by(&self, tap: &Tap) -> bool {
        let (filter, facts) = (&tap.filter, self.facts);
        filter.side.is_none_or(|side| side == self.side())
            && !(filter.unseen && self.seen_by_callee())
            && filter.slower_than.is_none_or(|than| facts.finish.duration > than)
            && self.is_asked(filter)
            && self.ended(filter)
            && self.is_between(filter)
            && tap.expression.as_ref().is_none_or(|one| expression::holds(one, facts))
    }

    fn is_asked(&self, filter: &TapFilter) -> bool {
        if filter.path.is_none() && filter.method.is_empty() {
            return true;
        }
        // A connection has neither.
        let Some(request) = &self.facts.request else { return false };
        filter.path.as_ref().is_none_or(|path| path.holds(&request.target))
            && (filter.method.is_empty()
                || filter.method.iter().any(|one| one.eq_ignore_ascii_case(&request.method)))
    }

    fn ended(&self, filter: &TapFilter) -> bool {
        if filter.status.is_empty() {
            return true;
        }
        let finish = &self.facts.finish;
        let is_request = !self.is_connection();
        let ending = Ending {
            is_request,
            status: finish.status,
            grpc: grpc(finish.grpc),
            refused: self.facts.refusal.is_some(),
            reset: [Flag::UC, Flag::UF, Flag::DC].into_iter().any(|flag| finish.flags.has(flag)),
        };
        // A connection has no status, so that it is not one without an answer either.
        let holds = |status: &heddle_wire::local::tap_api::StatusFilter| {
            status.holds(if is_request { finish.status } else { u16::MAX }, ending.failed())
        };
        filter.status.iter().any(holds)
    }

    fn is_between(&self, filter: &TapFilter) -> bool {
        let Of { own, parties, .. } = self.of;
        let callee = |name: &Name| {
            let workload = self.callee();
            let id = workload.map(|one| one.id.0.as_str());
            let names = [parties.service.known(), workload.map(|one| one.name.as_str()), id];
            name.means(names, self.callee_namespace())
        };
        let caller = |name: &Name| match self.side() {
            Side::Client => is(name, own),
            Side::Server => match &parties.peer {
                Some(Some(peer)) => is(name, peer),
                Some(None) => false,
                // Not known yet: the reader knows whose address it is.
                None => true,
            },
        };
        filter.to.as_ref().is_none_or(callee)
            && filter.from.as_ref().is_none_or(caller)
            && filter.namespace.as_deref().is_none_or(|one| self.callee_namespace() == Some(one))
    }

    fn callee(&self) -> Option<&WorkloadInfo> {
        match self.side() {
            Side::Server => Some(self.of.own),
            Side::Client => {
                let picked = self.facts.upstream.workload.as_ref();
                let counted = || self.of.parties.peer.as_ref().and_then(Option::as_ref);
                picked.or_else(counted).map(Arc::as_ref)
            }
        }
    }

    fn callee_namespace(&self) -> Option<&str> {
        let service = self.of.parties.service.namespace();
        service.or_else(|| self.callee().map(|one| one.namespace.as_str()))
    }

    /// Does the other sidecar, if there is one, tell the same? It does of what reached it in one attempt, and was
    /// answered by it, or left by the client.
    fn seen_by_callee(&self) -> bool {
        let Facts { upstream, answer, injected, refusal, finish, .. } = self.facts;
        let mut left = Flags::default();
        left.set(Flag::DC);
        self.side() == Side::Client
            && upstream.workload.is_some()
            && upstream.is_hop
            && upstream.attempts == 1
            && injected.is_empty()
            && refusal.is_none()
            && (finish.flags == Flags::default() || finish.flags == left)
            && (self.is_connection()
                || answer.details == Some("via_upstream")
                || finish.flags == left)
    }

    /// Is it no request? What could not be read as one has a status.
    fn is_connection(&self) -> bool {
        self.facts.request.is_none() && self.facts.finish.status == 0
    }

    /// A line with its end; `None` for one that is too long.
    fn line(&self, filter: &TapFilter) -> Option<Bytes> {
        let mut line = serde_json::to_vec(&TapLine::Call(Box::new(self.call(filter)))).ok()?;
        line.push(b'\n');
        (line.len() <= LINE_BYTES_MAX).then(|| line.into())
    }

    fn call(&self, filter: &TapFilter) -> TappedCall {
        let Facts { finish, upstream, .. } = self.facts;
        let request = self.facts.request.as_ref();
        let text = |of: fn(&Request) -> &str| request.map(of).unwrap_or_default();
        let protocol = if self.is_connection() { "tcp" } else { text(|one| one.protocol) };
        let path = secret::shown_target(text(|one| &one.target));
        let authority = match request {
            Some(request) => request.authority.as_str(),
            None => self.facts.server_name.as_deref().unwrap_or_default(),
        };
        TappedCall {
            time: moment(self.facts.started),
            side: self.side(),
            sidecar: self.of.own.id.to_string(),
            from: self.from(),
            to: self.to(),
            protocol: protocol.to_owned(),
            method: bounded(text(|one| &one.method), TAP_TEXT_BYTES),
            authority: bounded(&secret::shown_authority(authority), TAP_TEXT_BYTES),
            path: bounded(&path, TAP_PATH_BYTES),
            status: finish.status,
            grpc_status: grpc(finish.grpc),
            duration_ms: (finish.duration.as_secs_f64() * 1e6).round() / 1e3,
            retries: upstream.attempts.saturating_sub(1),
            flags: finish.flags.to_string(),
            received_bytes: finish.received,
            sent_bytes: finish.sent,
            rule: self.facts.rule.as_deref().map(|rule| bounded(rule, TAP_TEXT_BYTES)),
            refusal: self.refusal(),
            faults: self.faults(),
            request_headers: shown(filter, |name| self.facts.request_field(name)),
            response_headers: shown(filter, |name| self.facts.response_field(name)),
            request_id: request
                .map_or(self.facts.kept_as.as_deref(), |one| one.id.as_deref())
                .map(|id| bounded(id, TAP_TEXT_BYTES)),
            trace_id: self.facts.trace.as_ref().map(|ids| ids.trace.to_string()),
            seen_by_callee: self.seen_by_callee(),
        }
    }

    fn from(&self) -> Party {
        let address = self.facts.ends.remote.map(|at| match at.port() {
            0 => at.ip().to_string(),
            _ => at.to_string(),
        });
        let caller = match self.side() {
            Side::Client => Some(self.of.own),
            Side::Server => self.of.parties.peer.as_ref().and_then(Option::as_deref),
        };
        let service = caller.and_then(WorkloadInfo::first_service).map(ServiceName::fqdn);
        Party { service, address, ..caller.map(party).unwrap_or_default() }
    }

    fn to(&self) -> Party {
        let address = match (self.side(), &self.facts.upstream.address) {
            (Side::Client, Some(address)) => address.to_string(),
            _ => self.facts.ends.called.to_string(),
        };
        let known = self.callee().map(party).unwrap_or_default();
        Party {
            service: self.of.parties.service.known().map(|name| bounded(name, TAP_TEXT_BYTES)),
            namespace: self.callee_namespace().map(str::to_owned),
            address: Some(bounded(&address, TAP_TEXT_BYTES)),
            ..known
        }
    }

    fn refusal(&self) -> Option<Refused> {
        let reason = bounded(self.facts.refusal.as_deref()?, TAP_TEXT_BYTES);
        Some(Refused { code: self.facts.answer.details.unwrap_or("-").to_owned(), reason })
    }

    fn faults(&self) -> Vec<Fault> {
        let one = |fault: &crate::facts::Injected| Fault {
            what: fault.what.to_owned(),
            rule: bounded(&fault.rule, TAP_TEXT_BYTES),
        };
        self.facts.injected.iter().map(one).collect()
    }
}

fn is(name: &Name, workload: &WorkloadInfo) -> bool {
    let own = [None, Some(workload.name.as_str()), Some(workload.id.0.as_str())];
    let namespace = Some(workload.namespace.as_str());
    name.means(own, namespace)
        || workload.services.iter().any(|service| {
            name.means([Some(&service.fqdn()), None, None], Some(&service.namespace))
        })
}

fn party(workload: &WorkloadInfo) -> Party {
    Party {
        service: None,
        workload: Some(workload.name.clone()),
        id: Some(workload.id.0.clone()),
        namespace: Some(workload.namespace.clone()),
        version: Some(workload.version.clone()).filter(|version| !version.is_empty()),
        address: None,
    }
}

/// Fields that this filter asks for and that are there; another's may be among what was kept.
fn shown<'a>(
    filter: &TapFilter,
    field: impl Fn(&str) -> Option<&'a str>,
) -> BTreeMap<String, String> {
    let one = |name: &String| {
        let value = secret::shown_value(name, field(name)?);
        Some((name.clone(), bounded(&value, TAP_TEXT_BYTES)))
    };
    filter.headers.iter().filter_map(one).collect()
}

fn grpc(grpc: Grpc) -> Option<u32> {
    match grpc {
        Grpc::Status(status) => Some(status.into()),
        Grpc::No | Grpc::Unanswered => None,
    }
}

/// What is shown of a text; of one that is cut, that it is.
fn bounded(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// RFC 3339 with milliseconds.
fn moment(since_epoch: Duration) -> String {
    let (year, month, day, of_day) = civil(since_epoch.as_secs());
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let millis = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests;
