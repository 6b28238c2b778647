//! `--selector`: what has these labels, in kubectl's words.

use std::collections::BTreeMap;

/// Most conditions in one selector.
const CONDITIONS_MAX: usize = 100;

/// Conditions on labels, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector(Vec<Condition>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Is(String, String),
    IsNot(String, String),
    Exists(String),
    Lacks(String),
}

impl Selector {
    /// Do these labels fulfil it?
    pub(crate) fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|condition| match condition {
            Condition::Is(key, value) => labels.get(key) == Some(value),
            Condition::IsNot(key, value) => labels.get(key) != Some(value),
            Condition::Exists(key) => labels.contains_key(key),
            Condition::Lacks(key) => !labels.contains_key(key),
        })
    }
}

/// Reads `k=v`, `k==v`, `k!=v`, `k` and `!k`, with commas between.
///
/// # Errors
/// What would be right.
pub(crate) fn parse(text: &str) -> Result<Selector, String> {
    let conditions = text.split(',').map(|part| {
        condition(part.trim()).ok_or_else(|| {
            format!("`{part}` is no condition on a label: use KEY=VALUE, KEY!=VALUE, KEY or !KEY")
        })
    });
    let conditions = conditions.collect::<Result<Vec<_>, String>>()?;
    if conditions.len() > CONDITIONS_MAX {
        return Err(format!("more than {CONDITIONS_MAX} conditions on labels"));
    }
    Ok(Selector(conditions))
}

fn condition(part: &str) -> Option<Condition> {
    let key = |text: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        (!text.is_empty() && text.chars().all(fits)).then(|| text.to_owned())
    };
    let value = |text: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        text.chars().all(fits).then(|| text.to_owned())
    };
    if let Some((name, wanted)) = part.split_once("!=") {
        return Some(Condition::IsNot(key(name)?, value(wanted)?));
    }
    if let Some((name, wanted)) = part.split_once('=') {
        return Some(Condition::Is(key(name)?, value(wanted.strip_prefix('=').unwrap_or(wanted))?));
    }
    match part.strip_prefix('!') {
        Some(name) => Some(Condition::Lacks(key(name)?)),
        None => Some(Condition::Exists(key(part)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_conditions_must_hold() {
        let labels =
            BTreeMap::from([("team", "shop"), ("tier", "")].map(|(k, v)| (k.into(), v.into())));
        for (text, fits) in [
            ("team=shop", true),
            ("team==shop,tier", true),
            ("team!=shop", false),
            ("other!=x,!other", true),
            ("!team", false),
            ("tier=", true),
            ("example.com/owner", false),
        ] {
            assert_eq!(parse(text).unwrap().fits(&labels), fits, "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_named() {
        for wrong in ["", ",", "a=b c", "=x", "!", "a in (b,c)", "a=b,,c"] {
            assert!(parse(wrong).unwrap_err().contains("KEY=VALUE"), "{wrong}");
        }
    }
}
