//! What rules of every sort are made of: conditions on a text and on a request, where traffic goes, and where
//! a rule comes from.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    ServiceName,
    wire::{Conditions, closed},
};

/// Istio's `StringMatch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// A plain string prefix (`/v2` matches `/v2example`).
    Prefix(String),
    /// RE2 syntax, matched against the whole value; at most 1024 bytes.
    Regex(String),
}

closed!(StringMatch { 1 => Exact(text), 2 => Prefix(text), 3 => Regex(text) });

/// Where traffic goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To endpoints of a service.
    Cluster(ClusterKey),
    /// Nowhere, because it names something absent: refused with 503 `NC` and this text.
    Dangling(String),
}

closed!(Target { 1 => Cluster(key), 2 => Dangling(reason) });

/// Which endpoints: what a cluster's name is made of. Content, never a position in a list.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cbor(map)]
pub struct ClusterKey {
    /// Service.
    #[n(1)]
    pub service: ServiceName,
    /// Subset name with its label selector; `None` means all endpoints.
    #[n(2)]
    pub subset: Option<Subset>,
    /// Port of that service: the one its clients use.
    #[n(3)]
    pub port: u16,
}

/// A subset with its selector, resolved.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cbor(map)]
pub struct Subset {
    /// Name from the DestinationRule.
    #[n(1)]
    pub name: String,
    /// Labels an endpoint must carry, all of them.
    #[cbor(n(2), default)]
    pub labels: BTreeMap<String, String>,
}

/// `kind/namespace/name#rule`: where a decision comes from.
#[derive(
    Debug,
    Clone,
    Decode,
    Encode,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
#[cbor(transparent)]
pub struct Provenance(#[n(0)] pub String);

/// All conditions must hold (VirtualService `HTTPMatchRequest`).
#[derive(Debug, Clone, Decode, Encode, Default, PartialEq, Eq)]
#[cbor(map)]
pub struct HttpMatch {
    /// Condition on the request path without its query (Istio `uri`).
    #[n(1)]
    pub uri: Option<StringMatch>,
    /// Compare `uri` exact and prefix without case.
    #[cbor(n(2), default)]
    pub ignore_uri_case: bool,
    /// Condition on the method.
    #[n(3)]
    pub method: Option<StringMatch>,
    /// Condition on Host, whole and with its port; the only one that reads it.
    #[n(4)]
    pub authority: Option<StringMatch>,
    /// Condition on the scheme.
    #[n(5)]
    pub scheme: Option<StringMatch>,
    /// Headers of which a line must match; names in lower case. `:authority`, `:method`, `:path` and `:scheme`
    /// mean the parts of the request line.
    #[cbor(n(6), default)]
    pub headers: BTreeMap<String, HeaderMatch>,
    /// Headers of which no line may match; for a value condition an absent header counts as empty, as in
    /// Istio.
    #[cbor(n(7), default)]
    pub without_headers: BTreeMap<String, HeaderMatch>,
    /// Query parameters that must match: the first of that name, not percent-decoded. Presence is
    /// `Prefix("")`.
    #[cbor(n(8), default)]
    pub query_params: BTreeMap<String, StringMatch>,
}

impl Conditions for HttpMatch {
    const LAST: u32 = 8;
}

/// Condition on a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderMatch {
    /// Present with any value (`{}` in Istio).
    Present,
    /// Present with a matching value.
    Value(StringMatch),
}

closed!(HeaderMatch { 0 => Present, 1 => Value(condition) });
