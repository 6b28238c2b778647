//! What `get` shows of each object, and in which columns.

use std::collections::{BTreeMap, BTreeSet};

use heddle_model::{
    EndpointState, Protocol, ServiceName, Workload, timestamp,
    yaml::{documents, to_yaml, with_status},
};
use heddle_wire::local::control_api::{ResourceView, ServiceView, WorkloadView};
use serde_json::Value;

use crate::{failure::Failure, top::figures::NONE};

/// Hosts shown in a cell; the rest are counted.
const HOSTS_SHOWN: usize = 2;

/// Columns of rules; those of a wide table are more.
pub(super) const RULES: [&str; 6] = ["KIND", "NAMESPACE", "NAME", "HOSTS", "STATE", "AGE"];
/// What a wide table of rules has besides.
pub(super) const RULES_WIDE: [&str; 2] = ["SOURCE", "LABELS"];
/// Columns of services.
pub(super) const SERVICES: [&str; 5] = ["NAMESPACE", "NAME", "ADDRESS", "PORTS", "WORKLOADS"];
/// What a wide table of services has besides.
pub(super) const SERVICES_WIDE: [&str; 2] = ["ADDRESSES", "MEMBERS"];
/// Columns of workloads.
pub(super) const WORKLOADS: [&str; 7] =
    ["NAMESPACE", "NAME", "SERVICE", "VERSION", "ADDRESS", "PORTS", "PROXY"];
/// What a wide table of workloads has besides.
pub(super) const WORKLOADS_WIDE: [&str; 3] = ["LOCALITY", "IDENTITY", "LABELS"];

/// One object as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    /// `kind/name`, as it is asked for.
    pub(super) name: String,
    /// Its namespace and name, to know it by.
    pub(super) id: String,
    /// Cells of a wide table.
    pub(super) row: Vec<String>,
    /// As JSON.
    pub(super) json: Value,
    /// As a YAML document.
    pub(super) yaml: String,
}

fn value(of: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(of)
        .map_err(|error| Failure::refused(format!("cannot write the answer as JSON: {error}")))
}

/// The document of a rule. In a cluster it is kept as JSON, which is YAML too.
fn document(view: &ResourceView) -> Value {
    let read = documents("-", &view.text).unwrap_or_default();
    read.into_iter().next().map_or(Value::Null, |document| document.value)
}

/// The labels of a rule's document.
pub(crate) fn labels(view: &ResourceView) -> BTreeMap<String, String> {
    labels_of(&document(view))
}

fn labels_of(document: &Value) -> BTreeMap<String, String> {
    let labels = document.pointer("/metadata/labels").and_then(Value::as_object);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    labels.into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect()
}

/// A rule; `now` is Unix time in seconds, `of_cluster` says where it is kept.
pub(super) fn rule(view: &ResourceView, now: u64, of_cluster: bool) -> Result<Item, Failure> {
    let document = document(view);
    let made = document.pointer("/metadata/creationTimestamp").and_then(Value::as_str);
    let since = view.since.or_else(|| made.and_then(|text| timestamp::parse(text).ok()));
    let key = &view.key;
    let row = vec![
        key.kind.clone(),
        key.namespace.clone(),
        key.name.clone(),
        shown_hosts(&hosts(&document)),
        view.state.clone(),
        since.map_or_else(|| NONE.to_owned(), |since| age(now.saturating_sub(since))),
        view.source.clone(),
        pairs(&labels_of(&document)),
    ];
    let text = if of_cluster { to_yaml(&document) } else { view.text.clone() };
    let status = view.status.as_ref().and_then(|status| serde_json::to_string(status).ok());
    let text = status.map_or_else(|| text.clone(), |status| with_status(&text, &status));
    Ok(Item {
        name: format!("{}/{}", key.kind.to_ascii_lowercase(), key.name),
        id: key.to_string(),
        row,
        json: value(view)?,
        yaml: text.trim_end().to_owned(),
    })
}

/// Whose calls a rule is about, as it says itself.
fn hosts(document: &Value) -> Vec<String> {
    let spec = |path: &str| document.pointer(&format!("/spec/{path}"));
    let texts = |list: &Value, of: fn(&Value) -> Option<&str>| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(of).map(str::to_owned).collect()
    };
    for list in ["hosts", "hostnames"] {
        if let Some(list) = spec(list) {
            return texts(list, Value::as_str);
        }
    }
    if let Some(host) = spec("host").and_then(Value::as_str) {
        return vec![host.to_owned()];
    }
    let name = |one: &Value| one.get("name").and_then(Value::as_str).map(str::to_owned);
    let parents = spec("parentRefs").and_then(Value::as_array);
    let targets = spec("targetRefs").and_then(Value::as_array);
    let single = spec("targetRef").or_else(|| spec("target"));
    let named = parents.into_iter().chain(targets).flatten().chain(single);
    named.filter_map(name).collect()
}

fn shown_hosts(hosts: &[String]) -> String {
    match hosts {
        [] => NONE.to_owned(),
        some if some.len() <= HOSTS_SHOWN => some.join(","),
        more => format!("{} +{}", more[..HOSTS_SHOWN].join(","), more.len() - HOSTS_SHOWN),
    }
}

/// How long ago, as kubectl writes it.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn pairs(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

/// A service.
pub(super) fn service(view: &ServiceView) -> Result<Item, Failure> {
    let service = &view.service;
    let ports =
        service.ports.values().map(|port| port_text(port.number, &port.name, port.protocol));
    let members: Vec<&str> = view.workloads.iter().map(|id| id.0.as_str()).collect();
    let addresses: Vec<String> = service.vips.iter().map(ToString::to_string).collect();
    let or_none = |cell: String| if cell.is_empty() { NONE.to_owned() } else { cell };
    let row = vec![
        service.name.namespace.clone(),
        service.name.name.clone(),
        service.vips.first().map_or_else(|| "None".to_owned(), ToString::to_string),
        ports.collect::<Vec<_>>().join(","),
        members.len().to_string(),
        or_none(addresses.join(",")),
        or_none(members.join(",")),
    ];
    item("service", &service.name.namespace, &service.name.name, row, view)
}

/// A workload.
pub(super) fn workload(view: &WorkloadView) -> Result<Item, Failure> {
    let workload = &view.workload;
    let ports = workload.ports.values().map(|port| {
        let text = port_text(port.number, &port.name, port.protocol);
        match port.state {
            EndpointState::Ready => text,
            EndpointState::Pending => format!("{text}(pending)"),
            EndpointState::ServingTerminating | EndpointState::Terminating => {
                format!("{text}(terminating)")
            }
        }
    });
    let row = vec![
        workload.namespace.clone(),
        workload.id.0.clone(),
        names(&workload.services),
        workload.version.clone(),
        workload.addresses.first().to_string(),
        ports.collect::<Vec<_>>().join(","),
        match (view.sidecar, view.connected) {
            (false, _) => "no sidecar".to_owned(),
            (true, true) => format!("generation {}", view.generation),
            (true, false) => "not connected".to_owned(),
        },
        locality(workload),
        workload.identity.to_string(),
        pairs(&workload.labels),
    ];
    item("workload", &workload.namespace, &workload.id.0, row, view)
}

/// `REGION/ZONE/SUBZONE`, as it was given to `run`.
fn locality(workload: &Workload) -> String {
    let of = &workload.locality;
    let parts = [&of.region, &of.zone, &of.subzone].map(String::as_str);
    let known: Vec<&str> = parts.into_iter().take_while(|part| !part.is_empty()).collect();
    if known.is_empty() { NONE.to_owned() } else { known.join("/") }
}

fn item(
    kind: &str,
    namespace: &str,
    name: &str,
    row: Vec<String>,
    view: &impl serde::Serialize,
) -> Result<Item, Failure> {
    let json = value(view)?;
    Ok(Item {
        name: format!("{kind}/{name}"),
        id: format!("{kind}/{namespace}/{name}"),
        row,
        yaml: to_yaml(&json).trim_end().to_owned(),
        json,
    })
}

/// Short names, where a table has no room for more.
fn names(services: &BTreeSet<ServiceName>) -> String {
    services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>().join(",")
}

/// `80/http`, `http-web:80/http`, or just the number where nothing was declared.
fn port_text(number: u16, name: &str, protocol: Protocol) -> String {
    let name = if name.is_empty() { String::new() } else { format!("{name}:") };
    match protocol {
        Protocol::Undeclared => format!("{name}{number}"),
        protocol => format!("{name}{number}/{protocol}"),
    }
}

#[cfg(test)]
mod tests {
    use heddle_model::ResourceKey;

    use super::*;

    fn view(text: &str) -> ResourceView {
        let key = ResourceKey {
            kind: "VirtualService".to_owned(),
            namespace: "default".to_owned(),
            name: "web".to_owned(),
        };
        ResourceView {
            key,
            source: "apply".to_owned(),
            line: 1,
            text: text.to_owned(),
            state: "Programmed".to_owned(),
            notes: Vec::new(),
            status: None,
            warnings: Vec::new(),
            since: Some(1_000),
        }
    }

    #[test]
    fn a_rule_says_whose_calls_it_is_about_and_how_old_it_is() {
        let of = |spec: &str| {
            rule(&view(&format!("metadata: {{labels: {{a: b}}}}\nspec: {spec}\n")), 1_090, false)
                .unwrap()
                .row
        };
        assert_eq!(of("{hosts: [a, b]}")[3..6], ["a,b", "Programmed", "90s"]);
        assert_eq!(of("{hosts: [a, b, c, d]}")[3], "a,b +2");
        assert_eq!(of("{host: x}")[3], "x");
        assert_eq!(of("{parentRefs: [{name: web, kind: Service}]}")[3], "web");
        assert_eq!(of("{}")[3], "-");
        assert_eq!(of("{}")[7], "a=b");
    }

    #[test]
    fn the_age_of_a_clusters_rule_stands_in_its_document() {
        let mut of_cluster = view(r#"{"metadata":{"creationTimestamp":"1970-01-01T00:00:30Z"}}"#);
        of_cluster.since = None;
        let item = rule(&of_cluster, 30 + 3 * 3_600, true).unwrap();
        assert_eq!(item.row[5], "3h");
        assert!(item.yaml.starts_with("metadata:\n  creationTimestamp:"), "{}", item.yaml);
    }

    #[test]
    fn ages_are_written_as_kubectl_writes_them() {
        assert_eq!(
            [0, 119, 120, 7_199, 7_200, 172_800].map(age),
            ["0s", "119s", "2m", "119m", "2h", "2d"]
        );
    }
}
