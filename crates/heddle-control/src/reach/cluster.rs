//! A cluster, and how it is called in messages.

use kube::Client;

use super::{
    access,
    error::ReachError,
    explain::{self, Place},
};
use crate::installation::Target;

/// A cluster that can be asked.
#[derive(Clone)]
pub struct Reach {
    pub(super) client: Client,
    url: String,
    context: String,
    namespace: String,
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reach").field("url", &self.url).field("context", &self.context).finish()
    }
}

impl Reach {
    /// Reads how to reach the cluster; nothing is asked yet.
    ///
    /// # Errors
    /// No kubeconfig, no such context, or credentials that cannot be used.
    pub async fn of(target: &Target) -> Result<Self, ReachError> {
        let access::Access { config, context } = access::read(target).await?;
        let url = config.cluster_url.to_string();
        let namespace = config.default_namespace.clone();
        let client =
            Client::try_from(config).map_err(|error| explain::credentials(&context, &error))?;
        Ok(Self { client, url, context, namespace })
    }

    /// The context by which it is reached.
    #[must_use]
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The API server's address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same for messages.
    pub(super) fn place(&self) -> Place<'_> {
        Place { url: &self.url, context: &self.context }
    }

    /// The namespace that the context names, else `default`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}
