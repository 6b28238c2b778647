//! The load: h2load (nghttp2) on core 1, and what it printed.

use std::process::Stdio;

use crate::{
    bench::namespaces::inside,
    command::{output, root},
};

/// The header the one rule matches.
const HEADER: &str = "x-bench: yes";

/// How the load is spread over connections.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    connections: u32,
    streams: u32,
    /// Calls of gRPC: POST with a message, answered with a message and trailers.
    grpc: bool,
    /// At most this ratio to Envoy's cost; `None`: told without a bound.
    pub(super) limit: Option<f64>,
}

const fn shape(
    name: &'static str,
    (connections, streams): (u32, u32),
    grpc: bool,
    limit: Option<f64>,
) -> Shape {
    Shape { name, connections, streams, grpc, limit }
}

/// All of them.
pub(super) const SHAPES: [Shape; 5] = [
    shape("16x16", (16, 16), false, Some(0.4)),
    shape("gRPC 16x16", (16, 16), true, Some(0.4)),
    shape("1x100", (1, 100), false, None),
    shape("64x1", (64, 1), false, None),
    shape("gRPC 64x1", (64, 1), true, None),
];

/// What a run of h2load gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// Requests answered.
    pub(super) requests: u64,
    /// Those that were not, and answers other than 2xx.
    pub(super) failed: u64,
}

/// Does the URL answer with 200?
pub(super) fn answers(namespace: &str, url: &str) -> bool {
    let flags = ["-s", "-o", "/dev/null", "-f", "-m", "2", "--http2-prior-knowledge"];
    let mut command = inside(namespace, "curl", &flags);
    command.args(["-H", HEADER, url]);
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Loads the URL for `seconds`.
pub(super) fn run(namespace: &str, url: &str, seconds: u64, shape: &Shape) -> Result<Load, String> {
    let (connections, streams) = (shape.connections.to_string(), shape.streams.to_string());
    let duration = seconds.to_string();
    let words = ["-c", "1", "h2load", "-t1", "-D", &duration, "-c", &connections, "-m", &streams];
    let mut command = inside(namespace, "taskset", &words);
    command.args(["-H", HEADER]);
    if shape.grpc {
        command.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"]);
        command.arg(root().join("bench/message.bin"));
    }
    parse(&output(command.arg(url))?)
}

fn parse(text: &str) -> Result<Load, String> {
    let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label));
    let counts = |line: &str| -> Vec<u64> {
        line.split([',', ' ']).filter_map(|word| word.parse().ok()).collect()
    };
    let missing = |what: &str| format!("h2load printed no {what}:\n{text}");
    // total, started, done, succeeded, failed, errored, timeout: those begun when time is up are not done.
    let requests = after("requests:").map(counts).ok_or_else(|| missing("requests"))?;
    let statuses = after("status codes:").ok_or_else(|| missing("status codes"))?;
    let other = statuses.split(',').filter(|part| !part.contains("2xx"));
    let other: u64 = other.flat_map(counts).sum();
    match requests.as_slice() {
        [_, _, done, succeeded, failed, ..] if *succeeded > 0 => {
            Ok(Load { requests: *done, failed: *failed + other })
        }
        _ => Err(missing("answered requests")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_read_from_what_h2load_prints() {
        let text = "finished in 2.00s, 41234.50 req/s, 44.12MB/s\n\
                    requests: 82469 total, 82725 started, 82469 done, 82468 succeeded, 1 failed, 1 errored, 0 timeout\n\
                    status codes: 82468 2xx, 0 3xx, 0 4xx, 2 5xx\n";
        assert_eq!(parse(text).unwrap(), Load { requests: 82469, failed: 3 });
        assert!(parse("requests: 0 total\nstatus codes: 0 2xx").is_err());
    }
}
