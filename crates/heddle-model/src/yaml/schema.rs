//! A small schema language: which fields an object has, what each may hold, and whether it has
//! effect yet. One walk checks types, ranges, unknown and missing fields, and notes what is not
//! enforced. Conditions across fields are rules beside the tables.

use std::str::FromStr;

use super::{
    hint,
    node::{Node, Value},
    report::{Report, closest, suggest},
    value,
    word::Word,
};

/// Checks a text; the error says what would be right.
pub(super) type TextCheck = fn(&str) -> Result<(), String>;
/// A condition across the fields of an object that is otherwise clean: node, its path, report.
pub(super) type Rule = fn(&Node, &str, &mut Report<'_>);

/// What a field may hold.
#[derive(Debug)]
pub(super) enum Kind {
    /// Anything; not looked into.
    Any,
    Text(TextCheck),
    /// A text or a number, quoted or not.
    Word(TextCheck),
    Bool,
    Int {
        min: i64,
        max: i64,
    },
    Number {
        min: f64,
        max: f64,
    },
    /// `1h`, `1m30s`, `250ms`; at least this many milliseconds.
    Duration {
        least_ms: u64,
    },
    Choice(&'static [&'static str]),
    List {
        of: &'static Self,
        least: usize,
    },
    Map {
        key: TextCheck,
        of: &'static Self,
    },
    Object(&'static Object),
    /// The first where it is a single value, else the second.
    Either(&'static Self, &'static Self),
}

/// What an object holds.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) fields: &'static [Field],
    pub(super) rules: &'static [Rule],
}

/// One field.
#[derive(Debug)]
pub(super) struct Field {
    name: &'static str,
    /// Another name it goes by.
    alias: Option<&'static str>,
    kind: Kind,
    must: Must,
    /// Is it there even if it is empty or zero? So it is where one of several fields may be given.
    even_if_empty: bool,
}

impl Field {
    const fn new(name: &'static str, kind: Kind, must: Must) -> Self {
        Self { name, alias: None, kind, must, even_if_empty: false }
    }

    /// The same, but an empty value counts as one.
    pub(super) const fn even_if_empty(self) -> Self {
        Self { even_if_empty: true, ..self }
    }

    /// The same, under another name too.
    pub(super) const fn or_named(self, alias: &'static str) -> Self {
        Self { alias: Some(alias), ..self }
    }

    /// Its name.
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alias == Some(name)
    }

    /// Does this value say no more than none would? Protobuf cannot tell the two apart.
    fn is_absent(&self, value: &Node) -> bool {
        match (&value.value, &self.kind) {
            _ if self.even_if_empty => false,
            (Value::Scalar { text, .. }, Kind::Text(_)) => text.is_empty(),
            (Value::Scalar { text, plain: true, .. }, Kind::Int { min: 1.., .. }) => text == "0",
            (Value::List(items), Kind::List { .. }) => items.is_empty(),
            _ => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    Exist,
    Nothing,
    /// Valid, noted as not enforced yet.
    BeNoted,
}

/// A field that may be absent.
pub(super) const fn optional(name: &'static str, kind: Kind) -> Field {
    Field::new(name, kind, Must::Nothing)
}

/// A field that must be there.
pub(super) const fn required(name: &'static str, kind: Kind) -> Field {
    Field::new(name, kind, Must::Exist)
}

/// A field that is checked and then noted as not enforced yet.
pub(super) const fn not_yet(name: &'static str, kind: Kind) -> Field {
    Field::new(name, kind, Must::BeNoted)
}

/// A count that protobuf keeps in 32 bits, unsigned.
pub(super) const COUNT: Kind = Kind::Int { min: 0, max: u32::MAX as i64 };
/// A count that protobuf keeps in 32 bits, signed, and that must not be negative.
pub(super) const SMALL_COUNT: Kind = Kind::Int { min: 0, max: i32::MAX as i64 };
/// A TCP port.
pub(super) const PORT: Kind = Kind::Int { min: 1, max: 65_535 };
/// A duration of at least 1 ms, as Istio asks.
pub(super) const DURATION: Kind = Kind::Duration { least_ms: 1 };
/// Any text.
pub(super) const TEXT: Kind = Kind::Text(value::any);
/// Text that is not empty.
pub(super) const NAME: Kind = Kind::Text(value::not_empty);
/// Labels that a rule asks for. As in Istio, values may be longer than an object's can be.
pub(super) const LABELS: Kind =
    Kind::Map { key: value::label_key, of: &Kind::Text(value::asked_label_value) };

/// Brings a tree into the form that checks and readers see: a field has its own name, and one that is
/// empty is absent.
pub(super) fn settle(node: &mut Node, kind: &Kind) {
    match (&mut node.value, kind) {
        (Value::Map(entries), Kind::Object(object)) => {
            let field_of = |key: &str| object.fields.iter().find(|field| field.is_called(key));
            entries.retain(|entry| {
                !field_of(&entry.key).is_some_and(|field| field.is_absent(&entry.value))
            });
            let given: Vec<String> = entries.iter().map(|entry| entry.key.clone()).collect();
            for entry in entries {
                let Some(field) = field_of(&entry.key) else { continue };
                if entry.key != field.name && !given.iter().any(|key| key == field.name) {
                    entry.key = field.name.to_owned();
                }
                settle(&mut entry.value, &field.kind);
            }
        }
        (Value::Map(entries), Kind::Map { of, .. }) => {
            entries.iter_mut().for_each(|entry| settle(&mut entry.value, of));
        }
        (Value::List(items), Kind::List { of, .. }) => {
            items.iter_mut().for_each(|item| settle(item, of));
        }
        (Value::Map(_), Kind::Either(_, other)) => settle(node, other),
        _ => {}
    }
}

/// Checks `node` against `kind`.
pub(super) fn check(node: &Node, kind: &Kind, path: &str, report: &mut Report<'_>) {
    match kind {
        Kind::Any => {}
        Kind::Object(object) => check_object(node, object, path, report),
        Kind::List { of, least } => check_list(node, of, *least, path, report),
        Kind::Map { key, of } => check_map(node, *key, of, path, report),
        Kind::Either(single, other) => match &node.value {
            Value::Scalar { .. } => check(node, single, path, report),
            _ => check(node, other, path, report),
        },
        scalar => {
            if let Err(reason) = check_scalar(node, scalar) {
                report.at(node, path, or_unfilled(node.written(), reason));
            }
        }
    }
}

/// The reason, unless the text is a template's: then that is what is wrong.
fn or_unfilled(text: &str, reason: String) -> String {
    hint::placeholder(text).map_or(reason, |found| hint::unfilled(&found))
}

fn check_object(node: &Node, object: &Object, path: &str, report: &mut Report<'_>) {
    let Value::Map(entries) = &node.value else {
        let names: Vec<_> = object.fields.iter().map(|field| field.name).collect();
        let reason = format!("{} where a mapping with {} belongs", node.describe(), listed(&names));
        return report.at(node, path, reason);
    };
    let before = report.count();
    let names: Vec<_> = object.fields.iter().map(|field| field.name).collect();
    let mut meant = Vec::new();
    for entry in entries {
        let place = join(path, &entry.key);
        match object.fields.iter().find(|field| field.name == entry.key) {
            None => {
                meant.extend(closest(&entry.key, &names));
                let reason = suggest("field", &entry.key, &names);
                report.error(entry.line, &place, or_unfilled(&entry.key, reason));
            }
            Some(_) if entry.value.value == Value::Null => {}
            Some(field) if field.must == Must::BeNoted => {
                report.not_enforced(entry.line, &place);
                report.quietly(|report| check(&entry.value, &field.kind, &place, report));
            }
            Some(field) => check(&entry.value, &field.kind, &place, report),
        }
    }
    // A misspelt field is one error, not two.
    let missing = |field: &&Field| !node.has(field.name) && !meant.contains(&field.name);
    for field in object.fields.iter().filter(|field| field.must == Must::Exist).filter(missing) {
        report.at(node, &join(path, field.name), "this field is required");
    }
    if report.count() == before {
        for rule in object.rules {
            rule(node, path, report);
        }
    }
}

fn check_list(node: &Node, of: &Kind, least: usize, path: &str, report: &mut Report<'_>) {
    let Value::List(items) = &node.value else {
        let reason = format!("{} where a list belongs: begin each item with `- `", node.describe());
        return report.at(node, path, reason);
    };
    if items.len() < least {
        report.at(node, path, "the list is empty: at least one item is needed");
    }
    for (i, item) in items.iter().enumerate() {
        let place = format!("{path}[{i}]");
        if item.value == Value::Null {
            report.at(item, &place, "the item is empty");
        } else {
            check(item, of, &place, report);
        }
    }
}

fn check_map(node: &Node, key: TextCheck, of: &Kind, path: &str, report: &mut Report<'_>) {
    let Value::Map(entries) = &node.value else {
        let reason = format!("{} where a mapping belongs", node.describe());
        return report.at(node, path, reason);
    };
    for entry in entries {
        let place = join(path, &entry.key);
        if let Err(reason) = key(&entry.key) {
            report.error(entry.line, &place, or_unfilled(&entry.key, reason));
        }
        if entry.value.value == Value::Null {
            // Of texts, nothing is the empty one.
            if !matches!(of, Kind::Text(_)) {
                report.error(entry.line, &place, "no value: write `{}` for an empty one");
            }
        } else {
            check(&entry.value, of, &place, report);
        }
    }
}

fn check_scalar(node: &Node, kind: &Kind) -> Result<(), String> {
    let Value::Scalar { text, plain, .. } = &node.value else {
        return Err(format!("{} where a single value belongs", node.describe()));
    };
    let word = if *plain { Word::of(text) } else { Word::Text };
    match kind {
        Kind::Bool if matches!(word, Word::Bool(_)) => Ok(()),
        Kind::Bool => Err(format!("{} is neither `true` nor `false`", node.describe())),
        Kind::Int { min, max } => {
            let range = format!("{min} to {max}");
            check_number(node, *min, *max, "whole number", &range)
        }
        Kind::Number { min, max } => {
            // The greatest number of all has 309 digits.
            let most = if *max < f64::MAX { format!(" to {max}") } else { " or more".to_owned() };
            check_number(node, *min, *max, "number", &format!("{min}{most}"))
        }
        Kind::Text(_) | Kind::Duration { .. } | Kind::Choice(_) if word != Word::Text => {
            Err(text_needed(node, word, kind))
        }
        Kind::Text(accepts) | Kind::Word(accepts) => accepts(text),
        Kind::Duration { least_ms } => value::duration(text).and_then(|duration| {
            if duration.as_millis() < u128::from(*least_ms) {
                return Err(format!("`{text}` is too short: use at least {least_ms}ms"));
            }
            Ok(())
        }),
        Kind::Choice(words) if words.contains(&text.as_str()) => Ok(()),
        Kind::Choice(words) => Err(suggest("value", text, words)),
        Kind::Any | Kind::List { .. } | Kind::Map { .. } | Kind::Object(_) | Kind::Either(..) => {
            Ok(())
        }
    }
}

fn check_number<N: FromStr + PartialOrd>(
    node: &Node,
    min: N,
    max: N,
    what: &str,
    range: &str,
) -> Result<(), String> {
    let shown = node.describe();
    match node.text().parse::<N>() {
        Ok(_) if !node.is_plain() => Err(format!("{shown} is text: leave out the quotes")),
        Ok(number) if (min..=max).contains(&number) => Ok(()),
        Ok(_) => Err(format!("{shown} is out of range: use {range}")),
        Err(_) => Err(format!("{shown} is no {what} from {range}")),
    }
}

/// Kubernetes would take this unquoted word for a number or a boolean.
fn text_needed(node: &Node, word: Word, kind: &Kind) -> String {
    let (written, means) = (node.written(), node.text());
    match (kind, word) {
        (Kind::Duration { .. }, Word::Int(_) | Word::Float(_)) => {
            format!("`{written}` has no unit: write e.g. `{written}s` or `{written}ms`")
        }
        _ if written == means => {
            format!("`{written}` is no text: put it in quotes, \"{written}\"")
        }
        _ => {
            format!("`{written}` means {means} and is no text: put it in quotes, \"{written}\"")
        }
    }
}

/// Most names of which a certificate has to hold one.
pub(super) const SUBJECT_ALT_NAMES_MAX: usize = 100;

/// Bytes of a key that a path shows: a whole label key with its prefix. A path is made for every
/// field below the key, so an endless key would cost its length each time.
const KEY_SHOWN_MAX: usize = 320;

/// `a.b`, or `a["b.c"]` where the key itself has a dot or is empty.
pub(super) fn join(path: &str, key: &str) -> String {
    let end = (0..=key.len().min(KEY_SHOWN_MAX)).rev().find(|at| key.is_char_boundary(*at));
    let key = &key[..end.unwrap_or(0)];
    if path.is_empty() {
        key.to_owned()
    } else if key.is_empty() || key.contains(['.', '/', ' ', '[', ':']) {
        format!("{path}[\"{key}\"]")
    } else {
        format!("{path}.{key}")
    }
}

/// `` `a`, `b` or `c` ``.
pub(super) fn listed(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((only, _)) => only.clone(),
        None => "nothing".to_owned(),
    }
}

/// Which of these fields are present.
pub(super) fn present<'n>(node: &Node, names: &[&'n str]) -> Vec<&'n str> {
    names.iter().copied().filter(|name| node.has(name)).collect()
}

/// Reports more than one of `names`.
pub(super) fn at_most_one(node: &Node, names: &[&str], path: &str, report: &mut Report<'_>) {
    let found = present(node, names);
    if let [first, second, ..] = found[..] {
        let line = node.get(second).map_or(node.line, |node| node.line);
        let reason = format!("`{first}` and `{second}` exclude each other: keep one");
        report.error(line, &join(path, second), reason);
    }
}

/// Reports none or more than one of `names`.
pub(super) fn exactly_one(node: &Node, names: &[&str], path: &str, report: &mut Report<'_>) {
    at_most_one(node, names, path, report);
    at_least_one(node, names, path, report);
}

/// Reports none of `names`.
pub(super) fn at_least_one(node: &Node, names: &[&str], path: &str, report: &mut Report<'_>) {
    if present(node, names).is_empty() {
        report.at(node, path, format!("{} is needed", listed(names)));
    }
}

/// Reports a list that is longer than `most`.
pub(super) fn at_most(node: &Node, key: &str, most: usize, path: &str, report: &mut Report<'_>) {
    let items = node.items_of(key);
    if let Some(first) = items.get(most) {
        let reason = format!("{} items, more than the {most} allowed", items.len());
        report.at(first, &join(path, key), reason);
    }
}
