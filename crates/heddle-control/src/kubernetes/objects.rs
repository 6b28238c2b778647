//! The cluster's objects, as far as the mesh needs them. What is not here is never kept in memory: the API
//! server's answers are read into these, and everything else of them is skipped on the way.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Names an object within its kind; of one without a namespace that is empty.
pub(crate) type ObjectName = (String, String);

/// Labels or annotations.
pub(crate) type Labels = BTreeMap<String, String>;

/// Go writes an empty list or map as `null` where it is not left out.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `metadata`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) resource_version: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) labels: Labels,
    #[serde(deserialize_with = "or_default")]
    pub(crate) annotations: Labels,
    #[serde(deserialize_with = "or_default")]
    pub(crate) owner_references: Vec<OwnerReference>,
    pub(crate) deletion_timestamp: Option<String>,
}

impl Meta {
    /// Its name within its kind.
    pub(crate) fn object_name(&self) -> ObjectName {
        (self.namespace.clone(), self.name.clone())
    }
}

/// Who made an object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OwnerReference {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) controller: Option<bool>,
}

/// An object of which only the metadata counts: Namespaces and Nodes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Bare {
    pub(crate) metadata: Meta,
}

/// `Service`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceObject {
    pub(crate) metadata: Meta,
    pub(crate) spec: ServiceSpec,
}

/// Its `spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceSpec {
    pub(crate) r#type: String,
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: String,
    #[serde(rename = "clusterIPs", deserialize_with = "or_default")]
    pub(crate) cluster_ips: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) ports: Vec<ServicePortSpec>,
    pub(crate) external_name: String,
    pub(crate) internal_traffic_policy: String,
}

/// One of its ports.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServicePortSpec {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// `TCP` where it is left out.
    pub(crate) protocol: String,
    pub(crate) app_protocol: Option<String>,
    pub(crate) target_port: Option<TargetPortSpec>,
}

/// A number or a name.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum TargetPortSpec {
    Number(u16),
    Name(String),
}

/// `EndpointSlice`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SliceObject {
    pub(crate) metadata: Meta,
    pub(crate) address_type: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) endpoints: Vec<SliceEndpoint>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) ports: Vec<SlicePort>,
}

/// One of its endpoints.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SliceEndpoint {
    #[serde(deserialize_with = "or_default")]
    pub(crate) addresses: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) conditions: SliceConditions,
    pub(crate) target_ref: Option<TargetRef>,
    pub(crate) node_name: Option<String>,
}

/// Its conditions; one that is left out is taken as for an endpoint that is well.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SliceConditions {
    pub(crate) ready: Option<bool>,
    pub(crate) serving: Option<bool>,
    pub(crate) terminating: Option<bool>,
}

/// What an endpoint is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TargetRef {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
}

/// A port that all endpoints of a slice have.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SlicePort {
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
    /// None: every port.
    pub(crate) port: Option<u16>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) protocol: String,
}

/// `Pod`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodObject {
    pub(crate) metadata: Meta,
    pub(crate) spec: PodSpec,
    pub(crate) status: PodStatus,
}

/// Its `spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub(crate) node_name: String,
    pub(crate) service_account_name: String,
    pub(crate) host_network: bool,
    #[serde(deserialize_with = "or_default")]
    pub(crate) containers: Vec<ContainerSpec>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) init_containers: Vec<ContainerSpec>,
}

/// One of its containers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerSpec {
    pub(crate) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) ports: Vec<ContainerPortSpec>,
}

/// A port that a container declares.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerPortSpec {
    pub(crate) name: String,
    pub(crate) container_port: u16,
    /// `TCP` where it is left out.
    pub(crate) protocol: String,
}

/// Its `status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatus {
    pub(crate) phase: String,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "or_default")]
    pub(crate) pod_ips: Vec<PodIp>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) conditions: Vec<PodCondition>,
}

/// One of its addresses.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodIp {
    pub(crate) ip: String,
}

/// One of its conditions.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodCondition {
    pub(crate) r#type: String,
    pub(crate) status: String,
}

/// Is a port of TCP? Kubernetes' default is.
pub(crate) fn is_tcp(protocol: &str) -> bool {
    protocol.is_empty() || protocol == "TCP"
}
