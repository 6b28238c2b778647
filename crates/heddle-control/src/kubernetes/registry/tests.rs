//! Objects in, registry and what was touched out.

use heddle_compile::{RuleIndex, address, endpoints, name_answer};
use heddle_model::{EndpointState, Endpoints, Owner, Protocol};
use serde_json::{Value, json};

use super::*;
use crate::documents::parse;

/// One object of the cluster.
#[derive(Clone)]
struct Object(Value);

impl Object {
    fn name(&self) -> ObjectName {
        let text = |key: &str| self.0["metadata"][key].as_str().unwrap_or_default().to_owned();
        (text("namespace"), text("name"))
    }
}

fn read<T: serde::de::DeserializeOwned>(object: &Object) -> T {
    serde_json::from_value(object.0.clone()).unwrap()
}

impl Cluster {
    fn put(&mut self, object: &Object) -> Touched {
        match object.0["kind"].as_str().unwrap() {
            "Service" => self.put_service(&read(object)),
            "Pod" => self.put_pod(read(object)),
            "EndpointSlice" => self.put_slice(&read(object)),
            "Node" => self.put_node(&read(object)),
            "Namespace" => {
                self.put_namespace(read(object));
                Touched::default()
            }
            other => panic!("no such kind here: {other}"),
        }
    }

    fn remove(&mut self, object: &Object) -> Touched {
        let name = object.name();
        match object.0["kind"].as_str().unwrap() {
            "Service" => self.remove_service(&name),
            "Pod" => self.remove_pod(&name),
            "EndpointSlice" => self.remove_slice(&name),
            "Node" => self.remove_node(&name.1),
            other => panic!("no such kind here: {other}"),
        }
    }

    fn told(&self, service: &str) -> Endpoints {
        endpoints(&self.registry, &name(service)).unwrap()
    }

    /// Pod, port and state for a port of a service.
    fn led(&self, service: &str, port: u16) -> Vec<(String, u16, EndpointState)> {
        let found = self.told(service).endpoints.into_iter().filter_map(|one| {
            let led = one.ports.get(&port)?;
            Some((one.workload.id.0.replace("shop.", ""), led.number, led.state))
        });
        found.collect()
    }
}

fn cluster() -> Cluster {
    Cluster::new("cluster.local".to_owned(), AddressRanges::default())
}

fn name(service: &str) -> ServiceName {
    ServiceName::new(service, "shop").unwrap()
}

fn service(name: &str, spec: Value) -> Object {
    Object(
        json!({"kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}),
    )
}

fn web() -> Object {
    service(
        "web",
        json!({
            "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00::10"],
            "selector": {"app": "web"},
            "ports": [
                {"name": "http", "port": 80, "targetPort": "main", "appProtocol": "kubernetes.io/h2c"},
                {"name": "tcp-raw", "port": 9000, "protocol": "TCP"},
                {"name": "dns", "port": 53, "protocol": "UDP"},
            ],
        }),
    )
}

fn pod(name: &str, ip: &str, more: Value) -> Object {
    let mut pod = json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web", "version": "v1"}},
        "spec": {"nodeName": "one", "serviceAccountName": "front", "containers": [
            {"name": "app", "ports": [{"name": "main", "containerPort": 8080}]},
        ]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}]},
    });
    merge(&mut pod, more);
    Object(pod)
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

fn slice(name: &str, of: &str, ports: Value, endpoints: Value) -> Object {
    Object(json!({
        "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": of}},
        "ports": ports, "endpoints": endpoints,
    }))
}

fn of_pod(pod: &str, ip: &str, conditions: Value) -> Value {
    json!({"addresses": [ip], "conditions": conditions, "targetRef": {"kind": "Pod", "name": pod, "namespace": "shop"}})
}

fn ports(http: u16) -> Value {
    json!([{"name": "http", "port": http, "protocol": "TCP"}, {"name": "tcp-raw", "port": 9000, "protocol": "TCP"}])
}

fn ready() -> Value {
    json!({"ready": true, "serving": true, "terminating": false})
}

fn two_pods() -> Vec<Object> {
    vec![
        web(),
        pod("web-1", "10.1.0.1", json!({})),
        pod(
            "web-2",
            "10.1.0.2",
            json!({"spec": {"containers": [
            {"name": "app", "ports": [{"name": "main", "containerPort": 8081}]}]}}),
        ),
        slice("web-a", "web", ports(8080), json!([of_pod("web-1", "10.1.0.1", ready())])),
        slice("web-b", "web", ports(8081), json!([of_pod("web-2", "10.1.0.2", ready())])),
        Object(json!({"kind": "Node", "metadata": {"name": "one", "labels": {
            "topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": "eu-a"}}})),
    ]
}

fn with(objects: &[Object]) -> Cluster {
    let mut cluster = cluster();
    objects.iter().for_each(|object| drop(cluster.put(object)));
    cluster
}

#[test]
fn a_named_port_is_another_number_in_each_pod() {
    let cluster = with(&two_pods());
    let ready = EndpointState::Ready;
    let both = [("web-1".to_owned(), 8080, ready), ("web-2".to_owned(), 8081, ready)];
    assert_eq!(cluster.led("web", 80), both);
    let service = &cluster.registry.services[&name("web")];
    assert_eq!(service.ports.keys().collect::<Vec<_>>(), [&80, &9000], "no UDP");
    assert_eq!(
        (service.ports[&80].protocol, service.ports[&9000].protocol),
        (Protocol::Http2, Protocol::Tcp)
    );
    assert_eq!(service.vips.len(), 2);
    let one = &cluster.registry.workloads[&WorkloadId::of_pod("shop", "web-1")];
    assert_eq!(one.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/front");
    assert_eq!(one.locality.parts(), ["eu", "eu-a", ""]);
    assert_eq!(one.ports[&8080].protocol, Protocol::Http2, "said by the service");
    assert_eq!(one.ports[&9000].name, "", "led to, and not declared");
    let owner = address(&cluster.registry, "fd00::10".parse().unwrap()).owner;
    assert_eq!(owner, Owner::Service(name("web")));
    let Owner::Workload(owner) = address(&cluster.registry, "10.1.0.2".parse().unwrap()).owner
    else {
        panic!("a pod's address is the pod's");
    };
    assert_eq!(owner.services, BTreeSet::from([name("web")]));
}

#[test]
fn the_order_of_arrival_makes_no_difference() {
    let objects = two_pods();
    let whole = with(&objects);
    for seed in 0..200 {
        let mut shuffled = objects.clone();
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
        let mut cluster = with(&shuffled);
        assert_eq!(cluster.registry, whole.registry, "seed {seed}");
        assert!(cluster.awaited.is_empty(), "seed {seed}");
        // One that goes and comes back is as if it had never gone.
        let touched = cluster.remove(&shuffled[0]);
        cluster.put(&shuffled[0]);
        assert_eq!(cluster.registry, whole.registry, "seed {seed}");
        assert!(touched.anything(), "seed {seed}");
        fastrand::Rng::with_seed(seed + 1).shuffle(&mut shuffled);
        shuffled.iter().for_each(|object| drop(cluster.remove(object)));
        assert_eq!(
            cluster.registry,
            Cluster::new(String::new(), AddressRanges::default()).registry
        );
        assert!(
            cluster.awaited.is_empty() && cluster.slices_of.is_empty() && cluster.pods.is_empty()
        );
    }
}

#[test]
fn what_says_the_same_again_touches_nothing() {
    let objects = two_pods();
    let mut cluster = with(&objects);
    for object in &objects {
        assert_eq!(cluster.put(object), Touched::default(), "{}", object.0);
    }
    let unready = pod(
        "web-1",
        "10.1.0.1",
        json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
    );
    assert_eq!(cluster.put(&unready), Touched::default(), "its slices say so");
}

#[test]
fn a_changed_endpoint_touches_its_service_alone() {
    let mut cluster = with(&two_pods());
    let gone = json!({"ready": false, "serving": true, "terminating": true});
    let slice = slice("web-a", "web", ports(8080), json!([of_pod("web-1", "10.1.0.1", gone)]));
    let touched = cluster.put(&slice);
    assert_eq!(touched, Touched { endpoints: BTreeSet::from([name("web")]), ..Touched::default() });
    let state = EndpointState::ServingTerminating;
    assert_eq!(cluster.led("web", 80)[0], ("web-1".to_owned(), 8080, state));
}

#[test]
fn a_pod_that_comes_concerns_those_who_know_its_service_or_address() {
    let mut cluster = with(&two_pods());
    let touched = cluster.put(&pod("client-1", "10.1.0.9", json!({})));
    let id = WorkloadId::of_pod("shop", "client-1");
    assert_eq!(touched.workloads, BTreeSet::from([id]));
    assert_eq!(touched.addresses.len(), 1);
    assert!(!touched.topology && touched.endpoints.is_empty());
}

#[test]
fn who_leaves_concerns_its_fellows_where_zones_are_looked_at_and_nobody_else() {
    let mut cluster = with(&two_pods());
    cluster.put(&pod("client-1", "10.1.0.9", json!({})));
    let mut touched = cluster.remove(&pod("web-1", "10.1.0.1", json!({})));
    let of = |pods: &[&str]| pods.iter().map(|pod| WorkloadId::of_pod("shop", pod)).collect();
    assert_eq!(touched.workloads, of(&["web-1"]));
    touched.concern_fellows(&cluster.registry);
    assert_eq!(touched.workloads, of(&["web-1", "web-2"]));
}

#[test]
fn conditions_say_which_state_an_endpoint_is_in() {
    use EndpointState::{Pending, Ready, ServingTerminating, Terminating};
    for (ready, serving, terminating, wanted) in [
        (Some(true), Some(true), Some(false), Ready),
        (None, None, None, Ready),
        (Some(true), Some(false), Some(false), Ready),
        (Some(true), Some(true), Some(true), Ready),
        (Some(false), Some(false), Some(false), Pending),
        (Some(false), None, None, Pending),
        (Some(false), Some(true), Some(true), ServingTerminating),
        (Some(false), Some(false), Some(true), Terminating),
    ] {
        let conditions = json!({"ready": ready, "serving": serving, "terminating": terminating});
        let endpoint = json!([of_pod("web-1", "10.1.0.1", conditions)]);
        let cluster = with(&[
            web(),
            pod("web-1", "10.1.0.1", json!({})),
            slice("web-a", "web", ports(8080), endpoint),
        ]);
        assert_eq!(cluster.led("web", 80)[0].2, wanted, "{ready:?} {serving:?} {terminating:?}");
    }
}

#[test]
fn two_services_of_one_pod_are_told_apart_by_their_slices() {
    let eager = service(
        "eager",
        json!({
            "clusterIP": "None", "publishNotReadyAddresses": true,
            "ports": [{"name": "http", "port": 8080}],
        }),
    );
    let conditions = json!({"ready": false, "serving": false});
    let published = json!({"ready": true, "serving": false});
    let only = json!([{"name": "http", "port": 8080}]);
    let cluster = with(&[
        web(),
        eager,
        pod("web-1", "10.1.0.1", json!({})),
        slice("web-a", "web", ports(8080), json!([of_pod("web-1", "10.1.0.1", conditions)])),
        slice("eager-a", "eager", only, json!([of_pod("web-1", "10.1.0.1", published)])),
    ]);
    assert_eq!(cluster.led("web", 80)[0].2, EndpointState::Pending);
    assert_eq!(cluster.led("eager", 8080)[0].2, EndpointState::Ready);
    let one = &cluster.registry.workloads[&WorkloadId::of_pod("shop", "web-1")];
    assert_eq!(one.services.len(), 2);
    let answer = name_answer(&cluster.registry, "shop", "eager").service.unwrap();
    assert!(answer.vips.is_empty(), "the cluster's resolver knows each pod's name");
}

#[test]
fn both_families_of_a_pod_are_one_endpoint() {
    let mut six = slice("web-6", "web", ports(8080), json!([of_pod("web-1", "fd00::1", ready())]));
    six.0["addressType"] = json!("IPv6");
    let ips = json!({"status": {"podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]}});
    let cluster = with(&[
        web(),
        pod("web-1", "10.1.0.1", ips),
        slice("web-4", "web", ports(8080), json!([of_pod("web-1", "10.1.0.1", ready())])),
        six,
    ]);
    let told = cluster.told("web");
    assert_eq!(told.endpoints.len(), 1);
    assert!(told.endpoints[0].addresses.contains("fd00::1".parse().unwrap()));
}

#[test]
fn endpoints_that_are_no_pods_are_outside() {
    let by_hand =
        service("db", json!({"clusterIP": "10.96.0.20", "ports": [{"name": "pg", "port": 5432}]}));
    let endpoints = json!([
        {"addresses": ["192.0.2.7"], "conditions": {}},
        {"addresses": ["192.0.2.8"], "conditions": {"ready": false}},
        {"addresses": ["10.1.0.1"], "conditions": {"ready": true}},
    ]);
    let mut cluster = with(&[
        by_hand.clone(),
        pod("web-1", "10.1.0.1", json!({})),
        slice("db-1", "db", json!([{"name": "pg", "port": 6432}]), endpoints),
    ]);
    let told = cluster.told("db");
    let at: Vec<_> = told.outside.iter().map(|one| (one.at.clone(), one.ports[&5432])).collect();
    assert_eq!(at, [(OutsideAddress::Ip([192, 0, 2, 7].into()), 6432)]);
    assert_eq!(told.endpoints.len(), 1, "one of the addresses is a pod's");
    // Rules with entries leave it alone.
    let rules = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\nspec:\n  hosts: [api.example.com, db.shop.svc.cluster.local]\n  ports: [{number: 443, name: tls, protocol: TLS}]\n  resolution: DNS\n";
    let rules: Vec<_> =
        parse("e.yaml", rules, "shop").unwrap().resources.into_iter().map(Arc::new).collect();
    let index = RuleIndex::new(&rules);
    cluster.put_entries(&index, true);
    assert_eq!(cluster.told("db").outside.len(), 1);
    let host = ServiceName::of_host("api.example.com", "shop").unwrap();
    assert_eq!(cluster.registry.services[&host].vips.len(), 2, "it has virtual addresses");
    // An entry for a name that the cluster has takes its place only when that has gone.
    cluster.remove(&by_hand);
    cluster.put_entries(&index, true);
    assert_eq!(
        cluster.told("db").outside[0].at,
        OutsideAddress::Host("db.shop.svc.cluster.local".to_owned())
    );
    cluster.put(&by_hand);
    cluster.put_entries(&index, true);
    assert_eq!(cluster.told("db").outside[0].at, OutsideAddress::Ip([192, 0, 2, 7].into()));
    cluster.put_entries(&RuleIndex::default(), true);
    assert!(!cluster.registry.services.contains_key(&host));
}

#[test]
fn an_alias_leads_to_its_name_inside_or_outside() {
    let alias = |to: &str| {
        service(
            "alias",
            json!({"type": "ExternalName", "externalName": to, "ports": [{"name": "http", "port": 9000}]}),
        )
    };
    let mut cluster = with(&two_pods());
    cluster.put(&alias("API.example.com."));
    let told = cluster.told("alias");
    assert_eq!(told.outside[0].at, OutsideAddress::Host("api.example.com".to_owned()));
    assert_eq!(told.resolution, heddle_model::registry::Resolution::Dns);
    cluster.put(&alias("web.shop.svc.cluster.local"));
    assert_eq!(cluster.told("alias").endpoints.len(), 2);
    assert!(name_answer(&cluster.registry, "shop", "alias").service.unwrap().vips.is_empty());
    cluster.put(&service("alias", json!({"clusterIP": "10.96.0.30", "ports": [{"port": 80}]})));
    assert!(cluster.told("alias").outside.is_empty());
}

#[test]
fn a_local_service_says_so_and_ended_pods_are_none() {
    let local = json!({"clusterIP": "10.96.0.10", "internalTrafficPolicy": "Local", "ports": [{"name": "http", "port": 80}]});
    let mut objects = two_pods();
    objects[0] = service("web", local);
    let mut cluster = with(&objects);
    assert!(cluster.told("web").node_local);
    assert_eq!(cluster.told("web").endpoints[0].locality.node, "one");
    let touched = cluster.put(&web());
    assert!(!cluster.told("web").node_local && touched.endpoints.contains(&name("web")));
    cluster.put(&pod("web-1", "10.1.0.1", json!({"status": {"phase": "Succeeded"}})));
    assert_eq!(cluster.led("web", 80).len(), 1);
    assert_eq!(address(&cluster.registry, "10.1.0.1".parse().unwrap()).owner, Owner::NotKnown);
}

#[test]
fn an_address_that_has_gone_to_another_pod_stays_its_own() {
    let mut cluster = with(&[pod("old", "10.1.0.1", json!({})), pod("new", "10.1.0.1", json!({}))]);
    cluster.remove(&pod("old", "10.1.0.1", json!({})));
    let Owner::Workload(owner) = address(&cluster.registry, "10.1.0.1".parse().unwrap()).owner
    else {
        panic!("it is the new one's");
    };
    assert_eq!(owner.id, WorkloadId::of_pod("shop", "new"));
    let on_host = json!({"spec": {"hostNetwork": true}});
    cluster.put(&pod("host", "10.0.0.1", on_host));
    assert_eq!(address(&cluster.registry, "10.0.0.1".parse().unwrap()).owner, Owner::NotKnown);
}

#[test]
fn pods_that_should_have_a_sidecar_and_have_none_are_named() {
    let namespace = |label: &str, value: &str| {
        Object(json!({"kind": "Namespace", "metadata": {"name": "shop", "labels": {label: value}}}))
    };
    let sidecar = json!({"spec": {"initContainers": [{"name": "heddle-proxy"}]}});
    let says = |word: &str| json!({"metadata": {"labels": {"sidecar.istio.io/inject": word}}});
    let mut cluster = with(&[
        pod("bare", "10.1.0.1", json!({})),
        pod("meshed", "10.1.0.2", sidecar),
        pod("never", "10.1.0.3", says("false")),
        pod("asks", "10.1.0.4", says("true")),
        pod("host", "10.0.0.1", json!({"spec": {"hostNetwork": true}})),
    ]);
    let mut missed = |label: &str, value: &str| -> Vec<String> {
        cluster.put(&namespace(label, value));
        cluster.without_sidecar().into_iter().map(|(_, pod)| pod).collect()
    };
    assert_eq!(missed("istio-injection", "enabled"), ["asks", "bare"]);
    assert_eq!(missed("istio.io/rev", "default"), ["asks", "bare"]);
    assert_eq!(missed("istio-injection", "disabled"), Vec::<String>::new());
    assert_eq!(missed("team", "a"), ["asks"]);
}

#[test]
fn lists_that_are_null_are_empty() {
    let cluster = with(&[web(), slice("web-a", "web", Value::Null, Value::Null)]);
    assert!(cluster.told("web").endpoints.is_empty());
}
