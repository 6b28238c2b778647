//! An error with what it says of its causes: the outermost text often says least.

use std::error::Error;

/// The error's text and those of its causes that say something more.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        let said = cause.to_string();
        if !text.contains(&said) {
            text += &format!(": {said}");
        }
        inner = cause.source();
    }
    text
}
