//! The mesh's authority, as it is in a Secret: made there once by whoever comes first, or a user's own. It is
//! looked at again and again, so that another takes its place without a restart.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use heddle_runtime::clock;
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    client::{Api, ApiError, Kind},
    health::Health,
    watch::Pauses,
};
use crate::{
    ca::{Authority, AuthorityPem, CaError, Trust},
    revision::{AUTHORITY, labels},
};

/// The Secret's name and its keys.
const NAME: &str = AUTHORITY.0;
const KEYS: [&str; 3] = AUTHORITY.1;
/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(30);

/// Where the authority is.
#[derive(Debug, Clone)]
pub(crate) struct AuthoritySecret {
    /// Whom to ask.
    pub(crate) api: Api,
    /// In which namespace.
    pub(crate) namespace: String,
    /// Whose.
    pub(crate) revision: String,
    /// Whose identities it vouches for.
    pub(crate) trust_domain: String,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
enum SecretError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("the Secret {NAME} cannot be used: {0}")]
    Unusable(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Secret {
    data: Option<BTreeMap<String, ByteString>>,
}

impl AuthoritySecret {
    /// The authority, made if there is none. Waits for as long as it takes.
    pub(crate) async fn wait(&self, health: &Health) -> Arc<Trust> {
        let mut pauses = Pauses::default();
        health.expect("secrets");
        loop {
            match self.read_or_make().await {
                Ok(authority) => {
                    health.synced("secrets");
                    return Trust::new(authority);
                }
                Err(error) => {
                    health.trouble("secrets", &told(error));
                    pauses.wait().await;
                }
            }
        }
    }

    /// Puts another in force when there is one, for ever. One that cannot be used changes nothing.
    pub(crate) async fn follow(self, trust: Arc<Trust>, health: Arc<Health>) {
        loop {
            clock::sleep(INTERVAL).await;
            match self.read().await {
                Ok(Some(pem)) if pem == *trust.authority().to_pem() => health.synced("secrets"),
                Ok(Some(pem)) => match self.authority(pem) {
                    Ok(authority) => {
                        tracing::info!("another authority is in the Secret, and in force");
                        trust.replace(authority);
                        health.synced("secrets");
                    }
                    Err(error) => health.trouble("secrets", &told(unusable(&error))),
                },
                // Whoever deletes it would have the mesh make another; restart the control plane for that.
                Ok(None) => {
                    health.trouble("secrets", &ApiError::NotFound(format!("Secret {NAME}")));
                }
                Err(error) => health.trouble("secrets", &told(error)),
            }
        }
    }

    async fn read_or_make(&self) -> Result<Authority, SecretError> {
        if let Some(pem) = self.read().await? {
            return self.authority(pem).map_err(|error| unusable(&error));
        }
        let authority = Authority::generate(&self.trust_domain, clock::unix_now());
        let authority = authority.map_err(|error| unusable(&error))?;
        match self
            .api
            .create("secrets", &kind().path(&self.namespace, ""), &self.object(&authority))
            .await
        {
            Ok(_) => {
                tracing::info!(secret = NAME, "a new authority was made");
                Ok(authority)
            }
            // Another replica was faster: its is everybody's.
            Err(ApiError::Conflict) => match self.read().await? {
                Some(pem) => self.authority(pem).map_err(|error| unusable(&error)),
                None => Err(ApiError::Conflict.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    async fn read(&self) -> Result<Option<AuthorityPem>, SecretError> {
        let path = kind().path(&self.namespace, NAME);
        match self.api.get("secrets", &path).await {
            Ok(secret) => pem(secret).map(Some),
            Err(ApiError::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn authority(&self, pem: AuthorityPem) -> Result<Authority, CaError> {
        Authority::from_pem(&self.trust_domain, pem, clock::unix_now())
    }

    fn object(&self, authority: &Authority) -> Value {
        let AuthorityPem { ca_crt, ca_key, root_crt } = authority.to_pem();
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {
                "name": NAME, "namespace": self.namespace,
                "labels": labels(&self.revision),
            },
            "stringData": {"ca.crt": ca_crt, "ca.key": ca_key, "root.crt": root_crt},
        })
    }
}

fn kind() -> Kind {
    Kind::new("", "v1", "Secret", "secrets")
}

fn unusable(error: &CaError) -> SecretError {
    SecretError::Unusable(error.to_string())
}

fn told(error: SecretError) -> ApiError {
    match error {
        SecretError::Api(error) => error,
        unusable @ SecretError::Unusable(_) => ApiError::Unusable(unusable.to_string()),
    }
}

fn pem(secret: Value) -> Result<AuthorityPem, SecretError> {
    let wrong = |reason: String| SecretError::Unusable(reason);
    let secret: Secret =
        serde_json::from_value(secret).map_err(|error| wrong(error.to_string()))?;
    let data = secret.data.unwrap_or_default();
    let text = |key: &str| {
        let bytes = data.get(key).ok_or_else(|| {
            wrong(format!(
                "it has no `{key}`; it needs {}",
                KEYS.map(|key| format!("`{key}`")).join(", ")
            ))
        })?;
        String::from_utf8(bytes.0.clone()).map_err(|_| wrong(format!("`{key}` is no text")))
    };
    let [ca_crt, ca_key, root_crt] = KEYS;
    Ok(AuthorityPem { ca_crt: text(ca_crt)?, ca_key: text(ca_key)?, root_crt: text(root_crt)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_lacks_a_key_says_which() {
        let secret = json!({"data": {"ca.crt": "Zm9v", "ca.key": "YmFy"}});
        let error = pem(secret).unwrap_err().to_string();
        assert!(error.contains("it has no `root.crt`; it needs `ca.crt`"), "{error}");
        let whole = json!({"data": {"ca.crt": "Zm9v", "ca.key": "YmFy", "root.crt": "YmF6"}});
        assert_eq!(pem(whole).unwrap().root_crt, "baz");
    }
}
