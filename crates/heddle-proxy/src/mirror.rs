//! Copies of live requests for those whom a rule names as mirrors. None can hurt the request it is made
//! of: it is sent by a task of its own, over connections of its own, spends no budget, is bounded in
//! number, bytes and time, and whatever becomes of it is counted and goes no further.

use std::{
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use h2::Reason;
use heddle_logic::Replayable;
use heddle_model::discovery::MirrorCompare;
use heddle_runtime::{clock, task};
use http::{HeaderValue, Uri, header, request};

use crate::{
    compared::{self, Live, Mirrored, Watch, Watched},
    direction::Direction,
    exchange::{FramesExchange, Kept, Resent, Responder, Upload},
    forward::{Terms, forward},
    frames::{Frame, Frames, Head, Reset},
    limits::{MIRROR_TIME, MIRRORS_AT_ONCE},
    memory::Pressure,
    metrics::MirrorResult,
    pool::Tenant,
    record::RequestOutcome,
    refusal::{Failure, Refusal},
    snapshot::Cluster,
    streams::HttpVersion,
    tee::{Copied, Tee},
    trace::MIRROR_MARK,
    upstream::{Ask, Backend},
    worker::Worker,
};

/// What a copy's host ends with, as in Istio.
const SHADOW: &str = "-shadow";

/// Begins a copy of a request for each of `mirrors`; `over`: it has no body. What passes of its body is
/// to be given to the tee.
pub(crate) fn begin(
    worker: &Rc<Worker>,
    mirrors: &[Mirrored],
    (head, version): (&request::Parts, HttpVersion),
    over: bool,
) -> Option<Tee> {
    let metrics = &worker.shared.metrics;
    let may = worker.shared.memory.pressure() < Pressure::Shrink;
    let room = MIRRORS_AT_ONCE.saturating_sub(worker.mirrors.open.get());
    let taken = if may { mirrors.len().min(room) } else { 0 };
    mirrors[taken..].iter().for_each(|_| metrics.mirrored(MirrorResult::Dropped));
    if taken == 0 {
        return None;
    }
    let (mut tee, copies) = Tee::new(taken, over);
    tee.live = wanted(mirrors).map(|what| Live(Watch::new(what)));
    let head = copy_of(head);
    for (mirror, copy) in mirrors.iter().zip(copies) {
        let open = Open::one(worker);
        let head = (head.clone(), version);
        let live = tee.watch().filter(|_| mirror.compare.any());
        let to = (Arc::clone(&mirror.to), mirror.compare, live);
        let send = send(Rc::clone(worker), to, head, copy);
        drop(task::spawn_contained("mirror", async move {
            let _open = open;
            send.await;
        }));
    }
    Some(tee)
}

/// What of the live answer has to be seen for all that is compared with it; `None` for nothing.
fn wanted(mirrors: &[Mirrored]) -> Option<MirrorCompare> {
    let any = mirrors.iter().any(|mirror| mirror.compare.any());
    let body = mirrors.iter().any(|mirror| mirror.compare.body);
    any.then(|| MirrorCompare { body, ..MirrorCompare::default() })
}

/// Counts a copy as long as it is on its way.
struct Open(Rc<Worker>);

impl Open {
    fn one(worker: &Rc<Worker>) -> Self {
        worker.mirrors.open.set(worker.mirrors.open.get() + 1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.mirrors.open.set(self.0.mirrors.open.get() - 1);
    }
}

/// The head of a copy: for the same host in name, marked, and waiting for no leave to send its body.
fn copy_of(head: &request::Parts) -> request::Parts {
    let mut copy = head.clone();
    copy.headers.insert(MIRROR_MARK, HeaderValue::from_static("true"));
    copy.headers.remove(header::EXPECT);
    if let Some(uri) = shadowed(&copy.uri) {
        copy.uri = uri;
    }
    copy
}

fn shadowed(uri: &Uri) -> Option<Uri> {
    let authority = uri.authority()?;
    let shadow = match authority.port() {
        Some(port) => format!("{}{SHADOW}:{port}", authority.host()),
        None => format!("{}{SHADOW}", authority.host()),
    };
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(shadow.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Whom a copy goes to, and what of its answer is compared with which.
type To = (Arc<Cluster>, MirrorCompare, Option<Rc<Watch>>);

/// Sends one copy, and reads what answers it.
async fn send(
    worker: Rc<Worker>,
    (cluster, compare, live): To,
    head: (request::Parts, HttpVersion),
    copy: Copied,
) {
    let watch = live.is_some().then(|| Watch::new(compare));
    let key = cluster.key.clone();
    let result = send_to(&worker, cluster, head, copy, watch.clone()).await;
    worker.shared.metrics.mirrored(result);
    let Some((live, watch)) = live.zip(watch) else { return };
    watch.over();
    // A live request may be without end; its copy has no more time than any.
    let seen = clock::within(MIRROR_TIME, live.seen());
    let (live, copy) = (seen.await.flatten(), watch.seen().await);
    let latencies = live.zip(copy).map(|(live, copy)| (live.latency(), copy.latency()));
    let latencies = latencies.filter(|_| compare.latency);
    worker.shared.metrics.compared(&key, compared::compare(compare, live, copy), latencies);
}

async fn send_to(
    worker: &Rc<Worker>,
    cluster: Arc<Cluster>,
    (mut head, version): (request::Parts, HttpVersion),
    mut upload: Copied,
    watch: Option<Rc<Watch>>,
) -> MirrorResult {
    let ask = Ask::new(clock::now(), worker.random());
    let backend = Backend::Cluster(cluster);
    let Ok(upstream) = worker.mirrors.upstreams.pick(&backend, &[], ask) else {
        return MirrorResult::Failed;
    };
    let mut outcome = RequestOutcome::of_a_copy(worker, Direction::Outbound);
    let tenant = Tenant::default();
    let mut exchange = FramesExchange {
        head: &mut head,
        upload: &mut upload,
        responder: &mut Discard(watch),
        replayable: Replayable::No,
        version,
        tenant: &tenant,
        kept: Kept::default(),
        sent: false,
        declined: false,
    };
    // One endpoint and no terms: nothing is tried again.
    let backend = Backend::Upstream(upstream);
    let sending = forward(worker, &mut exchange, &backend, Terms::default(), &mut outcome);
    match clock::within(MIRROR_TIME, Box::pin(sending)).await {
        Some(Ok(_)) => MirrorResult::Answered,
        _ if upload.is_cut() => MirrorResult::Cut,
        _ => MirrorResult::Failed,
    }
}

impl Upload for Copied {
    fn refusal(&mut self) -> Option<Refusal> {
        None
    }

    fn kept(&mut self) -> Kept {
        Kept::default()
    }
}

/// It keeps nothing, so that nothing is.
impl Resent for Copied {
    fn rewind(&mut self) {}
}

/// Takes whatever answers a copy, and drops it; it may be watched.
struct Discard(Option<Rc<Watch>>);

impl Responder for Discard {
    async fn interim(&mut self, _: &Head, _: &RequestOutcome) -> Result<(), Failure> {
        Ok(())
    }

    async fn respond(
        &mut self,
        (head, _): (Head, bool),
        body: &mut impl Frames,
        _: &RequestOutcome,
    ) -> Result<(), Failure> {
        if let Some(watch) = &self.0 {
            watch.head(head.status, body.is_over());
        }
        let mut body = Watched { frames: body, watch: self.0.as_deref() };
        loop {
            let frame = std::future::poll_fn(|context| body.poll_frame(context)).await;
            match frame {
                None | Some(Ok(Frame::Trailers(_))) => return Ok(()),
                Some(Ok(Frame::Data(_))) => {}
                Some(Err(Reset(reason))) => return Err(ended(reason)),
            }
        }
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

fn ended(reason: Reason) -> Failure {
    Failure::Cut(crate::refusal::Cut::Stream(reason))
}
