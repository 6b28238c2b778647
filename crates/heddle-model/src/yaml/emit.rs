//! A tree back into YAML text: for objects that have no text of their own, being items of a list.

use std::fmt::Write as _;

use super::node::{Node, Value};

/// Block-style YAML that reads back as the same tree.
pub(super) fn yaml(node: &Node) -> String {
    let mut text = String::new();
    block(node, 0, &mut text);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Writes `node` where a line begins at `indent`.
fn block(node: &Node, indent: usize, text: &mut String) {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            for (i, entry) in entries.iter().enumerate() {
                pad(indent, i, text);
                text.push_str(&scalar(&entry.key, true));
                text.push(':');
                below(&entry.value, indent + 2, text);
            }
        }
        Value::List(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                pad(indent, i, text);
                text.push_str("- ");
                block(item, indent + 2, text);
            }
        }
        _ => {
            text.push_str(&flow(node));
            text.push('\n');
        }
    }
}

/// Writes `node` after a key.
fn below(node: &Node, indent: usize, text: &mut String) {
    let nested = !node.entries().is_empty() || !node.items().is_empty();
    text.push(if nested { '\n' } else { ' ' });
    if nested {
        text.push_str(&" ".repeat(indent));
    }
    block(node, indent, text);
}

/// The first line of a block continues the line it is on.
fn pad(indent: usize, position: usize, text: &mut String) {
    if position > 0 {
        text.push_str(&" ".repeat(indent));
    }
}

fn flow(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Scalar { text, plain, .. } => scalar(text, *plain),
        Value::List(_) => "[]".to_owned(),
        Value::Map(_) => "{}".to_owned(),
    }
}

/// Plain where that is safe beyond doubt, else in double quotes.
fn scalar(text: &str, plain: bool) -> String {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if plain && starts_well && text.bytes().all(safe) {
        return text.to_owned();
    }
    quoted(text)
}

/// In double quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() || (0x2028..=0x2029).contains(&u32::from(c)) || c == '\u{feff}' => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::node;

    /// Without lines, which differ.
    fn shape(node: &Node) -> String {
        match &node.value {
            Value::Map(entries) => {
                let inner: Vec<_> =
                    entries.iter().map(|e| format!("{:?}:{}", e.key, shape(&e.value))).collect();
                format!("{{{}}}", inner.join(","))
            }
            Value::List(items) => format!("{:?}", items.iter().map(shape).collect::<Vec<_>>()),
            Value::Scalar { text, .. } => format!("{text:?}"),
            Value::Null => "null".to_owned(),
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let text = r#"
a: {b: [1, "2", [x, [y]], {}, [], null], "c d": "line\nbreak \u2028 \" \\"}
empty: ""
list:
- k: v
  l: [ {m: n, o: p}, q ]
- - nested
"#;
        let (documents, flaws) = node::read(text);
        assert_eq!(flaws, []);
        let written = yaml(&documents[0].root);
        let (again, flaws) = node::read(&written);
        assert_eq!(flaws, [], "{written}");
        assert_eq!(shape(&again[0].root), shape(&documents[0].root), "{written}");
    }
}
