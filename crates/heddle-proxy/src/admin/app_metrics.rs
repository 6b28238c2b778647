//! The application's own metrics, shown behind the sidecar's on 15020: injection has sent the scraper here, which
//! would otherwise see one of the two only.
//!
//! They are passed on line by line while they come. Whatever the application does, the sidecar's own metrics are whole
//! and the page is one that a scraper can read: what is no line of the format ends it, and an unfinished line is left
//! out. How each scrape of the application went is counted.

use std::{sync::Arc, time::Duration};

use heddle_runtime::{clock, task::spawn_contained};
use heddle_wire::local::app_probes::HttpGet;
use http_body_util::BodyExt as _;
use hyper::{
    HeaderMap, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, HeaderValue},
};
use tokio::sync::mpsc;

use super::app_probes;
use crate::{Shared, metrics::AppScrape};

/// Longest wait for the application where the scraper does not say how long it waits itself.
const WAIT: Duration = Duration::from_secs(5);
/// Longest wait at all.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// What of the scraper's own limit the application may take.
const SHARE: f64 = 0.8;
/// Where Prometheus says its limit, in seconds.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";
/// Bytes of metrics that are passed on at most.
const BYTES_MAX: usize = 16 << 20;
/// Longest line.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Pieces between the application and a scraper that is slow.
const PIECES_MAX: usize = 2;

/// Begins to ask; what comes is to be shown in turn, and is whole lines of the format.
pub(super) fn begin(
    shared: &Arc<Shared>,
    get: &HttpGet,
    asked: &HeaderMap,
) -> mpsc::Receiver<Bytes> {
    let (to, from) = mpsc::channel(PIECES_MAX);
    let (shared, get, limit) = (Arc::clone(shared), get.clone(), limit(asked));
    spawn_contained("application's metrics", async move {
        let passed = clock::within(limit, pass(&shared, &get, &to)).await;
        let result = passed.unwrap_or(AppScrape::Timeout);
        if result != AppScrape::Merged {
            tracing::debug!(port = get.port, path = get.path, ?result, "the application's metrics");
        }
        shared.metrics.app_scraped(result);
    });
    from
}

/// How long the application may take.
fn limit(asked: &HeaderMap) -> Duration {
    let said = asked.get(SCRAPE_TIMEOUT).and_then(|value| value.to_str().ok());
    let seconds = said.and_then(|text| text.parse::<f64>().ok()).filter(|seconds| *seconds > 0.0);
    let share = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds * SHARE).ok());
    share.unwrap_or(WAIT).min(WAIT_MAX)
}

async fn pass(shared: &Shared, get: &HttpGet, to: &mpsc::Sender<Bytes>) -> AppScrape {
    let accept = [(ACCEPT, HeaderValue::from_static("text/plain;version=0.0.4"))];
    let Ok((status, body)) = app_probes::fetch(shared, get, accept).await else {
        return AppScrape::Unreachable;
    };
    if status != StatusCode::OK {
        return AppScrape::Status;
    }
    lines(body, to).await
}

/// Passes a body on, in whole lines.
async fn lines(mut body: Incoming, to: &mpsc::Sender<Bytes>) -> AppScrape {
    let mut held = Vec::new();
    let mut passed = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return AppScrape::Unreachable };
        let Ok(data) = frame.into_data() else { continue };
        held.extend_from_slice(&data);
        let (whole, fault) = whole_lines(&mut held);
        if passed + whole.len() > BYTES_MAX {
            return AppScrape::TooLarge;
        }
        passed += whole.len();
        // A scraper that has gone is no fault of the application's.
        if !whole.is_empty() && to.send(whole.into()).await.is_err() {
            return AppScrape::Merged;
        }
        if let Some(fault) = fault {
            return fault;
        }
    }
    // The last line may lack its end.
    if !held.is_empty() {
        held.push(b'\n');
        let (whole, fault) = whole_lines(&mut held);
        drop(to.send(whole.into()).await);
        return fault.unwrap_or(AppScrape::Merged);
    }
    AppScrape::Merged
}

/// Takes the whole lines out, up to one that is none of the format's, and says what is wrong with that.
fn whole_lines(held: &mut Vec<u8>) -> (Vec<u8>, Option<AppScrape>) {
    let end = held.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut whole: Vec<u8> = held.drain(..end).collect();
    let mut good = 0;
    for line in whole.split_inclusive(|byte| *byte == b'\n') {
        if !is_of_the_format(line) {
            whole.truncate(good);
            return (whole, Some(AppScrape::Malformed));
        }
        good += line.len();
    }
    let fault = (held.len() > LINE_BYTES_MAX).then_some(AppScrape::Malformed);
    (whole, fault)
}

/// Is it a comment, nothing, or a sample: a name, labels or not, and a number? What else is wrong with a sample is
/// between the application and its scraper.
fn is_of_the_format(line: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(line) else { return false };
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return true;
    }
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':' || c == '{';
    let behind = match line.rsplit_once('}') {
        Some((labels, behind)) if labels.contains('{') => behind,
        Some(_) => return false,
        None => line.split_once([' ', '\t']).map_or("", |(_, behind)| behind),
    };
    let value = behind.split_whitespace().next().unwrap_or_default();
    line.starts_with(starts) && value.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_and_comments_are_of_the_format_and_pages_for_people_are_not() {
        for right in [
            "# HELP a b",
            "",
            "a 1",
            "a{b=\"c\"} 2.5e3 1700000000000",
            "a_bucket{le=\"+Inf\"} +Inf",
            "a:b NaN",
            "x{p=\"a } b\"} 1",
            "\r",
        ] {
            assert!(is_of_the_format(right.as_bytes()), "{right}");
        }
        for wrong in ["<html>", "a", "a b", "404 page not found", "a{b=\"c\"", "{\"a\": 1}", "a}"] {
            assert!(!is_of_the_format(wrong.as_bytes()), "{wrong}");
        }
        assert!(!is_of_the_format(b"a\xff 1"));
    }

    #[test]
    fn lines_are_whole_whatever_pieces_they_come_in() {
        let mut held = b"a 1\nb".to_vec();
        assert_eq!(whole_lines(&mut held), (b"a 1\n".to_vec(), None));
        held.extend_from_slice(b" 2\n<html>\nc 3\n");
        assert_eq!(whole_lines(&mut held), (b"b 2\n".to_vec(), Some(AppScrape::Malformed)));
        let mut long = vec![b'a'; LINE_BYTES_MAX + 1];
        assert_eq!(whole_lines(&mut long), (Vec::new(), Some(AppScrape::Malformed)));
    }

    #[test]
    fn the_application_gets_a_share_of_the_scrapers_time() {
        let limit_of = |text: &str| {
            let value = HeaderValue::from_str(text).unwrap();
            limit(&HeaderMap::from_iter([(SCRAPE_TIMEOUT.parse().unwrap(), value)]))
        };
        assert_eq!(limit(&HeaderMap::new()), WAIT);
        assert_eq!(limit_of("10"), Duration::from_secs(8));
        assert_eq!(limit_of("3600"), WAIT_MAX);
        for wrong in ["-1", "x", "NaN", "0"] {
            assert_eq!(limit_of(wrong), WAIT, "{wrong}");
        }
    }
}
