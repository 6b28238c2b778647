//! What is installed, as text: the Helm chart's own templates, with our values in their places.
//!
//! `charts/heddle` is the only source, so that both ways of installing say the same.

use heddle_control::revision::DEFAULT;

use super::template::filled;
use crate::failure::Failure;

/// The templates in the order in which they are applied: who the control plane is, then itself and the observer, then
/// what sends pods to it.
const TEMPLATES: [(&str, &str); 4] = [
    ("templates/access.yaml", include_str!("../../../../charts/heddle/templates/access.yaml")),
    ("templates/control.yaml", include_str!("../../../../charts/heddle/templates/control.yaml")),
    ("templates/observe.yaml", include_str!("../../../../charts/heddle/templates/observe.yaml")),
    ("templates/webhooks.yaml", include_str!("../../../../charts/heddle/templates/webhooks.yaml")),
];

/// What an installation is told; each value has the name that the chart gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Values {
    /// The mesh's own namespace.
    pub namespace: String,
    /// Image of the control plane and of what is added to pods.
    pub image: String,
    /// When it is pulled.
    pub image_pull_policy: String,
    /// Replicas of the control plane.
    pub replicas: u16,
    /// What labels call this installation by.
    pub revision: String,
    /// Further names that they may call it by.
    pub tags: Vec<String>,
    /// Trust domain of the identities that it issues.
    pub trust_domain: String,
    /// Suffix of the cluster's names.
    pub cluster_domain: String,
    /// Share of a processor that a replica asks for, as Kubernetes writes it.
    pub cpu: String,
    /// Memory that it asks for.
    pub memory: String,
    /// Memory that it may take.
    pub memory_limit: String,
    /// What the observer asks for and may take.
    pub observe: Resources,
    /// Who takes spans where no MeshConfig says that: `store` or `none`.
    pub traces: String,
}

/// Resources of a container, as Kubernetes writes quantities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resources {
    /// Share of a processor that it asks for.
    pub cpu: String,
    /// Memory that it asks for.
    pub memory: String,
    /// Memory that it may take.
    pub memory_limit: String,
}

impl Values {
    /// By the names that templates use.
    pub(crate) fn named(&self) -> [(&'static str, String); 15] {
        [
            (".Release.Namespace", self.namespace.clone()),
            (".Values.image", self.image.clone()),
            (".Values.imagePullPolicy", self.image_pull_policy.clone()),
            (".Values.replicas", self.replicas.to_string()),
            (".Values.revision", self.revision.clone()),
            (".Values.tags", self.tags.join(",")),
            (".Values.trustDomain", self.trust_domain.clone()),
            (".Values.clusterDomain", self.cluster_domain.clone()),
            (".Values.cpu", self.cpu.clone()),
            (".Values.memory", self.memory.clone()),
            (".Values.memoryLimit", self.memory_limit.clone()),
            (".Values.observeCpu", self.observe.cpu.clone()),
            (".Values.observeMemory", self.observe.memory.clone()),
            (".Values.observeMemoryLimit", self.observe.memory_limit.clone()),
            (".Values.traces", self.traces.clone()),
        ]
    }
}

impl Values {
    /// The label by which a namespace asks for this installation's sidecars.
    pub(crate) fn namespace_label(&self) -> String {
        match self.revision.as_str() {
            DEFAULT => "heddle.dev/inject=true".to_owned(),
            revision => format!("heddle.dev/rev={revision}"),
        }
    }
}

/// The namespace's own manifest. A chart leaves it to Helm. Nothing in it needs more than `restricted` pods may.
pub(crate) fn namespace(values: &Values) -> String {
    format!(
        "apiVersion: v1
kind: Namespace
metadata:
  name: \"{}\"
  labels:
    app.kubernetes.io/part-of: heddle
    app.kubernetes.io/instance: \"{}\"
    pod-security.kubernetes.io/enforce: restricted
",
        values.namespace, values.revision
    )
}

/// Everything but the namespace and the kinds, as documents of YAML.
///
/// # Errors
/// A value that cannot stand between quotes, or a template that asks for one that does not exist.
pub(crate) fn objects(values: &Values) -> Result<Vec<String>, Failure> {
    let mut documents = Vec::new();
    for (file, template) in TEMPLATES {
        let text = filled(template, &values.named())
            .map_err(|reason| Failure::refused(format!("charts/heddle/{file}: {reason}")))?;
        documents
            .extend(text.split("\n---\n").map(|document| format!("{}\n", document.trim_end())));
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values {
            namespace: "heddle-system".to_owned(),
            image: "registry.example:5000/heddle@sha256:00".to_owned(),
            image_pull_policy: "IfNotPresent".to_owned(),
            replicas: 2,
            revision: "canary".to_owned(),
            tags: Vec::new(),
            trust_domain: "example.org".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            cpu: "100m".to_owned(),
            memory: "128Mi".to_owned(),
            memory_limit: "512Mi".to_owned(),
            observe: Resources {
                cpu: "50m".to_owned(),
                memory: "64Mi".to_owned(),
                memory_limit: "384Mi".to_owned(),
            },
            traces: "store".to_owned(),
        }
    }

    #[test]
    fn every_template_is_filled_and_every_object_is_told_as_ours() {
        let documents = objects(&values()).unwrap();
        let all = documents.concat();
        assert!(!all.contains("{{") && all.contains("replicas: 2\n"), "{all}");
        assert!(all.contains("image: \"registry.example:5000/heddle@sha256:00\""), "{all}");
        assert!(all.contains("--trust-domain=example.org"), "{all}");
        for document in &documents {
            let kinds = document.lines().filter(|line| line.starts_with("kind: ")).count();
            assert_eq!(kinds, 1, "{document}");
            assert!(document.contains("\n    app.kubernetes.io/part-of: heddle\n"), "{document}");
        }
    }

    #[test]
    fn spans_go_to_the_observer_unless_nobody_is_to_take_them() {
        let of = |traces: &str| {
            objects(&Values { traces: traces.to_owned(), ..values() }).unwrap().concat()
        };
        let flag = "--trace-store=heddle-observe.heddle-system.svc.cluster.local:4318";
        assert!(of("store").contains(flag) && of("store").contains("name: otlp-http\n"));
        assert!(!of("none").contains("--trace-store"));
    }

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        for image in ["x\"\nkind: Pod", "x\\", "{{ .Values.image }}", "x\r"] {
            let wrong = Values { image: image.to_owned(), ..values() };
            let failure = objects(&wrong).unwrap_err();
            assert!(failure.message.contains("`.Values.image` cannot be"), "{failure}");
        }
    }

    #[test]
    fn a_tag_is_another_name_of_the_revision_to_webhooks_and_to_the_injector() {
        let of = |tags: &[&str]| {
            let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
            objects(&Values { tags, ..values() }).unwrap().concat()
        };
        let named = r#"operator: In, values: ["canary", "prod", "blue"]}"#;
        let both = of(&["prod", "blue"]);
        assert_eq!(both.matches(named).count(), 4, "{both}");
        assert!(both.contains("    tags: [\"prod\",\"blue\",]\n"), "{both}");
        let none = of(&[]);
        assert_eq!(none.matches(r#"operator: In, values: ["canary"]}"#).count(), 4, "{none}");
        assert!(none.contains("    tags: []\n"), "{none}");
    }

    #[test]
    fn revisions_share_no_name_and_labels_without_one_mean_the_default() {
        let of = |revision: &str| {
            let values = Values { revision: revision.to_owned(), ..values() };
            let documents = objects(&values).unwrap();
            for document in &documents {
                let instance = format!("\n    app.kubernetes.io/instance: \"{revision}\"\n");
                assert!(document.contains(&instance), "{document}");
            }
            let wide = documents.iter().filter(|one| {
                one.contains("kind: Cluster") || one.contains("WebhookConfiguration\n")
            });
            let name = |one: &String| {
                let line = |start: &str| {
                    one.lines().find_map(|line| line.strip_prefix(start).map(str::to_owned))
                };
                (line("kind: ").unwrap(), line("  name: ").unwrap())
            };
            let names: std::collections::BTreeSet<_> = wide.map(name).collect();
            (names, documents.concat().matches(".injector.heddle.dev\n").count())
        };
        let ((default, eight), (canary, four)) = (of("default"), of("canary"));
        assert!(default.len() == canary.len() && default.len() >= 4, "{default:?} {canary:?}");
        assert_eq!((eight, four), (8, 4), "webhooks of default and of canary");
        assert!(default.is_disjoint(&canary), "{default:?} {canary:?}");
        assert!(default.contains(&("ClusterRole".to_owned(), "heddle-control".to_owned())));
        assert!(canary.contains(&("ClusterRole".to_owned(), "heddle-control-canary".to_owned())));
    }
}
