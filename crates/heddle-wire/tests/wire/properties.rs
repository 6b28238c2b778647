//! What holds for any input.

use heddle_wire::{
    detect::{Detected, Detector, detect},
    discovery::{ResourceType, decode},
    http1::{
        CHUNK_END, ChunkedDecoder, Connection, Edit, Framing, HeadError, LAST_CHUNK, Method,
        RequestHead, RequestRewrite, ResponseHead, ResponseRewrite, Scan, chunk_head,
        write_request, write_response,
    },
};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::support::{Mode, feed, request, response};

/// Field lines that bring every rule into play, right and wrong ones.
fn field_line() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "Host: reviews",
        "Content-Length: 5",
        "content-length: 5",
        "Content-Length: 6",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Connection: close",
        "Connection: keep-alive, x-a",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Upgrade: h2c",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "TE: gzip, trailers",
        "Expect: 100-continue",
        "X-Request-Id: 1",
        "x-a:\t b \t",
        "x-a:",
        "Bad : x",
        " folded",
    ]);
    prop_oneof![
        4 => known.prop_map(str::to_owned),
        2 => "[A-Za-z0-9-]{1,12}: ?[ -~\t]{0,40}",
        1 => "[ -~]{0,30}",
    ]
}

fn head_of(lines: impl Strategy<Value = &'static str>) -> impl Strategy<Value = Vec<u8>> {
    let mutation = prop::option::weighted(0.3, (any::<Index>(), any::<u8>()));
    (lines, vec(field_line(), 0..12), mutation, vec(any::<u8>(), 0..40)).prop_map(
        |(first, fields, mutation, rest)| {
            let mut raw = format!("{first}\r\n").into_bytes();
            for field in fields {
                raw.extend_from_slice(field.as_bytes());
                raw.extend_from_slice(b"\r\n");
            }
            raw.extend_from_slice(b"\r\n");
            if let Some((index, byte)) = mutation {
                let at = index.index(raw.len());
                raw[at] = byte;
            }
            raw.extend_from_slice(&rest);
            raw
        },
    )
}

fn request_lines() -> Vec<&'static str> {
    vec![
        "GET / HTTP/1.1",
        "GET / HTTP/1.0",
        "\r\nPOST /a?b HTTP/1.1",
        "GET http://a/x HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "CONNECT a:1 HTTP/1.1",
        "GET / HTTP/1.1 x",
    ]
}

fn status_lines() -> Vec<&'static str> {
    vec![
        "HTTP/1.1 200 OK",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 101 Switching",
        "HTTP/1.1 103 Early",
        "HTTP/1.1 204",
        "HTTP/1.1 426 Upgrade",
        "HTTP/1.1 20 OK",
    ]
}

fn request_bytes() -> impl Strategy<Value = Vec<u8>> {
    head_of(prop::sample::select(request_lines()))
}

fn response_bytes() -> impl Strategy<Value = Vec<u8>> {
    head_of(prop::sample::select(status_lines()))
}

/// Heads that are mostly valid, full of what a forwarder has to decide about.
fn forwardable(first: Vec<&'static str>) -> impl Strategy<Value = Vec<u8>> {
    let one_of = |lines: &[&'static str]| prop::sample::select(lines.to_vec());
    let framing = one_of(&[
        "",
        "Content-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
    ]);
    let host = one_of(&["", "Host: reviews\r\n", "host:\r\n"]);
    let field = one_of(&[
        "Connection: close\r\n",
        "Connection: keep-alive, x-a\r\n",
        "Connection: upgrade, te\r\n",
        "Connection:\r\n",
        "Upgrade: websocket\r\n",
        "Upgrade: h2c\r\n",
        "Keep-Alive: timeout=5\r\n",
        "Proxy-Connection: x\r\n",
        "TE: trailers\r\n",
        "TE: gzip, Trailers\r\n",
        "X-Request-Id: 1\r\n",
        "x-request-id:2 \r\n",
        "x-a:\t b \t\r\n",
        "X-New: old\r\n",
        "Accept: */*\r\n",
    ]);
    (prop::sample::select(first), host, vec(field, 0..8), framing, any::<Index>()).prop_map(
        |(first, host, mut fields, framing, at)| {
            fields.insert(at.index(fields.len() + 1), framing);
            format!("{first}\r\n{host}{}\r\n", fields.concat()).into_bytes()
        },
    )
}

/// Where a sequence is cut, as ascending lengths up to all of it.
fn cuts(len: usize, at: &[Index]) -> Vec<usize> {
    let mut cuts: Vec<usize> = at.iter().map(|index| index.index(len + 1)).collect();
    cuts.push(len);
    cuts.sort_unstable();
    cuts
}

fn pieces<'a>(bytes: &'a [u8], at: &[Index]) -> Vec<&'a [u8]> {
    let mut from = 0;
    let mut piece = |to: usize| &bytes[std::mem::replace(&mut from, to)..to];
    cuts(bytes.len(), at).into_iter().map(&mut piece).collect()
}

fn scan_in_pieces(
    bytes: &[u8],
    at: &[Index],
    mut scan: impl FnMut(&[u8]) -> Result<Scan, HeadError>,
) -> Result<Scan, HeadError> {
    let mut last = Ok(Scan::Partial);
    for len in cuts(bytes.len(), at) {
        last = scan(&bytes[..len]);
        if last != Ok(Scan::Partial) {
            break;
        }
    }
    last
}

proptest! {
    #[test]
    fn a_request_head_read_in_pieces_is_the_same(
        raw in request_bytes(), at in vec(any::<Index>(), 0..6),
    ) {
        let (mut whole, mut split) = (RequestHead::new(), RequestHead::new());
        let at_once = whole.scan(&raw);
        prop_assert_eq!(at_once, scan_in_pieces(&raw, &at, |bytes| split.scan(bytes)));
        if at_once == Ok(Scan::Complete) {
            prop_assert_eq!(format!("{whole:?}"), format!("{split:?}"));
        }
    }

    #[test]
    fn a_response_head_read_in_pieces_is_the_same(
        raw in response_bytes(), at in vec(any::<Index>(), 0..6),
    ) {
        let (mut whole, mut split) = (ResponseHead::new(), ResponseHead::new());
        let at_once = whole.scan(&raw);
        prop_assert_eq!(at_once, scan_in_pieces(&raw, &at, |bytes| split.scan(bytes)));
        if at_once == Ok(Scan::Complete) {
            prop_assert_eq!(format!("{whole:?}"), format!("{split:?}"));
        }
    }

    #[test]
    fn a_head_read_byte_by_byte_is_the_same(raw in request_bytes()) {
        let (mut whole, mut split) = (RequestHead::new(), RequestHead::new());
        let at_once = whole.scan(&raw);
        let bytewise = (0..=raw.len())
            .map(|len| split.scan(&raw[..len]))
            .find(|scan| *scan != Ok(Scan::Partial))
            .unwrap_or(Ok(Scan::Partial));
        prop_assert_eq!(at_once, bytewise);
    }

    /// What was written can be read, means the same, and is final: writing it again changes nothing.
    #[test]
    fn a_forwarded_request_is_valid_and_final(raw in forwardable(request_lines()), close in any::<bool>()) {
        let mut head = RequestHead::new();
        if head.scan(&raw) != Ok(Scan::Complete) {
            return Ok(());
        }
        let connection = if close { Connection::Close } else { Connection::KeepAlive };
        let edits = [Edit::Default("x-request-id", "2"), Edit::Set("x-new", "v"), Edit::Remove("x-a")];
        let rewrite = RequestRewrite { edits: &edits, connection, default_host: "dialled:80", path: None, authority: None };
        let mut once = Vec::new();
        write_request(head.view(&raw), &rewrite, &mut once);
        let second = request(&once).expect("what we send is valid");
        prop_assert_eq!(second.len(), once.len());
        prop_assert_eq!(second.framing(), head.framing());
        prop_assert_eq!(second.method(), head.method());
        prop_assert_eq!(second.persistent(), !close);
        prop_assert_eq!(second.view(&once).target(), head.view(&raw).target());
        prop_assert_eq!(second.view(&once).upgrade().is_some(), head.view(&raw).upgrade().is_some());
        let view = second.view(&once);
        let fields = view.fields();
        prop_assert!(fields.get("x-a").is_none() && fields.get("keep-alive").is_none());
        prop_assert_eq!(fields.get("x-new"), Some(&b"v"[..]));
        prop_assert_eq!(fields.values("x-request-id").count(), head.view(&raw).fields().values("x-request-id").count().max(1));
        let mut twice = Vec::new();
        write_request(view, &rewrite, &mut twice);
        prop_assert_eq!(String::from_utf8_lossy(&once), String::from_utf8_lossy(&twice));
    }

    #[test]
    fn a_forwarded_response_is_valid_and_final(raw in forwardable(status_lines())) {
        let mut head = ResponseHead::new();
        if head.scan(&raw) != Ok(Scan::Complete) {
            return Ok(());
        }
        let rewrite = ResponseRewrite::default();
        let mut once = Vec::new();
        write_response(head.view(&raw), &rewrite, &mut once);
        let second = response(&once).expect("what we send is valid");
        prop_assert_eq!(second.status(), head.status());
        prop_assert_eq!(second.framing(Method::Get), head.framing(Method::Get));
        let mut twice = Vec::new();
        write_response(second.view(&once), &rewrite, &mut twice);
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn any_chunking_in_any_pieces_carries_its_payload(
        chunks in vec((vec(any::<u8>(), 1..50), "(;[a-z]{0,5})?"), 0..20),
        trailer in "(X-[A-Z]: [a-z]{0,9}\r\n)?",
        rest in vec(any::<u8>(), 0..20),
        at in vec(any::<Index>(), 0..12),
    ) {
        let (mut plain, mut canonical, mut input) = (Vec::new(), Vec::new(), Vec::new());
        for (data, extension) in &chunks {
            plain.extend_from_slice(data);
            let mut buffer = [0; 18];
            let line = chunk_head(data.len(), &mut buffer);
            canonical.extend([line, data, CHUNK_END].concat());
            input.extend([&line[..line.len() - 2], extension.as_bytes(), CHUNK_END, data, CHUNK_END].concat());
        }
        let end = [&LAST_CHUNK[..3], trailer.as_bytes(), CHUNK_END].concat();
        canonical.extend_from_slice(&end);
        input.extend_from_slice(&end);
        input.extend_from_slice(&rest);
        let pieces = pieces(&input, &at);
        let relayed = feed(Framing::Chunked, Mode::Relay, pieces.iter().copied()).expect("valid");
        prop_assert_eq!(&relayed.forwarded, &canonical);
        prop_assert_eq!(&relayed.rest, &rest);
        prop_assert!(relayed.done);
        let payload = feed(Framing::Chunked, Mode::Payload, pieces).expect("valid");
        prop_assert!(payload.done);
        prop_assert_eq!(&payload.forwarded, &plain);
        prop_assert_eq!(&payload.rest, &rest);
    }

    #[test]
    fn a_chunked_body_read_in_pieces_is_the_same_or_fails_the_same(
        input in "([0-9a-f]{1,2}( ?;[a-z]*)?\r\n[ -~]{0,20}\r\n|[0-9a-fG;\r\n ]{0,6}){0,8}(0\r\n(A ?: b\r\n)?\r\n)?",
        at in vec(any::<Index>(), 0..8),
    ) {
        for mode in [Mode::Relay, Mode::Payload] {
            let whole = feed(Framing::Chunked, mode, [input.as_bytes()]);
            let split = feed(Framing::Chunked, mode, pieces(input.as_bytes(), &at));
            prop_assert_eq!(whole, split);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), text in "[ -~\r\n\t]{0,200}") {
        for input in [&bytes[..], text.as_bytes()] {
            for at in 0..input.len().min(3) {
                let (mut request, mut response) = (RequestHead::new(), ResponseHead::new());
                let mut chunks = ChunkedDecoder::new();
                // A caller that goes on after an error, or passes other bytes, gets nonsense, no panic.
                for part in [&input[at..], input, &input[..at]] {
                    let _ = (request.scan(part), response.scan(part));
                    let _ = (chunks.relay(part), chunks.data(part));
                    let _ = (request.view(part).target(), request.view(part).authority());
                    let _ = request.view(part).path();
                    let mut out = Vec::new();
                    write_request(request.view(part), &RequestRewrite::default(), &mut out);
                    let path = RequestRewrite { path: Some("/p"), ..RequestRewrite::default() };
                    write_request(request.view(part), &path, &mut out);
                    write_response(response.view(part), &ResponseRewrite::default(), &mut out);
                }
            }
            let _ = detect(input);
            for kind in ResourceType::ALL {
                let _ = decode(kind.type_url(), "x", input);
            }
        }
    }

    #[test]
    fn what_is_detected_as_http1_scans_as_http1(
        line in "(GET|POST|OPTIONS|CONNECT|PRI|A-B_9) (/[!-~]{0,9}|\\*|[a-z]{1,5}(://|:)[a-z0-9@:]{0,5}/?) HTTP/1\\.[01]\r\n",
    ) {
        let raw = format!("{line}\r\n");
        let mut head = RequestHead::new();
        let scans = head.scan(raw.as_bytes()).is_ok();
        prop_assert_eq!(detect(line.as_bytes()) == Detected::Http1, scans, "{:?}", line);
    }

    #[test]
    fn a_verdict_never_changes_with_more_bytes(bytes in vec(any::<u8>(), 1..60), text in "(GET|PRI|[A-Z]{1,5}) [ -~]{0,20}\r\n[ -~]{0,9}") {
        for input in [&bytes[..], text.as_bytes()] {
            let mut detector = Detector::new();
            let verdicts: Vec<_> = (1..=input.len()).map(|len| detector.look(&input[..len])).collect();
            let decided = verdicts.iter().position(|v| *v != Detected::NeedMore).unwrap_or(verdicts.len());
            prop_assert!(verdicts[decided..].windows(2).all(|pair| pair[0] == pair[1]), "{verdicts:?}");
        }
    }
}
