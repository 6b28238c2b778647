//! The client against a control plane that a test drives by hand, over a real path socket.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use heddle_model::{Owner, ServiceName};
use heddle_runtime::{
    clock,
    task::{run_local, spawn_contained},
};
use heddle_wire::{
    discovery::{ResourceType, proto::DeltaDiscoveryResponse},
    local::proxy_config::ControlPlane,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tonic::transport::Channel;

use super::{state::State, *};
use crate::{
    Shared,
    lookup::{LookupError, Question},
    metrics::Metrics,
    shared::Receivers,
    snapshot::{AddressOwner, Snapshot},
    testing::{
        Folder,
        control::{FakeControl, Session},
        proxy_config,
        resources::{
            address, destination, endpoints, inbound, name_answer, service, target, vip, vip_v6,
        },
    },
};

/// A discovery client, its files, and handles to it.
struct Bench {
    dir: Folder,
    shared: Arc<Shared>,
    connected: watch::Receiver<Option<Channel>>,
    save: mpsc::Sender<oneshot::Sender<()>>,
    client: JoinHandle<()>,
}

fn new_shared(dir: &Folder) -> (Arc<Shared>, Receivers) {
    let config = proxy_config(dir.path());
    let metrics = Arc::new(Metrics::new(&config));
    let (shared, ends) = Shared::new(config, metrics);
    (Arc::new(shared), ends)
}

impl Bench {
    /// Starts a client on `dir`, as the process would.
    fn start(dir: Folder) -> Self {
        let (shared, ends) = new_shared(&dir);
        let (channel, connected) = watch::channel(None);
        let (save, saves) = mpsc::channel(1);
        let (client, _) = Discovery::new(Arc::clone(&shared), ends.asks, channel, saves);
        let client = spawn_contained("discovery", client.run());
        Self { dir, shared, connected, save, client }
    }

    fn control(&self) -> FakeControl {
        let ControlPlane::PathSocket(socket) = self.shared.config.control_plane() else { panic!() };
        FakeControl::start(socket)
    }

    /// Ends the client as SIGTERM would; its files stay.
    async fn stop(self) -> Folder {
        let (done, saved) = oneshot::channel();
        self.save.send(done).await.unwrap();
        saved.await.unwrap();
        self.client.abort();
        self.dir
    }

    /// Waits until the stream is up or down.
    async fn until_connected(&mut self, up: bool) {
        self.connected.wait_for(|channel| channel.is_some() == up).await.unwrap();
    }

    fn ask_address(&self, ip: IpAddr) -> JoinHandle<Result<AddressOwner, LookupError>> {
        let lookup = self.shared.lookup.clone();
        tokio::task::spawn_local(async move { lookup.address(ip).await })
    }

    fn ask_destination(&self, name: &str) -> JoinHandle<Result<usize, LookupError>> {
        let (lookup, service) = (self.shared.lookup.clone(), service(name));
        tokio::task::spawn_local(async move {
            let plan = lookup.destination(&service).await?;
            Ok(plan.port(9080).unwrap().default.endpoints.len())
        })
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    fn rule_target(&self) -> ServiceName {
        let snapshot = self.snapshot();
        let port = snapshot.destination(&service("reviews")).unwrap().port(9080).unwrap();
        port.http.rules()[0].pick(0).1.unwrap().key.service.clone()
    }

    /// Has the proxy ask for `reviews` and answers with one endpoint and the rules given.
    async fn learn_reviews(&mut self, session: &mut Session, generation: u64) {
        let asked = self.ask_destination("reviews");
        let request = session.subscription(ResourceType::Destination).await;
        assert_eq!(request.resource_names_subscribe, [service("reviews").fqdn()]);
        session.send(generation, &[&endpoints("reviews", &[20])], false).await;
        let rules = destination("reviews", vec![target("reviews", None)]);
        session.send(generation, &[&rules], true).await;
        session.acknowledged().await;
        assert_eq!(asked.await.unwrap(), Ok(1));
    }
}

fn bench(name: &str) -> Bench {
    Bench::start(Folder::new(name))
}

#[test]
fn a_name_asked_before_the_first_connection_waits_for_it() {
    run_local(async {
        let dir = Folder::new("early");
        let mut control = FakeControl::start(&dir.join("discovery.sock"));
        let bench = Bench::start(dir);
        let lookup = bench.shared.lookup.clone();
        let asked =
            tokio::task::spawn_local(async move { lookup.name("default", "reviews").await });
        let mut session = control.session().await;
        session.subscription(ResourceType::Name).await;
        session.send(2, &[&name_answer("reviews", Some("reviews"))], true).await;
        assert!(asked.await.unwrap().is_ok());
    })
    .unwrap();
}

#[test]
fn a_first_use_subscribes_once_for_all_who_ask() {
    run_local(async {
        let bench = bench("demand");
        let mut control = bench.control();
        let mut session = control.session().await;
        let first = session.request().await;
        assert_eq!(first.node.unwrap().id, "client-1", "the first message says who asks");
        session.send(1, &[&inbound()], true).await;
        session.acknowledged().await;

        let asked: Vec<_> = (0..3).map(|_| bench.ask_address(vip(10))).collect();
        let request = session.subscription(ResourceType::Address).await;
        assert_eq!(request.resource_names_subscribe, ["240.240.0.10"]);
        assert!(request.node.is_none());
        let answer = address(vip(10), Owner::Service(service("reviews")));
        session.send(2, &[&answer], true).await;
        for one in asked {
            let owner = one.await.unwrap();
            assert_eq!(owner, Ok(AddressOwner::Service(Arc::new(service("reviews")))));
        }
        // Whose rules are needed next is asked for at once.
        let request = session.subscription(ResourceType::Destination).await;
        assert_eq!(request.resource_names_subscribe, [service("reviews").fqdn()]);
    })
    .unwrap();
}

#[test]
fn a_name_brings_its_addresses_and_rules() {
    run_local(async {
        let bench = bench("name");
        let mut control = bench.control();
        let mut session = control.introduced(1, &inbound()).await;
        let lookup = bench.shared.lookup.clone();
        let asked =
            tokio::task::spawn_local(async move { lookup.name("default", "reviews").await });
        let request = session.subscription(ResourceType::Name).await;
        assert_eq!(request.resource_names_subscribe, ["default/reviews"]);
        session.send(1, &[&name_answer("reviews", Some("reviews"))], true).await;
        assert!(asked.await.unwrap().unwrap().service.is_some());
        let request = session.subscription(ResourceType::Address).await;
        let expected = [vip(10).to_string(), vip_v6(10).to_string()];
        assert_eq!(request.resource_names_subscribe, expected);
        let request = session.subscription(ResourceType::Destination).await;
        assert_eq!(request.resource_names_subscribe, [service("reviews").fqdn()]);
    })
    .unwrap();
}

#[test]
fn a_generation_takes_force_whole_and_is_acknowledged_after() {
    run_local(async {
        let mut bench = bench("whole");
        let mut control = bench.control();
        let mut session = control.introduced(1, &inbound()).await;
        bench.learn_reviews(&mut session, 2).await;

        session.send(3, &[&endpoints("reviews", &[20, 21])], false).await;
        let answer = session.answer().await;
        assert!(answer.error_detail.is_none());
        let snapshot = bench.snapshot();
        assert_eq!(snapshot.generation, 2, "the first half is not in force");
        let plan = snapshot.destination(&service("reviews")).unwrap();
        assert_eq!(plan.port(9080).unwrap().default.endpoints.len(), 1);

        session.send(3, &[&destination("reviews", vec![])], true).await;
        session.acknowledged().await;
        let snapshot = bench.snapshot();
        assert_eq!(snapshot.generation, 3);
        let port =
            Arc::clone(snapshot.destination(&service("reviews")).unwrap().port(9080).unwrap());
        assert_eq!(port.default.endpoints.len(), 2);
        assert!(port.http.rules().is_empty());
    })
    .unwrap();
}

#[test]
fn a_refused_resource_keeps_all_of_its_generation_out() {
    run_local(async {
        let mut bench = bench("nack");
        let mut control = bench.control();
        let mut session = control.introduced(1, &inbound()).await;
        bench.learn_reviews(&mut session, 2).await;

        let mut bad = DeltaDiscoveryResponse {
            system_version_info: "3".into(),
            type_url: ResourceType::Destination.type_url().into(),
            ..DeltaDiscoveryResponse::default()
        };
        let good = heddle_wire::discovery::wire_resource(&destination("reviews", vec![]));
        bad.resources.push(good);
        let body = bad.resources[0].resource.as_mut().unwrap();
        body.value = vec![0xff; 10];
        session.respond(bad).await;
        let refusal = session.answer().await;
        let reason = refusal.error_detail.expect("a refusal").message;
        assert!(reason.contains("reviews.default.svc.cluster.local"), "{reason}");
        session.send(3, &[&endpoints("reviews", &[])], true).await;
        let sound = session.answer().await;
        assert!(sound.error_detail.is_none());
        let snapshot = bench.snapshot();
        assert_eq!(snapshot.generation, 2);
        let plan = snapshot.destination(&service("reviews")).unwrap();
        assert_eq!(plan.port(9080).unwrap().default.endpoints.len(), 1, "the old stays in force");
        assert!(bench.shared.last_refusal.load().is_some());

        session.send(4, &[&endpoints("reviews", &[20, 21, 22])], true).await;
        session.acknowledged().await;
        assert_eq!(bench.ask_destination("reviews").await.unwrap(), Ok(3));
        assert!(bench.shared.last_refusal.load().is_none());
    })
    .unwrap();
}

#[test]
fn rules_that_name_a_new_backend_wait_for_its_endpoints() {
    run_local(async {
        let mut bench = bench("make-before-break");
        let mut control = bench.control();
        let mut session = control.introduced(1, &inbound()).await;
        bench.learn_reviews(&mut session, 2).await;

        let canary = destination("reviews", vec![target("canary", None)]);
        session.send(3, &[&canary], true).await;
        // Something acknowledged after it shows that it was taken in, and was not acknowledged.
        let stranger: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
        let asked = bench.ask_address(stranger);
        session.subscription(ResourceType::Address).await;
        session.send(3, &[&address(stranger, Owner::NotKnown)], true).await;
        assert_eq!(asked.await.unwrap(), Ok(AddressOwner::NotKnown));
        assert!(session.is_silent(), "what is not in force is not acknowledged");
        assert_eq!(bench.rule_target(), service("reviews"));

        session.send(4, &[&endpoints("canary", &[30])], true).await;
        session.acknowledged().await;
        assert_eq!(bench.rule_target(), service("canary"));
    })
    .unwrap();
}

#[test]
fn a_generation_torn_by_another_ends_the_stream() {
    run_local(async {
        let mut bench = bench("torn");
        let mut control = bench.control();
        let mut session = control.introduced(1, &inbound()).await;
        bench.learn_reviews(&mut session, 2).await;
        session.send(3, &[&endpoints("reviews", &[])], false).await;
        session.send(4, &[&endpoints("reviews", &[20, 21])], true).await;
        // It comes back and says what it holds.
        let mut session = control.session().await;
        let request = session.subscription(ResourceType::Endpoints).await;
        assert_eq!(request.initial_resource_versions.len(), 1);
        assert_eq!(bench.snapshot().generation, 2);
    })
    .unwrap();
}

#[test]
fn a_reconnect_tells_the_versions_held_and_fetches_nothing_again() {
    run_local(async {
        let mut bench = bench("resume");
        let mut control = bench.control();
        let mut session = control.introduced(1, &inbound()).await;
        bench.learn_reviews(&mut session, 2).await;
        drop((session, control));
        bench.until_connected(false).await;
        assert!(bench.shared.lookup.is_down());
        assert_eq!(bench.ask_destination("reviews").await.unwrap(), Ok(1), "it goes on");

        let mut control = bench.control();
        let mut session = control.session().await;
        let first = session.request().await;
        assert!(first.node.is_some());
        assert_eq!(first.type_url, ResourceType::Endpoints.type_url(), "before who brings them");
        assert_eq!(first.initial_resource_versions.len(), 1);
        let request = session.subscription(ResourceType::Inbound).await;
        assert_eq!(request.initial_resource_versions.len(), 1);
        let request = session.subscription(ResourceType::Destination).await;
        let name = service("reviews").fqdn();
        assert_eq!(request.resource_names_subscribe, [name.as_str()]);
        assert!(request.initial_resource_versions.contains_key(&name));
        // Nothing is sent, and everything is there.
        assert_eq!(bench.ask_destination("reviews").await.unwrap(), Ok(1));
        // Only what differs is sent.
        session.send(7, &[&endpoints("reviews", &[20, 21])], true).await;
        session.acknowledged().await;
        assert_eq!(bench.ask_destination("reviews").await.unwrap(), Ok(2));
    })
    .unwrap();
}

#[test]
fn what_does_not_exist_is_an_answer_until_it_does() {
    run_local(async {
        let bench = bench("absent");
        let mut control = bench.control();
        let mut session = control.introduced(1, &inbound()).await;
        let asked = bench.ask_destination("ghost");
        let request = session.subscription(ResourceType::Destination).await;
        session.remove(1, ResourceType::Destination, &request.resource_names_subscribe[0]).await;
        assert_eq!(asked.await.unwrap(), Err(LookupError::NotKnown));
        session.acknowledged().await;
        assert_eq!(bench.ask_destination("ghost").await.unwrap(), Err(LookupError::NotKnown));
        assert!(session.is_silent(), "the second question cost nothing");

        session.send(2, &[&endpoints("ghost", &[40])], false).await;
        session.send(2, &[&destination("ghost", vec![])], true).await;
        session.acknowledged().await;
        assert_eq!(bench.ask_destination("ghost").await.unwrap(), Ok(1));
    })
    .unwrap();
}

#[test]
fn while_control_is_gone_strangers_pass_at_once_and_who_waits_is_let_go() {
    run_local(async {
        let mut bench = bench("outage");
        let mut control = bench.control();
        let mut session = control.introduced(1, &inbound()).await;
        let stranger: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
        let waiting = bench.ask_address(stranger);
        let lookup = bench.shared.lookup.clone();
        let name = tokio::task::spawn_local(async move { lookup.name("default", "x").await });
        let own = bench.ask_address(vip(77));
        session.subscription(ResourceType::Name).await;
        drop((session, control));
        bench.until_connected(false).await;
        assert_eq!(waiting.await.unwrap(), Ok(AddressOwner::NotKnown));
        assert_eq!(name.await.unwrap().unwrap_err(), LookupError::Unreachable);
        let other: IpAddr = Ipv4Addr::new(192, 0, 2, 2).into();
        assert_eq!(bench.ask_address(other).await.unwrap(), Ok(AddressOwner::NotKnown));

        // A virtual address can only wait; the control plane comes back in time.
        let mut control = bench.control();
        let mut session = control.session().await;
        session.subscription(ResourceType::Address).await;
        session.send(2, &[&address(vip(77), Owner::Service(service("late")))], true).await;
        assert_eq!(own.await.unwrap(), Ok(AddressOwner::Service(Arc::new(service("late")))));
    })
    .unwrap();
}

#[test]
fn a_sidecar_starts_and_serves_from_its_saved_set() {
    run_local(async {
        let mut first = bench("saved");
        let mut control = first.control();
        let mut session = control.introduced(1, &inbound()).await;
        first.learn_reviews(&mut session, 5).await;
        drop((session, control));
        let dir = first.stop().await;

        let second = Bench::start(dir);
        let snapshot = second.snapshot();
        assert_eq!(snapshot.generation, 5);
        assert!(snapshot.inbound.is_some());
        assert_eq!(second.ask_destination("reviews").await.unwrap(), Ok(1));
        let mut control = second.control();
        let mut session = control.session().await;
        let request = session.subscription(ResourceType::Destination).await;
        assert_eq!(request.initial_resource_versions.len(), 1, "nothing is fetched again");
    })
    .unwrap();
}

#[test]
fn a_corrupted_saved_set_is_ignored() {
    run_local(async {
        let mut first = bench("corrupt");
        let mut control = first.control();
        let mut session = control.introduced(1, &inbound()).await;
        first.learn_reviews(&mut session, 5).await;
        let dir = first.stop().await;
        let file = dir.path().join("state/last-good-set");
        let mut bytes = std::fs::read(&file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&file, bytes).unwrap();

        let second = Bench::start(dir);
        assert!(second.snapshot().inbound.is_none());
        let mut control = second.control();
        control.introduced(6, &inbound()).await;
        assert!(second.snapshot().inbound.is_some());
    })
    .unwrap();
}

#[test]
fn reports_are_sent_on_change_and_after_a_reconnect() {
    run_local(async {
        let mut bench = bench("report");
        let mut control = bench.control();
        let (sockets, listening) = watch::channel(Vec::<SocketAddr>::new());
        let reporter =
            Reporter { workload: "client-1".into(), listening, channel: bench.connected.clone() };
        spawn_contained("report", reporter.run());
        let session = control.introduced(1, &inbound()).await;
        sockets.send_replace(vec![SocketAddr::from(([0, 0, 0, 0], 8080))]);
        loop {
            let report = control.reports.recv().await.unwrap();
            assert_eq!(report.workload, "client-1");
            if let [one] = &report.listening[..] {
                assert_eq!((one.port, &one.address[..]), (8080, &[0, 0, 0, 0][..]));
                break;
            }
        }
        drop((session, control));
        bench.until_connected(false).await;
        let mut control = bench.control();
        assert_eq!(control.reports.recv().await.unwrap().listening.len(), 1);
    })
    .unwrap();
}

/// The state machine alone, with a clock of its own.
struct Machine {
    shared: Arc<Shared>,
    state: State,
    now: Instant,
    _dir: Folder,
    _ends: Receivers,
}

impl Machine {
    fn new() -> Self {
        let dir = Folder::new("machine");
        let (shared, ends) = new_shared(&dir);
        let now = clock::now();
        let state = State::new(Arc::clone(&shared), now);
        Self { shared, state, now, _dir: dir, _ends: ends }
    }

    fn ask(&mut self, ip: IpAddr) -> oneshot::Receiver<Result<Arc<Snapshot>, LookupError>> {
        let (answer, answered) = oneshot::channel();
        self.state.ask(Question::Address(ip), answer, self.now);
        answered
    }

    fn tell(&mut self, ip: IpAddr) {
        let resource = heddle_wire::discovery::wire_resource(&address(ip, Owner::NotKnown));
        let response = DeltaDiscoveryResponse {
            system_version_info: "1".into(),
            type_url: ResourceType::Address.type_url().into(),
            resources: vec![resource],
            generation_end: true,
            ..DeltaDiscoveryResponse::default()
        };
        self.state.response(response, self.now).unwrap();
    }

    fn requests(&mut self) -> Vec<heddle_wire::discovery::proto::DeltaDiscoveryRequest> {
        std::iter::from_fn(|| self.state.next_request()).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.state.sweep(self.now);
    }
}

fn stranger(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number).into()
}

#[test]
fn what_is_idle_is_given_back_but_only_while_connected() {
    run_local(async {
        let mut machine = Machine::new();
        machine.state.connected();
        for number in [1, 2] {
            let mut answered = machine.ask(stranger(number));
            machine.tell(stranger(number));
            assert!(answered.try_recv().unwrap().is_ok());
        }
        machine.requests();
        machine.state.disconnected();
        machine.pass(Duration::from_secs(1));
        machine.pass(IDLE_MAX);
        assert!(machine.shared.snapshot.load().address(stranger(1)).is_some());
        // The look-up just made counts as a use.
        machine.state.connected();
        machine.pass(Duration::from_secs(1));
        let snapshot = machine.shared.snapshot.load_full();
        assert!(snapshot.address(stranger(1)).is_some());
        assert!(snapshot.address(stranger(2)).is_none());
        let requests = machine.requests();
        let subscribed: Vec<_> =
            requests.iter().flat_map(|request| request.resource_names_subscribe.clone()).collect();
        assert!(subscribed.contains(&stranger(1).to_string()));
        assert!(!subscribed.contains(&stranger(2).to_string()), "given back before it was resumed");

        machine.pass(Duration::from_secs(1));
        machine.pass(IDLE_MAX);
        let given_back = machine.requests().pop().unwrap().resource_names_unsubscribe;
        assert_eq!(given_back, [stranger(1).to_string()]);
        assert!(machine.shared.snapshot.load().inbound.is_none());
    })
    .unwrap();
}

#[test]
fn subscriptions_are_bounded_by_giving_the_oldest_back() {
    run_local(async {
        let mut machine = Machine::new();
        machine.state.connected();
        for number in 0..ADDRESSES_MAX as u32 {
            machine.now += Duration::from_millis(1);
            drop(machine.ask(stranger(number)));
        }
        machine.requests();
        drop(machine.ask(stranger(1_000_000)));
        let request = machine.requests().pop().unwrap();
        assert_eq!(request.resource_names_subscribe, [stranger(1_000_000).to_string()]);
        assert!(request.resource_names_unsubscribe.contains(&stranger(0).to_string()));
        assert!(!request.resource_names_unsubscribe.contains(&stranger(4000).to_string()));
    })
    .unwrap();
}

#[test]
fn while_disconnected_a_full_table_refuses_instead_of_forgetting() {
    run_local(async {
        let mut machine = Machine::new();
        // Virtual addresses: the only ones that wait without a control plane.
        let vip = |number: u32| IpAddr::from(Ipv4Addr::from(0xf0f0_0000 + number));
        for number in 0..ADDRESSES_MAX as u32 {
            drop(machine.ask(vip(number + 10)));
        }
        let mut refused = machine.ask(vip(60_000));
        assert_eq!(refused.try_recv().unwrap().unwrap_err(), LookupError::Timeout);
    })
    .unwrap();
}

#[test]
fn who_gave_up_waiting_is_forgotten() {
    run_local(async {
        let mut machine = Machine::new();
        machine.state.connected();
        for _ in 0..WAITERS_MAX {
            drop(machine.ask(stranger(1)));
        }
        let mut over = machine.ask(stranger(1));
        assert_eq!(over.try_recv().unwrap().unwrap_err(), LookupError::Timeout);
        machine.pass(Duration::from_secs(30));
        let mut waits = machine.ask(stranger(1));
        assert!(waits.try_recv().is_err(), "there is room again");
        machine.tell(stranger(1));
        assert!(waits.try_recv().unwrap().is_ok());
    })
    .unwrap();
}

#[test]
fn what_was_given_back_is_read_from_disk_while_control_is_gone() {
    run_local(async {
        let second = Bench::start(given_back("given-back").await);
        assert!(second.snapshot().destination(&service("reviews")).is_none());
        assert_eq!(second.ask_destination("reviews").await.unwrap(), Ok(1));
    })
    .unwrap();
}

#[test]
fn a_name_that_was_given_back_is_read_from_disk_while_control_is_gone() {
    run_local(async {
        let second = Bench::start(given_back("given-back-name").await);
        let answer = second.shared.lookup.name("default", "reviews").await.unwrap();
        assert_eq!(answer.service.as_ref().map(|service| &service.name), Some(&service("reviews")));
        let absent = second.shared.lookup.name("default", "nobody").await;
        assert_eq!(absent.unwrap_err(), LookupError::Unreachable);
    })
    .unwrap();
}

/// The folder of a sidecar that has learned about `reviews` and has it in its file, but not in use,
/// as eviction leaves it.
async fn given_back(name: &str) -> Folder {
    let mut first = bench(name);
    let mut control = first.control();
    let mut session = control.introduced(1, &inbound()).await;
    first.learn_reviews(&mut session, 2).await;
    let lookup = first.shared.lookup.clone();
    let asked = tokio::task::spawn_local(async move { lookup.name("default", "reviews").await });
    session.subscription(ResourceType::Name).await;
    session.send(3, &[&name_answer("reviews", Some("reviews"))], true).await;
    session.acknowledged().await;
    asked.await.unwrap().unwrap();
    let dir = first.stop().await;
    let mut file = crate::saved::SavedFile::new(&dir.path().join("state"));
    let empty = crate::saved::SavedSet {
        mesh: "test".into(),
        workload: "client-1".into(),
        ..crate::saved::SavedSet::default()
    };
    file.save(empty);
    drop((session, control));
    dir
}
