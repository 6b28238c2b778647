//! Streams of several sidecars, played by pairs of ends within the process.

use std::{cell::RefCell, collections::BTreeMap as Map};

use heddle_model::{Addresses, Identity, Locality, ServiceName, Workload, WorkloadId};
use heddle_runtime::{
    local_http::{self, Opened},
    task::run_local,
};
use heddle_wire::local::tap_api::{Lost, Name, Party, TappedCall};
use http_body_util::BodyExt;
use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::tap::served;

/// Sidecars that are played.
#[derive(Clone, Default)]
struct Played {
    there: Rc<RefCell<Vec<WorkloadView>>>,
    /// The other ends of what was opened, with what was asked.
    opened: Rc<RefCell<Map<String, (DuplexStream, String)>>>,
    refuses: Rc<RefCell<bool>>,
}

impl Ways for Played {
    async fn workloads(&self) -> Result<Vec<WorkloadView>, String> {
        Ok(self.there.borrow().clone())
    }

    async fn open(&self, workload: &WorkloadView, path: &str) -> Result<Opened, String> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (played, id, asked) = (self.clone(), workload.workload.id.0.clone(), path.to_owned());
        drop(task::spawn_contained("played", async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(theirs.read_u8().await.unwrap());
            }
            let answer = match *played.refuses.borrow() {
                true => "HTTP/1.1 429 Too Many\r\ncontent-length: 4\r\n\r\nfull",
                false => "HTTP/1.1 200 OK\r\n\r\n",
            };
            theirs.write_all(answer.as_bytes()).await.unwrap();
            played.opened.borrow_mut().insert(id, (theirs, asked));
        }));
        local_http::open_on("played", ours, path, ("x-heddle-tap", "1"))
            .await
            .map_err(|error| error.to_string())
    }
}

impl Played {
    fn of(ids: &[&str]) -> Self {
        let played = Self::default();
        *played.there.borrow_mut() = ids.iter().map(|id| workload(id)).collect();
        played
    }

    async fn tells(&self, id: &str, line: &TapLine) {
        let text = serde_json::to_string(line).unwrap() + "\n";
        let (mut stream, path) = self.opened.borrow_mut().remove(id).unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        self.opened.borrow_mut().insert(id.to_owned(), (stream, path));
    }

    fn asked(&self, id: &str) -> String {
        self.opened.borrow()[id].1.clone()
    }
}

/// A workload `NAME-1` of the service `NAME`, at an address that ends with the length of the name.
fn workload(id: &str) -> WorkloadView {
    let name = id.trim_end_matches("-1");
    let octet = u8::try_from(name.len()).unwrap();
    let workload = Workload {
        id: WorkloadId(id.to_owned()),
        name: format!("{name}-v1"),
        namespace: "default".to_owned(),
        identity: Identity::local("default", name),
        services: [ServiceName::new(name, "default").unwrap()].into(),
        version: "v1".to_owned(),
        labels: Map::new(),
        addresses: Addresses::V4([10, 0, 0, octet].into()),
        ports: Map::new(),
        locality: Locality::default(),
    };
    WorkloadView { workload, connected: true, generation: 1, sidecar: true }
}

fn call(side: Side, from: &str, to: &str) -> TappedCall {
    let party = |id: &str| Party {
        service: Some(format!("{}.default.svc.cluster.local", id.trim_end_matches("-1"))),
        id: Some(id.to_owned()),
        ..Party::default()
    };
    let sidecar = if side == Side::Client { from } else { to }.to_owned();
    let protocol = "HTTP/1.1".to_owned();
    TappedCall {
        side,
        sidecar,
        protocol,
        from: party(from),
        to: party(to),
        ..TappedCall::default()
    }
}

fn line(call: &TappedCall) -> TapLine {
    TapLine::Call(Box::new(call.clone()))
}

fn to(name: &str) -> Asked {
    let to = Some(Name::parse(name).unwrap());
    Asked { filter: TapFilter { to, ..TapFilter::default() }, sides: Sides::Once }
}

async fn notice(tapped: &mut Tapped) -> String {
    match tapped.lines.recv().await.unwrap() {
        TapLine::Notice(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn sidecars_are_asked_for_the_sides_that_they_are_concerned_with() {
    run_local(async {
        let played = Played::of(&["web-1", "reviews-1", "job-1"]);
        let mut tapped = follow(played.clone(), to("reviews"));
        assert_eq!(notice(&mut tapped).await, "listening to 3 sidecars");
        assert!(!played.asked("reviews-1").contains("side="));
        assert!(played.asked("web-1").starts_with("/tap?side=client&unseen=1&to=reviews"));
        let mut asked = to("reviews");
        asked.filter.from = Some(Name::parse("web").unwrap());
        asked.sides = Sides::Server;
        let played = Played::of(&["web-1", "reviews-1", "job-1"]);
        let mut tapped = follow(played.clone(), asked);
        assert_eq!(notice(&mut tapped).await, "listening to 1 sidecar");
        assert!(played.asked("reviews-1").starts_with("/tap?side=server&to=reviews&from=web"));
    })
    .unwrap();
}

#[test]
fn what_both_sides_see_is_told_once_and_what_one_sees_is_not_lost() {
    run_local(async {
        let played = Played::of(&["web-1", "reviews-1"]);
        let mut bare = workload("bare-1");
        bare.sidecar = false;
        played.there.borrow_mut().push(bare);
        let mut tapped = follow(played.clone(), Asked::default());
        assert_eq!(notice(&mut tapped).await, "listening to 2 sidecars");
        assert!(!played.asked("web-1").contains("unseen"), "one has no sidecar");
        let mut seen = call(Side::Client, "web-1", "reviews-1");
        seen.seen_by_callee = true;
        let server = call(Side::Server, "web-1", "reviews-1");
        let refused = call(Side::Client, "web-1", "reviews-1");
        let mut to_bare = call(Side::Client, "web-1", "bare-1");
        to_bare.seen_by_callee = true;
        for told in [&seen, &refused, &to_bare] {
            played.tells("web-1", &line(told)).await;
        }
        played.tells("reviews-1", &line(&server)).await;
        let mut come = Vec::new();
        for _ in 0..3 {
            come.push(tapped.lines.recv().await.unwrap());
        }
        for told in [server, refused, to_bare] {
            assert!(come.contains(&line(&told)), "{told:?}");
        }
    })
    .unwrap();
}

#[test]
fn a_caller_is_known_by_its_address_where_its_callee_did_not_know_it_yet() {
    run_local(async {
        let played = Played::of(&["web-1", "reviews-1"]);
        let mut asked = to("reviews");
        asked.filter.from = Some(Name::parse("web").unwrap());
        let mut tapped = follow(played.clone(), asked);
        notice(&mut tapped).await;
        for address in ["10.0.0.9:4000", "10.0.0.3:4000"] {
            let mut unknown = call(Side::Server, "web-1", "reviews-1");
            unknown.from = Party { address: Some(address.to_owned()), ..Party::default() };
            played.tells("reviews-1", &line(&unknown)).await;
        }
        match tapped.lines.recv().await.unwrap() {
            TapLine::Call(call) => {
                assert_eq!(call.from.id.as_deref(), Some("web-1"));
                assert_eq!(call.from.address.as_deref(), Some("10.0.0.3:4000"));
            }
            other => panic!("{other:?}"),
        }
    })
    .unwrap();
}

#[test]
fn workloads_are_followed_as_they_come_and_go_and_what_is_lost_is_told() {
    run_local(async {
        let played = Played::of(&["web-1"]);
        let mut tapped = follow(played.clone(), Asked::default());
        assert_eq!(notice(&mut tapped).await, "listening to 1 sidecar");
        let lost = TapLine::Lost(Lost { calls: 3, sidecar: "web-1".to_owned() });
        played.tells("web-1", &lost).await;
        assert_eq!(tapped.lines.recv().await, Some(lost));
        *played.there.borrow_mut() = vec![workload("reviews-1")];
        assert_eq!(notice(&mut tapped).await, "reviews-1 is listened to, too");
        // The last calls of who has just gone are told, and then it is let go of.
        let last = call(Side::Client, "web-1", "elsewhere-1");
        played.tells("web-1", &line(&last)).await;
        assert_eq!(tapped.lines.recv().await, Some(line(&last)));
        let (mut web, _) = played.opened.borrow_mut().remove("web-1").unwrap();
        let mut rest = Vec::new();
        web.read_to_end(&mut rest).await.unwrap();
        let server = call(Side::Server, "web-1", "reviews-1");
        played.tells("reviews-1", &line(&server)).await;
        assert_eq!(tapped.lines.recv().await, Some(line(&server)));
    })
    .unwrap();
}

#[test]
fn a_sidecar_that_refuses_is_told_of_and_asked_again() {
    run_local(async {
        let played = Played::of(&["web-1"]);
        *played.refuses.borrow_mut() = true;
        let mut tapped = follow(played.clone(), Asked::default());
        assert_eq!(
            notice(&mut tapped).await,
            "the calls that web-1 sees are missing for now: full"
        );
        assert_eq!(notice(&mut tapped).await, "listening to 0 of 1 sidecars");
        *played.refuses.borrow_mut() = false;
        assert_eq!(notice(&mut tapped).await, "web-1 is listened to again");
    })
    .unwrap();
}

#[test]
fn who_no_longer_reads_lets_go_of_all_sidecars() {
    run_local(async {
        let played = Played::of(&["web-1"]);
        let mut tapped = follow(played.clone(), Asked::default());
        notice(&mut tapped).await;
        drop(tapped);
        let (mut web, _) = played.opened.borrow_mut().remove("web-1").unwrap();
        let mut rest = Vec::new();
        web.read_to_end(&mut rest).await.unwrap();
    })
    .unwrap();
}

#[test]
fn pages_that_look_are_few_and_each_gives_its_place_back() {
    run_local(async {
        let nowhere = std::path::Path::new("/nowhere");
        let readers = served::Readers::default();
        let begin = |query: &str| served::begin(Some(nowhere), &readers, query);
        let mut pages: Vec<_> =
            (0..crate::limits::TAP_READERS_MAX).map(|_| begin("").unwrap()).collect();
        let refused = |query: &str| begin(query).unwrap_err().0;
        assert_eq!(refused(""), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused("status=6xx"), StatusCode::BAD_REQUEST);
        // Whatever is wrong in the mesh, a page is told something.
        let frame = pages[0].body_mut().frame().await.unwrap().unwrap();
        let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        assert!(text.contains("\"notice\":\"who comes and goes is not known"), "{text}");
        pages.pop();
        assert!(begin("").is_ok());
    })
    .unwrap();
}

#[test]
fn the_end_of_one_that_has_left_ends_nothing_else() {
    run_local(async {
        let (out, _lines) = mpsc::channel(8);
        let mut follower = Follower::new(Played::default(), Asked::default(), out);
        let ended = Event::Ended("gone-1".to_owned(), End::Over);
        assert_eq!(follower.heard(ended).await, Some(()));
    })
    .unwrap();
}

#[test]
fn a_stream_that_broke_off_is_told_of_when_it_goes_on() {
    run_local(async {
        let played = Played::of(&["web-1"]);
        let mut tapped = follow(played.clone(), Asked::default());
        assert_eq!(notice(&mut tapped).await, "listening to 1 sidecar");
        let call = call(Side::Server, "front-1", "web-1");
        played.tells("web-1", &line(&call)).await;
        assert_eq!(tapped.lines.recv().await, Some(line(&call)));
        let (mut web, _) = played.opened.borrow_mut().remove("web-1").unwrap();
        web.write_all(b"no line\n").await.unwrap();
        let told = notice(&mut tapped).await;
        assert_eq!(told, "web-1 is listened to again; calls in between are missing");
    })
    .unwrap();
}
