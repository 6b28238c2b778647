//! Calls to a mesh's control plane on its path socket, with errors a person can act on.

use std::path::PathBuf;

use heddle_runtime::local_http::{self, CallError, Method};
use heddle_wire::local::control_api::{ApiError, Problem};
use serde::{Serialize, de::DeserializeOwned};

use crate::{failure::Failure, mesh::MeshPaths};

/// A mesh's control plane.
#[derive(Debug, Clone)]
pub(crate) struct ControlClient {
    mesh: String,
    socket: PathBuf,
    log: PathBuf,
}

impl ControlClient {
    /// The control plane of the mesh with these paths. Connects with each call.
    pub(crate) fn new(paths: &MeshPaths) -> Self {
        Self {
            mesh: paths.name().to_owned(),
            socket: paths.run_dir().join("control.sock"),
            log: paths.run_dir().join("control.log"),
        }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// A refusal with the control plane's own problems, or saying that it does not run.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.raw(Method::GET, path, None::<&()>).await.map_err(|error| self.explain(&error))
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
        self.raw(Method::POST, path, Some(body)).await.map_err(|error| self.explain(&error))
    }

    /// Any call, with the error as it came: for callers that wait for a control plane to return.
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

    /// The error as a refusal.
    pub(crate) fn explain(&self, error: &CallError) -> Failure {
        match error {
            CallError::Refused { status, body, .. } => {
                match serde_json::from_slice::<ApiError>(body) {
                    Ok(refusal) => Failure::refused(refusal_text(&refusal)),
                    Err(_) => Failure::refused(format!(
                        "the control plane of mesh `{}` answered with status {status} and no reason; see {}",
                        self.mesh,
                        self.log.display()
                    )),
                }
            }
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

/// One problem per line. Places in files begin their lines, as editors and people expect of a
/// compiler.
fn refusal_text(refusal: &ApiError) -> String {
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
