//! Does this request, or this connection, get a fault? Decided once for each, before an endpoint is picked.
//!
//! Two sorts are told apart: what a VirtualService's rule has (its delay and its abort are drawn apart from
//! each other, as in Istio), and faults of a kind of their own ([`PortFaults`]): each is drawn for itself, in
//! order, and the first that is hit is the only one.

use std::time::{Duration, Instant};

use heddle_model::discovery::{AbortWith, Fault, Injection, PortFault, Provenance, TcpFault};

use crate::route::{Matcher, RequestView, RouteError};

/// What to inject. The delay comes first; an abort then answers without forwarding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FaultPlan {
    /// Wait this long before forwarding or aborting.
    pub delay: Option<Duration>,
    /// Answer with this instead of forwarding.
    pub abort: Option<AbortWith>,
    /// Does the delay come before the time that the rule's limits allow?
    pub before_limits: bool,
    /// Which fault of a kind of its own it is; `None` for the rule's.
    pub by: Option<Provenance>,
}

impl FaultPlan {
    /// Is anything injected?
    #[must_use]
    pub fn does_anything(&self) -> bool {
        self.delay.is_some() || self.abort.is_some()
    }
}

/// A moment, as both clocks have it.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Seconds since the Unix epoch.
    pub unix: u64,
    /// The clock that nobody sets.
    pub instant: Instant,
}

/// When something is over. By either clock: one that was set wrong, or one that stood while the machine
/// slept, must not make a fault last longer than its author said.
#[derive(Debug, Clone, Copy)]
pub struct Expiry {
    unix: u64,
    /// `None`: later than can be told.
    instant: Option<Instant>,
}

impl Expiry {
    /// Over from `unix` on, told `now`.
    #[must_use]
    pub fn at(unix: u64, now: Now) -> Self {
        let left = Duration::from_secs(unix.saturating_sub(now.unix));
        Self { unix, instant: now.instant.checked_add(left) }
    }

    /// Is it over?
    #[must_use]
    pub fn is_over(&self, now: Now) -> bool {
        now.unix >= self.unix || self.instant.is_some_and(|at| now.instant >= at)
    }
}

/// Decides for one request what its rule's fault does. Delay and abort are drawn apart from each other, as in
/// Istio; both random numbers are uniform in `[0, 1)`.
#[must_use]
pub fn decide(fault: &Fault, random_delay: f64, random_abort: f64) -> FaultPlan {
    let delay = fault.delay.as_ref().filter(|delay| hit(delay.percent, random_delay));
    let abort = fault.abort.as_ref().filter(|abort| hit(abort.percent, random_abort));
    FaultPlan {
        delay: delay.map(|delay| delay.duration),
        abort: abort.map(|abort| AbortWith { status: abort.status, grpc: abort.grpc }),
        before_limits: fault.before_limits,
        by: None,
    }
}

fn hit(percent: f64, random: f64) -> bool {
    percent >= 100.0 || random * 100.0 < percent
}

/// The faults of one port that are a kind of their own, ready to be decided.
#[derive(Debug, Clone, Default)]
pub struct PortFaults {
    requests: Vec<Own>,
    connections: Vec<Own>,
}

#[derive(Debug, Clone)]
struct Own {
    rule: PortFault,
    matcher: Matcher,
    expires: Option<Expiry>,
}

impl Own {
    fn is_in_force(&self, now: Now) -> bool {
        self.expires.is_none_or(|expires| !expires.is_over(now))
    }

    fn fires(&self, now: Now, random: &mut dyn FnMut() -> f64) -> bool {
        self.is_in_force(now) && hit(self.rule.percent, random())
    }
}

/// What becomes of a connection, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionFault {
    /// What.
    pub does: TcpFault,
    /// By which rule.
    pub by: Provenance,
}

impl PortFaults {
    /// Builds their conditions.
    ///
    /// # Errors
    /// [`RouteError`] naming the fault whose pattern does not compile.
    pub fn build(rules: &[PortFault], now: Now) -> Result<Self, RouteError> {
        let mut faults = Self::default();
        for rule in rules {
            let matcher = Matcher::of(&rule.matches, &rule.provenance)?;
            let expires = rule.expires.map(|unix| Expiry::at(unix, now));
            let list = match rule.does {
                Injection::Tcp(_) => &mut faults.connections,
                Injection::Delay(_) | Injection::Abort(_) => &mut faults.requests,
            };
            list.push(Own { rule: rule.clone(), matcher, expires });
        }
        Ok(faults)
    }

    /// Is there one for requests?
    #[must_use]
    #[inline]
    pub fn are_for_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Is there one for connections?
    #[must_use]
    #[inline]
    pub fn are_for_connections(&self) -> bool {
        !self.connections.is_empty()
    }

    /// Those that a request meets and that are not over, in order: what [`Self::of_request`] draws among.
    pub fn met_by(&self, request: &dyn RequestView, now: Now) -> impl Iterator<Item = &PortFault> {
        let met = self.requests.iter().filter(|own| own.matcher.holds(request));
        met.filter(move |own| own.is_in_force(now)).map(|own| &own.rule)
    }

    /// Those for connections that are not over, in order.
    pub fn of_connections(&self, now: Now) -> impl Iterator<Item = &PortFault> {
        self.connections.iter().filter(move |own| own.is_in_force(now)).map(|own| &own.rule)
    }

    /// What is injected into a request: by the first that it meets and that is hit. `random` gives numbers
    /// uniform in `[0, 1)`, one for each fault it meets.
    #[must_use]
    pub fn of_request(
        &self,
        request: &dyn RequestView,
        now: Now,
        mut random: impl FnMut() -> f64,
    ) -> Option<FaultPlan> {
        let mut met = self.requests.iter().filter(|own| own.matcher.holds(request));
        let own = met.find(|own| own.fires(now, &mut random))?;
        let by = Some(own.rule.provenance.clone());
        Some(match own.rule.does {
            Injection::Delay(delay) => FaultPlan { delay: Some(delay), by, ..FaultPlan::default() },
            Injection::Abort(with) => FaultPlan { abort: Some(with), by, ..FaultPlan::default() },
            Injection::Tcp(_) => return None,
        })
    }

    /// What becomes of a connection: by the first that is hit.
    #[must_use]
    pub fn of_connection(
        &self,
        now: Now,
        mut random: impl FnMut() -> f64,
    ) -> Option<ConnectionFault> {
        let own = self.connections.iter().find(|own| own.fires(now, &mut random))?;
        match own.rule.does {
            Injection::Tcp(does) => Some(ConnectionFault { does, by: own.rule.provenance.clone() }),
            Injection::Delay(_) | Injection::Abort(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
