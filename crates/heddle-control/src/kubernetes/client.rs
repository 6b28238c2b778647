//! Calls of the API server: objects by path, lists by page, watches. What an answer means to the control
//! plane is said in [`ApiError`]; reading objects is up to callers.

use std::{fmt, time::Duration};

use futures_util::{Stream, StreamExt};
use heddle_runtime::clock;
use http::{Method, Request, StatusCode, header::CONTENT_TYPE};
use kube::core::WatchEvent;
use serde::Deserialize;
use serde_json::Value;

/// Objects in one page of a list: what is in memory at once of a large cluster's answer.
const PAGE: usize = 250;
/// Longest wait for an answer, watches apart.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// The server ends a watch after this time, seconds, and it is begun again where it ended.
const WATCH_SECONDS: u64 = 290;

/// How a change is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patch {
    /// RFC 7386.
    Merge,
    /// RFC 6902.
    Json,
    /// Server-side apply, in our name, and whoever had the fields loses them.
    Apply,
}

/// A kind of objects, as the API server's paths name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    /// Empty for the core group.
    pub(crate) group: String,
    pub(crate) version: String,
    /// As in `VirtualService`.
    pub(crate) kind: String,
    /// As in `virtualservices`.
    pub(crate) plural: String,
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    /// 403.
    #[error(
        "the control plane may not {verb} {what}: add that verb to its ClusterRole, or its Role for its own namespace"
    )]
    Forbidden {
        /// The verb, as RBAC has it.
        verb: &'static str,
        /// The resource, as RBAC has it.
        what: String,
    },
    /// 404.
    #[error("there is no {0}")]
    NotFound(String),
    /// 410: what was asked for is older than what the server remembers.
    #[error("the server remembers no more what was asked for")]
    Gone,
    /// 409: it was made, or changed, by another meanwhile.
    #[error("another has changed it meanwhile")]
    Conflict,
    /// Everything else: not reached, too slow, 429, 5xx, or an answer that makes no sense.
    #[error("the API server does not answer as it should: {0}")]
    Unanswered(String),
    /// It answers, and what is there cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// One page of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Page {
    pub(crate) metadata: PageMeta,
    pub(crate) items: Option<Vec<Value>>,
}

/// Its `metadata`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PageMeta {
    pub(crate) resource_version: String,
    pub(crate) r#continue: String,
}

/// One event of a watch.
#[derive(Debug)]
pub(crate) enum Watched {
    /// An object as it is now.
    Is(Value),
    /// An object as it was.
    Was(Value),
    /// Nothing more happened up to this version.
    Bookmark(String),
}

impl Kind {
    /// A kind by its parts.
    pub(crate) fn new(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        let text = str::to_owned;
        Self { group: text(group), version: text(version), kind: text(kind), plural: text(plural) }
    }

    /// `apiVersion` of its objects.
    pub(crate) fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// The path of all its objects, of those of a namespace, or of one.
    pub(crate) fn path(&self, namespace: &str, name: &str) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let mut path = format!("{root}/{}", self.api_version());
        if !namespace.is_empty() {
            path += &format!("/namespaces/{namespace}");
        }
        path += &format!("/{}", self.plural);
        if !name.is_empty() {
            path += &format!("/{name}");
        }
        path
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group.as_str() {
            "" => f.write_str(&self.plural),
            group => write!(f, "{}.{group}", self.plural),
        }
    }
}

/// The API server.
#[derive(Clone)]
pub(crate) struct Api {
    client: kube::Client,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// By a client that knows where it is and who we are.
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client }
    }

    /// What is at a path.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn get(&self, what: &str, path: &str) -> Result<Value, ApiError> {
        self.call(("get", what), request(Method::GET, path, None)?).await
    }

    /// Makes an object among those at a path.
    ///
    /// # Errors
    /// [`ApiError::Conflict`] if it is there already; others.
    pub(crate) async fn create(
        &self,
        what: &str,
        path: &str,
        object: &Value,
    ) -> Result<Value, ApiError> {
        let request = request(Method::POST, path, Some(("application/json", object)))?;
        self.call(("create", what), request).await
    }

    /// Puts an object in the place of the version that it names.
    ///
    /// # Errors
    /// [`ApiError::Conflict`] if there is another version; others.
    pub(crate) async fn replace(
        &self,
        what: &str,
        path: &str,
        object: &Value,
    ) -> Result<Value, ApiError> {
        let request = request(Method::PUT, path, Some(("application/json", object)))?;
        self.call(("update", what), request).await
    }

    /// Changes the object at a path.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn patch(
        &self,
        what: &str,
        path: &str,
        (how, change): (Patch, &Value),
    ) -> Result<Value, ApiError> {
        let (content, path) = match how {
            Patch::Merge => ("application/merge-patch+json", path.to_owned()),
            Patch::Json => ("application/json-patch+json", path.to_owned()),
            Patch::Apply => {
                let path = format!("{path}?fieldManager=heddle-control&force=true");
                ("application/apply-patch+yaml", path)
            }
        };
        let request = request(Method::PATCH, &path, Some((content, change)))?;
        self.call(("patch", what), request).await
    }

    /// A page of all objects of a kind; the first where `after` is empty.
    ///
    /// # Errors
    /// [`ApiError::Gone`] if a page has waited too long for its next one; others.
    pub(crate) async fn list(&self, kind: &Kind, after: &str) -> Result<Page, ApiError> {
        let path = format!("{}?limit={PAGE}&continue={}", kind.path("", ""), escaped(after));
        let what = kind.to_string();
        let page = self.call(("list", &what), request(Method::GET, &path, None)?).await?;
        serde_json::from_value(page).map_err(|error| ApiError::Unanswered(error.to_string()))
    }

    /// What happens to objects of a kind after `version`.
    ///
    /// # Errors
    /// [`ApiError::Gone`] if that is too long ago, here or in an item; others.
    pub(crate) async fn watch(
        &self,
        kind: &Kind,
        version: &str,
    ) -> Result<impl Stream<Item = Result<Watched, ApiError>> + Unpin + use<>, ApiError> {
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
            kind.path("", ""),
            escaped(version)
        );
        let what = kind.to_string();
        let request = request(Method::GET, &path, None)?;
        let events = clock::within(ANSWER_WAIT, self.client.request_events::<Value>(request)).await;
        let events = events.ok_or_else(slow)?.map_err(|error| told(("watch", &what), error))?;
        let read = move |event: Result<_, kube::Error>| {
            event.map_err(|error| told(("watch", &what), error)).and_then(event_of)
        };
        Ok(Box::pin(events.map(read)))
    }

    async fn call(
        &self,
        (verb, what): (&'static str, &str),
        request: Request<Vec<u8>>,
    ) -> Result<Value, ApiError> {
        let answer = clock::within(ANSWER_WAIT, self.client.request_text(request)).await;
        let text = answer.ok_or_else(slow)?.map_err(|error| told((verb, what), error))?;
        let unread = |error| ApiError::Unanswered(format!("what came is no JSON: {error}"));
        serde_json::from_str(&text).map_err(unread)
    }
}

fn request(
    method: Method,
    path: &str,
    body: Option<(&str, &Value)>,
) -> Result<Request<Vec<u8>>, ApiError> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some((content, _)) = body {
        request = request.header(CONTENT_TYPE, content);
    }
    let body = body.map(|(_, value)| value.to_string().into_bytes()).unwrap_or_default();
    request.body(body).map_err(|error| ApiError::Unanswered(error.to_string()))
}

fn event_of(event: WatchEvent<Value>) -> Result<Watched, ApiError> {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => Ok(Watched::Is(object)),
        WatchEvent::Deleted(object) => Ok(Watched::Was(object)),
        WatchEvent::Bookmark(mark) => Ok(Watched::Bookmark(mark.metadata.resource_version)),
        WatchEvent::Error(status) => Err(of_status(("watch", ""), status.code, &status.message)),
    }
}

fn slow() -> ApiError {
    ApiError::Unanswered(format!("no answer within {} s", ANSWER_WAIT.as_secs()))
}

fn told(asked: (&'static str, &str), error: kube::Error) -> ApiError {
    match error {
        kube::Error::Api(status) => of_status(asked, status.code, &status.message),
        other => ApiError::Unanswered(other.to_string()),
    }
}

fn of_status((verb, what): (&'static str, &str), code: u16, message: &str) -> ApiError {
    match StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR) {
        StatusCode::FORBIDDEN => ApiError::Forbidden { verb, what: what.to_owned() },
        StatusCode::NOT_FOUND => ApiError::NotFound(what.to_owned()),
        StatusCode::GONE => ApiError::Gone,
        StatusCode::CONFLICT => ApiError::Conflict,
        status => ApiError::Unanswered(format!("{status} to {verb} {what}: {message}")),
    }
}

/// Of a query's value everything but letters and digits as its bytes (RFC 3986 §2.1).
fn escaped(text: &str) -> String {
    let byte = |b: u8| match b {
        b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api_server() {
        let core = Kind::new("", "v1", "Service", "services");
        assert_eq!(core.path("", ""), "/api/v1/services");
        assert_eq!(core.path("shop", "web"), "/api/v1/namespaces/shop/services/web");
        let rule = Kind::new("networking.istio.io", "v1", "Sidecar", "sidecars");
        assert_eq!(rule.path("", ""), "/apis/networking.istio.io/v1/sidecars");
        assert_eq!(rule.to_string(), "sidecars.networking.istio.io");
        assert_eq!(escaped("a/b=1"), "a%2Fb%3D1");
    }

    #[test]
    fn a_refusal_names_verb_and_resource() {
        let error = of_status(("list", "pods"), 403, "no");
        assert!(error.to_string().contains("may not list pods"), "{error}");
        assert_eq!(of_status(("list", "pods"), 410, ""), ApiError::Gone);
        let busy = of_status(("list", "pods"), 429, "later").to_string();
        assert!(busy.contains("429 Too Many Requests to list pods: later"), "{busy}");
    }
}
