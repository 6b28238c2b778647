//! A span that somebody sent, whatever it was written in: what is kept of it, cut to limits, since senders are
//! programs that nobody here wrote. How it is read is in `read_otlp` and `read_zipkin`.

use std::fmt;

use minicbor::{Decode, Encode};
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// Longest name of a service or a workload, bytes.
pub const WHO_BYTES_MAX: usize = 253;
/// Longest name of a span or of a tag, bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest value of a tag, or text of an event, bytes.
pub const VALUE_BYTES_MAX: usize = 1_024;
/// Tags of a span; further ones are left out.
pub const TAGS_MAX: usize = 96;
/// Events of a span; further ones are left out.
pub const EVENTS_MAX: usize = 48;
/// Values of a span in JSON. One with as many attributes and events as OpenTelemetry's libraries let it have, 128 each,
/// has half of them.
pub(super) const VALUES_MAX: usize = 8_192;

/// Which end of a call a span is, if it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum ReceivedKind {
    /// Work within a program.
    #[default]
    #[n(1)]
    Internal,
    /// Who is called.
    #[n(2)]
    Server,
    /// Who calls.
    #[n(3)]
    Client,
    /// Who puts something into a queue.
    #[n(4)]
    Producer,
    /// Who takes something out of a queue.
    #[n(5)]
    Consumer,
}

impl ReceivedKind {
    /// Its word in JSON and on pages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// One span.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Received {
    /// Its trace; 64-bit ids have zeros before them. Never 0.
    pub trace: u128,
    /// Its id, never 0. In Zipkin's model both ends of a call may have the same.
    pub id: u64,
    /// The span that it is part of.
    pub parent: Option<u64>,
    /// Who made it: `service.name` or `serviceName`.
    pub service: String,
    /// Which workload of that, or empty.
    pub workload: String,
    /// What was called, or done.
    pub name: String,
    /// Which end.
    pub kind: ReceivedKind,
    /// When it began, microseconds since 1970.
    pub start: u64,
    /// How long it took, microseconds.
    pub duration: u64,
    /// Its sender says that it failed.
    pub failed: bool,
    /// What is known of it, by tag.
    pub tags: Vec<(String, String)>,
    /// What happened on the way, and when, microseconds since 1970.
    pub events: Vec<(u64, String)>,
}

impl Received {
    /// The value of the first of these tags that it has.
    #[must_use]
    pub fn tag(&self, names: &[&str]) -> Option<&str> {
        let value = |name: &&str| self.tags.iter().find(|(one, _)| one == name);
        names.iter().find_map(value).map(|(_, value)| value.as_str())
    }

    /// About how much memory it takes, bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let tags = self.tags.iter().map(|(name, value)| name.len() + value.len() + 48);
        let events = self.events.iter().map(|(_, what)| what.len() + 32);
        let own = self.service.len() + self.workload.len() + self.name.len();
        size_of::<Self>() + own + tags.chain(events).sum::<usize>()
    }

    pub(super) fn add_tag(&mut self, name: &str, value: String) {
        if self.tags.len() < TAGS_MAX && !name.is_empty() {
            self.tags.push((cut(name.to_owned(), NAME_BYTES_MAX), cut(value, VALUE_BYTES_MAX)));
        }
    }

    pub(super) fn add_event(&mut self, at: u64, what: String) {
        if self.events.len() < EVENTS_MAX {
            self.events.push((at, cut(what, VALUE_BYTES_MAX)));
        }
    }

    /// Cut to its limits; `None`: it does not say what a span has to say.
    fn whole(mut self) -> Option<Self> {
        self.service = cut(self.service, WHO_BYTES_MAX);
        self.workload = cut(self.workload, WHO_BYTES_MAX);
        self.name = cut(self.name, NAME_BYTES_MAX);
        if self.service.is_empty() {
            "unknown".clone_into(&mut self.service);
        }
        // A span that is its own parent has none.
        self.parent = self.parent.filter(|parent| *parent != 0 && *parent != self.id);
        (self.trace != 0 && self.id != 0 && self.start != 0).then_some(self)
    }
}

/// What a body held.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// Spans, as many as were asked for at most.
    pub spans: Vec<Received>,
    /// How many others there were: too many, too large, or not whole.
    pub rejected: usize,
}

impl Batch {
    pub(super) fn add(&mut self, span: Option<Received>, most: usize) {
        match span.and_then(Received::whole).filter(|_| self.spans.len() < most) {
            Some(span) => self.spans.push(span),
            None => self.rejected += 1,
        }
    }
}

/// Why a body holds no spans at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// At most so many bytes of it, and no room for more: what is kept is counted by its length.
pub(super) fn cut(mut text: String, most: usize) -> String {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.shrink_to_fit();
    text
}

/// Reads one value of JSON with everything in it, [`VALUES_MAX`] values at most: a list of empty objects takes a
/// hundred times the memory that it has as text. What has more is read to its end, and is nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bounded;

impl<'de> DeserializeSeed<'de> for Bounded {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Option<Value>, D::Error> {
        let mut left = VALUES_MAX;
        let value = Tree(&mut left).deserialize(reader)?;
        Ok((left > 0).then_some(value))
    }
}

/// A value, and how many more there may be; at 0 all others are passed over.
struct Tree<'l>(&'l mut usize);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        *self.0 = self.0.saturating_sub(1);
        if *self.0 == 0 {
            return reader.deserialize_ignored_any(IgnoredAny).map(|_| Value::Null);
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sent: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sent.next_element_seed(Tree(self.0))? {
            if *self.0 > 0 {
                values.push(value);
            }
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut sent: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = sent.next_key::<String>()? {
            let value = sent.next_value_seed(Tree(self.0))?;
            if *self.0 > 0 {
                values.insert(name, value);
            }
        }
        Ok(Value::Object(values))
    }
}

/// An id of 1 to `most` hexadecimal digits.
pub(super) fn hex(text: &str, most: usize) -> Option<u128> {
    let fits = (1..=most).contains(&text.len()) && text.bytes().all(|one| one.is_ascii_hexdigit());
    fits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bounded(text: &str) -> Option<Value> {
        Bounded.deserialize(&mut serde_json::Deserializer::from_str(text)).unwrap()
    }

    #[test]
    fn what_is_cut_keeps_no_room_for_what_it_was() {
        let text = cut("ä".repeat(60_000), WHO_BYTES_MAX);
        assert_eq!((text.len(), text.capacity()), (WHO_BYTES_MAX - 1, WHO_BYTES_MAX - 1));
    }

    #[test]
    fn a_value_with_too_many_values_is_none() {
        let list = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
        assert!(bounded(&list(VALUES_MAX - 2)).is_some());
        assert_eq!(bounded(&list(VALUES_MAX)), None);
        assert_eq!(bounded(&format!("{{\"a\":{}}}", list(300_000))), None);
    }

    proptest! {
        #[test]
        fn any_other_value_is_what_it_is(numbers: (u64, i64, f64), text: String, flag: bool) {
            let value = serde_json::json!({
                &text: [numbers.0, numbers.1, numbers.2, flag, null, { "a": &text }], "b": {},
            });
            let written = value.to_string();
            let wanted: Value = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(bounded(&written), Some(wanted));
        }
    }
}
