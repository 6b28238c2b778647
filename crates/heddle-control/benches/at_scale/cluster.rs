//! What the cluster holds: made by number when it is asked for, so that it needs no memory itself.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// Services of a namespace.
const IN_NAMESPACE: usize = 100;
/// First address of pods, and of those that replace them: whose place in the range is the change's number.
const PODS: u32 = u32::from_be_bytes([10, 128, 0, 0]);
const REPLACED: u32 = u32::from_be_bytes([10, 200, 0, 0]);
const VIRTUAL: u32 = u32::from_be_bytes([10, 96, 0, 0]);
const NODES: usize = 500;

/// Services, each with as many pods.
#[derive(Debug)]
pub(crate) struct Cluster {
    services: usize,
    of_each: usize,
}

impl Cluster {
    /// So many services with so many pods each.
    pub(crate) fn of(services: usize, of_each: usize) -> Self {
        Self { services, of_each }
    }

    pub(crate) fn services(&self) -> usize {
        self.services
    }

    pub(crate) fn pods(&self) -> usize {
        self.services * self.of_each
    }

    /// How many objects of a kind there are.
    pub(crate) fn count(&self, plural: &str) -> usize {
        match plural {
            "namespaces" => self.services.div_ceil(IN_NAMESPACE) + 1,
            "nodes" => NODES,
            "services" | "endpointslices" => self.services,
            "pods" => self.pods(),
            _ => 0,
        }
    }

    /// One of them.
    pub(crate) fn object(&self, plural: &str, number: usize) -> Value {
        match plural {
            "namespaces" if number == 0 => json!({"metadata": {"name": "heddle-system"}}),
            "namespaces" => json!({"metadata": {
                "name": namespace((number - 1) * IN_NAMESPACE),
                "labels": {"heddle.dev/inject": "true"},
            }}),
            "nodes" => json!({"metadata": {"name": format!("node-{number}"), "labels": {
                "topology.kubernetes.io/region": "one",
                "topology.kubernetes.io/zone": format!("one-{}", number % 3),
            }}}),
            "services" => service(number),
            "endpointslices" => self.slice(number, None),
            _ => {
                let name = pod_name(number / self.of_each, number % self.of_each);
                pod(number / self.of_each, &name, PODS + as_offset(number) + 1)
            }
        }
    }

    /// Namespace and name of a pod, counted from behind those of the first services.
    pub(crate) fn pod_behind(&self, services: usize, number: usize) -> (String, String) {
        let service = services + number / self.of_each;
        (namespace(service), pod_name(service, number % self.of_each))
    }

    /// Full name of a service.
    pub(crate) fn host(service: usize) -> String {
        format!("s{service}.{}.svc.cluster.local", namespace(service))
    }

    /// The first pod of one of the first services is replaced by another: what the API server tells then.
    pub(crate) fn replacement(&self, change: u32, called: usize) -> Vec<(&'static str, String)> {
        let service = change as usize % called;
        let name = |change: u32| format!("s{service}-x{change}");
        let new = pod(service, &name(change), REPLACED + change);
        let slice = self.slice(service, Some(name(change)));
        let before = change.checked_sub(u32::try_from(called).unwrap()).filter(|one| *one > 0);
        let old = before.map(name).unwrap_or_else(|| pod_name(service, 0));
        let old = json!({"metadata": {"name": old, "namespace": namespace(service)}});
        let event = |is: &str, object: Value| {
            let mut object = object;
            object["metadata"]["resourceVersion"] = json!((10 + change).to_string());
            json!({"type": is, "object": object}).to_string()
        };
        vec![
            ("pods", event("ADDED", new)),
            ("endpointslices", event("MODIFIED", slice)),
            ("pods", event("DELETED", old)),
        ]
    }

    /// The change that an address is of.
    pub(crate) fn change_of(ip: Ipv4Addr) -> Option<u32> {
        let offset = u32::from(ip).checked_sub(REPLACED)?;
        (offset < 1 << 16).then_some(offset)
    }

    /// An edit of the rule of the first service.
    pub(crate) fn rule(edit: usize) -> String {
        let destination = json!({"host": Self::host(0)});
        let matching = json!([{"headers": {"edit": {"exact": edit.to_string()}}}]);
        let object = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {
                "name": "called", "namespace": namespace(0),
                "resourceVersion": (100_000 + edit).to_string(), "generation": edit + 1,
            },
            "spec": {"hosts": [Self::host(0)], "http": [
                {"match": matching, "route": [{"destination": destination}]},
                {"route": [{"destination": destination}]},
            ]},
        });
        let is = if edit == 0 { "ADDED" } else { "MODIFIED" };
        json!({"type": is, "object": object}).to_string()
    }

    fn slice(&self, service: usize, first: Option<String>) -> Value {
        let mut names: Vec<String> = (0..self.of_each).map(|i| pod_name(service, i)).collect();
        if let Some(first) = first {
            names[0] = first;
        }
        let endpoints: Vec<Value> = names
            .iter()
            .enumerate()
            .map(|(i, name)| {
                let ip = PODS + as_offset(service * self.of_each + i) + 1;
                json!({
                    "addresses": [Ipv4Addr::from(ip).to_string()], "nodeName": node(service + i),
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "targetRef": {"kind": "Pod", "name": name, "namespace": namespace(service)},
                })
            })
            .collect();
        json!({
            "metadata": {
                "name": format!("s{service}-abcde"), "namespace": namespace(service),
                "labels": {"kubernetes.io/service-name": format!("s{service}")},
            },
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        })
    }
}

fn namespace(service: usize) -> String {
    format!("load-{:02}", service / IN_NAMESPACE)
}

fn pod_name(service: usize, number: usize) -> String {
    format!("s{service}-7d9c5b6f4-{number:05}")
}

fn node(number: usize) -> String {
    format!("node-{}", number % NODES)
}

fn as_offset(number: usize) -> u32 {
    u32::try_from(number).unwrap()
}

fn service(number: usize) -> Value {
    let ip = Ipv4Addr::from(VIRTUAL + as_offset(number) + 10).to_string();
    json!({
        "metadata": {"name": format!("s{number}"), "namespace": namespace(number)},
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
            "selector": {"app": format!("s{number}")},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

/// With about as much of what the mesh does not need as pods have.
fn pod(service: usize, name: &str, ip: u32) -> Value {
    let ip = Ipv4Addr::from(ip).to_string();
    let environment: Vec<Value> = (0..20)
        .map(|i| json!({"name": format!("SETTING_{i}"), "value": "a value of some length"}))
        .collect();
    json!({
        "metadata": {
            "name": name, "namespace": namespace(service),
            "labels": {
                "app": format!("s{service}"), "version": "v1", "pod-template-hash": "7d9c5b6f4",
                "app.kubernetes.io/name": format!("s{service}"), "app.kubernetes.io/part-of": "load",
            },
            "annotations": {"a.tool/checksum": "3b5d5c3712955042212316173ccf37be80000000"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": format!("s{service}-7d9c5b6f4"), "controller": true}],
            "managedFields": [{"manager": "kube-controller-manager", "fieldsV1": {"f:spec": {"f:containers": {}, "f:dnsPolicy": {}}}}],
        },
        "spec": {
            "nodeName": node(service), "serviceAccountName": format!("s{service}"),
            "containers": [{"name": "app", "image": "registry.example/app:1", "env": environment,
                "ports": [{"name": "http", "containerPort": 8080}]}],
            "initContainers": [{"name": "heddle-proxy", "restartPolicy": "Always"}],
        },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}
