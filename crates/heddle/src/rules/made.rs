//! Rules that a command makes for a hand at the keyboard: printed, and put in force by the same `apply` as any
//! file. Which rules they are, and what they say, `fault` and `split` know.

use heddle_model::{ResourceKey, ServiceName, yaml::did_you_mean};
use heddle_wire::local::control_api::{
    ApplyRequest, ApplyResponse, DeleteRequest, ResourceView, ServiceView, SourceFile,
};
use serde::Serialize;

use super::{put, report, take};
use crate::{
    chosen::Chosen,
    cli::{Output, hand::PutArgs},
    control_client::milliseconds,
    failure::Failure,
    output,
};

/// What was applied, and what came of it.
#[derive(Debug, Serialize)]
struct Made<'a> {
    /// The documents, as YAML.
    documents: &'a str,
    /// What `apply` answered.
    response: &'a ApplyResponse,
}

/// A mesh, and how to put things in force there.
pub(crate) struct Maker<'a> {
    pub(crate) mesh: Chosen,
    /// Of the service that is meant.
    pub(crate) namespace: String,
    put: &'a PutArgs,
}

impl<'a> Maker<'a> {
    /// The maker of the mesh that is meant.
    ///
    /// # Errors
    /// A refusal where no mesh runs, or several do.
    pub(crate) async fn new(put: &'a PutArgs) -> Result<Self, Failure> {
        let mesh = Chosen::of(&put.mesh).await?;
        let namespace = put.namespace.clone().unwrap_or_else(|| mesh.namespace().to_owned());
        Ok(Self { mesh, namespace, put })
    }

    /// Prints documents and puts them in force; with `--dry-run` they are checked only. `by` is the command's
    /// name, which stands for a file's.
    ///
    /// # Errors
    /// As `heddle apply`.
    pub(crate) async fn apply(&self, documents: &str, by: &str) -> Result<(), Failure> {
        let request = ApplyRequest {
            files: vec![SourceFile { file: by.to_owned(), text: documents.to_owned() }],
            namespace: self.namespace.clone(),
            dry_run: self.put.dry_run,
            force: false,
            strict: false,
            wait_ms: milliseconds(self.put.timeout),
        };
        if self.put.output == Output::Text {
            output::line(documents.trim_end());
        }
        let response = put(&self.mesh, &request).await?;
        match self.put.output {
            Output::Json => output::json(&Made { documents, response: &response }),
            Output::Text => {
                output::line("---");
                report(&response, Output::Text, self.put.timeout, self.put.dry_run)
            }
        }
    }

    /// Takes objects out of force.
    ///
    /// # Errors
    /// As `heddle delete`.
    pub(crate) async fn delete(&self, keys: Vec<ResourceKey>) -> Result<(), Failure> {
        if self.put.dry_run {
            keys.iter().for_each(|key| output::line(format!("{key} would be deleted")));
            return Ok(());
        }
        let wait_ms = milliseconds(self.put.timeout);
        let request = DeleteRequest { keys, force: false, wait_ms };
        let response = take(&self.mesh, &request).await?;
        report(&response, self.put.output, self.put.timeout, false)
    }

    /// The service of this name.
    ///
    /// # Errors
    /// A refusal that says which one may be meant.
    pub(crate) async fn service(&self, name: &str) -> Result<ServiceName, Failure> {
        let all: Vec<ServiceView> = self.mesh.get("/v1/services").await?;
        let here = all.iter().map(|view| &view.service.name);
        let here: Vec<_> = here.filter(|one| one.namespace == self.namespace).collect();
        if let Some(found) = here.iter().find(|one| one.name == name) {
            return Ok(ServiceName::clone(found));
        }
        let names: Vec<&str> = here.iter().map(|one| one.name.as_str()).collect();
        let namespace = &self.namespace;
        Err(Failure::refused(unknown(
            &format!("service `{name}` in namespace `{namespace}`"),
            name,
            &names,
        )))
    }

    /// Every rule of one kind.
    ///
    /// # Errors
    /// What the control plane says.
    pub(crate) async fn rules(&self, kind: &str) -> Result<Vec<ResourceView>, Failure> {
        self.mesh.get(&format!("/v1/resources?kind={kind}")).await
    }
}

/// `there is no X; did you mean …?`, or what there is.
pub(crate) fn unknown(what: &str, written: &str, known: &[&str]) -> String {
    let quoted: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    match did_you_mean(written, known) {
        Some(near) => format!("there is no {what}; did you mean `{near}`?"),
        None if known.is_empty() => format!("there is no {what}"),
        None => format!("there is no {what}; there are {}", quoted.join(", ")),
    }
}

/// A text as YAML takes it for one, whatever it is.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}
