//! First bytes and what they are.

use heddle_wire::{
    detect::{Detected, Detector, detect},
    http1::HEAD_BYTES_MAX,
};

/// The verdict, reached byte by byte; it must be the one about all bytes at once, and must come with
/// the byte that settles it.
fn verdict(bytes: &[u8]) -> Detected {
    let mut detector = Detector::new();
    let stepwise = (0..=bytes.len())
        .map(|len| detector.look(&bytes[..len]))
        .find(|&verdict| verdict != Detected::NeedMore)
        .unwrap_or(Detected::NeedMore);
    assert_eq!(stepwise, detect(bytes), "{:?}", String::from_utf8_lossy(bytes));
    stepwise
}

#[test]
fn complete_request_lines_are_http1() {
    for line in [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\nHost: h\r\n",
        "POST /a?b=c%20d#e HTTP/1.1\r\n",
        "OPTIONS * HTTP/1.1\r\n",
        "CONNECT example.com:443 HTTP/1.1\r\n",
        "CONNECT [::1]:443 HTTP/1.1\r\n",
        "GET http://h/x HTTP/1.1\r\n",
        "PRI /x HTTP/1.1\r\n",
    ] {
        assert_eq!(verdict(line.as_bytes()), Detected::Http1, "{line:?}");
        for len in 0..line.find('\n').unwrap() {
            assert_eq!(detect(&line.as_bytes()[..len]), Detected::NeedMore, "{:?}", &line[..len]);
        }
    }
}

#[test]
fn a_line_with_another_method_is_http1_when_it_comes_whole_and_tcp_when_it_does_not() {
    for line in [
        "PURGE /a HTTP/1.1\r\n",
        "BAN / HTTP/1.1\r\nHost: h\r\n",
        "FROBNICATE http://h/x HTTP/1.0\r\n",
        "M-SEARCH / HTTP/1.1\r\n",
        "PRINT / HTTP/1.1\r\n",
        "GETS / HTTP/1.1\r\n",
    ] {
        assert_eq!(detect(line.as_bytes()), Detected::Http1, "{line:?}");
        // What begins a registered method too (`P`, `PR`, `G`) may go on as another one.
        let first =
            (1..line.len()).find(|len| detect(&line.as_bytes()[..*len]) != Detected::NeedMore);
        let first = first.expect("a verdict");
        for len in first..=line.find('\n').unwrap() {
            let mut detector = Detector::new();
            assert_eq!(detector.look(&line.as_bytes()[..len]), Detected::Tcp, "{:?}", &line[..len]);
            assert_eq!(detector.look(line.as_bytes()), Detected::Tcp, "it stays so: {line:?}");
        }
    }
}

#[test]
fn a_registered_method_other_than_https_own_is_waited_for_once_its_name_is_there() {
    for method in ["ACL", "PROPFIND", "VERSION-CONTROL", "QUERY", "UPDATEREDIRECTREF"] {
        let line = format!("{method} / HTTP/1.1\r\n");
        for len in method.len() + 1..line.find('\n').unwrap() {
            assert_eq!(detect(&line.as_bytes()[..len]), Detected::NeedMore, "{:?}", &line[..len]);
        }
        assert_eq!(detect(line.as_bytes()), Detected::Http1);
        assert_eq!(detect(method.as_bytes()), Detected::Tcp);
    }
}

#[test]
fn a_word_that_begins_no_request_is_waited_for_by_nobody() {
    for word in [
        "HZC",
        "PING",
        "PING\r\n",
        "A",
        "HELLO WORLD",
        "HELLO",
        "QUIT",
        "EHLO",
        "STATS",
        "NICK",
        "USER",
        "LOGIN",
        "GETX",
        "SSH",
        "INFO",
        "B",
        "M",
        "ECHO /",
        "A /",
        "STATUS http",
        "X-Y_9",
    ] {
        assert_eq!(verdict(word.as_bytes()), Detected::Tcp, "{word:?}");
    }
    // These go on as requests that clients send in pieces.
    for beginning in ["G", "GE", "GET", "GET ", "POST /a", "H", "D", "PRI", "LOCK /x HTTP/1"] {
        assert_eq!(detect(beginning.as_bytes()), Detected::NeedMore, "{beginning:?}");
    }
}

#[test]
fn other_protocols_are_tcp_with_the_byte_that_shows_it() {
    // Input, and how many of its bytes are needed.
    let cases: [(&[u8], usize); 25] = [
        (b"*1\r\n$4\r\nPING\r\n", 1),             // Redis
        (b"PING\r\n", 2),                         // Redis inline
        (b"GET key\r\n", 8),                      // Redis inline
        (b"SET a b\r\n", 1),                      // Redis inline
        (b"HZC", 2),                              // Hazelcast
        (b"get key\r\n", 1),                      // memcached
        (b"\0\0\0\x08\x04\xd2\x16\x2f", 1),       // PostgreSQL SSLRequest
        (b":\0\0\0\x01\0\0\0", 1),                // MongoDB
        (b"A\0\0\0\x01\0\0\0", 1),                // MongoDB
        (b"AMQP\0\0\x09\x01", 1),                 // AMQP
        (b"\x10\x10\0\x04MQTT", 1),               // MQTT
        (b"SSH-2.0-OpenSSH_9\r\n", 1),            // SSH
        (b"CONNECT {\"verbose\":false}\r\n", 9),  // NATS
        (b"CONNECT\naccept-version:1.2\n", 8),    // STOMP
        (b"PROXY TCP4 192.0.2.1", 3),             // PROXY protocol
        (b"OPTIONS rtsp://h/x RTSP/1.0\r\n", 20), // RTSP
        (b"INVITE sip:bob@h SIP/2.0\r\n", 1),     // SIP
        (b"USER a 0 * :real\r\n", 1),             // IRC
        (b"\r\nGET / HTTP/1.1\r\n", 1),
        (b"GET / HTTP/1.1\n", 15),
        (b"GET / HTTP/1.2\r\n", 14),
        (b"GET /\r\n", 6),
        (b"GET /\x01", 6),
        (b"GET * HTTP/1.1\r\n", 16),
        (b"CONNECT h HTTP/1.1\r\n", 20),
    ];
    for (bytes, needed) in cases {
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(verdict(bytes), Detected::Tcp, "{text:?}");
        assert_eq!(detect(&bytes[..needed]), Detected::Tcp, "{text:?}");
        assert_eq!(detect(&bytes[..needed - 1]), Detected::NeedMore, "{text:?}");
    }
}

#[test]
fn the_http2_preface_is_told_from_requests() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert_eq!(verdict(preface), Detected::Http2Preface);
    for len in 0..preface.len() {
        assert_eq!(detect(&preface[..len]), Detected::NeedMore, "{len}");
        let mut wrong = preface[..=len].to_vec();
        wrong[len] = b'\x01';
        assert_eq!(verdict(&wrong), Detected::Tcp, "{len}");
    }
}

#[test]
fn a_tls_client_hello_is_recognised_by_its_record() {
    assert_eq!(verdict(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), Detected::Tls);
    assert_eq!(verdict(b"\x16\x03\x03\x00\x2f\x01"), Detected::Tls);
    assert_eq!(verdict(b"\x16\x03\x01\x02\x00"), Detected::NeedMore);
    for other in [
        &b"\x16\x02"[..],
        b"\x16\x03\x05",
        b"\x16\x03\x01\x41",
        b"\x16\x03\x01\x02\x00\x02",
        b"\x15\x03",
    ] {
        assert_eq!(verdict(other), Detected::Tcp, "{other:?}");
    }
}

#[test]
fn nothing_said_is_nothing_decided() {
    assert_eq!(detect(b""), Detected::NeedMore);
}

#[test]
fn an_endless_request_line_is_tcp_at_the_size_of_a_head() {
    let line = [b"GET /".to_vec(), vec![b'x'; HEAD_BYTES_MAX]].concat();
    assert_eq!(detect(&line[..HEAD_BYTES_MAX - 1]), Detected::NeedMore);
    assert_eq!(detect(&line), Detected::Tcp);
    let method = [[b'A'; 40].as_slice(), b" / HTTP/1.1\r\n"].concat();
    assert_eq!(detect(&method[8..]), Detected::Http1);
    assert_eq!(detect(&method), Detected::Tcp);
}
