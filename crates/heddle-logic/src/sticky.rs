//! What a rule tells requests apart by, so that those with the same key go to the same endpoint: read from
//! a request, or given to its client as a cookie. Where keys lead is `balance::hash`'s.

use std::{fmt::Write, net::IpAddr};

use heddle_model::discovery::{HashCookie, HashKey};

use crate::{balance::hash::hash, route::RequestView};

/// What became of the question for a request's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// Its hash.
    Found(u64),
    /// The request has none: any endpoint will do.
    None,
    /// It is new: its hash, and the `set-cookie` that tells it to the client.
    New(u64, String),
}

impl Key {
    /// The hash, if there is a key.
    #[must_use]
    pub fn hash(&self) -> Option<u64> {
        match self {
            Self::Found(hash) | Self::New(hash, _) => Some(*hash),
            Self::None => None,
        }
    }
}

/// The key of a request whose client is at `source`; `random` makes a new one.
#[must_use]
pub fn key(by: &HashKey, request: &dyn RequestView, source: IpAddr, random: u64) -> Key {
    let found = match by {
        HashKey::Header(name) => request.first_header(name),
        HashKey::QueryParameter(name) => parameter(request.target(), name).map(str::to_owned),
        HashKey::SourceIp => return Key::Found(source_key(source)),
        HashKey::Cookie(cookie) => match sent_cookie(request, &cookie.name) {
            None if cookie.ttl.is_some() => return new_cookie(cookie, random),
            sent => sent,
        },
    };
    found.map_or(Key::None, |value| Key::Found(hash(value.as_bytes())))
}

/// The key of whatever comes from an address.
#[must_use]
pub fn source_key(source: IpAddr) -> u64 {
    hash(source.to_canonical().to_string().as_bytes())
}

/// The first parameter of this name, as sent.
fn parameter<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The first cookie of this name (RFC 6265, 4.2), without quotes. One that is empty is none.
fn sent_cookie(request: &dyn RequestView, name: &str) -> Option<String> {
    let mut found = None;
    let mut look = |line: &str| {
        let pairs = line.split(';').filter_map(|pair| pair.trim().split_once('='));
        let mut named = pairs.filter(|(key, value)| *key == name && !value.is_empty());
        found = named.next().map(|(_, value)| value.trim_matches('"').to_owned());
        found.is_some()
    };
    let _found = request.any_header("cookie", &mut look);
    found
}

fn new_cookie(cookie: &HashCookie, random: u64) -> Key {
    let value = format!("{random:016x}");
    let mut text = format!("{}={value}", cookie.name);
    let mut add = |part: std::fmt::Arguments<'_>| {
        let _infallible = text.write_fmt(part);
    };
    if let Some(ttl) = cookie.ttl.filter(|ttl| !ttl.is_zero()) {
        add(format_args!("; Max-Age={}", ttl.as_secs().max(1)));
    }
    if !cookie.path.is_empty() {
        add(format_args!("; Path={}", cookie.path));
    }
    for (name, value) in &cookie.attributes {
        match value.as_str() {
            "" => add(format_args!("; {name}")),
            value => add(format_args!("; {name}={value}")),
        }
    }
    if !cookie.attributes.iter().any(|(name, _)| name.eq_ignore_ascii_case("httponly")) {
        add(format_args!("; HttpOnly"));
    }
    Key::New(hash(value.as_bytes()), text)
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;
    use crate::route::testing::Asked;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn of(by: &HashKey, request: &Asked) -> Key {
        key(by, request, HERE, 7)
    }

    fn is(value: &str) -> Key {
        Key::Found(hash(value.as_bytes()))
    }

    #[test]
    fn a_key_is_read_from_where_the_rule_says() {
        let request = Asked::get("/a?b=1&user=ann&user=bob#x").with("x-user", "eve");
        assert_eq!(of(&HashKey::Header("x-user".into()), &request), is("eve"));
        assert_eq!(of(&HashKey::Header("x-other".into()), &request), Key::None);
        assert_eq!(of(&HashKey::QueryParameter("user".into()), &request), is("ann"));
        assert_eq!(of(&HashKey::QueryParameter("use".into()), &request), Key::None);
        assert_eq!(of(&HashKey::SourceIp, &request), is("127.0.0.1"));
        assert_eq!(source_key("::ffff:127.0.0.1".parse().unwrap()), source_key(HERE));
    }

    #[test]
    fn a_cookie_is_read_and_set_only_where_it_is_missing_and_has_a_time() {
        let cookie = |ttl: Option<u64>| HashCookie {
            name: "who".into(),
            path: "/shop".into(),
            ttl: ttl.map(Duration::from_secs),
            attributes: vec![("SameSite".into(), "Lax".into()), ("Secure".into(), String::new())],
        };
        let with = Asked::get("/").with("cookie", "a=1; who=\"ann\"; who=bob");
        let without = Asked::get("/").with("cookie", "a=1; whoever=x; who=");
        for ttl in [None, Some(0), Some(60)] {
            assert_eq!(of(&HashKey::Cookie(cookie(ttl)), &with), is("ann"));
        }
        assert_eq!(of(&HashKey::Cookie(cookie(None)), &without), Key::None);
        let value = "0000000000000007";
        for (ttl, age) in [(0, ""), (60, "; Max-Age=60")] {
            let Key::New(hashed, text) = of(&HashKey::Cookie(cookie(Some(ttl))), &without) else {
                panic!("no cookie")
            };
            assert_eq!(
                text,
                format!("who={value}{age}; Path=/shop; SameSite=Lax; Secure; HttpOnly")
            );
            let next = Asked::get("/").with("cookie", text.split(';').next().unwrap());
            assert_eq!(of(&HashKey::Cookie(cookie(Some(ttl))), &next), Key::Found(hashed));
        }
    }
}
