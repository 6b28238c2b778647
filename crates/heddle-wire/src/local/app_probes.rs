//! What became of an application's probes: paths on the sidecar's :15020, each with the probe that it
//! stands for; and its metrics. Injection writes them into the sidecar's environment, the sidecar asks what they say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The environment variable that carries them, as JSON.
pub const APP_PROBES_VARIABLE: &str = "HEDDLE_APP_PROBES";
/// The environment variable that says where the application shows its own metrics, as a JSON [`HttpGet`].
pub const APP_METRICS_VARIABLE: &str = "HEDDLE_APP_METRICS";
/// What their paths begin with (Istio's).
pub const APP_PROBES_PREFIX: &str = "/app-health/";
/// Kubernetes' own limit of a probe that names none, seconds.
pub const PROBE_TIMEOUT_SECONDS: u32 = 1;

/// By path: `/app-health/CONTAINER/livez`, `readyz` or `startupz`.
pub type AppProbes = BTreeMap<String, AppProbe>;

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppProbe {
    /// What is asked.
    #[serde(flatten)]
    pub ask: Ask,
    /// Longest it may take, seconds.
    #[serde(default = "usual_timeout")]
    pub timeout_seconds: u32,
}

/// What a probe asks of the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ask {
    /// Is the answer's status 200 to 399?
    HttpGet(HttpGet),
    /// Does the port accept connections?
    TcpSocket(TcpSocket),
    /// Does gRPC's health service say SERVING?
    Grpc(Grpc),
}

/// A GET.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpGet {
    /// Path with query.
    #[serde(default = "root_path")]
    pub path: String,
    /// Port.
    pub port: u16,
    /// With TLS, or without.
    #[serde(default)]
    pub scheme: Scheme,
    /// Fields of the request; `Host` too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_headers: Vec<Header>,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpSocket {
    /// Port.
    pub port: u16,
}

/// `grpc.health.v1.Health/Check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grpc {
    /// Port.
    pub port: u16,
    /// The service that is asked about; empty: the server as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
}

/// A field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// How an HTTP probe is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    /// Without TLS.
    #[default]
    Http,
    /// With TLS; the certificate is not verified, as the kubelet does not.
    Https,
}

fn usual_timeout() -> u32 {
    PROBE_TIMEOUT_SECONDS
}

fn root_path() -> String {
    "/".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_written_as_in_a_pod() {
        let json = r#"{"httpGet":{"path":"/ok?x=1","port":8080,"scheme":"HTTPS","httpHeaders":[{"name":"Host","value":"a"}]},"timeoutSeconds":3}"#;
        let probe: AppProbe = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&probe).unwrap(), json);
        let short: AppProbe = serde_json::from_str(r#"{"grpc":{"port":1}}"#).unwrap();
        let ask = Ask::Grpc(Grpc { port: 1, service: String::new() });
        assert_eq!(short, AppProbe { ask, timeout_seconds: 1 });
        let unknown = serde_json::from_str::<AppProbe>(r#"{"exec":{}}"#);
        assert!(unknown.is_err());
    }
}
