//! Single values as Istio and Kubernetes write them: durations, hosts, labels, header names. Each
//! check's error says what would be right.

use std::{net::IpAddr, time::Duration};

use super::report::suggest;
use crate::{
    discovery::GRPC_STATUSES, field_name::is_authority, name::check_label, pattern, timestamp,
};

/// Accepts everything.
pub(super) fn any(_: &str) -> Result<(), String> {
    Ok(())
}

/// Refuses the empty text.
pub(super) fn not_empty(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("this must not be empty".to_owned()) } else { Ok(()) }
}

/// A prefix that says something.
pub(super) fn prefix(text: &str) -> Result<(), String> {
    if !text.is_empty() {
        return Ok(());
    }
    Err("an empty prefix says nothing: write `{}` for any value, or leave it out".to_owned())
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

/// A moment (RFC 3339).
pub(super) fn moment(text: &str) -> Result<(), String> {
    timestamp::parse(text).map(drop)
}

/// A status of gRPC, by its name or its number.
pub(super) fn grpc_code(text: &str) -> Result<u8, String> {
    let number = text.parse::<u8>().ok().filter(|code| usize::from(*code) < GRPC_STATUSES.len());
    let named = || GRPC_STATUSES.iter().position(|name| *name == text);
    let code = number.or_else(|| u8::try_from(named()?).ok());
    code.ok_or_else(|| match text.parse::<i64>() {
        Ok(_) => {
            format!("`{text}` is no status of gRPC: use 0 to 16, or a name such as UNAVAILABLE")
        }
        Err(_) => suggest("gRPC status", text, &GRPC_STATUSES),
    })
}

/// The same, as a check.
pub(super) fn grpc_status(text: &str) -> Result<(), String> {
    grpc_code(text).map(drop)
}

/// A service's short name.
pub(super) fn service_name(text: &str) -> Result<(), String> {
    check_label(text).map_err(|error| format!("{error}; a Fault names a service by its short name"))
}

/// A host of a DestinationRule: a name, `*`, `*.suffix` or `*-suffix`; no address.
pub(super) fn wildcard_host(host: &str) -> Result<(), String> {
    let Some(rest) = host.strip_prefix('*') else { return host_name(host, host) };
    match rest.strip_prefix(['.', '-']).unwrap_or(rest) {
        "" if rest.is_empty() => Ok(()),
        name => host_name(name, host),
    }
}

/// A host of a VirtualService: as [`wildcard_host`], or an IP address.
pub(super) fn host_or_ip(host: &str) -> Result<(), String> {
    if host.parse::<IpAddr>().is_ok() { Ok(()) } else { wildcard_host(host) }
}

/// Longest path of a file.
const PATH_BYTES_MAX: usize = 4_096;

/// A file, from the root on: nobody could tell in which folder another path begins.
pub(super) fn file_path(path: &str) -> Result<(), String> {
    if path.len() > PATH_BYTES_MAX {
        return Err(format!("a path has at most {PATH_BYTES_MAX} bytes"));
    }
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        let shown: String = path.chars().take(60).collect();
        return Err(format!(
            "`{}` is no file's path from the root on: use e.g. `/etc/certs/ca.pem`",
            shown.escape_debug()
        ));
    }
    Ok(())
}

/// One host or address: no wildcard.
pub(super) fn single_host(host: &str) -> Result<(), String> {
    match host.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => host_name(host, host),
    }
}

/// A host traffic can be sent to.
pub(super) fn target_host(host: &str) -> Result<(), String> {
    if host == "*" {
        return Err("`*` names no service: use e.g. `reviews`".to_owned());
    }
    wildcard_host(host)
}

/// Hosts ignore case, and so may be written in any.
fn host_name(name: &str, written: &str) -> Result<(), String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > 253 {
        return Err("a DNS name has at most 253 characters".to_owned());
    }
    if name.is_empty() || !name.split('.').all(is_label) {
        return Err(format!(
            "`{written}` is no DNS name: use letters, digits and `-` between dots, e.g. `reviews` or `*.example.com`"
        ));
    }
    let (_, top) = written.trim_end_matches('.').rsplit_once('.').unwrap_or_default();
    if !top.is_empty() && top.bytes().all(|byte| byte.is_ascii_digit()) {
        let what = match name.parse::<IpAddr>() {
            Ok(_) => "an address, and a host belongs here",
            Err(_) => "no DNS name: its last part cannot be a number",
        };
        return Err(format!("`{written}` is {what}"));
    }
    Ok(())
}

/// A DNS label in any case, as Istio takes it.
fn is_label(text: &str) -> bool {
    check_label(&text.to_ascii_lowercase()).is_ok()
}

/// A subset's name: as a DNS label, and as in Istio it may have capitals.
pub(super) fn subset_name(text: &str) -> Result<(), String> {
    if is_label(text) {
        return Ok(());
    }
    Err(format!(
        "`{text}` is no name of a subset: use 1 to 63 letters, digits and `-`, beginning and ending with a letter or digit"
    ))
}

/// The namespace of an object, a DNS label.
pub(super) fn namespace(text: &str) -> Result<(), String> {
    check_label(text).map_err(|error| error.to_string())
}

/// A namespace that a rule asks for. As in Istio it may have capitals, and is none then.
pub(super) fn asked_namespace(text: &str) -> Result<(), String> {
    if is_label(text) { Ok(()) } else { namespace(text) }
}

/// The name of an object: a DNS subdomain as Kubernetes takes it, without a limit to one label.
pub(super) fn object_name(text: &str) -> Result<(), String> {
    let edge = |part: &str, at: Option<u8>| {
        !part.is_empty()
            && at.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let inner =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-".contains(&byte);
    let valid = |part: &str| {
        edge(part, part.bytes().next())
            && edge(part, part.bytes().next_back())
            && part.bytes().all(inner)
    };
    if text.len() <= 253 && text.split('.').all(valid) {
        return Ok(());
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase())
        && object_name(&text.to_lowercase()).is_ok()
    {
        return Err(format!("`{text}` has capitals: write `{}`", text.to_ascii_lowercase()));
    }
    Err(format!(
        "`{text}` is no name of an object: use up to 253 of a-z, 0-9, `-` and `.`, each part beginning and ending with a letter or digit"
    ))
}

/// A Kubernetes label key: `[prefix/]name`.
pub(super) fn label_key(key: &str) -> Result<(), String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    let name_ok = name.len() <= LABEL_MAX && is_label_text(name);
    let prefix_ok = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(is_label);
    if !name_ok || !prefix.is_none_or(prefix_ok) {
        return Err(format!("`{key}` is no label key: use e.g. `version` or `example.com/team`"));
    }
    Ok(())
}

/// Kubernetes' bound on a label's value and on the name part of its key.
const LABEL_MAX: usize = 63;

/// A label's value on an object; may be empty.
pub(super) fn label_value(text: &str) -> Result<(), String> {
    if text.len() <= LABEL_MAX {
        return asked_label_value(text);
    }
    Err(format!("`{text}` is longer than a label's value can be, {LABEL_MAX} characters"))
}

/// A label's value that a rule asks for; may be empty.
pub(super) fn asked_label_value(text: &str) -> Result<(), String> {
    if text.is_empty() || is_label_text(text) {
        return Ok(());
    }
    Err(format!(
        "`{text}` is no label value: use letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit"
    ))
}

fn is_label_text(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && edge(text.bytes().next())
        && edge(text.bytes().last())
}

/// The key of a selector's label: anything that is no wildcard.
pub(super) fn selector_key(key: &str) -> Result<(), String> {
    if key.is_empty() { Err("a label's key is not empty".to_owned()) } else { selector_value(key) }
}

/// The value of a selector's label.
pub(super) fn selector_value(text: &str) -> Result<(), String> {
    if text.contains('*') {
        return Err(format!("`{text}` has a `*`: a selector takes labels as they are"));
    }
    if text.len() > LABEL_MAX {
        return Err(format!("`{text}` is longer than a label can be, {LABEL_MAX} characters"));
    }
    Ok(())
}

/// What Istio writes for a claim of a token, where a header's name stands.
const CLAIM: &str = "@request.auth.claims";

/// Is this Istio's way to name a claim of a token?
pub(super) fn is_claim(name: &str) -> bool {
    name.strip_prefix(CLAIM).is_some_and(|rest| match rest.as_bytes() {
        [b'.', inner @ ..] => !inner.is_empty(),
        [b'[', inner @ .., b']'] => !inner.is_empty(),
        _ => false,
    })
}

const PSEUDO_HEADERS: &[&str] = &[":authority", ":method", ":path", ":scheme", ":status"];

/// A header name in a match: a token, a pseudo-header, or Istio's JWT claim.
pub(super) fn match_header(name: &str) -> Result<(), String> {
    if is_token(name) || PSEUDO_HEADERS.contains(&name) || is_claim(name) {
        return Ok(());
    }
    if name.starts_with(':') {
        return Err(suggest("pseudo-header", name, PSEUDO_HEADERS));
    }
    Err(format!("`{name}` is no header name"))
}

/// What a request's Host is replaced by.
pub(super) fn authority(text: &str) -> Result<(), String> {
    match is_authority(text) {
        true => Ok(()),
        false => Err(format!("`{text}` is no host, with a port or without")),
    }
}

/// A header of a request to set or add; the authority is one.
pub(super) fn request_header(name: &str) -> Result<(), String> {
    if is_token(name) || name.eq_ignore_ascii_case(":authority") {
        return Ok(());
    }
    Err(format!("`{name}` is no header name that can be changed"))
}

/// A header to remove, or of a response: the authority is none of these.
pub(super) fn other_header(name: &str) -> Result<(), String> {
    if name.eq_ignore_ascii_case("host") {
        return Err(format!("`{name}` can only be set, and only in a request"));
    }
    if is_token(name) {
        Ok(())
    } else {
        Err(format!("`{name}` is no header name that can be changed"))
    }
}

/// A header name of a CORS policy, or `*`.
pub(super) fn cors_header(name: &str) -> Result<(), String> {
    if is_token(name) { Ok(()) } else { Err(format!("`{name}` is no header name, nor `*`")) }
}

fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A header value: no control characters, and a `%` only as Envoy's `%NAME%` or `%%`.
pub(super) fn header_value(value: &str) -> Result<(), String> {
    if value.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f) {
        return Err("a header value has no control characters".to_owned());
    }
    let mut rest = value;
    while let Some(at) = rest.find('%') {
        rest = &rest[at + 1..];
        match after_command(rest) {
            Some(behind) => rest = behind,
            None => {
                return Err(format!(
                    "a `%` in `{value}` begins no command such as `%PROTOCOL%`: write `%%` for the sign itself"
                ));
            }
        }
    }
    Ok(())
}

/// What follows a command whose first `%` has been read: `NAME%`, `NAME(...)%`, or the second `%`.
fn after_command(text: &str) -> Option<&str> {
    if let Some(behind) = text.strip_prefix('%') {
        return Some(behind);
    }
    let name_end = text.find(['%', '('])?;
    if text[name_end..].starts_with('%') {
        return Some(&text[name_end + 1..]);
    }
    let mut inside = text[name_end + 1..].char_indices();
    let mut quoted = false;
    let close = loop {
        match inside.next()? {
            (_, '\\') => drop(inside.next()?),
            (_, '"') => quoted = !quoted,
            (at, ')') if !quoted => break at,
            _ => {}
        }
    };
    text[name_end + 1 + close + 1..].trim_start_matches(' ').strip_prefix('%')
}

/// A regex that compiles.
pub(super) fn regex(text: &str) -> Result<(), String> {
    match pattern::Pattern::new(text, pattern::Case::Sensitive) {
        Ok(_) => Ok(()),
        Err(error) if text == "*" => Err(format!("{error}; for any value write `{{}}` or `.*`")),
        Err(error) => Err(error.to_string()),
    }
}

/// The same, or `*`, which Istio takes for "any value" where a header must be missing.
pub(super) fn regex_or_any(text: &str) -> Result<(), String> {
    if text == "*" { Ok(()) } else { regex(text) }
}

/// `10.0.0.0/8`, `fd00::/8`, or a single address.
pub(super) fn subnet(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || format!("`{text}` is no address range: use e.g. `10.0.0.0/8`");
    let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let plain = |bits: &str| {
        bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'))
    };
    let bits = match bits {
        None => most,
        Some(bits) if plain(bits) => bits.parse::<u8>().map_err(|_| wrong())?,
        Some(_) => return Err(wrong()),
    };
    if bits > most { Err(wrong()) } else { Ok((address, bits)) }
}

/// [`subnet`] as a check.
pub(super) fn is_subnet(text: &str) -> Result<(), String> {
    subnet(text).map(|_| ())
}

/// `.`, `*` or a namespace. `~`, for nobody, is a ServiceEntry's.
pub(super) fn export_to(text: &str) -> Result<(), String> {
    if matches!(text, "." | "*") || is_label(text) {
        return Ok(());
    }
    Err(format!("`{text}` is no namespace: use `.`, `*` or a namespace's name"))
}

/// `mesh`, `name` or `namespace/name`.
pub(super) fn gateway_name(text: &str) -> Result<(), String> {
    let valid = match text.split_once('/') {
        Some((namespace, name)) => is_label(namespace) && is_label(name),
        None => host_name(text, text).is_ok(),
    };
    if valid {
        return Ok(());
    }
    Err(format!("`{text}` names no gateway: use `mesh`, NAME or NAMESPACE/NAME"))
}

/// An API group: a DNS name, or nothing for the core group.
pub(super) fn api_group(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(());
    }
    Err(format!(
        "`{text}` is no API group: use e.g. `gateway.networking.k8s.io`, or `\"\"` for the core group (no version)"
    ))
}

/// The kind of an object, as `Service`.
pub(super) fn object_kind(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
    if begins && text.len() <= 63 && text.chars().all(fits) && !text.ends_with('-') {
        return Ok(());
    }
    Err(format!("`{text}` is no kind: use letters, digits and `-`, e.g. `Service`"))
}

/// A duration as the Gateway API writes it (GEP-2257): whole numbers, each with its unit.
pub(super) fn gateway_duration(text: &str) -> Result<(), String> {
    let wrong = || {
        format!(
            "`{text}` is no duration of the Gateway API: use whole numbers of `h`, `m`, `s` or `ms`, e.g. `1m30s` or `500ms`"
        )
    };
    let (mut rest, mut parts) = (text, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let behind = &rest[digits..];
        let unit = ["ms", "h", "m", "s"].into_iter().find(|unit| behind.starts_with(unit));
        let Some(unit) = unit.filter(|_| (1..=5).contains(&digits)) else { return Err(wrong()) };
        rest = &behind[unit.len()..];
        parts += 1;
    }
    if (1..=4).contains(&parts) { Ok(()) } else { Err(wrong()) }
}

/// Longest name and longest value of a header that the Gateway API takes.
const FIELD_NAME_MAX: usize = 256;
const FIELD_VALUE_MAX: usize = 4096;

/// A header's name, in any case.
pub(super) fn field_name(name: &str) -> Result<(), String> {
    if is_token(name) && name.len() <= FIELD_NAME_MAX {
        return Ok(());
    }
    Err(format!("`{name}` is no header name: use letters, digits and `-`, e.g. `x-version`"))
}

/// A header's value, as it is.
pub(super) fn field_value(value: &str) -> Result<(), String> {
    if value.len() > FIELD_VALUE_MAX {
        return Err(format!("{} bytes, more than the {FIELD_VALUE_MAX} allowed", value.len()));
    }
    if value.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f) {
        return Err("a header value has no control characters".to_owned());
    }
    Ok(())
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
    fn the_gateway_api_takes_whole_numbers_of_units() {
        for text in ["0s", "10s", "1m30s", "500ms", "1h2m3s4ms", "99999h"] {
            assert_eq!(gateway_duration(text), Ok(()), "{text}");
        }
        for text in ["", "10", "1.5s", "1d", "-1s", "s", "100000s", "1h1m1s1ms1ms", "1 s", "é"] {
            assert!(gateway_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_are_names_wildcards_and_nothing_else() {
        for host in
            ["reviews", "A.svc.cluster.local", "*", "*.example.com", "*-a.b", "a.b.", "1", "*a.b"]
        {
            assert!(wildcard_host(host).is_ok(), "{host}");
        }
        for host in
            ["", "a..b", "-a", "a_b", "a b", "a.*.b", "**", "http://a", "*.", "é", "a.1", "1.2.3.4"]
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
        assert!(asked_label_value(&"a".repeat(64)).is_ok() && asked_label_value("a b").is_err());
        assert!(selector_value("any thing").is_ok() && selector_value("a*").is_err());
    }

    #[test]
    fn subnets_are_bounded_by_their_family() {
        assert_eq!(subnet("10.0.0.0/8").unwrap().1, 8);
        assert_eq!(subnet("fd00::1").unwrap().1, 128);
        for text in ["10.0.0.0/33", "10.0.0/8", "10.0.0.0/08", "10.0.0.0/+8", "10.0.0.0/"] {
            assert!(subnet(text).is_err(), "{text}");
        }
        assert!(subnet("0.0.0.0/0").is_ok());
    }

    #[test]
    fn a_percent_sign_in_a_header_begins_a_command_or_is_doubled() {
        for value in [
            "",
            "100%%",
            "%PROTOCOL%",
            "a %REQ(x-a)% b %RESP(x)%",
            "%REQ(a\\)b)%",
            r#"%DYNAMIC_METADATA(["a", "b)"])%"#,
            "%START_TIME(%Y)  %",
        ] {
            assert!(header_value(value).is_ok(), "{value}");
        }
        for value in ["100%", "abc%123", "%START_TIME%%", "%REQ(a", "%REQ(a)b%", "%%%", "a\n"] {
            assert!(header_value(value).is_err(), "{value}");
        }
    }

    #[test]
    fn headers_are_named_as_istio_takes_them() {
        for name in ["x-a", ":path", "@request.auth.claims.group", "@request.auth.claims[a][b]"] {
            assert!(match_header(name).is_ok(), "{name}");
        }
        for name in [":foo", "a b", "@request.auth.claims", "@request.auth.claims.", "@other"] {
            assert!(match_header(name).is_err(), "{name}");
        }
        assert!(request_header("host").is_ok() && request_header(":authority").is_ok());
        assert!(request_header(":path").is_err());
        assert!(other_header("Host").is_err() && other_header(":status").is_err());
    }

    #[test]
    fn an_objects_name_is_a_subdomain_of_any_shape() {
        for name in ["a", "a.b-c", "0a", "a--b.0"] {
            assert!(object_name(name).is_ok(), "{name}");
        }
        assert!(object_name(&"a".repeat(253)).is_ok());
        for name in ["", "a_b", "-a", "a.", "a..b", "*", &"a".repeat(254)] {
            assert!(object_name(name).is_err(), "{name}");
        }
        assert_eq!(object_name("Rule"), Err("`Rule` has capitals: write `rule`".to_owned()));
    }
}
