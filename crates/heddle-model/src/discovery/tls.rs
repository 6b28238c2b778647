//! TLS in rules: where the application's own TLS goes by the name its client asks for, and the TLS that
//! a sidecar begins towards endpoints. Both are data: neither reads a byte or a file.

use minicbor::{Decode, Encode};

use super::{Provenance, WeightedTarget};

/// Where connections of TLS go by the name in their ClientHello (RFC 6066 §3): a VirtualService's `tls[]`, or
/// a TLSRoute.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct SniRule {
    /// Where it comes from.
    #[cbor(n(1), default)]
    pub provenance: Provenance,
    /// Names in lower case: a name, or `*` and what a name must end with. `*` alone, like none at all, is met
    /// by every connection of TLS, also by one that names nobody.
    #[cbor(n(2), default)]
    pub names: Vec<String>,
    /// Where connections that match go, by weight. Never empty.
    #[cbor(n(3), default)]
    pub targets: Vec<WeightedTarget>,
}

/// The TLS that a sidecar begins towards the endpoints of a cluster (Istio's `ClientTLSSettings` of mode
/// `SIMPLE` or `MUTUAL`). Files are named by their paths as the sidecar sees them; what is in them is
/// nobody else's to know.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cbor(map)]
pub struct ClientTls {
    /// Does it show a certificate of its own (`MUTUAL`)? Then both of the next are needed.
    #[cbor(n(1), default)]
    pub mutual: bool,
    /// File with its certificate and those that lead to its issuer, PEM.
    #[n(2)]
    pub certificate: Option<String>,
    /// File with the key of that certificate, PEM.
    #[n(3)]
    pub private_key: Option<String>,
    /// File with the issuers it believes, PEM; `None`: those the system believes.
    #[n(4)]
    pub authorities: Option<String>,
    /// The name it asks for (SNI), and that the server's certificate must hold where no other is given. An
    /// address is not asked for, but must be held.
    #[cbor(n(5), default)]
    pub server_name: String,
    /// Names of which the server's certificate must hold one, in place of `server_name`: DNS names, addresses
    /// and URIs.
    #[cbor(n(6), default)]
    pub subject_alt_names: Vec<String>,
    /// Any certificate will do.
    #[cbor(n(7), default)]
    pub unverified: bool,
}
