//! What a rule does with a request besides choosing where it goes, ready to be asked: everything of a
//! rule's `traffic` that takes building is built here, once, and what it means for a request is a value.

use std::sync::Arc;

use heddle_model::{
    discovery::{
        Answer, DirectResponse, HeaderOperations, HeaderRules, HttpRule, Redirect, RuleAction,
    },
    pattern::PatternError,
};

use crate::{
    cors::{Cors, CorsField, CorsVerdict},
    headers::{self, HeaderEdit},
    path,
    retry::RetryPolicy,
    rewrite::{PathRewriter, location},
    route::{Matcher, Reach, RequestView, RouteError},
};

/// Says what path a request came with, where a rule changed it (Envoy's).
pub const ORIGINAL_PATH: &str = "x-envoy-original-path";
/// The same of the host.
pub const ORIGINAL_HOST: &str = "x-envoy-original-host";
/// Longest path that is told so, bytes: a head that came within its limits goes on within the next hop's.
const ORIGINAL_PATH_BYTES_MAX: usize = 8 << 10;

/// A rule's `traffic`, built.
#[derive(Debug, Clone, Default)]
pub struct RulePlan {
    answer: Option<Own>,
    rewriter: Option<PathRewriter>,
    authority: Option<Arc<str>>,
    /// Changes to fields where no target is picked.
    fields: Fields,
    /// The same for each target, in order.
    by_target: Vec<Fields>,
    cors: Option<Cors>,
    /// What is repeated; `None`: what is repeated without being asked for.
    pub retries: Option<RetryPolicy>,
    /// Does it neither answer requests nor change them or their answers?
    plain: bool,
}

#[derive(Debug, Clone)]
enum Own {
    Redirect(Redirect),
    Direct(DirectResponse),
}

/// Changes to the fields of requests and of their answers.
#[derive(Debug, Clone, Default)]
struct Fields {
    authority: Option<Arc<str>>,
    request: Vec<HeaderEdit>,
    answer: Vec<HeaderEdit>,
}

/// An answer without an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnAnswer {
    /// Status.
    pub status: u16,
    /// Its fields, without those that delimit it.
    pub fields: Vec<(&'static str, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// What a rule changes about a request and its answer.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Goes on in place of the path; the query stays.
    pub path: Option<Box<str>>,
    /// Whom the request is for now.
    pub authority: Option<Arc<str>>,
    /// Changes to the request's fields.
    pub request: Vec<HeaderEdit>,
    /// Changes to the fields of whatever answers it.
    pub answer: Vec<HeaderEdit>,
}

impl RulePlan {
    /// Builds it.
    ///
    /// # Errors
    /// [`RouteError`] naming the rule whose pattern does not compile.
    pub fn build(rule: &HttpRule) -> Result<Self, RouteError> {
        Self::of(rule).map_err(|source| RouteError { provenance: rule.provenance.clone(), source })
    }

    fn of(rule: &HttpRule) -> Result<Self, PatternError> {
        let traffic = &rule.traffic;
        let rewrite = traffic.rewrite.as_ref();
        let path = rewrite.and_then(|rewrite| rewrite.path.as_ref());
        let authority = rewrite.and_then(|rewrite| rewrite.authority.as_deref());
        let own = traffic.headers.as_ref();
        let targets = match &rule.action {
            RuleAction::Forward(targets) => &targets[..],
            RuleAction::Refuse(_) => &[],
        };
        let several = targets.iter().any(|target| target.headers.is_some());
        let by_target = match several {
            true => targets.iter().map(|one| Fields::of(one.headers.as_deref(), own)).collect(),
            false => Vec::new(),
        };
        Ok(Self {
            answer: traffic.answer.as_ref().map(|answer| match answer {
                Answer::Redirect(redirect) => Own::Redirect(redirect.clone()),
                Answer::Direct(response) => Own::Direct(response.clone()),
            }),
            rewriter: path.map(PathRewriter::build).transpose()?,
            authority: authority.map(Arc::from),
            fields: Fields::of(None, own),
            by_target,
            cors: traffic.cors.as_ref().map(Cors::build).transpose()?,
            retries: traffic.retries.as_ref().map(RetryPolicy::build),
            plain: traffic.answer.is_none()
                && rewrite.is_none()
                && own.is_none()
                && !several
                && traffic.cors.is_none(),
        })
    }

    /// What it answers a request that came with the canonical `path`.
    #[must_use]
    pub fn answer(
        &self,
        matcher: &Matcher,
        request: &dyn RequestView,
        path: &str,
    ) -> Option<OwnAnswer> {
        Some(match self.answer.as_ref()? {
            Own::Redirect(redirect) => OwnAnswer {
                status: redirect.status,
                fields: vec![(
                    "location",
                    location(redirect, request, path, matcher.reach(request, path)),
                )],
                body: Vec::new(),
            },
            Own::Direct(response) => OwnAnswer {
                status: response.status,
                fields: match response.body.is_empty() {
                    true => Vec::new(),
                    false => vec![("content-type", "text/plain".to_owned())],
                },
                body: response.body.clone(),
            },
        })
    }

    /// Does it neither answer requests nor change them or their answers?
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// What it changes about a request with the canonical `path` that goes to the target at `position`
    /// (or nowhere), and whether that is a browser's preflight, which goes nowhere.
    #[must_use]
    pub fn changes(
        &self,
        matcher: &Matcher,
        request: &dyn RequestView,
        path: &str,
        position: Option<usize>,
    ) -> (Changes, Option<OwnAnswer>) {
        let fields = position.and_then(|at| self.by_target.get(at)).unwrap_or(&self.fields);
        let mut changes = Changes {
            path: None,
            authority: self.authority.clone().or_else(|| fields.authority.clone()),
            request: fields.request.clone(),
            answer: fields.answer.clone(),
        };
        self.rewrite(matcher, request, path, &mut changes);
        if changes.authority.is_some() {
            let original = HeaderEdit::set(ORIGINAL_HOST, request.authority());
            replace(&mut changes.request, original);
        }
        // As in Envoy, an own answer is for every origin the same.
        let cors = self.cors.as_ref().filter(|_| self.answer.is_none());
        let preflight = match cors.map(|cors| cors.verdict(request)) {
            None | Some(CorsVerdict::None) => None,
            Some(CorsVerdict::Leave(leave)) => {
                take_over(&mut changes.answer, leave);
                None
            }
            Some(CorsVerdict::Preflight(fields)) => {
                // It is answered before a rule's fields are looked at.
                changes.answer.clear();
                Some(OwnAnswer { status: 200, fields, body: Vec::new() })
            }
        };
        (changes, preflight)
    }

    fn rewrite(
        &self,
        matcher: &Matcher,
        request: &dyn RequestView,
        path: &str,
        changes: &mut Changes,
    ) {
        let Some(rewriter) = self.rewriter.as_ref().filter(|_| path.starts_with('/')) else {
            return;
        };
        let reach = match rewriter {
            PathRewriter::Prefix(_) => matcher.reach(request, path),
            PathRewriter::Regex(_) => Reach::Whole,
        };
        changes.path = Some(rewriter.rewrite(path, reach).into());
        let target = crate::route::without_fragment(request.target());
        let query = target.find('?').map_or("", |at| &target[at..]);
        if path.len() + query.len() <= ORIGINAL_PATH_BYTES_MAX {
            let original = format!("{path}{query}");
            replace(&mut changes.request, HeaderEdit::set(ORIGINAL_PATH, &original));
        }
    }
}

impl Fields {
    /// The target's changes first, then the rule's, as in Envoy.
    fn of(target: Option<&HeaderRules>, rule: Option<&HeaderRules>) -> Self {
        let places: Vec<_> = [target, rule].into_iter().flatten().collect();
        let of = |side: fn(&HeaderRules) -> &HeaderOperations| {
            headers::edits(&places.iter().map(|place| side(place)).collect::<Vec<_>>())
        };
        Self {
            authority: places
                .iter()
                .rev()
                .find_map(|place| place.authority.as_deref())
                .map(Arc::from),
            request: of(|place| &place.request),
            answer: of(|place| &place.response),
        }
    }
}

/// What a policy says goes before what a rule says.
fn take_over(edits: &mut Vec<HeaderEdit>, fields: Vec<CorsField>) {
    for (name, value) in fields {
        replace(edits, HeaderEdit::set(name, &value));
    }
}

fn replace(edits: &mut Vec<HeaderEdit>, edit: HeaderEdit) {
    edits.retain(|one| !one.name().eq_ignore_ascii_case(edit.name()));
    edits.push(edit);
}

/// The canonical path of a request: the one that rules looked at, or would have.
#[must_use]
pub fn canonical_path<'a>(request: &'a dyn RequestView) -> std::borrow::Cow<'a, str> {
    path::canonical(request.path())
}
