//! What the bench found, as a table or JSON.

use serde_json::{Value, json};

use super::{
    row::{Row, path},
    sample::Sample,
    targets::{Ratio, ratios},
};
use crate::bench::statistics::spread;

/// Prints rows, ratios and what was missing.
pub(super) fn print(rows: &[Row], missing: &[String], as_json: bool) {
    let ratios = ratios(rows);
    if as_json {
        let rows: Vec<Value> = rows.iter().map(object).collect();
        let ratios: Vec<Value> = ratios.iter().map(Ratio::json).collect();
        let all = json!({ "bench": "http1", "rows": rows, "ratios": ratios, "missing": missing });
        println!("{all:#}");
        return;
    }
    println!(
        "HTTP/1.1, kept alive unless told otherwise, 1 KB, 64 connections, one core; medians (min–max over rounds)"
    );
    for row in rows {
        println!("{}", line(row));
    }
    println!("\nratios round by round; medians (min–max)");
    for ratio in ratios {
        println!("{}", ratio.line());
    }
    for what in missing {
        println!("missing: {what}");
    }
}

fn line(Row { proxy, outbound, samples }: &Row) -> String {
    let column = |value: fn(&Sample) -> f64| {
        let (median, least, most) = spread(&samples.iter().map(value).collect::<Vec<_>>());
        format!("{median:>8.1} ({least:.1}–{most:.1})")
    };
    format!(
        "{:12} {:8} CPU µs/request {} (user {}) | requests/s {} | p99 ms {} | RSS MB idle {} loaded {} | \
         at 10,000/s: CPU µs/request {} p99 ms {} | a connection per request: CPU µs/request {}",
        proxy.name(),
        path(*outbound),
        column(|s| s.cpu_us_per_request),
        column(|s| s.user_us_per_request),
        column(|s| s.requests_per_second),
        column(|s| s.p99_ms),
        column(|s| s.rss_mb),
        column(|s| s.rss_loaded_mb),
        column(|s| s.steady_cpu_us_per_request),
        column(|s| s.steady_p99_ms),
        column(|s| s.reconnecting_cpu_us_per_request)
    )
}

fn object(Row { proxy, outbound, samples }: &Row) -> Value {
    let of = |value: fn(&Sample) -> f64| spread(&samples.iter().map(value).collect::<Vec<_>>());
    let (cpu, cpu_min, cpu_max) = of(|s| s.cpu_us_per_request);
    let (rate, rate_min, rate_max) = of(|s| s.requests_per_second);
    let (p99, p99_min, p99_max) = of(|s| s.p99_ms);
    let (steady, steady_min, steady_max) = of(|s| s.steady_cpu_us_per_request);
    json!({
        "proxy": proxy.name(), "path": path(*outbound), "rounds": samples.len(), "errors": 0,
        "cpu_us_per_request": cpu, "cpu_us_per_request_range": [cpu_min, cpu_max],
        "user_us_per_request": of(|s| s.user_us_per_request).0,
        "requests_per_second": rate, "requests_per_second_range": [rate_min, rate_max],
        "p99_ms": p99, "p99_ms_range": [p99_min, p99_max],
        "rss_mb": of(|s| s.rss_mb).0, "rss_loaded_mb": of(|s| s.rss_loaded_mb).0,
        "steady_cpu_us_per_request": steady, "steady_cpu_us_per_request_range": [steady_min, steady_max],
        "steady_p99_ms": of(|s| s.steady_p99_ms).0,
        "reconnecting_cpu_us_per_request": of(|s| s.reconnecting_cpu_us_per_request).0,
    })
}
