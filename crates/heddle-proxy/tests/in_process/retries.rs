//! What a rule asks to be sent again is, and nothing that may not be.

use std::{cell::RefCell, rc::Rc, time::Duration};

use heddle_model::discovery::{HttpRule, Retries};
use heddle_runtime::clock;

use crate::mesh::{End, GET, Mesh, OK, POST, seconds_since, since, with_standing_clock};

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: reviews\r\nContent-Length: 2\r\n\r\nhi";

fn retries(attempts: u32, on: &str) -> Retries {
    Retries {
        attempts,
        conditions: on.split(',').map(str::to_owned).collect(),
        ..Retries::default()
    }
}

fn by(retries: Retries) -> impl FnOnce(&mut HttpRule) {
    move |rule| rule.traffic.retries = Some(retries)
}

/// What the application was sent: heads in small letters, with their bodies.
type Seen = Rc<RefCell<Vec<String>>>;

/// A mesh under this rule whose application answers one request after the other with these, and with
/// the last one from then on; an empty one is no answer at all.
fn answering(lasts: &[u8], rule: Retries, answers: &'static [&'static str]) -> (Mesh, Seen) {
    let seen = Seen::default();
    let told = Rc::clone(&seen);
    let mesh = Mesh::ruled(lasts, by(rule), move |mut end: End| {
        let seen = Rc::clone(&told);
        async move {
            while let Some((head, body)) = end.message().await {
                let number = seen.borrow().len().min(answers.len() - 1);
                seen.borrow_mut().push(format!("{}{body}", head.to_ascii_lowercase()));
                match answers[number] {
                    "" => drop(end.ended().await),
                    answer => end.send(answer).await,
                }
            }
        }
    });
    (mesh, seen)
}

#[test]
fn a_get_is_sent_again_until_it_is_answered_and_says_how_often() {
    with_standing_clock(|| async {
        let (mesh, seen) = answering(&[20], retries(3, "5xx"), &[BUSY, BUSY, OK]);
        let begun = clock::now();
        let (head, body) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body == "ok", "{head}{body}");
        let seen = seen.borrow();
        for (number, request) in (1..).zip(&*seen) {
            assert!(request.contains(&format!("x-envoy-attempt-count: {number}\r\n")), "{request}");
        }
        assert_eq!(seen.len(), 3);
        assert!(since(begun) <= Duration::from_millis(25 + 75 + 10), "{:?}", since(begun));
        assert_eq!(mesh.client.sum("heddle_retries_total", &["reason=\"status\""]), 2.0);
        assert_eq!(mesh.client.requests(&["response_code=\"200\"", "response_flags=\"-\""]), 1.0);
        assert_eq!(mesh.client.requests(&[]), 1.0, "it is one request");
    });
}

#[test]
fn the_last_answer_is_the_answer() {
    with_standing_clock(|| async {
        let (mesh, seen) = answering(&[20], retries(2, "gateway-error"), &[BUSY]);
        let (head, body) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 503 ") && body == "busy", "{head}{body}");
        assert!(!head.contains("x-heddle-refusal"), "{head}");
        assert_eq!(seen.borrow().len(), 3);
        assert_eq!(mesh.client.requests(&["response_flags=\"URX\""]), 1.0);
    });
}

#[test]
fn a_put_is_sent_again_whole_and_a_post_not_at_all_unless_the_author_says_so() {
    let any_method = |any_method| Retries { any_method, ..retries(1, "5xx,reset") };
    for (request, any, sent) in [(PUT, false, 2), (POST, false, 1), (POST, true, 2)] {
        with_standing_clock(move || async move {
            let (mesh, seen) = answering(&[20], any_method(any), &[BUSY, OK]);
            let (head, _) = mesh.call().ask(request).await;
            let status = if sent == 2 { "HTTP/1.1 200 " } else { "HTTP/1.1 503 " };
            assert!(head.starts_with(status), "{head}");
            let seen = seen.borrow();
            assert_eq!(seen.len(), sent, "{request}");
            assert!(seen.iter().all(|one| one.ends_with("\r\n\r\nhi")), "{seen:?}");
        });
    }
}

#[test]
fn a_post_that_reached_nobody_is_sent_again() {
    with_standing_clock(|| async {
        let (mesh, seen) = answering(&[20, 21], retries(2, "connect-failure"), &[OK]);
        mesh.desert(20);
        for _ in 0..8 {
            let (head, _) = mesh.call().ask(POST).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        }
        assert_eq!(seen.borrow().len(), 8);
    });
}

#[test]
fn no_attempts_means_not_even_those_that_are_made_unasked() {
    with_standing_clock(|| async {
        let (mesh, _) = answering(&[20], retries(0, "5xx"), &[OK]);
        mesh.desert(20);
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("connect-failed"), "{head}");
        assert_eq!(mesh.client.sum("heddle_retries_total", &[]), 0.0);
    });
}

#[test]
fn an_attempt_that_takes_too_long_is_given_up_for_the_next() {
    let rule = || Retries { per_try_timeout: Some(Duration::from_secs(1)), ..retries(2, "reset") };
    with_standing_clock(|| async {
        let (mesh, seen) = answering(&[20], rule(), &["", OK]);
        let begun = clock::now();
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!((seconds_since(begun), seen.borrow().len()), (1, 2));
        assert_eq!(mesh.client.sum("heddle_retries_total", &["reason=\"timeout\""]), 1.0);
    });
    with_standing_clock(|| async {
        let (mesh, seen) = answering(&[20], rule(), &[""]);
        let begun = clock::now();
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
        assert_eq!((seconds_since(begun), seen.borrow().len()), (3, 3));
    });
    with_standing_clock(|| async {
        let (mesh, seen) = answering(&[20], rule(), &["", OK]);
        let (head, _) = mesh.call().ask(POST).await;
        assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
        assert_eq!(seen.borrow().len(), 1, "a POST that may be at work is not repeated");
    });
}

#[test]
fn the_limit_on_all_attempts_goes_before_the_next_attempt() {
    with_standing_clock(|| async {
        let rule = |rule: &mut HttpRule| {
            let limit = Some(Duration::from_secs(2));
            rule.traffic.retries =
                Some(Retries { per_try_timeout: limit.map(|l| l / 2), ..retries(9, "reset") });
            rule.traffic.timeout = Some(Duration::from_millis(2_500));
        };
        let mesh = Mesh::ruled(&[20], rule, |mut end: End| async move {
            end.message().await.expect("a request");
            let _given_up = end.ended().await;
        });
        let begun = clock::now();
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
        assert_eq!(since(begun).as_millis() / 100, 25);
    });
}

#[test]
fn a_further_attempt_goes_to_another_endpoint() {
    with_standing_clock(|| async {
        let (mesh, seen) = answering(&[20, 21], retries(1, "5xx"), &[BUSY, OK]);
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(seen.borrow().len(), 2);
        for server in &mesh.servers {
            assert_eq!(server.requests(&["reporter=\"destination\""]), 1.0, "one each");
        }
    });
}

#[test]
fn retries_of_a_service_that_only_fails_stay_within_the_budget() {
    const REQUESTS: usize = 1_000;
    with_standing_clock(|| async {
        let (mesh, seen) = answering(&[20], retries(3, "5xx"), &[BUSY]);
        let (begun, mut end) = (clock::now(), mesh.call());
        for _ in 0..REQUESTS {
            let (head, _) = end.ask(GET).await;
            assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        }
        let again = seen.borrow().len() - REQUESTS;
        // What is free may be spent once in each ten seconds that this took.
        let free = 100 * (2 + seconds_since(begun) as usize / 10);
        assert!(again <= REQUESTS / 5 + free, "{again} in {} s", seconds_since(begun));
        assert!(again > 100, "{again}");
        assert!(mesh.client.requests(&["response_flags=\"UO\""]) > 0.0);
    });
}

#[test]
fn only_what_the_rule_names_is_sent_again() {
    with_standing_clock(|| async {
        const LIMITED: &str = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n";
        let by_status = Retries { statuses: vec![429], ..retries(1, "retriable-status-codes") };
        let (mesh, seen) = answering(&[20], by_status, &[LIMITED, BUSY, OK]);
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(seen.borrow().len(), 2);
    });
}

#[test]
fn a_further_attempt_says_how_much_time_is_left() {
    with_standing_clock(|| async {
        let slow = Rc::new(RefCell::new(Vec::new()));
        let told = Rc::clone(&slow);
        let rule = |rule: &mut HttpRule| {
            let backoff = Some(Duration::from_millis(1));
            rule.traffic.retries = Some(Retries { backoff, ..retries(2, "5xx") });
            rule.traffic.timeout = Some(Duration::from_secs(5));
        };
        let mesh = Mesh::ruled(&[20], rule, move |mut end: End| {
            let seen = Rc::clone(&told);
            async move {
                while let Some((head, _)) = end.message().await {
                    seen.borrow_mut().push(head.to_ascii_lowercase());
                    clock::sleep(Duration::from_secs(1)).await;
                    end.send(BUSY).await;
                }
            }
        });
        mesh.call().ask(GET).await;
        let name = "x-envoy-expected-rq-timeout-ms: ";
        let heads = slow.borrow();
        let left = heads.iter().filter_map(|head| {
            head.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok())
        });
        let left: Vec<u64> = left.collect();
        assert_eq!(left.len(), 3, "{heads:?}");
        for (left, most) in left.iter().zip([5_000, 4_000, 3_000]) {
            assert!((most - 50..=most).contains(left), "{left} of {most}");
        }
    });
}
