//! What a route of the Gateway API says to a mesh: `HTTPRoute`, `GRPCRoute`, `TCPRoute` and `TLSRoute` whose
//! parents are Services (GEP-1426). Gateways as parents are not here: nothing serves them yet.

use std::collections::BTreeMap;

use crate::discovery::{HeaderRules, StringMatch, Traffic};

/// The API group of routes, and that of a parent that names none.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// A route with at least one Service among its parents.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshRoute {
    /// Which kind of route.
    pub kind: RouteKind,
    /// All parents as written, in order.
    pub parents: Vec<ParentRef>,
    /// Of a `TLSRoute` the names that clients ask for (SNI), in lower case, a `*` for the first label; none for
    /// every name. Other kinds' hostnames are not looked at: the called address decides.
    pub names: Vec<String>,
    /// Rules in order; the order of force is decided by what they match.
    pub rules: Vec<MeshRule>,
}

/// Kinds of routes. Of those on one port of a Service one kind applies: the first in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// `GRPCRoute`.
    Grpc,
    /// `HTTPRoute`.
    Http,
    /// `TLSRoute`.
    Tls,
    /// `TCPRoute`.
    Tcp,
}

impl RouteKind {
    /// The kind as YAML spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
        }
    }
}

/// What a route is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParentRef {
    /// API group; empty for a Service.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; `None`: the route's own.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// A port of the Service by its name.
    pub section_name: Option<String>,
    /// A port of the Service by its number.
    pub port: Option<u16>,
    /// 1-based line in the file.
    pub line: usize,
}

impl ParentRef {
    /// Does it name a Service of the core group?
    #[must_use]
    pub fn is_service(&self) -> bool {
        self.kind == "Service" && self.group.is_empty()
    }
}

/// One entry of `spec.rules`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MeshRule {
    /// Optional name.
    pub name: String,
    /// 1-based line in the file.
    pub line: usize,
    /// Alternatives; never empty for HTTP and gRPC, none for TCP and TLS.
    pub matches: Vec<MeshMatch>,
    /// Where requests go; empty is allowed, and then they are refused with 500.
    pub backends: Vec<BackendRef>,
    /// Requests are sent elsewhere.
    pub redirect: Option<MeshRedirect>,
    /// What goes on in place of what came.
    pub rewrite: Option<MeshRewrite>,
    /// What else happens to requests: fields, time, retries, CORS.
    pub traffic: Traffic,
    /// Who is sent copies.
    pub mirrors: Vec<MeshMirror>,
    /// A filter that is not carried out and must not be skipped: which.
    pub unknown_filter: Option<UnknownFilter>,
}

/// A filter that is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnknownFilter {
    /// In words, e.g. ``the filter `ExtensionRef` RateLimit/slow``.
    pub what: String,
    /// 1-based line in the file.
    pub line: usize,
}

/// One alternative: all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshMatch {
    /// Condition on the path.
    pub path: PathMatch,
    /// The method.
    pub method: Option<String>,
    /// Headers, of which a line must match; names in lower case.
    pub headers: BTreeMap<String, StringMatch>,
    /// Query parameters: the first of each name.
    pub query_params: BTreeMap<String, StringMatch>,
}

impl Default for MeshMatch {
    fn default() -> Self {
        Self {
            path: PathMatch::Elements(String::new()),
            method: None,
            headers: BTreeMap::new(),
            query_params: BTreeMap::new(),
        }
    }
}

/// A condition on a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// Equal.
    Exact(String),
    /// Begins with these elements, `/a/b` without a slash at its end; empty for every path. `/a` takes
    /// `/a`, `/a/` and `/a/b`, and not `/ab`.
    Elements(String),
    /// RE2 syntax, matched against the whole path.
    Regex(String),
    /// A gRPC service, a method, or both.
    Call {
        /// The service with its package; `Exact` or `Regex`.
        service: Option<StringMatch>,
        /// The method; `Exact` or `Regex`.
        method: Option<StringMatch>,
    },
}

/// What a path becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathModifier {
    /// This (`ReplaceFullPath`).
    Full(String),
    /// This in place of the elements that the condition took (`ReplacePrefixMatch`).
    Prefix(String),
}

/// `RequestRedirect`. What is `None` is as in the request, but for the port, which follows from the scheme.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MeshRedirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host, without a port.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
    /// The port.
    pub port: Option<u16>,
    /// Status.
    pub status: u16,
}

/// `URLRewrite`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MeshRewrite {
    /// The host that goes on.
    pub hostname: Option<String>,
    /// The path that goes on.
    pub path: Option<PathModifier>,
}

/// `RequestMirror`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MeshMirror {
    /// Where copies go.
    pub to: BackendRef,
    /// Share in percent.
    pub percent: f64,
}

/// A backend as written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackendRef {
    /// API group; empty for a Service.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; `None`: the route's own.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Port of the Service.
    pub port: Option<u16>,
    /// Relative weight; 0 gets nothing.
    pub weight: u32,
    /// Fields of its requests and responses.
    pub headers: Option<HeaderRules>,
    /// A filter of its own that is not carried out and must not be skipped.
    pub unknown_filter: Option<UnknownFilter>,
    /// Field path, e.g. `spec.rules[0].backendRefs[1]`.
    pub field: String,
    /// 1-based line in the file.
    pub line: usize,
}
