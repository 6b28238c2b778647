//! Flags of where spans go.

use clap::Args;
use heddle_control::SpanDefault;
use heddle_model::discovery::{CollectorAddress, OtlpHttpSink, SpanSink, ZipkinSink};
use heddle_wire::trace::{otlp, zipkin};

/// Share of traces that are kept where nothing is said, percent (Istio's).
const SAMPLING: f64 = 1.0;

/// How the requests of a mesh are traced.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TraceArgs {
    /// Whom spans are sent to: zipkin://HOST:PORT, otlp-grpc://HOST:PORT or otlp-http://HOST:PORT, the first and the last with a path if need be; as seen from this machine [default: nobody]
    #[arg(long, value_name = "URL", value_parser = trace_to)]
    pub trace_to: Option<TraceTo>,
    /// Of so many in a hundred requests that begin a trace it is recorded; a decision that came with a request holds [default: 1]
    #[arg(long, value_name = "PERCENT", value_parser = percent, requires = "trace_to")]
    pub trace_sampling: Option<f64>,
}

/// `--trace-to URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceTo {
    /// As given.
    pub text: String,
    /// As meant.
    pub sink: SpanSink,
}

impl TraceArgs {
    /// The same flags for a part of the mesh.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(to) = &self.trace_to {
            words.extend(["--trace-to".to_owned(), to.text.clone()]);
        }
        if let Some(percent) = self.trace_sampling {
            words.extend(["--trace-sampling".to_owned(), percent.to_string()]);
        }
        words
    }

    /// What they ask for.
    pub(crate) fn spans(&self) -> Option<SpanDefault> {
        let to = self.trace_to.as_ref()?.sink.clone();
        Some(SpanDefault { to, sampling: self.trace_sampling.unwrap_or(SAMPLING) })
    }
}

const FORMS: &str = "use zipkin://HOST:PORT, otlp-grpc://HOST:PORT or otlp-http://HOST:PORT, e.g. zipkin://127.0.0.1:9411";

fn trace_to(text: &str) -> Result<TraceTo, String> {
    let wrong = |what: &str| format!("`{text}` {what}: {FORMS}");
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let path = if path == "/" { "" } else { path };
    let (host, port) = authority.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
    let port: u16 =
        port.parse().ok().filter(|port| *port > 0).ok_or_else(|| wrong("has no port"))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_host) {
        return Err(wrong("names no host"));
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("has a path with what no path may hold"));
    }
    let to = CollectorAddress { host: host.to_ascii_lowercase(), port };
    let at = |usual: &str| if path.is_empty() { usual } else { path }.to_owned();
    let sink = match scheme {
        "zipkin" => SpanSink::Zipkin(ZipkinSink { to, path: at(zipkin::PATH), short_ids: false }),
        "otlp-http" => {
            let (path, headers) = (at(otlp::PATH), Vec::new());
            SpanSink::OtlpHttp(OtlpHttpSink { to, path, timeout: None, headers })
        }
        "otlp-grpc" if path.is_empty() => SpanSink::OtlpGrpc(to),
        "otlp-grpc" => return Err(wrong("has a path, which gRPC has not")),
        _ => return Err(wrong("has a scheme that nobody here speaks")),
    };
    Ok(TraceTo { text: text.to_owned(), sink })
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.trim_end_matches('%').parse::<f64>().ok();
    percent.filter(|percent| (0.0..=100.0).contains(percent)).ok_or_else(|| {
        format!("`{text}` is no share in percent: use a number from 0 to 100, e.g. 1 or 0.5")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_named_by_what_it_speaks_and_where_it_is() {
        let to = |host: &str, port| CollectorAddress { host: host.to_owned(), port };
        let zipkin = |to| {
            SpanSink::Zipkin(ZipkinSink { to, path: "/api/v2/spans".to_owned(), short_ids: false })
        };
        let otlp_http = |to, path: &str| {
            let (path, headers) = (path.to_owned(), Vec::new());
            SpanSink::OtlpHttp(OtlpHttpSink { to, path, timeout: None, headers })
        };
        for (text, sink) in [
            ("zipkin://127.0.0.1:9411", zipkin(to("127.0.0.1", 9411))),
            ("otlp-grpc://[::1]:4317/", SpanSink::OtlpGrpc(to("::1", 4317))),
            ("otlp-http://Tempo:4318", otlp_http(to("tempo", 4318), "/v1/traces")),
            ("otlp-http://tempo:4318/otlp", otlp_http(to("tempo", 4318), "/otlp")),
        ] {
            assert_eq!(trace_to(text).unwrap().sink, sink, "{text}");
        }
        for (text, says) in [
            ("127.0.0.1:9411", "has no scheme"),
            ("jaeger://a:1", "nobody here speaks"),
            ("zipkin://a", "has no port"),
            ("zipkin://a:0", "has no port"),
            ("zipkin://:9411", "names no host"),
            ("zipkin://a b:9411", "names no host"),
            ("otlp-grpc://a:4317/x", "which gRPC has not"),
            ("otlp-http://a:4318/x y", "no path may hold"),
        ] {
            let error = trace_to(text).unwrap_err();
            assert!(error.contains(says) && error.contains("zipkin://HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn flags_are_handed_on_as_they_were_given() {
        let args = TraceArgs {
            trace_to: Some(trace_to("zipkin://a:9411").unwrap()),
            trace_sampling: Some(0.5),
        };
        assert_eq!(args.words(), ["--trace-to", "zipkin://a:9411", "--trace-sampling", "0.5"]);
        assert_eq!(args.spans().unwrap().sampling, 0.5);
        assert_eq!(TraceArgs::default().spans(), None);
        assert_eq!(percent("2.5%"), Ok(2.5));
        assert!(percent("101").is_err() && percent("much").is_err());
    }
}
