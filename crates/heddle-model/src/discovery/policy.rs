//! What a DestinationRule asks of the endpoints behind a cluster: when one is taken out, and how much
//! may be under way to all of them. Defaults are filled in where rules are read, so that every proxy
//! does the same.

use std::time::Duration;

use minicbor::{Decode, Encode};

/// Istio's `OutlierDetection`, with its defaults filled in.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct OutlierDetection {
    /// Answers of 500 to 599 in a row that take an endpoint out; 0: never.
    #[cbor(n(1), default)]
    pub consecutive_5xx: u32,
    /// Answers of 502, 503 or 504 in a row that take an endpoint out; 0: never.
    #[cbor(n(2), default)]
    pub consecutive_gateway: u32,
    /// Are failures to connect and resets counted on their own, and not as answers of 5xx?
    #[cbor(n(3), default)]
    pub splits_local_origin: bool,
    /// Such failures in a row that take an endpoint out, where they are counted on their own.
    #[cbor(n(4), default)]
    pub consecutive_local_origin: u32,
    /// How long a readmitted endpoint has to behave for its next ejection to be one step shorter.
    #[n(5)]
    pub interval: Duration,
    /// How long the first ejection lasts; each further one is longer by as much.
    #[n(6)]
    pub base_ejection_time: Duration,
    /// While at least this share of the endpoints is out, no other is taken out.
    #[cbor(n(7), default)]
    pub max_ejection_percent: u8,
    /// While less than this share of the endpoints is in, all of them are used.
    #[cbor(n(8), default)]
    pub min_health_percent: u8,
    /// Who succeeds much more seldom than the others is taken out; never where absent.
    #[n(70)]
    pub success_rate: Option<SuccessRate>,
    /// Who fails too often is taken out; never where absent.
    #[n(71)]
    pub failure_percentage: Option<FailurePercentage>,
    /// Answers of these statuses are the errors that are counted, in place of those of 500 to 599; none: no
    /// others are.
    #[cbor(n(90), default)]
    pub error_codes: Vec<u16>,
}

/// Envoy's success-rate outlier: who succeeds more seldom than the mean of all less so many standard
/// deviations is one.
#[derive(Debug, Clone, Copy, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct SuccessRate {
    /// Thousandths of a standard deviation.
    #[n(1)]
    pub stdev_factor: u32,
    /// So many endpoints must have had enough requests.
    #[n(2)]
    pub minimum_hosts: u32,
    /// So many requests within an interval are enough.
    #[n(3)]
    pub request_volume: u32,
}

impl Default for SuccessRate {
    /// Envoy's.
    fn default() -> Self {
        Self { stdev_factor: 1_900, minimum_hosts: 5, request_volume: 100 }
    }
}

/// Envoy's failure-percentage outlier.
#[derive(Debug, Clone, Copy, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct FailurePercentage {
    /// This share of failures makes one, percent.
    #[n(1)]
    pub threshold: u32,
    /// So many endpoints must have had enough requests.
    #[n(2)]
    pub minimum_hosts: u32,
    /// So many requests within an interval are enough.
    #[n(3)]
    pub request_volume: u32,
}

impl Default for FailurePercentage {
    /// Envoy's.
    fn default() -> Self {
        Self { threshold: 85, minimum_hosts: 5, request_volume: 50 }
    }
}

impl OutlierDetection {
    /// Does it ask how many of an endpoint's requests fail, and not only how many in a row?
    #[must_use]
    pub fn counts_rates(&self) -> bool {
        self.success_rate.is_some() || self.failure_percentage.is_some()
    }
}

impl Default for OutlierDetection {
    /// What `outlierDetection: {}` means.
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway: 0,
            splits_local_origin: false,
            consecutive_local_origin: 5,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 10,
            min_health_percent: 0,
            success_rate: None,
            failure_percentage: None,
            error_codes: Vec::new(),
        }
    }
}

/// Istio's `ConnectionPoolSettings`; what is absent is not limited, or as the proxy does it anyway.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq, Default)]
#[cbor(map)]
pub struct ConnectionPool {
    /// Connections of TCP and HTTP/1.
    #[n(1)]
    pub max_connections: Option<u32>,
    /// How long a connect may take.
    #[n(2)]
    pub connect_timeout: Option<Duration>,
    /// Requests that wait for a connection (`http1MaxPendingRequests`).
    #[n(3)]
    pub max_pending: Option<u32>,
    /// Requests under way, of any version (`http2MaxRequests`).
    #[n(4)]
    pub max_requests: Option<u32>,
    /// Requests that one connection carries.
    #[n(5)]
    pub max_requests_per_connection: Option<u32>,
    /// Retries under way.
    #[n(6)]
    pub max_retries: Option<u32>,
    /// How long a connection of HTTP may carry nothing; zero: any time.
    #[n(7)]
    pub idle_timeout: Option<Duration>,
    /// Servers are asked in HTTP/2, whatever their clients speak (`h2UpgradePolicy: UPGRADE`).
    #[cbor(n(70), default)]
    pub upgrades_to_http2: bool,
    /// Servers are asked in what their clients speak, whatever their port is declared to.
    #[cbor(n(71), default)]
    pub use_client_protocol: bool,
    /// How long a connection of TCP may carry nothing either way, and one of HTTP where that is not said on its
    /// own; zero: any time.
    #[n(90)]
    pub tcp_idle_timeout: Option<Duration>,
    /// How old a connection may get. One of HTTP takes no more requests then; one of TCP ends.
    #[n(91)]
    pub max_connection_duration: Option<Duration>,
    /// Requests under way on one connection of HTTP/2.
    #[n(92)]
    pub max_concurrent_streams: Option<u32>,
    /// When the kernel asks whether the other end of a connection is there.
    #[n(93)]
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// When that is asked by a PING of HTTP/2.
    #[n(94)]
    pub http2_keepalive: Option<Http2Keepalive>,
}

/// Istio's `tcpKeepalive`; what is absent is as the kernel has it.
#[derive(Debug, Clone, Copy, Decode, Encode, PartialEq, Eq, Default)]
#[cbor(map)]
pub struct TcpKeepalive {
    /// Probes without an answer that end a connection.
    #[n(1)]
    pub probes: Option<u32>,
    /// Silence before the first one.
    #[n(2)]
    pub time: Option<Duration>,
    /// Time between two.
    #[n(3)]
    pub interval: Option<Duration>,
}

/// Istio's `http2KeepAlive`.
#[derive(Debug, Clone, Copy, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct Http2Keepalive {
    /// Time between an answer and the next PING.
    #[n(1)]
    pub interval: Duration,
    /// How long an answer may take, before the connection is given up.
    #[n(2)]
    pub timeout: Duration,
}

impl ConnectionPool {
    /// Does it ask for anything?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
