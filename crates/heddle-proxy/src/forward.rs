//! One request to an upstream and its response back: pick, connect, exchange; again if that is safe.
//!
//! What may be sent twice, `heddle_logic::retry` decides. An exchange runs both directions at once
//! (`forward/send.rs`, `forward/receive.rs`), because a server may answer before it has read all.

mod receive;
mod send;

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use heddle_logic::{
    Decision, Replayable,
    retry::{Broken, after_connect_failure, after_reset},
};
use heddle_model::discovery::Provenance;
use heddle_runtime::clock;
use tokio::net::TcpStream;

use self::{
    receive::{Answer, Asked, Received},
    send::Stopped,
};
use crate::{
    balancers::{Attempt, Candidates, Upstream},
    http::{After, Client, Sending},
    memory::Pressure,
    metrics::RetryReason,
    outcome::{Counted, RequestOutcome},
    pool::Connected,
    refusal::{Flag, Refusal, Refused},
    tcp::{End, Held, relay},
    worker::{Worker, dial::dial},
};

/// Why a request was not answered in full by an upstream.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The mesh answers.
    Refused(Refused),
    /// The response had begun and cannot be completed: the client's connection is cut.
    Cut(Cut),
    /// Nobody waits for an answer any more.
    ClientGone,
}

/// How a response ended too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The upstream closed.
    Closed,
    /// The upstream reset.
    Reset,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Failure {
    /// Did the client fail, and not the endpoint?
    fn is_the_clients(&self) -> bool {
        match self {
            Self::ClientGone => true,
            Self::Refused(refused) => matches!(refused.refusal, Refusal::BadRequest(_)),
            Self::Cut(_) => false,
        }
    }

    /// Names the rule that a refusal follows from.
    pub(crate) fn by(self, rule: &Option<Provenance>) -> Self {
        match self {
            Self::Refused(refused) => Self::Refused(Refused { rule: rule.clone(), ..refused }),
            other => other,
        }
    }
}

/// Where a request goes and under whose name it is counted.
pub(crate) struct Way<'a> {
    pub(crate) candidates: &'a Candidates,
    /// What it means if there is no candidate.
    pub(crate) none: &'a dyn Fn() -> Refusal,
    /// Labels of a call to the upstream that was picked; `None` leaves them.
    pub(crate) counted: &'a dyn Fn(&Rc<Upstream>) -> Option<Counted>,
}

/// Sends the request to one of the candidates and its response to the client.
///
/// # Errors
/// [`Failure`]; nothing of a response has gone to the client unless it is a [`Cut`].
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    client: &mut Client,
    sending: &mut Sending,
    way: Way<'_>,
    outcome: &mut RequestOutcome,
) -> Result<After, Failure> {
    if worker.shared.memory.pressure() >= Pressure::RefuseRequests {
        return Err(Refusal::MemoryLimit.into());
    }
    let mut tried: Vec<Rc<Upstream>> = Vec::new();
    let mut fresh = None;
    let mut number = 0;
    loop {
        number += 1;
        let now = clock::now();
        let again = fresh.take();
        let new_connection = again.is_some();
        let upstream = again
            .or_else(|| worker.upstreams.pick(way.candidates, &tried, now, worker.random()))
            .ok_or_else(way.none)?;
        if let Some(counted) = (way.counted)(&upstream) {
            outcome.count_as(counted);
        }
        let mut attempt = upstream.begin(now);
        let pooled =
            if new_connection { None } else { upstream.pool.take(now, sending.replayable) };
        let connected = match pooled {
            Some(connected) => connected,
            None => match Box::pin(dial(worker, &upstream)).await {
                Ok(stream) => Connected { stream, reused: false },
                Err(refusal) => {
                    attempt.failed(clock::now());
                    may_try_another(way.candidates, number, refusal, outcome)?;
                    worker.shared.metrics.retried(RetryReason::ConnectFailure);
                    tried.push(upstream);
                    continue;
                }
            },
        };
        let reused = connected.reused;
        match exchange(worker, client, sending, &mut attempt, connected, outcome).await {
            Ok(after) => return Ok(after),
            Err(Broke::Failed(failure)) => {
                if !failure.is_the_clients() {
                    attempt.failed(clock::now());
                }
                return Err(failure);
            }
            Err(Broke::Unanswered) => attempt.failed(clock::now()),
        }
        let broken = Broken {
            reused,
            response_bytes: 0,
            request_bytes_written: sending.bytes_sent(),
            replayable: if sending.is_kept() { sending.replayable } else { Replayable::No },
            attempt: number,
        };
        if after_reset(broken) == Decision::GiveUp {
            return Err(Refusal::UpstreamReset.into());
        }
        worker.shared.metrics.retried(RetryReason::ReuseRace);
        sending.rewind();
        fresh = Some(upstream);
    }
}

/// After a connection that failed with `refusal`: the next endpoint's turn, or the refusal.
fn may_try_another(
    candidates: &Candidates,
    attempt: u32,
    refusal: Refusal,
    outcome: &RequestOutcome,
) -> Result<(), Refusal> {
    // Where there is no other to go to, the failure is the answer.
    if matches!(candidates, Candidates::One(_)) {
        return Err(refusal);
    }
    if after_connect_failure(attempt) == Decision::GiveUp {
        outcome.flag(Flag::URX);
        return Err(refusal);
    }
    Ok(())
}

/// Why an exchange ended without a complete response.
enum Broke {
    /// No byte of a response came.
    Unanswered,
    Failed(Failure),
}

/// Sends and receives on one connection; keeps the connection if it can be used again.
async fn exchange(
    worker: &Rc<Worker>,
    client: &mut Client,
    sending: &mut Sending,
    attempt: &mut Attempt,
    connected: Connected,
    outcome: &RequestOutcome,
) -> Result<After, Broke> {
    let mut stream = connected.stream;
    let asked = Asked::of(sending);
    let request_done = Cell::new(false);
    let half_closed = Cell::new(false);
    let result = {
        let (mut client_read, mut client_write) = client.stream.split();
        let (mut up_read, mut up_write) = stream.split();
        let mut send = pin!(send::send(
            &mut client_read,
            &mut up_write,
            &mut client.input,
            sending,
            outcome,
            (&request_done, &half_closed),
        ));
        let mut receive = pin!(receive::receive(
            &mut up_read,
            &mut client_write,
            (asked, &request_done),
            attempt,
            outcome,
        ));
        both(send.as_mut(), receive.as_mut()).await
    };
    let received = result.map_err(|stopped| broke(stopped, outcome))?;
    let whole = request_done.get() && !half_closed.get() && !sending.truncated;
    match received.answer {
        Answer::Tunnel(held) => {
            let held = Held { from_client: client.input.take(), from_upstream: held };
            // Rare and large: not worth room in every request.
            Ok(Box::pin(tunnel(client, &mut stream, held, outcome)).await)
        }
        Answer::Complete { upstream_persists } => {
            let now = outcome.ended();
            attempt.upstream().pool.announced(received.announced_idle);
            if whole && upstream_persists {
                worker.keep(attempt.upstream(), stream, now);
            }
            Ok(match (whole, received.client_persists) {
                (true, true) => After::Next,
                (true, false) => After::Close,
                // The client may still be sending; half-closed, it waits for nothing but the end.
                (false, _) if half_closed.get() => After::Close,
                (false, _) => After::Linger,
            })
        }
    }
}

/// Runs both directions until the response is complete, or nothing more can come of it. Takes them
/// pinned: moved in, each would have room twice in every connection's task.
async fn both(
    mut send: Pin<&mut impl Future<Output = Stopped>>,
    mut receive: Pin<&mut impl Future<Output = Result<Received, Failed>>>,
) -> Result<Received, Failed> {
    let (mut begun, mut sending) = (false, true);
    poll_fn(|context| {
        // First the request must go out; from then on nearly every wake-up is the response's.
        if begun && let Poll::Ready(result) = receive.as_mut().poll(context) {
            return Poll::Ready(result);
        }
        if sending && let Poll::Ready(why) = send.as_mut().poll(context) {
            match why {
                // What was sent so far may yet be answered.
                Stopped::UpstreamGone => sending = false,
                Stopped::ClientGone => return Poll::Ready(Err(Failed::ClientGone)),
                Stopped::BadBody(refusal) => return Poll::Ready(Err(Failed::BadBody(refusal))),
            }
        }
        if begun {
            return Poll::Pending;
        }
        begun = true;
        receive.as_mut().poll(context)
    })
    .await
}

/// What ended an exchange.
enum Failed {
    /// The upstream ended without a byte of a response.
    Unanswered,
    /// The upstream's response is unusable; nothing of it was passed on.
    BadResponse(Refusal),
    /// The upstream ended within the response.
    Cut(Cut),
    ClientGone,
    /// The client's body is malformed.
    BadBody(Refusal),
}

fn broke(failed: Failed, outcome: &RequestOutcome) -> Broke {
    Broke::Failed(match failed {
        Failed::Unanswered => return Broke::Unanswered,
        Failed::BadResponse(refusal) => refusal.into(),
        Failed::Cut(cut) => Failure::Cut(cut),
        Failed::ClientGone => Failure::ClientGone,
        // Once a response has begun, nothing can be said any more.
        Failed::BadBody(_) if outcome.has_sent() => Failure::Cut(Cut::Reset),
        Failed::BadBody(refusal) => refusal.into(),
    })
}

/// What follows a 101, or a 2xx to CONNECT: bytes, until both sides are done.
async fn tunnel(
    client: &mut Client,
    upstream: &mut TcpStream,
    held: Held,
    outcome: &RequestOutcome,
) -> After {
    outcome.ended();
    let (received, sent) = (|n| outcome.received(n), |n| outcome.sent(n));
    match relay(&mut client.stream, upstream, held, &received, &sent).await {
        End::Closed => {}
        End::ClientReset => outcome.flag(Flag::DC),
        End::UpstreamReset => outcome.flag(Flag::UC),
    }
    After::Close
}

#[cfg(test)]
mod tests;
