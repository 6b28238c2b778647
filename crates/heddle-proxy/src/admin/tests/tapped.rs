//! Live calls over real connections: who is served, and until when.

use heddle_runtime::path_socket;
use heddle_wire::local::tap_api::TappedCall;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::*;
use crate::{
    direction::Direction,
    facts::{Ends, Facts, Finish, Wanted},
    observers::Parties,
};

/// A request of nothing but a status is over.
fn over(shared: &Shared, status: u16) {
    let called = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
    let ends = Ends { remote: None, called };
    let wanted = Wanted { plan: None, taps: shared.taps.of(Direction::Inbound) };
    let finish = Finish { status, ..Finish::default() };
    let facts = Facts { finish, ..Facts::of(wanted, Direction::Inbound, ends, clock::now()) };
    let service = ServiceLabels::passthrough(None);
    shared.told(&facts, &Parties { peer: Some(None), service: &service });
}

async fn attached(shared: &Shared, count: usize) {
    while shared.taps.count() != count {
        clock::sleep(Duration::from_millis(5)).await;
    }
}

fn call(line: &str) -> TappedCall {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    serde_json::from_value(value["call"].clone()).unwrap()
}

#[test]
fn calls_come_line_by_line_until_the_reader_has_gone() {
    run_local(async {
        let dir = Folder::new("admin");
        let shared = shared(&dir);
        let socket = dir.join("admin.sock");
        AdminSocket::bind(&socket).unwrap().serve(&shared).unwrap();
        let mut stream = BufReader::new(path_socket::connect(&socket).await.unwrap());
        let ask = b"GET /tap?status=5xx HTTP/1.1\r\nHost: x\r\nx-heddle-tap: 1\r\n\r\n";
        stream.write_all(ask).await.unwrap();
        attached(&shared, 1).await;
        over(&shared, 200);
        over(&shared, 503);
        let mut text = String::new();
        while !text.contains("\"call\"") {
            assert!(stream.read_line(&mut text).await.unwrap() > 0, "{text}");
        }
        assert!(
            text.starts_with("HTTP/1.1 200") && text.contains("application/x-ndjson"),
            "{text}"
        );
        let line = text.lines().find(|line| line.contains("\"call\"")).unwrap();
        assert_eq!(call(line).status, 503);
        drop(stream);
        attached(&shared, 0).await;
    })
    .unwrap();
}

#[test]
fn who_does_not_say_so_or_asks_for_what_cannot_be_is_told_what_would_be_right() {
    run_local(async {
        let dir = Folder::new("admin");
        let shared = shared(&dir);
        let address = served(&shared, Face::Admin);
        let text = get(address, "/tap").await;
        assert!(text.starts_with("HTTP/1.1 403") && text.contains("x-heddle-tap: 1"), "{text}");
        let ask = |query: &str| {
            let head = "Host: x\r\nx-heddle-tap: 1\r\nConnection: close";
            let request = format!("GET /tap?{query} HTTP/1.1\r\n{head}\r\n\r\n");
            async move { exchange(address, request.as_bytes()).await }
        };
        let text = ask("status=6xx").await;
        assert!(text.starts_with("HTTP/1.1 400") && text.contains("status: `6xx` is no"), "{text}");
        let text = ask("filter=nothing").await;
        assert!(text.starts_with("HTTP/1.1 400") && text.contains("filter: "), "{text}");
        let all: Vec<_> = (0..crate::limits::TAPS)
            .map(|_| shared.taps.attach(TapFilter::default()).unwrap())
            .collect();
        assert!(ask("").await.starts_with("HTTP/1.1 429"));
        drop(all);
        for face in [Face::Health, Face::Metrics, Face::Merged] {
            let other = served(&shared, face);
            let request =
                b"GET /tap HTTP/1.1\r\nHost: x\r\nx-heddle-tap: 1\r\nConnection: close\r\n\r\n";
            assert!(exchange(other, request).await.starts_with("HTTP/1.1 404"), "{face:?}");
        }
    })
    .unwrap();
}
