//! Expressions of `Telemetry`: the part of CEL by which access logs are filtered and tags of metrics are made.
//!
//! What is written is read, its names are looked up and its types are checked once, here; what is beyond this
//! part of the language is refused by name. What an expression comes to is `heddle_logic::expression`'s.

mod parse;
mod token;

use super::report::closest;
use crate::pattern::Pattern;

/// Longest expression in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 2_048;
/// Deepest nesting.
const DEPTH_MAX: u32 = 32;

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
    fn name(self) -> &'static str {
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
    fn named(name: &str) -> Result<Self, String> {
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
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong or beyond this part of the language, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(format!(
                "the expression has {} bytes, more than the {EXPRESSION_BYTES_MAX} allowed",
                text.len()
            ));
        }
        parse::parse(text)
    }

    /// Reads one that says yes or no.
    ///
    /// # Errors
    /// As for [`Self::parse`], and that it says something else.
    pub fn parse_condition(text: &str) -> Result<Self, String> {
        let read = Self::parse(text)?;
        match read.sort() {
            Sort::Bool => Ok(read),
            sort => Err(format!(
                "`{text}` is {}, not a condition: compare it with something, e.g. `response.code >= 400`",
                sort.name()
            )),
        }
    }

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
            Self::Literal(Literal::Text(_)) => Sort::Text,
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
            Self::Not(inner) | Self::Matches(inner, _) | Self::Size(inner) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read() {
        for text in [
            "response.code >= 400",
            "response.code >= 400 || xds.cluster_name == 'BlackHoleCluster' || xds.cluster_name == \"PassthroughCluster\"",
            "connection.mtls && request.url_path.contains('v1beta3')",
            "!has(response.code) || !(response.code < 299)",
            "has(request.headers['x-debug'])",
            "'x-debug' in request.headers",
            "request.headers['user-agent'] != 'kube-probe/1.30' && request.method in ['POST', 'PUT']",
            "request.headers.referer.startsWith('http')",
            "request.duration > duration('200ms')",
            "request.path.matches('^/api/v[0-9]+')",
            "size(request.path) > 100 && request.path.size() < 4000",
            "response.code == 503 ? true : response.flags != 0",
            "source.port + 1 > 1024",
        ] {
            assert!(
                Expression::parse_condition(text).is_ok(),
                "{text}: {:?}",
                Expression::parse(text)
            );
        }
        let tag = "has(request.host) ? request.host : \"unknown\"";
        assert_eq!(Expression::parse(tag).unwrap().sort(), Sort::Text);
    }

    #[test]
    fn what_is_beyond_is_refused_by_name() {
        for (text, words) in [
            ("request.time > 5", "`request.time` is nothing that is known"),
            ("response.cod >= 400", "did you mean `response.code`?"),
            ("upstream_peer.labels['app']", "`upstream_peer.labels`"),
            ("request.headers.exists(h, h == 'a')", "`exists`"),
            ("request.path.split('/')", "`split`"),
            ("response.code >= '400'", "a number and a text"),
            ("response.code", "not a condition"),
            ("response.code = 400", "`=`"),
            ("request.path.startsWith(5)", "a text"),
            ("response.code - 1 > 3", "`-`"),
            ("response.code >=", "ends"),
            ("(response.code > 1", "`)`"),
            ("'abc", "no end"),
            ("timestamp('x') == 1", "`timestamp(…)`"),
            ("has('a')", "`has` takes"),
            ("response.code in []", "empty list"),
            ("response.code in ['a']", "a number and a text"),
            ("request.path.matches('(')", "regex"),
            ("request.path.matches(request.host)", "`matches` takes"),
            ("response.code > 99999999999999999999", "number"),
            ("request.duration > duration('5')", "duration"),
            ("true && 1", "a boolean"),
            ("", "empty"),
        ] {
            let error = Expression::parse_condition(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn neither_length_nor_depth_is_without_end() {
        let deep = format!("{}true{}", "(".repeat(900), ")".repeat(900));
        assert!(Expression::parse(&deep).unwrap_err().contains("nested"), "{deep}");
        let nots = format!("{}true", "!".repeat(2_000));
        assert!(Expression::parse(&nots).unwrap_err().contains("nested"));
        assert!(Expression::parse(&"a".repeat(3_000)).unwrap_err().contains("2048"));
        let long = vec!["response.code == 1"; 80].join(" || ");
        assert!(Expression::parse(&long).is_ok());
    }
}
