//! A text's documents as resources, its errors as the problems that people are told.

use heddle_model::{
    resource::Resource,
    yaml::{self, Parsed},
};
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

/// Valid fields of an object that have no effect.
pub(crate) fn not_enforced(resource: &Resource) -> impl Iterator<Item = Problem> + '_ {
    let ineffective = || match resource.is_not_served() {
        true => format!("{} is kept, but not enforced by this version", resource.key.kind),
        false => "accepted, but not enforced by this version".to_owned(),
    };
    resource.not_enforced.iter().map(move |note| Problem {
        file: Some(resource.origin.file.clone()),
        line: Some(note.line),
        field: Some(note.field.clone()),
        reason: note.reason.clone().unwrap_or_else(ineffective),
    })
}
