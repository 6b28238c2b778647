//! A small schema language: which fields an object has, what each may hold, and whether it has
//! effect yet. One walk checks types, ranges, unknown and missing fields, and notes what is not
//! enforced. Conditions across fields are rules beside the tables.

use super::{
    node::{Node, Value},
    report::{Report, closest, suggest},
    value,
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
    kind: Kind,
    must: Must,
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
    Field { name, kind, must: Must::Nothing }
}

/// A field that must be there.
pub(super) const fn required(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, must: Must::Exist }
}

/// A field that is checked and then noted as not enforced yet.
pub(super) const fn not_yet(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, must: Must::BeNoted }
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
/// Labels as in Kubernetes.
pub(super) const LABELS: Kind =
    Kind::Map { key: value::label_key, of: &Kind::Text(value::label_value) };

/// Checks `node` against `kind`.
pub(super) fn check(node: &Node, kind: &Kind, path: &str, report: &mut Report<'_>) {
    match kind {
        Kind::Any => {}
        Kind::Object(object) => check_object(node, object, path, report),
        Kind::List { of, least } => check_list(node, of, *least, path, report),
        Kind::Map { key, of } => check_map(node, *key, of, path, report),
        scalar => {
            if let Err(reason) = check_scalar(node, scalar) {
                report.at(node, path, reason);
            }
        }
    }
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
                report.error(entry.line, &place, suggest("field", &entry.key, &names));
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
            report.error(entry.line, &place, reason);
        }
        if entry.value.value == Value::Null {
            let empty = if matches!(of, Kind::Object(_)) { "`{}`" } else { "`\"\"`" };
            report.error(entry.line, &place, format!("no value: write {empty} for an empty one"));
        } else {
            check(&entry.value, of, &place, report);
        }
    }
}

fn check_scalar(node: &Node, kind: &Kind) -> Result<(), String> {
    let Value::Scalar { text, plain } = &node.value else {
        return Err(format!("{} where a single value belongs", node.describe()));
    };
    match kind {
        Kind::Bool if *plain && matches!(text.as_str(), "true" | "false" | "True" | "False") => {
            Ok(())
        }
        Kind::Bool => Err(format!("{} is neither `true` nor `false`", node.describe())),
        Kind::Int { min, max } => match text.parse::<i64>() {
            Ok(_) if !plain => Err(format!("{} is text: leave out the quotes", node.describe())),
            Ok(number) if (*min..=*max).contains(&number) => Ok(()),
            Ok(number) => Err(format!("{number} is out of range: use {min} to {max}")),
            Err(_) => Err(format!("{} is no whole number from {min} to {max}", node.describe())),
        },
        Kind::Number { min, max } => match text.parse::<f64>() {
            Ok(_) if !plain => Err(format!("{} is text: leave out the quotes", node.describe())),
            Ok(number) if (*min..=*max).contains(&number) => Ok(()),
            Ok(number) => Err(format!("{number} is out of range: use {min} to {max}")),
            Err(_) => Err(format!("{} is no number from {min} to {max}", node.describe())),
        },
        Kind::Text(_) | Kind::Duration { .. } | Kind::Choice(_) if *plain && not_text(text) => {
            Err(text_needed(text, kind))
        }
        Kind::Text(accepts) => accepts(text),
        Kind::Duration { least_ms } => value::duration(text).and_then(|duration| {
            if duration.as_millis() < u128::from(*least_ms) {
                return Err(format!("`{text}` is too short: use at least {least_ms}ms"));
            }
            Ok(())
        }),
        Kind::Choice(words) if words.contains(&text.as_str()) => Ok(()),
        Kind::Choice(words) => Err(suggest("value", text, words)),
        Kind::Any | Kind::List { .. } | Kind::Map { .. } | Kind::Object(_) => Ok(()),
    }
}

/// Would Kubernetes take this plain word as a number or a boolean?
fn not_text(text: &str) -> bool {
    let number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && text.parse::<f64>().is_ok();
    number || matches!(text, "true" | "false" | "True" | "False" | "TRUE" | "FALSE")
}

fn text_needed(text: &str, kind: &Kind) -> String {
    match kind {
        Kind::Duration { .. } => {
            format!("`{text}` has no unit: write e.g. `{text}s` or `{text}ms`")
        }
        _ => format!("`{text}` is no text: put it in quotes, \"{text}\""),
    }
}

/// Bytes of a key that a path shows: a whole label key with its prefix. A path is made for every
/// field below the key, so an endless key would cost its length each time.
const KEY_SHOWN_MAX: usize = 320;

/// `a.b`, or `a["b.c"]` where the key itself has a dot.
pub(super) fn join(path: &str, key: &str) -> String {
    let end = (0..=key.len().min(KEY_SHOWN_MAX)).rev().find(|at| key.is_char_boundary(*at));
    let key = &key[..end.unwrap_or(0)];
    if path.is_empty() {
        key.to_owned()
    } else if key.contains(['.', '/', ' ', '[']) {
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
