//! A request's place in its trace: what it says about that when it comes, what goes on with it ([`TraceEdits`]), and
//! the span that this sidecar makes of it ([`LiveSpan`]), which is part of its outcome. Nothing is looked at where
//! nobody takes spans, and of a request that is not recorded only what came with it.

use std::{
    borrow::Cow,
    cell::RefCell,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use heddle_logic::route::RequestView;
use heddle_model::{
    discovery::{Provenance, WorkloadInfo},
    name::service_suffix,
    secret,
};
use heddle_runtime::clock;
use heddle_wire::{
    http1::Edit,
    trace::{
        Decision, Formats, Incoming, SpanContext, SpanId, TRACESTATE, TraceId,
        span::{Kind, Span},
    },
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    direction::Direction,
    facts::TraceIds,
    limits::{SPAN_EVENTS, SPAN_TAG_BYTES},
    refusal::{Flags, RefusalRow},
    request_id::RequestId,
    snapshot::{SidePlan, TagPlan, TracePlan},
    spans::Finished,
    upstream::{Backend, Upstream},
    worker::Worker,
};

/// Marks copies for mirrors.
pub(crate) const MIRROR_MARK: &str = "x-heddle-mirror";
/// Under which an id goes with its request.
const REQUEST_ID: &str = "x-request-id";
/// By these a service or a client asks for the trace of one request (Envoy's).
const WANTED: [&str; 2] = ["x-envoy-force-trace", "x-client-trace-id"];

/// What changes about a request's fields for its trace.
#[derive(Debug, Default)]
pub(crate) struct TraceEdits {
    /// Fields that have these values from here on.
    pub(crate) fields: Vec<(&'static str, String)>,
    /// What came as `tracestate` is of no trace, and does not go on.
    pub(crate) drops_state: bool,
    /// The id that it gets, if it came without one.
    pub(crate) id: Option<RequestId>,
}

impl TraceEdits {
    /// The same for a head of HTTP/1.
    pub(crate) fn edits(&self) -> impl Iterator<Item = Edit<'_>> {
        let state = self.drops_state.then_some(Edit::Remove(TRACESTATE));
        self.fields.iter().map(|(name, value)| Edit::Set(name, value)).chain(state)
    }

    /// The same for a head as values.
    pub(crate) fn apply(&self, fields: &mut HeaderMap) {
        for (name, value) in &self.fields {
            if let Ok(value) = HeaderValue::from_str(value) {
                fields.insert(HeaderName::from_static(name), value);
            }
        }
        if self.drops_state {
            fields.remove(TRACESTATE);
        }
    }
}

/// What else is to be known of a request whose trace is recorded.
pub(crate) struct About<'a> {
    /// The version of HTTP it came in, as Envoy spells it.
    pub(crate) protocol: &'static str,
    /// What is called, as Istio names spans.
    pub(crate) operation: &'a dyn Fn() -> String,
    /// Where it came from; `None`: from the workload.
    pub(crate) peer: Option<IpAddr>,
}

/// What becomes of a request's trace here, of which rules tell this: what goes on, and the span. `None` where
/// nothing changes and nothing is recorded.
pub(crate) fn begin(
    worker: &Worker,
    (told, direction): (&SidePlan, Direction),
    request: &dyn RequestView,
    about: &About<'_>,
) -> Option<(TraceEdits, Option<Box<LiveSpan>>)> {
    let plan = told.tracing.as_ref()?;
    // Larger than what most requests need.
    traced(worker, plan, (direction, request), about)
}

fn traced(
    worker: &Worker,
    plan: &Arc<TracePlan>,
    (direction, request): (Direction, &dyn RequestView),
    about: &About<'_>,
) -> Option<(TraceEdits, Option<Box<LiveSpan>>)> {
    let came = Incoming::read(|name, take| {
        let _all = request.any_header(name, &mut |value| {
            take(value);
            false
        });
    });
    let metrics = &worker.shared.metrics;
    if !came.malformed.is_none() {
        metrics.traces.malformed(came.malformed);
    }
    if came.formats.is_none() && direction == Direction::Outbound && metrics.is_serving_traced() {
        metrics.traces.lost();
    }
    if came.decision == Decision::Drop {
        return None;
    }
    let mut edits = TraceEdits::default();
    let decision = decide(worker, &came, request, plan, &mut edits);
    let records = decision.records() == Some(true) && !plan.silent;
    let next = match came.context {
        Some(context) if records => context.child(SpanId::of(worker.random()), decision),
        // Somebody left it open, and here it was decided.
        Some(context) if decision != context.decision => context.decided(decision),
        Some(_) => return None,
        None => SpanContext::begin(new_trace(worker, plan), SpanId::of(worker.random()), decision),
    };
    let formats = if came.formats.is_none() { Formats::BEGUN } else { came.formats };
    if !plan.keeps_context {
        next.write(formats, |name, value| edits.fields.push((name, value)));
        edits.drops_state = came.context.is_none() && request.any_header(TRACESTATE, &mut |_| true);
    }
    let span = records.then(|| {
        let id = request.first_header(REQUEST_ID).unwrap_or_else(|| {
            let id = edits.id.get_or_insert_with(|| worker.request_id());
            id.says_recorded();
            id.as_str().to_owned()
        });
        Box::new(LiveSpan::new(worker, (plan, direction), next, (request, id), about))
    });
    Some((edits, span))
}

/// A trace that begins here.
fn new_trace(worker: &Worker, plan: &TracePlan) -> TraceId {
    match plan.short_ids {
        true => TraceId::short(worker.random()),
        false => TraceId::of(u128::from(worker.random()) << 64 | u128::from(worker.random())),
    }
}

/// Is its trace recorded? What came with it holds; else its id decides, which it may get here.
fn decide(
    worker: &Worker,
    came: &Incoming,
    request: &dyn RequestView,
    plan: &TracePlan,
    edits: &mut TraceEdits,
) -> Decision {
    if came.decision != Decision::Deferred {
        return came.decision;
    }
    let id = request.first_header(REQUEST_ID);
    let wanted = || WANTED.iter().any(|name| request.any_header(name, &mut |_| true));
    let by_chance = |id: &str| match plan.by_request_id {
        true => plan.sampler.records(id.as_bytes()),
        false => plan.sampler.records_one_of(worker.random()),
    };
    let records = match &id {
        Some(id) => by_chance(id) || wanted(),
        None => {
            let id = edits.id.insert(worker.request_id());
            by_chance(id.as_str()) || wanted()
        }
    };
    let records = records || worker.shared.spans.is_among_the_first(plan.at_least, clock::now());
    if records { Decision::Record } else { Decision::Drop }
}

/// The span of a request that is under way.
#[derive(Debug)]
pub(crate) struct LiveSpan {
    plan: Arc<TracePlan>,
    context: SpanContext,
    kind: Kind,
    name: String,
    said: RefCell<Said>,
}

#[derive(Debug, Default)]
struct Said {
    tags: Vec<(Cow<'static, str>, String)>,
    events: Vec<(Instant, String)>,
    /// Events that were too many.
    left_out: usize,
    /// Attempts to have it answered.
    attempts: usize,
    upstream: Option<Rc<Upstream>>,
}

/// How a request ended.
pub(crate) struct Ended {
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) status: u16,
    /// The status of gRPC, of a call that has one.
    pub(crate) grpc: Option<Option<u32>>,
    pub(crate) flags: Flags,
    pub(crate) bytes: (u64, u64),
}

impl LiveSpan {
    fn new(
        worker: &Worker,
        (plan, direction): (&Arc<TracePlan>, Direction),
        context: SpanContext,
        (request, id): (&dyn RequestView, String),
        about: &About<'_>,
    ) -> Self {
        let config = &worker.shared.config;
        let own = worker.shared.metrics.own();
        let mut tags = Tags(Vec::with_capacity(24));
        let url = format!("{}://{}{}", request.scheme(), request.authority(), request.target());
        tags.add("component", "proxy".to_owned());
        tags.add("node_id", node_id(own, config.addresses.first()));
        tags.add("http.method", cut(request.method().to_owned(), plan.tag_length));
        tags.add("http.url", cut(secret::shown_target(&url).into_owned(), plan.tag_length));
        tags.add("http.protocol", about.protocol.to_owned());
        let agent = request.first_header("user-agent");
        tags.add("user_agent", cut(agent.unwrap_or_else(|| "-".to_owned()), SPAN_TAG_BYTES));
        tags.add("guid:x-request-id", cut(id, SPAN_TAG_BYTES));
        tags.add("downstream_cluster", "-".to_owned());
        let peer = about.peer.unwrap_or_else(|| config.addresses.first());
        tags.add("peer.address", peer.to_canonical().to_string());
        if plan.istio_tags {
            tags.add("istio.canonical_service", own.canonical_name().to_owned());
            tags.add("istio.canonical_revision", own.canonical_revision().to_owned());
            tags.add("istio.mesh_id", config.mesh.clone());
            tags.add("istio.namespace", own.namespace.clone());
            tags.add("istio.cluster_id", config.mesh.clone());
        }
        if request.any_header(MIRROR_MARK, &mut |_| true) {
            tags.add("heddle.mirror", "true".to_owned());
        }
        for (name, value) in &plan.tags {
            let value = match value {
                TagPlan::Literal(text) => text.to_string(),
                TagPlan::Header(header, default) => {
                    request.first_header(header).unwrap_or_else(|| default.to_string())
                }
            };
            if !value.is_empty() {
                tags.0.push((name.to_string().into(), cut(value, SPAN_TAG_BYTES)));
            }
        }
        Self {
            plan: Arc::clone(plan),
            context,
            kind: match direction {
                Direction::Outbound => Kind::Client,
                Direction::Inbound => Kind::Server,
            },
            name: (about.operation)(),
            said: RefCell::new(Said { tags: tags.0, ..Said::default() }),
        }
    }

    /// Something happened to it just now.
    pub(crate) fn event(&self, what: String) {
        let said = &mut *self.said.borrow_mut();
        if said.events.len() < SPAN_EVENTS {
            said.events.push((clock::now(), cut(what, SPAN_TAG_BYTES)));
        } else {
            said.left_out += 1;
        }
    }

    fn tag(&self, name: &'static str, value: String) {
        self.said.borrow_mut().tags.push((name.into(), cut(value, SPAN_TAG_BYTES)));
    }

    /// Which trace it is part of, and which span it is.
    pub(crate) fn ids(&self) -> TraceIds {
        TraceIds { trace: self.context.trace, span: self.context.span }
    }

    /// This rule decides about it.
    pub(crate) fn by_rule(&self, rule: &Provenance) {
        self.tag("heddle.rule", rule.0.clone());
    }

    /// An attempt to have it answered begins there.
    pub(crate) fn goes_to(&self, backend: &Backend, upstream: &Rc<Upstream>) {
        let again = {
            let said = &mut *self.said.borrow_mut();
            said.attempts += 1;
            said.upstream = Some(Rc::clone(upstream));
            said.attempts > 1
        };
        if again {
            self.event(format!("attempt {} at {}", self.said.borrow().attempts, upstream.target));
            return;
        }
        let cluster = match self.kind {
            Kind::Client => backend.cluster_name(),
            Kind::Server => format!("inbound|{}||", upstream.target.port()),
        };
        self.tag("upstream_cluster", cluster.clone());
        self.tag("upstream_cluster.name", cluster);
    }

    /// A copy of it goes there.
    pub(crate) fn mirrored(&self, to: &Backend) {
        self.event(format!("mirrored to {}", to.cluster_name()));
    }

    /// The mesh answers it itself.
    pub(crate) fn refused(&self, row: &RefusalRow) {
        self.tag("heddle.refusal", row.code.as_str().to_owned());
        self.event(format!("refused: {}", row.text));
    }

    /// It is over; handed to whoever sends it on.
    pub(crate) fn finish(self, worker: &Worker, how: &Ended) {
        let Said { mut tags, events, left_out, attempts, upstream } = self.said.into_inner();
        let mut add = |name: &'static str, value: String| tags.push((name.into(), value));
        if let Some(upstream) = upstream {
            add("upstream_address", upstream.target.to_string());
        }
        if attempts > 1 {
            add("heddle.attempts", attempts.to_string());
        }
        if left_out > 0 {
            add("heddle.events_left_out", left_out.to_string());
        }
        add("http.status_code", how.status.to_string());
        if let Some(Some(grpc)) = how.grpc {
            add("grpc.status_code", grpc.to_string());
        }
        add("request_size", how.bytes.0.to_string());
        add("response_size", how.bytes.1.to_string());
        add("response_flags", how.flags.to_string());
        // The wall clock may be set while a request is under way: lengths are the other clock's.
        let (now, wall) = (clock::now(), clock::unix_now());
        let at = |moment: Instant| wall.saturating_sub(now.saturating_duration_since(moment));
        // As Envoy has it; gRPC's errors that are the server's come with 200.
        let failed = how.status >= 500
            || how.status == 0
            || matches!(how.grpc, Some(Some(2 | 4 | 8 | 12 | 13 | 14 | 15)));
        let span = Span {
            context: self.context,
            kind: self.kind,
            name: self.name,
            start: at(how.begun),
            duration: how.ended.saturating_duration_since(how.begun).max(Duration::from_nanos(1)),
            tags,
            events: events.into_iter().map(|(moment, what)| (at(moment), what)).collect(),
            failed,
        };
        for to in &self.plan.also {
            worker.shared.spans.hand_over(Finished { what: span.clone(), to: Arc::clone(to) });
        }
        worker.shared.spans.hand_over(Finished { what: span, to: Arc::clone(&self.plan.to) });
    }
}

struct Tags(Vec<(Cow<'static, str>, String)>);

impl Tags {
    fn add(&mut self, name: &'static str, value: String) {
        self.0.push((name.into(), value));
    }
}

/// At most so many bytes of it.
fn cut(mut text: String, most: usize) -> String {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// This sidecar as Istio names its Envoys.
fn node_id(own: &WorkloadInfo, address: IpAddr) -> String {
    let WorkloadInfo { name, namespace, .. } = own;
    format!("sidecar~{address}~{name}.{namespace}~{namespace}.{}", service_suffix())
}
