//! In which format a scraper takes metrics, and metrics in that: Prometheus' text 0.0.4, OpenMetrics text, or
//! Prometheus' protobuf, which has native histograms beside the classic ones.
//!
//! All are made from one scrape, piece by piece. OpenMetrics differs from the text in how counters are headed and in
//! its end; numbers stay as they are written there, bounds of buckets among them, so that no series becomes another
//! one when a scraper asks for another format.

use bytes::Bytes;

use super::{protobuf::Families, scrape::Scrape};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics text; the older version where only that is asked for.
    OpenMetrics {
        /// 1.0.0; else 0.0.1.
        is_current: bool,
    },
    /// Messages `io.prometheus.client.MetricFamily`, each behind its length.
    Protobuf,
}

const OPEN_METRICS: &str = "application/openmetrics-text";
const PROTOBUF: &str = "application/vnd.google.protobuf";
const FAMILY: &str = "io.prometheus.client.MetricFamily";

impl Format {
    /// The one that a scraper likes most, by its `Accept` (RFC 9110 §12.5.1); of equals the first that it names, and
    /// text where it takes none of them.
    #[must_use]
    pub fn negotiated(accept: &str) -> Self {
        let mut best = (Self::Text, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut fields) = (1.0, Vec::new());
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                let (name, value) =
                    (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"'));
                match name.as_str() {
                    "q" => weight = value.parse::<f64>().unwrap_or(0.0),
                    _ => fields.push((name, value)),
                }
            }
            if let Some(format) = Self::of(&kind, &fields)
                && weight > best.1
            {
                best = (format, weight);
            }
        }
        best.0
    }

    fn of(kind: &str, fields: &[(String, &str)]) -> Option<Self> {
        let field =
            |name: &str| fields.iter().find(|(one, _)| one == name).map(|(_, value)| *value);
        match kind {
            "text/plain" => field("version").is_none_or(|one| one == "0.0.4").then_some(Self::Text),
            "text/*" | "*/*" => Some(Self::Text),
            OPEN_METRICS => match field("version") {
                None | Some("1.0.0") => Some(Self::OpenMetrics { is_current: true }),
                Some("0.0.1") => Some(Self::OpenMetrics { is_current: false }),
                Some(_) => None,
            },
            PROTOBUF => {
                let delimited = field("encoding").is_none_or(|one| one == "delimited");
                (field("proto") == Some(FAMILY) && delimited).then_some(Self::Protobuf)
            }
            _ => None,
        }
    }

    /// What an answer in it says of itself.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics { is_current: true } => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
            Self::OpenMetrics { is_current: false } => {
                "application/openmetrics-text; version=0.0.1; charset=utf-8"
            }
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// A scrape in one format: an iterator over its pieces.
#[derive(Debug)]
pub struct Exposition(Kind);

#[derive(Debug)]
enum Kind {
    Text(Scrape),
    /// `None` once its end is said.
    OpenMetrics(Option<Scrape>),
    Protobuf(Box<Families>),
}

impl Exposition {
    /// The scrape in this format.
    #[must_use]
    pub fn new(scrape: Scrape, format: Format) -> Self {
        Self(match format {
            Format::Text => Kind::Text(scrape),
            Format::OpenMetrics { .. } => Kind::OpenMetrics(Some(scrape)),
            Format::Protobuf => Kind::Protobuf(Box::new(Families::of(scrape))),
        })
    }
}

impl Iterator for Exposition {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Kind::Text(scrape) => scrape.next().map(Bytes::from),
            Kind::OpenMetrics(scrape) => match scrape.as_mut()?.next() {
                Some(piece) => Some(open_metrics(&piece).into()),
                None => {
                    *scrape = None;
                    Some("# EOF\n".into())
                }
            },
            Kind::Protobuf(families) => families.next().map(Bytes::from),
        }
    }
}

/// A family of counters is headed by its name without what its samples end with.
fn open_metrics(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let head = ["# HELP ", "# TYPE "].into_iter().find(|head| line.starts_with(head));
        match head.and_then(|head| line[head.len()..].split_once("_total ").map(|cut| (head, cut)))
        {
            Some((head, (name, rest))) if !name.contains(' ') => {
                made.extend([head, name, " ", rest]);
            }
            _ => made.push_str(line),
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapers_get_what_they_like_most() {
        let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let plain = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let current = Format::OpenMetrics { is_current: true };
        for (accept, format) in [
            (native, Format::Protobuf),
            (plain, current),
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain;version=0.0.4", Format::Text),
            (
                "application/openmetrics-text; version=0.0.1",
                Format::OpenMetrics { is_current: false },
            ),
            ("application/openmetrics-text;version=2.0.0, text/plain;q=0.1", Format::Text),
            ("text/plain;q=0.5, APPLICATION/OpenMetrics-Text;Q=0.6", current),
            ("application/openmetrics-text;q=0", Format::Text),
            ("text/html, application/json", Format::Text),
            ("application/vnd.google.protobuf", Format::Text),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
                Format::Text,
            ),
            (";;;q=,=,,", Format::Text),
            ("application/openmetrics-text;q=x", Format::Text),
        ] {
            assert_eq!(Format::negotiated(accept), format, "{accept}");
        }
    }

    #[test]
    fn open_metrics_heads_counters_by_their_bare_name() {
        let text = "# HELP a_total Of b_total all.\n# TYPE a_total counter\na_total{x=\"# TYPE y_total z\"} 1\n# HELP c About _total things.\n# TYPE c gauge\nc 2\n";
        let expected = "# HELP a Of b_total all.\n# TYPE a counter\na_total{x=\"# TYPE y_total z\"} 1\n# HELP c About _total things.\n# TYPE c gauge\nc 2\n";
        assert_eq!(open_metrics(text), expected);
    }
}
