//! Known ways to make two parsers disagree about where a message ends. Each must be refused, or be
//! read in the one way that every recipient shares.

use heddle_wire::http1::{ChunkError, Framing, HeadError, Method};

use crate::support::{Mode, feed, request, response};

#[test]
fn ambiguous_body_lengths_are_refused_both_ways() {
    use HeadError::*;
    let cases: [(&str, HeadError); 33] = [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", LengthAndTransferEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", LengthAndTransferEncoding),
        ("Content-Length: 5\r\nTransfer-Encoding: identity", LengthAndTransferEncoding),
        ("Content-Length: 5\r\nContent-Length: 6", DifferentLengths),
        ("Content-Length: 5\r\ncontent-length: 6", DifferentLengths),
        ("Content-Length: 5, 5", BadLength),
        ("Content-Length: 5, 6", BadLength),
        ("Content-Length: 5\r\nContent-Length: 5,5", BadLength),
        ("Content-Length: +5", BadLength),
        ("Content-Length: -5", BadLength),
        ("Content-Length: 0x5", BadLength),
        ("Content-Length: 5 5", BadLength),
        ("Content-Length: 5.0", BadLength),
        ("Content-Length: \u{665}", BadLength),
        ("Content-Length:", BadLength),
        ("Content-Length: 5\r\nContent-Length:", BadLength),
        ("Content-Length: 9999999999999999999", BadLength),
        ("Content-Length: 18446744073709551621", BadLength),
        ("Content-Length : 5", SpaceBeforeColon),
        ("Transfer-Encoding : chunked", SpaceBeforeColon),
        ("Transfer-Encoding: xchunked", BadTransferEncoding),
        ("Transfer-Encoding: chunked, identity", BadTransferEncoding),
        ("Transfer-Encoding: identity, chunked", BadTransferEncoding),
        ("Transfer-Encoding: gzip, chunked", BadTransferEncoding),
        ("Transfer-Encoding: gzip", BadTransferEncoding),
        ("Transfer-Encoding: identity", BadTransferEncoding),
        ("Transfer-Encoding: \"chunked\"", BadTransferEncoding),
        ("Transfer-Encoding: chunked;q=1", BadTransferEncoding),
        ("Transfer-Encoding:", BadTransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", BadTransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", BadTransferEncoding),
        ("Transfer-Encoding:\x0bchunked", ControlByte { at: 0, byte: 0x0b }),
        ("Transfer-Encoding\r\n : chunked", BadFieldName),
    ];
    for (fields, error) in cases {
        let raw = format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n0\r\n\r\n");
        assert_refused(request(raw.as_bytes()).unwrap_err(), error, fields);
        let raw = format!("HTTP/1.1 200 OK\r\nA: h\r\n{fields}\r\n\r\n0\r\n\r\n");
        assert_refused(response(raw.as_bytes()).unwrap_err(), error, fields);
    }
}

fn assert_refused(got: HeadError, expected: HeadError, fields: &str) {
    assert_eq!(got.code(), expected.code(), "{fields:?}");
}

#[test]
fn transfer_encoding_on_http10_is_refused_of_clients_and_ends_the_connection_of_servers() {
    let raw = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(request(raw).unwrap_err(), HeadError::TransferEncodingOnHttp10);
    let raw = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n";
    let head = response(raw).unwrap();
    assert_eq!(head.framing(Method::Get), Framing::Chunked);
    assert!(!head.persistent(Method::Get));
}

#[test]
fn what_is_legal_stays_legal() {
    let framing = |fields: &str| {
        let raw = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
        request(raw.as_bytes()).map(|head| head.framing())
    };
    assert_eq!(framing("TE: trailers"), Ok(Framing::None));
    assert_eq!(framing("TE: trailers\r\nConnection: TE"), Ok(Framing::None));
    assert_eq!(framing("Transfer-Encoding: Chunked"), Ok(Framing::Chunked));
    assert_eq!(framing("Transfer-Encoding:  chunked \t"), Ok(Framing::Chunked));
    assert_eq!(framing("Content-Length: 005"), Ok(Framing::Length(5)));
    assert_eq!(framing("Content-Length: 5\r\nContent-Length: 5"), Ok(Framing::Length(5)));
}

#[test]
fn a_request_body_never_ends_with_the_connection() {
    let raw = b"POST / HTTP/1.0\r\n\r\nbody?";
    assert_eq!(request(raw).unwrap().framing(), Framing::None);
}

#[test]
fn a_hidden_second_request_is_body_or_refused() {
    // The bytes after the head are the body's, whatever they look like.
    let raw =
        b"GET / HTTP/1.1\r\nContent-Length: 34\r\n\r\nGET /admin HTTP/1.1\r\nHost: h\r\n\r\n..";
    let head = request(raw).unwrap();
    let outcome = feed(head.framing(), Mode::Relay, [&raw[head.len()..]]).unwrap();
    assert!(outcome.done && outcome.rest.is_empty(), "{outcome:?}");
    // A name with a blank inside or a folded line cannot hide a length.
    for fields in [
        "Foo: x\r\n Content-Length: 5",
        "Content Length: 5",
        "X: y\r\n\tTransfer-Encoding: chunked",
    ] {
        let raw = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
        assert!(request(raw.as_bytes()).is_err(), "{fields:?}");
    }
}

#[test]
fn lone_line_ends_never_separate_lines() {
    for text in [
        "GET / HTTP/1.1\r\nA: b\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\rTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\nHost: h\n\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\n",
        "GET / HTTP/1.1\r\nHost: h\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\r\n\r\n",
    ] {
        let code = request(text.as_bytes()).unwrap_err().code();
        assert!(["lone-lf", "lone-cr"].contains(&code), "{text:?}: {code}");
        let answer = text.replace("GET / HTTP/1.1", "HTTP/1.1 200 OK");
        let code = response(answer.as_bytes()).unwrap_err().code();
        assert!(["lone-lf", "lone-cr"].contains(&code), "{answer:?}: {code}");
    }
}

#[test]
fn bad_chunks_are_refused_and_nothing_behind_them_is_forwarded() {
    use ChunkError::*;
    let long = format!("5;{}\r\n", "x".repeat(5000));
    let cases: [(&str, ChunkError); 24] = [
        ("5\nhello\r\n", BadFraming),
        ("5\rhello\r\n", BadFraming),
        ("5\r\nhello0\r\n\r\n", BadFraming),
        ("5\r\nhello\n0\r\n\r\n", BadFraming),
        ("5\r\nhello\r0\r\n", BadFraming),
        ("5;a\nhello", BadFraming),
        ("x\r\n", BadSize),
        ("\r\n", BadSize),
        (";a\r\n", BadSize),
        ("0x5\r\nhello\r\n", BadSize),
        ("+5\r\nhello\r\n", BadSize),
        ("-5\r\nhello\r\n", BadSize),
        (" 5\r\nhello\r\n", BadSize),
        ("5 5\r\nhello\r\n", BadSize),
        ("5,\r\nhello\r\n", BadSize),
        ("1000000000000000\r\n", BadSize),
        ("00000000000000005\r\nhello\r\n", BadSize),
        ("ffffffffffffffffff\r\n", BadSize),
        ("5;a\rb\r\nhello\r\n", BadExtension),
        ("5;a\0\r\nhello\r\n", BadExtension),
        (&long, LineTooLong),
        ("0\r\nA : b\r\n\r\n", Trailer(HeadError::SpaceBeforeColon)),
        ("0\r\n A: b\r\n\r\n", Trailer(HeadError::LineFolding)),
        ("0\r\nA: b\n\r\n", Trailer(HeadError::LoneLf(4))),
    ];
    for (text, error) in cases {
        for mode in [Mode::Relay, Mode::Payload] {
            let got = feed(Framing::Chunked, mode, [text.as_bytes()]).unwrap_err();
            assert_eq!(got, error, "{text:?}");
        }
    }
}

#[test]
fn a_response_to_head_hides_nothing_in_its_declared_length() {
    let raw = b"HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let head = response(raw).unwrap();
    assert_eq!(head.framing(Method::Head), Framing::None);
    assert_eq!(head.framing(Method::Get), Framing::Length(38));
}
