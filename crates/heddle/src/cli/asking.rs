//! What may be asked of the mesh: `heddle explain`, `heddle why` and `heddle describe`.

use clap::Args;

use super::{
    common::{NamespaceFlags, Output, TargetFlags},
    values,
};

/// Whom a call is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Callee {
    /// A name or an address.
    pub host: String,
    /// `None`: the only one there is.
    pub port: Option<u16>,
}

/// `heddle explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  heddle explain --from productpage --to reviews:9080
  heddle explain --from productpage --to reviews:9080 --header 'end-user: jason' --path /reviews/0
  heddle explain --from frontend.shop --to https-api.example.com:443 --sni api.example.com
  heddle explain --from frontend-v1-3fa09c --to ratings:9090 --method POST --path /pkg.Ratings/Get --output json")]
pub(crate) struct ExplainArgs {
    /// Who calls: a service or a workload; NAME or NAME.NAMESPACE
    #[arg(long, value_name = "WORKLOAD")]
    pub from: String,
    /// Who is called: a service, a host outside or an address, with its port
    #[arg(long, value_name = "HOST[:PORT]", value_parser = callee)]
    pub to: Callee,
    /// Method of the request [default: GET; POST where the port speaks gRPC]
    #[arg(long, value_name = "METHOD", value_parser = method)]
    pub method: Option<String>,
    /// Path of the request, with its query [default: /]
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub path: Option<String>,
    /// A field of the request, as in `end-user: jason`; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// The call is a connection of TLS that asks for this name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["method", "path", "headers"])]
    pub sni: Option<String>,
    /// Namespace of the caller, where --from names none [default: `default`; in a cluster that of the context]
    #[arg(long, short, value_name = "NS", value_parser = values::label)]
    pub namespace: Option<String>,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: TargetFlags,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// `heddle why`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  heddle why 5f0c4bb2-8a39-4f4e-9d55-0c4d4d1c9a51   by the x-request-id that a refusal answers with
  heddle why                                        what was refused lately, the newest first")]
pub(crate) struct WhyArgs {
    /// The request's `x-request-id`; without it, what was refused lately is listed
    #[arg(value_name = "ID", value_parser = request_id)]
    pub id: Option<String>,
    /// Of which namespaces.
    #[command(flatten)]
    pub namespaces: NamespaceFlags,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: TargetFlags,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// `heddle describe`.
#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// The service: NAME or NAME.NAMESPACE, or a host that a ServiceEntry names
    pub service: String,
    /// Its namespace [default: `default`; in a cluster that of the context]
    #[arg(long, short, value_name = "NS", value_parser = values::label)]
    pub namespace: Option<String>,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: TargetFlags,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// `reviews:9080`, `reviews`, `[::1]:80` or an address.
fn callee(text: &str) -> Result<Callee, String> {
    let wrong = |what: &str| format!("{what}: use HOST:PORT, e.g. reviews:9080");
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or(rest))),
        None if text.matches(':').count() > 1 => (text, None),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if text.contains("://") || text.contains('/') {
        return Err(wrong("a URL is no HOST:PORT (its path goes into --path)"));
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.:*".contains(&b);
    if host.is_empty() || !host.bytes().all(fits) {
        return Err(wrong(&format!("{host:?} is neither a name nor an address")));
    }
    let port = match port {
        None => None,
        Some(port) => match port.parse::<u16>() {
            Ok(port @ 1..) => Some(port),
            _ => return Err(wrong(&format!("{port:?} is no port from 1 to 65535"))),
        },
    };
    Ok(Callee { host: host.to_owned(), port })
}

fn is_token(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(fits)
}

fn method(text: &str) -> Result<String, String> {
    match is_token(text) {
        true => Ok(text.to_owned()),
        false => Err("that is no method: use a word such as GET".to_owned()),
    }
}

fn path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("a path begins with a slash, e.g. /reviews/0?x=1".to_owned());
    }
    match text.bytes().any(|b| b <= b' ' || b == 0x7f) {
        true => Err("a path holds no blanks: write them as %20".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// `end-user: jason`, as curl takes it.
fn header(text: &str) -> Result<(String, String), String> {
    // A pseudo-header begins with the sign that ends a name.
    let split = text.strip_prefix(':').map_or_else(
        || text.split_once(':').map(|(name, value)| (name.to_owned(), value)),
        |rest| rest.split_once(':').map(|(name, value)| (format!(":{name}"), value)),
    );
    let Some((name, value)) = split else {
        let hint = match text.split_once('=') {
            Some((name, value)) => format!("'{name}: {value}'"),
            None => "'end-user: jason'".to_owned(),
        };
        return Err(format!("a header has a colon behind its name, e.g. {hint}"));
    };
    let name = name.trim_end();
    if !is_token(name.strip_prefix(':').unwrap_or(name)) {
        return Err(format!("{name:?} is no name of a header: use NAME: VALUE"));
    }
    let value = value.trim();
    match value.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) {
        true => Err(format!("the value of {name} has characters that no header has")),
        false => Ok((name.to_owned(), value.to_owned())),
    }
}

/// What a refusal repeats.
fn request_id(text: &str) -> Result<String, String> {
    let fits = text.bytes().all(|b| b.is_ascii_graphic() && b != b';');
    match fits && (1..=128).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => Err(
            "that is no id: use the x-request-id of the refusal, up to 128 printable characters"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callee_is_a_host_with_or_without_a_port() {
        let of = |text: &str| callee(text).map(|one| (one.host, one.port));
        assert_eq!(of("reviews:9080"), Ok(("reviews".into(), Some(9080))));
        assert_eq!(of("reviews.shop"), Ok(("reviews.shop".into(), None)));
        assert_eq!(of("[fd68::1]:80"), Ok(("fd68::1".into(), Some(80))));
        assert_eq!(of("fd68::1"), Ok(("fd68::1".into(), None)));
        assert_eq!(of("10.0.0.1:80"), Ok(("10.0.0.1".into(), Some(80))));
        for wrong in ["", ":80", "a:b", "a:0", "a:70000", "http://a/", "a b:80", "a/b"] {
            let error = callee(wrong).unwrap_err();
            assert!(error.contains("HOST:PORT"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_header_is_written_as_for_curl() {
        assert_eq!(header("end-user: jason"), Ok(("end-user".into(), "jason".into())));
        assert_eq!(header("X-A:"), Ok(("X-A".into(), String::new())));
        assert_eq!(header(":authority: x"), Ok((":authority".into(), "x".into())));
        assert!(header("end-user=jason").unwrap_err().ends_with("'end-user: jason'"));
        for wrong in ["", "a", "a b: c", ": c", "a: b\nc"] {
            assert!(header(wrong).is_err(), "{wrong:?}");
        }
    }
}
