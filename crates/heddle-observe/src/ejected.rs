//! Endpoints that a sidecar gives no requests for their errors, from the gauges it shows them by.
//!
//! A scrape shows each in three lines with the same labels: that it is out, since when and until when.
//! As with all of a scrape, they count only when it was read to its end.

use std::collections::BTreeMap;

use heddle_model::WorkloadId;
use heddle_wire::local::observe_api::Ejection;

use crate::{
    exposition::{self, LineError, Sample},
    limits,
    measure::{cut, in_mesh, outside},
};

/// The lines of one scrape, by their labels as written.
#[derive(Debug, Default)]
pub(crate) struct Ejected(BTreeMap<String, Ejection>);

impl Ejected {
    /// Is this metric read here?
    pub(crate) fn reads(name: &str) -> bool {
        field(name).is_some()
    }

    /// Takes a line of such a metric, seen by the sidecar of `by`.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub(crate) fn line(&mut self, by: &str, line: &str) -> Result<(), LineError> {
        let (series, value) = exposition::split_series(line)?;
        let (name, labels) = exposition::metric_name(series)?;
        if !self.0.contains_key(labels) && self.0.len() < limits::EJECTED_MAX {
            let Some(sample) = exposition::parse_line(line)? else { return Ok(()) };
            self.0.insert(labels.to_owned(), ejection(by, &sample));
        }
        if let (Some(one), Some(field)) = (self.0.get_mut(labels), field(name)) {
            match field {
                Field::Out => {}
                Field::Since => one.since = value,
                Field::Until => one.until = value,
            }
        }
        Ok(())
    }

    /// Forgets what was taken.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// All that were taken, and none is left.
    pub(crate) fn take(&mut self) -> Vec<Ejection> {
        std::mem::take(&mut self.0).into_values().collect()
    }
}

enum Field {
    Out,
    Since,
    Until,
}

fn field(name: &str) -> Option<Field> {
    match name {
        "heddle_endpoint_ejected" => Some(Field::Out),
        "heddle_endpoint_ejected_since_seconds" => Some(Field::Since),
        "heddle_endpoint_ejected_until_seconds" => Some(Field::Until),
        _ => None,
    }
}

fn ejection(by: &str, sample: &Sample<'_>) -> Ejection {
    let text = |label| cut(sample.label(label)).to_owned();
    let host = text("destination_service");
    Ejection {
        by: WorkloadId(by.to_owned()),
        service: in_mesh(&host).unwrap_or_else(|| outside(&host)),
        port: text("destination_port").parse().unwrap_or_default(),
        subset: text("subset"),
        endpoint: WorkloadId(text("endpoint")),
        address: text("address"),
        reason: text("reason"),
        rule: text("rule"),
        since: 0.0,
        until: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_lines_of_one_endpoint_are_one_ejection() {
        let labels = "{destination_service=\"ratings.default.svc.cluster.local\",destination_port=\"80\",subset=\"v1\",endpoint=\"ratings-v1-7\",address=\"240.241.0.7:80\",reason=\"consecutive5xxErrors\",rule=\"DestinationRule/default/ratings\"}";
        let mut ejected = Ejected::default();
        for (name, value) in [("", "1"), ("_since_seconds", "100"), ("_until_seconds", "130.5")] {
            let line = format!("heddle_endpoint_ejected{name}{labels} {value}");
            assert!(Ejected::reads(exposition::metric_name(&line).unwrap().0));
            ejected.line("reviews-v1-5", &line).unwrap();
        }
        let taken = ejected.take();
        assert_eq!(taken.len(), 1);
        let one = &taken[0];
        assert_eq!((one.by.0.as_str(), one.endpoint.0.as_str()), ("reviews-v1-5", "ratings-v1-7"));
        assert_eq!(
            (one.service.name.as_str(), one.port, one.subset.as_str()),
            ("ratings", 80, "v1")
        );
        assert_eq!((one.since, one.until), (100.0, 130.5));
        assert_eq!(one.reason, "consecutive5xxErrors");
        assert_eq!(ejected.take(), []);
    }

    #[test]
    fn no_more_are_kept_than_the_limit() {
        let mut ejected = Ejected::default();
        for number in 0..limits::EJECTED_MAX + 5 {
            ejected
                .line("a", &format!("heddle_endpoint_ejected{{endpoint=\"{number}\"}} 1"))
                .unwrap();
        }
        assert_eq!(ejected.take().len(), limits::EJECTED_MAX);
    }
}
