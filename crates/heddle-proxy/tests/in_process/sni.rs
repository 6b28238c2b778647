//! The application's own TLS: where it goes by the name that its client asks for, unread and unchanged, and what
//! becomes of hellos that never end.

use std::{net::SocketAddr, time::Duration};

use heddle_model::{
    Destination, Protocol,
    discovery::{ANY_PORT, Provenance, SniRule, Target, WeightedTarget},
};
use heddle_proxy::limits::{CLIENT_HELLO_TIMEOUT, EARLY_DIAL_SILENCE};
use heddle_runtime::{
    clock,
    tls::{Asks, Origin},
    transport::Transport,
};
use heddle_testkit::{
    resources::{self, PORT},
    tls::{Server, asked_for},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    mesh::{End, GET, Mesh, seconds_since, with_standing_clock},
    tls::Files,
};

/// All weight to the workload with this last byte.
fn to(last: &str) -> WeightedTarget {
    let mut target = resources::target("reviews", Some(last));
    let Target::Cluster(key) = &mut target.to else { unreachable!("it names a service") };
    let subset = key.subset.as_mut().unwrap();
    subset.labels = [("last".to_owned(), last.to_owned())].into();
    target
}

fn rule(names: &[&str], targets: Vec<WeightedTarget>) -> SniRule {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    SniRule { provenance: Provenance("VirtualService/default/r#tls[0]".into()), names, targets }
}

/// `reviews` at 20, 21 and 22; all but what rules take goes to 20.
fn destination(protocol: Protocol) -> Destination {
    let mut destination = resources::destination("reviews", Vec::new());
    let port = &mut destination.ports[0];
    port.protocol = protocol;
    port.tcp = vec![to("20")];
    port.sni = vec![
        rule(&["*.example.org"], vec![to("22")]),
        rule(&["a.example.org", "b.example.org"], vec![to("21")]),
        rule(&["gone.example.org"], vec![resources::dangling("there is no such service")]),
    ];
    destination
}

/// Tells the client of TLS where it is and what it was asked for.
async fn tells(server: Server, end: End) {
    let at = end.at;
    let Ok(mut stream) = server.accept(end.transport).await else { return };
    let name = asked_for(&stream).unwrap_or_default();
    stream.write_all(format!("{at} {name}").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let _ended = stream.read_u8().await;
}

async fn says(client: Transport, files: &Files, name: &str) -> String {
    let settings = heddle_model::discovery::ClientTls { unverified: true, ..files.settings(name) };
    let tls = Origin::new(settings);
    let begun = tls.begin(client, Asks::Nothing, Duration::from_secs(60)).await;
    let mut text = String::new();
    match begun {
        Ok(mut client) => client.read_to_string(&mut text).await.map(|_| text).unwrap(),
        Err(error) => error.to_string(),
    }
}

fn mesh(destination: Destination, files: &Files) -> Mesh {
    let server = files.server(&[]);
    Mesh::told(destination, &[20, 21, 22], move |end| tells(server.clone(), end))
}

#[test]
fn the_name_decides_on_ports_declared_tls_and_on_those_that_turn_out_to_be() {
    with_standing_clock(|| async {
        let files = Files::new();
        for protocol in [Protocol::Tls, Protocol::Undeclared] {
            let mesh = mesh(destination(protocol), &files);
            for (name, last) in [
                ("a.example.org", 21),
                ("B.example.org", 21),
                ("c.example.org", 22),
                ("c.d.example.org", 22),
                ("example.org", 20),
                ("reviews", 20),
                // An address is not asked for.
                ("10.0.0.1", 20),
            ] {
                let said = says(mesh.call().transport, &files, name).await;
                let asked = if last == 20 && name.starts_with("10") { "" } else { name };
                let wanted = format!("240.241.0.{last} {}", asked.to_lowercase());
                assert_eq!(said.to_lowercase(), wanted, "{protocol:?}");
            }
            assert_eq!(mesh.connects(), 7, "one each: nobody is dialled before the name is known");
            let refused = says(mesh.call().transport, &files, "gone.example.org").await;
            assert!(refused.contains("reset"), "{refused}");
            let dangling = ["code=\"dangling-target\""];
            assert_eq!(mesh.client.sum("heddle_refusals_total", &dangling), 1.0);
            let tcp = ["destination_workload=\"reviews-v1\""];
            assert_eq!(mesh.client.sum("istio_tcp_connections_opened_total", &tcp), 7.0);
        }
    });
}

#[test]
fn weights_hold_for_names() {
    with_standing_clock(|| async {
        let files = Files::new();
        let mut destination = destination(Protocol::Tls);
        let some = |last, weight| WeightedTarget { weight, ..to(last) };
        destination.ports[0].sni = vec![rule(&["*"], vec![some("21", 3), some("22", 1)])];
        let mesh = mesh(destination, &files);
        let mut first = 0;
        for _ in 0..400 {
            let said = says(mesh.call().transport, &files, "x").await;
            first += i32::from(said.starts_with("240.241.0.21"));
        }
        // 300 expected, a standard deviation is 8.7: five of them (one run in two million).
        assert!((256..=344).contains(&first), "{first}");
    });
}

#[test]
fn http_and_other_bytes_pass_beside_rules_for_names() {
    with_standing_clock(|| async {
        let mesh = Mesh::told(
            destination(Protocol::Undeclared),
            &[20, 21, 22],
            |mut end: End| async move {
                if end.at == crate::mesh::address(20) {
                    end.send("hello").await;
                }
                let _ended = end.ended().await;
            },
        );
        let begun = clock::now();
        let mut client = mesh.call();
        assert_eq!(client.transport.read_u8().await.unwrap(), b'h', "the server speaks first");
        assert_eq!(seconds_since(begun), EARLY_DIAL_SILENCE.as_secs());
        let mesh = Mesh::told(destination(Protocol::Undeclared), &[20], crate::mesh::answers);
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    });
}

#[test]
fn a_name_passes_rules_for_http_only_if_a_rule_is_for_it() {
    with_standing_clock(|| async {
        let files = Files::new();
        let mut destination = resources::destination("reviews", vec![to("20")]);
        destination.ports[0].protocol = Protocol::Undeclared;
        destination.ports[0].sni = vec![rule(&["a.example.org"], vec![to("21")])];
        let mesh = mesh(destination, &files);
        let said = says(mesh.call().transport, &files, "a.example.org").await;
        assert_eq!(said, "240.241.0.21 a.example.org");
        let said = says(mesh.call().transport, &files, "b.example.org").await;
        assert!(said.contains("AccessDenied"), "{said}");
    });
}

#[test]
fn a_hello_that_never_ends_is_served_as_one_that_names_nobody() {
    with_standing_clock(|| async {
        let mesh =
            Mesh::told(destination(Protocol::Tls), &[20, 21, 22], |mut end: End| async move {
                let mut seen = Vec::new();
                let _ended = end.transport.read_to_end(&mut seen).await;
                end.send(&format!("{} {}", end.at, seen.len())).await;
            });
        let answered = async |pieces: &[(Duration, Vec<u8>)]| {
            let mut client = mesh.call();
            let begun = clock::now();
            for (wait, piece) in pieces {
                clock::sleep(*wait).await;
                client.transport.write_all(piece).await.unwrap();
            }
            let connects = mesh.connects();
            clock::sleep(Duration::from_millis(10)).await;
            let dialled = mesh.connects() > connects || seconds_since(begun) >= 5;
            client.transport.shutdown_write();
            let (_, ended) = client.ended().await;
            assert!(ended.is_ok(), "{ended:?}");
            (client.rest(), dialled)
        };
        let head = b"\x16\x03\x01\x3f\x00\x01\x00\x3e\xfc\x03\x03".to_vec();
        let zero = Duration::ZERO;
        // It stops in the middle, with an end and without.
        assert_eq!(answered(&[(zero, head.clone())]).await.0, "240.241.0.20 11");
        let late = [(zero, head.clone()), (CLIENT_HELLO_TIMEOUT, vec![0])];
        assert_eq!(answered(&late).await, ("240.241.0.20 12".to_owned(), true));
        // It is no hello after all.
        let wrong = [head.clone(), vec![0; 17_000]].concat();
        assert_eq!(answered(&[(zero, wrong)]).await, ("240.241.0.20 17011".to_owned(), true));
        let other = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00".to_vec();
        assert_eq!(answered(&[(zero, other)]).await, ("240.241.0.20 10".to_owned(), true));
        // What is no TLS at all passes where it was declared.
        assert_eq!(answered(&[(zero, b"GET / HTTP/1.1\r\n".to_vec())]).await.0, "240.241.0.20 16");
        assert_eq!(mesh.client.sum("heddle_refusals_total", &[]), 0.0);
    });
}

#[test]
fn outside_a_name_that_is_known_leads_there_and_another_names_what_is_counted() {
    with_standing_clock(|| async {
        let files = Files::new();
        let mesh = mesh(destination(Protocol::Undeclared), &files);
        let outside: SocketAddr = SocketAddr::from(([203, 0, 113, 7], PORT));
        let server = files.server(&[]);
        mesh.outside(outside, move |end| tells(server.clone(), end));
        let call = || mesh.client.call(outside).transport;
        let said = says(call(), &files, "www.example.net").await;
        assert_eq!(said, "203.0.113.7 www.example.net");
        let said = says(call(), &files, "10.0.0.1").await;
        assert_eq!(said, "203.0.113.7 ");
        let opened = |service: &str| {
            let labels =
                [service, "destination_service_name=\"PassthroughCluster\"", "reporter=\"source\""];
            mesh.client.sum("istio_tcp_connections_opened_total", &labels)
        };
        assert_eq!(opened("destination_service=\"www.example.net\""), 1.0);
        assert_eq!(opened("destination_service=\"unknown\""), 1.0, "nobody was asked for");
        mesh.tell_name("a.example.org", destination(Protocol::Undeclared));
        let said = says(call(), &files, "a.example.org").await;
        assert_eq!(said, "240.241.0.21 a.example.org", "by the rules of that service");
        let gone = SocketAddr::from(([203, 0, 113, 8], PORT));
        let said = says(mesh.client.call(gone).transport, &files, "www.example.net").await;
        assert!(said.contains("reset"), "{said}");
        assert_eq!(opened("destination_service=\"www.example.net\""), 2.0);
    });
}

#[test]
fn outside_a_host_of_rules_leads_by_its_rules_and_else_where_it_was_asked() {
    with_standing_clock(|| async {
        let files = Files::new();
        let mesh = mesh(destination(Protocol::Undeclared), &files);
        let outside: SocketAddr = SocketAddr::from(([203, 0, 113, 7], PORT + 1));
        let server = files.server(&[]);
        mesh.outside(outside, move |end| tells(server.clone(), end));
        let mut ruled = destination(Protocol::Undeclared);
        let mut others = ruled.ports.remove(0);
        others.number = ANY_PORT;
        others.tcp = Vec::new();
        ruled.others = Some(Box::new(others));
        mesh.tell_name("a.example.org", ruled.clone());
        let call = || mesh.client.call(outside).transport;
        let said = says(call(), &files, "a.example.org").await;
        assert_eq!(said, "240.241.0.21 a.example.org", "on a port that no rule names");
        mesh.tell_name("example.org", ruled);
        let said = says(call(), &files, "example.org").await;
        assert_eq!(said, "203.0.113.7 example.org", "it meets no rule of that host");
        mesh.outside(outside, crate::mesh::answers);
        let (head, _) =
            mesh.client.call(outside).ask("GET / HTTP/1.1\r\nhost: example.org\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "there are no rules for requests: {head}");
    });
}
