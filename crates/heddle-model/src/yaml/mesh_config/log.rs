//! What is said about an access log wherever one is asked for: its file, and how its lines look where nothing is said.

use crate::{
    discovery::LogLayout,
    yaml::{
        log_format::{DEFAULT_JSON, DEFAULT_TEXT},
        value,
    },
};

/// A file from the root on, or nothing.
pub(super) fn log_path(text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { value::file_path(text) }
}

pub(super) fn default_text() -> LogLayout {
    LogLayout::Text(DEFAULT_TEXT.to_owned())
}

pub(super) fn default_json() -> LogLayout {
    let owned = |(name, format): &(&str, &str)| ((*name).to_owned(), (*format).to_owned());
    LogLayout::Json(DEFAULT_JSON.iter().map(owned).collect())
}
