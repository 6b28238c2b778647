//! What a Service in a file makes of the registry, before, with and after the workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use heddle_compile::{RuleIndex, endpoints, name_answer};
use heddle_model::{EndpointState, Protocol, ServiceName, TargetPort, resource::Resource, yaml};
use heddle_wire::local::control_api::{JoinPort, JoinRequest};

use super::{super::*, declared};
use crate::config::AddressRanges;

fn members() -> Members {
    Members::new(AddressRanges::default(), &BTreeMap::new(), 0)
}

fn name(service: &str) -> ServiceName {
    ServiceName::new(service, "default").unwrap()
}

/// Declares Services, each as `name: spec`.
fn declare(members: &mut Members, services: &[(&str, &str)]) -> Redeclared {
    let document = |(name, spec): &(&str, &str)| {
        format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n")
    };
    let text: String = services.iter().map(document).collect();
    let parsed = yaml::parse("f.yaml", &text, "default").expect("valid");
    let resources: Vec<Arc<Resource>> = parsed.resources.into_iter().map(Arc::new).collect();
    members.declare(declared(&resources), 0)
}

fn join(members: &mut Members, service: &str, ports: &[(u16, &str, Protocol)]) -> Joined {
    let port = |(number, name, protocol): &(u16, &str, Protocol)| JoinPort {
        number: *number,
        name: (*name).to_owned(),
        protocol: *protocol,
    };
    let request = JoinRequest {
        service: service.to_owned(),
        namespace: "default".to_owned(),
        version: "v1".to_owned(),
        labels: BTreeMap::new(),
        ports: ports.iter().map(port).collect(),
        locality: Default::default(),
    };
    members.join(&request, 0, || 7).unwrap()
}

/// `port>target state` of each endpoint.
fn behind(members: &Members, service: &str) -> Vec<String> {
    let all = endpoints(members.registry(), &name(service)).unwrap().endpoints;
    let ports = all.iter().flat_map(|one| one.ports.iter());
    ports.map(|(port, to)| format!("{port}>{} {:?}", to.number, to.state)).collect()
}

#[test]
fn a_service_is_there_before_its_workloads_and_after_them() {
    let mut members = members();
    let spec = "{selector: {app: shop}, ports: [{name: http, port: 80, targetPort: 8080}]}";
    let changed = declare(&mut members, &[("web", spec)]);
    assert!(changed.touched.topology);
    assert_eq!(changed.vips, [(name("web"), Some(10))]);
    let vip = members.registry().services[&name("web")].vips[0];
    assert_eq!(members.service_at(vip), Some(&name("web")));
    assert_eq!(behind(&members, "web"), Vec::<String>::new());

    let joined = join(&mut members, "shop", &[]);
    assert!(joined.touched.endpoints.contains(&name("web")));
    let id = joined.workload.workload.id.clone();
    assert_eq!(behind(&members, "web"), ["80>8080 Pending"]);
    let touched = members.report(&id, &BTreeSet::from([8080])).unwrap();
    assert!(touched.endpoints.contains(&name("web")) && !touched.topology);
    assert_eq!(behind(&members, "web"), ["80>8080 Ready"]);
    let told = RuleIndex::new(&[]).inbound(members.registry(), &members.registry().workloads[&id]);
    assert_eq!((told.ports[0].number, told.ports[0].protocol), (8080, Protocol::Http));
    assert_eq!(told.ports[0].services[0].service, name("web"));
    assert_eq!(joined.workload.workload.services, BTreeSet::from([name("shop")]), "for the holder");

    members.withdraw(&id).unwrap();
    assert_eq!(behind(&members, "web"), ["80>8080 Terminating"]);
    members.delete(&id, 1).unwrap();
    assert_eq!(behind(&members, "web"), Vec::<String>::new());
    assert_eq!(members.registry().services[&name("web")].vips[0], vip);

    let changed = declare(&mut members, &[]);
    assert!(changed.touched.topology);
    assert!(members.registry().services.is_empty());
    assert_eq!(members.service_at(vip), None);
}

#[test]
fn the_object_decides_targets_and_protocols_and_what_it_does_not_name_stays() {
    let mut members = members();
    let ports = [(9080, "", Undeclared), (9090, "admin", Tcp)];
    let joined = join(&mut members, "shop", &ports);
    let vip = joined.workload.service.unwrap().vips[0];
    let spec = "{ports: [{name: http-web, port: 80, targetPort: 9080}, {name: more, port: 81, targetPort: admin}, {name: own, port: 15001, targetPort: 15001}]}";
    declare(&mut members, &[("shop", spec)]);
    let shop = members.registry().services[&name("shop")].clone();
    assert_eq!(shop.vips[0], vip, "one address, whoever made it");
    let ports: Vec<_> = shop.ports.values().map(|p| (p.number, p.protocol)).collect();
    use Protocol::{Http, Tcp, Undeclared};
    assert_eq!(
        ports,
        [(80, Http), (81, Tcp), (9080, Undeclared), (9090, Tcp), (15001, Undeclared)]
    );
    assert_eq!(shop.ports[&81].target, TargetPort::Name("admin".into()));
    let workload = &members.registry().workloads[&joined.workload.workload.id];
    assert_eq!(workload.ports[&9080].protocol, Http);
    assert!(!workload.ports.contains_key(&15001), "the sidecar's own ports lead to nobody");
    assert_eq!(behind(&members, "shop").len(), 4);
    declare(&mut members, &[]);
    let shop = &members.registry().services[&name("shop")];
    assert_eq!((shop.vips[0], shop.ports.len()), (vip, 2));
}

#[test]
fn a_headless_service_is_named_by_those_who_are_ready() {
    let mut members = members();
    let spec = "{clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}";
    let changed = declare(&mut members, &[("peers", spec)]);
    assert_eq!(changed.vips, []);
    let joined = join(&mut members, "db", &[(5432, "", Protocol::Tcp)]);
    let told = |members: &Members| {
        name_answer(members.registry(), "default", "peers").service.unwrap().vips
    };
    assert_eq!(told(&members), Vec::<IpAddr>::new());
    let workload = joined.workload.workload;
    let touched = members.report(&workload.id, &BTreeSet::from([5432])).unwrap();
    assert!(touched.topology, "what its name means has changed");
    assert_eq!(told(&members), workload.addresses.iter().collect::<Vec<_>>());
}

#[test]
fn an_alias_and_another_namespace_are_nobodys() {
    let mut members = members();
    let alias = "{type: ExternalName, externalName: db.example.com}";
    declare(&mut members, &[("db", alias)]);
    assert!(members.registry().services.is_empty());
    let elsewhere = "{selector: {app: shop}, ports: [{port: 80}]}\n".to_owned();
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: other}}\nspec: {elsewhere}"
    );
    let parsed = yaml::parse("f.yaml", &text, "default").unwrap();
    let resources: Vec<_> = parsed.resources.into_iter().map(Arc::new).collect();
    members.declare(declared(&resources), 0);
    join(&mut members, "shop", &[(80, "", Protocol::Http)]);
    let web = ServiceName::new("web", "other").unwrap();
    assert!(endpoints(members.registry(), &web).unwrap().endpoints.is_empty());
}

#[test]
fn after_a_restart_all_is_as_it_was() {
    let spec = "{selector: {app: shop}, ports: [{port: 80, targetPort: 8080}]}";
    let mut before = members();
    declare(&mut before, &[("web", spec)]);
    let joined = join(&mut before, "shop", &[(8080, "", Protocol::Http)]);
    before.report(&joined.workload.workload.id, &BTreeSet::from([8080])).unwrap();
    let mut after = members();
    let adopted = after.recall(before.noted(5), 5);
    assert_eq!(adopted.problems, []);
    declare(&mut after, &[("web", spec)]);
    after.adopt(&[joined.workload], 5);
    assert_eq!(after.registry().workloads, before.registry().workloads);
    assert_eq!(behind(&after, "web"), ["80>8080 Ready"]);
    assert_eq!(
        after.registry().workloads.values().next().unwrap().ports[&8080].state,
        EndpointState::Ready
    );
}
