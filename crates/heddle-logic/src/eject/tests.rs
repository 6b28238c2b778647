//! Counts, ejections and how they end, on a clock that is an argument.

use heddle_model::discovery::{FailurePercentage, SuccessRate};
use proptest::prelude::*;

use super::*;

#[expect(clippy::disallowed_methods, reason = "a point to count from; the crate has no clock")]
fn start() -> Instant {
    Instant::now()
}

fn rule() -> OutlierDetection {
    OutlierDetection { consecutive_5xx: 3, ..OutlierDetection::default() }
}

/// What each of these says, of one endpoint.
fn said(rule: &OutlierDetection, seen: &[Seen]) -> Vec<Option<Reason>> {
    let mut health = Health::default();
    seen.iter().map(|seen| health.saw(rule, *seen)).collect()
}

fn answers(statuses: &[u16]) -> Vec<Seen> {
    statuses.iter().copied().map(Seen::Answer).collect()
}

#[test]
fn errors_in_a_row_take_it_out_and_one_success_between_them_does_not() {
    let out = Some(Reason::Consecutive5xx);
    assert_eq!(said(&rule(), &answers(&[500, 503, 501])), [None, None, out]);
    assert_eq!(said(&rule(), &answers(&[500, 500, 404, 500, 500])), [None; 5]);
    let again = said(&rule(), &answers(&[500, 500, 500, 500, 500, 500]));
    assert_eq!(again, [None, None, out, None, None, out], "the count begins anew");
}

#[test]
fn gateway_errors_are_counted_apart_and_an_error_that_is_none_of_them_begins_them_anew() {
    let rule = OutlierDetection { consecutive_5xx: 0, consecutive_gateway: 2, ..rule() };
    assert_eq!(said(&rule, &answers(&[500; 9])), [None; 9]);
    assert_eq!(said(&rule, &answers(&[502, 500, 503])), [None; 3]);
    let out = Some(Reason::ConsecutiveGateway);
    assert_eq!(said(&rule, &answers(&[502, 504])), [None, out]);
    assert_eq!(said(&rule, &[Seen::Unreachable, Seen::TimedOut]), [None, out]);
}

#[test]
fn failures_to_connect_count_as_answers_unless_they_are_split_off() {
    let mixed = [Seen::Unreachable, Seen::TimedOut, Seen::Answer(500)];
    assert_eq!(said(&rule(), &mixed), [None, None, Some(Reason::Consecutive5xx)]);
    let split =
        OutlierDetection { splits_local_origin: true, consecutive_local_origin: 2, ..rule() };
    let out = Some(Reason::ConsecutiveLocalOrigin);
    assert_eq!(said(&split, &mixed), [None, out, None]);
    let reached = [Seen::Unreachable, Seen::Answer(500), Seen::Unreachable];
    assert_eq!(said(&split, &reached), [None; 3], "an answer, whatever it says, was reached");
    let connected = [Seen::Unreachable, Seen::Connected, Seen::Unreachable];
    assert_eq!(said(&split, &connected), [None; 3]);
}

#[test]
fn a_count_of_zero_is_off() {
    let rule = OutlierDetection { consecutive_5xx: 0, ..rule() };
    assert_eq!(said(&rule, &answers(&[503; 50])), [None; 50]);
}

#[test]
fn it_comes_back_through_one_request_at_a_time() {
    let (rule, now) = (rule(), start());
    let mut health = Health::default();
    health.eject(&rule, Reason::Consecutive5xx, now);
    let due = now + rule.base_ejection_time;
    assert_eq!(health.standing(due - Duration::from_millis(1)), Standing::Out);
    assert!(!health.try_out(due - Duration::from_millis(1)));
    assert_eq!(health.standing(due), Standing::Due);
    assert!(health.try_out(due));
    assert!(!health.try_out(due), "one at a time");
    assert_eq!(health.standing(due), Standing::Tried);
    // Its client left, which says nothing.
    assert!(!health.tried(&rule, None, due));
    assert!(health.try_out(due));
    assert!(!health.tried(&rule, Some(Seen::Answer(404)), due));
    assert_eq!((health.standing(due), health.ejection()), (Standing::In, None));
    assert!(health.is_clean());
}

#[test]
fn a_failed_probe_takes_it_out_for_longer_and_it_counts_as_out_since_the_first_time() {
    let (rule, begun) = (rule(), start());
    let mut health = Health::default();
    health.eject(&rule, Reason::Consecutive5xx, begun);
    let due = begun + rule.base_ejection_time;
    assert!(health.try_out(due));
    assert!(health.tried(&rule, Some(Seen::Unreachable), due));
    let ejection = health.ejection().unwrap();
    assert_eq!((ejection.reason, ejection.since), (Reason::Probe, begun));
    assert_eq!(ejection.until, due + 2 * rule.base_ejection_time);
}

#[test]
fn an_ejection_is_never_longer_than_five_minutes_unless_the_first_is() {
    let longest = |base: u64, times: usize| {
        let rule = OutlierDetection { base_ejection_time: Duration::from_secs(base), ..rule() };
        let (mut health, mut now) = (Health::default(), start());
        for _ in 0..times {
            health.eject(&rule, Reason::Probe, now);
            now = health.ejection().unwrap().until;
        }
        health.eject(&rule, Reason::Probe, now);
        (health.ejection().unwrap().until - now).as_secs()
    };
    assert_eq!((longest(30, 0), longest(30, 1), longest(30, 50)), (30, 60, 300));
    assert_eq!(longest(900, 5), 900);
}

#[test]
fn time_in_which_it_behaved_makes_the_next_ejection_shorter() {
    let (rule, begun) = (rule(), start());
    let readmitted = || {
        let mut health = Health::default();
        health.eject(&rule, Reason::Consecutive5xx, begun);
        let due = health.ejection().unwrap().until;
        assert!(health.try_out(due));
        assert!(health.tried(&rule, Some(Seen::Answer(503)), due));
        let due = health.ejection().unwrap().until;
        assert!(health.try_out(due));
        assert!(!health.tried(&rule, Some(Seen::Answer(200)), due));
        (health, due)
    };
    let lasts_after = |pause: Duration| {
        let (mut health, back) = readmitted();
        health.eject(&rule, Reason::Consecutive5xx, back + pause);
        (health.ejection().unwrap().until - (back + pause)).as_secs()
    };
    let pauses = [Duration::ZERO, rule.interval, 2 * rule.interval, 99 * rule.interval];
    assert_eq!(pauses.map(lasts_after), [90, 60, 30, 30]);
}

#[test]
fn one_may_always_be_out_and_more_while_less_than_the_share_is() {
    let rule = |percent| OutlierDetection { max_ejection_percent: percent, ..rule() };
    assert!(may_eject(&rule(10), 0, 1) && may_eject(&rule(10), 0, 3));
    assert!(!may_eject(&rule(10), 1, 10));
    assert!(may_eject(&rule(10), 1, 11), "a tenth is 1.1");
    assert!(may_eject(&rule(50), 1, 3) && !may_eject(&rule(50), 2, 3));
    assert!(may_eject(&rule(100), 2, 3) && !may_eject(&rule(100), 3, 3));
}

#[test]
fn all_are_used_where_less_than_the_share_is_in() {
    let rule = |percent| OutlierDetection { min_health_percent: percent, ..rule() };
    assert!(!panics(&rule(0), 3, 3), "by default never");
    assert!(panics(&rule(50), 2, 3) && !panics(&rule(50), 1, 3));
    assert!(!panics(&rule(50), 1, 2), "a half is not less than a half");
}

#[test]
fn statuses_of_grpc_stand_for_those_of_http() {
    let errors: Vec<u32> = (0..=17).filter(|status| http_of_grpc(*status) >= 500).collect();
    assert_eq!(errors, [2, 4, 12, 13, 14, 15, 17]);
    let gateway: Vec<u32> = (0..=17).filter(|s| matches!(http_of_grpc(*s), 502..=504)).collect();
    assert_eq!(gateway, [4, 14]);
}

fn any_seen() -> impl Strategy<Value = Seen> {
    prop_oneof![
        prop::sample::select(vec![200u16, 404, 429, 500, 502, 503, 504, 599])
            .prop_map(Seen::Answer),
        Just(Seen::Connected),
        Just(Seen::Unreachable),
        Just(Seen::TimedOut),
    ]
}

/// What a rule that counts only 5xx says, written down naively: the run of errors that ends here, since
/// it last said so.
fn naive(seen: &[Seen], asked: usize) -> Vec<bool> {
    let failed = |seen: &Seen| match seen {
        Seen::Answer(status) => *status >= 500,
        Seen::Connected => false,
        Seen::Unreachable | Seen::TimedOut => true,
    };
    let mut begin = 0;
    let mut said = Vec::new();
    for end in 0..seen.len() {
        let run = seen[begin..=end].iter().rev().take_while(|seen| failed(seen)).count();
        said.push(run >= asked);
        if run >= asked {
            begin = end + 1;
        }
    }
    said
}

proptest! {
    #[test]
    fn it_counts_as_a_naive_model_does(seen in prop::collection::vec(any_seen(), 0..60), asked in 1u32..6) {
        let rule = OutlierDetection { consecutive_5xx: asked, ..OutlierDetection::default() };
        let counted: Vec<_> = said(&rule, &seen).iter().map(Option::is_some).collect();
        prop_assert_eq!(counted, naive(&seen, asked as usize));
    }

    #[test]
    fn whatever_happens_it_is_tried_by_one_at_a_time_and_comes_back_only_so(
        steps in prop::collection::vec((0u64..120, 0u8..4, any_seen()), 0..80),
    ) {
        let rule = OutlierDetection { consecutive_5xx: 1, ..OutlierDetection::default() };
        let (mut health, mut now, mut trying) = (Health::default(), start(), false);
        for (seconds, what, seen) in steps {
            now += Duration::from_secs(seconds);
            let before = health.standing(now);
            match what {
                0 => {
                    if let Some(reason) = health.saw(&rule, seen) {
                        health.eject(&rule, reason, now);
                    }
                    prop_assert!(before == Standing::In || health.standing(now) == before);
                }
                1 => {
                    let began = health.try_out(now);
                    prop_assert_eq!(began, before == Standing::Due && !trying);
                    trying |= began;
                }
                _ if trying => {
                    let again = health.tried(&rule, (what == 2).then_some(seen), now);
                    trying = false;
                    prop_assert!(!again || health.standing(now) == Standing::Out);
                }
                _ => {}
            }
            prop_assert_eq!(health.standing(now) == Standing::Tried, trying);
            if let Some(ejection) = health.ejection() {
                prop_assert!(ejection.since <= now && ejection.until <= now + EJECTION_MAX);
            }
        }
    }

    #[test]
    fn no_more_than_the_share_and_one_are_out(percent in 0u8..=100, all in 1usize..200) {
        let rule = OutlierDetection { max_ejection_percent: percent, ..rule() };
        let out = (0..=all).find(|out| !may_eject(&rule, *out, all)).unwrap_or(all);
        let share = (all * usize::from(percent)).div_ceil(100);
        prop_assert_eq!(out, share.max(1));
    }
}

fn tallies(percents: &[u32], all: u32) -> Vec<Tally> {
    percents.iter().map(|percent| Tally { all, well: all * percent / 100 }).collect()
}

#[test]
fn who_succeeds_much_more_seldom_than_the_others_is_an_outlier() {
    let of = |one: SuccessRate, tallies: &[Tally]| {
        outliers(&OutlierDetection { success_rate: Some(one), ..rule() }, tallies)
    };
    let by_default = SuccessRate::default();
    let reason = Reason::SuccessRate;
    // Mean 91.7, standard deviation 18.6: everything below 56.3 is one.
    let mixed = [100, 100, 100, 100, 100, 50];
    assert_eq!(of(by_default, &tallies(&mixed, 100)), [(5, reason)]);
    assert_eq!(of(by_default, &tallies(&[60; 6], 100)), [], "none differs");
    assert_eq!(of(by_default, &tallies(&mixed, 99)), [], "too few requests");
    assert_eq!(of(by_default, &tallies(&mixed[2..], 100)), [], "too few endpoints");
    let few = SuccessRate { minimum_hosts: 3, stdev_factor: 1_000, ..by_default };
    assert_eq!(of(few, &tallies(&mixed[2..], 100)), [(3, reason)]);
    assert_eq!(outliers(&rule(), &tallies(&mixed, 100)), [], "nobody asked");
}

#[test]
fn who_fails_too_often_is_an_outlier_whatever_others_do() {
    let one = FailurePercentage { threshold: 50, minimum_hosts: 2, request_volume: 10 };
    let rule = OutlierDetection { failure_percentage: Some(one), ..rule() };
    let reason = Reason::FailurePercentage;
    assert_eq!(outliers(&rule, &tallies(&[50, 51, 0], 100)), [(0, reason), (2, reason)]);
    assert_eq!(outliers(&rule, &tallies(&[0], 100)), [], "too few endpoints");
    assert_eq!(outliers(&rule, &tallies(&[0, 0], 9)), [], "too few requests");
}
