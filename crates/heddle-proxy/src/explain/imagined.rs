//! A request that nobody sent, as rules see it.

use heddle_logic::RequestView;
use heddle_model::Protocol;
use heddle_model::secret;
use heddle_wire::local::sidecar_api::{AskedRequest, ExplainRequest};

/// Parts of a request.
pub(super) struct Imagined {
    method: String,
    target: String,
    authority: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

impl Imagined {
    /// What a usual client of `host` would send; a call of gRPC where the port is declared to speak that.
    pub(super) fn of(asked: &ExplainRequest, host: &str, declared: Protocol) -> Self {
        let lower = |(name, value): &(String, String)| (name.to_ascii_lowercase(), value.clone());
        let mut headers: Vec<_> = asked.headers.iter().map(lower).collect();
        let is_grpc = declared == Protocol::Grpc;
        if is_grpc && !headers.iter().any(|(name, _)| name == "content-type") {
            headers.push(("content-type".to_owned(), "application/grpc".to_owned()));
        }
        let named = headers.iter().find(|(name, _)| name == "host" || name == ":authority");
        let authority = named.map(|(_, value)| value.clone());
        headers.retain(|(name, _)| name != "host" && !name.starts_with(':'));
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let by_default = || match asked.port {
            80 => host,
            port => format!("{host}:{port}"),
        };
        let method = if is_grpc { "POST" } else { "GET" };
        Self {
            method: asked.method.clone().unwrap_or_else(|| method.to_owned()),
            target: asked.path.clone().unwrap_or_else(|| "/".to_owned()),
            authority: authority.unwrap_or_else(by_default),
            headers,
        }
    }

    /// The same for people.
    pub(super) fn told(&self) -> AskedRequest {
        let shown = |(name, value): &(String, String)| {
            (name.clone(), secret::shown_value(name, value).into_owned())
        };
        AskedRequest {
            method: self.method.clone(),
            path: secret::shown_target(&self.target).into_owned(),
            authority: secret::shown_authority(&self.authority).into_owned(),
            headers: self.headers.iter().map(shown).collect(),
        }
    }
}

impl RequestView for Imagined {
    fn method(&self) -> &str {
        &self.method
    }

    fn target(&self) -> &str {
        &self.target
    }

    fn path(&self) -> &[u8] {
        self.target.split(['?', '#']).next().unwrap_or_default().as_bytes()
    }

    fn authority(&self) -> &str {
        &self.authority
    }

    fn scheme(&self) -> &str {
        "http"
    }

    fn any_header(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        self.headers.iter().any(|(known, value)| known == name && test(value))
    }
}
