//! A text's documents as resources, its errors as the problems that people are told.

use heddle_model::yaml::{self, Parsed};
use heddle_wire::local::control_api::Problem;

/// Reads the documents of a named text.
///
/// # Errors
/// Every error of the text, with its place.
pub(crate) fn parse(file: &str, text: &str, namespace: &str) -> Result<Parsed, Vec<Problem>> {
    yaml::parse(file, text, namespace).map_err(|errors| {
        errors
            .into_iter()
            .map(|error| Problem {
                file: Some(error.file),
                line: Some(error.line),
                field: Some(error.field).filter(|field| !field.is_empty()),
                reason: error.reason,
            })
            .collect()
    })
}
