//! Of whose words are taken, and that each who asks gets a scrape of which nothing is counted twice.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    thread,
};

use super::*;
use crate::{
    config::{DashboardListener, ObserveConfig},
    control::ControlSource,
    rounds, scrape,
};

/// Nobody's port 15090 but this test's.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 15, 90, 7);

fn desk() -> (Desk, mpsc::Receiver<Ask>, Rc<ObserveConfig>) {
    let nobody = ControlSource::Socket(PathBuf::from("/nonexistent/control.sock"));
    let dashboard = DashboardListener::Bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let config = Rc::new(ObserveConfig::new("mesh", nobody, dashboard));
    let view = Rc::new(RefCell::new(View::default()));
    let census = Rc::new(Census::new(Rc::clone(&view), Rc::clone(&config)));
    let (asks, asked) = mpsc::channel(limits::LAST_SCRAPES_MAX);
    (Desk::new(view, census, asks), asked, config)
}

fn about(service: &str) -> String {
    serde_json::json!({
        "workload": "job-1", "name": "job", "namespace": "default", "service": service,
        "version": "", "address": ADDRESS,
    })
    .to_string()
}

fn request(body: &str) -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::from(body.to_owned()));
    Request::post(LAST_SCRAPE).body(body).unwrap()
}

#[test]
fn in_a_cluster_nobody_is_believed_but_the_control_plane() {
    let told = task::run_local(async {
        let (desk, mut asked, _) = desk();
        let answer = desk.answer(request(&about("job")), Believed::Control).await;
        assert!(asked.try_recv().is_err(), "nobody is to be scraped");
        assert!(desk.view.borrow().roster.members.is_empty());
        answer.status()
    });
    assert_eq!(told.unwrap(), StatusCode::NOT_FOUND);
}

#[test]
fn what_is_no_such_question_is_refused() {
    let told = task::run_local(async {
        let (desk, _asked, _) = desk();
        let long = about(&"a".repeat(LAST_SCRAPE_BYTES_MAX));
        for wrong in ["", "{}", "[1]", &about("no service"), &long] {
            let answer = desk.answer(request(wrong), Believed::Sidecar).await;
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{wrong}");
        }
    });
    told.unwrap();
}

/// Serves metrics like a sidecar's, in which each scrape finds ten calls more.
fn sidecar() {
    let listener = TcpListener::bind((ADDRESS, scrape::PORT)).unwrap();
    thread::spawn(move || {
        for (number, stream) in (1..).zip(listener.incoming()) {
            let mut stream = stream.unwrap();
            let _head = stream.read(&mut [0; 4096]).unwrap();
            let body = format!(
                "istio_requests_total{{reporter=\"source\",response_code=\"200\"}} {}\n",
                10 * number
            );
            let length = body.len();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
        }
    });
}

#[test]
fn each_who_asks_gets_a_scrape_that_began_later_and_nothing_is_counted_twice() {
    sidecar();
    let calls = task::run_local(async {
        let (desk, asked, config) = desk();
        let scraping = rounds::keep_scraping(Rc::clone(&desk.view), config, asked);
        drop(task::spawn_contained("scrape rounds", scraping));
        let body = about("job");
        let ask = || desk.answer(request(&body), Believed::Sidecar);
        let (one, other) = tokio::join!(ask(), ask());
        assert_eq!(
            (one.status(), other.status()),
            (StatusCode::NO_CONTENT, StatusCode::NO_CONTENT)
        );
        assert_eq!(ask().await.status(), StatusCode::NO_CONTENT);
        let view = desk.view.borrow();
        assert!(!view.roster.members["job-1"].present);
        let period = view.store.period(60, None, 60, false);
        let mut calls = 0.0;
        view.store.each(&period, |_, _, counts| calls += counts[0].1);
        calls
    });
    let calls = calls.unwrap();
    assert!((calls - 30.0_f32).abs() < 1e-3, "{calls} calls are counted in three scrapes");
}
