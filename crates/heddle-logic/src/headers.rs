//! Changes to the fields of a head, as rules have them: put together once, carried out per request by
//! whoever writes heads. Not the fields that delimit a message: no rule changes those.

use std::{collections::BTreeMap, sync::Arc};

use heddle_model::discovery::HeaderOperations;

/// A change to the fields of a head. Names are compared without case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderEdit {
    /// The field has this value and no other.
    Set(Arc<str>, Arc<str>),
    /// The field has this value besides.
    Add(Arc<str>, Arc<str>),
    /// There is no such field.
    Remove(Arc<str>),
}

impl HeaderEdit {
    /// Sets a field.
    #[must_use]
    pub fn set(name: &str, value: &str) -> Self {
        Self::Set(name.into(), value.into())
    }

    /// The field's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Set(name, _) | Self::Add(name, _) | Self::Remove(name) => name,
        }
    }

    /// Does it decide alone what the field is?
    #[must_use]
    pub fn replaces(&self) -> bool {
        !matches!(self, Self::Add(..))
    }
}

/// What becomes of one field.
#[derive(Default)]
struct Course<'a> {
    removed: bool,
    set: Option<&'a str>,
    added: Vec<&'a str>,
}

/// The changes of several places, each carried out on what those before it left. Of one place what is
/// removed goes first, then what is set, then what is added. In the result at most one change to a field
/// replaces it, and that one comes first.
#[must_use]
pub fn edits(places: &[&HeaderOperations]) -> Vec<HeaderEdit> {
    let mut fields: BTreeMap<&str, Course<'_>> = BTreeMap::new();
    for place in places {
        for name in &place.remove {
            fields.insert(name, Course { removed: true, ..Course::default() });
        }
        for (name, value) in &place.set {
            fields.insert(name, Course { set: Some(value), ..Course::default() });
        }
        for (name, value) in &place.add {
            fields.entry(name).or_default().added.push(value);
        }
    }
    let mut all = Vec::new();
    for (name, course) in fields {
        match course.set {
            Some(value) => all.push(HeaderEdit::set(name, value)),
            None if course.removed => all.push(HeaderEdit::Remove(name.into())),
            None => {}
        }
        all.extend(course.added.iter().map(|value| HeaderEdit::Add(name.into(), (*value).into())));
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Operations of one place on the fields `a`, `b` and `c`.
    fn place() -> impl Strategy<Value = HeaderOperations> {
        let name = || "[abc]";
        (vec(name(), 0..3), vec((name(), "[0-9]"), 0..3), vec((name(), "[0-9]"), 0..3)).prop_map(
            |(remove, set, add)| HeaderOperations {
                remove,
                set: set.into_iter().collect(),
                add: add.into_iter().collect(),
            },
        )
    }

    fn apply(fields: &mut Vec<(String, String)>, edits: &[HeaderEdit]) {
        for edit in edits {
            if edit.replaces() {
                fields.retain(|(name, _)| !name.eq_ignore_ascii_case(edit.name()));
            }
            if let HeaderEdit::Set(name, value) | HeaderEdit::Add(name, value) = edit {
                fields.push((name.to_string(), value.to_string()));
            }
        }
    }

    /// One operation after the other, as Envoy evaluates each place.
    fn naive(fields: &mut Vec<(String, String)>, place: &HeaderOperations) {
        fields.retain(|(name, _)| !place.remove.contains(name));
        fields.retain(|(name, _)| !place.set.contains_key(name));
        fields.extend(place.set.clone());
        fields.extend(place.add.clone());
    }

    proptest! {
        #[test]
        fn places_put_together_do_what_they_do_one_after_the_other(
            places in vec(place(), 0..3), sent in vec(("[abc]", "[x-z]"), 0..4),
        ) {
            let (mut one, mut all) = (sent.clone(), sent);
            places.iter().for_each(|place| naive(&mut one, place));
            let edits = edits(&places.iter().collect::<Vec<_>>());
            apply(&mut all, &edits);
            one.sort_by(|a, b| a.0.cmp(&b.0));
            all.sort_by(|a, b| a.0.cmp(&b.0));
            prop_assert_eq!(one, all);
            for name in ["a", "b", "c"] {
                let of_it: Vec<_> = edits.iter().filter(|edit| edit.name() == name).collect();
                prop_assert!(of_it.iter().skip(1).all(|edit| !edit.replaces()));
            }
        }
    }
}
