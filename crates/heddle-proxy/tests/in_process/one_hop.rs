//! Retries of several hops do not multiply: only the one next to the failure tries again. And what a request
//! tells about the time it has.

use std::time::Duration;

use heddle_model::discovery::{Retries, Traffic};

use crate::mesh::{chain::Chain, with_standing_clock};

fn three_on_any_5xx() -> Traffic {
    let conditions = vec!["5xx".to_owned()];
    Traffic {
        retries: Some(Retries { attempts: 3, conditions, ..Retries::default() }),
        ..Traffic::default()
    }
}

/// Of a service that always fails a fifth of the requests is repeated, and 10 a second besides; the first
/// hundred of those are free at once. 3,000 requests in 6 s: at most 700 more.
const OFFERED: usize = 3_000;

#[test]
fn services_that_forward_request_ids_are_asked_again_by_the_last_hop_only() {
    with_standing_clock(|| async {
        let chain = Chain::under(&three_on_any_5xx());
        chain.counts.forwards.set(true);
        let asked = chain.offer(OFFERED).await;
        assert!(asked.iter().all(|times| (1.0..=1.25).contains(times)), "{asked:?}");
        // The first of all came before anybody knew that something may be in vain.
        assert!(asked[1] < 1.01 && asked[2] > 1.15, "{asked:?}");
        assert!(chain.client.sum("heddle_retries_left_to_others_total", &[]) == 0.0);
    });
}

#[test]
fn services_that_forward_nothing_are_kept_from_harm_by_budgets() {
    with_standing_clock(|| async {
        let chain = Chain::under(&three_on_any_5xx());
        let asked = chain.offer(OFFERED).await;
        assert!(asked.iter().all(|times| (1.0..=2.0).contains(times)), "{asked:?}");
    });
}

#[test]
fn a_marked_answer_is_not_asked_for_again_and_the_client_sees_no_mark() {
    with_standing_clock(|| async {
        let chain = Chain::under(&three_on_any_5xx());
        chain.counts.forwards.set(true);
        // From now on every hop knows that something may be in vain.
        chain.ask("").await;
        chain.counts.asked.iter().for_each(|asked| asked.set(0));
        let (head, _) = chain.ask("x-request-id: 7d5a\r\n").await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        assert!(!head.contains("x-heddle-mark"), "{head}");
        let asked: Vec<_> = chain.counts.asked.iter().map(std::cell::Cell::get).collect();
        assert_eq!(asked, [1, 1, 4]);
    });
}

#[test]
fn a_request_tells_how_long_it_may_take_and_is_bound_by_what_it_was_told() {
    with_standing_clock(|| async {
        let traffic = Traffic { timeout: Some(Duration::from_secs(5)), ..Traffic::default() };
        let chain = Chain::under(&traffic);
        chain.counts.forwards.set(true);
        let told = || {
            let heads = chain.counts.heads.borrow();
            let of = |head: &String| {
                let mut lines = head.lines();
                lines.find_map(|line| {
                    line.strip_prefix("x-envoy-expected-rq-timeout-ms: ").map(str::to_owned)
                })
            };
            heads.each_ref().map(of).map(|text| text.unwrap_or_default())
        };
        chain.ask("").await;
        assert_eq!(told(), ["5000", "5000", "5000"]);
        chain.ask("x-envoy-expected-rq-timeout-ms: 1200\r\n").await;
        assert_eq!(
            told(),
            ["1200", "1200", "1200"],
            "the sooner one holds, as far as it is passed on"
        );
        chain.ask("x-envoy-expected-rq-timeout-ms: 9000\r\ngrpc-timeout: 2S\r\n").await;
        assert_eq!(told()[0], "2000");
    });
}
