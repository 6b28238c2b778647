//! What may be asked of the store of traces, as a query of a URL says it, and which traces that means.

use std::time::Duration;

use heddle_wire::percent::decode_form;

use super::{Entry, Fact, Traces, facts::Status};
use crate::limits;

/// A question. What is `None` is not asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    /// `NAME` or `NAME.NAMESPACE`.
    service: Option<String>,
    status: Option<StatusAsked>,
    /// What a path begins with.
    path: Option<String>,
    /// Microseconds.
    longer: Option<u64>,
    shorter: Option<u64>,
    /// Microseconds since 1970.
    since: Option<u64>,
    before: Option<u64>,
    pub(super) limit: usize,
    /// Spans too, or only what is known of the whole.
    pub(super) spans: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StatusAsked {
    Error,
    Well,
    /// `5xx`.
    Hundred(u16),
    Code(u16),
}

/// Traces of an answer where nothing is said.
const LIMIT: usize = 50;

impl Default for Asked {
    fn default() -> Self {
        Self {
            service: None,
            status: None,
            path: None,
            longer: None,
            shorter: None,
            since: None,
            before: None,
            limit: LIMIT,
            spans: true,
        }
    }
}

impl Asked {
    /// Reads a query. `now` is since 1970.
    ///
    /// # Errors
    /// What is wrong and what to do.
    pub(crate) fn read(query: &str, now: Duration) -> Result<Self, String> {
        let mut asked = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value =
                decode_form(value).ok_or_else(|| format!("{name} is not well percent-encoded"))?;
            // A form that was not filled in.
            if !value.is_empty() {
                asked.put(name, value, now)?;
            }
        }
        Ok(asked)
    }

    fn put(&mut self, name: &str, value: String, now: Duration) -> Result<(), String> {
        let wrong = |form: &str| Err(format!("{name} is {form}, not `{value}`"));
        match name {
            "service" => self.service = Some(value),
            "path" => self.path = Some(value),
            "status" => match status(&value) {
                Some(status) => self.status = Some(status),
                None => return wrong("error, ok, a code as 503 or a class as 5xx"),
            },
            "longer_than" | "shorter_than" => match length(&value) {
                Some(micros) if name == "longer_than" => self.longer = Some(micros),
                Some(micros) => self.shorter = Some(micros),
                None => return wrong("a time as 200ms, 1.5s or 2m"),
            },
            "since" | "before" => match moment(&value, now) {
                Some(micros) if name == "since" => self.since = Some(micros),
                Some(micros) => self.before = Some(micros),
                None => return wrong("a Unix time in seconds, or how long ago as 15m or 2h"),
            },
            "spans" => match value.as_str() {
                "yes" | "no" => self.spans = value == "yes",
                _ => return wrong("yes or no"),
            },
            "limit" => match value.parse() {
                Ok(limit) if (1..=limits::TRACES_TOLD_MAX).contains(&limit) => self.limit = limit,
                _ => return wrong(&format!("1 to {}", limits::TRACES_TOLD_MAX)),
            },
            _ => {
                return Err(format!(
                    "unknown parameter `{name}`; there are service, status, path, longer_than, shorter_than, since, before, limit and spans"
                ));
            }
        }
        Ok(())
    }

    fn means(&self, entry: &Entry) -> bool {
        let summary = &entry.summary;
        let in_time = self.since.is_none_or(|since| summary.start >= since)
            && self.before.is_none_or(|before| summary.start < before);
        if !in_time || summary.facts.is_empty() {
            return false;
        }
        let fits = |duration: u64| {
            self.longer.is_none_or(|longer| duration > longer)
                && self.shorter.is_none_or(|shorter| duration < shorter)
        };
        if self.service.is_none() && !fits(summary.duration) {
            return false;
        }
        if self.service.is_none() && self.status == Some(StatusAsked::Well) && summary.errors > 0 {
            return false;
        }
        let nothing = self.service.is_none() && self.status.is_none() && self.path.is_none();
        nothing
            || summary
                .facts
                .iter()
                .any(|fact| self.is_of(fact) && (self.service.is_none() || fits(fact.duration)))
    }

    fn is_of(&self, fact: &Fact) -> bool {
        self.service.as_ref().is_none_or(|service| is_called(&fact.service, service))
            && self.status.is_none_or(|status| status.is(fact.status))
            && self.path.as_ref().is_none_or(|path| fact.path.starts_with(path.as_str()))
    }
}

impl Traces {
    /// The ids of those that are meant, the newest first, and whether others are too.
    pub(super) fn found(&mut self, asked: &Asked) -> (Vec<u128>, bool) {
        self.refresh();
        let all = self.all.iter().filter(|(_, entry)| asked.means(entry));
        let mut found: Vec<_> = all.map(|(trace, entry)| (entry.summary.start, *trace)).collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        let more = found.len() > asked.limit;
        found.truncate(asked.limit);
        (found.into_iter().map(|(_, trace)| trace).collect(), more)
    }
}

/// `reviews` means `reviews.shop` too.
fn is_called(service: &str, asked: &str) -> bool {
    service.strip_prefix(asked).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl StatusAsked {
    fn is(self, status: Status) -> bool {
        match self {
            Self::Error => status.failed,
            Self::Well => !status.failed,
            Self::Hundred(hundred) => status.http / 100 == hundred,
            Self::Code(code) => status.http == code,
        }
    }
}

fn status(text: &str) -> Option<StatusAsked> {
    let hundred = |text: &str| text.parse().ok().filter(|hundred| (1..=5).contains(hundred));
    match text {
        "error" => Some(StatusAsked::Error),
        "ok" => Some(StatusAsked::Well),
        _ => match text.strip_suffix("xx") {
            Some(first) => hundred(first).map(StatusAsked::Hundred),
            None => {
                let code = text.parse().ok().filter(|code| (100..600).contains(code));
                code.map(StatusAsked::Code)
            }
        },
    }
}

/// Microseconds of `200ms`, `1.5s`.
fn length(text: &str) -> Option<u64> {
    let at = text.find(|one: char| !one.is_ascii_digit() && one != '.')?;
    let (number, unit) = text.split_at(at);
    let micros = match unit {
        "us" | "µs" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        "h" => 3_600e6,
        "d" => 86_400e6,
        _ => return None,
    };
    number.parse::<f64>().ok().filter(|number| number.is_finite()).map(|n| (n * micros) as u64)
}

/// Microseconds since 1970 of a Unix time in seconds, or of how long ago it is.
fn moment(text: &str, now: Duration) -> Option<u64> {
    let now = u64::try_from(now.as_micros()).ok()?;
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => Some((seconds * 1e6) as u64),
        Ok(_) => None,
        Err(_) => length(text).map(|ago| now.saturating_sub(ago)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Asked, String> {
        Asked::read(query, Duration::from_secs(1_000))
    }

    #[test]
    fn a_query_is_read_and_what_nobody_can_mean_is_refused() {
        let asked = read("service=reviews.shop&status=5xx&path=/r&longer_than=1.5s&since=15m&limit=7&shorter_than=").unwrap();
        let wanted = Asked {
            service: Some("reviews.shop".to_owned()),
            status: Some(StatusAsked::Hundred(5)),
            path: Some("/r".to_owned()),
            longer: Some(1_500_000),
            since: Some(100_000_000),
            limit: 7,
            ..Asked::default()
        };
        assert_eq!(asked, wanted);
        assert_eq!(read("since=17.5").unwrap().since, Some(17_500_000));
        for (query, word) in [
            ("status=9xx", "5xx"),
            ("status=broken", "5xx"),
            ("longer_than=200", "200ms"),
            ("longer_than=1e400s", "200ms"),
            ("since=yesterday", "15m"),
            ("since=nan", "Unix time"),
            ("limit=0", "1 to"),
            ("limit=9999999", "1 to"),
            ("statu=5xx", "there are service"),
        ] {
            let error = read(query).unwrap_err();
            assert!(error.contains(word), "{query}: {error}");
        }
    }

    #[test]
    fn a_service_is_called_with_or_without_its_namespace() {
        assert!(is_called("reviews.shop", "reviews") && is_called("reviews.shop", "reviews.shop"));
        assert!(!is_called("reviews.shop", "review") && !is_called("reviews", "reviews.shop"));
    }
}
