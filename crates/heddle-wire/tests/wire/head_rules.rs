//! Every rule about heads, as tables.

use heddle_wire::http1::{
    BodyRewrite, FIELDS_MAX, Framing, HEAD_BYTES_MAX, HeadError, KnownHeader, Method, RequestHead,
    ResponseHead, Scan, TargetForm, Version,
};

use crate::support::{request, response};

#[test]
fn a_request_head_gives_its_parts() {
    let raw =
        b"POST /a/b?c=d HTTP/1.1\r\nHost: reviews:9080\r\nX-User:\t jason \r\nx-user: two\r\n\
        Content-Length: 5\r\nEmpty:\r\nExpect: 100-continue\r\n\r\nhello";
    let head = request(raw).unwrap();
    let view = head.view(raw);
    assert_eq!(head.len(), raw.len() - 5);
    assert_eq!((head.method(), view.method()), (Method::Post, "POST"));
    assert_eq!(head.version(), Version::Http11);
    assert_eq!(head.target_form(), TargetForm::Origin);
    assert_eq!(view.target(), "/a/b?c=d");
    assert_eq!(view.path(), b"/a/b");
    assert_eq!(view.authority(), "reviews:9080");
    assert_eq!(view.scheme(), "http");
    assert_eq!(head.framing(), Framing::Length(5));
    assert!(head.persistent());
    assert!(view.upgrade().is_none());
    let fields = view.fields();
    assert_eq!(fields.known(KnownHeader::Expect), Some(&b"100-continue"[..]));
    assert_eq!(fields.count(), 6);
    assert_eq!(fields.get("X-USER"), Some(&b"jason"[..]));
    assert_eq!(fields.values("x-user").collect::<Vec<_>>(), [&b"jason"[..], b"two"]);
    assert_eq!(fields.values("empty").collect::<Vec<_>>(), [b""]);
    assert_eq!(fields.values("absent").count(), 0);
    assert_eq!(fields.known(KnownHeader::ContentLength), Some(&b"5"[..]));
    assert_eq!(fields.iter().next(), Some((&b"Host"[..], &b"reviews:9080"[..])));
}

#[test]
fn every_known_field_is_recognised_whatever_its_case() {
    let known = [
        ("Host", KnownHeader::Host),
        ("CONTENT-length", KnownHeader::ContentLength),
        ("connection", KnownHeader::Connection),
        ("Upgrade", KnownHeader::Upgrade),
        ("EXPECT", KnownHeader::Expect),
        ("te", KnownHeader::Te),
        ("Idempotency-Key", KnownHeader::IdempotencyKey),
        ("X-Request-ID", KnownHeader::XRequestId),
        ("Keep-Alive", KnownHeader::KeepAlive),
        ("content-Type", KnownHeader::ContentType),
        ("Proxy-Connection", KnownHeader::ProxyConnection),
        ("Trailer", KnownHeader::Trailer),
        ("Authorization", KnownHeader::Authorization),
        ("proxy-authorization", KnownHeader::ProxyAuthorization),
        ("WWW-Authenticate", KnownHeader::WwwAuthenticate),
        ("Proxy-authenticate", KnownHeader::ProxyAuthenticate),
    ];
    for (name, kind) in known {
        let raw = format!("GET / HTTP/1.1\r\n{name}: 7\r\n\r\n").into_bytes();
        let head = request(&raw).unwrap();
        assert_eq!(head.view(&raw).fields().known(kind), Some(&b"7"[..]), "{name}");
        let other = format!("GET / HTTP/1.1\r\n{name}x: 7\r\n\r\n").into_bytes();
        let head = request(&other).unwrap();
        assert_eq!(head.view(&other).fields().known(kind), None, "{name}x");
    }
}

#[test]
fn targets_are_seen_in_origin_form() {
    let cases: [(&str, TargetForm, &str, &str, &str); 9] = [
        ("GET /x?y", TargetForm::Origin, "/x?y", "/x", "h"),
        ("GET /", TargetForm::Origin, "/", "/", "h"),
        ("GET http://a:81/x?y", TargetForm::Absolute, "/x?y", "/x", "a:81"),
        ("GET http://a", TargetForm::Absolute, "/", "/", "a"),
        ("GET http://a?y", TargetForm::Absolute, "/?y", "/", "a"),
        ("GET HTTPS://[::1]/", TargetForm::Absolute, "/", "/", "[::1]"),
        ("OPTIONS *", TargetForm::Asterisk, "*", "*", "h"),
        ("CONNECT a:443", TargetForm::Authority, "a:443", "a:443", "a:443"),
        ("GET /\u{e9}#f", TargetForm::Origin, "/\u{e9}#f", "/\u{e9}", "h"),
    ];
    for (line, form, target, path, authority) in cases {
        let raw = format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes();
        let head = request(&raw).unwrap();
        let view = head.view(&raw);
        assert_eq!(head.target_form(), form, "{line}");
        assert_eq!(view.target(), target, "{line}");
        assert_eq!(view.path(), path.as_bytes(), "{line}");
        assert_eq!(view.authority(), authority, "{line}");
    }
}

#[test]
fn bad_requests_are_refused_each_by_its_rule() {
    use HeadError::*;
    let control = |at, byte| ControlByte { at, byte };
    let cases: [(&str, HeadError); 40] = [
        ("GE(T / HTTP/1.1\r\n", BadMethod),
        (" GET / HTTP/1.1\r\n", BadMethod),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\n", BadMethod),
        ("GET\r\n", BadStartLine),
        ("GET /\r\n", BadStartLine),
        ("GET  / HTTP/1.1\r\n", BadStartLine),
        ("GET /  HTTP/1.1\r\n", BadStartLine),
        ("GET / HTTP/1.1 \r\n", BadVersion),
        ("GET / a HTTP/1.1\r\n", BadStartLine),
        ("GET /\ta HTTP/1.1\r\n", BadTarget),
        ("GET a HTTP/1.1\r\n", BadTarget),
        ("GET * HTTP/1.1\r\n", BadTarget),
        ("GET http:///x HTTP/1.1\r\n", BadTarget),
        ("GET http://u@h/ HTTP/1.1\r\n", BadTarget),
        ("GET 1http://h/ HTTP/1.1\r\n", BadTarget),
        ("CONNECT /x HTTP/1.1\r\n", BadTarget),
        ("CONNECT h HTTP/1.1\r\n", BadTarget),
        ("CONNECT h: HTTP/1.1\r\n", BadTarget),
        ("GET / HTTP/1.2\r\n", BadVersion),
        ("GET / HTTP/2.0\r\n", BadVersion),
        ("GET / HTTP/0.9\r\n", BadVersion),
        ("GET / http/1.1\r\n", BadStartLine),
        ("\r\n\r\n\r\nGET / HTTP/1.1\r\n", BadStartLine),
        ("GET / HTTP/1.1\n", LoneLf(14)),
        ("GET / HTTP/1.1\r\nA: b\n", LoneLf(20)),
        ("GET / HTTP/1.1\r\nA: b\rc\r\n", LoneCr(20)),
        ("GET / HTTP/1.1\r\r\n", LoneCr(14)),
        ("GET /\0 HTTP/1.1\r\n", control(5, 0)),
        ("GET / HTTP/1.1\r\nA: \0\r\n", control(19, 0)),
        ("GET / HTTP/1.1\r\nA: b\x0bc\r\n", control(20, 0x0b)),
        ("GET / HTTP/1.1\r\nA: \x7f\r\n", control(19, 0x7f)),
        ("GET / HTTP/1.1\r\n A: b\r\n", LineFolding),
        ("GET / HTTP/1.1\r\nA: b\r\n\tc\r\n", LineFolding),
        ("GET / HTTP/1.1\r\nA : b\r\n", SpaceBeforeColon),
        ("GET / HTTP/1.1\r\nA\t: b\r\n", SpaceBeforeColon),
        ("GET / HTTP/1.1\r\n: b\r\n", BadFieldName),
        ("GET / HTTP/1.1\r\nA b: c\r\n", BadFieldName),
        ("GET / HTTP/1.1\r\nA\r\n", BadFieldName),
        ("GET / HTTP/1.1\r\n\u{e9}: b\r\n", BadFieldName),
        ("GET / HTTP/1.1\r\n(A): b\r\n", BadFieldName),
    ];
    for (lines, error) in cases {
        let raw = format!("{lines}Host: h\r\n\r\n");
        assert_eq!(request(raw.as_bytes()).unwrap_err(), error, "{lines:?}");
    }
}

#[test]
fn a_host_is_one_and_can_be_host_and_port() {
    let with = |fields: &str| request(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes());
    assert_eq!(with("Host: a\r\nHost: a\r\n").unwrap_err(), HeadError::SeveralHosts);
    for bad in ["a b", "a/b", "a?b", "u@a", "a,b", "a\\b", "\u{e9}"] {
        assert_eq!(with(&format!("Host: {bad}\r\n")).unwrap_err(), HeadError::BadHost, "{bad}");
    }
    for good in ["", "a", "a_b:80", "[::1]:80", "nonsense!"] {
        assert!(with(&format!("Host: {good}\r\n")).is_ok(), "{good}");
    }
    assert!(with("").is_ok(), "a request to a virtual address needs no Host");
}

#[test]
fn statuses_of_errors_tell_limits_and_versions_from_the_rest() {
    assert_eq!(HeadError::TooLarge.status(), 431);
    assert_eq!(HeadError::TooManyFields.status(), 431);
    assert_ne!(HeadError::TooLarge.to_string(), HeadError::TooManyFields.to_string());
    assert_ne!(HeadError::TooLarge.code(), HeadError::TooManyFields.code());
    assert_eq!(HeadError::BadVersion.status(), 505);
    assert_eq!(HeadError::LineFolding.status(), 400);
}

#[test]
fn a_head_of_the_largest_size_passes_and_one_byte_more_does_not() {
    let around = "GET / HTTP/1.1\r\nA: \r\n\r\n".len();
    let of = |len: usize| {
        format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(len - around)).into_bytes()
    };
    let largest = of(HEAD_BYTES_MAX);
    assert_eq!(request(&largest).unwrap().len(), HEAD_BYTES_MAX);
    assert_eq!(request(&of(HEAD_BYTES_MAX + 1)).unwrap_err(), HeadError::TooLarge);
    let endless = [b"GET /".to_vec(), vec![b'x'; 1024 * 1024]].concat();
    assert_eq!(request(&endless).unwrap_err(), HeadError::TooLarge);
    let mut head = RequestHead::new();
    assert_eq!(head.scan(&endless[..HEAD_BYTES_MAX - 1]), Ok(Scan::Partial));
    let status = [b"HTTP/1.1 200 ".to_vec(), vec![b'x'; HEAD_BYTES_MAX]].concat();
    assert_eq!(response(&status).unwrap_err(), HeadError::TooLarge);
}

#[test]
fn as_many_fields_as_allowed_pass_and_one_more_does_not() {
    let fields = |n: usize| "a: b\r\n".repeat(n);
    let of = |n| format!("GET / HTTP/1.1\r\n{}\r\n", fields(n)).into_bytes();
    let most = of(FIELDS_MAX);
    let head = request(&most).unwrap();
    assert_eq!(head.view(&most).fields().values("A").count(), FIELDS_MAX);
    assert_eq!(request(&of(FIELDS_MAX + 1)).unwrap_err(), HeadError::TooManyFields);
    let answer = format!("HTTP/1.1 200 OK\r\n{}\r\n", fields(FIELDS_MAX + 1));
    assert_eq!(response(answer.as_bytes()).unwrap_err(), HeadError::TooManyFields);
}

#[test]
fn empty_lines_before_a_request_are_no_part_of_it() {
    let raw = b"\r\n\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n";
    let head = request(raw).unwrap();
    assert_eq!(head.len(), raw.len());
    assert_eq!(head.view(raw).raw(), &raw[4..]);
    assert_eq!(head.view(raw).method(), "GET");
    let mut idle = RequestHead::new();
    assert_eq!(idle.scan(b"\r\n"), Ok(Scan::Partial));
    assert!(!idle.has_begun(b"\r\n"), "only an empty line: the connection is still idle");
    assert_eq!(response(b"\r\nHTTP/1.1 200 OK\r\n\r\n").unwrap_err(), HeadError::BadStartLine);
}

#[test]
fn persistence_follows_version_and_connection() {
    let cases = [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: CLOSE\r\n", false),
        ("1.1", "Connection: x, close\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Proxy-Connection: keep-alive\r\n", false),
    ];
    for (version, fields, persistent) in cases {
        let raw = format!("GET / HTTP/{version}\r\n{fields}\r\n");
        assert_eq!(request(raw.as_bytes()).unwrap().persistent(), persistent, "{raw:?}");
        let raw = format!("HTTP/{version} 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
        let head = response(raw.as_bytes()).unwrap();
        assert_eq!(head.persistent(Method::Get), persistent, "{raw:?}");
    }
}

#[test]
fn an_upgrade_is_offered_only_where_it_is_nominated_on_http11_and_without_h2c() {
    let cases: [(&str, &str, Option<&str>); 7] = [
        ("1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", Some("websocket")),
        ("1.1", "Connection: keep-alive, upgrade\r\nUpgrade: tls/1.0\r\n", Some("tls/1.0")),
        ("1.1", "Upgrade: websocket\r\n", None),
        ("1.1", "Connection: upgrade\r\n", None),
        ("1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n", None),
        ("1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n", None),
        ("1.1", "Connection: Upgrade\r\nUpgrade: H2C, websocket\r\n", None),
    ];
    for (version, fields, offered) in cases {
        let raw = format!("GET / HTTP/{version}\r\n{fields}\r\n").into_bytes();
        let head = request(&raw).unwrap();
        assert_eq!(head.view(&raw).upgrade(), offered.map(str::as_bytes), "{fields:?}");
    }
    let raw = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(response(raw).unwrap().view(raw).upgrade(), Some(&b"websocket"[..]));
}

#[test]
fn status_lines_are_read_strictly_but_for_the_reason() {
    for (line, status) in [
        ("HTTP/1.1 200 OK", 200),
        ("HTTP/1.1 200 ", 200),
        ("HTTP/1.1 200", 200),
        ("HTTP/1.0 999 \u{e9}t\u{e9} \t x", 999),
    ] {
        assert_eq!(response(format!("{line}\r\n\r\n").as_bytes()).unwrap().status(), status);
    }
    use HeadError::*;
    for (line, error) in [
        ("HTTP/1.1 20 OK", BadStatus),
        ("HTTP/1.1 2000 OK", BadStatus),
        ("HTTP/1.1 099 OK", BadStatus),
        ("HTTP/1.1 +20 OK", BadStatus),
        ("HTTP/1.1  200 OK", BadStatus),
        ("HTTP/1.1\t200 OK", BadStartLine),
        ("HTTP/1.1", BadStartLine),
        ("HTTP/1.1 ", BadStatus),
        ("HTTP/2.0 200 OK", BadVersion),
        ("ICY 200 OK", BadStartLine),
        ("-ERR unknown command", BadStartLine),
    ] {
        let raw = format!("{line}\r\n\r\n");
        assert_eq!(response(raw.as_bytes()).unwrap_err(), error, "{line}");
    }
}

#[test]
fn a_response_is_framed_by_its_fields_its_status_and_the_requests_method() {
    use Framing::{Chunked, Length, None, UntilClose};
    let (length, chunked) = ("Content-Length: 7\r\n", "Transfer-Encoding: chunked\r\n");
    let cases = [
        (200, length, Method::Get, Length(7)),
        (200, chunked, Method::Get, Chunked),
        (200, "", Method::Get, UntilClose),
        (200, "Content-Length: 0\r\n", Method::Get, Length(0)),
        (200, length, Method::Head, None),
        (200, chunked, Method::Head, None),
        (200, "", Method::Head, None),
        (204, length, Method::Get, None),
        (204, "", Method::Get, None),
        (304, length, Method::Get, None),
        (304, "", Method::Get, None),
        (100, length, Method::Post, None),
        (103, "", Method::Get, None),
        (101, "", Method::Get, None),
        (205, "", Method::Get, UntilClose),
        (200, length, Method::Connect, None),
        (407, length, Method::Connect, Length(7)),
        (500, "", Method::Post, UntilClose),
    ];
    for (status, fields, method, framing) in cases {
        let raw = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
        let head = response(raw.as_bytes()).unwrap();
        assert_eq!(head.framing(method), framing, "{status} {fields:?} {method:?}");
        let reusable = framing != UntilClose && !head.is_tunnel(method);
        assert_eq!(head.persistent(method), reusable, "{status} {fields:?} {method:?}");
    }
}

#[test]
fn interim_responses_and_tunnels_are_told_apart() {
    for (status, method, interim, tunnel) in [
        (100, Method::Post, true, false),
        (103, Method::Get, true, false),
        (101, Method::Get, false, true),
        (200, Method::Get, false, false),
        (200, Method::Connect, false, true),
        (403, Method::Connect, false, false),
    ] {
        let raw = format!("HTTP/1.1 {status} x\r\n\r\n");
        let head = response(raw.as_bytes()).unwrap();
        assert_eq!((head.is_interim(), head.is_tunnel(method)), (interim, tunnel), "{status}");
    }
}

#[test]
fn bodies_are_reframed_only_for_the_client_that_needs_it() {
    let closed = response(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
    let chunked = response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let cases = [
        (&closed, Method::Get, Version::Http11, BodyRewrite::AsIs),
        (&closed, Method::Get, Version::Http10, BodyRewrite::AsIs),
        (&closed, Method::Head, Version::Http11, BodyRewrite::AsIs),
        (&chunked, Method::Get, Version::Http11, BodyRewrite::AsIs),
        (&chunked, Method::Get, Version::Http10, BodyRewrite::UntilClose),
    ];
    for (head, method, client, rewrite) in cases {
        assert_eq!(head.body_rewrite(method, client), rewrite, "{method:?} {client:?}");
    }
}

#[test]
fn the_announced_idle_time_is_read() {
    for (value, seconds) in [
        ("timeout=5", Some(5)),
        ("max=100, Timeout=\"72\"", Some(72)),
        ("timeout", None),
        ("timeout=x", None),
    ] {
        let raw = format!("HTTP/1.1 200 OK\r\nKeep-Alive: {value}\r\n\r\n").into_bytes();
        let head = response(&raw).unwrap();
        assert_eq!(head.view(&raw).announced_idle_seconds(), seconds, "{value}");
    }
}

#[test]
fn a_cleared_head_knows_nothing_of_the_message_before() {
    let first = b"CONNECT a:1 HTTP/1.0\r\nConnection: close\r\nContent-Length: 3\r\n\r\n";
    let second = b"GET / HTTP/1.1\r\n\r\n";
    let mut head = request(first).unwrap();
    head.clear();
    assert!(head.is_empty());
    assert_eq!(head.scan(second), Ok(Scan::Complete));
    assert_eq!((head.framing(), head.persistent()), (Framing::None, true));
    assert_eq!(head.view(second).fields().count(), 0);
    assert_eq!(head.view(second).authority(), "");
}

#[test]
fn a_response_with_one_reading_only_is_read_and_a_request_is_not() {
    let cases = [
        ("HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n", HeadError::SpaceBeforeColon),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 5\r\n\r\n", HeadError::LineFolding),
        ("HTTP/1.1  200 OK\r\nContent-Length: 5\r\n\r\n", HeadError::BadStatus),
        ("HTTP/1.1 200 OK\nContent-Length: 5\n\n", HeadError::LoneLf(15)),
        ("HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 5\n\r\n", HeadError::SpaceBeforeColon),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\n", HeadError::LoneLf(36)),
    ];
    for (raw, strictly) in cases {
        assert_eq!(response(raw.as_bytes()).unwrap_err(), strictly);
        let mut whole = raw.as_bytes().to_vec();
        let mut head = ResponseHead::new();
        assert_eq!(head.scan_normalising(&mut whole), Ok(Scan::Complete), "{raw:?}");
        let lone = raw.matches('\n').count() - raw.matches("\r\n").count();
        assert_eq!((head.status(), head.len()), (200, raw.len() + lone));
        assert_eq!(head.len(), whole.len());
        assert_eq!(head.framing(Method::Get), Framing::Length(5));
        // The same however it arrives.
        let mut pieces = Vec::new();
        let mut head = ResponseHead::new();
        for (at, byte) in raw.bytes().enumerate() {
            pieces.push(byte);
            let scan = head.scan_normalising(&mut pieces).unwrap();
            assert_eq!(scan == Scan::Complete, at + 1 == raw.len());
        }
        assert_eq!(pieces, whole);
    }
    for raw in [
        "HTTP/1.1 200 OK\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA b\r\n\r\n",
        "HTTP/1.1 200 OK\nA: b\rc\n\n",
        "HTTP/1.1 200 OK\n\rA: b\n\n",
        // Another protocol's line: nothing is waited for.
        "hello\n",
    ] {
        assert!(ResponseHead::new().scan_normalising(&mut raw.as_bytes().to_vec()).is_err());
    }
}
