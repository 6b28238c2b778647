//! Nobody to connect to: how soon a client is told.

use std::net::{IpAddr, SocketAddr};

use heddle_model::Protocol;
use heddle_proxy::limits::REFUSAL_GRACE;
use heddle_runtime::clock;
use heddle_testkit::resources::PORT;
use hickory_proto::{
    op::{Message, OpCode},
    rr::{Name, RData, Record, rdata::A},
};

use crate::mesh::{GET, Mesh, address, answers, since, with_standing_clock};

/// A mesh in which nobody declared what `reviews` speaks, and nobody serves it.
fn deserted() -> Mesh {
    let mesh = Mesh::speaking(Protocol::Undeclared, &[20], answers);
    mesh.desert(20);
    mesh
}

#[test]
fn a_silent_client_of_a_port_where_nobody_listens_is_reset_at_once() {
    with_standing_clock(|| async {
        let (took, how) = deserted().call().ended().await;
        assert!(took < 2 * REFUSAL_GRACE, "{took:?}");
        assert!(how.is_err(), "a reset");
    });
}

#[test]
fn so_is_one_that_sends_no_more_than_a_beginning() {
    with_standing_clock(|| async {
        for beginning in ["GET / HT", "PING"] {
            let mesh = deserted();
            let mut end = mesh.call();
            end.send(beginning).await;
            let (took, how) = end.ended().await;
            assert!(took <= 2 * REFUSAL_GRACE && how.is_err(), "{beginning} {took:?}");
        }
    });
}

#[test]
fn a_request_that_follows_its_connect_is_answered_with_the_reason() {
    with_standing_clock(|| async {
        let mesh = deserted();
        let begun = clock::now();
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("connect-failed"), "{head}");
        assert!(since(begun) <= REFUSAL_GRACE, "{:?}", since(begun));
    });
}

#[test]
fn where_an_address_outside_refuses_the_others_of_its_name_are_tried() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(answers);
        let refuses = IpAddr::from([192, 0, 2, 1]);
        let outside = SocketAddr::new(refuses, PORT);
        let (head, body) = mesh.client.call(outside).ask(GET).await;
        assert!(head.contains("outside-unreachable") && body.contains("192.0.2.1"), "{head}{body}");
        // What the name's other addresses stand for here is anybody who accepts.
        let mut reply = Message::response(1, OpCode::Query);
        for ip in [refuses, IpAddr::from([192, 0, 2, 2]), address(20)] {
            let IpAddr::V4(ip) = ip else { continue };
            let name = Name::from_ascii("db.example.").unwrap();
            reply.add_answer(Record::from_rdata(name, 5, RData::A(A(ip))));
        }
        mesh.client.shared.outside_names.note("db.example", &reply.to_vec().unwrap());
        let (head, _) = mesh.client.call(outside).ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    });
}
