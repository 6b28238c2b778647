//! Names that workloads asked for and got no address of, from the gauges their sidecars show them by, and which service
//! may have been meant.
//!
//! As with all of a scrape, they count only when it was read to its end.

use std::collections::{BTreeMap, HashMap, hash_map::Entry};

use heddle_model::{ServiceName, name::service_suffix, yaml::did_you_mean};

use crate::{
    exposition::{self, LineError},
    limits,
    measure::cut,
};

const COUNT: &str = "heddle_dns_failed";
const LAST: &str = "heddle_dns_failed_last_seconds";

/// A name without an address.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct FailedName {
    pub(crate) name: String,
    /// What the last answer was.
    pub(crate) answer: String,
    pub(crate) count: f64,
    /// When it was asked for last, Unix time in seconds.
    pub(crate) last: f64,
}

/// The lines of one scrape, by their labels as written.
#[derive(Debug, Default)]
pub(crate) struct FailedNames(BTreeMap<String, FailedName>);

impl FailedNames {
    /// Is this metric read here?
    pub(crate) fn reads(name: &str) -> bool {
        matches!(name, COUNT | LAST)
    }

    /// Takes a line of such a metric.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), LineError> {
        let (series, value) = exposition::split_series(line)?;
        let (name, labels) = exposition::metric_name(series)?;
        if !self.0.contains_key(labels) && self.0.len() < limits::NAMES_MAX {
            let Some(sample) = exposition::parse_line(line)? else { return Ok(()) };
            let text = |label| cut(sample.label(label)).to_owned();
            let one =
                FailedName { name: text("name"), answer: text("answer"), ..FailedName::default() };
            self.0.insert(labels.to_owned(), one);
        }
        if let Some(one) = self.0.get_mut(labels) {
            *(if name == COUNT { &mut one.count } else { &mut one.last }) = value;
        }
        Ok(())
    }

    /// Forgets what was taken.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// All that were taken, and none is left.
    pub(crate) fn take(&mut self) -> Vec<FailedName> {
        std::mem::take(&mut self.0).into_values().collect()
    }
}

/// Which services names may have meant. Each name is compared with all services once, and so many names at most: how
/// many there are, and how long, is up to workloads.
#[derive(Debug)]
pub(crate) struct Meant<'s> {
    services: Vec<Known<'s>>,
    /// By name, and the namespace of who asked for it.
    known: HashMap<(&'s str, &'s str), Option<String>>,
    left: usize,
}

#[derive(Debug)]
struct Known<'s> {
    service: &'s ServiceName,
    /// With its namespace.
    full: String,
    /// The same without separators.
    bare: String,
}

impl<'s> Meant<'s> {
    /// Among these services, for `most` names.
    pub(crate) fn new(services: impl Iterator<Item = &'s ServiceName>, most: usize) -> Self {
        let services = services.filter(|service| !service.is_host()).take(limits::SIDECARS_MAX);
        let services = services.map(|service| {
            let full = format!("{}.{}", service.name, service.namespace);
            Known { service, bare: bare(&full), full }
        });
        Self { services: services.collect(), known: HashMap::new(), left: most }
    }

    /// The service that may have been meant by a name that somebody in `namespace` asked for, as they should have
    /// written it: with its namespace where that is another one or was written. `None` for further names than it is for.
    pub(crate) fn by(&mut self, asked: &'s str, namespace: &'s str) -> Option<&str> {
        match self.known.entry((asked, namespace)) {
            Entry::Occupied(known) => known.into_mut().as_deref(),
            Entry::Vacant(place) => {
                self.left = self.left.checked_sub(1)?;
                place.insert(meant(asked, namespace, &self.services)).as_deref()
            }
        }
    }
}

fn bare(text: &str) -> String {
    text.replace(['.', '-', '_'], "")
}

fn meant(asked: &str, namespace: &str, services: &[Known<'_>]) -> Option<String> {
    let short = asked.trim_end_matches('.');
    let short = short.strip_suffix(service_suffix()).unwrap_or(short).trim_end_matches('.');
    let short = short.strip_suffix(".svc").unwrap_or(short);
    let (name, asked_in) = match short.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (short, None),
    };
    let asked_namespace = asked_in.unwrap_or(namespace);
    // The name is right, and the namespace is not or is missing.
    let same = services.iter().filter(|one| one.service.name == name);
    let same: Vec<_> = same.filter(|one| one.service.namespace != asked_namespace).collect();
    if let [one] = same[..] {
        return Some(one.full.clone());
    }
    // One word with a separator left out or another one: `leaf-1default`, `leaf-1-default`.
    let squeezed = bare(short);
    let glued = services.iter().find(|one| one.bare == squeezed);
    if let Some(one) = glued.filter(|_| asked_in.is_none()) {
        return Some(one.full.clone());
    }
    let own = services.iter().filter(|one| one.service.namespace == asked_namespace);
    let own: Vec<&str> = own.map(|one| one.service.name.as_str()).collect();
    if let Some(name) = did_you_mean(name, &own) {
        return Some(asked_in.map_or_else(|| name.to_owned(), |rest| format!("{name}.{rest}")));
    }
    // Both are a little wrong.
    let all: Vec<&str> = services.iter().map(|one| one.full.as_str()).collect();
    let full = if asked_in.is_some() { short.to_owned() } else { format!("{short}.{namespace}") };
    did_you_mean(&full, &all).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lines_of_one_name_are_one_failure() {
        let mut names = FailedNames::default();
        let labels = "{name=\"leaf<b>\",answer=\"NXDOMAIN\"}";
        names.line(&format!("{COUNT}{labels} 3")).unwrap();
        names.line(&format!("{LAST}{labels} 12.5")).unwrap();
        let taken = names.take();
        assert_eq!(taken.len(), 1);
        let one = &taken[0];
        assert_eq!((one.name.as_str(), one.answer.as_str()), ("leaf<b>", "NXDOMAIN"));
        assert_eq!((one.count, one.last), (3.0, 12.5));
        for number in 0..limits::NAMES_MAX + 5 {
            names.line(&format!("{COUNT}{{name=\"{number}\"}} 1")).unwrap();
        }
        assert_eq!(names.take().len(), limits::NAMES_MAX);
    }

    #[test]
    fn the_service_that_was_meant_is_named_as_it_should_have_been_written() {
        let services = [("leaf-1", "default"), ("leaf-2", "default"), ("pay", "shop")];
        let services = services.map(|(name, namespace)| ServiceName::new(name, namespace).unwrap());
        for (asked, meant_by) in [
            ("leaf-1.defalt", Some("leaf-1.default")),
            ("leaf1", Some("leaf-1")),
            ("leaf-1.default.svc.cluster.lokal", Some("leaf-1.default")),
            ("leaf-1.shop", Some("leaf-1.default")),
            ("leaf-1-default", Some("leaf-1.default")),
            ("pay", Some("pay.shop")),
            ("pai.shop.svc.cluster.local", Some("pay.shop")),
            ("www.example.com", None),
            ("", None),
        ] {
            let mut meant = Meant::new(services.iter(), 1);
            assert_eq!(meant.by(asked, "default"), meant_by, "{asked}");
        }
    }

    #[test]
    fn a_name_is_looked_for_once_and_no_more_names_than_was_said() {
        let services = [ServiceName::new("pay", "shop").unwrap()];
        let mut meant = Meant::new(services.iter(), 2);
        for _ in 0..3 {
            assert_eq!(meant.by("pai", "shop"), Some("pay"));
            assert_eq!(meant.by("pai", "other"), None);
        }
        assert_eq!(meant.by("pey", "shop"), None);
    }
}
