//! Answers of `heddle check`, printed as they come.

use serde::Serialize;

use crate::output;

/// How one question was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Answer {
    /// As it is to be.
    Ok,
    /// It works, and somebody should know.
    Warning,
    /// It does not work.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Checked {
    /// What was asked.
    pub(super) what: String,
    pub(super) answer: Answer,
    /// What was found, and what would help.
    pub(super) said: String,
}

/// Collects answers and prints them as they come.
pub(super) struct Report {
    pub(super) shows: bool,
    pub(super) checks: Vec<Checked>,
}

impl Report {
    pub(super) fn ok(&mut self, what: &str, said: impl Into<String>) {
        self.note(what, Answer::Ok, said.into());
    }

    pub(super) fn warning(&mut self, what: &str, said: impl Into<String>) {
        self.note(what, Answer::Warning, said.into());
    }

    pub(super) fn failed(&mut self, what: &str, said: impl ToString) {
        self.note(what, Answer::Failed, said.to_string());
    }

    /// What is wrong, one sentence each, or that nothing is.
    pub(super) fn judged(
        &mut self,
        what: &str,
        bad: Answer,
        wrong: &[String],
        right: impl Into<String>,
    ) {
        match wrong {
            [] => self.ok(what, right),
            wrong => self.note(what, bad, wrong.join("\n")),
        }
    }

    fn note(&mut self, what: &str, answer: Answer, said: String) {
        if self.shows {
            let mark = match answer {
                Answer::Ok => "ok     ",
                Answer::Warning => "warning",
                Answer::Failed => "failed ",
            };
            let indent = " ".repeat(mark.len() + 2);
            output::line(format!("{mark}  {what}: {}", said.replace('\n', &format!("\n{indent}"))));
        }
        self.checks.push(Checked { what: what.to_owned(), answer, said });
    }
}
