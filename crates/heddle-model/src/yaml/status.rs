//! An object's text with a `status` of its own making, as an API server shows it.

use super::{emit, node};

/// `text` with this `status` in place of the one it has; `status` is a JSON or YAML mapping. A text or a status
/// that cannot be read leaves it as it is.
///
/// Where the object has none the text stays as its author wrote it, comments included.
#[must_use]
pub fn with_status(text: &str, status: &str) -> String {
    let (documents, flaws) = node::read(text);
    let (statuses, status_flaws) = node::read(status);
    let ([document], [status]) = (&documents[..], &statuses[..]) else { return text.to_owned() };
    if !flaws.is_empty() || !status_flaws.is_empty() {
        return text.to_owned();
    }
    let block = emit::yaml(&status.root);
    let nested = || {
        let lines = block.lines().map(|line| format!("  {line}\n"));
        lines.collect::<String>()
    };
    let in_flow = text.trim_start().starts_with('{');
    if document.root.has("status") || in_flow {
        let mut root = document.root.clone();
        if let node::Value::Map(entries) = &mut root.value {
            entries.retain(|entry| entry.key != "status");
        }
        return format!("{}status:\n{}", emit::yaml(&root), nested());
    }
    format!("{}\nstatus:\n{}", text.trim_end(), nested())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{"parents":[{"status":"True","n":1}]}"#;
    const SHOWN: &str = "status:\n  parents:\n    - status: \"True\"\n      n: 1\n";

    #[test]
    fn a_status_comes_behind_the_text_as_it_was_written() {
        let text = "# why\nkind: A  # a comment\nspec: {b: 1}\n\n";
        assert_eq!(
            with_status(text, STATUS),
            format!("# why\nkind: A  # a comment\nspec: {{b: 1}}\n{SHOWN}")
        );
    }

    #[test]
    fn it_takes_the_place_of_the_one_that_is_there_and_of_none_in_a_text_of_another_style() {
        let old = "kind: A\nstatus:\n  parents: []\nspec: {}\n";
        let shown = with_status(old, STATUS);
        assert_eq!(shown.matches("parents").count(), 1, "{shown}");
        assert!(shown.ends_with(SHOWN) && shown.contains("kind: A\n"), "{shown}");
        let json = with_status(r#"{"kind": "A", "spec": {}}"#, STATUS);
        assert!(json.starts_with("kind: \"A\"\n") && json.ends_with(SHOWN), "{json}");
        assert_eq!(with_status("a: [", STATUS), "a: [", "what cannot be read stays");
    }
}
