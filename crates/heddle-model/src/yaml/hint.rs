//! What is probably meant where a file is no YAML: the parser's own words tell what it found, seldom
//! what to do. Looks at the lines around the place, nothing else.

/// Marks of templates that were not filled in, with how they end.
const PLACEHOLDERS: &[(&str, &str)] = &[("${", "}"), ("{{", "}}"), ("<%", "%>")];
/// Characters of a placeholder that are shown.
const SHOWN_MAX: usize = 60;

/// Where something is really wrong and what to do, if the text around the line that the parser names
/// shows that.
pub(super) fn better(text: &str, at: usize) -> Option<(usize, String)> {
    // The parser sees some faults one line late.
    let near = |back: usize| {
        let line = at.checked_sub(back).filter(|line| *line > 0)?;
        text.lines().nth(line - 1).map(|content| (line, content))
    };
    let places: Vec<_> = [near(0), near(1)].into_iter().flatten().collect();
    // A line that goes on with a tab is often read as part of the one before it.
    let next = text.lines().nth(at).map(|content| (at + 1, content));
    let tab = places.iter().copied().chain(next).find(|(_, line)| is_indented_by_tab(line));
    if let Some((line, _)) = tab {
        let reason = "the line is indented with a tab: YAML takes only spaces".to_owned();
        return Some((line, reason));
    }
    for (line, content) in places {
        let reason = match (placeholder(content), unquoted_wildcard(content)) {
            (Some(found), _) => unfilled(&found),
            (None, Some(word)) => {
                format!("`{word}` begins with `*`, a sign of YAML's own: quote it, \"{word}\"")
            }
            (None, None) => continue,
        };
        return Some((line, reason));
    }
    None
}

/// The first placeholder in a text.
pub(super) fn placeholder(text: &str) -> Option<String> {
    let found = PLACEHOLDERS.iter().filter_map(|(begin, end)| {
        let at = text.find(begin)?;
        let len = text[at..].find(end)? + end.len();
        Some((at, text[at..at + len].chars().take(SHOWN_MAX).collect::<String>()))
    });
    found.min().map(|(_, found)| found)
}

/// What to say of a placeholder.
pub(super) fn unfilled(found: &str) -> String {
    let how = match found.starts_with("{{") {
        true => "render the template first, e.g. with `helm template`",
        false => "fill it in first, e.g. with `envsubst`",
    };
    format!("`{found}` is a placeholder that was not filled in: {how}")
}

fn is_indented_by_tab(line: &str) -> bool {
    let indent = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
    indent.contains('\t') && !line.trim().is_empty()
}

/// A word such as `*.shop` where a value begins.
fn unquoted_wildcard(line: &str) -> Option<&str> {
    let begins = |at: &usize| {
        let before = line[..*at].trim_end();
        before.is_empty() || before.ends_with(['-', ':', '[', ','])
    };
    let at = line.match_indices('*').map(|(at, _)| at).find(begins)?;
    let rest = &line[at..];
    let end = rest.find([',', ']', '}', ' ', '#']).unwrap_or(rest.len());
    Some(&rest[..end])
        .filter(|word| word.starts_with("*.") || word.len() == 1 || word.starts_with("*-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, line: usize) -> (usize, String) {
        better(text, line).unwrap_or_else(|| (line, "as it was".to_owned()))
    }

    #[test]
    fn what_people_forget_is_told_by_name() {
        assert!(told("hosts:\n- *.shop\n", 2).1.contains("\"*.shop\""));
        assert!(told("hosts: [*, a]\n", 1).1.contains("\"*\""));
        assert!(told("name: {{ .Values.a }}\n", 1).1.contains("helm template"));
        let tab = told("a:\n  b: c\n\td: e\n", 2);
        assert_eq!(tab.0, 3);
        assert!(tab.1.contains("tab"));
        assert_eq!(told("a: b: c\n", 1).1, "as it was");
        assert_eq!(told("a: *b\n", 1).1, "as it was", "an alias of YAML's own");
    }

    #[test]
    fn a_placeholder_is_found_in_any_text() {
        assert_eq!(placeholder("a.${NS}.svc").as_deref(), Some("${NS}"));
        assert_eq!(placeholder("{{ .Values.x }}").as_deref(), Some("{{ .Values.x }}"));
        assert_eq!(placeholder("a{1}$"), None);
        assert!(unfilled("${NS}").contains("envsubst"));
    }
}
