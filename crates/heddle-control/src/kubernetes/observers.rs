//! The mesh's own observer asks who there is to scrape: over TLS, and as who it is. It shows the token of its service
//! account, which the API server reviews; to everybody else in the cluster nothing is told.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use heddle_runtime::clock;
use heddle_wire::local::control_api::{ApiError, Problem};
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::{Request, body::Incoming};
use serde::Serialize;

use crate::{
    control::{Control, ResourceQuery},
    secure::{ReviewError, TokenReviewer},
    webhook::Site,
};

/// What a token must be meant for.
pub(crate) const AUDIENCE: &str = "heddle-control";
/// The service account that may ask, in the control plane's own namespace.
const ACCOUNT: &str = "heddle-observe";
/// A token is reviewed again after this time.
const REVIEWED_FOR: Duration = Duration::from_secs(60);
/// Longest token that is looked at, bytes.
const TOKEN_MAX: usize = 16 << 10;

/// Who answers the observer.
pub(crate) struct Observers<R> {
    control: Arc<Control>,
    reviewer: R,
    namespace: String,
    /// The token that was accepted last, and until when it is.
    accepted: Mutex<Option<(String, Instant)>>,
}

impl<R: TokenReviewer> Observers<R> {
    /// For observers of the control plane's own namespace.
    pub(crate) fn new(control: Arc<Control>, reviewer: R, namespace: &str) -> Self {
        Self { control, reviewer, namespace: namespace.to_owned(), accepted: Mutex::default() }
    }

    async fn told(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Vec<u8>, (StatusCode, String)> {
        self.admit(headers).await?;
        if method != Method::GET {
            return Err((StatusCode::METHOD_NOT_ALLOWED, format!("{path} does not take {method}")));
        }
        match path {
            "/v1/workloads" => json(&self.control.workloads()),
            "/v1/services" => json(&self.control.services()),
            "/v1/resources" => json(&self.control.resources(&ResourceQuery::default())),
            _ => Err((StatusCode::NOT_FOUND, format!("no such call: {method} {path}"))),
        }
    }

    async fn admit(&self, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
        let refused = |reason: String| (StatusCode::UNAUTHORIZED, reason);
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = shown.and_then(|shown| shown.strip_prefix("Bearer "));
        let token = token.filter(|token| !token.is_empty() && token.len() <= TOKEN_MAX);
        let token = token.ok_or_else(|| {
            refused(format!("show the token of the service account {ACCOUNT} as `Bearer`"))
        })?;
        if self.is_accepted(token) {
            return Ok(());
        }
        let pod = self.reviewer.review(token, AUDIENCE).await.map_err(|error| {
            let status = match &error {
                ReviewError::Refused(_) => StatusCode::UNAUTHORIZED,
                ReviewError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, error.to_string())
        })?;
        if pod.namespace != self.namespace || pod.service_account != ACCOUNT {
            return Err((
                StatusCode::FORBIDDEN,
                format!(
                    "this is told to the service account {ACCOUNT} of {} only, not to {} of {}",
                    self.namespace, pod.service_account, pod.namespace
                ),
            ));
        }
        let until = clock::now() + REVIEWED_FOR;
        *self.accepted.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((token.to_owned(), until));
        Ok(())
    }

    fn is_accepted(&self, token: &str) -> bool {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.as_ref().is_some_and(|(known, until)| {
            // In a time that does not tell how much of it is right.
            let same = known.len() == token.len()
                && known.bytes().zip(token.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0;
            same && clock::now() < *until
        })
    }
}

impl<R: TokenReviewer> Site for Observers<R> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let told = self.told(request.method(), request.uri().path(), request.headers()).await;
        let (status, body) = match told {
            Ok(body) => (StatusCode::OK, body),
            Err((status, reason)) => {
                let problem = Problem { reason, ..Problem::default() };
                let refusal = ApiError { errors: vec![problem] };
                (status, serde_json::to_vec(&refusal).unwrap_or_default())
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, (StatusCode, String)> {
    serde_json::to_vec(value)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use heddle_runtime::task::run_local;

    use super::*;
    use crate::{
        ca::PodIdentity, config::AddressRanges, generations::Generations,
        kubernetes::registry::Cluster, mesh::Mesh, rules::Rules,
    };

    /// Knows the token `namespace/account`.
    #[derive(Default)]
    struct Known(AtomicUsize);

    impl TokenReviewer for Known {
        async fn review(&self, token: &str, audience: &str) -> Result<PodIdentity, ReviewError> {
            assert_eq!(audience, AUDIENCE);
            self.0.fetch_add(1, Ordering::Relaxed);
            let (namespace, account) = token
                .split_once('/')
                .ok_or_else(|| ReviewError::Refused("not valid".to_owned()))?;
            Ok(PodIdentity {
                namespace: namespace.to_owned(),
                service_account: account.to_owned(),
                pod_name: "p".to_owned(),
                pod_uid: "u".to_owned(),
            })
        }
    }

    fn observers() -> Observers<Known> {
        let ranges = AddressRanges::default();
        let settings = ranges.settings("test".to_owned());
        let cluster = Cluster::new("cluster.local".to_owned(), ranges);
        let mesh = Mesh::new(settings, cluster.into(), Rules::default(), Generations::after(0));
        let control = Arc::new(Control::without_store(mesh));
        Observers::new(control, Known::default(), "heddle-system")
    }

    async fn asked(
        observers: &Observers<Known>,
        token: Option<&str>,
        path: &str,
    ) -> Result<Vec<u8>, (StatusCode, String)> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        observers.told(&Method::GET, path, &headers).await
    }

    #[test]
    fn only_the_observers_own_account_is_told_who_there_is() {
        run_local(async {
            let observers = observers();
            for (token, status) in [
                (None, StatusCode::UNAUTHORIZED),
                (Some(""), StatusCode::UNAUTHORIZED),
                (Some("forged"), StatusCode::UNAUTHORIZED),
                (Some("shop/heddle-observe"), StatusCode::FORBIDDEN),
                (Some("heddle-system/default"), StatusCode::FORBIDDEN),
            ] {
                let refused = asked(&observers, token, "/v1/workloads").await.unwrap_err();
                assert_eq!(refused.0, status, "{token:?}: {}", refused.1);
            }
            let good = Some("heddle-system/heddle-observe");
            assert_eq!(asked(&observers, good, "/v1/workloads").await.unwrap(), b"[]");
            let unknown = asked(&observers, good, "/v1/status").await.unwrap_err();
            assert_eq!(unknown.0, StatusCode::NOT_FOUND);
        })
        .unwrap();
    }

    #[test]
    fn a_token_is_not_reviewed_for_each_question() {
        run_local(async {
            let observers = observers();
            for path in ["/v1/workloads", "/v1/services", "/v1/workloads"] {
                asked(&observers, Some("heddle-system/heddle-observe"), path).await.unwrap();
            }
            assert_eq!(observers.reviewer.0.load(Ordering::Relaxed), 1);
            asked(&observers, Some("heddle-system/heddle-observed"), "/v1/services")
                .await
                .unwrap_err();
            assert_eq!(observers.reviewer.0.load(Ordering::Relaxed), 2);
        })
        .unwrap();
    }
}
