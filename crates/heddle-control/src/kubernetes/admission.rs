//! The webhook of a cluster: with the labels of its namespaces, and the settings of the mesh's ConfigMap, which may
//! be edited at any time.

use std::{collections::BTreeMap, sync::Arc};

use heddle_runtime::{clock, task};
use rustls::ServerConfig;
use tokio::net::TcpListener;

use super::{
    client::{Api, ApiError, Kind},
    config::KubernetesConfig,
    health::Health,
};
use crate::{
    control::Control,
    injection::InjectionSettings,
    revision::{ROOTS, SETTINGS, SETTINGS_EVERY, named},
    webhook::{self, Namespaces, Webhook},
};

/// What stands for it where troubles are told.
const WHAT: &str = "injection settings";

/// What the webhook is run with.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Where the settings are.
    pub(crate) api: Api,
    /// Who knows the namespaces.
    pub(crate) control: Arc<Control>,
    /// How it goes.
    pub(crate) health: Arc<Health>,
    /// What we were started with.
    pub(crate) config: KubernetesConfig,
}

/// Namespaces as their watcher knows them.
#[derive(Debug)]
struct Watched(Arc<Control>);

impl Namespaces for Watched {
    fn labels(&self, namespace: &str) -> Option<Arc<BTreeMap<String, String>>> {
        self.0.with_cluster(|cluster| cluster.namespaces().get(namespace).cloned()).flatten()
    }
}

impl Admission {
    /// Serves for ever.
    pub(crate) async fn run(self, listener: TcpListener, tls: Arc<ServerConfig>) {
        let mut text = None;
        let settings = self.look(&mut text).await.unwrap_or_else(|| self.defaults());
        let namespaces = Arc::new(Watched(self.control.clone()));
        let webhook = Arc::new(Webhook::new(settings, namespaces));
        task::spawn_contained("admission", webhook::serve(listener, tls, webhook.clone()));
        loop {
            clock::sleep(SETTINGS_EVERY).await;
            if let Some(settings) = self.look(&mut text).await {
                tracing::info!("other settings of injection are in force");
                webhook.set_settings(settings);
            }
        }
    }

    /// Without a ConfigMap: what we were started with.
    fn defaults(&self) -> InjectionSettings {
        let KubernetesConfig { namespace, revision, trust_domain, cluster_domain, .. } =
            &self.config;
        InjectionSettings {
            namespace: namespace.clone(),
            revision: revision.clone(),
            trust_domain: trust_domain.clone(),
            cluster_domain: cluster_domain.clone(),
            discovery_address: format!("heddle-control.{namespace}.svc:15012"),
            root_config_map: named(ROOTS, revision),
            ..InjectionSettings::default()
        }
    }

    /// Settings, if they are others than those of `before`. Ones that cannot be read change nothing.
    async fn look(&self, before: &mut Option<String>) -> Option<InjectionSettings> {
        let (name, key) = SETTINGS;
        let kind = Kind::new("", "v1", "ConfigMap", "configmaps");
        let found = self.api.get("configmaps", &kind.path(&self.config.namespace, name)).await;
        let text = match found {
            Ok(map) => map["data"][key].as_str().unwrap_or_default().to_owned(),
            Err(ApiError::NotFound(_)) => {
                self.health.synced(WHAT);
                return before.take().map(|_| self.defaults());
            }
            Err(error) => {
                self.health.trouble(WHAT, &error);
                return None;
            }
        };
        if before.as_ref() == Some(&text) {
            self.health.synced(WHAT);
            return None;
        }
        match InjectionSettings::from_yaml(&format!("{name}/{key}"), &text) {
            Ok(settings) => {
                self.health.synced(WHAT);
                *before = Some(text);
                Some(settings)
            }
            Err(error) => {
                self.health.trouble(WHAT, &ApiError::Unusable(error.to_string()));
                None
            }
        }
    }
}
