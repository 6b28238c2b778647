//! Live calls: what a sidecar is asked for at `GET /tap`, and the lines that it answers with. The dashboard's
//! `GET /api/v1/tap` takes the same parameters and answers with the same lines, of all sidecars.
//!
//! The answer is a line of JSON per call ([`TapLine`]) for as long as somebody reads; empty lines say that nothing
//! has come. What is secret is hidden where a line is made ([`heddle_model::secret`]), so that no reader has it.

mod call;
mod filter;

pub use self::call::{Fault, Lost, Party, Refused, TapLine, TappedCall};
pub use self::filter::{
    Ending, FilterError, Name, PathFilter, Side, StatusFilter, TapFilter, condition, field, method,
};

/// The path of it, of a sidecar.
pub const PATH: &str = "/tap";
/// A field that a request for it has to have, whatever its value: what an application can be made to fetch by
/// whoever gives it addresses has none.
pub const ASKED_BY: &str = "x-heddle-tap";
/// Longest line, bytes.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Type of the answer.
pub const CONTENT_TYPE: &str = "application/x-ndjson";
