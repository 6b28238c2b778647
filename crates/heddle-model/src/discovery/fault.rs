//! Faults on purpose: what a VirtualService's rule injects, and what a [`PortFault`] of its own does at the
//! caller's or at the called one's sidecar.

use std::time::Duration;

use minicbor::{Decode, Encode};

use super::parts::{HttpMatch, Provenance};
use crate::wire::closed;

/// Fault injection (VirtualService `HTTPFaultInjection`). Absent percentage is 0 %, as in Istio.
#[derive(Debug, Clone, Default, Decode, Encode, PartialEq)]
#[cbor(map)]
pub struct Fault {
    /// Wait before forwarding.
    #[n(1)]
    pub delay: Option<FaultDelay>,
    /// Answer without forwarding.
    #[n(2)]
    pub abort: Option<FaultAbort>,
    /// From then on nothing is injected: seconds since the Unix epoch.
    #[n(80)]
    pub expires: Option<u64>,
    /// Does a delay come before the time that the rule's limits allow, as in Istio? Else it counts against
    /// them.
    #[cbor(n(81), default)]
    pub before_limits: bool,
}

/// A fixed delay for a share of requests.
#[derive(Debug, Clone, Decode, Encode, PartialEq)]
#[cbor(map)]
pub struct FaultDelay {
    /// How long.
    #[n(1)]
    pub duration: Duration,
    /// Share in percent, 0 to 100.
    #[cbor(n(2), default)]
    pub percent: f64,
}

/// An abort for a share of requests.
#[derive(Debug, Clone, Decode, Encode, PartialEq)]
#[cbor(map)]
pub struct FaultAbort {
    /// HTTP status, 200 to 600, as in Istio. Where a status of gRPC is asked for, the one that stands for it.
    #[n(1)]
    pub status: u16,
    /// Share in percent, 0 to 100.
    #[cbor(n(2), default)]
    pub percent: f64,
    /// What a call of gRPC is told, 0 to 16; `None`: what stands for `status`.
    #[n(80)]
    pub grpc: Option<u8>,
}

/// A fault of its own kind, as one port of a service or of a workload has it.
#[derive(Debug, Clone, Decode, Encode, PartialEq)]
#[cbor(map)]
pub struct PortFault {
    /// Where it comes from.
    #[cbor(n(1), default)]
    pub provenance: Provenance,
    /// Alternatives; an empty list matches everything. Without meaning for faults of connections.
    #[cbor(n(2), default, decode_with = "crate::wire::conditions")]
    pub matches: Vec<HttpMatch>,
    /// Share of requests, or of connections, in percent, 0 to 100.
    #[cbor(n(3), default)]
    pub percent: f64,
    /// What is injected.
    #[n(4)]
    pub does: Injection,
    /// From then on nothing is injected: seconds since the Unix epoch.
    #[n(5)]
    pub expires: Option<u64>,
}

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injection {
    /// The request waits so long.
    Delay(Duration),
    /// The request is answered and goes nowhere.
    Abort(AbortWith),
    /// The connection has it.
    Tcp(TcpFault),
}

closed!(Injection { 1 => Delay(duration), 2 => Abort(with), 3 => Tcp(fault) });

impl Injection {
    /// Its name: in metrics, in the log and for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delay(_) => "delay",
            Self::Abort(_) => "abort",
            Self::Tcp(fault) => fault.as_str(),
        }
    }
}

/// What an aborted request is answered with.
#[derive(Debug, Clone, Copy, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct AbortWith {
    /// HTTP status, 200 to 599.
    #[n(1)]
    pub status: u16,
    /// What a call of gRPC is told, 0 to 16; `None`: what stands for `status`.
    #[n(2)]
    pub grpc: Option<u8>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpFault {
    /// It is reset before anything passes.
    Refuse,
    /// It stands, and nothing passes.
    Blackhole,
    /// It is reset once so many bytes have passed in one direction.
    ResetAfterBytes(u64),
    /// In each direction no more than so many bytes pass in a second.
    BytesPerSecond(u64),
}

closed!(TcpFault {
    1 => Refuse, 2 => Blackhole, 3 => ResetAfterBytes(bytes), 4 => BytesPerSecond(bytes),
});

impl TcpFault {
    /// Its name, as the field that asks for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Blackhole => "blackhole",
            Self::ResetAfterBytes(_) => "resetAfterBytes",
            Self::BytesPerSecond(_) => "bytesPerSecond",
        }
    }
}

/// Statuses of gRPC by number (grpc/doc/statuscodes.md).
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The HTTP status that stands for one of gRPC, for callers that speak no gRPC (google.rpc.Code).
#[must_use]
pub const fn http_of_grpc(code: u8) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}
