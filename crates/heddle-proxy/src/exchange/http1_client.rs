//! A client of HTTP/1 as the frames of an exchange: its body taken apart, the response put together. Only
//! where the server speaks another version.

use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};

use h2::Reason;
use heddle_logic::{HeaderEdit, Replayable};
use heddle_runtime::transport::{ReadHalf, WriteHalf};
use heddle_wire::http1::{BodyEnd, Progress};

use super::framed::{Kept, Responder, Upload};
use crate::{
    buffers::{Buffer, Lent, poll_input},
    compared::{Watch, Watched},
    frames::{
        Frame, Frames, Head, Reset, apply,
        http1::Parts,
        respond::{Recipient, send_interim, send_response, stays},
    },
    outgoing::OutgoingRequest,
    record::RequestOutcome,
    refusal::{Failure, Refusal},
    tee::Tee,
};

/// The rest of a request: what was taken of its body, then what comes.
pub(super) struct Http1Upload<'a, 't> {
    client: ReadHalf<'t>,
    input: &'a mut Option<Lent<Buffer>>,
    outgoing: &'a mut OutgoingRequest,
    parts: Parts,
    refusal: Option<Refusal>,
    tee: Option<&'a mut Tee>,
    outcome: &'a RequestOutcome,
}

impl<'a, 't> Http1Upload<'a, 't> {
    pub(super) fn new(
        client: ReadHalf<'t>,
        input: &'a mut Option<Lent<Buffer>>,
        outgoing: &'a mut OutgoingRequest,
        (mut tee, outcome): (Option<&'a mut Tee>, &'a RequestOutcome),
    ) -> Self {
        let parts = Parts::new(outgoing.body_from_its_beginning());
        if let Some(tee) = &mut tee {
            tee.rewind();
        }
        Self { client, input, outgoing, parts, refusal: None, tee, outcome }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, Reset>>> {
        loop {
            let found = match self.parts.next(self.outgoing.unwritten()) {
                Ok(found) => found,
                Err(reset) => return Poll::Ready(Some(Err(reset))),
            };
            self.outgoing.wrote(found.consumed);
            if let Some(frame) = found.frame {
                return Poll::Ready(Some(Ok(frame)));
            }
            if found.progress == Progress::More {
                continue;
            }
            if self.parts.is_done() {
                return Poll::Ready(self.parts.end().map(Ok));
            }
            if self.outgoing.replayable == Replayable::No {
                self.outgoing.forget_sent_body();
            }
            if let Err(reset) = ready!(self.poll_more(context)) {
                return Poll::Ready(Some(Err(reset)));
            }
        }
    }

    /// Reads from the client, and prepares what belongs to the body.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Reset>> {
        let read = ready!(poll_input(context, &mut self.client, self.input));
        Poll::Ready(match read {
            Ok(0) if self.outgoing.body.eof() == BodyEnd::Truncated => {
                self.outgoing.truncated = true;
                Err(Reset(Reason::CANCEL))
            }
            Ok(_) => self.absorb(),
            Err(_) => Err(Reset(Reason::CANCEL)),
        })
    }

    fn absorb(&mut self) -> Result<(), Reset> {
        let Some(input) = self.input.as_mut() else { return Ok(()) };
        let absorbed = self.outgoing.absorb(input, self.outcome);
        self.input.take_if(|input| input.is_empty());
        absorbed.map_err(|refusal| {
            self.refusal = Some(refusal);
            Reset(Reason::PROTOCOL_ERROR)
        })
    }
}

impl Frames for Http1Upload<'_, '_> {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, Reset>>> {
        let frame = ready!(self.poll_next(context));
        let over = self.is_over();
        if let Some(tee) = &mut self.tee {
            if let Some(Ok(frame)) = &frame {
                tee.pass(Some(frame));
            }
            if over || frame.is_none() {
                tee.pass(None);
            }
        }
        Poll::Ready(frame)
    }

    fn is_over(&self) -> bool {
        self.parts.is_over()
    }

    async fn gone(&mut self) {
        self.client.reset_by_peer().await;
    }
}

impl Upload for Http1Upload<'_, '_> {
    fn refusal(&mut self) -> Option<Refusal> {
        self.refusal.take()
    }

    fn kept(&mut self) -> Kept {
        self.outgoing.kept_in_frames()
    }
}

/// Where the response goes.
pub(super) struct Http1Responder<'t> {
    pub(super) client: WriteHalf<'t>,
    pub(super) recipient: Recipient,
    /// What a rule changes about the fields of whatever answers.
    pub(super) edits: Option<Rc<[HeaderEdit]>>,
    /// Who sees the answer, where those of copies are compared with it.
    pub(super) watch: Option<Rc<Watch>>,
}

impl Responder for Http1Responder<'_> {
    async fn interim(&mut self, head: &Head, outcome: &RequestOutcome) -> Result<(), Failure> {
        send_interim(&mut self.client, head, self.recipient, outcome).await
    }

    async fn respond(
        &mut self,
        (mut head, reads_on): (Head, bool),
        body: &mut impl Frames,
        outcome: &RequestOutcome,
    ) -> Result<(), Failure> {
        apply(&mut head.fields, self.edits.as_deref().unwrap_or_default());
        outcome.status(head.status);
        self.recipient.persists &= reads_on;
        self.recipient.persists = stays(&head, self.recipient);
        if let Some(watch) = &self.watch {
            watch.head(head.status, body.is_over());
        }
        let mut body = Watched { frames: body, watch: self.watch.as_deref() };
        send_response(&mut self.client, &head, &mut body, self.recipient, outcome).await
    }

    /// What is read of its request says so.
    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}
