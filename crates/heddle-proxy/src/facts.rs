//! What is known of one finished request or connection: gathered only where somebody wants it (an access log,
//! somebody who looks), and never otherwise. Filled by its outcome on the way; it decides nothing and writes nothing.

mod attributes;

use std::{
    borrow::Cow,
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use heddle_logic::route::RequestView;
use heddle_model::discovery::WorkloadInfo;
use heddle_runtime::clock;
use heddle_wire::trace::{SpanId, TraceId};

use crate::{
    direction::Direction,
    metrics::Grpc,
    refusal::{Flags, RefusalRow},
    snapshot::SidePlan,
    tap::TapSet,
};

/// Longest text that is kept of what a client sent: a target, an authority, a field's value. Bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 4_096;

/// Istio's name of where nothing may be called.
const BLACK_HOLE: &str = "BlackHoleCluster";

/// Who wants to know what is known of calls in one direction: one of them at least.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// What rules ask for.
    pub(crate) plan: Option<Arc<SidePlan>>,
    /// Those who look.
    pub(crate) taps: Option<Arc<TapSet>>,
}

impl Wanted {
    /// Fields of requests, by their names in lower case; one may be told twice.
    fn of_request(&self) -> impl Iterator<Item = &String> {
        let rules = self.plan.iter().flat_map(|plan| &plan.wants.request);
        rules.chain(self.taps.iter().flat_map(|taps| &taps.wants.request))
    }

    /// The same of responses.
    fn of_response(&self) -> impl Iterator<Item = &String> {
        let rules = self.plan.iter().flat_map(|plan| &plan.wants.response);
        rules.chain(self.taps.iter().flat_map(|taps| &taps.wants.response))
    }
}

/// Both ends of a client's connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    /// Who calls; port 0 where only the address is known.
    pub(crate) remote: Option<SocketAddr>,
    /// What was called: the original destination.
    pub(crate) called: SocketAddr,
}

/// What is known of a request; of a connection, that there was none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query as they came.
    pub(crate) target: String,
    /// The path that was sent on in its place.
    pub(crate) sent_path: Option<String>,
    pub(crate) authority: String,
    pub(crate) scheme: Cow<'static, str>,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub(crate) protocol: &'static str,
    /// `x-request-id`, of the client or of this sidecar.
    pub(crate) id: Option<String>,
    /// Fields that somebody asked for, by their names in lower case.
    pub(crate) fields: Vec<(String, String)>,
}

/// Where an upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// At an address.
    Address(SocketAddr),
    /// At a socket that has a path, or a name that begins with `@`.
    Socket(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(at) => write!(f, "{at}"),
            Self::Socket(path) => write!(f, "unix://{path}"),
        }
    }
}

/// Where it went.
#[derive(Debug, Clone, Default)]
pub(crate) struct Upstreamed {
    /// Name of the cluster, as Istio writes it.
    pub(crate) cluster: Option<String>,
    /// Address of the last endpoint that was tried.
    pub(crate) address: Option<Place>,
    /// Our end of its connection.
    pub(crate) local: Option<SocketAddr>,
    /// Who is there.
    pub(crate) workload: Option<Arc<WorkloadInfo>>,
    /// May that have a sidecar which reads what comes? What is outside has none, and what is within TLS none
    /// reads.
    pub(crate) is_hop: bool,
    /// How often it was sent.
    pub(crate) attempts: u32,
    /// When the last attempt began.
    pub(crate) begun: Option<Instant>,
    /// Why no connection came about.
    pub(crate) failure: Option<String>,
}

/// What was answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answered {
    /// From the last attempt to the head of its answer.
    pub(crate) service_time: Option<Duration>,
    /// From the request's first byte to that.
    pub(crate) after: Option<Duration>,
    /// Who answered, and why: `via_upstream`, `direct_response`, a refusal's code.
    pub(crate) details: Option<&'static str>,
    /// Fields that somebody asked for, by their names in lower case.
    pub(crate) fields: Vec<(String, String)>,
}

/// A fault that was injected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Injected {
    /// `delay`, `abort` or what a fault of a connection does.
    pub(crate) what: &'static str,
    /// Its rule; `-` where none is known.
    pub(crate) rule: String,
}

/// The recorded trace that it is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceIds {
    pub(crate) trace: TraceId,
    /// This hop's span.
    pub(crate) span: SpanId,
}

/// What stands at the end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Finish {
    /// 0 where nothing was answered, and for connections.
    pub(crate) status: u16,
    pub(crate) flags: Flags,
    pub(crate) grpc: Grpc,
    pub(crate) duration: Duration,
    /// Bytes from the client.
    pub(crate) received: u64,
    /// Bytes to the client.
    pub(crate) sent: u64,
}

/// What is known of a request or a connection.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Who wants it.
    pub(crate) wanted: Wanted,
    pub(crate) direction: Direction,
    /// When it began, since the Unix epoch.
    pub(crate) started: Duration,
    /// When its first byte came.
    pub(crate) begun: Instant,
    pub(crate) ends: Ends,
    /// `None` for a connection that carried no requests.
    pub(crate) request: Option<Request>,
    /// The name that a client of TLS asked for.
    pub(crate) server_name: Option<String>,
    pub(crate) upstream: Upstreamed,
    pub(crate) answer: Answered,
    /// The rule that decided where it went, or that refused it.
    pub(crate) rule: Option<String>,
    /// Why the mesh refused it, for people.
    pub(crate) refusal: Option<String>,
    /// The id under which a refused connection is kept for whoever asks why: it has no request that could have one.
    pub(crate) kept_as: Option<String>,
    pub(crate) injected: Vec<Injected>,
    pub(crate) trace: Option<TraceIds>,
    pub(crate) finish: Finish,
    /// Who calls this workload, as far as that is known at its end.
    pub(crate) caller: Option<Arc<WorkloadInfo>>,
}

impl Facts {
    /// Of something that began at `begun`.
    pub(crate) fn of(wanted: Wanted, direction: Direction, ends: Ends, begun: Instant) -> Self {
        let since = clock::now().saturating_duration_since(begun);
        Self {
            wanted,
            direction,
            started: clock::unix_now().saturating_sub(since),
            begun,
            ends,
            request: None,
            server_name: None,
            upstream: Upstreamed { cluster: inbound(direction, ends), ..Upstreamed::default() },
            answer: Answered::default(),
            rule: None,
            refusal: None,
            kept_as: None,
            injected: Vec::new(),
            trace: None,
            finish: Finish::default(),
            caller: None,
        }
    }

    /// Its head as it came.
    pub(crate) fn came(&mut self, seen: &dyn RequestView, protocol: &'static str) {
        let field = |name: &String| Some((name.clone(), bounded(&joined(seen, name)?)));
        self.request = Some(Request {
            method: bounded(seen.method()),
            target: bounded(seen.target()),
            sent_path: None,
            authority: bounded(seen.authority()),
            scheme: match seen.scheme() {
                "http" => Cow::Borrowed("http"),
                "https" => Cow::Borrowed("https"),
                other => Cow::Owned(bounded(other)),
            },
            protocol,
            id: seen.first_header("x-request-id").map(|id| bounded(&id)),
            fields: self.wanted.of_request().filter_map(field).collect(),
        });
    }

    /// The path that is sent on in place of the one that came.
    pub(crate) fn sent_path(&mut self, path: Option<&str>) {
        if let (Some(request), Some(path)) = (&mut self.request, path) {
            request.sent_path = Some(bounded(path));
        }
    }

    /// The id under which it goes on.
    pub(crate) fn id(&mut self, id: Option<&[u8]>) {
        if let (Some(request), Some(id)) = (&mut self.request, id) {
            request.id = Some(bounded(&String::from_utf8_lossy(id)));
        }
    }

    /// The cluster to whose endpoints it may go, by its name.
    pub(crate) fn goes_to(&mut self, cluster: String) {
        if self.direction == Direction::Outbound {
            self.upstream.cluster = Some(cluster);
        }
    }

    /// It is sent to this address, where this workload is, if it is one of the mesh; of this cluster, where
    /// nothing said a better one.
    pub(crate) fn attempt(
        &mut self,
        address: Place,
        workload: Option<Arc<WorkloadInfo>>,
        cluster: impl FnOnce() -> String,
    ) {
        self.upstream.attempts += 1;
        self.upstream.begun = Some(clock::now());
        self.upstream.address = Some(address);
        self.upstream.local = None;
        if self.direction == Direction::Outbound {
            self.upstream.workload = workload;
            self.upstream.cluster.get_or_insert_with(cluster);
        }
    }

    /// Both ends of the connection that carries it.
    pub(crate) fn carried(&mut self, local: Option<SocketAddr>, remote: Option<SocketAddr>) {
        self.upstream.local = local;
        if let Some(remote) = remote {
            self.upstream.address = Some(Place::Address(remote));
        }
    }

    /// The head of an answer came from there; `field` gives its fields.
    pub(crate) fn answered(&mut self, field: &dyn Fn(&str) -> Option<String>) {
        let now = clock::now();
        let since = |then: Instant| now.saturating_duration_since(then);
        let kept = |name: &String| Some((name.clone(), bounded(&field(name)?)));
        self.answer = Answered {
            service_time: self.upstream.begun.map(since),
            after: Some(since(self.begun)),
            details: Some("via_upstream"),
            fields: self.wanted.of_response().filter_map(kept).collect(),
        };
    }

    /// A rule answers it.
    pub(crate) fn answered_by_rule(&mut self) {
        self.answer.details = Some("direct_response");
    }

    /// The mesh refuses it.
    pub(crate) fn refused(&mut self, row: &RefusalRow) {
        let code = row.code.as_str();
        self.answer.details = Some(code);
        self.refusal = Some(row.text.clone().into_owned());
        if matches!(
            code,
            "connect-failed" | "tls-failed" | "outside-unreachable" | "application-unreachable"
        ) {
            self.upstream.failure.clone_from(&self.refusal);
        }
        if matches!(code, "not-in-registry" | "not-visible") {
            self.upstream.cluster = Some(BLACK_HOLE.to_owned());
        }
    }

    /// A fault is injected.
    pub(crate) fn injected(&mut self, what: &'static str, rule: &str) {
        self.injected.push(Injected { what, rule: rule.to_owned() });
    }

    /// Milliseconds from the last attempt to its answer, as `x-envoy-upstream-service-time` has it.
    pub(crate) fn service_ms(&self) -> Option<u128> {
        self.answer.service_time.map(|time| time.as_millis())
    }

    /// A field of the request that somebody asked for.
    pub(crate) fn request_field(&self, name: &str) -> Option<&str> {
        let request = self.request.as_ref();
        if name == "x-request-id" {
            return request.map_or(self.kept_as.as_deref(), |request| request.id.as_deref());
        }
        value_of(&request?.fields, name)
    }

    /// The same of the response.
    pub(crate) fn response_field(&self, name: &str) -> Option<&str> {
        value_of(&self.answer.fields, name)
    }
}

fn value_of<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// All lines of a field, as one (RFC 9110 §5.3).
fn joined(seen: &dyn RequestView, name: &str) -> Option<String> {
    let mut all: Option<String> = None;
    seen.any_header(name, &mut |value| {
        match &mut all {
            None => all = Some(value.to_owned()),
            Some(all) => {
                all.push(',');
                all.push_str(value);
            }
        }
        false
    });
    all
}

/// What is kept of a text.
pub(crate) fn bounded(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}

/// Calls of this workload go to its own ports.
fn inbound(direction: Direction, ends: Ends) -> Option<String> {
    (direction == Direction::Inbound).then(|| format!("inbound|{}||", ends.called.port()))
}
