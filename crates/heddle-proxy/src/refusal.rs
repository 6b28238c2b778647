//! Every reply the mesh makes itself: one enum, one table; and how a request may fail besides.
//!
//! A [`Refusal`] says why; [`Refusal::row`] gives everything that follows from it: HTTP status, gRPC
//! code, Envoy's response flag, metric label, log level, whether the connection ends, and text. It
//! writes no bytes: `reply` makes an answer of it, and a connection without requests is reset.

use std::{borrow::Cow, fmt, net::IpAddr, time::Duration};

use heddle_logic::eject::Seen;
use heddle_model::{
    ServiceName, WorkloadId,
    discovery::{AbortWith, Provenance},
};
use heddle_wire::http1::HeadError;
use tracing::Level;

/// Why the mesh refused a request or a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The client's bytes are no HTTP request, or one that could be read in two ways.
    BadRequest(Cow<'static, str>),
    /// A request of another version than HTTP/1.0 and HTTP/1.1.
    BadVersion,
    /// A request head beyond the size or field limit; the text names the limit.
    HeadTooLarge(Cow<'static, str>),
    /// A request head not complete in time.
    HeadTimeout,
    /// The service has HTTP rules and none of them matches.
    NoRoute(ServiceName),
    /// The chosen target names something absent; the text says what. With the status that the rule's
    /// dialect asks for: 503 in Istio's, 500 in the Gateway API's.
    DanglingTarget(String, u16),
    /// Nobody behind this service is ready.
    NoEndpoints(ServiceName),
    /// A name that it leads to has never been resolved; the text says which and what was said of it.
    NotResolved(String),
    /// By this Sidecar, only what is known may be called, and this host or address is not.
    NotInRegistry(String, Provenance),
    /// By this Sidecar, the workload does not see this service.
    NotVisible(ServiceName, Provenance),
    /// All who are behind it were taken out for their errors, by this rule.
    AllEjected(ServiceName, Provenance),
    /// A limit of a DestinationRule is reached; the text names both.
    Overflow(String),
    /// The service has no such port.
    PortNotDeclared(ServiceName, u16),
    /// A virtual address of this mesh that no service has.
    UnknownAddress(IpAddr),
    /// No connection to any endpoint tried; the text holds the last error.
    ConnectFailed(String),
    /// A connection stood, and no TLS came about on it; the text says why.
    TlsFailed(String),
    /// The endpoint closed or reset before it answered, and the request may not be sent again.
    UpstreamReset,
    /// The endpoint's answer is no HTTP, or one that could be read in two ways.
    BadResponse(Cow<'static, str>),
    /// The connection is to become what a server that speaks HTTP/2 only does not offer there.
    CannotUpgrade,
    /// A fault rule ended the request with this.
    FaultAbort(AbortWith),
    /// A fault rule holds for the connection; the text says what it does.
    FaultConnection(&'static str),
    /// The endpoint took longer than the rule's limit, which this is.
    Timeout(Duration),
    /// A virtual address of this mesh that the control plane did not explain in time.
    DiscoveryTimeout(String),
    /// A destination outside the mesh could not be reached; the text holds the error.
    OutsideUnreachable(String),
    /// This workload's own application does not accept connections on the port.
    ApplicationUnreachable(u16, String),
    /// Too many connections; the text names the limit.
    ConnectionLimit(&'static str),
    /// The sidecar is close to its memory limit.
    MemoryLimit,
    /// No socket can be opened any more; the text holds the error.
    DescriptorLimit(String),
    /// Somebody connected to the sidecar's own listener instead of through it.
    OwnListener,
}

/// The header that says why the mesh refused, and where: `CODE; hop=DIRECTION@WORKLOAD; …`.
pub(crate) const REFUSAL_HEADER: &str = "x-heddle-refusal";

/// Does the sidecar of the workload `by` say in this value of [`REFUSAL_HEADER`] that the request
/// reached no application?
pub(crate) fn says_undelivered(value: &[u8], by: &WorkloadId) -> bool {
    let code = refused_by(value, by);
    matches!(code, Some(b"application-unreachable" | b"memory-limit" | b"connection-limit"))
}

/// The code with which the sidecar of the workload `by` refused, if it is that one who speaks in this value
/// of [`REFUSAL_HEADER`]. One that names another hop came through an application: that one was reached.
pub(crate) fn refused_by<'a>(value: &'a [u8], by: &WorkloadId) -> Option<&'a [u8]> {
    let mut parts = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let code = parts.next()?;
    let hop = parts.next()?.strip_prefix(b"hop=inbound@")?;
    (hop == by.0.as_bytes()).then_some(code)
}

/// What an endpoint is to be judged by, where its sidecar refused with this code instead of passing on what
/// its application said: the failure of the application that it tells of; `None` where it tells of none.
pub(crate) fn seen_in_refusal(code: &[u8]) -> Option<Seen> {
    match code {
        b"application-unreachable" | b"upstream-reset" => Some(Seen::Unreachable),
        b"bad-response" => Some(Seen::Answer(502)),
        _ => None,
    }
}

/// All that follows from a [`Refusal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalRow {
    /// Which one it is.
    pub code: RefusalCode,
    /// HTTP status of the reply.
    pub status: u16,
    /// gRPC status of the reply where the request was gRPC.
    pub grpc: u8,
    /// Envoy's response flag.
    pub flag: Flag,
    /// Level of the log line: `warn` where an operator should look, else `debug`.
    pub level: Level,
    /// What becomes of the client's connection.
    pub connection: AfterRefusal,
    /// What happened and what to do, for people.
    pub text: Cow<'static, str>,
}

/// What becomes of a client's connection after a refusal, if the request itself was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterRefusal {
    /// It waits for the next request, which may fare better.
    Stays,
    /// It ends, because what was refused is the connection: what comes on it cannot be read, or
    /// where it goes was found out once, at accept, and what was not known then must not stay so
    /// for its life.
    Ends,
}

/// Makes the type from the list, so that no row can have a code that is not counted.
macro_rules! codes {
    ($($code:ident: $text:literal,)+) => {
        /// The stable name of a [`Refusal`]: in the header, the log and the metric label `code`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum RefusalCode {
            $(#[doc = $text] $code,)+
        }

        impl RefusalCode {
            /// All of them, in the order of their numbers.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$code),+];

            /// The name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => $text,)+
                }
            }
        }
    };
}

codes! {
    BadRequest: "bad-request",
    BadVersion: "bad-version",
    HeadTooLarge: "head-too-large",
    HeadTimeout: "head-timeout",
    NoRoute: "no-route",
    DanglingTarget: "dangling-target",
    NoEndpoints: "no-endpoints",
    NotResolved: "not-resolved",
    NotInRegistry: "not-in-registry",
    NotVisible: "not-visible",
    AllEjected: "all-ejected",
    Overflow: "overflow",
    PortNotDeclared: "port-not-declared",
    UnknownAddress: "unknown-address",
    ConnectFailed: "connect-failed",
    TlsFailed: "tls-failed",
    UpstreamReset: "upstream-reset",
    BadResponse: "bad-response",
    CannotUpgrade: "cannot-upgrade",
    FaultAbort: "fault-abort",
    FaultConnection: "fault-connection",
    Timeout: "timeout",
    DiscoveryTimeout: "discovery-timeout",
    OutsideUnreachable: "outside-unreachable",
    ApplicationUnreachable: "application-unreachable",
    ConnectionLimit: "connection-limit",
    MemoryLimit: "memory-limit",
    DescriptorLimit: "descriptor-limit",
    OwnListener: "own-listener",
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Refusal {
    /// The table.
    #[must_use]
    #[rustfmt::skip] // one row, one look
    pub fn row(&self) -> RefusalRow {
        use AfterRefusal::{Ends, Stays};
        use Level as L;
        use RefusalCode as Code;
        match self {
            Self::BadRequest(what) => row(Code::BadRequest, 400, 3, Flag::DPE, L::DEBUG, Ends,
                format!("not a request this mesh can pass on: {what}")),
            Self::BadVersion => row(Code::BadVersion, 505, 12, Flag::DPE, L::DEBUG, Ends, "the version is neither HTTP/1.0 nor HTTP/1.1"),
            Self::HeadTooLarge(what) => row(Code::HeadTooLarge, 431, 8, Flag::DPE, L::DEBUG, Ends,
                format!("the request head is too large: {what}")),
            Self::HeadTimeout => row(Code::HeadTimeout, 408, 4, Flag::SI, L::DEBUG, Ends, "the request head did not end within 10 s"),
            Self::NoRoute(service) => row(Code::NoRoute, 404, 12, Flag::NR, L::DEBUG, Stays,
                format!("no HTTP rule of {service} matches this request")),
            Self::DanglingTarget(what, status) => row(Code::DanglingTarget, *status, 14, Flag::NC, L::WARN, Stays,
                format!("the rule's target does not exist: {what}")),
            Self::NoEndpoints(service) => row(Code::NoEndpoints, 503, 14, Flag::UH, L::WARN, Stays,
                match service.is_host() {
                    true => format!("the ServiceEntry for {service} has no endpoint for this port and subset"),
                    false => format!("no workload behind {service} is ready"),
                }),
            Self::NotResolved(what) => row(Code::NotResolved, 503, 14, Flag::UH, L::WARN, Stays,
                format!("no address is known for {what}")),
            // As Istio does it: 502, by the route that takes what no other does.
            Self::NotInRegistry(what, rule) => row(Code::NotInRegistry, 502, 14, Flag::NR, L::WARN, Stays,
                format!("{} lets this workload call only what is known (outboundTrafficPolicy: REGISTRY_ONLY), and {what} is not: a ServiceEntry would name it", rule.0)),
            Self::NotVisible(service, rule) => row(Code::NotVisible, 502, 14, Flag::NR, L::WARN, Stays,
                format!("{} does not let this workload call {service}: name it in `egress.hosts`", rule.0)),
            Self::AllEjected(service, rule) => row(Code::AllEjected, 503, 14, Flag::UH, L::WARN, Stays,
                format!("every workload behind {service} was taken out for its errors, by {}", rule.0)),
            Self::Overflow(what) => row(Code::Overflow, 503, 14, Flag::UO, L::WARN, Stays,
                format!("a limit is reached: {what}")),
            Self::PortNotDeclared(service, port) => row(Code::PortNotDeclared, 503, 14, Flag::NR, L::WARN, Stays,
                match service.is_host() {
                    true => format!("the ServiceEntry for {service} has no port {port}"),
                    false => format!("{service} has no port {port}; `heddle run --port {port}` would declare it"),
                }),
            Self::UnknownAddress(ip) => row(Code::UnknownAddress, 503, 14, Flag::NR, L::WARN, Ends,
                format!("no service of this mesh has the address {ip}")),
            Self::ConnectFailed(error) => row(Code::ConnectFailed, 503, 14, Flag::UF, L::WARN, Stays,
                format!("no endpoint accepted a connection: {error}")),
            Self::TlsFailed(error) => row(Code::TlsFailed, 503, 14, Flag::UF, L::WARN, Stays,
                format!("no endpoint could be talked to over TLS: {error}")),
            Self::UpstreamReset => row(Code::UpstreamReset, 503, 14, Flag::UC, L::WARN, Stays,
                "the endpoint closed the connection before it answered, and this request may not be sent twice"),
            Self::BadResponse(what) => row(Code::BadResponse, 502, 14, Flag::UPE, L::WARN, Stays,
                format!("the endpoint's answer cannot be passed on: {what}")),
            Self::CannotUpgrade => row(Code::CannotUpgrade, 502, 12, Flag::UPE, L::WARN, Stays,
                "the endpoint speaks HTTP/2 only, and offers no protocol by CONNECT there (RFC 8441: SETTINGS_ENABLE_CONNECT_PROTOCOL)"),
            Self::FaultAbort(AbortWith { status, grpc }) => row(Code::FaultAbort, *status, grpc.unwrap_or(grpc_of_http(*status)), Flag::FI, L::DEBUG, Stays,
                "a fault rule ended this request"),
            Self::FaultConnection(what) => row(Code::FaultConnection, 503, 14, Flag::FI, L::DEBUG, Ends,
                format!("a fault rule holds for this connection: {what}")),
            Self::Timeout(limit) => row(Code::Timeout, 504, grpc_of_http(504), Flag::UT, L::WARN, Stays,
                format!("the endpoint did not answer in full within the rule's limit of {limit:?}")),
            Self::DiscoveryTimeout(what) => row(Code::DiscoveryTimeout, 503, 14, Flag::NC, L::WARN, Ends,
                format!("the control plane did not answer for {what}; is `heddle control` running?")),
            Self::OutsideUnreachable(error) => row(Code::OutsideUnreachable, 503, 14, Flag::UF, L::DEBUG, Stays,
                format!("the destination outside the mesh was not reached: {error}")),
            Self::ApplicationUnreachable(port, error) => row(Code::ApplicationUnreachable, 503, 14, Flag::UF, L::WARN, Stays,
                format!("the application does not accept connections on port {port}: {error}")),
            Self::ConnectionLimit(which) => row(Code::ConnectionLimit, 503, 8, Flag::OM, L::WARN, Ends,
                format!("too many open connections: {which}")),
            Self::MemoryLimit => row(Code::MemoryLimit, 503, 8, Flag::OM, L::WARN, Stays,
                "the sidecar is close to its memory limit (--memory-limit)"),
            Self::DescriptorLimit(error) => row(Code::DescriptorLimit, 503, 8, Flag::OM, L::WARN, Stays,
                format!("no more connections can be opened: raise the limit of open files (`ulimit -n`): {error}")),
            Self::OwnListener => row(Code::OwnListener, 404, 12, Flag::NR, L::WARN, Ends,
                "this is a port of the sidecar itself, not of a service"),
        }
    }
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        match error.status() {
            431 => Self::HeadTooLarge(error.to_string().into()),
            505 => Self::BadVersion,
            _ => Self::BadRequest(error.to_string().into()),
        }
    }
}

/// A refusal with the rule it follows from, if one does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) rule: Option<Provenance>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, rule: None }
    }
}

/// Why a request was not answered in full by an upstream.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The mesh answers.
    Refused(Refused),
    /// The response had begun and cannot be completed: the client's connection is cut.
    Cut(Cut),
    /// Nobody waits for an answer any more.
    ClientGone,
}

/// How a response ended too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The upstream closed.
    Closed,
    /// The upstream reset.
    Reset,
    /// It ended the stream of HTTP/2 with this code.
    Stream(h2::Reason),
    /// Its time was over.
    Late,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Failure {
    /// Did the client fail, and not the endpoint?
    pub(crate) fn is_the_clients(&self) -> bool {
        match self {
            Self::ClientGone => true,
            Self::Refused(refused) => {
                matches!(refused.refusal, Refusal::BadRequest(_) | Refusal::CannotUpgrade)
            }
            Self::Cut(_) => false,
        }
    }

    /// Names the rule that a refusal follows from, unless it is known already.
    pub(crate) fn by(self, rule: Option<Provenance>) -> Self {
        match self {
            Self::Refused(refused) => {
                Self::Refused(Refused { rule: refused.rule.or(rule), ..refused })
            }
            other => other,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.row();
        write!(f, "{}: {}", row.code, row.text)
    }
}

fn row(
    code: RefusalCode,
    status: u16,
    grpc: u8,
    flag: Flag,
    level: Level,
    connection: AfterRefusal,
    text: impl Into<Cow<'static, str>>,
) -> RefusalRow {
    RefusalRow { code, status, grpc, flag, level, connection, text: text.into() }
}

/// gRPC's own mapping of HTTP statuses (grpc/doc/http-grpc-status-mapping.md).
fn grpc_of_http(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// One of Envoy's response flags, as used in the label `response_flags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flag(u16, &'static str);

impl Flag {
    /// No healthy upstream.
    pub const UH: Self = Self(1, "UH");
    /// Upstream connection failure.
    pub const UF: Self = Self(1 << 1, "UF");
    /// Upstream connection ended before the answer did.
    pub const UC: Self = Self(1 << 2, "UC");
    /// No route.
    pub const NR: Self = Self(1 << 3, "NR");
    /// Delay injected.
    pub const DI: Self = Self(1 << 4, "DI");
    /// Fault (abort) injected.
    pub const FI: Self = Self(1 << 5, "FI");
    /// Downstream (the client) went away.
    pub const DC: Self = Self(1 << 6, "DC");
    /// Attempts used up.
    pub const URX: Self = Self(1 << 7, "URX");
    /// Head timeout of the client, or a connection that idled for too long.
    pub const SI: Self = Self(1 << 8, "SI");
    /// Downstream protocol error.
    pub const DPE: Self = Self(1 << 9, "DPE");
    /// Upstream protocol error.
    pub const UPE: Self = Self(1 << 10, "UPE");
    /// No cluster: the rule names something absent.
    pub const NC: Self = Self(1 << 11, "NC");
    /// A limit of the sidecar's was reached.
    pub const OM: Self = Self(1 << 12, "OM");
    /// Time limit of the rule.
    pub const UT: Self = Self(1 << 13, "UT");
    /// Upstream overflow: a limit of a rule's was reached, or the budget for further attempts is spent.
    pub const UO: Self = Self(1 << 14, "UO");

    /// A connection had all the time that a rule gives it.
    pub const DT: Self = Self(1 << 15, "DT");

    const ALL: [Self; 16] = [
        Self::UH,
        Self::UF,
        Self::UC,
        Self::NR,
        Self::DI,
        Self::FI,
        Self::DC,
        Self::URX,
        Self::SI,
        Self::DPE,
        Self::UPE,
        Self::NC,
        Self::OM,
        Self::UT,
        Self::UO,
        Self::DT,
    ];

    /// The short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.1
    }
}

/// A set of [`Flag`]s. Displayed as Envoy does: joined by `,`, or `-` for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u16);

impl Flags {
    /// Adds a flag.
    pub fn set(&mut self, flag: Flag) {
        self.0 |= flag.0;
    }

    /// Is the flag in the set?
    #[must_use]
    pub const fn has(self, flag: Flag) -> bool {
        self.0 & flag.0 != 0
    }

    /// The set as a number, for look-ups.
    #[must_use]
    pub(crate) const fn bits(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for flag in Flag::ALL.into_iter().filter(|flag| self.has(*flag)) {
            write!(f, "{between}{}", flag.1)?;
            between = ",";
        }
        if between.is_empty() { f.write_str("-") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [Refusal; RefusalCode::ALL.len()] {
        let service = ServiceName::new("reviews", "default").unwrap();
        [
            Refusal::BadRequest("x".into()),
            Refusal::BadVersion,
            Refusal::HeadTooLarge("x".into()),
            Refusal::HeadTimeout,
            Refusal::NoRoute(service.clone()),
            Refusal::DanglingTarget(String::new(), 503),
            Refusal::NoEndpoints(service.clone()),
            Refusal::NotResolved("x".into()),
            Refusal::NotInRegistry("x".into(), Provenance("x".into())),
            Refusal::NotVisible(service.clone(), Provenance("x".into())),
            Refusal::AllEjected(service.clone(), Provenance::default()),
            Refusal::Overflow(String::new()),
            Refusal::PortNotDeclared(service, 1),
            Refusal::UnknownAddress(IpAddr::from([240, 240, 0, 9])),
            Refusal::ConnectFailed(String::new()),
            Refusal::TlsFailed(String::new()),
            Refusal::UpstreamReset,
            Refusal::BadResponse("x".into()),
            Refusal::CannotUpgrade,
            Refusal::FaultAbort(AbortWith { status: 500, grpc: None }),
            Refusal::FaultConnection("refuse"),
            Refusal::Timeout(Duration::from_secs(1)),
            Refusal::DiscoveryTimeout(String::new()),
            Refusal::OutsideUnreachable(String::new()),
            Refusal::ApplicationUnreachable(1, String::new()),
            Refusal::ConnectionLimit("x"),
            Refusal::MemoryLimit,
            Refusal::DescriptorLimit(String::new()),
            Refusal::OwnListener,
        ]
    }

    #[test]
    fn every_code_is_that_of_one_refusal() {
        assert_eq!(all().map(|refusal| refusal.row().code), RefusalCode::ALL);
    }

    #[test]
    fn a_refusal_ends_the_connection_only_where_the_connection_is_what_is_refused() {
        let ends = all().map(|refusal| refusal.row());
        let ends = ends.iter().filter(|row| row.connection == AfterRefusal::Ends);
        let expected = [
            "bad-request",
            "bad-version",
            "head-too-large",
            "head-timeout",
            "unknown-address",
            "fault-connection",
            "discovery-timeout",
            "connection-limit",
            "own-listener",
        ];
        assert_eq!(ends.map(|row| row.code.as_str()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn flags_are_written_as_envoy_writes_them() {
        let mut flags = Flags::default();
        assert_eq!(flags.to_string(), "-");
        flags.set(Flag::FI);
        flags.set(Flag::DI);
        assert_eq!(flags.to_string(), "DI,FI");
    }
}
