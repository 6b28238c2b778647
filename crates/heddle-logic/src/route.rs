//! Which rule applies to a request, and which of its targets takes it.
//!
//! A [`RouteTable`] is built once per destination port and generation; selecting allocates nothing.
//! Semantics are Istio's: alternatives are ORed, conditions within one are ANDed, the first rule
//! that matches decides. `uri` and the pseudo-header `:path` see the canonical path ([`crate::path`]),
//! `uri` without the query; header values sent several times are joined by commas; query parameters
//! are compared as sent, the first of a name.
//! Differences, all wider: `authority` ignores case and, where it names no port, a port; escapes in a
//! `uri` match whatever the case of their digits.

use std::borrow::Cow;

use heddle_model::{
    DestinationPort,
    discovery::{Fault, HttpRule, Provenance, WeightedTarget},
    pattern::PatternError,
};

mod condition;
mod view;

use condition::{Alternative, Seen};
pub use view::RequestView;

use crate::path;

/// Why a table could not be built. Accepted rules never fail here: `apply` compiles the same
/// patterns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule {provenance}: {source}", provenance = provenance.0)]
pub struct RouteError {
    /// The rule.
    pub provenance: Provenance,
    /// The pattern's fault.
    pub source: PatternError,
}

/// The rules of one destination port, ready to match.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    rules: Vec<Rule>,
    /// Does a rule look at the path?
    reads_path: bool,
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    index: usize,
    alternatives: Vec<Alternative>,
    provenance: Provenance,
    fault: Option<Fault>,
    targets: Vec<WeightedTarget>,
}

/// What the table says about a request.
#[derive(Debug, Clone)]
pub struct Selection<'a> {
    /// Which rule decides.
    pub selected: Selected<'a>,
    /// The path to send on in place of the one that came, and without its fragment: the one that
    /// the rules looked at. `None` where that is the same for any upstream, or no rule looked.
    pub path: Option<Box<str>>,
}

/// Which rule decides.
#[derive(Debug, Clone, Copy)]
pub enum Selected<'a> {
    /// This rule decides.
    Rule(&'a Rule),
    /// There are no rules: the service itself.
    Default,
    /// There are rules and none matches: 404 `NR`, as in Istio.
    NoRoute,
}

impl RouteTable {
    /// Builds the table of a port's HTTP rules.
    ///
    /// # Errors
    /// [`RouteError`] naming the rule whose pattern does not compile.
    pub fn build(port: &DestinationPort) -> Result<Self, RouteError> {
        let rules = port.http.iter().enumerate().map(|(index, rule)| Rule::build(index, rule));
        let rules = rules.collect::<Result<Vec<_>, _>>()?;
        let reads_path =
            rules.iter().any(|rule| rule.alternatives.iter().any(Alternative::reads_path));
        Ok(Self { rules, reads_path })
    }

    /// The first rule that matches.
    #[inline]
    #[must_use]
    pub fn select(&self, request: &dyn RequestView) -> Selection<'_> {
        if self.rules.is_empty() {
            return Selection { selected: Selected::Default, path: None };
        }
        let path = if self.reads_path { path::canonical(request.path()) } else { "".into() };
        let seen = Seen { request, path: &path };
        let found = self.rules.iter().find(|rule| rule.matches(&seen));
        Selection {
            selected: found.map_or(Selected::NoRoute, Selected::Rule),
            path: if self.reads_path { to_forward(request, path) } else { None },
        }
    }

    /// All rules in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl Rule {
    fn build(index: usize, rule: &HttpRule) -> Result<Self, RouteError> {
        let alternatives: Result<Vec<_>, _> = rule.matches.iter().map(Alternative::build).collect();
        Ok(Self {
            index,
            alternatives: alternatives
                .map_err(|source| RouteError { provenance: rule.provenance.clone(), source })?,
            provenance: rule.provenance.clone(),
            fault: rule.fault.clone(),
            targets: rule.targets.clone(),
        })
    }

    fn matches(&self, seen: &Seen<'_>) -> bool {
        self.alternatives.is_empty() || self.alternatives.iter().any(|one| one.matches(seen))
    }

    /// Position in `DestinationPort::http`.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Where the rule comes from.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Fault to decide once per request.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Targets, never empty; see [`pick_target`].
    #[must_use]
    pub fn targets(&self) -> &[WeightedTarget] {
        &self.targets
    }
}

/// The canonical path if an upstream could take what was sent for another one. Capitals of escapes
/// alone are no reason to touch it: every server takes them as equal, and some clients sign a path
/// as they spell it.
fn to_forward(request: &dyn RequestView, canonical: Cow<'_, str>) -> Option<Box<str>> {
    let same = canonical.as_bytes().eq_ignore_ascii_case(request.path());
    (!same || request.target().contains('#')).then(|| canonical.into())
}

/// Picks a target by weight; a target of weight 0 never gets traffic while another has weight.
/// `random` is uniform over all of `u64`. Index 0 for an empty list or all-zero weights, which
/// `apply` refuses.
#[inline]
#[must_use]
pub fn pick_target(targets: &[WeightedTarget], random: u64) -> usize {
    let total: u64 = targets.iter().map(|target| u64::from(target.weight)).sum();
    // The high half of a 128-bit product is even over `0..total`, without division.
    let mut left = ((u128::from(random) * u128::from(total)) >> 64) as u64;
    for (index, target) in targets.iter().enumerate() {
        match left.checked_sub(u64::from(target.weight)) {
            Some(rest) => left = rest,
            None => return index,
        }
    }
    0
}

#[cfg(test)]
mod tests;
