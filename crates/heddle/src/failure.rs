//! How a command ends when it does not succeed: one message for people and one exit code.
//!
//! Usage errors (unknown flags, values that cannot be right) exit with [`USAGE`], refusals and
//! everything that went wrong while working with [`REFUSED`]. `heddle run` adds the shell's codes
//! for a command that cannot be started and for one that a signal ended.

use std::fmt;

use heddle_wire::local::control_api::Problem;

/// The flags or their values are wrong.
pub(crate) const USAGE: u8 = 2;
/// The request was understood and refused, or could not be carried out.
pub(crate) const REFUSED: u8 = 1;
/// `heddle run`: the command exists but cannot be executed, as in a shell.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// `heddle run`: the command does not exist, as in a shell.
pub(crate) const NOT_FOUND: u8 = 127;

/// Why a command ended without success. Its text is shown on stderr after `heddle: `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Exit code, 1 to 255.
    pub code: u8,
    /// What went wrong, where, and what to do; may have several lines, or none if all was said already.
    pub message: String,
    /// The same for programs, each with its place; empty where the message is all there is.
    pub problems: Vec<Problem>,
}

impl Failure {
    /// A request that was understood and refused: exit code 1.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::exiting(REFUSED, message)
    }

    /// As [`Self::refused`], for problems with places; `message` tells them to people.
    pub(crate) fn of_problems(message: impl Into<String>, problems: Vec<Problem>) -> Self {
        Self { problems, ..Self::refused(message) }
    }

    /// Flags whose combination cannot be right: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::exiting(USAGE, message)
    }

    /// Ends with `code` and says nothing more.
    pub(crate) fn silent(code: u8) -> Self {
        Self::exiting(code, "")
    }

    /// Ends with `code` after telling why.
    pub(crate) fn exiting(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), problems: Vec::new() }
    }

    /// Its problems; one without a place where it has only its message.
    pub(crate) fn told(&self) -> Vec<Problem> {
        if self.problems.is_empty() {
            return vec![Problem { reason: self.message.clone(), ..Problem::default() }];
        }
        self.problems.clone()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Turns an error into a refusal that says what was being done.
pub(crate) trait Doing<T> {
    /// `what` names the action and its object: `write /run/heddle/demo.lock`.
    ///
    /// # Errors
    /// The error, with `cannot {what}: ` before it.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::refused(format!("cannot {}: {error}", what())))
    }
}
