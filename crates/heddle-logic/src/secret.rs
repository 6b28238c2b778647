//! Which fields of a message hold secrets: their values are matched and passed on like any other's, and never shown.

/// What is shown in place of a secret.
pub const HIDDEN: &str = "(not shown)";

/// Fields that are secrets by their whole name.
const NAMES: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];
/// What the name of any other one holds.
const PARTS: [&str; 8] =
    ["token", "secret", "api-key", "apikey", "api_key", "password", "passwd", "credential"];

/// Is the value of a field (or of a query's parameter) of this name a secret? Case means nothing.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    NAMES.contains(&name.as_str()) || PARTS.iter().any(|part| name.contains(part))
}

/// The value, or what is shown in its place.
#[must_use]
pub fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    if is_secret(name) { HIDDEN } else { value }
}

/// A path with its query, without the values of parameters that are secrets.
#[must_use]
pub fn shown_target(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let parameter = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={HIDDEN}"),
        _ => pair.to_owned(),
    };
    let query: Vec<_> = query.split('&').map(parameter).collect();
    format!("{path}?{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_by_their_names() {
        for name in [
            "authorization",
            "Authorization",
            "Cookie",
            "set-cookie",
            "X-API-Key",
            "x-auth-token",
            "x-my-secret-thing",
            "proxy-authorization",
        ] {
            assert!(is_secret(name), "{name}");
            assert_eq!(shown(name, "hunter2"), HIDDEN);
        }
        for name in ["end-user", "x-request-id", "user-agent", "accept", "cookies-allowed"] {
            assert!(!is_secret(name), "{name}");
            assert_eq!(shown(name, "jason"), "jason");
        }
    }

    #[test]
    fn a_query_keeps_what_is_no_secret() {
        assert_eq!(
            shown_target("/a?b=c&access_token=xyz&d"),
            format!("/a?b=c&access_token={HIDDEN}&d")
        );
        assert_eq!(shown_target("/a"), "/a");
    }
}
