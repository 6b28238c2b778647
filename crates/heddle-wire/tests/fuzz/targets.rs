//! What must hold for any bytes, a function per decoder. They take what a coverage-guided fuzzer
//! would give them.

use heddle_wire::{
    client_hello::{CLIENT_HELLO_BYTES_MAX, Hello, HelloReader},
    detect::{Detected, Detector},
    discovery::{ResourceType, WireResource as _, decode},
    gzip,
    http1::{
        Body, ChunkError, Framing, HeadError, Method, Progress, RequestHead, RequestRewrite,
        ResponseHead, ResponseRewrite, Scan, write_request, write_response,
    },
    trace::{
        Decision, Formats, Incoming, SpanId, read_otlp, read_zipkin,
        received::{EVENTS_MAX, NAME_BYTES_MAX, TAGS_MAX, VALUE_BYTES_MAX},
    },
};

/// Read at once and byte by byte it is the same; written, it is whole, means the same and is final.
pub(crate) fn request_head(input: &[u8]) {
    let (mut whole, mut split) = (RequestHead::new(), RequestHead::new());
    let at_once = whole.scan(input);
    assert_eq!(at_once, bytewise(input, |bytes| split.scan(bytes)));
    if at_once != Ok(Scan::Complete) {
        return;
    }
    assert_eq!((whole.len(), whole.framing()), (split.len(), split.framing()));
    for path in [None, Some("/p")] {
        let rewrite = RequestRewrite { path, ..RequestRewrite::default() };
        let mut once = Vec::new();
        write_request(whole.view(input), &rewrite, &mut once);
        let mut read = RequestHead::new();
        assert_eq!(read.scan(&once), Ok(Scan::Complete), "{}", String::from_utf8_lossy(&once));
        assert_eq!(read.len(), once.len(), "nothing is behind the head");
        assert_eq!((read.framing(), read.method()), (whole.framing(), whole.method()));
        if path.is_none() {
            assert_eq!(read.view(&once).path(), whole.view(input).path());
        }
        let mut twice = Vec::new();
        write_request(read.view(&once), &rewrite, &mut twice);
        assert_eq!(once, twice);
    }
}

/// As [`request_head`].
pub(crate) fn response_head(input: &[u8]) {
    let (mut whole, mut split) = (ResponseHead::new(), ResponseHead::new());
    let at_once = whole.scan(input);
    assert_eq!(at_once, bytewise(input, |bytes| split.scan(bytes)));
    let mut normal = input.to_vec();
    put_in_order(&mut normal);
    assert!(at_once != Ok(Scan::Complete) || normal == input, "what is in order stays as it is");
    if at_once != Ok(Scan::Complete) {
        return;
    }
    let mut once = Vec::new();
    write_response(whole.view(input), &ResponseRewrite::default(), &mut once);
    let mut read = ResponseHead::new();
    assert_eq!(read.scan(&once), Ok(Scan::Complete), "{}", String::from_utf8_lossy(&once));
    assert_eq!((read.len(), read.status()), (once.len(), whole.status()));
    for method in [Method::Get, Method::Head, Method::Connect] {
        assert_eq!(read.framing(method), whole.framing(method), "{method:?}");
        assert_eq!(split.framing(method), whole.framing(method), "{method:?}");
    }
    let mut twice = Vec::new();
    write_response(read.view(&once), &ResponseRewrite::default(), &mut twice);
    assert_eq!(once, twice);
}

/// Put in order at once and byte by byte it is the same, and what comes of it is a head by the grammar.
fn put_in_order(input: &mut Vec<u8>) {
    let mut split = ResponseHead::new();
    let mut pieces = Vec::new();
    let mut in_pieces = split.scan_normalising(&mut pieces);
    for byte in &input.clone() {
        if in_pieces == Ok(Scan::Partial) {
            pieces.push(*byte);
            in_pieces = split.scan_normalising(&mut pieces);
        }
    }
    let mut whole = ResponseHead::new();
    let at_once = whole.scan_normalising(input);
    assert_eq!(at_once, in_pieces);
    if at_once == Ok(Scan::Complete) {
        let mut strict = ResponseHead::new();
        assert_eq!(strict.scan(input), at_once);
        assert_eq!((strict.len(), strict.status()), (whole.len(), whole.status()));
        assert_eq!(pieces, input[..whole.len()]);
    }
}

fn bytewise(
    input: &[u8],
    mut scan: impl FnMut(&[u8]) -> Result<Scan, HeadError>,
) -> Result<Scan, HeadError> {
    let scans = (0..=input.len()).map(|len| scan(&input[..len]));
    scans.into_iter().find(|scan| *scan != Ok(Scan::Partial)).unwrap_or(Ok(Scan::Partial))
}

/// Pieces change nothing; what is passed on is canonical and carries the same payload.
pub(crate) fn chunked(input: &[u8]) {
    let relayed = feed(Body::relay, &[input]);
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(relayed, feed(Body::relay, &bytes));
    let payload = feed(Body::payload, &[input]);
    assert_eq!(payload, feed(Body::payload, &bytes));
    let (Ok(relayed), Ok(payload)) = (relayed, payload) else { return };
    assert_eq!((relayed.done, &relayed.rest), (payload.done, &payload.rest));
    if relayed.done {
        let again = feed(Body::relay, &[&relayed.passed]).unwrap();
        assert_eq!((&again.passed, again.done, &again.rest[..]), (&relayed.passed, true, &[][..]));
        assert_eq!(feed(Body::payload, &[&relayed.passed]).unwrap().passed, payload.passed);
    }
}

/// What became of a body.
#[derive(Debug, PartialEq, Eq)]
struct Fed {
    passed: Vec<u8>,
    rest: Vec<u8>,
    done: bool,
}

fn feed(
    take: fn(&mut Body, &[u8]) -> Result<heddle_wire::http1::Run, ChunkError>,
    pieces: &[&[u8]],
) -> Result<Fed, ChunkError> {
    let mut body = Body::new(Framing::Chunked);
    let (mut passed, mut buffer) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let run = take(&mut body, &buffer)?;
            passed.extend_from_slice(&buffer[run.forward.clone()]);
            buffer.drain(..run.consumed);
            if run.progress != Progress::More {
                break;
            }
        }
    }
    Ok(Fed { passed, rest: buffer, done: body.is_done() })
}

/// A verdict never changes, and is the same however the bytes come, but that a request may be taken for
/// TCP where it comes in pieces. HTTP/1 is what scans as HTTP/1.
pub(crate) fn detect(input: &[u8]) {
    let mut detector = Detector::new();
    let mut last = Detected::NeedMore;
    for len in 0..=input.len() {
        let verdict = detector.look(&input[..len]);
        assert!(last == Detected::NeedMore || last == verdict, "{last:?} became {verdict:?}");
        last = verdict;
    }
    let whole = heddle_wire::detect::detect(input);
    assert!(
        whole == last || (whole == Detected::Http1 && last == Detected::Tcp),
        "{whole:?} {last:?}"
    );
    if whole == Detected::Http1 {
        let line = input.split_inclusive(|byte| *byte == b'\n').next().unwrap();
        assert_ne!(RequestHead::new().scan(line), Ok(Scan::Complete), "a line is no head");
        assert!(RequestHead::new().scan(&[line, b"\r\n"].concat()).is_ok());
    }
}

/// At once and byte by byte it is the same, said once and for all; a name is one, and was there.
pub(crate) fn client_hello(input: &[u8]) {
    let mut reader = HelloReader::default();
    let said = (0..=input.len()).map(|len| reader.look(&input[..len]));
    let stepwise = said.into_iter().find(|hello| *hello != Hello::NeedMore);
    let at_once = HelloReader::default().look(input);
    assert_eq!(stepwise.unwrap_or(Hello::NeedMore), at_once);
    assert!(at_once != Hello::NeedMore || input.len() < CLIENT_HELLO_BYTES_MAX);
    if let Hello::Named(name) = at_once {
        assert!(!name.is_empty() && name.len() <= 253 && name == name.to_ascii_lowercase());
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{name:?}");
    }
}

/// `NAME\nBYTES`: whatever type the bytes are taken for, they are refused, or mean what they mean
/// after another encoding too.
pub(crate) fn discovery(input: &[u8]) {
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (name, bytes) = (String::from_utf8_lossy(&input[..at]), input.get(at + 1..));
    for kind in ResourceType::ALL {
        let Ok(resource) = decode(kind.type_url(), &name, bytes.unwrap_or_default()) else {
            continue;
        };
        assert_eq!(resource.kind(), kind);
        let again = decode(kind.type_url(), &resource.name(), &resource.encode());
        assert_eq!(again, Ok(resource));
    }
}

/// `NAME: VALUE` in lines: what is read of them goes on in the same trace, with the same decision, in the forms it
/// came in, and is read again as what was written.
pub(crate) fn trace_context(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let fields: Vec<_> = text.lines().filter_map(|line| line.split_once(": ")).collect();
    let read = Incoming::read(|name, take| {
        fields.iter().filter(|(one, _)| *one == name).for_each(|(_, value)| take(value));
    });
    let Some(context) = read.context else { return };
    assert!(!read.formats.is_none() && context.decision == read.decision);
    let child = context.child(SpanId::of(7), context.decision);
    for (format, name) in Formats::ALL.into_iter().filter(|(one, _)| read.formats.has(*one)) {
        let mut written = Vec::new();
        child.write(format, |name, value| written.push((name, value)));
        let again = Incoming::read(|name, take| {
            written.iter().filter(|(one, _)| *one == name).for_each(|(_, value)| take(value));
        });
        let is_w3c = format == Formats::W3C;
        let next = again.context.expect(name);
        assert!(next.trace.is_same(context.trace) && next.span == child.span, "{name}");
        // W3C has no parent, nor has one field of B3 without a decision.
        let parent = child
            .parent
            .filter(|_| !is_w3c)
            .filter(|_| format != Formats::B3 || child.decision != Decision::Deferred);
        assert!(next.parent == parent && (is_w3c || next.trace == context.trace), "{name}");
        let decided = (next.decision.records(), context.decision.records());
        assert!(decided.0 == decided.1 || (is_w3c && decided.1.is_none()), "{name}: {decided:?}");
        assert_eq!((again.formats, again.malformed), (format, Formats::default()));
    }
}

/// Spans as the first byte says: protobuf, JSON, Zipkin's, or any of them in gzip. What is taken keeps to its limits.
pub(crate) fn spans(input: &[u8]) {
    const MOST: usize = 20;
    let Some((form, body)) = input.split_first() else { return };
    let whole = gzip::decompress(body, 1 << 16);
    assert!(whole.as_ref().map_or(true, |whole| whole.len() <= 1 << 16));
    let body = whole.as_deref().unwrap_or(body);
    let read = match form % 3 {
        0 => read_otlp::read(body, MOST),
        1 => read_otlp::read_json(body, MOST),
        _ => read_zipkin::read(body, MOST),
    };
    let Ok(batch) = read else { return };
    assert!(batch.spans.len() <= MOST);
    for span in batch.spans {
        assert!(span.trace != 0 && span.id != 0 && span.start != 0 && !span.service.is_empty());
        assert!(span.parent != Some(0) && span.parent != Some(span.id));
        assert!(span.name.len() <= NAME_BYTES_MAX && span.tags.len() <= TAGS_MAX);
        assert!(span.tags.iter().all(|(_, value)| value.len() <= VALUE_BYTES_MAX));
        assert!(span.events.len() <= EVENTS_MAX);
    }
}
