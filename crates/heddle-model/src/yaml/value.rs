//! Single values as Istio and Kubernetes write them: durations, hosts, labels, header names. Each
//! check's error says what would be right.

use std::{net::IpAddr, time::Duration};

use crate::{name::check_label, pattern};

/// Accepts everything.
pub(super) fn any(_: &str) -> Result<(), String> {
    Ok(())
}

/// Refuses the empty text.
pub(super) fn not_empty(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("this must not be empty".to_owned()) } else { Ok(()) }
}

/// A duration as Go writes it: `1h`, `1m30s`, `1.5s`, `250ms`; whole milliseconds, as in Istio.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: use e.g. `5s`, `250ms` or `1m30s`");
    if text.starts_with('-') {
        return Err(format!("`{text}` is negative: durations are not"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut nanos = 0f64;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..unit_len] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3_600e9,
            _ => return Err(wrong()),
        };
        nanos += number * unit;
        rest = &rest[unit_len..];
        if rest.is_empty() {
            break;
        }
    }
    if nanos > i64::MAX as f64 {
        return Err(format!("`{text}` is longer than 292 years"));
    }
    let duration = Duration::from_nanos(nanos.round() as u64);
    if !duration.subsec_nanos().is_multiple_of(1_000_000) {
        return Err(format!("`{text}` is finer than a millisecond: use whole milliseconds"));
    }
    Ok(duration)
}

/// A host of a rule: a name, `*`, `*.suffix` or `*-suffix`.
pub(super) fn wildcard_host(host: &str) -> Result<(), String> {
    match host.strip_prefix('*') {
        Some("") => Ok(()),
        Some(rest) => dns_name(rest.strip_prefix(['.', '-']).unwrap_or(rest), host),
        None => dns_name(host, host),
    }
}

/// A host of a VirtualService: as [`wildcard_host`], or an IP address.
pub(super) fn host_or_ip(host: &str) -> Result<(), String> {
    if host.parse::<IpAddr>().is_ok() { Ok(()) } else { wildcard_host(host) }
}

/// A host traffic can be sent to.
pub(super) fn target_host(host: &str) -> Result<(), String> {
    if host == "*" {
        return Err("`*` names no service: use e.g. `reviews`".to_owned());
    }
    wildcard_host(host)
}

fn dns_name(name: &str, written: &str) -> Result<(), String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > 253 {
        return Err("a DNS name has at most 253 characters".to_owned());
    }
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(format!("`{written}` has capitals: write `{}`", written.to_ascii_lowercase()));
    }
    if name.is_empty() || name.split('.').any(|label| check_label(label).is_err()) {
        return Err(format!(
            "`{written}` is no DNS name: use a-z, 0-9 and `-` between dots, e.g. `reviews` or `*.example.com`"
        ));
    }
    Ok(())
}

/// A subset's name: as a DNS label, and as in Istio it may have capitals.
pub(super) fn subset_name(text: &str) -> Result<(), String> {
    check_label(&text.to_ascii_lowercase()).map_err(|_| {
        format!(
            "`{text}` is no name of a subset: use 1 to 63 letters, digits and `-`, beginning and ending with a letter or digit"
        )
    })
}

/// A DNS label: names of namespaces.
pub(super) fn dns_label(text: &str) -> Result<(), String> {
    check_label(text).map_err(|error| error.to_string())
}

/// A DNS subdomain: names of objects.
pub(super) fn object_name(text: &str) -> Result<(), String> {
    if text.starts_with('*') { Err(format!("`{text}` is no name")) } else { dns_name(text, text) }
}

/// A Kubernetes label key: `[prefix/]name`.
pub(super) fn label_key(key: &str) -> Result<(), String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    let name_ok = !name.is_empty() && is_label_text(name);
    if !name_ok || prefix.is_some_and(|prefix| dns_name(prefix, prefix).is_err()) {
        return Err(format!("`{key}` is no label key: use e.g. `version` or `example.com/team`"));
    }
    Ok(())
}

/// A Kubernetes label value; may be empty.
pub(super) fn label_value(text: &str) -> Result<(), String> {
    if text.is_empty() || is_label_text(text) {
        return Ok(());
    }
    Err(format!(
        "`{text}` is no label value: use up to 63 of letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit"
    ))
}

fn is_label_text(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && edge(text.bytes().next())
        && edge(text.bytes().last())
}

/// A header name in a match: a token, a pseudo-header, or Istio's JWT claim.
pub(super) fn match_header(name: &str) -> Result<(), String> {
    let plain = name.strip_prefix(':').unwrap_or(name);
    if name.starts_with("@request.auth.claims") || is_token(plain) {
        return Ok(());
    }
    Err(format!("`{name}` is no header name"))
}

/// A header name to set, add or remove.
pub(super) fn header_name(name: &str) -> Result<(), String> {
    if is_token(name) || name == ":authority" {
        return Ok(());
    }
    Err(format!("`{name}` is no header name that can be changed"))
}

fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A header value: no control characters.
pub(super) fn header_value(value: &str) -> Result<(), String> {
    if value.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f) {
        return Err("a header value has no control characters".to_owned());
    }
    Ok(())
}

/// A regex that compiles.
pub(super) fn regex(text: &str) -> Result<(), String> {
    compiles(text, pattern::Case::Sensitive)
}

/// A regex that compiles where case is ignored: that takes more room.
pub(super) fn regex_in_any_case(text: &str) -> Result<(), String> {
    compiles(text, pattern::Case::Ignored)
}

fn compiles(text: &str, case: pattern::Case) -> Result<(), String> {
    match pattern::Pattern::new(text, case) {
        Ok(_) => Ok(()),
        Err(error) if text == "*" => Err(format!("{error}; for any value write `{{}}` or `.*`")),
        Err(error) => Err(error.to_string()),
    }
}

/// `10.0.0.0/8`, `fd00::/8`, or a single address.
pub(super) fn subnet(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || format!("`{text}` is no address range: use e.g. `10.0.0.0/8`");
    let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Ok(most), |bits| bits.parse::<u8>().map_err(|_| wrong()))?;
    if bits > most { Err(wrong()) } else { Ok((address, bits)) }
}

/// [`subnet`] as a check.
pub(super) fn is_subnet(text: &str) -> Result<(), String> {
    subnet(text).map(|_| ())
}

/// `.`, `*`, `~` or a namespace.
pub(super) fn export_to(text: &str) -> Result<(), String> {
    if matches!(text, "." | "*" | "~") {
        return Ok(());
    }
    dns_label(text)
        .map_err(|_| format!("`{text}` is no namespace: use `.`, `*`, `~` or a namespace's name"))
}

/// `mesh`, `name` or `namespace/name`.
pub(super) fn gateway_name(text: &str) -> Result<(), String> {
    let (namespace, name) = text.split_once('/').unwrap_or((".", text));
    let namespace_ok = namespace == "." || dns_label(namespace).is_ok();
    if namespace_ok && dns_name(name, name).is_ok() {
        return Ok(());
    }
    Err(format!("`{text}` names no gateway: use `mesh`, NAME or NAMESPACE/NAME"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, ms) in [
            ("5s", 5_000),
            ("250ms", 250),
            ("1m30s", 90_000),
            ("1.5s", 1_500),
            ("1h", 3_600_000),
            ("0s", 0),
            ("0", 0),
            (".5s", 500),
        ] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for text in
            ["", "5", "s", "5 s", "5sec", "-1s", "1.2.3s", "1e3s", "9999999h", "1us", "5s5", "٣s"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_are_names_wildcards_and_nothing_else() {
        for host in
            ["reviews", "reviews.default.svc.cluster.local", "*", "*.example.com", "*-a.b", "a.b."]
        {
            assert!(wildcard_host(host).is_ok(), "{host}");
        }
        for host in
            ["", "a..b", "-a", "a_b", "a b", "Reviews", "a.*.b", "**", "http://a", "*.", "é"]
        {
            assert!(wildcard_host(host).is_err(), "{host}");
        }
        assert!(host_or_ip("10.0.0.1").is_ok() && host_or_ip("fd00::1").is_ok());
        assert!(target_host("*").is_err());
    }

    #[test]
    fn labels_follow_kubernetes() {
        for key in ["version", "app.kubernetes.io/name", "a_b.c"] {
            assert!(label_key(key).is_ok(), "{key}");
        }
        for key in ["", "/a", "a/", "-a", "a/b/c"] {
            assert!(label_key(key).is_err(), "{key}");
        }
        assert!(label_value("").is_ok() && label_value("v1.0_x").is_ok());
        assert!(label_value("a b").is_err() && label_value(&"a".repeat(64)).is_err());
    }

    #[test]
    fn subnets_are_bounded_by_their_family() {
        assert_eq!(subnet("10.0.0.0/8").unwrap().1, 8);
        assert_eq!(subnet("fd00::1").unwrap().1, 128);
        assert!(subnet("10.0.0.0/33").is_err() && subnet("10.0.0/8").is_err());
    }
}
