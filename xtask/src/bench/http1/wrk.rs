//! The load: wrk (Debian) on core 1, and what it printed.

use std::process::Stdio;

use crate::{
    bench::namespaces::inside,
    command::{output, root},
};

/// Connections, all kept alive.
const CONNECTIONS: &str = "-c64";
/// The header the one rule matches.
const HEADER: &str = "x-bench: yes";

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// As much as the proxy carries.
    AllItCarries,
    /// About 10,000 requests a second (`bench/steady.lua`).
    Steady,
    /// As much as it carries, by clients that open a connection per request and say so.
    Reconnecting,
}

/// What a run of wrk gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// Requests answered.
    pub(super) requests: u64,
    /// Per second.
    pub(super) requests_per_second: f64,
    /// 99th percentile, milliseconds.
    pub(super) p99_ms: f64,
    /// Socket errors and answers other than 2xx and 3xx.
    pub(super) errors: u64,
}

/// Does the URL answer with 200?
pub(super) fn answers(namespace: &str, url: &str) -> bool {
    let arguments = ["-s", "-o", "/dev/null", "-f", "-m", "2", "-H", HEADER, url];
    let mut command = inside(namespace, "curl", &arguments);
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Loads the URL for `seconds`.
pub(super) fn run(
    namespace: &str,
    url: &str,
    seconds: u64,
    offered: Offered,
) -> Result<Load, String> {
    let duration = format!("-d{seconds}s");
    let arguments = ["-c", "1", "wrk", "-t1", CONNECTIONS, &duration, "--latency", "-H", HEADER];
    let mut command = inside(namespace, "taskset", &arguments);
    match offered {
        Offered::AllItCarries => &mut command,
        Offered::Steady => command.arg("-s").arg(root().join("bench/steady.lua")),
        Offered::Reconnecting => command.args(["-H", "connection: close"]),
    };
    parse(&output(command.arg(url))?)
}

fn parse(text: &str) -> Result<Load, String> {
    let missing = |what: &str| format!("wrk printed no {what}:\n{text}");
    let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label));
    let total = text.lines().find_map(|line| line.trim().split_once(" requests in "));
    let requests = total.and_then(|(n, _)| n.parse().ok()).ok_or_else(|| missing("requests"))?;
    let rate = after("Requests/sec:").and_then(|n| n.trim().parse().ok());
    let p99 = after("99%").and_then(|time| milliseconds(time.trim()));
    let sockets = after("Socket errors:")
        .map_or(0, |line| line.split([',', ' ']).filter_map(|word| word.parse::<u64>().ok()).sum());
    let status = after("Non-2xx or 3xx responses:").map_or(0, |n| n.trim().parse().unwrap_or(1));
    Ok(Load {
        requests,
        requests_per_second: rate.ok_or_else(|| missing("rate"))?,
        p99_ms: p99.ok_or_else(|| missing("latency"))?,
        errors: sockets + status,
    })
}

fn milliseconds(time: &str) -> Option<f64> {
    let (number, factor) = if let Some(number) = time.strip_suffix("us") {
        (number, 1e-3)
    } else if let Some(number) = time.strip_suffix("ms") {
        (number, 1.0)
    } else {
        (time.strip_suffix('s')?, 1e3)
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_read_from_what_wrk_prints() {
        let text = "  Latency Distribution\n     50%    1.17ms\n     99%    3.25ms\n  \
                    61234 requests in 2.00s, 70MB read\n  \
                    Socket errors: connect 0, read 2, write 0, timeout 1\n  \
                    Non-2xx or 3xx responses: 4\nRequests/sec:  30617.00\nTransfer/sec: 35MB\n";
        let load = parse(text).unwrap();
        let wanted =
            Load { requests: 61234, requests_per_second: 30617.0, p99_ms: 3.25, errors: 7 };
        assert_eq!(load, wanted);
    }
}
