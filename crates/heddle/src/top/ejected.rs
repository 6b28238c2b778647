//! Endpoints that are out for their errors, in words: which, since when, why, by whom, and when they come
//! back. `top`, `graph` and `get` say it below their own tables.

use std::collections::BTreeMap;

use heddle_runtime::clock;
use heddle_wire::local::observe_api::Ejection;

use crate::top::figures::name;

/// A line for each endpoint and rule; whoever took it out is counted. Seconds since 1970 are told from
/// `now`.
pub(crate) fn lines(ejections: &[Ejection], now: f64) -> Vec<String> {
    let mut by: BTreeMap<_, Vec<&Ejection>> = BTreeMap::new();
    for one in ejections {
        let key = (&one.service, one.port, &one.subset, &one.endpoint, &one.rule);
        by.entry(key).or_default().push(one);
    }
    by.into_values().map(|same| line(&same, now)).collect()
}

/// As [`lines`], as of now.
pub(crate) fn lines_now(ejections: &[Ejection]) -> Vec<String> {
    lines(ejections, clock::unix_now().as_secs_f64())
}

fn line(same: &[&Ejection], now: f64) -> String {
    let one = same[0];
    let subset = if one.subset.is_empty() { String::new() } else { format!("/{}", one.subset) };
    let since = same.iter().map(|one| one.since).fold(f64::INFINITY, f64::min);
    let until = same.iter().map(|one| one.until).fold(0.0, f64::max);
    let by = match same {
        [only] => only.by.to_string(),
        all => format!("{} sidecars", all.len()),
    };
    let back = match (until - now).ceil() {
        left if left > 0.0 => format!("tried again in {left:.0} s"),
        _ => "tried again with the next request".to_owned(),
    };
    format!(
        "out: {} ({}) of {}{subset}:{} for {:.0} s: {}, {back}; seen by {by}, asked for by {}",
        one.endpoint,
        one.address,
        name(&one.service),
        one.port,
        (now - since).max(0.0),
        reason(&one.reason),
        one.rule,
    )
}

/// Why, by the word that a sidecar has for it.
pub(crate) fn reason(word: &str) -> String {
    match word {
        "probe" => "failed again when it was tried".to_owned(),
        field => format!("too many errors in a row ({field})"),
    }
}

#[cfg(test)]
mod tests {
    use heddle_model::{ServiceName, WorkloadId};

    use super::*;

    fn ejection(by: &str) -> Ejection {
        Ejection {
            by: WorkloadId(by.into()),
            service: ServiceName::new("ratings", "default").unwrap(),
            port: 80,
            subset: "v1".into(),
            endpoint: WorkloadId("ratings-v1-7".into()),
            address: "240.241.0.7:80".into(),
            reason: "consecutive5xxErrors".into(),
            rule: "DestinationRule/default/ratings".into(),
            since: 100.0,
            until: 130.0,
        }
    }

    #[test]
    fn it_is_told_who_is_out_since_when_why_and_until_when() {
        let wanted = "out: ratings-v1-7 (240.241.0.7:80) of ratings/v1:80 for 12 s: too many errors in a row (consecutive5xxErrors), tried again in 18 s; seen by reviews-v1-5, asked for by DestinationRule/default/ratings";
        assert_eq!(lines(&[ejection("reviews-v1-5")], 112.0), [wanted]);
    }

    #[test]
    fn an_endpoint_that_several_took_out_is_one_line() {
        let mut later = ejection("reviews-v2-6");
        (later.since, later.until, later.reason) = (105.0, 135.0, "probe".into());
        let told = lines(&[ejection("reviews-v1-5"), later], 140.0);
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("for 40 s") && told[0].contains("2 sidecars"), "{told:?}");
        assert!(told[0].contains("with the next request"), "{told:?}");
    }
}
