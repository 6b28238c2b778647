//! What is never shown of a request: values of fields and parameters whose names say that they are secret, and
//! values that look it under whatever name.

use std::borrow::Cow;

/// What stands for a secret.
pub const HIDDEN: &str = "(hidden)";

/// Names with one of these in them are of secrets.
const PARTS: [&str; 15] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "credential",
    "cookie",
    "authorization",
    "api-key",
    "api_key",
    "apikey",
    "access-key",
    "access_key",
    "private",
    "session",
];
/// Names that are of secrets as they stand: parameters of OAuth, of signed addresses, and common short forms.
const WHOLE: [&str; 14] = [
    "auth",
    "code",
    "jwt",
    "key",
    "otp",
    "pass",
    "pin",
    "pwd",
    "sid",
    "sig",
    "signature",
    "x-auth",
    "x-amz-signature",
    "x-goog-signature",
];

/// Is what goes by this name secret? In whatever case.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    WHOLE.contains(&name.as_str()) || PARTS.iter().any(|part| name.contains(part))
}

/// A field's value as it may be shown.
#[must_use]
pub fn shown_value<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    // Such a field may also hold an address with parameters (Referer, Location).
    if is_secret(name) || looks_secret(value) { HIDDEN.into() } else { shown_target(value) }
}

/// A target, path and query, as it may be shown: the names of its parameters stay.
#[must_use]
pub fn shown_target(target: &str) -> Cow<'_, str> {
    let target = without_user(target);
    let begins = target.find(['?', '#', ';']);
    let Some(begins) = begins else { return target };
    let hides = |pair: &str| hidden_from(pair).is_some();
    if !target[begins..].split(['?', '&', ';', '#']).any(hides) {
        return target;
    }
    let mut shown = target[..begins].to_owned();
    let mut rest = &target[begins..];
    while let Some(separator) = rest.chars().next() {
        shown.push(separator);
        rest = &rest[separator.len_utf8()..];
        let end = rest.find(['?', '&', ';', '#']).unwrap_or(rest.len());
        let pair = &rest[..end];
        match hidden_from(pair) {
            Some(at) => {
                shown.push_str(&pair[..at]);
                shown.push_str(HIDDEN);
            }
            None => shown.push_str(pair),
        }
        rest = &rest[end..];
    }
    shown.into()
}

/// An authority without who asks: `user:password@host`.
#[must_use]
pub fn shown_authority(authority: &str) -> Cow<'_, str> {
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{HIDDEN}@{host}").into(),
        None => authority.into(),
    }
}

/// An absolute form may have a user in its authority.
fn without_user(target: &str) -> Cow<'_, str> {
    let Some(at) = target.find("://").filter(|at| !target[..*at].contains(['/', '?'])) else {
        return target.into();
    };
    let (scheme, rest) = target.split_at(at + 3);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if !rest[..end].contains('@') {
        return target.into();
    }
    format!("{scheme}{}{}", shown_authority(&rest[..end]), &rest[end..]).into()
}

/// Where the value of a parameter begins that is hidden.
fn hidden_from(pair: &str) -> Option<usize> {
    let (name, value) = pair.split_once('=')?;
    let hides = !value.is_empty() && (is_secret(&decoded(name)) || looks_secret(&decoded(value)));
    hides.then_some(name.len() + 1)
}

/// Does it look like a secret, whatever its name? Credentials of RFC 9110 §11.4, and signed tokens (RFC 7519).
fn looks_secret(value: &str) -> bool {
    let value = value.trim_start();
    let scheme = value.split_once([' ', '+']).map_or("", |(scheme, _)| scheme);
    let is_scheme = ["basic", "bearer", "digest", "negotiate"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known));
    is_scheme || value.split(|c: char| !is_of_token(c)).any(is_signed)
}

fn is_of_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// `{"` in Base64, twice, and something behind it.
fn is_signed(word: &str) -> bool {
    let mut parts = word.split('.');
    let head = parts.next().is_some_and(|part| part.starts_with("eyJ"));
    head && parts.next().is_some_and(|part| part.len() > 1) && parts.next().is_some()
}

/// Undoes percent-encoding, and again what that brings to light; what is malformed stays.
fn decoded(text: &str) -> Cow<'_, str> {
    let mut text: Cow<'_, str> = text.into();
    for _ in 0..2 {
        if !text.contains('%') {
            break;
        }
        text = once(&text).into();
    }
    text
}

fn once(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| first == b'%');
        let number =
            digits.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        match number {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_secrets() {
        for name in [
            "Authorization",
            "cookie",
            "Set-Cookie",
            "proxy-authorization",
            "X-Api-Key",
            "x-csrf-token",
            "client_secret",
            "X-Amz-Security-Token",
            "sig",
            "code",
            "accessToken",
            "session_id",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["accept", "user-agent", "x-request-id", "page", "sort", "author", "keyword"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_secret_is_hidden_whatever_stands_around_it(
            before in "\\PC{0,40}", after in "\\PC{0,40}", name in "(%74|t)oken|my[_-]secret",
        ) {
            let target = format!("/{before}?x={before}&{name}=t0p53cr3t&{after}");
            let shown = shown_target(&target);
            proptest::prop_assert!(!shown.contains("t0p53cr3t"), "{}", shown);
            proptest::prop_assert!(!shown_value("referer", &target).contains("t0p53cr3t"));
        }
    }

    #[test]
    fn a_value_that_looks_secret_is_hidden_under_any_name() {
        for value in ["Bearer abc", "bearer abc", "Basic dTpw", "a eyJhbGciOi.eyJzdWIi.c2ln b"] {
            assert_eq!(shown_value("x-thing", value), HIDDEN, "{value}");
        }
        assert_eq!(shown_value("user-agent", "curl/8 (basic)"), "curl/8 (basic)");
        assert_eq!(shown_value("referer", "http://a/?token=1&b=2"), "http://a/?token=(hidden)&b=2");
    }

    #[test]
    fn parameters_keep_their_names_and_lose_what_is_secret() {
        for (target, shown) in [
            ("/a/b", "/a/b"),
            ("/a?x=1&y=2", "/a?x=1&y=2"),
            ("/a?token=t&x=1", "/a?token=(hidden)&x=1"),
            ("/a?x=1&%74oken=t", "/a?x=1&%74oken=(hidden)"),
            ("/a?x=1&%2574oken=t", "/a?x=1&%2574oken=(hidden)"),
            ("/a;jsessionid=1?x=2", "/a;jsessionid=(hidden)?x=2"),
            ("/a?b=2;password=p#access_token=q", "/a?b=2;password=(hidden)#access_token=(hidden)"),
            ("/a?token", "/a?token"),
            ("/a?token=", "/a?token="),
            ("/a?q=Bearer%20abc", "/a?q=(hidden)"),
            ("/a?x=?token=t", "/a?x=?token=(hidden)"),
            ("http://u:p@h/a?b=1", "http://(hidden)@h/a?b=1"),
            ("/a?\u{e9}=%", "/a?\u{e9}=%"),
        ] {
            assert_eq!(shown_target(target), shown, "{target}");
        }
        assert_eq!(shown_authority("u:p@h:80"), "(hidden)@h:80");
        assert_eq!(shown_authority("h:80"), "h:80");
    }
}
