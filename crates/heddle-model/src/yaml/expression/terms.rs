//! What an expression is made of, and what each part of it says of itself.

use crate::{pattern::Pattern, yaml::report::closest};

/// Deepest nesting.
pub(super) const DEPTH_MAX: u32 = 32;

/// An expression that was read. What it is made of makes sense: no comparison of a text with a number.
#[derive(Debug, Clone)]
pub enum Expression {
    /// A value as written.
    Literal(Literal),
    /// What is known of a request or a connection.
    Attribute(Attribute),
    /// `!a`.
    Not(Box<Self>),
    /// Two sides and what stands between.
    Binary(Operator, Box<Self>, Box<Self>),
    /// `a in [b, c]`.
    In(Box<Self>, Vec<Self>),
    /// `has(a)`: is it known?
    Has(Attribute),
    /// `a ? b : c`.
    If(Box<Self>, Box<Self>, Box<Self>),
    /// `a.startsWith(b)` and its like.
    Test(Test, Box<Self>, Box<Self>),
    /// `a.matches('re')`.
    Matches(Box<Self>, Pattern),
    /// `a.size()` or `size(a)`, of a text.
    Size(Box<Self>),
    /// `string(a)`: as a tag has it.
    Shown(Box<Self>),
}

/// A value as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A text.
    Text(String),
    /// `duration('200ms')`, in nanoseconds.
    Duration(i64),
}

/// What stands between two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `&&`.
    And,
    /// `||`.
    Or,
    /// `==`.
    Equal,
    /// `!=`.
    Differs,
    /// `<`.
    Less,
    /// `<=`.
    AtMost,
    /// `>`.
    Greater,
    /// `>=`.
    AtLeast,
    /// `+`, of numbers or of texts.
    Plus,
}

/// What is asked of a text by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// `startsWith`.
    StartsWith,
    /// `endsWith`.
    EndsWith,
    /// `contains`.
    Contains,
}

/// What sort of value something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Yes or no.
    Bool,
    /// A whole number.
    Int,
    /// A text.
    Text,
    /// A time.
    Duration,
}

impl Sort {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bool => "a boolean",
            Self::Int => "a number",
            Self::Text => "a text",
            Self::Duration => "a duration",
        }
    }
}

/// What is known of a request or a connection, by Envoy's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// `request.path`: with its query.
    Path,
    /// `request.url_path`: without.
    UrlPath,
    /// `request.query`.
    Query,
    /// `request.host`.
    Host,
    /// `request.scheme`.
    Scheme,
    /// `request.method`.
    Method,
    /// `request.headers['…']`, in lower case.
    RequestHeader(String),
    /// `request.id`.
    RequestId,
    /// `request.protocol`.
    Protocol,
    /// `request.duration`.
    Duration,
    /// `request.size`: bytes of the request.
    RequestSize,
    /// `response.code`.
    ResponseCode,
    /// `response.code_details`.
    ResponseDetails,
    /// `response.flags`: Envoy's numbers of them, one bit each.
    ResponseFlags,
    /// `response.grpc_status`.
    GrpcStatus,
    /// `response.headers['…']`, in lower case.
    ResponseHeader(String),
    /// `response.size`: bytes of the response.
    ResponseSize,
    /// `source.address`: with its port.
    SourceAddress,
    /// `source.port`.
    SourcePort,
    /// `destination.address`: what the client called, with its port.
    DestinationAddress,
    /// `destination.port`.
    DestinationPort,
    /// `connection.mtls`.
    Mtls,
    /// `connection.requested_server_name`.
    ServerName,
    /// `upstream.address`: with its port.
    UpstreamAddress,
    /// `upstream.transport_failure_reason`.
    UpstreamFailure,
    /// `xds.cluster_name`.
    ClusterName,
    /// `xds.route_name`.
    RouteName,
    /// `filter_state.upstream_peer.…`: who is called.
    UpstreamPeer(PeerField),
    /// `filter_state.downstream_peer.…`: who calls.
    DownstreamPeer(PeerField),
}

/// What is known of the workload at the other end, by Istio's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerField {
    /// `name`: of the pod.
    Name,
    /// `namespace`.
    Namespace,
    /// `workload`.
    Workload,
    /// `app`: its label.
    App,
    /// `version`: its label.
    Version,
    /// `service`: its canonical name.
    Service,
    /// `revision`: its canonical revision.
    Revision,
    /// `labels['…']`.
    Label(String),
}

/// Those that are written as they stand.
const PEER_FIELDS: &[(&str, PeerField)] = &[
    ("name", PeerField::Name),
    ("namespace", PeerField::Namespace),
    ("workload", PeerField::Workload),
    ("app", PeerField::App),
    ("version", PeerField::Version),
    ("service", PeerField::Service),
    ("revision", PeerField::Revision),
];

impl PeerField {
    /// By its name, without that which names a label.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        let found = PEER_FIELDS.iter().find(|(known, _)| *known == name);
        found.map(|(_, field)| field.clone()).ok_or_else(|| {
            let known: Vec<_> = PEER_FIELDS.iter().map(|(known, _)| *known).collect();
            format!(
                "`{name}` is nothing that is known of a peer: use `labels['x']` or one of {}",
                known.join(", ")
            )
        })
    }
}

/// Those that are written as they stand.
const NAMED: &[(&str, Attribute)] = &[
    ("request.path", Attribute::Path),
    ("request.url_path", Attribute::UrlPath),
    ("request.query", Attribute::Query),
    ("request.host", Attribute::Host),
    ("request.scheme", Attribute::Scheme),
    ("request.method", Attribute::Method),
    ("request.id", Attribute::RequestId),
    ("request.protocol", Attribute::Protocol),
    ("request.duration", Attribute::Duration),
    ("request.size", Attribute::RequestSize),
    ("request.total_size", Attribute::RequestSize),
    ("response.code", Attribute::ResponseCode),
    ("response.code_details", Attribute::ResponseDetails),
    ("response.flags", Attribute::ResponseFlags),
    ("response.grpc_status", Attribute::GrpcStatus),
    ("response.size", Attribute::ResponseSize),
    ("response.total_size", Attribute::ResponseSize),
    ("source.address", Attribute::SourceAddress),
    ("source.port", Attribute::SourcePort),
    ("destination.address", Attribute::DestinationAddress),
    ("destination.port", Attribute::DestinationPort),
    ("connection.mtls", Attribute::Mtls),
    ("connection.requested_server_name", Attribute::ServerName),
    ("upstream.address", Attribute::UpstreamAddress),
    ("upstream.transport_failure_reason", Attribute::UpstreamFailure),
    ("xds.cluster_name", Attribute::ClusterName),
    ("xds.route_name", Attribute::RouteName),
];

impl Attribute {
    /// What sort of value it is.
    #[must_use]
    pub fn sort(&self) -> Sort {
        match self {
            Self::Mtls => Sort::Bool,
            Self::Duration => Sort::Duration,
            Self::RequestSize
            | Self::ResponseCode
            | Self::ResponseFlags
            | Self::GrpcStatus
            | Self::ResponseSize
            | Self::SourcePort
            | Self::DestinationPort => Sort::Int,
            _ => Sort::Text,
        }
    }

    /// By its name, without those that name a header.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        match name {
            "request.useragent" => return Ok(Self::RequestHeader("user-agent".to_owned())),
            "request.referer" => return Ok(Self::RequestHeader("referer".to_owned())),
            _ => {}
        }
        let found = NAMED.iter().find(|(known, _)| *known == name);
        found.map(|(_, attribute)| attribute.clone()).ok_or_else(|| {
            let known: Vec<_> = NAMED.iter().map(|(known, _)| *known).collect();
            match closest(name, &known) {
                Some(near) => format!("`{name}` is nothing that is known of a request; did you mean `{near}`?"),
                None => format!(
                    "`{name}` is nothing that is known of a request here: use `request.headers['x']`, `response.headers['x']`, or one of {}",
                    known.join(", ")
                ),
            }
        })
    }
}

impl Expression {
    /// What sort of value it comes to.
    #[must_use]
    pub fn sort(&self) -> Sort {
        match self {
            Self::Literal(Literal::Bool(_))
            | Self::Not(_)
            | Self::In(..)
            | Self::Has(_)
            | Self::Test(..)
            | Self::Matches(..) => Sort::Bool,
            Self::Literal(Literal::Int(_)) | Self::Size(_) => Sort::Int,
            Self::Literal(Literal::Text(_)) | Self::Shown(_) => Sort::Text,
            Self::Literal(Literal::Duration(_)) => Sort::Duration,
            Self::Attribute(attribute) => attribute.sort(),
            Self::Binary(Operator::Plus, left, _) => left.sort(),
            Self::Binary(..) => Sort::Bool,
            Self::If(_, then, _) => then.sort(),
        }
    }

    /// Every attribute it asks for.
    pub fn attributes(&self, tell: &mut dyn FnMut(&Attribute)) {
        match self {
            Self::Literal(_) => {}
            Self::Attribute(attribute) | Self::Has(attribute) => tell(attribute),
            Self::Not(inner) | Self::Matches(inner, _) | Self::Size(inner) | Self::Shown(inner) => {
                inner.attributes(tell);
            }
            Self::Binary(_, left, right) | Self::Test(_, left, right) => {
                left.attributes(tell);
                right.attributes(tell);
            }
            Self::In(item, list) => {
                item.attributes(tell);
                list.iter().for_each(|one| one.attributes(tell));
            }
            Self::If(condition, then, other) => {
                condition.attributes(tell);
                then.attributes(tell);
                other.attributes(tell);
            }
        }
    }
}
