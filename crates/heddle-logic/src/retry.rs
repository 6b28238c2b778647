//! May a request be sent again, and over which connection?
//!
//! The rule above all others: no request is sent twice that may not be. What is retried without
//! being asked for is little: an attempt of which no byte was written, and one replay of a
//! replayable request whose *reused* connection was reset before the first response byte (the
//! keep-alive race that only a pool creates). A reset on a fresh connection is the server's answer
//! and is passed on.

use std::time::Duration;

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
