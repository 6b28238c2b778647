//! Ejection by the share of requests that fail, for which Istio has no field: annotations of a
//! DestinationRule, for every `outlierDetection` it has. They are read as `KEY=VALUE, …`; what is left out
//! is as in Envoy.

use std::str::FromStr;

use crate::{
    discovery::{FailurePercentage, OutlierDetection, SuccessRate},
    resource::{DestinationRule, TrafficPolicy},
    yaml::{node::Node, report::Report, schema::join},
};

/// Who succeeds much more seldom than the others.
pub(in crate::yaml) const SUCCESS_RATE: &str = "heddle.dev/outlier-success-rate";
/// Who fails too often.
pub(in crate::yaml) const FAILURE_PERCENTAGE: &str = "heddle.dev/outlier-failure-percentage";

/// What both of them say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::yaml) struct Rates {
    success_rate: Option<SuccessRate>,
    failure_percentage: Option<FailurePercentage>,
}

/// Reports annotations that cannot be read.
pub(in crate::yaml) fn check(metadata: &Node, path: &str, report: &mut Report<'_>) {
    let place = join(path, "annotations");
    for entry in metadata.get("annotations").map_or(&[][..], Node::entries) {
        let fault = match entry.key.as_str() {
            SUCCESS_RATE => success_rate(entry.value.text()).err(),
            FAILURE_PERCENTAGE => failure_percentage(entry.value.text()).err(),
            _ => None,
        };
        if let Some(reason) = fault {
            report.error(entry.line, &join(&place, &entry.key), reason);
        }
    }
}

/// Checked annotations into what they say.
pub(in crate::yaml) fn read(metadata: &Node) -> Rates {
    let annotations = metadata.get("annotations");
    let text = |key| Some(annotations?.get(key)?.text());
    Rates {
        success_rate: text(SUCCESS_RATE).and_then(|text| success_rate(text).ok()),
        failure_percentage: text(FAILURE_PERCENTAGE).and_then(|text| failure_percentage(text).ok()),
    }
}

impl Rates {
    /// Puts them into every `outlierDetection` of a rule.
    pub(in crate::yaml) fn put_into(self, rule: &mut DestinationRule) {
        let subsets = rule.subsets.iter_mut().filter_map(|subset| subset.policy.as_mut());
        for policy in rule.policy.iter_mut().chain(subsets) {
            outliers(policy).for_each(|outlier| {
                outlier.success_rate = self.success_rate;
                outlier.failure_percentage = self.failure_percentage;
            });
        }
    }
}

fn outliers(policy: &mut TrafficPolicy) -> impl Iterator<Item = &mut OutlierDetection> {
    let ports = policy.ports.iter_mut().map(|(_, parts)| parts);
    [&mut policy.general].into_iter().chain(ports).filter_map(|parts| parts.outlier.as_mut())
}

fn success_rate(text: &str) -> Result<SuccessRate, String> {
    let mut all = SuccessRate::default();
    for (key, value) in pairs(text)? {
        match key {
            "stdev-factor" => {
                let factor: f64 = number(key, value, 0.0..=1_000.0)?;
                all.stdev_factor = (factor * 1_000.0).round() as u32;
            }
            "minimum-hosts" => all.minimum_hosts = number(key, value, 1..=u32::MAX)?,
            "request-volume" => all.request_volume = number(key, value, 1..=u32::MAX)?,
            _ => return Err(unknown(key, "stdev-factor")),
        }
    }
    Ok(all)
}

fn failure_percentage(text: &str) -> Result<FailurePercentage, String> {
    let mut all = FailurePercentage::default();
    for (key, value) in pairs(text)? {
        match key {
            "threshold" => all.threshold = number(key, value, 1..=100)?,
            "minimum-hosts" => all.minimum_hosts = number(key, value, 1..=u32::MAX)?,
            "request-volume" => all.request_volume = number(key, value, 1..=u32::MAX)?,
            _ => return Err(unknown(key, "threshold")),
        }
    }
    Ok(all)
}

fn pairs(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| match part.split_once('=') {
            Some((key, value)) => Ok((key.trim(), value.trim())),
            None => Err(format!("`{part}` has no `=`: use KEY=VALUE")),
        })
        .collect()
}

fn number<T: FromStr + PartialOrd + std::fmt::Display>(
    key: &str,
    value: &str,
    range: std::ops::RangeInclusive<T>,
) -> Result<T, String> {
    let number = value.parse().ok().filter(|number| range.contains(number));
    let (least, most) = (range.start(), range.end());
    number.ok_or_else(|| format!("`{key}={value}`: use a number from {least} to {most}"))
}

fn unknown(key: &str, first: &str) -> String {
    format!("`{key}` is unknown: use `{first}`, `minimum-hosts` and `request-volume`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_read_with_envoys_defaults() {
        assert_eq!(success_rate(""), Ok(SuccessRate::default()));
        let wanted = SuccessRate { stdev_factor: 2_500, minimum_hosts: 3, request_volume: 10 };
        let text = "stdev-factor=2.5, minimum-hosts=3,request-volume = 10";
        assert_eq!(success_rate(text), Ok(wanted));
        let half = FailurePercentage { threshold: 50, ..FailurePercentage::default() };
        assert_eq!(failure_percentage("threshold=50"), Ok(half));
        for (text, reason) in [
            ("1900", "no `=`"),
            ("factor=1", "`factor` is unknown"),
            ("stdev-factor=-1", "from 0 to 1000"),
            ("stdev-factor=NaN", "from 0 to 1000"),
            ("minimum-hosts=0", "from 1"),
            ("request-volume=many", "from 1"),
        ] {
            assert!(success_rate(text).unwrap_err().contains(reason), "{text}");
        }
        assert!(failure_percentage("threshold=101").unwrap_err().contains("from 1 to 100"));
    }
}
