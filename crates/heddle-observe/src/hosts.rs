//! Which Host headers the dashboard answers.
//!
//! It has no login: whoever reaches its loopback address may read. A web page of another site must
//! not be one of those, which it could be by pointing its own name at 127.0.0.1. Its requests carry
//! that name as Host, so only addresses, `localhost` and configured names are answered.

use std::net::{IpAddr, Ipv6Addr};

/// May a request with this Host header be answered?
pub(crate) fn allowed(host: &str, configured: &[String]) -> bool {
    let Some(name) = without_port(host) else { return false };
    if let Some(literal) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return literal.parse::<Ipv6Addr>().is_ok();
    }
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4())
        || name == "localhost"
        || name.ends_with(".localhost")
        || configured.iter().any(|known| known.eq_ignore_ascii_case(&name))
}

/// The host of `host[:port]`; `None` where it is neither.
fn without_port(host: &str) -> Option<&str> {
    let end = if host.starts_with('[') {
        host.find(']')? + 1
    } else {
        host.find(':').unwrap_or(host.len())
    };
    let (name, port) = host.split_at(end);
    let valid =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    (valid && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_configured_names_are_answered() {
        let configured = ["mesh.example".to_owned()];
        for host in [
            "127.0.0.1:1234",
            "192.0.2.7",
            "[::1]:80",
            "localhost",
            "LOCALHOST:8080",
            "heddle.localhost",
            "mesh.example:1",
        ] {
            assert!(allowed(host, &configured), "{host}");
        }
    }

    #[test]
    fn names_of_other_sites_are_not() {
        for host in [
            "",
            "attacker.example",
            "localhost.attacker.example",
            "127.0.0.1.attacker.example",
            "[::1",
            "[attacker]",
            "::1",
            "localhost:x",
            "localhost:80:80",
            "xlocalhost",
            "127.1:99999",
        ] {
            assert!(!allowed(host, &[]), "{host}");
        }
    }
}
