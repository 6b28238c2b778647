//! The analyzers of Telemetries and of the MeshConfig.

use heddle_model::{
    Registry,
    discovery::{Metric, MetricChange},
    registry::carries,
    resource::{Named, Provider, ProviderKind, Resource, Telemetry},
};

use crate::{
    finding::{Finding, FindingKind},
    rules::{ROOT_NAMESPACE, RuleIndex},
    telemetry::PROMETHEUS,
};

/// Providers that Istio has without being told.
const BUILT_IN: [&str; 2] = ["envoy", PROMETHEUS];

impl RuleIndex {
    /// What is worth saying about what sidecars tell.
    pub(crate) fn telemetry_findings(&self, registry: &Registry) -> Vec<Finding> {
        let mut found = Vec::new();
        for (resource, telemetry) in self.telemetries() {
            found.extend(self.second_telemetry(resource, telemetry));
            found.extend(selects_nobody(resource, telemetry, registry));
            found.extend(self.lost_providers(resource, telemetry));
            found.extend(self.lost_tags(resource, telemetry));
        }
        let mut configs = self.mesh_configs();
        let Some((first, config)) = configs.next() else { return found };
        for provider in &config.providers {
            found.extend(not_carried_out(first, provider));
        }
        for name in config.default_tracing.iter().chain(&config.default_logging) {
            let place = (name.line, "spec.defaultProviders".to_owned());
            found.extend(unknown(first, &config.providers, name, place));
        }
        for (resource, _) in configs {
            let text =
                format!("{} came first and holds for the mesh: put both into one", first.key);
            let place = (resource.origin.line, "spec".to_owned());
            found.push(Finding::new(resource, place, FindingKind::Conflict, text));
        }
        found
    }

    /// Of several Telemetries for the same workloads the oldest holds.
    fn second_telemetry(&self, resource: &Resource, telemetry: &Telemetry) -> Option<Finding> {
        if telemetry.for_targets {
            return None;
        }
        let mut before = self.telemetries().take_while(|(other, _)| other.key != resource.key);
        let (first, _) = before.find(|(other, one)| {
            other.key.namespace == resource.key.namespace
                && one.selector == telemetry.selector
                && !one.for_targets
        })?;
        let text = format!(
            "{} is for the same workloads and came first: this one has no effect; put both into one",
            first.key
        );
        let place = (telemetry.line, "spec.selector".to_owned());
        Some(Finding::new(resource, place, FindingKind::Conflict, text))
    }

    /// With those that hold before it, more tags of a metric are changed than a sidecar changes.
    fn lost_tags(&self, resource: &Resource, telemetry: &Telemetry) -> Option<Finding> {
        let own = telemetry.metrics.iter().flat_map(|one| &one.overrides);
        if telemetry.for_targets || own.clone().all(|one| one.tags.is_empty()) {
            return None;
        }
        for changes in self.metrics_with((resource, telemetry)) {
            for (metric, name, _) in Metric::EACH {
                let mut tags: Vec<&str> = Vec::new();
                let meant =
                    changes.iter().filter(|one| [metric, Metric::All].contains(&one.metric));
                for tag in meant.flat_map(|one| one.tags.keys()) {
                    if !tags.contains(&tag.as_str()) {
                        tags.push(tag);
                    }
                }
                let Some(first) = tags.get(MetricChange::TAGS_MAX) else { continue };
                let text = format!(
                    "{} tags of {name} are changed, with what holds for the same workloads before it, and a sidecar \
                     changes {} of a metric: `{first}` and what comes after it stay as they are",
                    tags.len(),
                    MetricChange::TAGS_MAX
                );
                let place = (telemetry.line, "spec.metrics".to_owned());
                return Some(Finding::new(resource, place, FindingKind::NoEffect, text));
            }
        }
        None
    }

    fn lost_providers(&self, resource: &Resource, telemetry: &Telemetry) -> Vec<Finding> {
        let providers = self.mesh_configs().next().map_or(&[][..], |(_, one)| &one.providers);
        let tracing = telemetry.tracing.iter().map(|one| ("tracing", &one.providers));
        let logging = telemetry.access_logging.iter().map(|one| ("accessLogging", &one.providers));
        let metrics = telemetry.metrics.iter().map(|one| ("metrics", &one.providers));
        let all = tracing.chain(logging).chain(metrics);
        let named = all.flat_map(|(what, names)| names.iter().map(move |name| (what, name)));
        let mut found = Vec::new();
        for (what, name) in named {
            let place = (name.line, format!("spec.{what}"));
            found.extend(unknown(resource, providers, name, place.clone()));
            let known = providers.iter().find(|one| one.name == name.name);
            let fits = match known.map(|one| &one.does) {
                None | Some(ProviderKind::Other(_)) => true,
                Some(ProviderKind::FileLog(..) | ProviderKind::OtlpLog(..)) => {
                    what == "accessLogging"
                }
                Some(ProviderKind::Spans(..)) => what == "tracing",
                Some(ProviderKind::Prometheus) => what == "metrics",
            };
            if !fits {
                let text =
                    format!("the provider `{}` takes no {what}: nothing goes to it", name.name);
                found.push(Finding::new(resource, place, FindingKind::NoEffect, text));
            }
        }
        found
    }
}

/// A provider to which nothing is sent.
fn not_carried_out(resource: &Resource, provider: &Provider) -> Option<Finding> {
    let place = match &provider.does {
        ProviderKind::Other(field) => (field.line, field.name.clone()),
        ProviderKind::FileLog(..)
        | ProviderKind::OtlpLog(..)
        | ProviderKind::Spans(..)
        | ProviderKind::Prometheus => return None,
    };
    let text = format!(
        "nothing is sent to `{}`: this version does not carry out providers of this kind",
        provider.name
    );
    Some(Finding::new(resource, place, FindingKind::NotEnforced, text))
}

fn unknown(
    resource: &Resource,
    providers: &[Provider],
    name: &Named,
    place: (usize, String),
) -> Option<Finding> {
    let known = providers.iter().any(|one| one.name == name.name);
    if known || BUILT_IN.contains(&name.name.as_str()) {
        return None;
    }
    let text = format!(
        "there is no provider `{}`: add it to `extensionProviders` of the MeshConfig in {ROOT_NAMESPACE}",
        name.name
    );
    Some(Finding::new(resource, place, FindingKind::Dangling, text))
}

fn selects_nobody(
    resource: &Resource,
    telemetry: &Telemetry,
    registry: &Registry,
) -> Option<Finding> {
    let labels = telemetry.selector.as_ref()?;
    let namespace = &resource.key.namespace;
    let selected = |labels| {
        registry
            .workloads
            .values()
            .any(|workload| workload.namespace == *namespace && carries(&workload.labels, labels))
    };
    if selected(labels) {
        return None;
    }
    let text = match namespace.as_str() {
        ROOT_NAMESPACE => format!(
            "a `selector` is for workloads of {ROOT_NAMESPACE} itself, as in Istio, and none carries these labels: leave it out for the whole mesh"
        ),
        _ => format!("no workload of namespace `{namespace}` carries these labels"),
    };
    let place = (telemetry.line, "spec.selector".to_owned());
    Some(Finding::new(resource, place, FindingKind::Notice, text))
}
