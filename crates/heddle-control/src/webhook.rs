//! What the API server asks before it takes an object: `/inject` for pods, `/validate` for rules.
//!
//! [`Webhook::answer`] is a function of the request alone, so that it can be tested and measured without TLS;
//! [`serve`] puts it behind HTTPS. Nothing is written and nobody is asked, so a dry run is like any other. A review
//! that cannot be read gets one 400 that says why; a pod or rule that is refused gets its review answered.

mod patch;
mod review;
mod server;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use heddle_compile::RuleIndex;
use heddle_model::{Registry, name::DEFAULT_NAMESPACE};
use heddle_wire::local::control_api::Problem;

use self::review::{Answer, Review};
pub use self::server::{Site, serve};
use crate::{
    documents,
    injection::{self, Admission, InjectionSettings, Surroundings},
    verify,
};

/// Largest review that is read, bytes: an object has at most 1.5 MiB, and its old version may come along.
pub const REVIEW_BYTES_MAX: usize = 3 << 20;

/// Who knows the labels of namespaces.
pub trait Namespaces: fmt::Debug + Send + Sync {
    /// The labels of a namespace; `None` if it is not known (yet): then what the webhook's own selectors
    /// have chosen is taken as chosen.
    fn labels(&self, namespace: &str) -> Option<Arc<BTreeMap<String, String>>>;
}

/// Nobody knows them.
#[derive(Debug, Clone, Copy)]
pub struct UnknownNamespaces;

impl Namespaces for UnknownNamespaces {
    fn labels(&self, _namespace: &str) -> Option<Arc<BTreeMap<String, String>>> {
        None
    }
}

/// What answers reviews.
#[derive(Debug)]
pub struct Webhook {
    settings: RwLock<Arc<InjectionSettings>>,
    namespaces: Arc<dyn Namespaces>,
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// JSON with 200, else text.
    pub body: Vec<u8>,
}

impl Reply {
    fn text(status: u16, text: impl fmt::Display) -> Self {
        Self { status, body: format!("{text}\n").into_bytes() }
    }
}

impl Webhook {
    /// One with these settings.
    #[must_use]
    pub fn new(settings: InjectionSettings, namespaces: Arc<dyn Namespaces>) -> Self {
        Self { settings: RwLock::new(Arc::new(settings)), namespaces }
    }

    /// Puts other settings in force, from the next review on.
    pub fn set_settings(&self, settings: InjectionSettings) {
        let settings = Arc::new(settings);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// Answers one request.
    #[must_use]
    pub fn answer(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        let judge: fn(&Self, &Review) -> Answer = match path {
            "/inject" => Self::inject,
            "/validate" => Self::validate,
            _ => return Reply::text(404, "no such page: reviews go to /inject or /validate"),
        };
        if method != "POST" {
            return Reply::text(405, "a review comes with POST");
        }
        if body.len() > REVIEW_BYTES_MAX {
            return too_large();
        }
        match Review::read(body) {
            Ok(review) => Reply { status: 200, body: review.answered(judge(self, &review)) },
            Err(reason) => Reply::text(400, format_args!("no AdmissionReview: {reason}")),
        }
    }

    fn inject(&self, review: &Review) -> Answer {
        let Some(pod) = review.object().filter(|_| review.is("CREATE", "Pod")) else {
            return Answer::unchanged();
        };
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner).clone();
        let labels = self.namespaces.labels(review.namespace());
        let around = Surroundings {
            namespace: review.namespace(),
            namespace_labels: labels.as_deref(),
            workload: None,
        };
        match injection::admit(around, pod, &settings) {
            Ok(Admission::Unchanged(reason)) => {
                tracing::debug!(namespace = review.namespace(), %reason, "a pod is not injected");
                Answer::unchanged()
            }
            Ok(Admission::Injected(injected)) => Answer {
                patch: patch::between(pod, &injected.pod),
                warnings: injected.warnings,
                denied: None,
            },
            Err(reason) => Answer::denied(reason.to_string(), Vec::new()),
        }
    }

    /// As `heddle apply` would read it: a rule that is taken here loads in a sidecar.
    fn validate(&self, review: &Review) -> Answer {
        let Some(object) = review.object() else { return Answer::unchanged() };
        let namespace = match review.namespace() {
            "" => DEFAULT_NAMESPACE,
            namespace => namespace,
        };
        let text = review::with_name(object).to_string();
        let resources = match documents::parse("-", &text, namespace) {
            Ok(parsed) => parsed.resources,
            Err(problems) => return Answer::denied(lines(&problems).join("; "), Vec::new()),
        };
        let warnings = resources.iter().flat_map(documents::not_enforced).collect::<Vec<_>>();
        let warnings = lines(&warnings);
        let resources: Vec<_> = resources.into_iter().map(Arc::new).collect();
        match verify::verify(&RuleIndex::new(&resources), &Registry::default()) {
            Ok(()) => Answer { warnings, ..Answer::unchanged() },
            Err(problems) => Answer::denied(lines(&problems).join("; "), warnings),
        }
    }
}

fn too_large() -> Reply {
    Reply::text(413, format_args!("a review of more than {REVIEW_BYTES_MAX} bytes"))
}

/// Without file and line: an object in a review has none that its author knows.
fn lines(problems: &[Problem]) -> Vec<String> {
    let line = |problem: &Problem| match &problem.field {
        Some(field) => format!("{field}: {}", problem.reason),
        None => problem.reason.clone(),
    };
    problems.iter().map(line).collect()
}

#[cfg(test)]
mod tests;
