//! What rules of every dialect share: which ports can carry them, where one comes from, and whether it asks
//! anything.

use heddle_model::{
    Protocol,
    discovery::{HttpMatch, Provenance},
    resource::Resource,
};

/// Longest rule name that serves as provenance.
const RULE_NAME_MAX: usize = 63;

/// Can a port of this protocol carry HTTP rules?
pub(crate) fn takes_http(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Undeclared | Protocol::Http | Protocol::Http2 | Protocol::Grpc => true,
        Protocol::Tls | Protocol::Tcp => false,
    }
}

/// Can a port of this protocol carry TCP rules? As in Istio: neither HTTP nor TLS.
pub(crate) fn takes_tcp(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Undeclared | Protocol::Tcp)
}

/// Can a port of this protocol carry TLS rules? Istio asks for a declaration; here bytes tell too.
pub(crate) fn takes_tls(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Undeclared | Protocol::Tls)
}

/// Where a rule comes from: by its name if it has a plain one, else by its position.
pub(crate) fn provenance(
    resource: &Resource,
    list: &str,
    position: usize,
    name: &str,
) -> Provenance {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let key = &resource.key;
    if !name.is_empty() && plain && name.len() <= RULE_NAME_MAX {
        Provenance(format!("{key}#{name}"))
    } else {
        Provenance(format!("{key}#{list}[{position}]"))
    }
}

/// Is every request met?
pub(crate) fn asks_nothing(one: &HttpMatch) -> bool {
    *one == HttpMatch { ignore_uri_case: one.ignore_uri_case, ..HttpMatch::default() }
}
