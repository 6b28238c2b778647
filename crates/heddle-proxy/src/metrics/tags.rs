//! What rules change about tags of metrics (`Telemetry`, `tagOverrides`): metrics whose tags become the same are a
//! group, and share a label set. Without such a rule there is no plan, and nothing here is asked.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use heddle_logic::expression::{Attributes, evaluate};
use heddle_model::{
    discovery::{Metric, MetricChange, TagChange},
    yaml::expression::Expression,
};

use crate::limits::{TAG_VALUE_BYTES, TAGS_CHANGED};

/// Value of a tag of what is not known.
pub(super) const UNKNOWN: &str = "unknown";
/// Value of every tag that an overflow series gives up.
pub(super) const OVERFLOW: &str = "overflow";

/// Metrics as bits, in the order of [`Metric::EACH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Bits(pub(super) u16);

impl Bits {
    /// Of each HTTP request.
    pub(crate) const HTTP: Self = Self(0b00_0000_1111);
    /// Of each call of gRPC besides.
    pub(crate) const GRPC: Self = Self(0b00_0011_0000);
    /// Of connections.
    pub(super) const TCP: Self = Self(0b11_1100_0000);

    /// Those of a call over HTTP.
    pub(crate) fn of_call(grpc: bool) -> Self {
        if grpc { Self(Self::HTTP.0 | Self::GRPC.0) } else { Self::HTTP }
    }

    /// That of one metric.
    pub(crate) fn of(metric: Metric) -> Self {
        let place = Metric::EACH.iter().position(|(one, ..)| *one == metric);
        Self(place.map_or(0, |place| 1 << place))
    }

    /// That of a metric by its name.
    pub(super) fn of_name(name: &str) -> Self {
        let place = Metric::EACH.iter().position(|(_, known, _)| *known == name);
        Self(place.map_or(0, |place| 1 << place))
    }

    /// Those whose tags are changed in another way than before.
    pub(super) fn changed(before: &[MetricChange], now: &[MetricChange]) -> Self {
        let differs = |metric: Metric| !tags_of(before, metric).eq(tags_of(now, metric));
        let all = Metric::EACH.iter().filter(|(metric, ..)| differs(*metric));
        Self(all.fold(0, |bits, (metric, ..)| bits | Self::of(*metric).0))
    }

    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn has(self, one: Self) -> bool {
        self.0 & one.0 != 0
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What is said about the tags of one metric, in its order.
fn tags_of(
    changes: &[MetricChange],
    metric: Metric,
) -> impl Iterator<Item = (&String, &TagChange)> {
    let meant = changes.iter().filter(move |one| [metric, Metric::All].contains(&one.metric));
    meant.flat_map(|one| &one.tags)
}

/// What becomes of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tag {
    Removed,
    /// The value of the expression at this place.
    Value(usize),
}

/// Metrics that have the same tags.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) metrics: Bits,
    tags: BTreeMap<String, Tag>,
}

/// What becomes of the tags of calls in one direction.
#[derive(Debug)]
pub(crate) struct Tagging {
    expressions: Vec<Expression>,
    /// Of HTTP requests.
    pub(crate) http: Vec<Group>,
    /// Of connections.
    pub(crate) tcp: Vec<Group>,
}

impl Tagging {
    /// `None` where no tag is changed. A later change of a tag takes the place of an earlier one.
    pub(super) fn of(changes: &[MetricChange]) -> Option<Arc<Self>> {
        let mut texts: Vec<&str> = Vec::new();
        let mut plan = Self { expressions: Vec::new(), http: Vec::new(), tcp: Vec::new() };
        for (metric, ..) in Metric::EACH {
            let mut tags = BTreeMap::new();
            for (name, change) in tags_of(changes, metric) {
                if tags.len() >= TAGS_CHANGED && !tags.contains_key(name) {
                    continue;
                }
                if let Some(tag) = plan.read(change, &mut texts) {
                    tags.insert(name.clone(), tag);
                }
            }
            plan.put(Bits::of(metric), tags);
        }
        let changed = plan.http.iter().chain(&plan.tcp).any(|group| !group.tags.is_empty());
        changed.then(|| Arc::new(plan))
    }

    /// What does not read was refused where it came from; from a newer control plane it is left out.
    fn read<'a>(&mut self, change: &'a TagChange, texts: &mut Vec<&'a str>) -> Option<Tag> {
        let TagChange::Value(text) = change else { return Some(Tag::Removed) };
        if let Some(known) = texts.iter().position(|one| one == text) {
            return Some(Tag::Value(known));
        }
        match Expression::parse(text) {
            Ok(read) => {
                texts.push(text);
                self.expressions.push(read);
                Some(Tag::Value(texts.len() - 1))
            }
            Err(reason) => {
                tracing::warn!(expression = text, reason, "a tag of a metric is left out");
                None
            }
        }
    }

    fn put(&mut self, metric: Bits, tags: BTreeMap<String, Tag>) {
        let groups = if Bits::TCP.has(metric) { &mut self.tcp } else { &mut self.http };
        match groups.iter_mut().find(|group| group.tags == tags) {
            Some(group) => group.metrics.0 |= metric.0,
            None => groups.push(Group { metrics: metric, tags }),
        }
    }

    /// What the expressions come to for one call; as in Istio what is absent is `unknown`.
    pub(crate) fn values(self: &Arc<Self>, of: Option<&dyn Attributes>) -> Rc<Tagged> {
        let value = |one: &Expression| {
            let value = evaluate(one, of.unwrap_or(&Nothing)).map(|value| value.shown());
            cut(value.unwrap_or_else(|| UNKNOWN.to_owned()))
        };
        let values = self.expressions.iter().map(value).collect();
        Rc::new(Tagged { plan: Arc::clone(self), values })
    }
}

/// Nothing is known.
struct Nothing;

impl Attributes for Nothing {
    fn value(
        &self,
        _: &heddle_model::yaml::expression::Attribute,
    ) -> Option<heddle_logic::expression::Value<'_>> {
        None
    }
}

fn cut(mut text: String) -> Box<str> {
    if text.len() > TAG_VALUE_BYTES {
        let end = (0..=TAG_VALUE_BYTES).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
    text.into()
}

/// The values of one call.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tagged {
    pub(crate) plan: Arc<Tagging>,
    values: Vec<Box<str>>,
}

impl PartialEq for Tagging {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Tagging {}

impl std::hash::Hash for Tagging {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {
        // Those at hand are of one plan.
    }
}

/// How labels are written: as they are, or as a group has them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Written<'a> {
    AsTheyAre,
    Of(&'a Group, &'a Tagged),
    /// Of many whose values differ.
    Folded(&'a Group),
}

impl<'a> Written<'a> {
    pub(super) fn of(tagged: Option<(&'a Tagged, &'a Group)>) -> Self {
        tagged.map_or(Self::AsTheyAre, |(tagged, group)| Self::Of(group, tagged))
    }

    /// The same for many whose values differ.
    pub(super) fn folded(self) -> Self {
        match self {
            Self::AsTheyAre => self,
            Self::Of(group, _) | Self::Folded(group) => Self::Folded(group),
        }
    }

    fn value(self, tag: &Tag) -> Option<&'a str> {
        match (self, tag) {
            (Self::AsTheyAre, _) | (_, Tag::Removed) => None,
            (Self::Of(_, tagged), Tag::Value(place)) => Some(&tagged.values[*place]),
            (Self::Folded(_), Tag::Value(_)) => Some(OVERFLOW),
        }
    }

    fn tags(self) -> Option<&'a BTreeMap<String, Tag>> {
        match self {
            Self::AsTheyAre => None,
            Self::Of(group, _) | Self::Folded(group) => Some(&group.tags),
        }
    }

    /// What a standard label has in place of its own value; `None` within: nothing, and it is left out. `None`:
    /// its own.
    pub(super) fn instead(self, name: &str) -> Option<Option<&'a str>> {
        self.tags()?.get(name).map(|tag| self.value(tag))
    }

    /// All tags that have a value, by their names.
    pub(super) fn all(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let tags = self.tags().into_iter().flatten();
        tags.filter_map(move |(name, tag)| Some((name.as_str(), self.value(tag)?)))
    }
}
