//! One message's body on its way through: how much of the input belongs to it, and whether it was
//! complete when the connection ended.

use super::{ChunkError, ChunkedDecoder, Framing, Part, Progress, Run};

/// What becomes of a response's body framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyRewrite {
    /// As it was.
    #[default]
    AsIs,
    /// It was chunked and is sent delimited by close ([`Body::payload`]), for an HTTP/1.0
    /// client; the caller says [`super::Connection::Close`].
    UntilClose,
}

/// A body being relayed.
#[derive(Debug, Clone)]
pub struct Body {
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// So many bytes left; 0 is complete.
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
    /// Ended by close.
    Closed,
}

/// How a body ended when its connection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// All of it had been seen, or the close was its end.
    Complete,
    /// Bytes are missing: cut the other side too, never complete it.
    Truncated,
}

impl Body {
    /// A body delimited as `framing` says.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let kind = match framing {
            Framing::None => Kind::Length(0),
            Framing::Length(length) => Kind::Length(length),
            Framing::Chunked => Kind::Chunked(ChunkedDecoder::new()),
            Framing::UntilClose => Kind::UntilClose,
        };
        Self { kind }
    }

    /// The next run to forward as it is; a chunked body keeps its framing.
    ///
    /// # Errors
    /// [`ChunkError`]: forward nothing more, cut both connections.
    pub fn relay(&mut self, input: &[u8]) -> Result<Run, ChunkError> {
        match &mut self.kind {
            Kind::Chunked(decoder) => decoder.relay(input),
            _ => Ok(self.plain(input)),
        }
    }

    /// The next run of payload; a chunked body loses its framing and its trailers.
    ///
    /// # Errors
    /// [`ChunkError`]: forward nothing more, cut both connections.
    pub fn payload(&mut self, input: &[u8]) -> Result<Run, ChunkError> {
        match &mut self.kind {
            Kind::Chunked(decoder) => decoder.data(input),
            _ => Ok(self.plain(input)),
        }
    }

    /// The next part by itself, data or a line of the trailers: to a peer of another version.
    ///
    /// # Errors
    /// [`ChunkError`]: forward nothing more, cut both connections.
    pub fn part(&mut self, input: &[u8]) -> Result<(Run, Part), ChunkError> {
        match &mut self.kind {
            Kind::Chunked(decoder) => decoder.part(input),
            _ => Ok((self.plain(input), Part::Data)),
        }
    }

    fn plain(&mut self, input: &[u8]) -> Run {
        let n = (input.len() as u64).min(self.unseen());
        self.advance(n);
        let progress = if self.is_done() { Progress::Done } else { Progress::NeedInput };
        let n = n as usize;
        Run { forward: 0..n, consumed: n, progress }
    }

    /// Bytes that may be moved to the other side without being looked at (spliced), followed by
    /// [`Self::advance`]: the rest of a body of known length, the rest of the current chunk,
    /// `u64::MAX` for a body that ends with the connection. 0: there is something to look at.
    #[must_use]
    pub fn unseen(&self) -> u64 {
        match &self.kind {
            Kind::Length(left) => *left,
            Kind::Chunked(decoder) => decoder.chunk_remaining(),
            Kind::UntilClose => u64::MAX,
            Kind::Closed => 0,
        }
    }

    /// `bytes` were moved past this object; at most [`Self::unseen`].
    pub fn advance(&mut self, bytes: u64) {
        match &mut self.kind {
            Kind::Length(left) => *left -= bytes.min(*left),
            Kind::Chunked(decoder) => decoder.advance(bytes),
            Kind::UntilClose | Kind::Closed => {}
        }
    }

    /// Is the body complete?
    #[must_use]
    pub fn is_done(&self) -> bool {
        match &self.kind {
            Kind::Length(left) => *left == 0,
            Kind::Chunked(decoder) => decoder.is_done(),
            Kind::UntilClose => false,
            Kind::Closed => true,
        }
    }

    /// The sender's side of the connection has ended.
    pub fn eof(&mut self) -> BodyEnd {
        if matches!(self.kind, Kind::UntilClose) {
            self.kind = Kind::Closed;
        }
        if self.is_done() { BodyEnd::Complete } else { BodyEnd::Truncated }
    }
}
