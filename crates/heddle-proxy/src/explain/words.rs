//! What rules ask for, in words.

use std::time::Duration;

use heddle_logic::{HeaderEdit, RequestView, rule::Changes};
use heddle_model::discovery::{
    AbortWith, ClientTls, Fault, HashKey, HashTable, Injection, LoadBalancing, Method,
    OutlierDetection, Provenance, Retries, TcpFault,
};
use heddle_model::secret;
use heddle_wire::local::sidecar_api::{InjectedFault, ToldRefusal};

use crate::refusal::Refused;

/// A refusal as its row has it.
pub(super) fn refusal(refused: &Refused) -> ToldRefusal {
    let row = refused.refusal.row();
    ToldRefusal {
        code: row.code.to_string(),
        status: row.status,
        grpc_status: row.grpc,
        flag: row.flag.name().to_owned(),
        text: row.text.into_owned(),
        rule: refused.rule.as_ref().map(|rule| rule.0.clone()),
    }
}

/// What a rule's fault injects: delay and abort are drawn apart from each other.
pub(super) fn faults(fault: &Fault, by: &Provenance) -> Vec<InjectedFault> {
    let one = |what: String, percent: f64| InjectedFault {
        rule: by.0.clone(),
        what,
        percent,
        until: fault.expires,
    };
    let delay = fault.delay.as_ref().map(|delay| {
        let before =
            if fault.before_limits { ", before the time of its limits begins" } else { "" };
        one(format!("a delay of {:?}{before}", delay.duration), delay.percent)
    });
    let abort = fault.abort.as_ref().map(|abort| {
        let with = AbortWith { status: abort.status, grpc: abort.grpc };
        one(injection(Injection::Abort(with)), abort.percent)
    });
    delay.into_iter().chain(abort).collect()
}

/// What a fault does.
pub(super) fn injection(does: Injection) -> String {
    match does {
        Injection::Delay(delay) => format!("a delay of {delay:?}"),
        Injection::Abort(AbortWith { status, grpc: None }) => format!("an abort with {status}"),
        Injection::Abort(AbortWith { status, grpc: Some(grpc) }) => {
            format!("an abort with {status}, for gRPC with status {grpc}")
        }
        Injection::Tcp(TcpFault::Refuse) => "the connection is reset at once".to_owned(),
        Injection::Tcp(TcpFault::Blackhole) => "nothing passes on the connection".to_owned(),
        Injection::Tcp(TcpFault::ResetAfterBytes(bytes)) => {
            format!("the connection is reset after {bytes} bytes")
        }
        Injection::Tcp(TcpFault::BytesPerSecond(bytes)) => {
            format!("no more than {bytes} bytes pass in a second")
        }
    }
}

/// What goes on in place of what came.
pub(super) fn changes(
    request: &dyn RequestView,
    path: Option<&str>,
    changes: &Changes,
) -> Vec<String> {
    let came = request.target().split(['?', '#']).next().unwrap_or_default();
    let path = path.filter(|path| *path != came);
    let path = path.map(|path| format!("path {came:?} goes on as {path:?}"));
    let authority = changes
        .authority
        .as_deref()
        .map(|authority| format!("authority {:?} goes on as {authority:?}", request.authority()));
    path.into_iter().chain(authority).chain(changes.request.iter().map(edit)).collect()
}

/// A change of a field.
pub(super) fn edit(edit: &HeaderEdit) -> String {
    let shown = |name: &str, value: &str| match secret::is_secret(name) {
        true => secret::HIDDEN.to_owned(),
        false => format!("{value:?}"),
    };
    match edit {
        HeaderEdit::Set(name, value) => format!("header {name} is set to {}", shown(name, value)),
        HeaderEdit::Add(name, value) => {
            format!("header {name} is given {} too", shown(name, value))
        }
        HeaderEdit::Remove(name) => format!("header {name} is removed"),
    }
}

/// What is sent again.
pub(super) fn retries(retries: &Retries) -> String {
    if retries.attempts == 0 {
        return "nothing is sent again".to_owned();
    }
    let statuses = retries.statuses.iter().map(u16::to_string);
    let on: Vec<String> = retries.conditions.iter().cloned().chain(statuses).collect();
    let on = if on.is_empty() { "nothing".to_owned() } else { on.join(", ") };
    let mut text = format!("up to {} more on {on}", retries.attempts);
    if let Some(limit) = retries.per_try_timeout {
        text.push_str(&format!("; each try within {limit:?}"));
    }
    if !retries.any_method {
        text.push_str("; only what may be sent twice");
    }
    text
}

/// How an endpoint is chosen.
pub(super) fn balancing(rule: Option<&LoadBalancing>) -> String {
    let Some(rule) = rule else {
        return "the better of two at random, by latency and requests in flight".to_owned();
    };
    let mut text = match &rule.method {
        Method::LeastRequest => {
            "the better of two at random, by latency and requests in flight".to_owned()
        }
        Method::RoundRobin => "one after the other".to_owned(),
        Method::Random => "at random".to_owned(),
        Method::Passthrough => "none: the address that was asked for".to_owned(),
        Method::Hash(policy) => {
            let key = match &policy.key {
                HashKey::Header(name) => format!("header {name}"),
                HashKey::Cookie(cookie) => format!("cookie {}", cookie.name),
                HashKey::SourceIp => "the caller's address".to_owned(),
                HashKey::QueryParameter(name) => format!("query parameter {name}"),
            };
            let table = match policy.table {
                HashTable::Ring(_) => "a ring",
                HashTable::Maglev(_) => "Maglev's table",
            };
            format!("by {key}, through {table}: the same key goes to the same endpoint")
        }
    };
    if let Some(warmup) = &rule.warmup {
        text.push_str(&format!("; a new one warms up for {:?}", warmup.duration));
    }
    let by_locality = rule.locality.as_ref().filter(|rules| !rules.off);
    if by_locality.is_some_and(|rules| !rules.distribute.is_empty()) {
        text.push_str("; localities have shares");
    } else if by_locality.is_some() {
        text.push_str("; what is near goes first");
    }
    text
}

/// When an endpoint is taken out.
pub(super) fn ejection(rule: &OutlierDetection) -> String {
    let OutlierDetection { base_ejection_time, max_ejection_percent, .. } = rule;
    let mut when = Vec::new();
    let mut counted = |count: u32, what: &str| {
        if count > 0 {
            when.push(format!("{count} {what} in a row"));
        }
    };
    counted(
        rule.consecutive_5xx,
        if rule.error_codes.is_empty() { "answers of 5xx" } else { "of its errors" },
    );
    counted(rule.consecutive_gateway, "answers of 502, 503 or 504");
    if rule.splits_local_origin {
        counted(rule.consecutive_local_origin, "failures to reach it");
    }
    if rule.success_rate.is_some() {
        when.push("far fewer successes than the others".to_owned());
    }
    if let Some(share) = rule.failure_percentage {
        when.push(format!("{} % failures", share.threshold));
    }
    let when = if when.is_empty() { "never".to_owned() } else { when.join(", or ") };
    format!(
        "out for {} after {when}; at most {max_ejection_percent} % at once",
        length(*base_ejection_time)
    )
}

fn length(time: Duration) -> String {
    format!("{time:?}")
}

/// The TLS that is begun.
pub(super) fn tls(tls: &ClientTls) -> String {
    let kind = if tls.mutual { "TLS with a certificate of its own" } else { "TLS" };
    let name = match tls.server_name.as_str() {
        "" => String::new(),
        name => format!(" for {name}"),
    };
    let verified = if tls.unverified { ", any certificate is believed" } else { "" };
    format!("{kind}{name}{verified}")
}
