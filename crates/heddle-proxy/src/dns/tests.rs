//! The resolver over real sockets on loopback, with a fake resolver of the host behind it.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
};

use heddle_model::{NameAnswer, Owner, ServiceVips, WorkloadId};
use heddle_runtime::task::{run_local, spawn_contained};
use heddle_wire::local::proxy_config::ProxyConfig;
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::A},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

use super::*;
use crate::{
    broker::{BrokerError, HostSocket},
    lookup::{LookupError, Question},
    metrics::{Metrics, scrape::Scrape},
    shared::Receivers,
    snapshot::{CompiledDestination, ResourceSet, SnapshotBuilder},
    testing::{
        Folder, fixture,
        resources::{address, destination, name_answer, service, vip, vip_v6},
    },
};

/// What the fake resolver of the host says to everything.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 33);

struct Bench {
    _dir: Folder,
    shared: Arc<Shared>,
    udp: SocketAddr,
    tcp: SocketAddr,
}

/// How the host's side behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Host {
    /// Answers.
    Works,
    /// The first resolver refuses, the second answers.
    SecondWorks,
    /// There is no resolver.
    None,
    /// Answers other questions first, then this one.
    Noisy,
}

/// What the control plane says to questions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    /// Knows no further name.
    Connected,
    /// Is known to be down.
    Down,
    /// Is connected and does not answer in time.
    Late,
}

async fn bench(host: Host, control: Control) -> Bench {
    let dir = Folder::new("dns");
    let mut local = fixture::local(dir.path());
    local.holder_socket = Some(dir.path().join("mesh.sock"));
    let config = fixture::proxy_config_in(dir.path(), local);
    bench_of(dir, config, host, control).await
}

async fn bench_of(dir: Folder, config: ProxyConfig, host: Host, control: Control) -> Bench {
    let metrics = Arc::new(Metrics::new(&config));
    let (shared, ends) = Shared::new(config, metrics);
    let shared = Arc::new(shared);
    let mut set = ResourceSet::default();
    set.insert_name(name_answer("reviews", Some("reviews")));
    set.insert_name(name_answer("example.com", None));
    for (host, vips) in [("several", vec![vip(20), vip(21)]), ("headless", vec![])] {
        let named = ServiceVips { name: service(host), vips };
        set.insert_name(NameAnswer { service: Some(named), ..name_answer(host, None) });
    }
    set.insert_address(address(vip(10), Owner::Service(service("reviews"))));
    set.insert_destination(CompiledDestination::new(destination("reviews", vec![])).unwrap());
    set.insert_endpoints(heddle_model::Endpoints::inside(service("reviews"), vec![]));
    let mut builder = SnapshotBuilder::new(WorkloadId("client-1".into()));
    shared.snapshot.store(Arc::new(builder.build(&set, 1).snapshot));
    shared.lookup.set_down(control == Control::Down);
    let upstream = Rc::new(Upstream::bind().await);
    serve_ends(ends, set, Rc::clone(&upstream), host, control);
    upstream.serve(host);
    let sockets = DnsSockets::bind(0, None, &mut KeptSockets::default()).unwrap();
    let (udp, tcp) = sockets.addresses().unwrap();
    sockets.serve(&shared);
    Bench { _dir: dir, shared, udp: udp[0], tcp: tcp[0] }
}

/// A resolver on loopback.
struct Upstream {
    udp: Rc<UdpSocket>,
    tcp: Rc<TcpListener>,
}

impl Upstream {
    async fn bind() -> Self {
        Self {
            udp: Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap()),
            tcp: Rc::new(TcpListener::bind("127.0.0.1:0").await.unwrap()),
        }
    }

    fn serve(&self, host: Host) {
        let udp = Rc::clone(&self.udp);
        spawn_contained("upstream udp", async move {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer).await {
                if host == Host::Noisy {
                    let mut other = buffer[..length].to_vec();
                    other[0] ^= 0xff;
                    udp.send_to(&answer(&other, false), peer).await.unwrap();
                    udp.send_to(b"garbage", peer).await.unwrap();
                }
                udp.send_to(&answer(&buffer[..length], true), peer).await.unwrap();
            }
        });
        let tcp = Rc::clone(&self.tcp);
        spawn_contained("upstream tcp", async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut query = vec![0; usize::from(length)];
                stream.read_exact(&mut query).await.unwrap();
                stream.write_all(&framed(&answer(&query, false))).await.unwrap();
            }
        });
    }

    fn socket(&self, tcp: bool) -> OwnedFd {
        if tcp {
            std::net::TcpStream::connect(self.tcp.local_addr().unwrap()).unwrap().into()
        } else {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(self.udp.local_addr().unwrap()).unwrap();
            socket.into()
        }
    }
}

/// The fake resolver's answer; by UDP a name that begins with `large` is truncated.
fn answer(query: &[u8], udp: bool) -> Vec<u8> {
    let Ok(asked) = Message::from_vec(query) else { return Vec::new() };
    let mut reply = Message::response(asked.metadata.id, OpCode::Query);
    reply.add_query(asked.queries[0].clone());
    let name = asked.queries[0].name().clone();
    if udp && name.to_ascii().starts_with("large") {
        reply.metadata.truncation = true;
    } else {
        reply.add_answer(Record::from_rdata(name, 300, RData::A(A(OUTSIDE))));
    }
    reply.to_vec().unwrap()
}

/// Plays thread 0: the holder's side and the control plane's.
fn serve_ends(
    mut ends: Receivers,
    set: ResourceSet,
    upstream: Rc<Upstream>,
    host: Host,
    control: Control,
) {
    spawn_contained("holder", async move {
        while let Some(request) = ends.broker.recv().await {
            let HostSocket::Resolver { tcp, index } = request.socket else { continue };
            let refused = || BrokerError::Refused { reason: "no resolver".into(), errno: 0 };
            let result = match host {
                Host::None => Err(refused()),
                Host::SecondWorks if index == 0 => Err(refused()),
                _ => Ok(upstream.socket(tcp)),
            };
            let _asker_may_be_gone = request.answer.send(result);
        }
    });
    spawn_contained("control", async move {
        let mut builder = SnapshotBuilder::new(WorkloadId("client-1".into()));
        let mut kept = Vec::new();
        while let Some(ask) = ends.asks.recv().await {
            if control == Control::Late {
                kept.push(ask);
                continue;
            }
            if control == Control::Down {
                let _asker_may_be_gone = ask.answer.send(Err(LookupError::Unreachable));
                continue;
            }
            let Question::Name(key) = &ask.question else { continue };
            let (_, host) = key.split_once('/').unwrap();
            let mut set = set.clone();
            let reviews = ["reviews.default", "reviews.default.svc", FQDN].contains(&host);
            set.insert_name(name_answer(host, reviews.then_some("reviews")));
            let snapshot = Arc::new(builder.build(&set, 1).snapshot);
            let _asker_may_be_gone = ask.answer.send(Ok::<_, LookupError>(snapshot));
        }
    });
}

const FQDN: &str = "reviews.default.svc.cluster.local";

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    message
}

impl Bench {
    async fn exchange(&self, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.udp).await.unwrap();
        socket.send(query).await.unwrap();
        let mut buffer = vec![0; 4096];
        let length = socket.recv(&mut buffer).await.unwrap();
        buffer.truncate(length);
        buffer
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let query = query(name, kind);
        let reply = Message::from_vec(&self.exchange(&query.to_vec().unwrap()).await).unwrap();
        assert_eq!(reply.metadata.id, query.metadata.id);
        assert_eq!(reply.metadata.message_type, MessageType::Response);
        assert_eq!(reply.queries, query.queries);
        reply
    }

    /// Code and addresses.
    async fn addresses(&self, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        let reply = self.ask(name, kind).await;
        let text = |record: &Record| match &record.data {
            RData::A(ip) => ip.0.to_string(),
            RData::AAAA(ip) => ip.0.to_string(),
            other => other.to_string(),
        };
        (reply.metadata.response_code, reply.answers.iter().map(text).collect())
    }
}

#[test]
fn mesh_names_answer_in_every_spelling_and_others_come_from_the_host() {
    run_local(async {
        let bench = bench(Host::Works, Control::Connected).await;
        let v4 = vip(10).to_string();
        let v6 = vip_v6(10).to_string();
        let outside = OUTSIDE.to_string();
        let ok = ResponseCode::NoError;
        let none = ResponseCode::NXDomain;
        use RecordType as T;
        let table: &[(&str, RecordType, ResponseCode, &[&str])] = &[
            ("reviews", T::A, ok, &[&v4]),
            ("REVIEWS", T::A, ok, &[&v4]),
            ("reviews", T::AAAA, ok, &[&v6]),
            ("reviews", T::ANY, ok, &[&v4, &v6]),
            ("reviews", T::MX, ok, &[]),
            ("reviews", T::TXT, ok, &[]),
            ("reviews", T::SRV, ok, &[]),
            ("_http._tcp.reviews", T::SRV, ok, &[]),
            ("_http._tcp.reviews.default.svc.cluster.local", T::SRV, ok, &[]),
            ("_tcp.reviews.default.svc.cluster.local", T::A, ok, &[]),
            ("_http._tcp.nobody.default.svc.cluster.local", T::SRV, none, &[]),
            ("_http._tcp.nobody", T::SRV, ok, &[&outside]),
            ("_mongodb._tcp.www.example.com", T::SRV, ok, &[&outside]),
            ("svc.cluster.local", T::A, ok, &[]),
            ("default.svc.cluster.local", T::NS, ok, &[]),
            ("reviews.default", T::A, ok, &[&v4]),
            ("reviews.default.svc", T::A, ok, &[&v4]),
            (FQDN, T::AAAA, ok, &[&v6]),
            ("nobody.default.svc.cluster.local", T::A, none, &[]),
            ("www.example.com.default.svc.cluster.local", T::A, none, &[]),
            ("reviews.svc.cluster.local", T::A, none, &[]),
            ("host.heddle.internal", T::A, ok, &["240.240.0.1"]),
            ("host.heddle.internal", T::AAAA, ok, &["fd68:6564:646c::1"]),
            ("host.heddle.internal", T::HTTPS, ok, &[]),
            ("heddle.internal", T::A, ok, &[]),
            ("other.heddle.internal", T::A, none, &[]),
            ("localhost", T::A, ok, &["127.0.0.1"]),
            ("localhost", T::AAAA, ok, &["::1"]),
            ("nobody", T::A, ok, &[&outside]),
            ("example.com", T::A, ok, &[&outside]),
            ("www.example.com", T::A, ok, &[&outside]),
            ("10.0.240.240.in-addr.arpa", T::PTR, ok, &["reviews.default.svc.cluster.local."]),
            ("1.0.240.240.in-addr.arpa", T::PTR, ok, &["host.heddle.internal."]),
            ("10.0.240.240.in-addr.arpa", T::TXT, ok, &[]),
            ("77.0.240.240.in-addr.arpa", T::PTR, none, &[]),
            ("1.2.0.192.in-addr.arpa", T::PTR, ok, &[&outside]),
        ];
        for (name, kind, code, addresses) in table {
            let (got, texts) = bench.addresses(name, *kind).await;
            assert_eq!((got, &texts[..]), (*code, &addresses.map_text()[..]), "{name} {kind}");
        }
        let reply = bench.ask("reviews", T::A).await;
        assert_eq!(reply.answers[0].ttl, 5);
    })
    .unwrap();
}

trait MapText {
    fn map_text(&self) -> Vec<String>;
}

impl MapText for &[&str] {
    fn map_text(&self) -> Vec<String> {
        self.iter().map(|text| (*text).to_owned()).collect()
    }
}

#[test]
fn every_address_of_a_service_is_told_and_a_headless_ones_name_is_forwarded() {
    run_local(async {
        let bench = bench(Host::Works, Control::Connected).await;
        let ok = ResponseCode::NoError;
        let both = vec![vip(20).to_string(), vip(21).to_string()];
        assert_eq!(bench.addresses("several", RecordType::A).await, (ok, both));
        assert_eq!(bench.addresses("several", RecordType::AAAA).await, (ok, vec![]));
        let outside = vec![OUTSIDE.to_string()];
        assert_eq!(bench.addresses("headless", RecordType::A).await, (ok, outside));
    })
    .unwrap();
}

#[test]
fn while_control_is_down_the_mesh_suffix_fails_and_the_rest_is_forwarded_at_once() {
    run_local(async {
        let bench = bench(Host::Works, Control::Down).await;
        let v4 = vip(10).to_string();
        let outside = OUTSIDE.to_string();
        for (name, code, address) in [
            ("reviews", ResponseCode::NoError, Some(&v4)),
            // Known in another spelling.
            (FQDN, ResponseCode::NoError, Some(&v4)),
            ("reviews.default", ResponseCode::NoError, Some(&v4)),
            ("nobody.default.svc.cluster.local", ResponseCode::ServFail, None),
            ("www.a.default.svc.cluster.local", ResponseCode::NXDomain, None),
            ("nobody", ResponseCode::NoError, Some(&outside)),
            ("www.example.com", ResponseCode::NoError, Some(&outside)),
        ] {
            let (got, addresses) = bench.addresses(name, RecordType::A).await;
            assert_eq!((got, addresses.first()), (code, address), "{name}");
        }
        let told: String = Scrape::new(Arc::clone(&bench.shared.metrics)).collect();
        let failed =
            "heddle_dns_failed{name=\"www.a.default.svc.cluster.local\",answer=\"NXDOMAIN\"} 1";
        assert!(told.contains(failed), "{told}");
        assert!(
            !told.contains("name=\"nobody"),
            "it has an address without what was put behind it"
        );
    })
    .unwrap();
}

#[test]
fn a_control_plane_that_does_not_answer_costs_two_seconds_not_the_name() {
    run_local(async {
        let bench = bench(Host::Works, Control::Late).await;
        let mesh = bench.addresses("nobody.default.svc.cluster.local", RecordType::A);
        let known = bench.addresses(FQDN, RecordType::A);
        let outside = bench.addresses("nobody", RecordType::A);
        let (mesh, known, outside) = tokio::join!(mesh, known, outside);
        assert_eq!(mesh.0, ResponseCode::ServFail);
        assert_eq!(known.1, [vip(10).to_string()]);
        assert_eq!(outside.1, [OUTSIDE.to_string()]);
    })
    .unwrap();
}

#[test]
fn a_resolver_that_fails_is_followed_by_the_next_and_none_is_servfail() {
    run_local(async {
        let second = bench(Host::SecondWorks, Control::Connected).await;
        let (code, addresses) = second.addresses("www.example.com", RecordType::A).await;
        assert_eq!((code, addresses), (ResponseCode::NoError, vec![OUTSIDE.to_string()]));
        let none = bench(Host::None, Control::Connected).await;
        let (code, addresses) = none.addresses("www.example.com", RecordType::A).await;
        assert_eq!((code, addresses), (ResponseCode::ServFail, vec![]));
    })
    .unwrap();
}

#[test]
fn datagrams_that_answer_something_else_are_passed_over() {
    run_local(async {
        let bench = bench(Host::Noisy, Control::Connected).await;
        let (_, addresses) = bench.addresses("www.example.com", RecordType::A).await;
        assert_eq!(addresses, [OUTSIDE.to_string()]);
    })
    .unwrap();
}

#[test]
fn a_truncated_answer_stays_so_and_tcp_brings_the_rest() {
    run_local(async {
        let bench = bench(Host::Works, Control::Connected).await;
        let reply = bench.ask("large.example.org", RecordType::A).await;
        assert!(reply.metadata.truncation);

        // One connection, several questions, mesh and outside.
        let mut stream = TcpStream::connect(bench.tcp).await.unwrap();
        for (name, expected) in [
            ("large.example.org", OUTSIDE),
            ("reviews", Ipv4Addr::new(240, 240, 0, 10)),
            ("www.example.org", OUTSIDE),
        ] {
            let query = query(name, RecordType::A);
            stream.write_all(&framed(&query.to_vec().unwrap())).await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut reply = vec![0; usize::from(length)];
            stream.read_exact(&mut reply).await.unwrap();
            let reply = Message::from_vec(&reply).unwrap();
            assert_eq!(reply.metadata.id, query.metadata.id);
            assert_eq!(reply.answers[0].data, RData::A(A(expected)), "{name}");
        }
    })
    .unwrap();
}

#[test]
fn edns_is_answered_with_edns_and_only_then() {
    run_local(async {
        let bench = bench(Host::Works, Control::Connected).await;
        assert!(bench.ask("reviews", RecordType::A).await.edns.is_none());
        let mut message = query("reviews", RecordType::A);
        message.set_edns(Edns::new());
        let reply = bench.exchange(&message.to_vec().unwrap()).await;
        assert!(Message::from_vec(&reply).unwrap().edns.is_some());
    })
    .unwrap();
}

#[test]
fn garbage_is_rejected_or_dropped_and_the_next_query_works() {
    run_local(async {
        let bench = bench(Host::Works, Control::Connected).await;
        let code = |reply: &[u8]| reply[3] & 0x0f;
        let good = query("reviews", RecordType::A).to_vec().unwrap();
        // A question cut off, two questions, an update: told why.
        let cut = bench.exchange(&good[..good.len() - 3]).await;
        assert_eq!((&cut[..2], code(&cut)), (&good[..2], 1));
        let mut two = good.clone();
        two[5] = 2;
        assert_eq!(code(&bench.exchange(&two).await), 1);
        let mut update = good.clone();
        update[2] |= 5 << 3;
        assert_eq!(code(&bench.exchange(&update).await), 4);
        // Responses and scraps are dropped: what is asked after them on the same socket is answered.
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(bench.udp).await.unwrap();
        let mut response = good.clone();
        response[2] |= 0x80;
        for bytes in [&response[..], &good[..11], b"", &[0xff; 600]] {
            socket.send(bytes).await.unwrap();
        }
        socket.send(&good).await.unwrap();
        let mut buffer = [0; 600];
        let length = socket.recv(&mut buffer).await.unwrap();
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert_eq!(reply.answers.len(), 1);
        // And on a stream.
        let mut stream = TcpStream::connect(bench.tcp).await.unwrap();
        stream.write_all(&framed(&response)).await.unwrap();
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 0, "closed");
    })
    .unwrap();
}

#[test]
fn every_prefix_and_every_flipped_byte_of_a_query_is_survived() {
    let good = {
        let mut message = query("reviews.default.svc.cluster.local", RecordType::A);
        message.set_edns(Edns::new());
        message.to_vec().unwrap()
    };
    for end in 0..good.len() {
        let _any = message::read(&good[..end]);
    }
    for index in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[index] ^= 1 << bit;
            if let Read::MeshQuery(asked) = message::read(&bad) {
                let _any = (asked.host(), asked.reverse(), asked.is_internet());
                assert!(!asked.addresses([OUTSIDE.into(), Ipv6Addr::LOCALHOST.into()]).is_empty());
            }
        }
    }
}

#[test]
fn other_classes_are_not_ours() {
    run_local(async {
        let bench = bench(Host::Works, Control::Connected).await;
        let mut message = query("reviews", RecordType::A);
        message.queries[0].set_query_class(DNSClass::CH);
        let reply = bench.exchange(&message.to_vec().unwrap()).await;
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.answers[0].data, RData::A(A(OUTSIDE)));
        assert!(bench.shared.snapshot.load().name("default/reviews").is_some());
    })
    .unwrap();
}

/// What becomes of a query in a pod: `None` if the cluster's resolver is asked.
async fn in_a_pod(bench: &Bench, name: &str, kind: RecordType) -> Option<Message> {
    let query = query(name, kind).to_vec().unwrap();
    let Read::MeshQuery(asked) = message::read(&query) else { panic!() };
    match resolve::resolve(&bench.shared, &asked).await {
        Resolution::Answer(reply) => Some(Message::from_vec(&reply).unwrap()),
        Resolution::Forward => None,
    }
}

#[test]
fn in_a_pod_services_with_an_address_are_answered_and_the_clusters_resolver_knows_the_rest() {
    run_local(async {
        let dir = Folder::new("dns");
        let mut config = fixture::pod_config(dir.path(), "127.0.0.1:1".parse().unwrap());
        config.namespace = "default".into();
        let bench = bench_of(dir, config, Host::None, Control::Connected).await;
        for name in ["reviews", "reviews.default", "reviews.default.svc", FQDN] {
            let reply = in_a_pod(&bench, name, RecordType::A).await.unwrap();
            assert_eq!(reply.answers.len(), 1, "{name}");
            let reply = in_a_pod(&bench, name, RecordType::SRV).await;
            assert!(reply.is_none(), "{name}");
        }
        for (name, kind) in [
            ("headless", RecordType::A),
            ("web-0.headless.default.svc.cluster.local", RecordType::A),
            ("10-1-2-3.default.pod.cluster.local", RecordType::A),
            ("nobody.default.svc.cluster.local", RecordType::A),
            ("www.example.com.default.svc.cluster.local", RecordType::AAAA),
            ("default.svc.cluster.local", RecordType::A),
            ("_http._tcp.reviews.default.svc.cluster.local", RecordType::SRV),
            ("10.0.96.10.in-addr.arpa", RecordType::PTR),
            ("www.example.com", RecordType::A),
        ] {
            assert!(in_a_pod(&bench, name, kind).await.is_none(), "{name}");
        }
    })
    .unwrap();
}

#[test]
fn in_a_pod_whose_control_plane_is_gone_the_clusters_resolver_is_asked() {
    run_local(async {
        let dir = Folder::new("dns");
        let mut config = fixture::pod_config(dir.path(), "127.0.0.1:1".parse().unwrap());
        config.namespace = "default".into();
        let bench = bench_of(dir, config, Host::None, Control::Down).await;
        assert!(
            in_a_pod(&bench, "ratings.default.svc.cluster.local", RecordType::A).await.is_none()
        );
        // What is known is known still.
        assert!(in_a_pod(&bench, FQDN, RecordType::A).await.is_some());
    })
    .unwrap();
}
