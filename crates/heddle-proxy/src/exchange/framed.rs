//! One exchange by frames, whatever either side speaks: the seam between who asks ([`Upload`],
//! [`Responder`]) and who is asked (`over_http2`, `over_http1`), and how both directions run at once.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use h2::Reason;
use heddle_logic::eject::http_of_grpc;
use heddle_runtime::clock;
use http::{HeaderName, HeaderValue};

use super::{
    course::{AnswerHead, Judged},
    seam::Broke,
};
use crate::{
    frames::{Frames, Head, Reset},
    one_hop::{MARK, Mark},
    record::RequestOutcome,
    refusal::{Cut, Failure, REFUSAL_HEADER, Refusal, refused_by, says_undelivered},
    upstream::{Attempt, Said},
};

/// Is all that was sent of a body still at hand? Known to both directions of its exchange.
pub(crate) type Kept = Rc<Cell<bool>>;

/// Most heads of 1xx before a final one: a receiver that does not read cannot make them wait.
pub(super) const INTERIM_HEADS_MAX: u32 = 32;

/// A request's body as its client sends it.
pub(crate) trait Upload: Frames {
    /// Why the body ended in a reset, if it is the body that is bad.
    fn refusal(&mut self) -> Option<Refusal>;

    /// Is all that was sent of it still at hand? Set to false where nothing will be sent again.
    fn kept(&mut self) -> Kept;
}

/// Where a response goes.
pub(crate) trait Responder {
    /// Passes a head of 1xx on.
    ///
    /// # Errors
    /// [`Failure::ClientGone`].
    async fn interim(&mut self, head: &Head, outcome: &RequestOutcome) -> Result<(), Failure>;

    /// Passes the response on, to its end; with its head comes whether what is left of the request is
    /// still wanted.
    ///
    /// # Errors
    /// [`Failure::ClientGone`], or [`Failure::Cut`] if the body broke off.
    async fn respond(
        &mut self,
        head: (Head, bool),
        body: &mut impl Frames,
        outcome: &RequestOutcome,
    ) -> Result<(), Failure>;

    /// Ready when the client is gone, where its side of the response tells.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

/// What the directions of one exchange must know of each other.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// All of the request was sent.
    pub(super) uploaded: Cell<bool>,
    /// The final head was passed on: no other answer is possible.
    pub(super) answering: Cell<bool>,
    /// All of the response was passed on.
    answered: Cell<bool>,
    /// A 100 was passed on, so that a client that waited for it goes on.
    pub(super) continued: Cell<bool>,
    /// Nobody waits for what is left of the request.
    unwanted: Cell<bool>,
}

impl Course {
    /// The final head is passed on. Is what is left of the request still wanted, by a server that `stays`?
    /// Whether a client that waited in vain for its 100 will send its body, nobody knows.
    pub(super) fn answers(&self, stays: bool, expects_continue: bool, kept: &Kept) -> bool {
        self.answering.set(true);
        kept.set(false);
        let goes_on = stays && (!expects_continue || self.continued.get());
        let reads_on = self.uploaded.get() || goes_on;
        self.unwanted.set(!reads_on);
        reads_on
    }
}

/// Why sending ended before the exchange did.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The upstream takes nothing more; it may have answered before.
    UpstreamGone,
    /// The client reset its request, or its body is malformed.
    Client(Reset),
}

/// How an exchange failed before anything of a final response was passed on.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The upstream did not process it, whatever was sent.
    Unprocessed,
    /// The same, and the server wants it in HTTP/1.
    WantsHttp1,
    /// The connection ended without a response.
    Lost,
    /// The server ended the request with this code.
    Reset(Reason),
    /// Its response is unusable.
    Bad(Refusal),
    /// The answer is not the one to pass on.
    Again,
    ClientGone,
    /// The response could not be passed on to its end.
    Failed(Failure),
}

/// Runs both directions until the exchange is over; `sending` goes on watching the client when it has sent
/// all. A response that is complete before the request waits for that, since a server may answer first and
/// read then, unless nobody wants the rest.
pub(super) async fn both(
    sending: impl Future<Output = Stopped>,
    receiving: impl Future<Output = Result<(), Unanswered>>,
    course: &Course,
) -> Result<Result<(), Unanswered>, Reset> {
    let (mut sending, mut receiving) = (pin!(sending), pin!(receiving));
    let mut sends = true;
    let mut received = None;
    poll_fn(|context| {
        if sends && let Poll::Ready(end) = sending.as_mut().poll(context) {
            sends = false;
            match end {
                Stopped::UpstreamGone => {}
                Stopped::Client(_) if course.answered.get() => {}
                Stopped::Client(reset) => return Poll::Ready(Err(reset)),
            }
        }
        if received.is_none()
            && let Poll::Ready(end) = receiving.as_mut().poll(context)
        {
            course.answered.set(end.is_ok());
            received = Some(end);
        }
        let over = !sends || course.uploaded.get() || course.unwanted.get();
        match received.take_if(|end| over || end.is_err()) {
            Some(end) => Poll::Ready(Ok(end)),
            None => Poll::Pending,
        }
    })
    .await
}

/// Looks at a final head before anything of it goes to the client, and takes out or puts in what one sidecar
/// tells another.
///
/// # Errors
/// [`Unanswered::Again`].
pub(super) fn judge(
    head: &mut Head,
    kept: bool,
    attempt: &mut Attempt,
    again: impl Fn(AnswerHead<'_>) -> Judged,
    outcome: &RequestOutcome,
) -> Result<(), Unanswered> {
    let now = clock::now();
    let grpc = outcome.grpc().map(|_| {
        let status = head.fields.get("grpc-status");
        status.and_then(|status| status.to_str().ok()?.parse().ok())
    });
    // An error of gRPC comes with 200, and may come fast.
    attempt.answered(now, grpc.flatten().map_or(head.status, http_of_grpc));
    let said = head.fields.get(REFUSAL_HEADER);
    let by = said.and_then(|said| Some((attempt.upstream().workload()?, said.as_bytes())));
    if attempt.is_watched() {
        let refused = by.as_ref().and_then(|(by, said)| refused_by(said, &by.id));
        attempt.says(now, head.status, Said { refused, grpc });
    }
    let undelivered =
        head.status == 503 && by.is_some_and(|(by, said)| says_undelivered(said, &by.id));
    let field =
        |name: &str| Some(String::from_utf8_lossy(head.fields.get(name)?.as_bytes()).into_owned());
    let status = head.status;
    if outcome.has_sent() {
        return Ok(());
    }
    let judged = again(AnswerHead { status, field: &field, undelivered, kept });
    attempt.judged(now, judged == Judged::Obeyed(Mark::Injected));
    match judged {
        Judged::Again => return Err(Unanswered::Again),
        Judged::Passes => {}
        Judged::Obeyed(_) | Judged::Cleaned | Judged::Marked(_) => {
            head.fields.remove(MARK);
        }
    }
    if let Some(Some(mark)) = judged.mark() {
        head.fields.insert(HeaderName::from_static(MARK), HeaderValue::from_static(mark.as_str()));
    }
    Ok(())
}

/// The end of an exchange, as `forward` wants to hear of it.
pub(super) fn broke(
    result: Result<Result<(), Unanswered>, Reset>,
    upload: &mut impl Upload,
    course: &Course,
) -> Result<(), Broke> {
    let unanswered = match result {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(unanswered)) => unanswered,
        // Once a response has begun, nothing can be said any more.
        Err(_) => match upload.refusal() {
            Some(_) if course.answering.get() => Unanswered::Failed(Failure::Cut(Cut::Reset)),
            Some(refusal) => Unanswered::Failed(refusal.into()),
            None => Unanswered::ClientGone,
        },
    };
    Err(match unanswered {
        Unanswered::Unprocessed => Broke::Unprocessed,
        Unanswered::WantsHttp1 => Broke::WrongConnection,
        Unanswered::Lost => Broke::Unanswered,
        Unanswered::Reset(reason) => Broke::Failed(Failure::Cut(Cut::Stream(reason))),
        Unanswered::Bad(refusal) => Broke::Failed(refusal.into()),
        Unanswered::Again => Broke::Again,
        Unanswered::ClientGone => Broke::Failed(Failure::ClientGone),
        Unanswered::Failed(failure) => Broke::Failed(failure),
    })
}

/// Waits for `upstream`, or for the client's end.
///
/// # Errors
/// [`Unanswered::ClientGone`].
pub(super) async fn while_client_waits<T>(
    responder: &mut impl Responder,
    upstream: impl Future<Output = T>,
) -> Result<T, Unanswered> {
    let mut upstream = pin!(upstream);
    poll_fn(|context| match upstream.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Ok(value)),
        Poll::Pending => responder.poll_gone(context).map(|()| Err(Unanswered::ClientGone)),
    })
    .await
}
