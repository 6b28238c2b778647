//! Questions of a person to this sidecar: what would become of a call, and what was refused lately.

use std::sync::Arc;

use heddle_wire::local::sidecar_api::{EXPLAIN_BYTES_MAX, ExplainRequest};
use http_body_util::{BodyExt as _, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use serde::Serialize;

use super::page::{JSON, Page, TEXT, whole};
use crate::{Shared, explain};

const EXPLAIN: &str = "/explain";

/// Is it the question what would become of a call?
pub(super) fn is_explain<B>(request: &Request<B>) -> bool {
    request.uri().path() == EXPLAIN
}

/// Answers it.
pub(super) async fn explained(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Page> {
    if request.method() != Method::POST {
        return whole(StatusCode::METHOD_NOT_ALLOWED, TEXT, "a call is described by POST\n");
    }
    let body = Limited::new(request.into_body(), EXPLAIN_BYTES_MAX).collect().await;
    let Ok(body) = body else {
        let text = format!("a call is described in at most {EXPLAIN_BYTES_MAX} bytes\n");
        return whole(StatusCode::PAYLOAD_TOO_LARGE, TEXT, text);
    };
    match serde_json::from_slice::<ExplainRequest>(&body.to_bytes()) {
        Ok(asked) => match explain::check(&asked) {
            Ok(()) => json(&explain::explain(shared, &asked).await),
            Err(reason) => whole(StatusCode::BAD_REQUEST, TEXT, format!("{reason}\n")),
        },
        Err(error) => {
            let text = format!("the call is not described as it should be: {error}\n");
            whole(StatusCode::BAD_REQUEST, TEXT, text)
        }
    }
}

/// What was refused lately.
pub(super) fn refusals(shared: &Shared) -> Response<Page> {
    json(&shared.state.recent.told(&shared.config.workload))
}

fn json(value: &impl Serialize) -> Response<Page> {
    match serde_json::to_vec(value) {
        Ok(text) => whole(StatusCode::OK, JSON, text),
        Err(error) => whole(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}
