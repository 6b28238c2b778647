//! Documents as JSON values, and JSON values as YAML: for objects whose kinds nobody here knows, of which
//! every field is to survive. The order of fields is kept, comments are not.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value as Json};

use super::{
    emit::quoted,
    node::{self, Node, Value},
    report::ParseError,
    word::Word,
};

/// One document that is not empty.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonDocument {
    /// The line it begins on.
    pub line: usize,
    /// Its own text, without the `---` around it.
    pub text: String,
    /// What it says.
    pub value: Json,
}

/// Reads all documents of a file.
///
/// # Errors
/// What is wrong with the YAML itself.
pub fn documents(file: &str, text: &str) -> Result<Vec<JsonDocument>, Vec<ParseError>> {
    let (documents, flaws) = node::read(text);
    if !flaws.is_empty() {
        let error = |flaw: node::Flaw| ParseError {
            file: file.to_owned(),
            line: flaw.line,
            field: String::new(),
            reason: flaw.reason,
        };
        return Err(flaws.into_iter().map(error).collect());
    }
    let read = |document: node::Document| JsonDocument {
        line: document.root.line,
        value: json(&document.root),
        text: document.text,
    };
    Ok(documents.into_iter().map(read).collect())
}

/// Block-style YAML that reads back as the same value.
#[must_use]
pub fn to_yaml(value: &Json) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Scalar { text, plain: false, .. } => Json::String(text.clone()),
        Value::Scalar { text, .. } => word(node.written()).unwrap_or_else(|| text.clone().into()),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            let entries = entries.iter().map(|entry| (entry.key.clone(), json(&entry.value)));
            Json::Object(entries.collect::<Map<_, _>>())
        }
    }
}

/// What an unquoted word means where it is not text.
fn word(text: &str) -> Option<Json> {
    match Word::of(text) {
        Word::Null => Some(Json::Null),
        Word::Bool(value) => Some(value.into()),
        Word::Int(number) => {
            let unsigned = u64::try_from(number).map(Number::from);
            let number = unsigned.or_else(|_| i64::try_from(number).map(Number::from));
            number.ok().map(Json::Number)
        }
        Word::Float(number) => Number::from_f64(number).map(Json::Number),
        Word::Text => None,
    }
}

/// Writes `value` where a line begins at `indent`, and ends the line.
fn block(value: &Json, indent: usize, text: &mut String) {
    match value {
        Json::Object(entries) if !entries.is_empty() => {
            for (i, (key, value)) in entries.iter().enumerate() {
                pad(indent, i, text);
                text.push_str(&word_or_quoted(key));
                text.push(':');
                below(value, indent, text);
            }
        }
        Json::Array(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                pad(indent, i, text);
                text.push_str("- ");
                block(item, indent + 2, text);
            }
        }
        Json::String(string) if is_block(string) => literal(string, indent, text),
        value => {
            text.push_str(&flow(value));
            text.push('\n');
        }
    }
}

/// Writes `value` behind a key at `indent`; lists stand below their key without further indent.
fn below(value: &Json, indent: usize, text: &mut String) {
    let inner = match value {
        Json::Object(entries) if !entries.is_empty() => indent + 2,
        Json::Array(items) if !items.is_empty() => indent,
        Json::String(string) if is_block(string) => {
            text.push(' ');
            return literal(string, indent + 2, text);
        }
        value => {
            text.push(' ');
            return block(value, indent, text);
        }
    };
    text.push('\n');
    text.push_str(&" ".repeat(inner));
    block(value, inner, text);
}

/// The first line of a block continues the line it is on.
fn pad(indent: usize, position: usize, text: &mut String) {
    if position > 0 {
        text.push_str(&" ".repeat(indent));
    }
}

fn flow(value: &Json) -> String {
    match value {
        Json::Array(_) => "[]".to_owned(),
        Json::Object(_) => "{}".to_owned(),
        Json::String(string) => word_or_quoted(string),
        value => value.to_string(),
    }
}

/// Several lines that can stand as they are.
fn is_block(text: &str) -> bool {
    let odd = |c: char| {
        (c.is_control() && c != '\n') || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
    };
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.ends_with('\n')
        && !body.starts_with([' ', '\n'])
        && !text.contains(odd)
}

fn literal(string: &str, indent: usize, text: &mut String) {
    text.push_str(if string.ends_with('\n') { "|\n" } else { "|-\n" });
    for line in string.lines() {
        if !line.is_empty() {
            let _ = write!(text, "{}{line}", " ".repeat(indent));
        }
        text.push('\n');
    }
}

/// Plain where that is text beyond doubt, else in double quotes.
fn word_or_quoted(text: &str) -> String {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"-_./:".contains(&b);
    let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    let is_plain = starts_well && text.bytes().all(safe) && !text.ends_with(':');
    if is_plain && Word::of(text) == Word::Text { text.to_owned() } else { quoted(text) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn again(value: &Json) -> Json {
        let text = to_yaml(value);
        let mut read = documents("-", &text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
        assert_eq!(read.len(), 1, "{text}");
        read.remove(0).value
    }

    #[test]
    fn words_mean_what_kubernetes_reads_in_them() {
        let text = "a: yes\nb: 010\nc: \"10\"\nd: 1.5\ne: ~\nf: {}\ng: [x, 80]\nh: 1e3\ni: -5\n";
        let read = documents("-", text).unwrap();
        let expected = json!({"a": true, "b": 8, "c": "10", "d": 1.5, "e": null, "f": {}, "g": ["x", 80], "h": 1000.0, "i": -5});
        assert_eq!(read[0].value, expected);
        assert_eq!(again(&expected), expected);
    }

    #[test]
    fn the_order_of_fields_is_kept() {
        let text = "kind: Pod\napiVersion: v1\nspec:\n  b: 1\n  a: two\n";
        assert_eq!(to_yaml(&documents("-", text).unwrap()[0].value), text);
    }

    #[test]
    fn scripts_keep_their_lines() {
        let value = json!({"args": ["-c", "set -e\n\n  echo hi # no comment\n"], "b": "x\ny"});
        assert_eq!(
            to_yaml(&value),
            "args:\n- \"-c\"\n- |\n  set -e\n\n    echo hi # no comment\nb: |-\n  x\n  y\n"
        );
        assert_eq!(again(&value), value);
    }

    fn values() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            "\\PC{0,12}".prop_map(Json::from),
            "[ a-z\n#:-]{0,16}".prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                prop::collection::vec(("[a-z.:/ -]{1,8}", inner), 0..4)
                    .prop_map(|entries| Json::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(value in values()) {
            let value = json!({"v": value});
            prop_assert_eq!(again(&value), value);
        }
    }
}
