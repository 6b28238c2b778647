//! The client in a pod, against a control plane over TLS that a test drives by hand.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::Ordering},
};

use heddle_model::WorkloadId;
use heddle_runtime::{
    clock,
    task::{run_local, spawn_contained},
};
use heddle_testkit::{
    control::{
        Session,
        secure::{Answers, FakeSecureControl},
    },
    fixture::pod_config,
    resources::inbound_of,
    tls::Authority,
    wait::PATIENCE,
};
use heddle_wire::discovery::ResourceType;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tonic::Status;

use super::Discovery;
use crate::{Shared, metrics::Metrics, testing::Folder};

const POD: &str = "shop.web-1";

struct Bench {
    folder: Folder,
    authorities: Vec<Arc<Authority>>,
    answers: Arc<Mutex<Answers>>,
    control: FakeSecureControl,
}

/// A sidecar's discovery client and what keeps its certificate.
struct Client {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    _ends: (watch::Receiver<Option<tonic::transport::Channel>>, mpsc::Sender<oneshot::Sender<()>>),
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Bench {
    async fn new() -> Self {
        let folder = Folder::new("secure-discovery");
        let authorities = vec![Arc::new(Authority::new("mesh"))];
        let answers = Answers::of(POD);
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let control = FakeSecureControl::start(any, &authorities, &answers).await;
        std::fs::write(folder.join("root-cert.pem"), authorities[0].pem()).unwrap();
        std::fs::write(folder.join("token"), "first token\n").unwrap();
        Self { folder, authorities, answers, control }
    }

    fn client(&self) -> Client {
        let config = pod_config(self.folder.path(), self.control.address);
        let metrics = Arc::new(Metrics::new(&config));
        let (shared, ends) = Shared::new(config, metrics);
        let shared = Arc::new(shared);
        let (channel, connected) = watch::channel(None);
        let (save, saves) = mpsc::channel(1);
        let (client, certifier) = Discovery::new(shared.clone(), ends.asks, channel, saves);
        let certifier = certifier.expect("a pod's sidecar needs a certificate");
        let tasks = vec![
            spawn_contained("discovery", client.run()),
            spawn_contained("certificate", certifier.run()),
        ];
        Client { shared, tasks, _ends: (connected, save) }
    }

    async fn session(&mut self) -> Session {
        self.control.discovery.session().await
    }

    async fn token(&mut self) -> String {
        clock::within(PATIENCE, self.control.tokens.recv()).await.flatten().expect("a request")
    }

    /// Another control plane at the same address.
    async fn restart(&mut self) {
        let address = self.control.address;
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let other = FakeSecureControl::start(any, &self.authorities, &self.answers).await;
        drop(std::mem::replace(&mut self.control, other));
        let free = async {
            while tokio::net::TcpListener::bind(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        clock::within(PATIENCE, free).await.expect("the address is free again");
        self.control = FakeSecureControl::start(address, &self.authorities, &self.answers).await;
    }
}

fn identified(client: &Client) -> bool {
    client.shared.identified.load(Ordering::Relaxed)
}

#[test]
fn the_first_certificate_comes_by_token_and_the_stream_shows_it() {
    run_local(async {
        let mut bench = Bench::new().await;
        let client = bench.client();
        assert!(!identified(&client));
        assert_eq!(bench.token().await, "first token");
        let mut session = bench.session().await;
        assert!(identified(&client));
        let first = session.request().await;
        assert_eq!(first.node.unwrap().id, POD);
        assert!(session.shown.is_some());
        assert!(!client.shared.lookup.is_down());
    })
    .unwrap();
}

#[test]
fn a_sidecar_that_is_started_again_has_its_certificate_still() {
    run_local(async {
        let mut bench = Bench::new().await;
        let client = bench.client();
        let shown = bench.session().await.shown;
        drop(client);
        let client = bench.client();
        assert!(identified(&client), "before anybody was asked");
        assert_eq!(bench.session().await.shown, shown);
        assert_eq!(bench.token().await, "first token");
        assert!(bench.control.tokens.is_empty(), "it was asked for once");
    })
    .unwrap();
}

#[test]
fn a_certificate_that_is_due_is_renewed_with_the_token_of_now_and_the_stream_opened_anew() {
    run_local(async {
        let mut bench = Bench::new().await;
        let now = clock::unix_now().as_secs();
        bench.answers.lock().unwrap().span = (now - 24 * 3600, now + 3600);
        let client = bench.client();
        let first = bench.session().await;
        std::fs::write(bench.folder.join("token"), "second token").unwrap();
        while bench.token().await != "second token" {}
        // What comes next is good for long.
        bench.answers.lock().unwrap().span = (now, now + 24 * 3600);
        let shown = loop {
            let session = bench.session().await;
            if session.shown != first.shown && bench.control.discovery.is_quiet() {
                break session.shown;
            }
        };
        assert!(shown.is_some());
        assert!(identified(&client));
    })
    .unwrap();
}

#[test]
fn one_that_the_control_plane_does_not_believe_is_replaced() {
    run_local(async {
        let mut bench = Bench::new().await;
        let client = bench.client();
        let session = bench.session().await;
        let first = session.shown.clone();
        session.end(Status::unauthenticated("it expired at 2020-01-01T00:00:00Z")).await;
        let shown = loop {
            let session = bench.session().await;
            if session.shown != first {
                break session.shown;
            }
            // The old one once more, before the new one was there.
            session.end(Status::unauthenticated("it expired at 2020-01-01T00:00:00Z")).await;
        };
        assert!(shown.is_some());
        assert!(identified(&client));
    })
    .unwrap();
}

#[test]
fn a_token_of_another_pod_and_none_at_all_leave_it_not_ready_until_they_are_right() {
    run_local(async {
        let mut bench = Bench::new().await;
        std::fs::remove_file(bench.folder.join("token")).unwrap();
        bench.answers.lock().unwrap().workload = WorkloadId::of_pod("bank", "vault-0").0;
        let client = bench.client();
        std::fs::write(bench.folder.join("token"), "of another pod").unwrap();
        assert_eq!(bench.token().await, "of another pod");
        assert_eq!(bench.token().await, "of another pod", "it is tried again");
        assert!(!identified(&client));
        bench.answers.lock().unwrap().workload = POD.to_owned();
        assert!(bench.session().await.shown.is_some());
        assert!(identified(&client));
    })
    .unwrap();
}

#[test]
fn a_refused_token_is_tried_again_since_it_is_replaced_by_who_mounts_it() {
    run_local(async {
        let mut bench = Bench::new().await;
        let refusal = Status::unauthenticated("the token is not accepted: it has expired");
        bench.answers.lock().unwrap().refusal = Some(refusal);
        let client = bench.client();
        assert_eq!(bench.token().await, "first token");
        std::fs::write(bench.folder.join("token"), "next token").unwrap();
        while bench.token().await != "next token" {}
        assert!(!identified(&client));
        bench.answers.lock().unwrap().refusal = None;
        bench.session().await;
        assert!(identified(&client));
    })
    .unwrap();
}

#[test]
fn while_there_is_no_certificate_nothing_that_can_pass_waits() {
    run_local(async {
        let mut bench = Bench::new().await;
        bench.answers.lock().unwrap().refusal = Some(Status::unavailable("not now"));
        let client = bench.client();
        bench.token().await;
        let down = async {
            while !client.shared.lookup.is_down() {
                tokio::task::yield_now().await;
            }
        };
        clock::within(PATIENCE, down).await.expect("it is known to be down");
        let ip = "10.96.0.10".parse().unwrap();
        let owner = client.shared.lookup.address(ip).await.unwrap();
        assert!(matches!(owner, crate::snapshot::AddressOwner::NotKnown));
    })
    .unwrap();
}

#[test]
fn the_control_plane_may_restart_and_its_root_may_change_while_the_file_says_so() {
    run_local(async {
        let mut bench = Bench::new().await;
        let client = bench.client();
        let shown = {
            let mut session = bench.session().await;
            session.subscription(ResourceType::Inbound).await;
            session.send(1, &[&inbound_of(POD, "web", 8080)], true).await;
            session.shown
        };
        bench.restart().await;
        assert_eq!(bench.session().await.shown, shown, "the same certificate does");
        // Another root follows: its servers are not spoken to until the file has it.
        bench.authorities.insert(0, Arc::new(Authority::new("another mesh")));
        bench.restart().await;
        std::fs::write(bench.folder.join("root-cert.pem"), bench.authorities[0].pem()).unwrap();
        assert_eq!(bench.session().await.shown, shown, "its certificate is still believed");
        assert!(identified(&client));
    })
    .unwrap();
}
