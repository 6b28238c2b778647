//! Bodies on their way through.

use heddle_wire::http1::{
    Body, BodyEnd, CHUNK_END, CHUNK_OVERHEAD_BYTES_MAX, ChunkError, FIELDS_MAX, Framing,
    HEAD_BYTES_MAX, HeadError, LAST_CHUNK, Progress, Run, chunk_head,
};

use crate::support::{Mode, feed};

const NEXT: &[u8] = b"GET /next";

#[test]
fn canonical_chunks_pass_as_one_run() {
    let body = b"5\r\nhello\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nServer-Timing: 1\r\n\r\n";
    let run = Body::new(Framing::Chunked).relay(&[body, NEXT].concat()).unwrap();
    let all = Run { forward: 0..body.len(), consumed: body.len(), progress: Progress::Done };
    assert_eq!(run, all);
}

#[test]
fn a_partial_chunk_passes_without_waiting_for_its_end() {
    let mut body = Body::new(Framing::Chunked);
    let run = body.relay(b"100\r\nfirst").unwrap();
    assert_eq!(run, Run { forward: 0..10, consumed: 10, progress: Progress::NeedInput });
    assert_eq!(body.unseen(), 0x100 - 5);
    assert_eq!(body.eof(), BodyEnd::Truncated);
}

#[test]
fn extensions_and_padding_are_dropped() {
    let input = b"5;a=\"b\"\r\nhello\r\n3  \r\nabc\r\n2 ; x\r\nde\r\n0;last\r\n\r\n";
    let outcome = feed(Framing::Chunked, Mode::Relay, [&input[..]]).unwrap();
    assert!(outcome.done);
    let expected = b"5\r\nhello\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&outcome.forwarded), String::from_utf8_lossy(expected));
    let payload = feed(Framing::Chunked, Mode::Payload, [&input[..]]).unwrap();
    assert_eq!(payload.forwarded.len(), 10);
}

#[test]
fn trailers_pass_except_those_that_belong_in_a_head() {
    let input =
        b"0\r\nGrpc-Status: 0\r\nContent-Length: 5\r\nX-Sum: 1\r\nTRANSFER-ENCODING: chunked\r\n\
        Host: h\r\nSet-Cookie: a\r\n\r\n";
    let outcome = feed(Framing::Chunked, Mode::Relay, [&input[..], NEXT]).unwrap();
    assert_eq!(outcome.forwarded, b"0\r\nGrpc-Status: 0\r\nX-Sum: 1\r\n\r\n");
    assert_eq!((outcome.done, &outcome.rest[..]), (true, NEXT));
}

#[test]
fn payload_leaves_out_framing_and_trailers() {
    let input = b"5;x\r\nhello\r\n6\r\n world\r\n0\r\nA: b\r\n\r\nGET /next";
    let outcome = feed(Framing::Chunked, Mode::Payload, [&input[..]]).unwrap();
    assert_eq!(outcome.forwarded, b"hello world");
    assert_eq!((outcome.done, &outcome.rest[..]), (true, NEXT));
}

#[test]
fn trailers_have_the_limits_of_heads() {
    let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_MAX + 1));
    let error = feed(Framing::Chunked, Mode::Relay, [many.as_bytes()]).unwrap_err();
    assert_eq!(error, ChunkError::Trailer(HeadError::TooManyFields));
    let large = format!("0\r\na: {}", "x".repeat(HEAD_BYTES_MAX));
    let error = feed(Framing::Chunked, Mode::Relay, [large.as_bytes()]).unwrap_err();
    assert_eq!(error, ChunkError::Trailer(HeadError::TooLarge));
    let lines = format!("0\r\n{}", format!("a: {}\r\n", "x".repeat(1000)).repeat(66));
    let error = feed(Framing::Chunked, Mode::Relay, [lines.as_bytes()]).unwrap_err();
    assert_eq!(error, ChunkError::Trailer(HeadError::TooLarge));
}

#[test]
fn what_carries_nothing_is_bounded_and_tiny_chunks_are_not() {
    let wasteful = format!("1;{}\r\na\r\n", "x".repeat(1000)).repeat(20);
    let error = feed(Framing::Chunked, Mode::Relay, [wasteful.as_bytes()]).unwrap_err();
    assert_eq!(error, ChunkError::TooMuchOverhead);
    let long = format!("{}1\r\na\r\n", "0".repeat(16));
    let error = feed(Framing::Chunked, Mode::Relay, [long.as_bytes()]).unwrap_err();
    assert_eq!(error, ChunkError::BadSize);
    let tiny = "1\r\na\r\n".repeat(100_000);
    let outcome = feed(Framing::Chunked, Mode::Relay, [tiny.as_bytes()]).unwrap();
    assert_eq!(outcome.forwarded, tiny.as_bytes());
}

#[test]
fn what_every_chunk_may_have_adds_up_to_nothing_however_long_the_body_is() {
    let signed = format!("80;chunk-signature={}\r\n{}\r\n", "a".repeat(64), "x".repeat(128));
    for chunk in ["000000000000001\r\na\r\n", "1 \t\r\na\r\n", "1;a=b\r\na\r\n", signed.as_str()] {
        let body = chunk.repeat(2 * CHUNK_OVERHEAD_BYTES_MAX as usize);
        let outcome = feed(Framing::Chunked, Mode::Relay, [body.as_bytes()]);
        assert!(outcome.is_ok(), "{chunk:?}: {:?}", outcome.err());
    }
}

#[test]
fn made_chunks_are_read_back() {
    let mut made = Vec::new();
    for len in [1, 15, 16, 255, 4096, 70_000] {
        made.extend_from_slice(chunk_head(len, &mut [0; 18]));
        made.extend(std::iter::repeat_n(b'x', len));
        made.extend_from_slice(CHUNK_END);
    }
    made.extend_from_slice(LAST_CHUNK);
    let outcome = feed(Framing::Chunked, Mode::Payload, [&made[..]]).unwrap();
    assert!(outcome.done && outcome.rest.is_empty());
    assert_eq!(outcome.forwarded.len(), 1 + 15 + 16 + 255 + 4096 + 70_000);
    assert_eq!(chunk_head(usize::MAX, &mut [0; 18]), b"ffffffffffffffff\r\n");
}

#[test]
fn a_body_of_known_length_ends_there() {
    let outcome = feed(Framing::Length(5), Mode::Relay, [&b"he"[..], b"lloGET /next"]).unwrap();
    assert_eq!((&outcome.forwarded[..], &outcome.rest[..]), (&b"hello"[..], NEXT));
    assert!(outcome.done);
    let outcome = feed(Framing::None, Mode::Relay, [NEXT]).unwrap();
    assert_eq!((outcome.done, &outcome.rest[..]), (true, NEXT));
}

#[test]
fn bytes_moved_past_the_body_count() {
    let mut body = Body::new(Framing::Length(1000));
    assert_eq!(body.relay(b"abc").unwrap().consumed, 3);
    assert_eq!(body.unseen(), 997);
    body.advance(900);
    assert_eq!((body.unseen(), body.is_done()), (97, false));
    body.advance(97);
    assert!(body.is_done());

    let mut body = Body::new(Framing::Chunked);
    assert_eq!(body.relay(b"10\r\n").unwrap().consumed, 4);
    body.advance(16);
    assert_eq!(body.unseen(), 0);
    assert_eq!(body.relay(b"\r\n0\r\n\r\n").unwrap().progress, Progress::Done);

    let mut body = Body::new(Framing::UntilClose);
    body.advance(1 << 40);
    assert_eq!(body.unseen(), u64::MAX);
}

#[test]
fn only_a_complete_body_ends_well_with_its_connection() {
    let end_after = |framing, input: &[u8]| {
        let mut body = Body::new(framing);
        body.relay(input).unwrap();
        body.eof()
    };
    assert_eq!(end_after(Framing::None, b""), BodyEnd::Complete);
    assert_eq!(end_after(Framing::Length(5), b"hello"), BodyEnd::Complete);
    assert_eq!(end_after(Framing::Length(5), b"hell"), BodyEnd::Truncated);
    assert_eq!(end_after(Framing::Chunked, b"0\r\n\r\n"), BodyEnd::Complete);
    assert_eq!(end_after(Framing::Chunked, b"0\r\n"), BodyEnd::Truncated);
    assert_eq!(end_after(Framing::Chunked, b"5\r\nhello\r\n"), BodyEnd::Truncated);
    assert_eq!(end_after(Framing::Chunked, b""), BodyEnd::Truncated);
    assert_eq!(end_after(Framing::UntilClose, b"any"), BodyEnd::Complete);
}
