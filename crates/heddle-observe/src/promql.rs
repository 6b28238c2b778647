//! The part of PromQL that dashboards use: read ([`parser`]) and worked out over [`curve`]s that somebody has loaded
//! ([`evaluate`]). It knows neither the store nor HTTP; it holds only plain data, so it can run on another thread.
//!
//! A query is worked out for all of its moments at once, one column of numbers per series: labels are looked at once
//! per series and not once per moment.

pub(crate) mod curve;
pub(crate) mod evaluate;
pub(crate) mod labels;
pub(crate) mod parser;
pub(crate) mod value;

mod aggregate;
mod binary;
mod expression;
mod functions;
mod lexer;
mod quantiles;

#[cfg(test)]
mod tests;

pub(crate) use expression::{Query, Selector};
pub(crate) use parser::parse;

/// Why a query has no answer, in Prometheus' terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    /// The query makes no sense, or asks for what is not supported.
    #[error("{0}")]
    BadData(String),
    /// It makes sense and cannot be answered.
    #[error("{0}")]
    Execution(String),
    /// It takes too long.
    #[error("query timed out in expression evaluation")]
    Timeout,
}

impl QueryError {
    /// More numbers than are held for one query.
    pub(crate) fn too_many_samples() -> Self {
        Self::Execution(
            "query processing would load too many samples into memory in query execution"
                .to_owned(),
        )
    }
}
