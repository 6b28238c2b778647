//! What a rule says about sending requests again: Istio's `retries`, with Envoy's conditions.

use std::time::Duration;

use heddle_model::discovery::Retries;

/// Waiting time before a further attempt, where the rule gives none.
const BACKOFF: Duration = Duration::from_millis(25);
/// The waiting time grows to so many times its beginning, as in Envoy.
const BACKOFF_GROWTH: u32 = 10;

/// A rule's `retries`, ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Most further attempts.
    pub(super) further: u32,
    conditions: u16,
    statuses: Vec<u16>,
    backoff: Duration,
    /// Limit on one attempt, from the end of the request to the head of its answer.
    pub per_try_timeout: Option<Duration>,
    /// May a further attempt go where one has failed while there are others?
    pub same_endpoint: bool,
    /// May requests of every method be repeated?
    pub any_method: bool,
    /// Does a further attempt go to another locality, if there is one?
    pub other_localities: bool,
}

/// How an attempt ended, before anything of a final answer went to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It never reached a server, or only a sidecar that says so.
    Undelivered,
    /// Its connection broke, or its stream was reset.
    Broken {
        /// Had any byte of the request been sent?
        begun: bool,
    },
    /// The server refused the stream, so that it did nothing (HTTP/2).
    Refused,
    /// Its time was over.
    TimedOut,
    /// There is an answer.
    Answered(Answered),
}

/// What conditions ask of an answer's head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answered {
    /// HTTP status.
    pub status: u16,
    /// `grpc-status`, where the head has it.
    pub grpc_status: Option<u16>,
    /// `x-envoy-overloaded` is there: nobody wants more.
    pub overloaded: bool,
    /// `x-envoy-ratelimited` is there.
    pub rate_limited: bool,
}

/// Why a rule asks for another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// Nothing was processed: any request may be repeated.
    Unprocessed,
    /// By a gRPC status: any gRPC call may be repeated.
    ByGrpcStatus,
    /// Otherwise: only what may be sent twice.
    Otherwise,
}

macro_rules! conditions {
    ($($name:ident = $bit:literal, $text:literal;)+) => {
        $(const $name: u16 = 1 << $bit;)+

        /// Envoy's name of a condition; 0 for one that is not known here.
        fn condition(text: &str) -> u16 {
            match text {
                $($text => $name,)+
                _ => 0,
            }
        }
    };
}

conditions! {
    SERVER_ERROR = 0, "5xx";
    GATEWAY_ERROR = 1, "gateway-error";
    RESET = 2, "reset";
    RESET_BEFORE_REQUEST = 3, "reset-before-request";
    CONNECT_FAILURE = 4, "connect-failure";
    RETRIABLE_4XX = 5, "retriable-4xx";
    REFUSED_STREAM = 6, "refused-stream";
    RATE_LIMITED = 7, "envoy-ratelimited";
    CANCELLED = 8, "cancelled";
    DEADLINE_EXCEEDED = 9, "deadline-exceeded";
    INTERNAL = 10, "internal";
    RESOURCE_EXHAUSTED = 11, "resource-exhausted";
    UNAVAILABLE = 12, "unavailable";
}

/// What a broken connection is to Envoy too: it ends in a 503.
const ANY_RESET: u16 = RESET | SERVER_ERROR | GATEWAY_ERROR;

impl RetryPolicy {
    /// Builds it. Conditions that are not known here ask for nothing.
    #[must_use]
    pub fn build(rule: &Retries) -> Self {
        Self {
            further: rule.attempts,
            conditions: rule.conditions.iter().fold(0, |all, text| all | condition(text)),
            statuses: rule.statuses.clone(),
            backoff: rule.backoff.filter(|backoff| !backoff.is_zero()).unwrap_or(BACKOFF),
            per_try_timeout: rule.per_try_timeout,
            same_endpoint: rule.same_endpoint,
            any_method: rule.any_method,
            other_localities: rule.other_localities,
        }
    }

    /// Most time to wait before further attempt so and so, counted from 1: `(2^n - 1)` times the
    /// beginning, as Envoy documents it. The time itself is even between nothing and this.
    #[must_use]
    pub fn backoff(&self, number: u32) -> Duration {
        let factor = 2u32.saturating_pow(number.min(16)).saturating_sub(1);
        self.backoff.saturating_mul(factor.clamp(1, BACKOFF_GROWTH))
    }

    fn has(&self, conditions: u16) -> bool {
        self.conditions & conditions != 0
    }

    /// Does one of its conditions hold?
    pub(super) fn asks(&self, ended: Ended) -> Option<Asks> {
        match ended {
            Ended::Undelivered => {
                let asked = self.has(CONNECT_FAILURE | RESET_BEFORE_REQUEST | ANY_RESET);
                asked.then_some(Asks::Unprocessed)
            }
            Ended::Refused => self.has(REFUSED_STREAM | ANY_RESET).then_some(Asks::Unprocessed),
            Ended::Broken { begun: false } => {
                self.has(RESET_BEFORE_REQUEST | ANY_RESET).then_some(Asks::Unprocessed)
            }
            Ended::Broken { begun: true } | Ended::TimedOut => {
                self.has(ANY_RESET).then_some(Asks::Otherwise)
            }
            Ended::Answered(answer) => self.asks_by_answer(answer),
        }
    }

    fn asks_by_answer(&self, answer: Answered) -> Option<Asks> {
        if answer.overloaded {
            return None;
        }
        if answer.rate_limited {
            return self.has(RATE_LIMITED).then_some(Asks::Otherwise);
        }
        let status = answer.status;
        let by_status = self.has(SERVER_ERROR) && (500..600).contains(&status)
            || self.has(GATEWAY_ERROR) && (502..=504).contains(&status)
            || self.has(RETRIABLE_4XX) && status == 409
            || self.statuses.contains(&status);
        let by_grpc = answer.grpc_status.is_some_and(|code| self.has(grpc_condition(code)));
        match () {
            () if by_grpc => Some(Asks::ByGrpcStatus),
            () if by_status => Some(Asks::Otherwise),
            () => None,
        }
    }
}

fn grpc_condition(code: u16) -> u16 {
    match code {
        1 => CANCELLED,
        4 => DEADLINE_EXCEEDED,
        8 => RESOURCE_EXHAUSTED,
        13 => INTERNAL,
        14 => UNAVAILABLE,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(on: &str) -> RetryPolicy {
        let (statuses, conditions) = on
            .split(',')
            .map(|word| word.parse::<u16>().map_err(|_| word.to_owned()))
            .partition::<Vec<_>, _>(Result::is_ok);
        RetryPolicy::build(&Retries {
            attempts: 2,
            conditions: conditions.into_iter().filter_map(Result::err).collect(),
            statuses: statuses.into_iter().filter_map(Result::ok).collect(),
            ..Retries::default()
        })
    }

    fn status(status: u16) -> Ended {
        Ended::Answered(Answered { status, ..Answered::default() })
    }

    fn grpc(code: u16) -> Ended {
        Ended::Answered(Answered { status: 200, grpc_status: Some(code), ..Answered::default() })
    }

    const BROKEN: Ended = Ended::Broken { begun: true };
    const UNBEGUN: Ended = Ended::Broken { begun: false };

    #[test]
    fn each_condition_asks_for_what_envoy_documents() {
        use Ended::{Refused, TimedOut, Undelivered};
        let resets = [Undelivered, Refused, UNBEGUN, BROKEN, TimedOut];
        let table: &[(&str, &[Ended], &[Ended])] = &[
            ("5xx", &[status(500), status(503), status(599)], &[status(429), status(200)]),
            ("gateway-error", &[status(502), status(504)], &[status(500), status(505)]),
            ("reset", &[], &[status(503)]),
            ("retriable-4xx", &[status(409)], &[status(404), BROKEN, Undelivered]),
            ("429,503", &[status(429), status(503)], &[status(500), BROKEN]),
            ("connect-failure", &[Undelivered], &[BROKEN, UNBEGUN, TimedOut, status(503)]),
            ("reset-before-request", &[Undelivered, UNBEGUN], &[BROKEN, TimedOut]),
            ("refused-stream", &[Refused], &[Undelivered, BROKEN]),
            ("cancelled", &[grpc(1)], &[grpc(14), status(503)]),
            ("deadline-exceeded", &[grpc(4)], &[grpc(0)]),
            ("resource-exhausted", &[grpc(8)], &[grpc(1)]),
            ("internal", &[grpc(13)], &[grpc(2)]),
            ("unavailable", &[grpc(14)], &[grpc(13), BROKEN]),
            ("retriable-headers", &[], &[status(503), BROKEN]),
        ];
        for (on, asked, not) in table {
            let policy = policy(on);
            assert!(asked.iter().all(|ended| policy.asks(*ended).is_some()), "{on}");
            assert!(not.iter().all(|ended| policy.asks(*ended).is_none()), "{on}");
        }
        for on in ["5xx", "gateway-error", "reset"] {
            assert!(resets.iter().all(|ended| policy(on).asks(*ended).is_some()), "{on}");
        }
    }

    #[test]
    fn nobody_asks_again_who_is_overloaded_and_a_limit_only_by_its_name() {
        let answer = Answered { status: 503, ..Answered::default() };
        let overloaded = Ended::Answered(Answered { overloaded: true, ..answer });
        assert_eq!(policy("5xx").asks(overloaded), None);
        let limited = Ended::Answered(Answered { rate_limited: true, ..answer });
        assert_eq!(policy("5xx").asks(limited), None);
        assert!(policy("envoy-ratelimited").asks(limited).is_some());
    }

    #[test]
    fn waiting_grows_to_ten_times_its_beginning() {
        let policy = policy("5xx");
        let most: Vec<_> = (1..6).map(|number| policy.backoff(number).as_millis()).collect();
        assert_eq!(most, [25, 75, 175, 250, 250]);
        assert_eq!(policy.backoff(u32::MAX).as_millis(), 250);
    }
}
