//! The printer: the only place of the command line that writes to standard output and error.
//!
//! What is printed is made elsewhere, as text or as one serialisable struct, but for forms that several commands
//! have: tables, times since, words that are cut. A reader that goes away early (`heddle get | head -1`) is no error.

use std::io::{self, Write as _};

use heddle_wire::local::control_api::Problem;
use serde::Serialize;

use crate::failure::Failure;

/// At most so many characters, the last of which says that there were more.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// A time since, in words.
pub(crate) fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

/// Prints text and a line end to standard output.
pub(crate) fn line(text: impl AsRef<str>) {
    write(&mut io::stdout().lock(), text.as_ref());
}

/// The same; false where the reader has gone.
pub(crate) fn line_while_read(text: impl AsRef<str>) -> bool {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush());
    written.is_ok()
}

/// Prints text as it is and a line end to standard error.
pub(crate) fn aside(text: &str) {
    write(&mut io::stderr().lock(), text);
}

/// Prints one JSON document to standard output.
///
/// # Errors
/// Never for our own types; a refusal naming the defect if a type cannot be JSON.
pub(crate) fn json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::refused(format!("cannot write the answer as JSON: {error}")))?;
    line(text);
    Ok(())
}

/// Prints a line for people to standard error: progress, warnings.
pub(crate) fn notice(text: impl AsRef<str>) {
    write(&mut io::stderr().lock(), &format!("heddle: {}", text.as_ref()));
}

/// Prints why a command failed to standard error.
pub(crate) fn failure(failure: &Failure) {
    if !failure.message.is_empty() {
        notice(&failure.message);
    }
}

/// What a failed command prints where JSON was asked for.
#[derive(Debug, Serialize)]
struct Errors {
    errors: Vec<Problem>,
}

/// Prints why a command failed as one line of JSON to standard error.
pub(crate) fn json_failure(failure: &Failure) {
    if failure.message.is_empty() {
        return;
    }
    let errors = Errors { errors: failure.told() };
    match serde_json::to_string(&errors) {
        Ok(text) => write(&mut io::stderr().lock(), &text),
        Err(_) => notice(&failure.message),
    }
}

/// Lines up `rows` below `head`, two spaces between the columns.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain(head.get(column).map(|cell| cell.len()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let join = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let lines = std::iter::once(&head).chain(rows).map(|cells| join(cells));
    lines.collect::<Vec<_>>().join("\n")
}

fn write(to: &mut impl io::Write, text: &str) {
    // A closed pipe is the reader's choice; there is nobody left to tell.
    drop(writeln!(to, "{text}").and_then(|()| to.flush()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up_and_end_without_blanks() {
        let rows =
            vec![vec!["reviews".to_owned(), "1".to_owned()], vec!["a".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME     N\nreviews  1\na        22");
        assert_eq!(table(&["NAME", "N"], &[]), "NAME  N");
    }
}
