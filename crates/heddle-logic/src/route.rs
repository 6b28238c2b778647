//! Which rule applies to a request, and which of its targets takes it.
//!
//! A [`Matcher`] is built once per rule, a [`RouteTable`] of them for a destination's port; what else a
//! rule carries (its clusters, its fault) is the caller's. Selecting allocates nothing.
//! Semantics are Istio's: alternatives are ORed, conditions within one are ANDed, the first rule
//! that matches decides. `uri` and the pseudo-header `:path` see the canonical path ([`crate::path`]),
//! `uri` without the query; of a header sent on several lines each line is a value; `authority` is
//! compared whole; query parameters are compared as sent, the first of a name.
//! One difference, which is wider: escapes in a `uri` match whatever the case of their digits.

use std::borrow::Cow;

use heddle_model::{
    discovery::{HttpMatch, HttpRule, Provenance, Weighted},
    pattern::PatternError,
};

mod condition;
mod index;
#[cfg(test)]
pub(crate) mod testing;
mod view;

pub use condition::Reach;
use condition::{Alternative, MatchInput};
pub(crate) use condition::{Text, without_fragment};
use index::Index;
pub use view::RequestView;

use crate::path;

/// Why a rule's conditions could not be built. Accepted rules never fail here: `apply` compiles the same
/// patterns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule {provenance}: {source}", provenance = provenance.0)]
pub struct RouteError {
    /// The rule.
    pub provenance: Provenance,
    /// The pattern's fault.
    pub source: PatternError,
}

/// The conditions of one rule, ready to match. They depend on nothing but the rule, so that endpoints
/// come and go without building them again.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    /// An empty list matches everything.
    alternatives: Vec<Alternative>,
}

/// A rule as a table sees it: conditions, and whatever it carries besides.
pub trait Rule {
    /// Its conditions.
    fn matcher(&self) -> &Matcher;
}

/// Rules in order, with what each of them carries.
#[derive(Debug, Clone)]
pub struct RouteTable<R> {
    rules: Vec<R>,
    /// Where there are many: which of them a request can meet.
    index: Option<Box<Index>>,
    /// Does a rule look at the path?
    reads_path: bool,
}

/// What the table says about a request.
#[derive(Debug, Clone)]
pub struct Selection<'a, R> {
    /// Which rule decides.
    pub selected: Selected<'a, R>,
    /// The path to send on in place of the one that came: the one that the rules looked at. `None`
    /// where that is the same for any upstream, or no rule looked.
    pub path: Option<Box<str>>,
}

/// Which rule decides.
#[derive(Debug, Clone, Copy)]
pub enum Selected<'a, R> {
    /// This rule decides.
    Rule(&'a R),
    /// There are no rules: the service itself.
    Default,
    /// There are rules and none matches: 404 `NR`, as in Istio.
    NoRoute,
    /// A rule looks at the path, and this one has no canonical form: 400, as in Istio.
    BadPath(path::Fault),
}

impl Matcher {
    /// Builds a rule's conditions.
    ///
    /// # Errors
    /// [`RouteError`] naming the rule whose pattern does not compile.
    pub fn build(rule: &HttpRule) -> Result<Self, RouteError> {
        Self::of(&rule.matches, &rule.provenance)
    }

    /// The same of alternatives that are a rule's of another sort.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn of(matches: &[HttpMatch], provenance: &Provenance) -> Result<Self, RouteError> {
        let alternatives: Result<_, _> = matches.iter().map(Alternative::build).collect();
        let alternatives =
            alternatives.map_err(|source| RouteError { provenance: provenance.clone(), source })?;
        Ok(Self { alternatives })
    }

    /// Does a request meet them, outside of any table? One whose path has no canonical form meets no
    /// condition on paths.
    #[must_use]
    pub fn holds(&self, request: &dyn RequestView) -> bool {
        if !self.reads_path() {
            return self.matches(&MatchInput { request, path: "" });
        }
        path::fault(request.target()).is_none()
            && self.matches(&MatchInput { request, path: &path::canonical(request.path()) })
    }

    fn matches(&self, request: &MatchInput<'_>) -> bool {
        self.alternatives.is_empty() || self.alternatives.iter().any(|one| one.matches(request))
    }

    /// How much of the canonical `path` the alternative took that a request meets; where none looks at
    /// paths, the slash that each begins with.
    #[must_use]
    pub fn reach(&self, request: &dyn RequestView, path: &str) -> Reach {
        let input = MatchInput { request, path };
        let met = self.alternatives.iter().find(|one| one.matches(&input));
        met.map_or(Reach::Prefix(1), Alternative::reach)
    }

    /// The conditions of each alternative in words; none where it matches everything.
    #[must_use]
    pub fn words(&self) -> Vec<Vec<String>> {
        self.alternatives.iter().map(Alternative::words).collect()
    }

    /// Of each alternative, in words, the first condition that a request does not meet; none where it meets one.
    /// Values of secrets are left out ([`heddle_model::secret`]).
    #[must_use]
    pub fn misses(&self, request: &dyn RequestView) -> Vec<String> {
        let path = path::canonical(request.path());
        let input = MatchInput { request, path: &path };
        let misses: Option<Vec<_>> = self.alternatives.iter().map(|one| one.miss(&input)).collect();
        misses.unwrap_or_default()
    }

    fn reads_path(&self) -> bool {
        self.alternatives.iter().any(Alternative::reads_path)
    }
}

impl<R: Rule> RouteTable<R> {
    /// The table of a port's rules, in order.
    #[must_use]
    pub fn new(rules: Vec<R>) -> Self {
        let reads_path = rules.iter().any(|rule| rule.matcher().reads_path());
        let index = Index::build(rules.iter().map(|rule| rule.matcher().alternatives.as_slice()));
        Self { rules, index, reads_path }
    }

    /// The first rule that matches.
    #[inline]
    #[must_use]
    pub fn select(&self, request: &dyn RequestView) -> Selection<'_, R> {
        if self.rules.is_empty() {
            return Selection { selected: Selected::Default, path: None };
        }
        if self.reads_path
            && let Some(fault) = path::fault(request.target())
        {
            return Selection { selected: Selected::BadPath(fault), path: None };
        }
        let path = if self.reads_path { path::canonical(request.path()) } else { "".into() };
        let input = MatchInput { request, path: &path };
        let found = match &self.index {
            None => self.rules.iter().find(|rule| rule.matcher().matches(&input)),
            Some(index) => self.find(index, &input),
        };
        Selection {
            selected: found.map_or(Selected::NoRoute, Selected::Rule),
            path: if self.reads_path { to_forward(request, path) } else { None },
        }
    }

    fn find(&self, index: &Index, input: &MatchInput<'_>) -> Option<&R> {
        let holds =
            |at: usize| self.rules.get(at).is_some_and(|rule| rule.matcher().matches(input));
        self.rules.get(index.first(input.request, input.path, holds)?)
    }

    /// All rules in order.
    #[must_use]
    pub fn rules(&self) -> &[R] {
        &self.rules
    }
}

/// The canonical path if an upstream could take what was sent for another one. Capitals of escapes
/// alone are no reason to touch it: every server takes them as equal, and some clients sign a path
/// as they spell it.
fn to_forward(request: &dyn RequestView, canonical: Cow<'_, str>) -> Option<Box<str>> {
    let same = canonical.as_bytes().eq_ignore_ascii_case(request.path());
    (!same).then(|| canonical.into())
}

/// Picks by weight; what has weight 0 gets no traffic while another has weight. `random` is uniform
/// over all of `u64`. The first of all-zero weights, which `apply` refuses; `None` of an empty list.
#[inline]
#[must_use]
pub fn pick_target<T>(targets: &[Weighted<T>], random: u64) -> Option<&T> {
    pick_position(targets, random).map(|at| &targets[at].to)
}

/// The same; says at which position.
#[inline]
#[must_use]
pub fn pick_position<T>(targets: &[Weighted<T>], random: u64) -> Option<usize> {
    let total: u64 = targets.iter().map(|target| u64::from(target.weight)).sum();
    // The high half of a 128-bit product is even over `0..total`, without division.
    let mut left = ((u128::from(random) * u128::from(total)) >> 64) as u64;
    for (at, target) in targets.iter().enumerate() {
        match left.checked_sub(u64::from(target.weight)) {
            Some(rest) => left = rest,
            None => return Some(at),
        }
    }
    (!targets.is_empty()).then_some(0)
}

#[cfg(test)]
mod tests;
