//! What a span says in the words of whoever made it – Istio's tags, OpenTelemetry's conventions old and new, Zipkin's –
//! as the few facts that are asked about.

use heddle_wire::trace::received::Received;

const METHODS: [&str; 2] = ["http.request.method", "http.method"];
const CODES: [&str; 2] = ["http.response.status_code", "http.status_code"];
const GRPC_CODES: [&str; 3] =
    ["grpc.status_code", "rpc.grpc.status_code", "rpc.response.status_code"];
const PATHS: [&str; 6] =
    ["url.path", "http.path", "http.target", "url.full", "http.url", "http.route"];
/// What only sidecars say: of ours, or an Envoy's.
const SIDECAR: &str = "node_id";

/// How a span ended, as far as it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Status {
    /// HTTP's code; 0: none.
    pub(super) http: u16,
    /// gRPC's.
    pub(super) grpc: Option<u32>,
    pub(super) failed: bool,
}

impl Status {
    pub(super) fn of(span: &Received) -> Self {
        let http = span.tag(&CODES).and_then(|code| code.parse().ok()).unwrap_or(0);
        let grpc = span.tag(&GRPC_CODES).and_then(|code| code.parse().ok());
        // A client's mistake is no server's failure, unless the client's own span says so.
        Self { http, grpc, failed: span.failed || http >= 500 }
    }

    /// In words.
    pub(super) fn word(self) -> String {
        match self {
            Self { grpc: Some(code), .. } if code > 0 => format!("grpc {code}"),
            Self { http, .. } if http > 0 => http.to_string(),
            Self { failed: true, .. } => "error".to_owned(),
            Self { .. } => "ok".to_owned(),
        }
    }
}

/// The method of HTTP, or nothing.
pub(super) fn method(span: &Received) -> &str {
    span.tag(&METHODS).unwrap_or_default()
}

/// The path that was asked for, without its query, or nothing.
pub(super) fn path(span: &Received) -> &str {
    let said = span.tag(&PATHS).unwrap_or_default();
    let path = match said.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => said,
    };
    path.split(['?', '#']).next().unwrap_or_default()
}

/// Was it made by a sidecar?
pub(super) fn is_of_the_mesh(span: &Received) -> bool {
    span.tag(&[SIDECAR]).is_some()
}

/// What a span is about, for a list: the method and the path where they are known, else its name.
pub(super) fn about(span: &Received) -> String {
    match (method(span), path(span)) {
        ("", _) | (_, "") => span.name.clone(),
        (method, path) => format!("{method} {path}"),
    }
}

/// Spans that are sent are themselves calls of the program that sends them, which its sidecar sees. Nobody looks for
/// those.
pub(super) fn is_delivery(span: &Received) -> bool {
    is_of_the_mesh(span)
        && method(span) == "POST"
        && matches!(path(span), heddle_wire::trace::otlp::PATH | heddle_wire::trace::zipkin::PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tags: &[(&str, &str)]) -> Received {
        let tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Received { name: "a name".to_owned(), tags: tags.collect(), ..Received::default() }
    }

    #[test]
    fn a_status_is_found_whoever_wrote_it() {
        for (tags, word, failed) in [
            (&[("http.status_code", "503")][..], "503", true),
            (&[("http.response.status_code", "404")], "404", false),
            (&[("http.status_code", "200"), ("grpc.status_code", "14")], "grpc 14", false),
            (&[("http.status_code", "200"), ("grpc.status_code", "0")], "200", false),
            (&[("http.status_code", "much")], "ok", false),
            (&[], "ok", false),
        ] {
            let status = Status::of(&tagged(tags));
            assert_eq!((status.word().as_str(), status.failed), (word, failed), "{tags:?}");
        }
        let failed = Received { failed: true, ..Received::default() };
        assert_eq!(Status::of(&failed).word(), "error");
    }

    #[test]
    fn a_path_is_found_whoever_wrote_it() {
        for (tag, value, wanted) in [
            ("http.url", "http://ratings:9080/ratings/7?x=1", "/ratings/7"),
            ("url.full", "https://a.example", "/"),
            ("http.target", "/a?b", "/a"),
            ("url.path", "/a", "/a"),
            ("other", "/a", ""),
        ] {
            assert_eq!(path(&tagged(&[(tag, value)])), wanted, "{tag}");
        }
        assert_eq!(about(&tagged(&[("url.path", "/a")])), "a name");
        assert_eq!(about(&tagged(&[("url.path", "/a"), ("http.method", "GET")])), "GET /a");
    }
}
