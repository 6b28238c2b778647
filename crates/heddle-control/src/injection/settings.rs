//! What whoever installs the mesh decides about injection: the ConfigMap `heddle-injector`, key
//! `settings.yaml`. Every field has a default; one that nobody knows is an error that names it.

use heddle_model::yaml;
use heddle_wire::local::pod_environment::{REDIRECT, TPROXY};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::revision::{DEFAULT, ROOTS};

/// The image of this version, for the control plane and for what is added to pods.
pub const IMAGE: &str = concat!("heddle.dev/heddle:", env!("CARGO_PKG_VERSION"));

/// How a pod's connections get to its sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum InterceptionMode {
    /// Redirected: the application sees the sidecar's address as its caller's.
    #[default]
    Redirect,
    /// The application sees its caller's address.
    Tproxy,
}

impl InterceptionMode {
    /// As annotations and settings have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redirect => REDIRECT,
            Self::Tproxy => TPROXY,
        }
    }

    /// The mode of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Redirect, Self::Tproxy].into_iter().find(|mode| mode.name() == name)
    }
}

/// The settings cannot be used: where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

/// How pods are injected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct InjectionSettings {
    /// The control plane's revision.
    pub revision: String,
    /// Further names that labels may call this revision by.
    pub tags: Vec<String>,
    /// The mesh's own namespace.
    pub namespace: String,
    /// Namespaces in which nothing is ever injected, beside the mesh's own.
    pub excluded_namespaces: Vec<String>,
    /// Inject where neither namespace nor pod says anything.
    pub enable_namespaces_by_default: bool,
    /// Image of both containers.
    pub image: String,
    /// When it is pulled; `None`: as Kubernetes does by the image's tag.
    pub image_pull_policy: Option<String>,
    /// Secrets it is pulled with.
    pub image_pull_secrets: Vec<String>,
    /// The program in the image.
    pub program: String,
    /// The sidecar is a native one (Kubernetes 1.29 on).
    pub native_sidecars: bool,
    /// Where it is not: applications start once it is ready.
    pub hold_application_until_proxy_starts: bool,
    /// `http`, `tcp` and `grpc` probes go through the sidecar.
    pub rewrite_probes: bool,
    /// Pods that nobody scrapes yet get annotations for it.
    pub scrape: bool,
    /// Port 53 goes to the sidecar.
    pub capture_dns: bool,
    /// Whose address the application sees as its caller's.
    pub interception_mode: InterceptionMode,
    /// Capabilities of the sidecar where that is the caller's own; elsewhere it has none.
    pub tproxy_capabilities: Vec<String>,
    /// Calls to these ranges go to the sidecar: `*`, or networks with commas.
    #[serde(rename = "includeOutboundIPRanges")]
    pub include_outbound_ranges: String,
    /// Calls to these do not.
    #[serde(rename = "excludeOutboundIPRanges")]
    pub exclude_outbound_ranges: String,
    /// Calls to these ports go to the sidecar whatever their address.
    pub include_outbound_ports: String,
    /// Calls to these do not.
    pub exclude_outbound_ports: String,
    /// Connections to these ports of the pod go to the sidecar: `*`, or numbers with commas.
    pub include_inbound_ports: String,
    /// Those to these do not.
    pub exclude_inbound_ports: String,
    /// Interfaces whose traffic is left alone.
    pub exclude_interfaces: String,
    /// Discovery and certificates.
    pub discovery_address: String,
    /// Trust domain of the mesh's identities.
    pub trust_domain: String,
    /// Suffix of the cluster's names.
    pub cluster_domain: String,
    /// Worker threads of a sidecar; `None`: it decides.
    pub concurrency: Option<u16>,
    /// The sidecar's log level, or a filter.
    pub log_level: Option<String>,
    /// User and group of the sidecar, by which its traffic is told.
    pub proxy_uid: u32,
    /// Resources of the sidecar.
    pub proxy_resources: Value,
    /// Resources of the init container.
    pub init_resources: Value,
    /// Capabilities of the init container.
    pub init_capabilities: Vec<String>,
    /// Whom the sidecar's token is for.
    pub token_audience: String,
    /// How long it lasts, seconds; the kubelet renews it at 80 %.
    pub token_seconds: u32,
    /// ConfigMap with the mesh's roots, in every namespace.
    pub root_config_map: String,
}

impl Default for InjectionSettings {
    fn default() -> Self {
        let text = str::to_owned;
        Self {
            revision: text(DEFAULT),
            tags: Vec::new(),
            namespace: text("heddle-system"),
            excluded_namespaces: [
                "kube-system",
                "kube-public",
                "kube-node-lease",
                "local-path-storage",
            ]
            .map(text)
            .to_vec(),
            enable_namespaces_by_default: false,
            image: text(IMAGE),
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            program: text("heddle"),
            native_sidecars: true,
            hold_application_until_proxy_starts: false,
            rewrite_probes: true,
            scrape: true,
            capture_dns: true,
            interception_mode: InterceptionMode::default(),
            tproxy_capabilities: vec![text("NET_RAW")],
            include_outbound_ranges: text("*"),
            exclude_outbound_ranges: String::new(),
            include_outbound_ports: String::new(),
            exclude_outbound_ports: String::new(),
            include_inbound_ports: text("*"),
            exclude_inbound_ports: String::new(),
            exclude_interfaces: String::new(),
            discovery_address: text("heddle-control.heddle-system.svc:15012"),
            trust_domain: text("cluster.local"),
            cluster_domain: text("cluster.local"),
            concurrency: None,
            log_level: None,
            proxy_uid: 1337,
            // No limit of CPU: the kernel would stop the sidecar in the middle of calls.
            proxy_resources: json!({
                "requests": {"cpu": "20m", "memory": "32Mi"},
                "limits": {"memory": "256Mi"},
            }),
            init_resources: json!({
                "requests": {"cpu": "10m", "memory": "16Mi"},
                "limits": {"memory": "64Mi"},
            }),
            init_capabilities: vec![text("NET_ADMIN")],
            token_audience: text("heddle-ca"),
            token_seconds: 43_200,
            root_config_map: text(ROOTS),
        }
    }
}

impl InjectionSettings {
    /// Reads settings as YAML or JSON; an empty text is the defaults. `file` names it in messages.
    ///
    /// # Errors
    /// [`SettingsError`]: with line or field.
    pub fn from_yaml(file: &str, text: &str) -> Result<Self, SettingsError> {
        let documents = yaml::documents(file, text).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            SettingsError(lines.join("\n"))
        })?;
        let mut documents = documents.into_iter();
        let Some(document) = documents.next() else { return Ok(Self::default()) };
        if let Some(second) = documents.next() {
            let line = second.line;
            return Err(SettingsError(format!(
                "{file}:{line}: settings are one document, not two"
            )));
        }
        serde_json::from_value(document.value)
            .map_err(|error| SettingsError(format!("{file}: {error}")))
    }

    /// Is this a namespace in which nothing is injected?
    #[must_use]
    pub fn is_excluded(&self, namespace: &str) -> bool {
        self.namespace == namespace
            || self.excluded_namespaces.iter().any(|excluded| excluded == namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_defaults_and_unknown_ones_are_named() {
        assert_eq!(InjectionSettings::from_yaml("s", "# none\n"), Ok(InjectionSettings::default()));
        let some = InjectionSettings::from_yaml("s", "image: a/b:1\nnativeSidecars: false\n");
        let some = some.unwrap();
        assert_eq!((some.image.as_str(), some.native_sidecars), ("a/b:1", false));
        assert_eq!(some.namespace, "heddle-system");
        for (text, says) in [
            ("imgae: x", "unknown field `imgae`"),
            ("nativeSidecars: maybe", "expected a boolean"),
            ("interceptionMode: NONE", "expected `REDIRECT` or `TPROXY`"),
            ("a: [", "settings.yaml:"),
            ("image: x\n---\nimage: y\n", "one document"),
        ] {
            let error = InjectionSettings::from_yaml("settings.yaml", text).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn settings_are_written_as_they_are_read() {
        let settings = InjectionSettings::default();
        let text = yaml::to_yaml(&serde_json::to_value(&settings).unwrap());
        assert_eq!(InjectionSettings::from_yaml("s", &text), Ok(settings));
        assert!(text.contains("includeOutboundIPRanges: \"*\""), "{text}");
    }
}
