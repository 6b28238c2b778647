//! Heads as they are forwarded.

use heddle_wire::http1::{
    BodyRewrite, Connection, Edit, RequestRewrite, ResponseRewrite, Version, write_request,
    write_response,
};

use crate::support::{request, response};

fn request_as(raw: &str, rewrite: RequestRewrite<'_>) -> String {
    let head = request(raw.as_bytes()).expect("a valid head");
    let mut out = b"before".to_vec();
    write_request(head.view(raw.as_bytes()), &rewrite, &mut out);
    String::from_utf8(out).expect("text").strip_prefix("before").expect("appended").to_owned()
}

fn response_as(raw: &str, rewrite: ResponseRewrite<'_>) -> String {
    let head = response(raw.as_bytes()).expect("a valid head");
    let mut out = Vec::new();
    write_response(head.view(raw.as_bytes()), &rewrite, &mut out);
    String::from_utf8(out).expect("text")
}

fn plain_request(fields: &str) -> String {
    let raw = format!("GET /x HTTP/1.1\r\n{fields}\r\n");
    let out = request_as(&raw, RequestRewrite::default());
    let fields = out.strip_prefix("GET /x HTTP/1.1\r\n").expect("the line stays");
    fields.strip_suffix("\r\n").expect("a blank line ends it").to_owned()
}

#[test]
fn without_a_reason_nothing_changes() {
    for raw in [
        "GET /x HTTP/1.1\r\n\r\n",
        "GET /x HTTP/1.1\r\nhOsT:a\r\nx-A:\t b \r\nX-a:\r\nAccept: */*\r\nConnection: Keep-Alive\r\n\r\n",
        "POST http://h/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\nTE: trailers\r\n\r\n",
    ] {
        assert_eq!(request_as(raw, RequestRewrite::default()), raw);
    }
    for raw in [
        "HTTP/1.1 200 Fine\r\nServer:x\r\nContent-Length: 5\r\nconnection: keep-alive\r\n\r\n",
        "HTTP/1.1 304\r\nContent-Length: 5\r\n\r\n",
    ] {
        assert_eq!(response_as(raw, ResponseRewrite::default()), raw);
    }
}

#[test]
fn around_values_that_frame_or_route_only_one_blank_goes_on() {
    let cases = [
        ("Host:  h\t ", "Host: h"),
        ("Host:\th", "Host: h"),
        ("Content-Length:   5 ", "Content-Length: 5"),
        ("Transfer-Encoding: chunked\t", "Transfer-Encoding: chunked"),
    ];
    for (field, expected) in cases {
        let out = request_as(
            &format!("POST / HTTP/1.1\r\n{field}\r\nA: b\r\n\r\n"),
            RequestRewrite::default(),
        );
        assert_eq!(out, format!("POST / HTTP/1.1\r\n{expected}\r\nA: b\r\n\r\n"));
    }
}

#[test]
fn a_path_is_replaced_in_its_place() {
    let cases = [
        ("GET /a/../b HTTP/1.1", "GET /new HTTP/1.1"),
        ("GET /a?/../b?c HTTP/1.1", "GET /new?/../b?c HTTP/1.1"),
        ("GET /a?b#c?d HTTP/1.0", "GET /new?b HTTP/1.1"),
        ("GET /#?b#c HTTP/1.1", "GET /new HTTP/1.1"),
        ("GET http://h:1/a?b#c HTTP/1.1", "GET http://h:1/new?b HTTP/1.1"),
        ("GET http://h?b HTTP/1.1", "GET http://h/new?b HTTP/1.1"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("CONNECT h:1 HTTP/1.1", "CONNECT h:1 HTTP/1.1"),
    ];
    for (line, expected) in cases {
        let rewrite = RequestRewrite { path: Some("/new"), ..RequestRewrite::default() };
        let out = request_as(&format!("{line}\r\nHost: h\r\nA:  b\r\n\r\n"), rewrite);
        let fields = out.strip_prefix(expected).unwrap_or_else(|| panic!("{line}: {out}"));
        assert!(fields.ends_with("\r\nA:  b\r\n\r\n"), "{out}");
    }
}

#[test]
fn fields_of_one_hop_do_not_pass() {
    let cases = [
        ("Connection: close\r\nA: b\r\n", "A: b\r\n"),
        ("A: b\r\nKeep-Alive: timeout=5\r\nC: d\r\n", "A: b\r\nC: d\r\n"),
        ("Proxy-Connection: keep-alive\r\n", ""),
        ("Connection: x-secret, keep-alive\r\nX-Secret: 1\r\nx-secret: 2\r\nY: 3\r\n", "Y: 3\r\n"),
        ("Connection: a\r\nConnection: b\r\nA: 1\r\nB: 2\r\nC: 3\r\n", "C: 3\r\n"),
        ("Upgrade: websocket\r\n", ""),
        ("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n", ""),
        ("TE: gzip\r\n", ""),
        ("TE: gzip, trailers\r\nTE: deflate\r\n", "TE: trailers\r\n"),
        ("TE: trailers\r\nConnection: TE\r\n", "TE: trailers\r\nConnection: TE\r\n"),
        ("TE: trailers\r\nConnection: TE, close\r\n", "TE: trailers\r\nConnection: te\r\n"),
        ("Content-Length: 0\r\nContent-Length: 0\r\n", "Content-Length: 0\r\n"),
    ];
    for (before, after) in cases {
        assert_eq!(plain_request(before), after, "{before:?}");
    }
}

#[test]
fn what_delimits_or_routes_a_message_cannot_be_nominated_away() {
    let fields =
        "Connection: host, content-length, transfer-encoding\r\nHost: h\r\nContent-Length: 5\r\n";
    assert_eq!(plain_request(fields), "Host: h\r\nContent-Length: 5\r\n");
}

#[test]
fn an_upgrade_passes_with_its_nomination() {
    let fields =
        "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: k\r\n";
    assert_eq!(plain_request(fields), fields);
    let fields = "Upgrade: websocket\r\nConnection: Upgrade, Sec-X\r\nSec-X: k\r\n";
    assert_eq!(plain_request(fields), "Upgrade: websocket\r\nConnection: upgrade\r\n");
    let raw = "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX: y\r\n\r\n";
    assert_eq!(response_as(raw, ResponseRewrite::default()), raw);
    let raw = "HTTP/1.1 200 OK\r\nUpgrade: h2\r\nConnection: Upgrade\r\n\r\n";
    assert_eq!(response_as(raw, ResponseRewrite::default()), "HTTP/1.1 200 OK\r\n\r\n");
}

#[test]
fn edits_replace_default_add_and_remove() {
    let raw = "GET / HTTP/1.1\r\nX-One: 1\r\nA: b\r\nx-one: 2\r\nX-Gone: 3\r\nX-Here:\r\n\r\n";
    let edits = [
        Edit::Set("x-one", "new"),
        Edit::Set("x-two", "two"),
        Edit::Remove("x-gone"),
        Edit::Default("x-here", "unused"),
        Edit::Default("x-three", "three"),
        Edit::Add("a", "c\r\nevil: 1"),
    ];
    let out = request_as(raw, RequestRewrite { edits: &edits, ..RequestRewrite::default() });
    assert_eq!(
        out,
        "GET / HTTP/1.1\r\nX-One: new\r\nA: b\r\nX-Here:\r\nx-two: two\r\nx-three: three\r\n\
         a: c  evil: 1\r\n\r\n"
    );
}

#[test]
fn an_empty_value_can_be_replaced() {
    let set = [Edit::Set("x", "y")];
    for (before, after) in
        [("X:", "X: y"), ("X: ", "X: y"), ("X:\t ", "X: y"), ("X:z ", "X: y"), ("X: z", "X: y")]
    {
        let raw = format!("GET / HTTP/1.1\r\n{before}\r\nB: c\r\n\r\n");
        let out = request_as(&raw, RequestRewrite { edits: &set, ..RequestRewrite::default() });
        assert_eq!(out, format!("GET / HTTP/1.1\r\n{after}\r\nB: c\r\n\r\n"));
    }
}

#[test]
fn nominating_a_field_the_mesh_sets_does_not_remove_it() {
    let raw = "GET / HTTP/1.1\r\nConnection: x-request-id\r\nX-Request-Id: 1\r\n\r\n";
    let edits = [Edit::Default("x-request-id", "2")];
    let out = request_as(raw, RequestRewrite { edits: &edits, ..RequestRewrite::default() });
    assert_eq!(out, "GET / HTTP/1.1\r\nX-Request-Id: 1\r\n\r\n");
}

#[test]
fn requests_go_out_as_http11_with_a_host() {
    let rewrite = RequestRewrite { default_host: "reviews:9080", ..RequestRewrite::default() };
    assert_eq!(
        request_as("GET / HTTP/1.0\r\nA: b\r\n\r\n", rewrite),
        "GET / HTTP/1.1\r\nA: b\r\nhost: reviews:9080\r\n\r\n"
    );
    assert_eq!(
        request_as("GET / HTTP/1.0\r\nHost: own\r\nConnection: keep-alive\r\n\r\n", rewrite),
        "GET / HTTP/1.1\r\nHost: own\r\nConnection: keep-alive\r\n\r\n"
    );
    assert_eq!(request_as("GET / HTTP/1.1\r\n\r\n", rewrite), "GET / HTTP/1.1\r\n\r\n");
    assert_eq!(request_as("\r\nGET / HTTP/1.1\r\n\r\n", rewrite), "GET / HTTP/1.1\r\n\r\n");
}

#[test]
fn an_absolute_target_stays_and_host_agrees_with_it() {
    let target = "GET http://a:81/x HTTP/1.1\r\n";
    for (before, after) in [
        ("Host: a:81\r\nB: c\r\n", "Host: a:81\r\nB: c\r\n"),
        ("Host: other\r\nB: c\r\n", "Host: a:81\r\nB: c\r\n"),
        ("B: c\r\n", "B: c\r\nhost: a:81\r\n"),
    ] {
        let out = request_as(&format!("{target}{before}\r\n"), RequestRewrite::default());
        assert_eq!(out, format!("{target}{after}\r\n"));
    }
}

#[test]
fn closing_is_said_whatever_was_there() {
    let closing = RequestRewrite { connection: Connection::Close, ..RequestRewrite::default() };
    for (before, after) in [
        ("A: b\r\n", "A: b\r\nconnection: close\r\n"),
        ("Connection: keep-alive\r\nA: b\r\n", "Connection: close\r\nA: b\r\n"),
        ("Connection: close\r\nA: b\r\n", "Connection: close\r\nA: b\r\n"),
        ("Connection: x\r\nX: y\r\n", "Connection: close\r\n"),
    ] {
        let out = request_as(&format!("GET / HTTP/1.1\r\n{before}\r\n"), closing);
        assert_eq!(out, format!("GET / HTTP/1.1\r\n{after}\r\n"));
    }
}

#[test]
fn the_servers_connection_is_not_the_clients() {
    let raw = "HTTP/1.0 200 OK\r\nConnection: close\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(
        response_as(raw, ResponseRewrite::default()),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    );
    let to_http10 = ResponseRewrite { client: Version::Http10, ..ResponseRewrite::default() };
    assert_eq!(
        response_as(raw, to_http10),
        "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n"
    );
    let closing = ResponseRewrite { connection: Connection::Close, ..ResponseRewrite::default() };
    assert_eq!(
        response_as("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", closing),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(
        response_as("HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", closing),
        "HTTP/1.1 103 Early\r\nLink: x\r\n\r\n",
        "an interim response says nothing about the connection"
    );
}

#[test]
fn bodies_are_reframed_in_the_head_too() {
    let until_close = ResponseRewrite {
        body: BodyRewrite::UntilClose,
        connection: Connection::Close,
        client: Version::Http10,
        ..ResponseRewrite::default()
    };
    assert_eq!(
        response_as("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n", until_close),
        "HTTP/1.1 200 OK\r\nA: b\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(
        response_as(
            "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n",
            ResponseRewrite::default()
        ),
        "HTTP/1.1 204 No\r\n\r\n",
        "a response that has no body must not announce one"
    );
}
