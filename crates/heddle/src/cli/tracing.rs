//! Flags of what a mesh tells of its calls, where spans go and the access log, and of what is asked about traces.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use heddle_control::TelemetryDefault;
use heddle_model::discovery::{ClientTls, Collector, OtlpHttpSink, SpanSink, ZipkinSink};
use heddle_wire::trace::{otlp, zipkin};

use super::{Output, TargetFlags, values};
use crate::failure::Failure;

/// Share of traces that are kept where nothing is said, percent (Istio's).
const SAMPLING: f64 = 1.0;
/// Traces per second and sidecar that the mesh's own store gets where nothing is said, whatever chance says: a person's
/// own call is among them, and a thousand calls per second cost no more.
const AT_LEAST: u32 = 10;
/// Traces of one answer at most.
const LIMIT_MAX: i64 = heddle_observe::limits::TRACES_TOLD_MAX as i64;
/// `--trace-to` nobody.
const NOBODY: &str = "none";
/// `--trace-to` the mesh's own store.
const OWN_STORE: &str = "store";

/// How the requests of a mesh are traced and logged.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TraceArgs {
    /// Whom spans are sent to instead of the mesh's own store: zipkin://HOST:PORT, otlp-grpc://HOST:PORT or otlp-http://HOST:PORT, the first and the last with a path if need be, as seen from this machine, over TLS as zipkins, otlp-grpcs or otlp-https; store: the mesh's own, beside others; or none: nobody; may be repeated
    #[arg(long, value_name = "URL", value_parser = trace_to)]
    pub trace_to: Vec<TraceTo>,
    /// Of so many in a hundred requests that begin a trace it is recorded; a decision that came with a request holds [default: 1, and beside it 10 traces per second and sidecar for the mesh's own store; 100 in the demo]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub trace_sampling: Option<f64>,
    /// Where the mesh's own store takes spans of applications: OTLP over HTTP or by gRPC, or Zipkin's JSON [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::listen_address)]
    pub trace_listen: Option<SocketAddr>,
    /// Write an access log of all calls to this file, where no MeshConfig names another; `-`: here
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<String>,
}

/// How `heddle observe` takes spans in.
#[derive(Debug, Args)]
pub(crate) struct TraceStoreArgs {
    /// The inherited socket on which spans come in
    #[arg(long, conflicts_with = "spans_port")]
    pub spans_fd: Option<i32>,
    /// The port on which spans come in
    #[arg(long)]
    pub spans_port: Option<u16>,
    /// Where applications send spans, as they reach it
    #[arg(long, value_name = "URL", default_value = "")]
    pub spans_endpoint: String,
    /// Whom the mesh's own spans go to instead
    #[arg(long, value_name = "URL")]
    pub spans_elsewhere: Option<String>,
    /// The file in which traces are kept [default: they are in memory only]
    #[arg(long, value_name = "FILE")]
    pub traces: Option<PathBuf>,
}

/// `heddle traces`.
#[derive(Debug, Args)]
pub(crate) struct TracesArgs {
    /// A service (NAME or NAME.NAMESPACE) that has a span in them, or the id of the one to show
    #[arg(value_name = "SERVICE|ID")]
    pub what: Option<String>,
    /// Only with this status: failed or error, ok, a code as 503 or a class as 5xx
    #[arg(long, value_parser = status)]
    pub status: Option<String>,
    /// Only that took longer, e.g. 200ms
    #[arg(long, value_name = "DURATION")]
    pub slower_than: Option<String>,
    /// Only that took less
    #[arg(long, value_name = "DURATION")]
    pub faster_than: Option<String>,
    /// Only with a path that begins so
    #[arg(long)]
    pub path: Option<String>,
    /// Only that began since so long ago, e.g. 15m
    #[arg(long, value_name = "DURATION")]
    pub since: Option<String>,
    /// So many at most, the newest first
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=LIMIT_MAX))]
    pub limit: u32,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: TargetFlags,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// `--trace-to URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceTo {
    /// As given.
    pub text: String,
    /// As meant.
    pub whom: Whom,
}

/// Whom spans are sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whom {
    /// Nobody.
    Nobody,
    /// The mesh's own store.
    Store,
    /// Somebody else.
    Other(SpanSink),
}

impl TraceArgs {
    /// The same flags for a part of the mesh.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for to in &self.trace_to {
            words.extend(["--trace-to".to_owned(), to.text.clone()]);
        }
        if let Some(percent) = self.trace_sampling {
            words.extend(["--trace-sampling".to_owned(), percent.to_string()]);
        }
        if let Some(listen) = self.trace_listen {
            words.extend(["--trace-listen".to_owned(), listen.to_string()]);
        }
        if let Some(file) = &self.access_log {
            words.extend(["--access-log".to_owned(), file.clone()]);
        }
        words
    }

    /// Flags that say one thing and its contrary are refused.
    ///
    /// # Errors
    /// A usage error that names them.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let nobody = self.trace_to.iter().any(|to| to.whom == Whom::Nobody);
        match self.trace_to.iter().find(|to| to.whom != Whom::Nobody).filter(|_| nobody) {
            None => Ok(()),
            Some(other) => Err(Failure::usage(format!(
                "`--trace-to {NOBODY}` means that spans go to nobody, and `--trace-to {}` to somebody: leave out one",
                other.text
            ))),
        }
    }

    /// Whom spans go to where they do not go to the mesh's own store.
    pub(crate) fn elsewhere(&self) -> Option<String> {
        let first = self.trace_to.first()?;
        let to_store = self.trace_to.iter().any(TraceTo::is_store);
        (!to_store).then(|| first.text.clone())
    }

    /// What they ask for in a mesh whose own store is at `store`, which gets at least so many traces per second and
    /// sidecar where no share is asked for.
    pub(crate) fn telemetry(&self, store: Option<&Collector>) -> TelemetryDefault {
        let store = store.map(|to| {
            let (to, path) = (to.clone(), otlp::PATH.to_owned());
            SpanSink::OtlpHttp(OtlpHttpSink { to, path })
        });
        let to_store = self.trace_to.is_empty() || self.trace_to.iter().any(TraceTo::is_store);
        let own = to_store && self.trace_sampling.is_none();
        let others = self.trace_to.iter().filter_map(TraceTo::other).cloned();
        TelemetryDefault {
            to: store.iter().filter(|_| to_store).cloned().chain(others).collect(),
            access_log: self.access_log.clone(),
            sampling: self.trace_sampling.unwrap_or(SAMPLING),
            at_least: if own { AT_LEAST } else { 0 },
            store,
        }
    }
}

impl TraceTo {
    fn is_store(&self) -> bool {
        self.whom == Whom::Store
    }

    /// The receiver that is not the mesh's own store.
    fn other(&self) -> Option<&SpanSink> {
        match &self.whom {
            Whom::Other(sink) => Some(sink),
            Whom::Nobody | Whom::Store => None,
        }
    }
}

/// `HOST:PORT` of a store of traces.
pub(crate) fn store_address(text: &str) -> Result<Collector, String> {
    let wrong = || format!("`{text}` is no HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    Ok(Collector::at(host, port))
}

/// A status as the store of traces reads it; `failed` is what `heddle tap` calls an error.
fn status(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    let is_known = match (text.as_str(), text.strip_suffix("xx")) {
        ("failed", _) => return Ok("error".to_owned()),
        ("error" | "ok", _) => true,
        (_, Some(class)) => class.parse().is_ok_and(|class: u16| (1..=5).contains(&class)),
        (code, None) => code.parse().is_ok_and(|code: u16| (100..600).contains(&code)),
    };
    match is_known {
        true => Ok(text),
        false => Err(format!(
            "`{text}` is no status: use failed or error, ok, a code as 503 or a class as 5xx"
        )),
    }
}

const FORMS: &str = "use zipkin://HOST:PORT, otlp-grpc://HOST:PORT or otlp-http://HOST:PORT, e.g. zipkin://127.0.0.1:9411, over TLS zipkins, otlp-grpcs or otlp-https, or store or none";

fn trace_to(text: &str) -> Result<TraceTo, String> {
    let known = match text {
        NOBODY => Some(Whom::Nobody),
        OWN_STORE => Some(Whom::Store),
        _ => None,
    };
    if let Some(whom) = known {
        return Ok(TraceTo { text: text.to_owned(), whom });
    }
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
    let (scheme, secure) = match scheme {
        "zipkins" => ("zipkin", true),
        "otlp-grpcs" => ("otlp-grpc", true),
        "otlp-https" => ("otlp-http", true),
        plain => (plain, false),
    };
    let mut to = Collector::at(&host.to_ascii_lowercase(), port);
    if secure {
        to.tls = Some(Box::new(ClientTls { server_name: to.host.clone(), ..ClientTls::default() }));
    }
    let at = |usual: &str| if path.is_empty() { usual } else { path }.to_owned();
    let sink = match scheme {
        "zipkin" => SpanSink::Zipkin(ZipkinSink { to, path: at(zipkin::PATH), short_ids: false }),
        "otlp-http" => {
            let path = at(otlp::PATH);
            SpanSink::OtlpHttp(OtlpHttpSink { to, path })
        }
        "otlp-grpc" if path.is_empty() => SpanSink::OtlpGrpc(to),
        "otlp-grpc" => return Err(wrong("has a path, which gRPC has not")),
        _ => return Err(wrong("has a scheme that nobody here speaks")),
    };
    Ok(TraceTo { text: text.to_owned(), whom: Whom::Other(sink) })
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
        let to = |host: &str, port| Collector::at(host, port);
        let zipkin = |to| {
            SpanSink::Zipkin(ZipkinSink { to, path: "/api/v2/spans".to_owned(), short_ids: false })
        };
        let otlp_http =
            |to, path: &str| SpanSink::OtlpHttp(OtlpHttpSink { to, path: path.to_owned() });
        for (text, sink) in [
            ("zipkin://127.0.0.1:9411", zipkin(to("127.0.0.1", 9411))),
            ("otlp-grpc://[::1]:4317/", SpanSink::OtlpGrpc(to("::1", 4317))),
            ("otlp-http://Tempo:4318", otlp_http(to("tempo", 4318), "/v1/traces")),
            ("otlp-http://tempo:4318/otlp", otlp_http(to("tempo", 4318), "/otlp")),
        ] {
            assert_eq!(trace_to(text).unwrap().whom, Whom::Other(sink), "{text}");
        }
        assert_eq!(trace_to("none").unwrap().whom, Whom::Nobody);
        assert_eq!(trace_to("store").unwrap().whom, Whom::Store);
        let secure = trace_to("otlp-grpcs://Tempo.example.com:4317").unwrap().whom;
        let Whom::Other(SpanSink::OtlpGrpc(to)) = secure else { panic!("{secure:?}") };
        assert_eq!(to.tls.unwrap().server_name, "tempo.example.com");
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
    fn a_status_of_traces_is_a_word_a_code_or_a_class() {
        for (text, asked) in
            [("failed", "error"), ("error", "error"), ("ok", "ok"), ("503", "503"), ("5XX", "5xx")]
        {
            assert_eq!(status(text).as_deref(), Ok(asked), "{text}");
        }
        for wrong in ["", "none", "9xx", "xx", "99", "600", "500-504"] {
            let error = status(wrong).unwrap_err();
            assert!(error.contains("failed or error, ok, a code"), "{error}");
        }
    }

    #[test]
    fn flags_are_handed_on_as_they_were_given() {
        let args = TraceArgs {
            trace_to: vec![trace_to("zipkin://a:9411").unwrap(), trace_to("store").unwrap()],
            trace_sampling: Some(0.5),
            trace_listen: Some(SocketAddr::from(([127, 0, 0, 1], 4318))),
            access_log: Some("/tmp/a.log".to_owned()),
        };
        let words = [
            "--trace-to",
            "zipkin://a:9411",
            "--trace-to",
            "store",
            "--trace-sampling",
            "0.5",
            "--trace-listen",
            "127.0.0.1:4318",
            "--access-log",
            "/tmp/a.log",
        ];
        assert_eq!(args.words(), words);
        assert_eq!(percent("2.5%"), Ok(2.5));
        assert!(percent("101").is_err() && percent("much").is_err());
    }

    #[test]
    fn spans_go_to_the_meshs_own_store_unless_another_is_named() {
        let store = store_address("127.0.0.1:4318").unwrap();
        let (none, zipkin) = (trace_to("none").unwrap(), trace_to("zipkin://a:9411").unwrap());
        let asked = |to: &[&TraceTo], trace_sampling| {
            let trace_to = to.iter().copied().cloned().collect();
            let args = TraceArgs { trace_to, trace_sampling, ..TraceArgs::default() };
            args.telemetry(Some(&store))
        };
        let own = asked(&[], None);
        assert!(matches!(&own.to[..], [SpanSink::OtlpHttp(to)] if to.to == store));
        assert_eq!((own.sampling, own.at_least), (1.0, 10));
        // A share that is asked for is the share.
        let half = asked(&[], Some(50.0));
        assert_eq!((half.sampling, half.at_least), (50.0, 0));
        let other = asked(&[&zipkin], None);
        assert_eq!((other.to.first(), other.at_least), (zipkin.other(), 0));
        let both = asked(&[&zipkin, &trace_to("store").unwrap()], None);
        assert_eq!((both.to.len(), both.to.first(), both.at_least), (2, own.to.first(), 10));
        assert_eq!(asked(&[&none], None).to, []);
        let check = |trace_to| TraceArgs { trace_to, ..TraceArgs::default() }.check();
        assert_eq!(
            check(vec![none.clone(), none.clone()]).map_err(|failure| failure.message),
            Ok(())
        );
        let message = check(vec![zipkin, none.clone()]).unwrap_err().message;
        assert!(message.contains("`--trace-to zipkin://a:9411`"), "{message}");
        assert_eq!(asked(&[&none], None).store, own.store);
        assert_eq!(TraceArgs::default().telemetry(None).to, []);
        assert!(store_address("a").is_err() && store_address("a:0").is_err());
    }
}
