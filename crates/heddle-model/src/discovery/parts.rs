//! What rules of every sort are made of: a condition on a text, and where traffic goes.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::{ServiceName, wire::closed};

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
