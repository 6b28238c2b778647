//! What Kubernetes has and one machine has not: target ports, services without addresses, workloads
//! of several services or of one address family.

use std::net::IpAddr;

use super::*;

impl Mesh {
    /// A service of one port in front of workloads that run already.
    fn serves(mut self, service: &str, port: u16, target: TargetPort, members: &[&str]) -> Self {
        let service = name(service);
        let port =
            ServicePort { number: port, name: "http".to_owned(), protocol: Protocol::Http, target };
        let entry = self.0.services.entry(service.clone()).or_insert_with(|| Service {
            name: service.clone(),
            vips: Vec::new(),
            ports: BTreeMap::new(),
        });
        entry.ports.insert(port.number, port);
        let of = |one: &&mut Workload| members.contains(&one.name.as_str());
        for workload in self.0.workloads.values_mut().filter(of) {
            workload.services.insert(service.clone());
        }
        self
    }

    fn workload(&mut self, named: &str) -> &mut Workload {
        self.0.workloads.values_mut().find(|one| one.name == named).unwrap()
    }

    /// Workload and port behind a service port, for all endpoints.
    fn behind(&self, service: &str, port: u16) -> Vec<(String, u16)> {
        let endpoints = endpoints(&self.0, &name(service)).unwrap().endpoints;
        let found = endpoints
            .iter()
            .filter_map(|one| Some((one.workload.name.clone(), one.ports.get(&port)?.number)));
        found.collect()
    }
}

fn two_versions() -> Mesh {
    let http = Protocol::Http;
    Mesh::default().joins("pods", "v1", &[(8080, http), (9090, http)]).joins(
        "pods",
        "v2",
        &[(8081, http)],
    )
}

fn led(service: &str, port: u16) -> ServicePortRef {
    ServicePortRef { service: name(service), port }
}

#[test]
fn a_service_port_leads_to_its_target_port_by_number() {
    let mesh = two_versions().serves("web", 80, TargetPort::Number(8080), &["pods-v1", "pods-v2"]);
    assert_eq!(mesh.behind("web", 80), [("pods-v1".to_owned(), 8080)], "the other has none such");
    assert_eq!(mesh.behind("web", 8080), [], "clients do not know the target port");
    let told = mesh.told(&rules(""), "pods", "web");
    assert_eq!(told.ports.iter().map(|port| port.number).collect::<Vec<_>>(), [80]);
}

#[test]
fn a_named_target_port_is_each_workloads_own() {
    let mut mesh = two_versions().serves(
        "web",
        80,
        TargetPort::Name("main".to_owned()),
        &["pods-v1", "pods-v2"],
    );
    assert_eq!(mesh.behind("web", 80), [], "nobody names a port so");
    mesh.workload("pods-v1").ports.get_mut(&8080).unwrap().name = "main".to_owned();
    mesh.workload("pods-v2").ports.get_mut(&8081).unwrap().name = "main".to_owned();
    let both = [("pods-v1".to_owned(), 8080), ("pods-v2".to_owned(), 8081)];
    assert_eq!(mesh.behind("web", 80), both);
}

#[test]
fn a_port_without_a_name_is_not_found_by_an_empty_one() {
    let mesh = two_versions().serves("web", 80, TargetPort::Name(String::new()), &["pods-v1"]);
    assert_eq!(mesh.behind("web", 80), []);
}

#[test]
fn a_workload_of_two_services_is_behind_both_and_its_ports_know_them() {
    let mesh = two_versions()
        .serves("web", 80, TargetPort::Number(8080), &["pods-v1"])
        .serves("web", 81, TargetPort::Number(8080), &["pods-v1"])
        .serves("admin", 80, TargetPort::Number(9090), &["pods-v1"])
        .serves("all", 8080, TargetPort::Number(8080), &["pods-v1"]);
    assert_eq!(mesh.behind("web", 80), [("pods-v1".to_owned(), 8080)]);
    assert_eq!(mesh.behind("admin", 80), [("pods-v1".to_owned(), 9090)]);
    let workload = mesh.0.workloads.values().find(|one| one.name == "pods-v1").unwrap();
    let ports = facts::inbound(&mesh.0, workload).ports;
    let main = [led("all", 8080), led("pods", 8080), led("web", 80), led("web", 81)];
    assert_eq!((ports[0].number, &ports[0].services[..]), (8080, &main[..]));
    let other = [led("admin", 80), led("pods", 9090)];
    assert_eq!((ports[1].number, &ports[1].services[..]), (9090, &other[..]));
}

#[test]
fn a_headless_service_has_rules_and_endpoints_and_no_address() {
    let mesh = two_versions().serves("web", 80, TargetPort::Number(8080), &["pods-v1"]);
    let rule =
        virtual_service("web", "{hosts: [web], http: [{route: [{destination: {host: web}}]}]}");
    let told = mesh.told(&rules(&rule), "pods", "web");
    assert!(told.vips.is_empty());
    assert_eq!(shown(told.ports[0].http[0].targets()), ["web/*:80=100"]);
    assert_eq!(mesh.behind("web", 80), [("pods-v1".to_owned(), 8080)]);
    // Its name stands for those who are ready.
    let named = |mesh: &Mesh| name_answer(&mesh.0, "default", "web").service.unwrap().vips;
    let workload = mesh.0.workloads.values().find(|one| one.name == "pods-v1").unwrap();
    assert_eq!(named(&mesh), workload.addresses.iter().collect::<Vec<_>>());
    let mut pending = mesh;
    let ports = pending.0.workloads.values_mut().flat_map(|one| one.ports.values_mut());
    ports.for_each(|port| port.state = EndpointState::Pending);
    assert_eq!(named(&pending), Vec::<IpAddr>::new());
}

#[test]
fn a_service_of_several_addresses_owns_them_all() {
    let mut mesh = two_versions().serves("web", 80, TargetPort::Number(8080), &["pods-v1"]);
    let vips: Vec<_> = ["10.0.0.1", "10.0.0.2", "fd00::1"].map(|ip| ip.parse().unwrap()).into();
    mesh.0.services.get_mut(&name("web")).unwrap().vips.clone_from(&vips);
    for vip in &vips {
        assert_eq!(address(&mesh.0, *vip).owner, Owner::Service(name("web")));
    }
    assert_eq!(mesh.told(&rules(""), "pods", "web").vips, vips);
}

#[test]
fn a_workload_of_one_address_family_is_an_endpoint_in_that_family() {
    let mut mesh = two_versions();
    let v4 = Addresses::V4(Ipv4Addr::new(10, 1, 0, 1));
    let v6 = Addresses::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
    mesh.workload("pods-v1").addresses = v4;
    mesh.workload("pods-v2").addresses = v6;
    let told = endpoints(&mesh.0, &name("pods")).unwrap().endpoints;
    assert_eq!(told.iter().map(|one| one.addresses).collect::<Vec<_>>(), [v4, v6]);
    for (ip, expected) in [(v4.first(), "pods-v1"), (v6.first(), "pods-v2")] {
        let Owner::Workload(owner) = address(&mesh.0, ip).owner else {
            panic!("{ip} is a workload's")
        };
        assert_eq!(owner.name, expected);
    }
}

#[test]
fn a_workload_of_no_service_is_known_by_its_address() {
    let mut mesh = two_versions();
    mesh.workload("pods-v2").services.clear();
    let ip = mesh.workload("pods-v2").addresses.first();
    let Owner::Workload(owner) = address(&mesh.0, ip).owner else { panic!("a workload's") };
    assert_eq!(owner.first_service(), None);
    assert_eq!(owner.canonical_name(), "pods", "as its label `app` says");
    let unlabelled = heddle_model::discovery::WorkloadInfo { labels: BTreeMap::new(), ..*owner };
    assert_eq!(unlabelled.canonical_name(), "pods-v2");
    assert_eq!(mesh.behind("pods", 8081), []);
}
