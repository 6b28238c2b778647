//! Calls to a mesh's control plane on its path socket, with errors a person can act on.
//!
//! No command waits for ever for one that hangs: each call has a time limit, which is longer by as
//! much as the control plane itself was asked to wait.

use std::{io, path::PathBuf, time::Duration};

use heddle_runtime::{
    clock,
    local_http::{self, CallError, Method},
    pulse,
};
use heddle_wire::local::control_api::{ApiError, Problem};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    failure::Failure,
    mesh::{MeshPaths, ProcessRecord},
};

/// Longest wait for an answer that nobody waits for on purpose.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// A mesh's control plane.
#[derive(Debug, Clone)]
pub(crate) struct ControlClient {
    mesh: String,
    socket: PathBuf,
    log: PathBuf,
    record: PathBuf,
    limit: Duration,
}

impl ControlClient {
    /// The control plane of the mesh with these paths. Connects with each call.
    pub(crate) fn new(paths: &MeshPaths) -> Self {
        Self {
            mesh: paths.name().to_owned(),
            socket: paths.run_dir().join("control.sock"),
            log: paths.run_dir().join("control.log"),
            record: paths.run_dir().join("control.pid"),
            limit: ANSWER_WAIT,
        }
    }

    /// The same, for calls that ask the control plane to wait for so long.
    pub(crate) fn waiting(mut self, wait: Duration) -> Self {
        self.limit = ANSWER_WAIT.saturating_add(wait);
        self
    }

    /// `GET path`.
    ///
    /// # Errors
    /// A refusal with the control plane's own problems, or saying that it does not run or hangs.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.limited(Method::GET, path, None::<&()>).await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.limited(Method::POST, path, Some(body)).await
    }

    async fn limited<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        let called = clock::within(self.limit, self.raw(method, path, body)).await;
        let late = || {
            let peer = self.socket.display().to_string();
            Err(CallError::Late { peer, limit: self.limit })
        };
        called.unwrap_or_else(late).map_err(|error| self.explain(&error))
    }

    /// Any call, with the error as it came and without a time limit: for callers that wait for a
    /// control plane to return.
    ///
    /// # Errors
    /// What [`local_http::call`] says.
    pub(crate) async fn raw<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, CallError> {
        local_http::call(&self.socket, method, path, body).await
    }

    fn hangs(&self, how: &str) -> Failure {
        let process = ProcessRecord::read(&self.record);
        let process = process.map_or_else(String::new, |r| format!(" (process {})", r.pid));
        Failure::refused(format!(
            "the control plane of mesh `{}`{process} hangs: {how}; traffic goes on by the last rules, and it is killed and started again when it has not answered for {} s: try again, and see {}",
            self.mesh,
            pulse::SILENCE_MAX.as_secs(),
            self.log.display()
        ))
    }

    /// The error as a refusal.
    pub(crate) fn explain(&self, error: &CallError) -> Failure {
        match error {
            CallError::Refused { status, body, .. } => {
                match serde_json::from_slice::<ApiError>(body) {
                    Ok(refusal) => Failure::of_problems(refusal_text(&refusal), refusal.errors),
                    Err(_) => Failure::refused(format!(
                        "the control plane of mesh `{}` answered with status {status} and no reason; see {}",
                        self.mesh,
                        self.log.display()
                    )),
                }
            }
            // A queue of calls that nobody takes is full.
            CallError::NotRunning { source, .. } if source.kind() == io::ErrorKind::WouldBlock => {
                self.hangs("its queue is full")
            }
            CallError::Late { limit, .. } => {
                self.hangs(&format!("nothing came within {} s", limit.as_secs()))
            }
            CallError::Broken { reason, .. } => Failure::refused(format!(
                "the control plane of mesh `{}` ended before it answered ({reason}); it is started again, whether the call was done is not known: look and try again, and see {}",
                self.mesh,
                self.log.display()
            )),
            CallError::NotRunning { .. } => Failure::refused(format!(
                "the control plane of mesh `{}` is not running; traffic goes on by the last rules, and it is restarted after a crash (see {}): try again",
                self.mesh,
                self.log.display()
            )),
            error => Failure::refused(format!(
                "the control plane of mesh `{}` did not answer: {error}",
                self.mesh
            )),
        }
    }
}

/// Milliseconds for the API; what does not fit is as good as for ever.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One problem per line. Places in files begin their lines, as editors and people expect of a
/// compiler.
pub(crate) fn refusal_text(refusal: &ApiError) -> String {
    let mut lines: Vec<String> = refusal.errors.iter().map(problem_line).collect();
    if refusal.errors.iter().any(|problem| problem.file.is_some()) {
        lines.insert(0, "refused, nothing was changed:".to_owned());
    }
    lines.join("\n")
}

/// `file:line: field: reason`, absent parts left out.
pub(crate) fn problem_line(problem: &Problem) -> String {
    let mut text = String::new();
    if let Some(file) = &problem.file {
        text.push_str(file);
        if let Some(line) = problem.line {
            text.push_str(&format!(":{line}"));
        }
        text.push_str(": ");
    }
    if let Some(field) = &problem.field {
        text.push_str(field);
        text.push_str(": ");
    }
    text + &problem.reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_like_a_compiler_message() {
        let mut problem = Problem { reason: "no such subset".to_owned(), ..Problem::default() };
        assert_eq!(problem_line(&problem), "no such subset");
        problem.field = Some("spec.http[0]".to_owned());
        assert_eq!(problem_line(&problem), "spec.http[0]: no such subset");
        problem.file = Some("a.yaml".to_owned());
        problem.line = Some(7);
        assert_eq!(problem_line(&problem), "a.yaml:7: spec.http[0]: no such subset");
    }
}
