//! What is wrong with a file, and what is fine but without effect: collected, never thrown.

use std::fmt;

use super::node::Node;
use crate::resource::FieldNote;

/// Most errors told of one file; a file with more has one cause.
const ERRORS_MAX: usize = 100;
/// Characters of a word that are shown and compared with known ones; these are much shorter.
const WORD_CHARS_MAX: usize = 60;

/// One thing wrong with a file. Displayed as `file:line: field: reason`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// File as the user named it; `-` for standard input.
    pub file: String,
    /// 1-based line.
    pub line: usize,
    /// Field path, e.g. `spec.http[0].route[1].weight`; empty where it concerns the document.
    pub field: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ParseError {}

/// Collects errors and notes while documents are checked.
#[derive(Debug)]
pub(super) struct Report<'a> {
    file: &'a str,
    errors: Vec<ParseError>,
    notes: Vec<FieldNote>,
    /// Inside a field that is noted already.
    quiet: bool,
    /// Namespace of the object that is being checked.
    namespace: String,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a str) -> Self {
        let (errors, notes, namespace) = (Vec::new(), Vec::new(), String::new());
        Self { file, errors, notes, quiet: false, namespace }
    }

    /// Begins with another object.
    pub(super) fn begin(&mut self, namespace: &str) {
        namespace.clone_into(&mut self.namespace);
    }

    /// Namespace of the object that is being checked.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) fn error(&mut self, line: usize, field: &str, reason: impl Into<String>) {
        if self.errors.len() < ERRORS_MAX {
            let (file, field) = (self.file.to_owned(), field.to_owned());
            self.errors.push(ParseError { file, line, field, reason: reason.into() });
        }
    }

    /// An error at `node`.
    pub(super) fn at(&mut self, node: &Node, field: &str, reason: impl Into<String>) {
        self.error(node.line, field, reason);
    }

    /// A valid field that has no effect yet.
    pub(super) fn not_enforced(&mut self, line: usize, field: &str) {
        if !self.quiet {
            self.notes.push(FieldNote { field: field.to_owned(), line, reason: None });
        }
    }

    /// A field that does nothing as it is written, in Istio neither.
    pub(super) fn no_effect(&mut self, line: usize, field: &str, reason: &str) {
        self.notes.push(FieldNote {
            field: field.to_owned(),
            line,
            reason: Some(reason.to_owned()),
        });
    }

    /// Runs `check` with notes switched off: the field that holds all of it is noted already.
    pub(super) fn quietly(&mut self, check: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.quiet, true);
        check(self);
        self.quiet = before;
    }

    /// How many errors there are; to see whether a part was clean.
    pub(super) fn count(&self) -> usize {
        self.errors.len()
    }

    /// The notes since the last call.
    pub(super) fn take_notes(&mut self) -> Vec<FieldNote> {
        std::mem::take(&mut self.notes)
    }

    /// All errors, in the order of their lines.
    pub(super) fn into_errors(mut self) -> Vec<ParseError> {
        self.errors.sort_by_key(|error| error.line);
        self.errors
    }
}

/// Appends `; did you mean …?`, or the list of what is known.
pub(super) fn suggest(what: &str, written: &str, known: &[&str]) -> String {
    let written: String = written.chars().take(WORD_CHARS_MAX).collect();
    let known_list = || known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
    match closest(&written, known) {
        Some(near) => format!("unknown {what} `{written}`; did you mean `{near}`?"),
        None if known.is_empty() => format!("unknown {what} `{written}`; none is allowed here"),
        None => format!("unknown {what} `{written}`; use one of {}", known_list()),
    }
}

/// The known word nearest to what was written, if it is near enough to be meant.
pub(super) fn closest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    // Comparing takes time in proportion to its length, and a file decides that.
    let written: String = written.chars().take(WORD_CHARS_MAX).collect();
    let lower = written.to_lowercase();
    let best = known.iter().map(|word| (distance(&lower, &word.to_lowercase()), *word)).min()?;
    (best.0 <= 1 + written.chars().count() / 4).then_some(best.1)
}

/// Edits between two words: insert, delete, replace, or swap of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_nonsense_is_not() {
        let known = ["weight", "destination", "headers"];
        assert_eq!(closest("wieght", &known), Some("weight"));
        assert_eq!(closest("Destinations", &known), Some("destination"));
        assert_eq!(closest("colour", &known), None);
        assert_eq!(
            suggest("field", "colour", &known),
            "unknown field `colour`; use one of `weight`, `destination`, `headers`"
        );
    }

    #[test]
    fn an_endless_word_is_compared_by_its_beginning() {
        let began = crate::yaml::tests::now();
        for _ in 0..1_000 {
            assert_eq!(closest(&"wieght".repeat(100_000), &["weight"; 50]), None);
        }
        assert!(crate::yaml::tests::now() - began < std::time::Duration::from_secs(20));
    }

    #[test]
    fn an_error_reads_as_place_field_reason() {
        let mut report = Report::new("rules.yaml");
        report.error(7, "spec.hosts", "missing");
        report.error(3, "", "no mapping");
        let lines: Vec<_> = report.into_errors().iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["rules.yaml:3: no mapping", "rules.yaml:7: spec.hosts: missing"]);
    }
}
