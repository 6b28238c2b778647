//! The mesh's own `Fault`: whose calls, on whose side, and what is injected into which share of them.
//! Matches are a VirtualService's; what is not known where a fault is injected is refused in a match.

use super::{
    node::{Node, Value},
    report::Report,
    schema::{
        DURATION, Kind, LABELS, Object, Rule, check, exactly_one, join, optional, present, required,
    },
    value,
    virtual_service::{HTTP_MATCH, PERCENT, http_match},
};
use crate::{
    discovery::{AbortWith, Injection, TcpFault, http_of_grpc},
    resource::{FaultRule, FaultSide, FaultTarget},
    timestamp,
};

/// `spec` of a Fault.
pub(super) static SPEC: Object = Object {
    fields: &[
        optional("targetRef", Kind::Object(&TARGET)),
        // Labels, or as Istio's kinds have them: `matchLabels`. Which of the two, a rule below tells.
        optional("selector", Kind::Any),
        optional("side", Kind::Choice(&["client", "server"])),
        optional("match", Kind::List { of: &Kind::Object(&HTTP_MATCH), least: 0 }),
        optional("percentage", Kind::Either(&SHARE, &Kind::Object(&PERCENT))),
        optional("delay", Kind::Either(&DURATION, &Kind::Object(&DELAY))),
        optional("abort", Kind::Object(&ABORT)),
        optional("tcp", Kind::Either(&Kind::Choice(WHOLE), &Kind::Object(&TCP))),
        optional("expires", Kind::Text(value::moment)),
    ],
    rules: RULES,
};

const RULES: &[Rule] = &[
    |spec, path, report| exactly_one(spec, &["targetRef", "selector"], path, report),
    |spec, path, report| exactly_one(spec, &["delay", "abort", "tcp"], path, report),
    selector,
    share,
    matches,
];

const SHARE: Kind = Kind::Number { min: 0.0, max: 100.0 };

static TARGET: Object = Object {
    fields: &[
        optional("group", Kind::Choice(&["", "core"])),
        optional("kind", Kind::Choice(&["Service"])),
        required("name", Kind::Text(value::service_name)),
        optional("namespace", Kind::Text(value::namespace)),
    ],
    rules: &[],
};

static SELECTOR: Object = Object { fields: &[required("matchLabels", LABELS)], rules: &[] };

static DELAY: Object = Object { fields: &[required("fixedDelay", DURATION)], rules: &[] };

static ABORT: Object = Object {
    fields: &[
        optional("httpStatus", Kind::Int { min: 200, max: 599 }),
        optional("grpcStatus", Kind::Word(value::grpc_status)),
    ],
    rules: &[|node, path, report| {
        exactly_one(node, &["httpStatus", "grpcStatus"], path, report);
    }],
};

/// Faults that take no number, and so may be written alone.
const WHOLE: &[&str] = &["refuse", "blackhole"];
const BYTES: Kind = Kind::Int { min: 1, max: i64::MAX };

static TCP: Object = Object {
    fields: &[
        optional("refuse", Kind::Bool),
        optional("blackhole", Kind::Bool),
        optional("resetAfterBytes", BYTES).even_if_empty(),
        optional("bytesPerSecond", BYTES).even_if_empty(),
    ],
    rules: &[|node, path, report| {
        let all = ["refuse", "blackhole", "resetAfterBytes", "bytesPerSecond"];
        exactly_one(node, &all, path, report);
        for whole in present(node, WHOLE) {
            if let Some(no) = node.get(whole).filter(|value| !is_true(value)) {
                report.at(no, &join(path, whole), "`false` injects nothing: remove it");
            }
        }
    }],
};

fn is_true(node: &Node) -> bool {
    node.text().eq_ignore_ascii_case("true")
}

fn is_server(spec: &Node) -> bool {
    spec.text_of("side") == "server"
}

/// Labels choose workloads, and only their own sidecars know that they are meant.
fn selector(spec: &Node, path: &str, report: &mut Report<'_>) {
    let Some(selector) = spec.get("selector") else { return };
    let place = join(path, "selector");
    let kind = match selector.has("matchLabels") {
        true => &Kind::Object(&SELECTOR),
        false => &LABELS,
    };
    check(selector, kind, &place, report);
    if !is_server(spec) {
        let reason = "`selector` chooses the workloads that are called, whose own sidecars inject: write `side: server`, or `targetRef` for calls of a service";
        report.at(selector, &place, reason);
    }
}

/// A share that is none is a slip: nobody writes a rule to inject nothing.
fn share(spec: &Node, path: &str, report: &mut Report<'_>) {
    let Some(share) = spec.get("percentage").filter(|share| share.is_plain()) else { return };
    if share.text().parse::<f64>().is_ok_and(|value| value > 0.0 && value < 0.0001) {
        let reason = "too small a share: use 0, or 0.0001 to 100";
        report.at(share, &join(path, "percentage"), reason);
    }
}

/// Conditions that cannot be told where the fault is injected would never hold.
fn matches(spec: &Node, path: &str, report: &mut Report<'_>) {
    for (i, one) in spec.items_of("match").iter().enumerate() {
        let place = format!("{}[{i}]", join(path, "match"));
        for entry in one.entries().iter().filter(|entry| entry.value.value != Value::Null) {
            let reason = match entry.key.as_str() {
                "name" | "port" => continue,
                "gateways" => "a Fault holds inside the mesh: remove it",
                "sourceLabels" | "sourceNamespace" if is_server(spec) => {
                    "who calls is known to the caller's sidecar: write `side: client`, or remove it"
                }
                "sourceLabels" | "sourceNamespace" => continue,
                _ if spec.has("tcp") => {
                    "a connection has nothing of a request: with `tcp` use `port`, `sourceLabels` and `sourceNamespace` only"
                }
                _ => continue,
            };
            report.error(entry.line, &join(&place, &entry.key), reason);
        }
        for list in ["headers", "withoutHeaders"] {
            let entries = one.get(list).map_or(&[][..], Node::entries);
            for entry in entries.iter().filter(|entry| value::is_claim(&entry.key)) {
                let reason = "only a gateway knows the claims of a token";
                report.error(entry.line, &join(&join(&place, list), &entry.key), reason);
            }
        }
    }
}

/// What the rule says. Only called when the document has no error.
pub(super) fn read(spec: &Node) -> Option<FaultRule> {
    let expires = spec.get("expires");
    let target = spec.get("targetRef");
    let selector = spec.get("selector");
    let line = target.or(selector).map_or(spec.line, |node| node.line);
    Some(FaultRule {
        target: match target {
            Some(target) => FaultTarget::Service {
                name: target.text_of("name").to_owned(),
                namespace: target.get("namespace").map(|text| text.text().to_owned()),
            },
            None if selector.is_some_and(|selector| selector.has("matchLabels")) => {
                FaultTarget::Workloads(selector?.labels_of("matchLabels"))
            }
            None => FaultTarget::Workloads(spec.labels_of("selector")),
        },
        target_line: line,
        side: if is_server(spec) { FaultSide::Server } else { FaultSide::Client },
        matches: spec.items_of("match").iter().map(http_match).collect(),
        percent: percent(spec.get("percentage")),
        does: injection(spec)?,
        expires: expires.and_then(|text| timestamp::parse(text.text()).ok()),
        expires_line: expires.map_or(spec.line, |text| text.line),
    })
}

/// All where none is given: unlike a VirtualService's, this rule has no other purpose.
fn percent(share: Option<&Node>) -> f64 {
    let Some(share) = share else { return 100.0 };
    let text = if share.is_plain() { share.text() } else { share.text_of("value") };
    text.parse().unwrap_or(0.0)
}

fn injection(spec: &Node) -> Option<Injection> {
    if let Some(delay) = spec.get("delay") {
        let text = if delay.text().is_empty() { delay.text_of("fixedDelay") } else { delay.text() };
        return value::duration(text).ok().map(Injection::Delay);
    }
    if let Some(abort) = spec.get("abort") {
        let grpc = abort.get("grpcStatus").and_then(|code| value::grpc_code(code.text()).ok());
        let status = match grpc {
            Some(code) => http_of_grpc(code),
            None => abort.text_of("httpStatus").parse().ok()?,
        };
        return Some(Injection::Abort(AbortWith { status, grpc }));
    }
    let tcp = spec.get("tcp")?;
    let bytes = |name| tcp.text_of(name).parse().ok();
    let fault = match tcp.text() {
        "refuse" => TcpFault::Refuse,
        "blackhole" => TcpFault::Blackhole,
        _ if tcp.has("refuse") => TcpFault::Refuse,
        _ if tcp.has("blackhole") => TcpFault::Blackhole,
        _ => bytes("resetAfterBytes")
            .map(TcpFault::ResetAfterBytes)
            .or_else(|| bytes("bytesPerSecond").map(TcpFault::BytesPerSecond))?,
    };
    Some(Injection::Tcp(fault))
}
