//! What a request says of an endpoint that is watched for errors, and how what was answered is judged.

use std::{sync::Arc, time::Instant};

use heddle_logic::eject::{Seen, http_of_grpc};

use crate::{breaker::Place, refusal::seen_in_refusal};

/// A request to an endpoint that is watched for errors.
#[derive(Debug)]
pub(super) struct Watched {
    place: Arc<Place>,
    /// It is the one with which an endpoint is tried that was taken out.
    tries: bool,
    /// It is a call of gRPC whose status is to come.
    trailers_decide: bool,
}

impl Watched {
    /// Whatever was seen; of what says nothing, only that it is over.
    pub(super) fn saw(&mut self, seen: Option<Seen>, now: Instant) {
        match seen {
            seen if std::mem::take(&mut self.tries) => self.place.tried(seen, now),
            Some(seen) => self.place.saw(seen, now),
            None => {}
        }
    }
}

/// What the head of a response says besides its status, for those who watch an endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Said<'a> {
    /// The code with which the endpoint's own sidecar refused.
    pub(crate) refused: Option<&'a [u8]>,
    /// It answers a call of gRPC; with this status, where that is in its head.
    pub(crate) grpc: Option<Option<u32>>,
}

impl Watched {
    pub(super) fn new(place: &Arc<Place>, tries: bool) -> Self {
        Self { place: Arc::clone(place), tries, trailers_decide: false }
    }

    /// A response head came. Where a status of gRPC is still to come, the endpoint has shown that it lives,
    /// which is enough for one that is tried.
    pub(super) fn says(&mut self, now: Instant, status: u16, said: Said<'_>) {
        let seen = match said {
            Said { refused: Some(code), .. } => seen_in_refusal(code),
            Said { grpc: Some(Some(grpc)), .. } => Some(Seen::Answer(http_of_grpc(grpc))),
            Said { grpc: Some(None), .. } if status == 200 => {
                self.trailers_decide = !self.tries;
                Some(Seen::Answer(status)).filter(|_| self.tries)
            }
            Said { .. } => Some(Seen::Answer(status)),
        };
        self.saw(seen, now);
    }

    /// The response is over; for gRPC with this status, or with none, which is an error.
    pub(super) fn ended(&mut self, now: Instant, grpc: Option<u32>) {
        if std::mem::take(&mut self.trailers_decide) {
            self.saw(Some(Seen::Answer(grpc.map_or(500, http_of_grpc))), now);
        }
    }

    /// No connection, or no response.
    pub(super) fn failed(&mut self, now: Instant) {
        self.trailers_decide = false;
        self.saw(Some(Seen::Unreachable), now);
    }
}
