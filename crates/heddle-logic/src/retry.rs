//! May a request be sent again, and over which connection?
//!
//! The rule above all others: no request is sent twice that may not be. What is retried without
//! being asked for is little: an attempt of which no byte was written, and one replay of a
//! replayable request whose *reused* connection was reset before the first response byte (the
//! keep-alive race that only a pool creates). A reset on a fresh connection is the server's answer
//! and is passed on.
//!
//! A rule may ask for more ([`policy`]), and for less: where it has `retries`, only these conditions
//! count besides that race. [`Attempts`] is what has been tried for one request; what all of them may
//! cost, [`RetryBudget`] says.

use std::time::Duration;

mod budget;
pub mod policy;

pub use budget::{IntervalBudget, RetryBudget};
use policy::Asks;
pub use policy::{Answered, Ended, RetryPolicy};

/// Most further attempts after the first.
pub const FURTHER_ATTEMPTS_MAX: u32 = 2;
/// Most body bytes kept for a replay.
pub const REPLAY_BODY_BYTES_MAX: usize = 64 << 10;
/// A request that may not be replayed takes a pooled connection only if it was idle for less.
pub const FRESH_ENOUGH: Duration = Duration::from_secs(1);
/// Longest idleness of a pooled connection: less than Node's server, which closes after 5 s.
pub const POOL_IDLE_MAX: Duration = Duration::from_secs(4);

/// Does sending the request twice do what sending it once does?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayable {
    /// Yes, and its whole body is at hand.
    Yes,
    /// No, or its body is gone.
    No,
}

/// Is the body, as far as it was sent, still at hand?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// There is none, or all of what was sent is held (at most [`REPLAY_BODY_BYTES_MAX`]).
    Kept,
    /// More was sent than is kept.
    Gone,
}

impl Body {
    /// By its announced length; `None` where the length is not announced (chunked).
    #[must_use]
    pub fn of_length(length: Option<u64>) -> Self {
        match length {
            Some(bytes) if bytes <= REPLAY_BODY_BYTES_MAX as u64 => Self::Kept,
            _ => Self::Gone,
        }
    }
}

impl Replayable {
    /// By method (as sent, methods are case-sensitive), `Idempotency-Key` and body.
    #[must_use]
    pub fn of(method: &str, has_idempotency_key: bool, body: Body) -> Self {
        let idempotent = matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE");
        if (idempotent || has_idempotency_key) && body == Body::Kept { Self::Yes } else { Self::No }
    }
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try once more, preferably another endpoint; any connection will do.
    Retry,
    /// Send once more over a *new* connection: another pooled one could be as dead as this one.
    RetryOnNewConnection,
    /// Report the failure.
    GiveUp,
}

/// The attempt never reached a server: connect refused, unreachable or timed out.
/// `attempt` counts from 1 and is the one that failed.
#[must_use]
pub fn after_connect_failure(attempt: u32) -> Decision {
    if attempt > FURTHER_ATTEMPTS_MAX { Decision::GiveUp } else { Decision::Retry }
}

/// How far an attempt came before its connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// Had the connection carried a request before, or waited for one?
    pub reused: bool,
    /// Response bytes received for this request.
    pub response_bytes: u64,
    /// Request bytes handed to the kernel.
    pub request_bytes_written: u64,
    /// May this request be sent twice?
    pub replayable: Replayable,
    /// Counts from 1: the attempt that broke.
    pub attempt: u32,
}

/// The connection was reset or closed before the response was complete.
#[must_use]
pub fn after_reset(broken: Broken) -> Decision {
    if broken.response_bytes > 0 || broken.attempt > FURTHER_ATTEMPTS_MAX {
        return Decision::GiveUp;
    }
    if broken.request_bytes_written == 0 {
        return Decision::RetryOnNewConnection;
    }
    match (broken.replayable, broken.reused) {
        (Replayable::Yes, true) => Decision::RetryOnNewConnection,
        _ => Decision::GiveUp,
    }
}

/// What has been tried for one request.
#[derive(Debug)]
pub struct Attempts<'a> {
    policy: Option<&'a RetryPolicy>,
    /// Is it a gRPC call?
    grpc: bool,
    /// The attempt under way, counted from 1.
    number: u32,
    /// How many of them the rule asked for.
    asked: u32,
}

/// What else matters when an attempt has ended.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// May this request be sent twice?
    pub replayable: Replayable,
    /// Is all that was sent of it still at hand?
    pub kept: bool,
    /// Had the connection carried a request before, or waited for one?
    pub reused: bool,
}

/// What becomes of a request whose attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// That is the end.
    GiveUp,
    /// That is the end, because there were enough attempts.
    Spent,
    /// It goes once more to the same endpoint, over a new connection. That race the pool made, so it
    /// costs no budget.
    Replay,
    /// It goes once more, if the budget has it, after a time even between nothing and this one.
    Again(Duration),
}

impl<'a> Attempts<'a> {
    /// The first attempt is under way.
    #[must_use]
    pub fn new(policy: Option<&'a RetryPolicy>, grpc: bool) -> Self {
        Self { policy, grpc, number: 1, asked: 0 }
    }

    /// The attempt under way, counted from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// What the rule says; `None` if it says nothing.
    #[must_use]
    pub fn policy(&self) -> Option<&'a RetryPolicy> {
        self.policy
    }

    /// The next attempt begins, after this verdict.
    pub fn next(&mut self, verdict: Verdict) {
        self.number += 1;
        self.asked += u32::from(matches!(verdict, Verdict::Again(_)));
    }

    /// What becomes of the request now that the attempt under way has ended so.
    #[must_use]
    pub fn after(&self, ended: Ended, standing: Standing) -> Verdict {
        let replayable = if standing.kept { standing.replayable } else { Replayable::No };
        if let Ended::Broken { begun } = ended {
            let broken = Broken {
                reused: standing.reused,
                response_bytes: 0,
                request_bytes_written: u64::from(begun),
                replayable,
                attempt: self.number - if self.policy.is_some() { self.asked } else { 0 },
            };
            if after_reset(broken) != Decision::GiveUp {
                return Verdict::Replay;
            }
        }
        match self.policy {
            Some(policy) => self.by_rule(policy, ended, replayable, standing.kept),
            None if !matches!(ended, Ended::Undelivered | Ended::Refused) || !standing.kept => {
                Verdict::GiveUp
            }
            None => match after_connect_failure(self.number) {
                Decision::GiveUp => Verdict::Spent,
                _ => Verdict::Again(Duration::ZERO),
            },
        }
    }

    fn by_rule(
        &self,
        policy: &RetryPolicy,
        ended: Ended,
        replayable: Replayable,
        kept: bool,
    ) -> Verdict {
        let may = match policy.asks(ended) {
            None => false,
            Some(Asks::Unprocessed) => kept,
            Some(Asks::ByGrpcStatus) => kept && (self.grpc || replayable == Replayable::Yes),
            Some(Asks::Otherwise) => replayable == Replayable::Yes,
        };
        match () {
            () if !may || policy.further == 0 => Verdict::GiveUp,
            () if self.asked >= policy.further => Verdict::Spent,
            () => Verdict::Again(policy.backoff(self.asked + 1)),
        }
    }
}

/// May this request take a pooled connection that has been idle for `idle`? The mesh may not
/// create a race that the application did not have.
#[must_use]
pub fn may_take_pooled(replayable: Replayable, idle: Duration, idle_max: Duration) -> bool {
    match replayable {
        Replayable::Yes => idle < idle_max,
        Replayable::No => idle < FRESH_ENOUGH.min(idle_max),
    }
}

/// How long a connection may idle in a pool: 80 % of what the server announces (`Keep-Alive:
/// timeout=`) or has been seen to do, [`POOL_IDLE_MAX`] if it said nothing.
#[must_use]
pub fn pool_idle_limit(server_closes_after: Option<Duration>) -> Duration {
    server_closes_after.map_or(POOL_IDLE_MAX, |after| after.mul_f64(0.8))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn broken(reused: bool, written: u64, replayable: Replayable, attempt: u32) -> Broken {
        Broken { reused, response_bytes: 0, request_bytes_written: written, replayable, attempt }
    }

    fn policy(attempts: u32, conditions: &[&str], statuses: &[u16]) -> RetryPolicy {
        RetryPolicy::build(&heddle_model::discovery::Retries {
            attempts,
            conditions: conditions.iter().map(|text| (*text).to_owned()).collect(),
            statuses: statuses.to_vec(),
            ..Default::default()
        })
    }

    fn answered(status: u16) -> Ended {
        Ended::Answered(Answered { status, ..Answered::default() })
    }

    const GET: Standing = Standing { replayable: Replayable::Yes, kept: true, reused: false };
    const POST: Standing = Standing { replayable: Replayable::No, kept: true, reused: false };

    #[test]
    fn a_rule_repeats_what_it_names_as_often_as_it_says() {
        let policy = policy(2, &["5xx"], &[]);
        let mut attempts = Attempts::new(Some(&policy), false);
        for most in [25, 75] {
            let verdict = attempts.after(answered(503), GET);
            assert_eq!(verdict, Verdict::Again(Duration::from_millis(most)));
            attempts.next(verdict);
        }
        assert_eq!(attempts.after(answered(503), GET), Verdict::Spent);
        assert_eq!(attempts.after(answered(200), GET), Verdict::GiveUp);
        assert_eq!(attempts.number(), 3);
    }

    #[test]
    fn a_post_is_repeated_only_where_nothing_was_processed() {
        let policy = policy(3, &["5xx"], &[429]);
        let attempts = Attempts::new(Some(&policy), false);
        for ended in [answered(503), answered(429), Ended::TimedOut, Ended::Broken { begun: true }]
        {
            assert_eq!(attempts.after(ended, POST), Verdict::GiveUp, "{ended:?}");
        }
        for ended in [Ended::Undelivered, Ended::Refused] {
            assert!(matches!(attempts.after(ended, POST), Verdict::Again(_)), "{ended:?}");
        }
    }

    #[test]
    fn a_grpc_call_is_repeated_by_its_status_and_by_nothing_else_that_was_processed() {
        let policy = policy(3, &["unavailable", "5xx"], &[]);
        let attempts = Attempts::new(Some(&policy), true);
        let answer = Answered { status: 200, grpc_status: Some(14), ..Answered::default() };
        assert!(matches!(attempts.after(Ended::Answered(answer), POST), Verdict::Again(_)));
        assert_eq!(attempts.after(answered(503), POST), Verdict::GiveUp);
        let other = Attempts::new(Some(&policy), false);
        assert_eq!(other.after(Ended::Answered(answer), POST), Verdict::GiveUp);
    }

    #[test]
    fn no_attempts_switch_off_what_is_retried_by_itself_but_not_the_pools_own_race() {
        let policy = policy(0, &["connect-failure"], &[]);
        let attempts = Attempts::new(Some(&policy), false);
        assert_eq!(attempts.after(Ended::Undelivered, GET), Verdict::GiveUp);
        let raced = Standing { reused: true, ..GET };
        assert_eq!(attempts.after(Ended::Broken { begun: true }, raced), Verdict::Replay);
    }

    #[test]
    fn without_a_rule_only_what_reached_nobody_is_repeated_twice() {
        let mut attempts = Attempts::new(None, false);
        assert_eq!(attempts.after(answered(503), GET), Verdict::GiveUp);
        for _ in 0..2 {
            let verdict = attempts.after(Ended::Undelivered, POST);
            assert_eq!(verdict, Verdict::Again(Duration::ZERO));
            attempts.next(verdict);
        }
        assert_eq!(attempts.after(Ended::Undelivered, POST), Verdict::Spent);
    }

    /// Ways for an attempt to end.
    fn ended() -> impl Strategy<Value = Ended> {
        let answer = (200u16..600, prop::option::of(0u16..17)).prop_map(|(status, grpc_status)| {
            Ended::Answered(Answered { status, grpc_status, ..Answered::default() })
        });
        prop_oneof![
            Just(Ended::Undelivered),
            any::<bool>().prop_map(|begun| Ended::Broken { begun }),
            Just(Ended::Refused),
            Just(Ended::TimedOut),
            answer,
        ]
    }

    proptest! {
        #[test]
        fn whatever_a_rule_says_attempts_are_bounded_and_nothing_unsafe_is_sent_twice(
            attempts in 0u32..5, all in prop::collection::vec((ended(), any::<bool>()), 0..20),
            yes: bool, kept: bool, grpc: bool, ruled: bool,
        ) {
            const EVERY: [&str; 12] = [
                "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure",
                "retriable-4xx", "refused-stream", "cancelled", "deadline-exceeded", "internal",
                "resource-exhausted", "unavailable",
            ];
            let policy = policy(attempts, &EVERY, &[429]);
            let mut tried = Attempts::new(ruled.then_some(&policy), grpc);
            for (ended, reused) in all {
                let replayable = if yes { Replayable::Yes } else { Replayable::No };
                let verdict = tried.after(ended, Standing { replayable, kept, reused });
                let unprocessed = matches!(
                    ended,
                    Ended::Undelivered | Ended::Refused | Ended::Broken { begun: false }
                );
                let by_grpc = grpc
                    && matches!(ended, Ended::Answered(Answered { grpc_status: Some(1..), .. }));
                match verdict {
                    Verdict::Replay => prop_assert!(unprocessed || yes && kept && reused),
                    Verdict::Again(_) => {
                        prop_assert!(kept && (unprocessed || yes || by_grpc));
                        prop_assert!(ruled || matches!(ended, Ended::Undelivered | Ended::Refused));
                    }
                    Verdict::GiveUp | Verdict::Spent => continue,
                }
                tried.next(verdict);
                let most = if ruled { attempts + FURTHER_ATTEMPTS_MAX } else { FURTHER_ATTEMPTS_MAX };
                prop_assert!(tried.number() <= 1 + most);
            }
        }
    }

    #[test]
    fn only_idempotent_requests_with_their_body_at_hand_are_replayable() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert_eq!(Replayable::of(method, false, Body::Kept), Replayable::Yes, "{method}");
            assert_eq!(Replayable::of(method, true, Body::Gone), Replayable::No, "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "get", "PURGE", ""] {
            assert_eq!(Replayable::of(method, false, Body::Kept), Replayable::No, "{method}");
            assert_eq!(Replayable::of(method, true, Body::Kept), Replayable::Yes, "{method}");
        }
        assert_eq!(Body::of_length(Some(65_536)), Body::Kept);
        assert_eq!(Body::of_length(Some(65_537)), Body::Gone);
        assert_eq!(Body::of_length(None), Body::Gone);
    }

    #[test]
    fn a_post_that_was_written_is_never_sent_twice() {
        for (reused, attempt) in [(true, 1), (false, 1), (true, 2)] {
            assert_eq!(after_reset(broken(reused, 1, Replayable::No, attempt)), Decision::GiveUp);
        }
        let unwritten = broken(true, 0, Replayable::No, 1);
        assert_eq!(after_reset(unwritten), Decision::RetryOnNewConnection);
    }

    #[test]
    fn a_get_is_replayed_after_a_keep_alive_race_but_not_after_a_reset_on_a_new_connection() {
        let race = broken(true, 90, Replayable::Yes, 1);
        assert_eq!(after_reset(race), Decision::RetryOnNewConnection);
        assert_eq!(after_reset(broken(false, 90, Replayable::Yes, 2)), Decision::GiveUp);
    }

    #[test]
    fn an_old_pooled_connection_is_not_for_requests_that_may_not_be_replayed() {
        let limit = pool_idle_limit(None);
        assert!(may_take_pooled(Replayable::Yes, Duration::from_millis(3_999), limit));
        assert!(!may_take_pooled(Replayable::Yes, Duration::from_secs(4), limit));
        assert!(may_take_pooled(Replayable::No, Duration::from_millis(999), limit));
        assert!(!may_take_pooled(Replayable::No, Duration::from_secs(1), limit));
        assert_eq!(pool_idle_limit(Some(Duration::from_secs(10))), Duration::from_secs(8));
    }

    proptest! {
        #[test]
        fn attempts_are_bounded_and_nothing_is_sent_again_once_a_response_began(
            reused: bool, response in 0u64..3, written in 0u64..3, yes: bool, attempt in 1u32..9,
        ) {
            let replayable = if yes { Replayable::Yes } else { Replayable::No };
            let state = Broken {
                reused, response_bytes: response, request_bytes_written: written, replayable, attempt,
            };
            let again = after_reset(state) != Decision::GiveUp;
            prop_assert!(!again || (response == 0 && attempt <= 2));
            prop_assert!(!again || written == 0 || (yes && reused));
            prop_assert_eq!(after_connect_failure(attempt) != Decision::GiveUp, attempt <= 2);
        }
    }
}
