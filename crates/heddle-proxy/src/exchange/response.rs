//! The way of a response: from an upstream of HTTP/1 to its client, head edited, body passed on as the
//! bytes it is. What goes the other way is `request`'s.

use std::{
    borrow::Cow,
    future::{Future as _, poll_fn},
    pin::pin,
    task::Poll,
};

use heddle_logic::HeaderEdit;
use heddle_runtime::{
    clock,
    splice::BrokenEnd,
    transport::{ReadHalf, WriteHalf, move_bytes},
};
use heddle_wire::http1::{
    Body, BodyEnd, BodyRewrite, Connection, Edit, Framing, HeadError, Progress, ResponseHead,
    ResponseRewrite, Scan, Version, write_response,
};

use super::course::{Answer, AnswerHead, Course, Failed, Judged, Received};
use crate::{
    buffers::{Buffer, Lent, Output, read_input},
    limits::{COPY_BYTES, SPLICE_BODY_BYTES},
    one_hop::{MARK, Mark},
    outgoing::{RequestFacts, as_edit},
    record::RequestOutcome,
    refusal::{Cut, REFUSAL_HEADER, Refusal, refused_by, says_undelivered},
    upstream::{Attempt, Said},
};

/// How the final head goes on.
struct Framed {
    body: Body,
    rewrite: BodyRewrite,
    received: Received,
    upstream_persists: bool,
    bodiless: bool,
}

/// Receives one response and passes it on; then, if the upstream stays, waits until it has the whole
/// request too.
pub(super) async fn receive(
    upstream: &mut ReadHalf<'_>,
    client: &mut WriteHalf<'_>,
    (request, course, edits): (RequestFacts, &Course, &[HeaderEdit]),
    attempt: &mut Attempt,
    again: impl Fn(AnswerHead<'_>) -> Judged,
    outcome: &RequestOutcome,
) -> Result<Received, Failed> {
    let mut head = Lent::<ResponseHead>::take();
    let mut input = None;
    let mut out = Lent::<Output>::take();
    pass_interim(upstream, client, (request, course), (&mut head, &mut input, &mut out), outcome)
        .await?;
    let Some(buffer) = input.as_mut() else { return Err(Failed::Unanswered) };
    let status = head.status();
    let now = clock::now();
    attempt.answered(now, status);
    let fields = head.view(buffer.filled()).fields();
    let watched = attempt.is_watched();
    let said = (status == 503 || watched).then(|| fields.get(REFUSAL_HEADER)).flatten();
    let by = said.and_then(|said| Some((attempt.upstream().workload()?, said)));
    if watched {
        let refused = by.as_ref().and_then(|(by, said)| refused_by(said, &by.id));
        attempt.says(now, status, Said { refused, ..Said::default() });
    }
    let undelivered = status == 503 && by.is_some_and(|(by, said)| says_undelivered(said, &by.id));
    let kept = !course.forgot.get();
    let field = |name: &str| Some(String::from_utf8_lossy(fields.get(name)?).into_owned());
    let judged = match outcome.has_sent() {
        true => Judged::Passes,
        false => again(AnswerHead { status, field: &field, undelivered, kept }),
    };
    attempt.judged(now, judged == Judged::Obeyed(Mark::Injected));
    if judged == Judged::Again {
        return Err(Failed::Again);
    }
    let request =
        RequestFacts { persistent: request.persistent && !outcome.is_draining(), ..request };
    let framed = frame(buffer, &head, (request, course, edits, judged), &mut out.0)?;
    drop(head);
    let to = ToClient { client, out, status, course, outcome };
    let received = relay_body(upstream, input, framed, to).await?;
    course.answered.set(true);
    if let Answer::Complete { upstream_persists: true, .. } = received.answer
        && !course.upload_ended()
    {
        upload_ends(upstream, course).await;
    }
    Ok(received)
}

/// Waits until the request is sent in full. A server may answer first and read then, so that a whole
/// answer is no end of the exchange; one that closes, or sends what belongs to no answer, wants no more.
async fn upload_ends(upstream: &mut ReadHalf<'_>, course: &Course) {
    let mut upstream_speaks = pin!(upstream.peek());
    poll_fn(|context| {
        if course.upload_ended() {
            return Poll::Ready(());
        }
        let speaks = upstream_speaks.as_mut().poll(context).map(drop);
        if speaks.is_ready() {
            course.stopped.set(true);
        }
        speaks
    })
    .await;
}

/// What a response is read with.
type Reading<'a> = (&'a mut Lent<ResponseHead>, &'a mut Option<Lent<Buffer>>, &'a mut Lent<Output>);

/// Reads heads until the final one is there, and passes interim ones on.
async fn pass_interim(
    upstream: &mut ReadHalf<'_>,
    client: &mut WriteHalf<'_>,
    (request, course): (RequestFacts, &Course),
    (head, input, out): Reading<'_>,
    outcome: &RequestOutcome,
) -> Result<(), Failed> {
    let mut interim = false;
    loop {
        match read_head(upstream, head, input).await {
            // The upstream has seen the request: it may not be sent again.
            Err(Failed::Unanswered) if interim => {
                return Err(Failed::BadResponse(Refusal::UpstreamReset));
            }
            result => result?,
        }
        let Some(buffer) = input.as_mut() else { return Err(Failed::Unanswered) };
        if !head.is_interim() {
            return Ok(());
        }
        interim = true;
        if request.client_version == Version::Http11 {
            let rewrite = ResponseRewrite { client: request.client_version, ..Default::default() };
            write_response(head.view(buffer.filled()), &rewrite, &mut out.0);
            course.continued.set(course.continued.get() || head.status() == 100);
            client.write_all(&out.0).await.map_err(|_| Failed::ClientGone)?;
            outcome.sent(out.0.len() as u64);
            out.0.clear();
        }
        buffer.consume(head.len());
        head.clear();
        // A server may send them without end: it gets no more of this worker than others do, and
        // the client is watched all the while.
        tokio::task::yield_now().await;
    }
}

/// Reads until a head is complete.
pub(super) async fn read_head(
    upstream: &mut ReadHalf<'_>,
    head: &mut ResponseHead,
    input: &mut Option<Lent<Buffer>>,
) -> Result<(), Failed> {
    // An interim head may have brought the next one with it.
    if let Some(buffer) = input.as_mut()
        && !buffer.is_empty()
        && scan(head, buffer)? == Scan::Complete
    {
        return Ok(());
    }
    loop {
        let before = input.as_ref().is_some_and(|buffer| !buffer.is_empty());
        match read_input(upstream, input).await {
            Ok(0) if before => return Err(bad("it ended within its head")),
            Ok(0) => return Err(Failed::Unanswered),
            Ok(_) => {}
            Err(_) if before => return Err(bad("the connection was reset within its head")),
            Err(_) => return Err(Failed::Unanswered),
        }
        let Some(buffer) = input.as_mut() else { return Err(Failed::Unanswered) };
        if scan(head, buffer)? == Scan::Complete {
            return Ok(());
        }
    }
}

/// Scans what is there of a head; what has one reading only is made to be as it should be.
fn scan(head: &mut ResponseHead, buffer: &mut Buffer) -> Result<Scan, Failed> {
    head.scan_normalising(buffer).map_err(|error| unreadable(error, head, buffer))
}

/// Names the place, since whoever reads it has to find it in somebody else's program.
#[cold]
fn unreadable(error: HeadError, head: &ResponseHead, buffer: &Buffer) -> Failed {
    const SHOWN: usize = 40;
    let at = head.scanned();
    let rest = buffer.filled().get(at..).unwrap_or_default();
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let shown = line[..line.len().min(SHOWN)].trim_ascii_end().escape_ascii();
    let place = match line {
        [] => String::new(),
        _ => format!(" (at byte {at} of its head: \"{shown}\")"),
    };
    bad(format!("{error}{place}; if the port speaks no HTTP, declare it: `--protocol tcp`"))
}

fn bad(what: impl Into<Cow<'static, str>>) -> Failed {
    Failed::BadResponse(Refusal::BadResponse(what.into()))
}

/// Decides how the final head goes on, and writes it to `out`.
fn frame(
    buffer: &mut Buffer,
    head: &ResponseHead,
    (request, course, edits, judged): (RequestFacts, &Course, &[HeaderEdit], Judged),
    out: &mut Vec<u8>,
) -> Result<Framed, Failed> {
    let response = head.view(buffer.filled());
    let tunnel = head.is_tunnel(request.method);
    if head.status() == 101 && !request.upgrade {
        return Err(bad("it switches protocols (101) though nobody asked"));
    }
    let framing = head.framing(request.method);
    let rewrite = head.body_rewrite(request.method, request.client_version);
    let upstream_persists = head.persistent(request.method);
    // A server that stays is sent the rest of the request. Whether a client that waited in vain for
    // its 100 will send that, nobody knows.
    let upload_goes_on = upstream_persists && (!request.expects_continue || course.continued.get());
    let client_persists = request.persistent
        && (course.sent.get() || upload_goes_on)
        && framing != Framing::UntilClose
        && rewrite != BodyRewrite::UntilClose;
    let connection = match client_persists || tunnel {
        true => Connection::KeepAlive,
        false => Connection::Close,
    };
    let mark = judged.mark().map(|mark| match mark {
        Some(mark) => Edit::Set(MARK, mark.as_str()),
        None => Edit::Remove(MARK),
    });
    let edits: Vec<_> = edits.iter().map(as_edit).chain(mark).collect();
    let edit = ResponseRewrite {
        edits: &edits,
        connection,
        client: request.client_version,
        body: rewrite,
    };
    write_response(response, &edit, out);
    let bodiless = head.is_bodiless(request.method) && !tunnel;
    let received = Received {
        answer: match tunnel {
            true => Answer::Tunnel(None),
            false => Answer::Complete { upstream_persists: false, bodiless },
        },
        client_persists,
        announced_idle: response.announced_idle_seconds(),
        binds: response.binds_connection(),
    };
    buffer.consume(head.len());
    let body = Body::new(framing);
    Ok(Framed { body, rewrite, received, upstream_persists, bodiless })
}

/// The client's end of an answer, and what is to be written there.
struct ToClient<'a, 'c> {
    client: &'a mut WriteHalf<'c>,
    out: Lent<Output>,
    status: u16,
    course: &'a Course,
    outcome: &'a RequestOutcome,
}

impl ToClient<'_, '_> {
    /// Writes what waits, and `piece` behind it.
    async fn write(&mut self, piece: &[u8]) -> Result<(), Failed> {
        if !self.course.answering.replace(true) {
            self.outcome.status(self.status);
        }
        let bytes = (self.out.0.len() + piece.len()) as u64;
        let written = match piece {
            [] => self.client.write_all(&self.out.0).await,
            piece => self.client.write_both(&self.out.0, piece).await,
        };
        written.map_err(|_| Failed::ClientGone)?;
        self.outcome.sent(bytes);
        self.out.0.clear();
        Ok(())
    }

    /// Passes on one run of the body, behind the head if that is still to be written.
    async fn pass(
        &mut self,
        buffer: &mut Buffer,
        body: &mut Body,
        rewrite: BodyRewrite,
    ) -> Result<Progress, Failed> {
        let run = match rewrite {
            BodyRewrite::UntilClose => body.payload(buffer.filled()),
            BodyRewrite::AsIs => body.relay(buffer.filled()),
        };
        let run = run.map_err(|error| match self.course.answering.get() {
            // Nothing after the last good byte may go on.
            true => Failed::Cut(Cut::Reset),
            false => bad(error.to_string()),
        })?;
        let piece = &buffer.filled()[run.forward.clone()];
        let waits = run.progress == Progress::More && self.out.0.len() + piece.len() <= COPY_BYTES;
        if waits || piece.is_empty() && run.progress == Progress::NeedInput {
            // More of it is at hand, or the caller writes the head alone.
            self.out.0.extend_from_slice(piece);
        } else if piece.len() <= COPY_BYTES {
            self.out.0.extend_from_slice(piece);
            self.write(&[]).await?;
        } else {
            self.write(piece).await?;
        }
        buffer.consume(run.consumed);
        Ok(run.progress)
    }
}

/// Writes the head that waits with what is there of the body, then the rest.
async fn relay_body(
    upstream: &mut ReadHalf<'_>,
    mut input: Option<Lent<Buffer>>,
    framed: Framed,
    mut to: ToClient<'_, '_>,
) -> Result<Received, Failed> {
    let Framed { mut body, rewrite, mut received, upstream_persists, bodiless } = framed;
    if let Answer::Tunnel(held) = &mut received.answer {
        to.write(&[]).await?;
        *held = input.filter(|buffer| !buffer.is_empty());
        return Ok(received);
    }
    loop {
        let progress = match input.as_mut() {
            Some(buffer) => to.pass(buffer, &mut body, rewrite).await?,
            None => Progress::NeedInput,
        };
        match progress {
            Progress::More => continue,
            Progress::Done => break,
            Progress::NeedInput if body.is_done() => break,
            Progress::NeedInput => {}
        }
        // A head without any of its body yet must not wait for it.
        if !to.out.0.is_empty() {
            to.write(&[]).await?;
        }
        let nothing_held = input.as_ref().is_none_or(|buffer| buffer.is_empty());
        let ended =
            if nothing_held && rewrite == BodyRewrite::AsIs && body.unseen() >= SPLICE_BODY_BYTES {
                input = None;
                move_response_body(upstream, to.client, &mut body, to.outcome).await?
            } else {
                let read = read_input(upstream, &mut input).await;
                read.map_err(|_| Failed::Cut(Cut::Reset))? == 0
            };
        if ended && body.eof() == BodyEnd::Truncated {
            // Where the end of the connection is the end of the body, only a reset says that it is not.
            let whole_looking = rewrite == BodyRewrite::UntilClose;
            return Err(Failed::Cut(if whole_looking { Cut::Reset } else { Cut::Closed }));
        }
        if body.is_done() && input.is_none() {
            break;
        }
    }
    let surplus = input.is_some_and(|buffer| !buffer.is_empty());
    let upstream_persists = upstream_persists && !surplus;
    received.answer = Answer::Complete { upstream_persists, bodiless };
    Ok(received)
}

/// Moves a large body past this process; true if the upstream ended.
async fn move_response_body(
    upstream: &mut ReadHalf<'_>,
    client: &mut WriteHalf<'_>,
    body: &mut Body,
    outcome: &RequestOutcome,
) -> Result<bool, Failed> {
    let unseen = body.unseen();
    let limit = (unseen != u64::MAX).then_some(unseen);
    let mut progress = |n| outcome.sent(n);
    match Box::pin(move_bytes(upstream, client, limit, &mut progress)).await {
        Ok(moved) => {
            body.advance(moved);
            Ok(moved < unseen)
        }
        Err(error) => Err(match error.side {
            BrokenEnd::Read => Failed::Cut(Cut::Reset),
            BrokenEnd::Write => Failed::ClientGone,
        }),
    }
}
