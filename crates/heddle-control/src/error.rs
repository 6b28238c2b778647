//! What can go wrong: at start ([`ControlError`]) and in a call ([`Refused`]).

use std::{io, path::PathBuf};

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use heddle_wire::local::control_api::{ApiError, Problem};

use crate::{limits::PROBLEMS_MAX, store::StoreError};

/// Why the control plane could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A path socket cannot be made.
    #[error("the socket {path} cannot be made: {source}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// An address range leaves no room.
    #[error("the address range {range} is too small: use a prefix that leaves more addresses")]
    Range {
        /// The range as given.
        range: String,
    },
    /// The single-threaded runtime cannot be made, or a signal cannot be waited for.
    #[error("the control plane cannot run: {0}")]
    Runtime(#[from] io::Error),
    /// No certificate can be made for a server of our own.
    #[error("the control plane has no certificate: {0}")]
    Certificate(#[from] crate::ca::CaError),
    /// A server ended by itself.
    #[error("serving {socket} ended: {reason}")]
    Ended {
        /// Which one.
        socket: &'static str,
        /// What it said.
        reason: String,
    },
}

/// A call that is refused: status and every reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) problems: Vec<Problem>,
}

impl Refused {
    /// A refusal with one reason.
    pub(crate) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self::of(status, vec![Problem { reason: reason.into(), ..Problem::default() }])
    }

    /// A refusal with these reasons; those beyond [`PROBLEMS_MAX`] are counted only.
    pub(crate) fn of(status: StatusCode, mut problems: Vec<Problem>) -> Self {
        shorten(&mut problems);
        Self { status: status.as_u16(), problems }
    }
}

/// Cuts a list of problems to [`PROBLEMS_MAX`] and says how many are missing.
pub(crate) fn shorten(problems: &mut Vec<Problem>) {
    let more = problems.len().saturating_sub(PROBLEMS_MAX);
    if more > 0 {
        problems.truncate(PROBLEMS_MAX);
        problems.push(Problem { reason: format!("and {more} more"), ..Problem::default() });
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        (status, Json(ApiError { errors: self.problems })).into_response()
    }
}
