//! Names: services, workloads, resources and protocols. One spelling of each, checked on entry.

use std::{fmt, str::FromStr, sync::OnceLock};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::wire::closed;

/// The DNS suffix below which services live where nothing else is said: `reviews.default.svc.cluster.local`.
const SERVICE_SUFFIX: &str = "svc.cluster.local";
/// The one of this process, if it was told another.
static SUFFIX: OnceLock<String> = OnceLock::new();
/// The domain of a cluster where nothing else is said.
pub const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";
/// Longest DNS name (RFC 1035 §2.3.4, as text).
pub const HOST_BYTES_MAX: usize = 253;
/// Longest [`WorkloadId`], bytes: a namespace, a dot and the name of a pod.
pub const WORKLOAD_ID_BYTES_MAX: usize = 63 + 1 + HOST_BYTES_MAX;
/// The namespace used where none is given.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Why a name was refused. The text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not an RFC 1123 label.
    #[error(
        "`{0}` is no DNS label: use 1 to 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit"
    )]
    NotALabel(String),
    /// Not an RFC 1123 subdomain.
    #[error(
        "`{0}` is no DNS name: use labels of a-z, 0-9 and `-` with dots between them, 253 bytes at most"
    )]
    NotASubdomain(String),
    /// Not an IANA service name.
    #[error(
        "`{0}` is no port name: use 1 to 15 of a-z, 0-9 and single `-`, at least one of them a letter, beginning and ending with a letter or digit"
    )]
    NotAPortName(String),
    /// The process goes by another domain already.
    #[error("`{0}` is not the cluster's domain: names are read below `{suffix}` here", suffix = service_suffix())]
    OtherDomain(String),
    /// Neither `name`, `name.namespace` nor a fully qualified service name.
    #[error("`{0}` names no service: use NAME, NAME.NAMESPACE or NAME.NAMESPACE.{suffix}", suffix = service_suffix())]
    NotAService(String),
    /// Not a host outside the mesh.
    #[error(
        "`{0}` is no host outside the mesh: use a DNS name with a dot, e.g. `api.example.com` or `*.example.com`"
    )]
    NotAHost(String),
    /// A protocol word nobody knows.
    #[error("`{0}` is no protocol: use http, http2, grpc, tls, tcp, redis, mysql or mongo")]
    NotAProtocol(String),
}

/// The DNS suffix below which this process knows services: `svc.` and the cluster's domain.
#[must_use]
pub fn service_suffix() -> &'static str {
    SUFFIX.get().map_or(SERVICE_SUFFIX, String::as_str)
}

/// Says once, before any name is read, below which domain the cluster has its names (a kubelet's
/// `clusterDomain`). A name is spelled alike everywhere in a process, so this is no part of any other setting.
///
/// # Errors
/// [`NameError::NotASubdomain`]; [`NameError::OtherDomain`] where another was said before.
pub fn set_cluster_domain(domain: &str) -> Result<(), NameError> {
    check_subdomain(domain)?;
    let suffix = format!("svc.{domain}");
    if SUFFIX.get_or_init(|| suffix.clone()) == &suffix {
        return Ok(());
    }
    Err(NameError::OtherDomain(domain.to_owned()))
}

/// Checks an RFC 1123 DNS label.
///
/// # Errors
/// [`NameError::NotALabel`] with the offending text.
pub fn check_label(label: &str) -> Result<(), NameError> {
    let inner = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if label.is_empty()
        || label.len() > 63
        || !inner
        || label.starts_with('-')
        || label.ends_with('-')
    {
        return Err(NameError::NotALabel(label.to_owned()));
    }
    Ok(())
}

/// Checks an RFC 1123 subdomain: labels with dots between them, as Kubernetes calls pods and service accounts.
///
/// # Errors
/// [`NameError::NotASubdomain`] with the offending text.
pub fn check_subdomain(name: &str) -> Result<(), NameError> {
    let fits = name.len() <= HOST_BYTES_MAX && name.split('.').all(|one| check_label(one).is_ok());
    if fits { Ok(()) } else { Err(NameError::NotASubdomain(name.chars().take(300).collect())) }
}

/// Checks the name of a port: a service name as of RFC 6335 §5.1, in lower case.
///
/// # Errors
/// [`NameError::NotAPortName`] with the offending text.
pub fn check_port_name(name: &str) -> Result<(), NameError> {
    let letter = name.bytes().any(|b| b.is_ascii_lowercase());
    if check_label(name).is_err() || name.len() > 15 || !letter || name.contains("--") {
        return Err(NameError::NotAPortName(name.to_owned()));
    }
    Ok(())
}

/// A service: its name and namespace. Displayed as the fully qualified DNS name.
///
/// The host of a ServiceEntry that is no name of the mesh's own (`api.example.com`, `*.example.com`) is
/// one too: its name is that host, its namespace the entry's. A name with a dot is such a host.
#[derive(
    Debug, Clone, Decode, Encode, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[cbor(map)]
pub struct ServiceName {
    /// Namespace, a DNS label.
    #[n(1)]
    pub namespace: String,
    /// Name: a DNS label, or a whole host.
    #[n(2)]
    pub name: String,
}

impl ServiceName {
    /// A service name of two checked labels.
    ///
    /// # Errors
    /// [`NameError::NotALabel`] for either part.
    pub fn new(name: &str, namespace: &str) -> Result<Self, NameError> {
        check_label(name)?;
        check_label(namespace)?;
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// A host outside the mesh, as an entry of `namespace` names it: in lower case, perhaps with `*.`
    /// before it.
    ///
    /// # Errors
    /// [`NameError::NotAHost`], [`NameError::NotALabel`] for the namespace.
    pub fn of_host(host: &str, namespace: &str) -> Result<Self, NameError> {
        check_label(namespace)?;
        let fixed = host.strip_prefix('*').map_or(host, |rest| rest.trim_start_matches(['.', '-']));
        let labels = fixed.split('.').all(|part| check_label(part).is_ok());
        if !host.contains('.') || host.len() > HOST_BYTES_MAX || !labels {
            return Err(NameError::NotAHost(host.to_owned()));
        }
        Ok(Self { namespace: namespace.to_owned(), name: host.to_owned() })
    }

    /// Is it a host outside the mesh, and no service of the mesh's own?
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.name.contains('.')
    }

    /// The name by which it goes where names must be unique: its host alone would not tell whose entry
    /// is meant.
    #[must_use]
    pub fn unique(&self) -> String {
        if self.is_host() { format!("{}/{}", self.namespace, self.name) } else { self.fqdn() }
    }

    /// The inverse of [`Self::unique`]; `None` for anything spelled otherwise.
    #[must_use]
    pub fn from_unique(text: &str) -> Option<Self> {
        let named = match text.split_once('/') {
            Some((namespace, host)) => Self::of_host(host, namespace),
            None => Self::resolve(text, ""),
        };
        named.ok().filter(|name| name.unique() == text)
    }

    /// Reads `reviews`, `reviews.default`, `reviews.default.svc` or the fully qualified name, as
    /// seen from `namespace`. A trailing dot and upper case are normalised.
    ///
    /// # Errors
    /// [`NameError`] where the text cannot be a service of this mesh.
    pub fn resolve(host: &str, namespace: &str) -> Result<Self, NameError> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let wrong = || NameError::NotAService(host.clone());
        let short = host
            .strip_suffix(service_suffix())
            .and_then(|short| short.strip_suffix('.'))
            .or_else(|| host.strip_suffix(".svc"))
            .unwrap_or(&host);
        let qualified = short.len() != host.len();
        match short.split('.').collect::<Vec<_>>()[..] {
            [name] if !qualified => Self::new(name, namespace).map_err(|_| wrong()),
            [name, namespace] => Self::new(name, namespace).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }

    /// The fully qualified DNS name, without a trailing dot.
    #[must_use]
    pub fn fqdn(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() {
            return f.write_str(&self.name);
        }
        write!(f, "{}.{}.{}", self.name, self.namespace, service_suffix())
    }
}

/// One running instance: `reviews-v1-7f3a`, unique in a mesh for ever, or `default.reviews-v1-7f3a` of a pod, which a
/// pod of the same name may have after it.
#[derive(
    Debug, Clone, Decode, Encode, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
#[cbor(transparent)]
pub struct WorkloadId(#[n(0)] pub String);

impl WorkloadId {
    /// The id of a pod: `NAMESPACE.POD`. A namespace has no dot, so no two pods share one.
    #[must_use]
    pub fn of_pod(namespace: &str, pod: &str) -> Self {
        Self(format!("{namespace}.{pod}"))
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a port speaks, as declared. `Undeclared` means: look at the bytes, never at a timer.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Nothing was said; the proxy decides by content.
    #[default]
    Undeclared,
    /// HTTP/1.x.
    Http,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC, thus HTTP/2.
    Grpc,
    /// TLS from the application; relayed as TCP.
    Tls,
    /// Opaque bytes.
    Tcp,
}

closed!(Protocol { 0 => Undeclared, 1 => Http, 2 => Http2, 3 => Grpc, 4 => Tls, 5 => Tcp });

impl Protocol {
    /// The word used in YAML, flags and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undeclared => "undeclared",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }

    /// Protocol by Istio's port naming convention `protocol[-suffix]`; `None` where the name says nothing.
    #[must_use]
    pub fn from_port_name(name: &str) -> Option<Self> {
        // gRPC-Web is HTTP of either version.
        match name.strip_prefix("grpc-web") {
            Some("") => Some(Self::Http),
            Some(rest) if rest.starts_with('-') => Some(Self::Http),
            _ => name.split('-').next().and_then(|word| word.parse().ok()),
        }
    }

    /// What a port of a Service is declared to speak: by `appProtocol` in Kubernetes' own words (KEP-3726)
    /// or Istio's, else by its name. A word that nobody here knows declares nothing.
    #[must_use]
    pub fn of_service_port(app_protocol: Option<&str>, name: &str) -> Self {
        let Some(word) = app_protocol else {
            return Self::from_port_name(name).unwrap_or_default();
        };
        match word.to_ascii_lowercase().as_str() {
            "kubernetes.io/ws" | "grpc-web" => Self::Http,
            "kubernetes.io/wss" => Self::Tls,
            word => word.parse().unwrap_or_default(),
        }
    }
}

impl FromStr for Protocol {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.to_ascii_lowercase().as_str() {
            "http" => Ok(Self::Http),
            "http2" | "h2c" | "kubernetes.io/h2c" => Ok(Self::Http2),
            "grpc" => Ok(Self::Grpc),
            "https" | "tls" => Ok(Self::Tls),
            "tcp" | "redis" | "mysql" | "mongo" => Ok(Self::Tcp),
            _ => Err(NameError::NotAProtocol(text.to_owned())),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A resource's identity, `kind/namespace/name`: the stem of every provenance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResourceKey {
    /// Kind as written in YAML, e.g. `VirtualService`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_service_resolves_to_one_name() {
        for host in [
            "reviews",
            "Reviews.",
            "reviews.shop",
            "reviews.shop.svc",
            "reviews.shop.svc.cluster.local.",
        ] {
            let name = ServiceName::resolve(host, "shop").unwrap();
            assert_eq!(name.to_string(), "reviews.shop.svc.cluster.local", "{host}");
        }
        assert!(ServiceName::resolve("reviews.svc.cluster.local", "shop").is_err());
        assert!(ServiceName::resolve("www.example.com", "shop").is_err());
    }

    #[test]
    fn a_host_outside_is_told_apart_by_its_entrys_namespace() {
        let host = ServiceName::of_host("api.example.com", "shop").unwrap();
        assert_eq!(
            (host.fqdn(), host.unique()),
            ("api.example.com".into(), "shop/api.example.com".into())
        );
        for name in [
            host,
            ServiceName::of_host("*.example.com", "shop").unwrap(),
            ServiceName::new("a", "b").unwrap(),
        ] {
            assert_eq!(ServiceName::from_unique(&name.unique()).as_ref(), Some(&name));
        }
        for wrong in ["*", "api", "A.b", "a..b", "*.", "a.*.b", "", "**.a.b"] {
            assert!(ServiceName::of_host(wrong, "shop").is_err(), "{wrong}");
        }
        for wrong in ["a", "shop/a", "a.b", "Shop/a.b", "/a.b"] {
            assert_eq!(ServiceName::from_unique(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_port_name_has_a_letter_and_few_characters() {
        for name in ["http", "http-web", "a", "0a", "pop3", "x-1-2", "fifteen-letters"] {
            assert_eq!(check_port_name(name), Ok(()), "{name}");
        }
        for name in ["", "8000", "80-80", "Http", "a--b", "-a", "a-", "a_b", "sixteen--letters"] {
            assert!(check_port_name(name).is_err(), "{name}");
        }
        assert!(check_port_name("sixteen-letters1").is_err());
    }

    #[test]
    fn port_names_declare_protocols_by_their_first_word() {
        assert_eq!(Protocol::from_port_name("http-web"), Some(Protocol::Http));
        assert_eq!(Protocol::from_port_name("redis"), Some(Protocol::Tcp));
        assert_eq!(Protocol::from_port_name("web"), None);
        assert_eq!(Protocol::from_port_name("grpc-web-x"), Some(Protocol::Http));
        assert_eq!(Protocol::from_port_name("grpc-webby"), Some(Protocol::Grpc));
        assert_eq!(Protocol::of_service_port(Some("kubernetes.io/h2c"), "tcp"), Protocol::Http2);
        assert_eq!(Protocol::of_service_port(Some("amqp"), "http"), Protocol::Undeclared);
    }
}
