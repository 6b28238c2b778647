//! What several tests use.

use heddle_wire::http1::{
    Body, ChunkError, Framing, HeadError, Progress, RequestHead, ResponseHead, Scan,
};

/// Scans a whole request head.
pub(crate) fn request(raw: &[u8]) -> Result<RequestHead, HeadError> {
    let mut head = RequestHead::new();
    match head.scan(raw)? {
        Scan::Complete => Ok(head),
        Scan::Partial => panic!("partial: {}", String::from_utf8_lossy(raw)),
    }
}

/// Scans a whole response head.
pub(crate) fn response(raw: &[u8]) -> Result<ResponseHead, HeadError> {
    let mut head = ResponseHead::new();
    match head.scan(raw)? {
        Scan::Complete => Ok(head),
        Scan::Partial => panic!("partial: {}", String::from_utf8_lossy(raw)),
    }
}

/// How a body is taken out of its framing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    Relay,
    Payload,
}

/// What came out of a body that arrived in pieces.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) forwarded: Vec<u8>,
    pub(crate) rest: Vec<u8>,
    pub(crate) done: bool,
}

/// Feeds `pieces` to a body as a relay would: keeps what was not consumed, reads the next piece
/// behind it.
pub(crate) fn feed<'a>(
    framing: Framing,
    mode: Mode,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Outcome, ChunkError> {
    let mut body = Body::new(framing);
    let (mut forwarded, mut buffer) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let run = match mode {
                Mode::Relay => body.relay(&buffer)?,
                Mode::Payload => body.payload(&buffer)?,
            };
            assert!(run.forward.end <= run.consumed, "{run:?}");
            forwarded.extend_from_slice(&buffer[run.forward.clone()]);
            buffer.drain(..run.consumed);
            if run.progress != Progress::More {
                break;
            }
        }
    }
    let done = body.is_done();
    Ok(Outcome { forwarded, rest: buffer, done })
}
