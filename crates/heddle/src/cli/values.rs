//! Values of flags: text in, checked type out, with an error that says what would be right.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use heddle_model::{
    Protocol,
    discovery::GRPC_STATUSES,
    name::{check_label, check_port_name},
    yaml::did_you_mean,
};
use heddle_wire::local::{
    app_probes::{HttpGet, Scheme},
    holder_api::Publish,
    proxy_config::taken_port,
};

use crate::demo::apps::{RATE_MAX, RATE_MIN};

/// Longest duration a flag takes.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Least memory a flag takes: an idle sidecar has about 1.5 MB of its own.
const MEMORY_MIN: u64 = 4 << 20;
/// Shortest interval a flag takes.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Shortest time to look back over.
const WINDOW_MIN: Duration = Duration::from_secs(1);

/// `--port [NAME:]NUMBER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortFlag {
    /// Name; empty if not given.
    pub name: String,
    /// Number.
    pub number: u16,
}

/// `--label KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabelFlag {
    /// Key.
    pub key: String,
    /// Value; may be empty.
    pub value: String,
}

/// A DNS label: service, namespace, mesh.
pub(crate) fn label(text: &str) -> Result<String, String> {
    check_label(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// The name of a container image.
pub(crate) fn image(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    let begins = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if begins && text.len() <= 512 && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is no name of an image: use [REGISTRY/]NAME[:TAG][@DIGEST]"))
}

/// A DNS domain.
pub(crate) fn domain(text: &str) -> Result<String, String> {
    if text.len() <= 253 && text.split('.').all(|part| check_label(part).is_ok()) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is no domain: use labels of a-z, 0-9 and `-` with dots between them"))
}

/// A quantity as Kubernetes writes it.
pub(crate) fn quantity(text: &str) -> Result<String, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &text[digits.len()..];
    let is_suffix = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"].contains(&suffix);
    if is_suffix && digits.parse::<f64>().is_ok_and(|n| n.is_finite() && n > 0.0) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is no quantity: use a number with m, k, M, G, Ki, Mi or Gi, e.g. 500m or 128Mi"
    ))
}

/// A protocol word.
pub(crate) fn protocol(text: &str) -> Result<Protocol, String> {
    text.parse::<Protocol>().map_err(|error| error.to_string())
}

/// The value of a label or a version: what Kubernetes accepts.
pub(crate) fn label_value(text: &str) -> Result<String, String> {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let inner = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if text.len() <= 63 && inner && edge(text.chars().next()) && edge(text.chars().last()) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is no label value: use at most 63 of A-Z, a-z, 0-9, `-`, `_` and `.`, beginning and ending with a letter or digit"
    ))
}

/// `KEY=VALUE`.
pub(crate) fn label_flag(text: &str) -> Result<LabelFlag, String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` has no `=`: use KEY=VALUE, e.g. tier=gold"))?;
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            if prefix.len() > 253 || prefix.split('.').any(|part| check_label(part).is_err()) {
                return Err(format!("`{prefix}` before the `/` of a label's key is no DNS name"));
            }
            name
        }
        None => key,
    };
    if name.is_empty() || label_value(name).is_err() {
        return Err(format!(
            "`{key}` is no label key: use at most 63 of A-Z, a-z, 0-9, `-`, `_` and `.`, beginning and ending with a letter or digit"
        ));
    }
    if matches!(key, "app" | "version") {
        let flag = if key == "app" { "--service" } else { "--version" };
        return Err(format!("the label `{key}` is set by {flag}"));
    }
    Ok(LabelFlag { key: key.to_owned(), value: label_value(value)? })
}

/// `--abort STATUS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AbortFlag {
    /// An HTTP status.
    Http(u16),
    /// A status of gRPC, by name.
    Grpc(String),
}

/// `--tcp FAULT`, as the field that asks for it and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TcpFlag {
    pub field: &'static str,
    pub value: String,
}

/// `--header NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeaderFlag {
    pub name: String,
    pub value: String,
}

/// A share in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share(pub f64);

/// `503` or `UNAVAILABLE`.
pub(crate) fn abort(text: &str) -> Result<AbortFlag, String> {
    if let Ok(status) = text.parse::<u16>() {
        return match status {
            200..=599 => Ok(AbortFlag::Http(status)),
            _ => Err(format!("{status} is no status to answer with: use 200 to 599")),
        };
    }
    let name = text.to_ascii_uppercase();
    if GRPC_STATUSES.contains(&name.as_str()) {
        return Ok(AbortFlag::Grpc(name));
    }
    let meant = did_you_mean(&name, &GRPC_STATUSES);
    let hint = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
    Err(format!("`{text}` is neither an HTTP status nor a status of gRPC{hint}"))
}

/// `refuse`, `blackhole`, `resetAfterBytes=N` or `bytesPerSecond=N`.
pub(crate) fn tcp_fault(text: &str) -> Result<TcpFlag, String> {
    let wrong = || {
        format!(
            "`{text}` is no fault of connections: use refuse, blackhole, resetAfterBytes=N or bytesPerSecond=N"
        )
    };
    let (name, bytes) = match text.split_once('=') {
        Some((name, bytes)) => (name, Some(bytes)),
        None => (text, None),
    };
    let number = || {
        let bytes =
            bytes.ok_or_else(|| format!("`{name}` needs a number of bytes: {name}=1000"))?;
        let known = bytes.parse::<i64>().is_ok_and(|bytes| bytes > 0);
        if known { Ok(bytes.to_owned()) } else { Err(format!("`{bytes}` is no number of bytes")) }
    };
    let flag = |field, value| Ok(TcpFlag { field, value });
    match name {
        "refuse" if bytes.is_none() => flag("refuse", "true".to_owned()),
        "blackhole" if bytes.is_none() => flag("blackhole", "true".to_owned()),
        "resetAfterBytes" => flag("resetAfterBytes", number()?),
        "bytesPerSecond" => flag("bytesPerSecond", number()?),
        _ => Err(wrong()),
    }
}

/// A share in percent, more than none.
pub(crate) fn share(text: &str) -> Result<Share, String> {
    let share = text.trim_end_matches('%').parse::<f64>().ok();
    let share = share.filter(|share| (0.0001..=100.0).contains(share));
    share.map(Share).ok_or_else(|| format!("`{text}` is no share: use 0.0001 to 100, in percent"))
}

/// `NAME=VALUE`.
pub(crate) fn header(text: &str) -> Result<HeaderFlag, String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = parts.ok_or_else(|| {
        format!("`{text}` is no header with its value: use NAME=VALUE, e.g. x-user=test")
    })?;
    Ok(HeaderFlag { name: name.to_ascii_lowercase(), value: value.to_owned() })
}

/// `v2=99`.
pub(crate) fn version_share(text: &str) -> Result<(String, u32), String> {
    let wrong = || format!("`{text}` is no share of a version: use VERSION=PERCENT, e.g. v2=99");
    let (version, percent) = text.split_once('=').ok_or_else(wrong)?;
    let percent = percent.trim_end_matches('%').parse::<u32>().map_err(|_| wrong())?;
    if version.is_empty() || percent > 100 {
        return Err(wrong());
    }
    Ok((label_value(version)?, percent))
}

/// A port number of the application: not 0, and none that the sidecar captures or owns.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    let number = text
        .parse::<u16>()
        .ok()
        .filter(|number| *number != 0)
        .ok_or_else(|| format!("`{text}` is no port: use a number from 1 to 65535"))?;
    if let Some(whose) = taken_port(number) {
        return Err(format!(
            "port {number} is {whose}; 53 and 15000 to 15090 belong to the sidecar in every workload, let the application use another one"
        ));
    }
    Ok(number)
}

/// `[NAME:]NUMBER`.
pub(crate) fn port_flag(text: &str) -> Result<PortFlag, String> {
    let (name, number) = text.split_once(':').unwrap_or(("", text));
    if text.contains(':') && name.parse::<u16>().is_ok() {
        return Err(format!(
            "`{name}` is no port name, which needs a letter: use --port {number} for the program's own port, and --publish {text} as well to let the host in at {name}"
        ));
    }
    if text.contains(':')
        && let Err(error) = check_port_name(name)
    {
        return Err(format!("{error}, as in http-web:8080"));
    }
    Ok(PortFlag { name: name.to_owned(), number: port(number)? })
}

/// `[ADDR:]HOSTPORT:PORT`; without an address only the host's own loopback is let in.
pub(crate) fn publish(text: &str) -> Result<Publish, String> {
    let usage = || {
        format!(
            "`{text}` cannot be published: use [ADDR:]HOSTPORT:PORT, e.g. 8080:80, 8080-8089:80 for the first free one or 0.0.0.0:8080:80 (an IPv6 address in brackets)"
        )
    };
    let (host, port_text) = text.rsplit_once(':').ok_or_else(usage)?;
    let (address, host_port) = match host.rsplit_once(':') {
        Some((address, host_port)) => {
            let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
            (bare.unwrap_or(address).parse::<IpAddr>().map_err(|_| usage())?, host_port)
        }
        None => (IpAddr::V4(Ipv4Addr::LOCALHOST), host),
    };
    let (first, last) = host_port.split_once('-').unwrap_or((host_port, host_port));
    let number = |text: &str| text.parse::<u16>().map_err(|_| usage());
    let (first, host_port_max) = (number(first)?, number(last)?);
    if first > host_port_max || (first == 0 && host_port_max != 0) {
        return Err(usage());
    }
    let host = SocketAddr::new(address, first);
    Ok(Publish { host, host_port_max, port: port(port_text)? })
}

/// `500ms`, `10s`, `2m`, `1h`; a bare number counts seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: use e.g. 500ms, 10s, 2m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * factor;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    if duration > DURATION_MAX { Err(wrong()) } else { Ok(duration) }
}

/// Where a program shows its metrics: `9100` or `9100/actuator/prometheus`.
pub(crate) fn app_metrics(text: &str) -> Result<HttpGet, String> {
    let (number, path) = match text.find('/') {
        Some(at) => text.split_at(at),
        None => (text, "/metrics"),
    };
    let number = port(number)
        .map_err(|error| format!("{error}; say where metrics are as 9100 or 9100/path"))?;
    if path.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err(format!(
            "`{path}` is no path: use letters, digits and signs of a URL, no space"
        ));
    }
    let (path, http_headers) = (path.to_owned(), Vec::new());
    Ok(HttpGet { path, port: number, scheme: Scheme::default(), http_headers })
}

/// Bytes of memory for a sidecar, as Kubernetes writes them: `64Mi`, `128M`, `1Gi`.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size of memory: use e.g. 64Mi, 128M or 1Gi");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1,
        "k" => 1_000,
        "Ki" => 1 << 10,
        "M" => 1_000_000,
        "Mi" => 1 << 20,
        "G" => 1_000_000_000,
        "Gi" => 1_u64 << 30,
        _ => return Err(wrong()),
    };
    let number = number.parse::<u64>().map_err(|_| wrong())?;
    let bytes = number.checked_mul(factor).ok_or_else(wrong)?;
    if bytes < MEMORY_MIN {
        return Err(format!(
            "`{text}` is too little for a sidecar: use {}Mi or more",
            MEMORY_MIN >> 20
        ));
    }
    Ok(bytes)
}

/// Time between two looks: a duration that leaves others some time too.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < INTERVAL_MIN {
        return Err(format!("`{text}` is too often: use {} ms or more", INTERVAL_MIN.as_millis()));
    }
    Ok(interval)
}

/// A time to look back over: whole seconds are counted.
pub(crate) fn window(text: &str) -> Result<Duration, String> {
    let window = duration(text)?;
    if window < WINDOW_MIN {
        return Err(format!("`{text}` is too short: use {} s or more", WINDOW_MIN.as_secs()));
    }
    Ok(window)
}

/// Calls per second that the demo's load generator can make.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    // Not a number is in no range.
    let rate = text.parse().ok().filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate));
    rate.ok_or_else(|| format!("`{text}` is no rate: use a number from {RATE_MIN} to {RATE_MAX}"))
}

/// An address to listen on, `ADDR:PORT`.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no address to listen on: use ADDR:PORT, e.g. 127.0.0.1:15080")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_carry_a_name() {
        assert_eq!(port_flag("80"), Ok(PortFlag { name: String::new(), number: 80 }));
        assert_eq!(
            port_flag("http-web:8080"),
            Ok(PortFlag { name: "http-web".to_owned(), number: 8080 })
        );
        for wrong in
            ["", "0", "65536", ":80", "Web:80", "80:web", "15001", "x:15090", "53", "dns:53"]
        {
            assert!(port_flag(wrong).is_err(), "{wrong}");
        }
        let published = port_flag("8000:80").unwrap_err();
        assert!(published.contains("--port 80 ") && published.contains("--publish 8000:80"));
    }

    #[test]
    fn memory_is_written_as_in_kubernetes() {
        assert_eq!(memory("64Mi"), Ok(64 << 20));
        assert_eq!(memory("128M"), Ok(128_000_000));
        assert_eq!(memory("1Gi"), Ok(1 << 30));
        assert_eq!(memory("8388608"), Ok(8 << 20));
        for wrong in ["", "Mi", "64MB", "-1Gi", "1.5Gi", "99999999999Gi", "64 Mi", "100k", "0"] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn publishing_stays_on_the_loopback_unless_an_address_is_named() {
        let at = |text: &str| publish(text).map(|p| (p.host.to_string(), p.port));
        assert_eq!(at("8080:80"), Ok(("127.0.0.1:8080".to_owned(), 80)));
        assert_eq!(at("0:80"), Ok(("127.0.0.1:0".to_owned(), 80)));
        assert_eq!(at("0.0.0.0:8080:80"), Ok(("0.0.0.0:8080".to_owned(), 80)));
        assert_eq!(at("[::1]:8080:80"), Ok(("[::1]:8080".to_owned(), 80)));
        for wrong in
            ["80", "x:80", "8080:0", "host:8080:80", "8080:15001", ":::", "90-80:80", "0-9:80"]
        {
            assert!(publish(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_published_prints_as_it_was_typed() {
        for text in ["127.0.0.1:8080:80", "127.0.0.1:8080-8099:80", "[::1]:0:80"] {
            assert_eq!(publish(text).map(|published| published.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
        for wrong in ["", "s", "-1s", "5x", "1e99h", "9999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_a_number_the_load_generator_can_keep() {
        assert_eq!([rate("0.1"), rate("20"), rate("2000")], [Ok(0.1), Ok(20.0), Ok(2000.0)]);
        for wrong in ["nan", "NaN", "inf", "-inf", "0", "-1", "2001", "1e-300", "many", ""] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_interval_of_nothing_is_refused() {
        assert_eq!(interval("1s"), Ok(Duration::from_secs(1)));
        for wrong in ["0", "0s", "0.001ms", "never"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_window_of_less_than_a_second_is_too_short() {
        assert_eq!(window("1s"), Ok(Duration::from_secs(1)));
        for wrong in ["0", "0s", "999ms"] {
            assert!(window(wrong).is_err_and(|said| said.contains("too short")), "{wrong}");
        }
    }

    #[test]
    fn labels_are_those_of_kubernetes_and_two_belong_to_flags() {
        assert!(label_flag("tier=gold").is_ok());
        assert!(label_flag("example.com/tier=").is_ok());
        for wrong in ["tier", "=x", "tier=a b", "-x=1", "UP_.x/tier=1", "app=x", "version=v1"] {
            assert!(label_flag(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn where_a_program_shows_its_metrics_is_a_port_with_or_without_a_path() {
        let read = |text: &str| app_metrics(text).map(|get| (get.port, get.path));
        assert_eq!(read("9100"), Ok((9100, "/metrics".to_owned())));
        assert_eq!(read("9100/own?all=1"), Ok((9100, "/own?all=1".to_owned())));
        for wrong in ["/metrics", "0", "x/metrics", "9100/a b", "15020", "9100/a#b"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read("/metrics").unwrap_err().contains("9100/path"));
    }
}
