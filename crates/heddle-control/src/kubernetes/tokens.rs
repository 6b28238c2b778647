//! Whose a service-account token is: the API server knows (TokenReview).

use serde::Deserialize;
use serde_json::json;

use super::client::{Api, ApiError};
use crate::{
    ca::PodIdentity,
    secure::{ReviewError, TokenReviewer},
};

/// Where reviews are asked for.
const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// What a service account is called as a user: then its namespace and its name.
const ACCOUNT: &str = "system:serviceaccount:";
/// What a token that is bound to a pod says besides.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Asks the API server.
#[derive(Debug, Clone)]
pub(crate) struct Reviewer {
    /// Which.
    pub(crate) api: Api,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Review {
    status: ReviewStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReviewStatus {
    authenticated: bool,
    error: String,
    audiences: Vec<String>,
    user: User,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

impl TokenReviewer for Reviewer {
    async fn review(&self, token: &str, audience: &str) -> Result<PodIdentity, ReviewError> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        });
        let answer = self.api.create("tokenreviews", PATH, &review).await;
        let answer = answer.map_err(|error| unavailable(&error))?;
        let review: Review = serde_json::from_value(answer)
            .map_err(|error| ReviewError::Unavailable(error.to_string()))?;
        pod_of(review.status, audience)
    }
}

fn unavailable(error: &ApiError) -> ReviewError {
    ReviewError::Unavailable(error.to_string())
}

fn pod_of(status: ReviewStatus, audience: &str) -> Result<PodIdentity, ReviewError> {
    let refused = |reason: &str| ReviewError::Refused(reason.to_owned());
    if !status.authenticated {
        let reason = if status.error.is_empty() { "it is not valid" } else { &status.error };
        return Err(refused(reason));
    }
    if !status.audiences.iter().any(|one| one == audience) {
        return Err(refused(&format!("it is not meant for `{audience}`")));
    }
    let account = status.user.username.strip_prefix(ACCOUNT).and_then(|rest| rest.split_once(':'));
    let Some((namespace, account)) = account else {
        return Err(refused("it is no service account's"));
    };
    let extra = |key: &str| status.user.extra.get(key).and_then(|all| all.first()).cloned();
    let Some(pod_name) = extra(POD_NAME) else {
        return Err(refused("it is not bound to a pod: it must come from a projected volume"));
    };
    Ok(PodIdentity {
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
        pod_name,
        pod_uid: extra(POD_UID).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn told(status: Value) -> Result<PodIdentity, ReviewError> {
        pod_of(serde_json::from_value(status).unwrap(), "heddle-ca")
    }

    #[test]
    fn only_a_pods_own_token_for_us_says_who_it_is() {
        let user = json!({
            "username": "system:serviceaccount:shop:front",
            "extra": {POD_NAME: ["web-1"], POD_UID: ["u-1"]},
        });
        let good = json!({"authenticated": true, "audiences": ["heddle-ca"], "user": user});
        let pod = told(good.clone()).unwrap();
        assert_eq!(
            (&*pod.namespace, &*pod.service_account, &*pod.pod_name, &*pod.pod_uid),
            ("shop", "front", "web-1", "u-1")
        );
        for (path, value, reason) in [
            ("/authenticated", json!(false), "not valid"),
            ("/audiences", json!(["api"]), "not meant for"),
            ("/user/username", json!("admin"), "no service account's"),
            ("/user/extra", json!({}), "not bound to a pod"),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(path).unwrap() = value;
            let error = told(bad).unwrap_err();
            assert!(
                matches!(&error, ReviewError::Refused(text) if text.contains(reason)),
                "{error}"
            );
        }
    }
}
