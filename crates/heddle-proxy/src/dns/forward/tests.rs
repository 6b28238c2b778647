//! Up to three resolvers of the host, each with a mind of its own.

use std::{
    net::{Ipv4Addr, UdpSocket as StdUdpSocket},
    path::Path,
};

use heddle_runtime::task::{run_local, spawn_contained};
use heddle_testkit::{fixture::proxy_config, folder::Folder};
use heddle_wire::local::proxy_config::Outside;
use hickory_proto::{
    op::{Message, OpCode, Query},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use tokio::net::UdpSocket;

use super::*;
use crate::{broker::HostSocket, ranges::Ranges};

/// How a resolver behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resolver {
    /// The holder cannot reach it.
    Unreachable,
    /// Says this and nothing more.
    Says(ResponseCode),
    /// Answers with this address.
    Knows(Ipv4Addr),
    /// Answers with this address when the next one has been asked already.
    KnowsLate(Ipv4Addr),
    /// Never answers.
    Silent,
    /// Says this without the question, then answers with this address.
    FirstForged(ResponseCode, Ipv4Addr),
}

use Resolver::{FirstForged, Knows, KnowsLate, Says, Silent, Unreachable};

const FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// Code and address that a client gets where the host has these resolvers.
fn asked(resolvers: [Resolver; 3]) -> Option<(ResponseCode, Option<RData>)> {
    run_local(async {
        let folder = Folder::new("forward");
        let (broker, mut requests) = Broker::new(
            Ranges::of(&proxy_config(folder.path())),
            Outside::ThroughHolder(Path::new("mesh.sock")),
        );
        spawn_contained("holder", async move {
            while let Some(request) = requests.recv().await {
                let HostSocket::Resolver { index, .. } = request.socket else { continue };
                let refused = || BrokerError::Refused { reason: "no route".into(), errno: 113 };
                let socket = match resolvers[index] {
                    Unreachable => Err(refused()),
                    resolver => Ok(socket_to(resolver).await.into()),
                };
                drop(request.answer.send(socket));
            }
        });
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii("example.com.").unwrap(), RecordType::A));
        let bytes = query.to_vec().unwrap();
        let reply = Forwarder::new(broker).ask(&bytes, DnsTransport::Udp).await?;
        assert_eq!(reply[..2], bytes[..2]);
        let reply = Message::from_vec(&reply).unwrap();
        let address = reply.answers.first().map(|record| record.data.clone());
        Some((reply.metadata.response_code, address))
    })
    .unwrap()
}

/// A socket connected to a resolver that is made for it.
async fn socket_to(resolver: Resolver) -> StdUdpSocket {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let socket = StdUdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.local_addr().unwrap()).unwrap();
    spawn_contained("resolver", async move {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = server.recv_from(&mut buffer).await {
            if let KnowsLate(_) = resolver {
                clock::sleep(HEAD_START + HEAD_START / 4).await;
            }
            if let FirstForged(code, _) = resolver {
                let mut forged = Message::response(id_of(&buffer), OpCode::Query);
                forged.metadata.response_code = code;
                server.send_to(&forged.to_vec().unwrap(), peer).await.unwrap();
            }
            if let Some(reply) = reply_of(resolver, &buffer[..length]) {
                server.send_to(&reply, peer).await.unwrap();
            }
        }
    });
    socket
}

fn id_of(query: &[u8]) -> u16 {
    u16::from_be_bytes([query[0], query[1]])
}

fn reply_of(resolver: Resolver, query: &[u8]) -> Option<Vec<u8>> {
    let asked = Message::from_vec(query).unwrap();
    let mut reply = Message::response(asked.metadata.id, OpCode::Query);
    reply.add_query(asked.queries[0].clone());
    match resolver {
        Unreachable | Silent => return None,
        Says(code) => reply.metadata.response_code = code,
        Knows(address) | KnowsLate(address) | FirstForged(_, address) => {
            let name = asked.queries[0].name().clone();
            reply.add_answer(Record::from_rdata(name, 300, RData::A(A(address))));
        }
    }
    Some(reply.to_vec().unwrap())
}

fn found(address: Ipv4Addr) -> Option<(ResponseCode, Option<RData>)> {
    Some((ResponseCode::NoError, Some(RData::A(A(address)))))
}

#[test]
fn a_resolver_that_cannot_tell_is_followed_by_the_next() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp] {
        assert_eq!(asked([Says(code), Knows(OTHER), Silent]), found(OTHER), "{code}");
    }
}

#[test]
fn a_name_that_does_not_exist_is_an_answer() {
    let no = Some((ResponseCode::NXDomain, None));
    assert_eq!(asked([Says(ResponseCode::NXDomain), Knows(OTHER), Silent]), no);
}

#[test]
fn the_first_refusal_is_passed_on_where_no_resolver_answers_better() {
    let refused = Some((ResponseCode::Refused, None));
    let resolvers = [Says(ResponseCode::Refused), Unreachable, Says(ResponseCode::ServFail)];
    assert_eq!(asked(resolvers), refused);
    assert_eq!(asked([Unreachable; 3]), None);
}

#[test]
fn a_reply_that_does_not_repeat_the_question_is_no_reply() {
    for code in [ResponseCode::NoError, ResponseCode::NXDomain, ResponseCode::ServFail] {
        assert_eq!(asked([FirstForged(code, FIRST), Silent, Silent]), found(FIRST), "{code}");
    }
}

#[test]
fn the_third_resolver_is_asked_too() {
    assert_eq!(asked([Unreachable, Says(ResponseCode::ServFail), Knows(OTHER)]), found(OTHER));
}

#[test]
fn a_slow_resolver_may_still_answer_while_others_are_asked() {
    assert_eq!(asked([KnowsLate(FIRST), Silent, Silent]), found(FIRST));
}

#[test]
fn silent_resolvers_are_given_up_before_libc_asks_again() {
    let began = clock::now();
    let refused = Some((ResponseCode::Refused, None));
    assert_eq!(asked([Says(ResponseCode::Refused), Silent, Silent]), refused);
    assert!(clock::now().duration_since(began) < Duration::from_secs(5));
}
