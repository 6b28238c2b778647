//! What went wrong with the API server, in one sentence that says what to do.

use kube::Error;

use super::error::{ANSWER_WAIT, ReachError};
use crate::causes::with_causes;

/// Whom was asked, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) url: &'a str,
    pub(super) context: &'a str,
}

/// A right that a call needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Right<'a> {
    /// As RBAC has it.
    pub(super) verb: &'static str,
    /// The resource as RBAC has it.
    pub(super) what: &'a str,
    /// Where; `None`: in the whole cluster.
    pub(super) namespace: Option<&'a str>,
}

/// Why a call gave nothing.
pub(super) fn error(place: Place<'_>, what: &str, right: Right<'_>, error: &Error) -> ReachError {
    let Place { url, context } = place;
    match status(error) {
        Some((401, _)) => ReachError::last(format!(
            "the API server at {url} does not accept the credentials of context `{context}`: log in anew, or choose another with --context"
        )),
        Some((403, said)) => ReachError::last(forbidden(context, right, &said)),
        Some((_, said)) => ReachError::passing(format!("cannot {what}: {said}")),
        None => match error {
            Error::Service(_) | Error::HyperError(_) => ReachError::last(format!(
                "the API server at {url} (context `{context}`) cannot be reached: {}; is the cluster up, and is this the right context?",
                with_causes(error)
            )),
            Error::Auth(_) => credentials(context, error),
            _ => ReachError::passing(format!("cannot {what}: {}", with_causes(error))),
        },
    }
}

fn forbidden(context: &str, right: Right<'_>, said: &str) -> String {
    let Right { verb, what, namespace } = right;
    let place = namespace.map_or_else(|| "the cluster".to_owned(), |of| format!("namespace {of}"));
    let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
    format!(
        "the user of context `{context}` may not {verb} {what} in {place}{said}: ask whoever runs the cluster for that right (docs/tools.md lists all), or choose another --context"
    )
}

/// The credentials of a context cannot be used.
pub(super) fn credentials(context: &str, error: &Error) -> ReachError {
    ReachError::last(format!(
        "the credentials of context `{context}` cannot be used: {}",
        with_causes(error)
    ))
}

/// Nobody answered in time.
pub(super) fn late(place: Place<'_>, what: &str) -> ReachError {
    ReachError::passing(format!(
        "cannot {what}: the API server at {} has not answered within {} s",
        place.url,
        ANSWER_WAIT.as_secs()
    ))
}

/// The API server's status and words, if it answered.
pub(super) fn status(error: &Error) -> Option<(u16, String)> {
    match error {
        Error::Api(status) => Some((status.code, status.message.clone())),
        Error::UpgradeConnection(kube::client::UpgradeConnectionError::ProtocolSwitch(code)) => {
            Some((
                code.as_u16(),
                if code.as_u16() == 403 { String::new() } else { format!("HTTP {code}") },
            ))
        }
        _ => None,
    }
}
