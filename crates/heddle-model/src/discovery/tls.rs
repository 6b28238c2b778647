//! The TLS that a sidecar begins towards endpoints, as data: this reads no byte and no file.

use minicbor::{Decode, Encode};

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
