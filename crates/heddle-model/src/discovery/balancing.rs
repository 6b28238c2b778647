//! How an endpoint is chosen among those that take requests: Istio's `loadBalancer`. As written; what it
//! means for a caller at its place, each proxy works out for itself.

use std::{collections::BTreeMap, time::Duration};

use minicbor::{Decode, Encode};

use crate::{
    field_name::is_token,
    wire::{Check, FieldError, closed, field, not_empty},
};

type Checked = Result<(), FieldError>;

/// Most points that may be asked of a ring, as in Envoy.
pub const RING_SIZE_MAX: u32 = 8 << 20;
/// Table sizes of Maglev are below this, as in Envoy.
pub const TABLE_SIZE_END: u32 = 5_000_011;
/// Endpoints of a region that zones need, where a rule does not say (Istio).
pub const ZONES_ENDPOINTS: u32 = 6;
/// Points of a ring, where a rule does not say (Istio).
pub const RING_SIZE: u32 = 1024;

/// Istio's `LoadBalancerSettings`.
#[derive(Debug, Clone, Decode, Encode, Default, PartialEq)]
#[cbor(map)]
pub struct LoadBalancing {
    /// How one is chosen.
    #[cbor(n(1), default)]
    pub method: Method,
    /// How slowly a new endpoint is given its share.
    #[n(2)]
    pub warmup: Option<Warmup>,
    /// What a locality means; absent: failover by locality where endpoints are taken out for errors.
    #[n(3)]
    pub locality: Option<LocalityRules>,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Method {
    /// The better of two drawn at random, by latency, failures and requests in flight (`LEAST_REQUEST`,
    /// `LEAST_CONN`, `UNSPECIFIED`).
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// None: the address that was asked for.
    Passthrough,
    /// Requests with the same key go to the same one.
    Hash(Box<HashPolicy>),
}

closed!(Method {
    0 => LeastRequest, 1 => RoundRobin, 2 => Random, 3 => Passthrough, 4 => Hash(policy),
});

/// Istio's `ConsistentHashLB`.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct HashPolicy {
    /// By what.
    #[n(1)]
    pub key: HashKey,
    /// In which way.
    #[n(2)]
    pub table: HashTable,
}

/// By what requests are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The value of this header; its name in lower case.
    Header(String),
    /// The value of a cookie.
    Cookie(HashCookie),
    /// The address that the connection comes from.
    SourceIp,
    /// The value of this parameter of the query, as sent.
    QueryParameter(String),
}

closed!(HashKey {
    1 => Header(name), 2 => Cookie(cookie), 3 => SourceIp, 4 => QueryParameter(name),
});

/// A cookie that tells clients apart.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq, Default)]
#[cbor(map)]
pub struct HashCookie {
    /// Its name.
    #[n(1)]
    pub name: String,
    /// `Path`, where it is set.
    #[cbor(n(2), default)]
    pub path: String,
    /// It is set where a request comes without, for so long; zero: until the client ends. Never where
    /// absent.
    #[n(3)]
    pub ttl: Option<Duration>,
    /// Further attributes, name and value; the value may be empty.
    #[cbor(n(4), default)]
    pub attributes: Vec<(String, String)>,
}

/// How keys are spread over endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashTable {
    /// A ring of at least so many points.
    Ring(u32),
    /// A table of so many entries, a prime number.
    Maglev(u32),
}

closed!(HashTable { 1 => Ring(size), 2 => Maglev(size) });

/// Istio's `WarmupConfiguration`.
#[derive(Debug, Clone, Copy, Decode, Encode, PartialEq)]
#[cbor(map)]
pub struct Warmup {
    /// How long it takes.
    #[n(1)]
    pub duration: Duration,
    /// With which part of its share an endpoint begins, percent.
    #[n(2)]
    pub minimum_percent: f64,
    /// The share grows with time to the power of 1 / this.
    #[n(3)]
    pub aggression: f64,
}

impl Warmup {
    /// Where a rule says no more than how long (Istio).
    #[must_use]
    pub fn lasting(duration: Duration) -> Self {
        Self { duration, minimum_percent: 10.0, aggression: 1.0 }
    }
}

/// Istio's `LocalityLoadBalancerSetting`.
#[derive(Debug, Clone, Decode, Encode, Default, PartialEq, Eq)]
#[cbor(map)]
pub struct LocalityRules {
    /// Nothing of it holds.
    #[cbor(n(1), default)]
    pub off: bool,
    /// Shares by locality, of the first whose `from` the caller is in.
    #[cbor(n(2), default)]
    pub distribute: Vec<Distribute>,
    /// Which region takes over from which, as pairs.
    #[cbor(n(3), default)]
    pub failover: Vec<(String, String)>,
    /// Labels, with a value or without: the more of them from the first on an endpoint shares with the
    /// caller, the sooner it is used.
    #[cbor(n(4), default)]
    pub failover_priority: Vec<String>,
    /// Within its region a caller uses its own zone as far as that can take it, if the region has at least
    /// so many endpoints that take requests (Istio's `zoneAwareLbSetting` and its `minClusterSize`).
    #[n(165)]
    pub zones: Option<u32>,
}

/// Where the traffic of callers in a locality goes.
#[derive(Debug, Clone, Decode, Encode, Default, PartialEq, Eq)]
#[cbor(map)]
pub struct Distribute {
    /// `region/zone/subzone`; may end early or in `*`.
    #[n(1)]
    pub from: String,
    /// The same to percent, 100 in all.
    #[cbor(n(2), default)]
    pub to: BTreeMap<String, u32>,
}

/// Istio's `retryBudget`.
#[derive(Debug, Clone, Copy, Decode, Encode, PartialEq)]
#[cbor(map)]
pub struct RetryBudgetRule {
    /// Retries under way per hundred requests under way.
    #[n(1)]
    pub percent: f64,
    /// So many may be under way in any case.
    #[n(2)]
    pub min_concurrency: u32,
    /// Of what came within this time, and not of what is under way.
    #[n(90)]
    pub interval: Option<Duration>,
}

impl Default for RetryBudgetRule {
    /// What `retryBudget: {}` means.
    fn default() -> Self {
        Self { percent: 20.0, min_concurrency: 3, interval: None }
    }
}

/// Is it a prime number?
#[must_use]
pub fn is_prime(number: u32) -> bool {
    let factors = (2..).take_while(|factor| factor * factor <= number);
    number > 1 && factors.into_iter().all(|factor| !number.is_multiple_of(factor))
}

/// May it stand in a `Set-Cookie`, as a path or an attribute's value (RFC 6265)?
#[must_use]
pub fn is_cookie_part(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b';')
}

impl Check for LoadBalancing {
    fn check(&self) -> Checked {
        if let Method::Hash(policy) = &self.method {
            field("method", &**policy)?;
        }
        field("warmup", self.warmup.as_ref())
    }
}

impl Check for HashPolicy {
    fn check(&self) -> Checked {
        match &self.key {
            HashKey::Header(name) | HashKey::QueryParameter(name) => not_empty("key", name)?,
            HashKey::Cookie(cookie) => field("key", cookie)?,
            HashKey::SourceIp => {}
        }
        match self.table {
            HashTable::Ring(..=RING_SIZE_MAX) => Ok(()),
            HashTable::Maglev(size) if size < TABLE_SIZE_END && is_prime(size) => Ok(()),
            HashTable::Ring(size) | HashTable::Maglev(size) => {
                Err(FieldError::new("table", format!("{size} is no size of such a table")))
            }
        }
    }
}

impl Check for HashCookie {
    fn check(&self) -> Checked {
        let named = self.attributes.iter().map(|(name, _)| name).chain([&self.name]);
        let others = self.attributes.iter().map(|(_, value)| value).chain([&self.path]);
        if named.into_iter().all(|name| is_token(name.as_bytes()))
            && others.into_iter().all(|part| is_cookie_part(part))
        {
            return Ok(());
        }
        Err(FieldError::new("name", "no cookie can be set so"))
    }
}

impl Check for Warmup {
    fn check(&self) -> Checked {
        crate::wire::percent(self.minimum_percent)?;
        let aggression = self.aggression;
        if aggression.is_nan() || aggression < 0.0 || self.duration.is_zero() {
            return Err(FieldError::new("aggression", "less than nothing, or no time"));
        }
        Ok(())
    }
}

impl Check for RetryBudgetRule {
    fn check(&self) -> Checked {
        crate::wire::percent(self.percent)
    }
}
