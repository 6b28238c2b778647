//! Copies of live requests: they arrive whole and marked, and whatever becomes of them, the live request
//! never notices.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use heddle_model::discovery::{HttpRule, Mirror, MirrorCompare};
use heddle_runtime::clock;
use heddle_testkit::resources;

use crate::mesh::{End, GET, Mesh, OK, POST, since, with_standing_clock};

/// A rule that sends so many in a hundred requests a second time to the same service.
fn mirrored(percent: f64) -> impl FnOnce(&mut HttpRule) {
    move |rule| {
        let to = resources::target("reviews", None).to;
        rule.traffic.mirrors = vec![Mirror { to, percent, compare: MirrorCompare::default() }];
    }
}

/// Heads and bodies of what an application was asked.
type Seen = Rc<RefCell<Vec<(String, String)>>>;

/// What became of copies.
fn copies(mesh: &Mesh, result: &str) -> f64 {
    mesh.client.sum("heddle_mirrored_requests_total", &[result])
}

/// An application that keeps what it is asked, and answers live requests; copies it treats as told.
fn keeping(copies_are_answered: bool) -> (Mesh, Seen) {
    let seen = Seen::default();
    let kept = Rc::clone(&seen);
    let application = move |mut end: End| {
        let kept = Rc::clone(&kept);
        async move {
            while let Some((head, body)) = end.message().await {
                let is_copy = head.contains("x-heddle-mirror");
                kept.borrow_mut().push((head, body));
                if is_copy && !copies_are_answered {
                    std::future::pending::<()>().await;
                }
                end.send(OK).await;
            }
        }
    };
    (Mesh::ruled(&[20], mirrored(100.0), application), seen)
}

#[test]
fn a_copy_is_the_request_with_its_body_marked_and_for_a_shadow_of_its_host() {
    with_standing_clock(|| async {
        let (mesh, seen) = keeping(true);
        let (head, body) = mesh.call().ask(POST).await;
        assert!(head.starts_with("HTTP/1.1 200") && body == "ok", "{head}");
        clock::sleep(Duration::from_secs(1)).await;
        let seen = seen.borrow();
        let copy = seen.iter().find(|(head, _)| head.contains("x-heddle-mirror: true"));
        let (head, body) = copy.expect("a copy");
        assert!(head.starts_with("POST / HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: reviews-shadow\r\n") && body == "hi", "{head}{body}");
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert_eq!(copies(&mesh, "answered"), 1.0);
        assert_eq!(mesh.client.requests(&[]), 1.0, "a copy is nobody's call");
        assert_eq!(mesh.servers[0].requests(&[]), 2.0, "and yet the server had to do it");
    });
}

#[test]
fn a_mirror_that_never_answers_costs_the_live_request_nothing() {
    with_standing_clock(|| async {
        let (mesh, _) = keeping(false);
        let begun = clock::now();
        let mut client = mesh.call();
        for _ in 0..10 {
            assert_eq!(client.ask(GET).await.1, "ok");
        }
        assert_eq!(since(begun), Duration::ZERO);
        clock::sleep(Duration::from_secs(70)).await;
        assert_eq!(copies(&mesh, "failed"), 10.0, "their time is over");
    });
}

#[test]
fn a_mirror_that_does_not_keep_up_is_cut_and_the_upload_is_not() {
    with_standing_clock(|| async {
        const UPLOAD: usize = 4 << 20;
        let got = Rc::<Cell<usize>>::default();
        let counted = Rc::clone(&got);
        let application = move |mut end: End| {
            let counted = Rc::clone(&counted);
            async move {
                let Some(head) = end.head().await else { return };
                if head.contains("x-heddle-mirror") {
                    std::future::pending::<()>().await;
                }
                counted.set(end.body(UPLOAD).await);
                end.send(OK).await;
            }
        };
        let mesh = Mesh::ruled(&[20], mirrored(100.0), application);
        let mut client = mesh.call();
        let head = format!("POST / HTTP/1.1\r\nHost: reviews\r\nContent-Length: {UPLOAD}\r\n\r\n");
        client.send(&head).await;
        client.send(&"x".repeat(UPLOAD)).await;
        let (head, _) = client.message().await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200") && got.get() == UPLOAD, "{head} {}", got.get());
        clock::sleep(Duration::from_secs(1)).await;
        assert_eq!(copies(&mesh, "cut"), 1.0);
    });
}

#[test]
fn as_many_are_copied_as_the_rule_says() {
    with_standing_clock(|| async {
        let application = |mut end: End| async move {
            while end.message().await.is_some() {
                end.send(OK).await;
            }
        };
        let mesh = Mesh::ruled(&[20], mirrored(20.0), application);
        let mut client = mesh.call();
        for _ in 0..2_000 {
            client.ask(GET).await;
        }
        clock::sleep(Duration::from_secs(1)).await;
        let made = copies(&mesh, "answered");
        // Six times the standard deviation (17.9): once in 500 million runs by chance.
        assert!((400.0 - 108.0..=400.0 + 108.0).contains(&made), "{made}");
    });
}

#[test]
fn answers_of_copies_are_compared_with_those_of_clients() {
    with_standing_clock(|| async {
        let compare = MirrorCompare { status: true, latency: true, body: true };
        let rule = move |rule: &mut HttpRule| {
            let to = resources::target("reviews", None).to;
            rule.traffic.mirrors = vec![Mirror { to, percent: 100.0, compare }];
        };
        let mesh = Mesh::ruled(&[20], rule, |mut end: End| async move {
            while let Some((head, _)) = end.message().await {
                let is_copy = head.contains("x-heddle-mirror");
                if is_copy && head.starts_with("GET /slow") {
                    clock::sleep(Duration::from_secs(1)).await;
                }
                let other = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno";
                let fails = "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno";
                end.send(match () {
                    () if is_copy && head.starts_with("GET /other") => other,
                    () if is_copy && head.starts_with("GET /fails") => fails,
                    () => OK,
                })
                .await;
            }
        });
        let mut call = mesh.call();
        for path in ["/", "/slow", "/other", "/fails"] {
            let begun = clock::now();
            let (head, body) = call.ask(&GET.replace("/ ", &format!("{path} "))).await;
            assert!(head.starts_with("HTTP/1.1 200") && body == "ok", "{head}");
            assert!(
                since(begun) < Duration::from_millis(100),
                "the client does not wait for copies"
            );
        }
        clock::sleep(Duration::from_secs(2)).await;
        let count = |what: &str, result: &str| {
            let labels = [format!("compared=\"{what}\""), format!("result=\"{result}\"")];
            let labels = labels.each_ref().map(String::as_str);
            mesh.client.sum("heddle_mirror_comparisons_total", &labels)
        };
        assert_eq!((count("status", "same"), count("status", "differs")), (3.0, 1.0));
        assert_eq!((count("body", "same"), count("body", "differs")), (2.0, 2.0));
        assert_eq!((count("latency", "same"), count("latency", "slower")), (3.0, 1.0));
        let sums =
            mesh.client.sum("heddle_mirror_compared_latency_milliseconds_sum", &["of=\"copy\""]);
        assert!(sums >= 1_000.0, "{sums}");
    });
}

#[test]
fn a_copy_that_is_not_answered_is_missing_and_hurts_nobody() {
    with_standing_clock(|| async {
        let compare = MirrorCompare { status: true, ..MirrorCompare::default() };
        let rule = move |rule: &mut HttpRule| {
            let to = resources::target("reviews", None).to;
            rule.traffic.mirrors = vec![Mirror { to, percent: 100.0, compare }];
        };
        let mesh = Mesh::ruled(&[20], rule, |mut end: End| async move {
            while let Some((head, _)) = end.message().await {
                if head.contains("x-heddle-mirror") {
                    std::future::pending::<()>().await;
                }
                end.send(OK).await;
            }
        });
        let (head, _) = mesh.call().ask(POST).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        clock::sleep(Duration::from_secs(130)).await;
        let missing = ["compared=\"status\"", "result=\"missing\""];
        assert_eq!(mesh.client.sum("heddle_mirror_comparisons_total", &missing), 1.0);
    });
}
