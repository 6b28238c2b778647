//! Services whose ports are not their workloads': what a client calls is one number, what an endpoint
//! listens on another.

use heddle_model::{EndpointPort, EndpointState, Protocol};

use crate::support::{Backend, Peer, Sidecar, TestService, echo_server, get, http_server, name_of};

/// What a client calls.
const PORT: u16 = 80;

#[test]
fn a_call_to_the_services_port_arrives_at_the_target_port() {
    let backend = Backend::http(|_, _| "ok".into());
    assert_ne!(backend.address.port(), PORT);
    let sidecar = Sidecar::start();
    let service = TestService { port: PORT, ..TestService::http(backend.address) };
    assert_eq!(service.vip().port(), PORT);
    let mut client = Peer::connect(sidecar.service(&service));
    assert_eq!(client.ask(&get("/")).1, "ok");
    sidecar.settled();
    let labels = ["destination_service_name=\"reviews\"", "response_code=\"200\""];
    assert_eq!(sidecar.sum("istio_requests_total", &labels), 1.0);
}

#[test]
fn a_named_target_port_is_another_number_on_each_endpoint() {
    // The name is resolved where the rules are made; what arrives here is a number per endpoint.
    let backends = ["one", "two"].map(|name| Backend::start(http_server(move |_, _| name.into())));
    let addresses = [0, 1].map(|index| backends[index].address);
    assert_ne!(addresses[0].port(), addresses[1].port());
    let sidecar = Sidecar::start();
    let service = TestService { port: PORT, ..TestService::speaking(Protocol::Http, &addresses) };
    let mut client = Peer::connect(sidecar.service(&service));
    let mut answers: Vec<String> = (0..40).map(|_| client.ask(&get("/")).1).collect();
    answers.sort();
    answers.dedup();
    assert_eq!(answers, ["one", "two"]);
}

#[test]
fn bytes_of_an_undeclared_port_reach_the_target_port_too() {
    const TEXT: &str = "neither HTTP nor TLS";
    let backend = Backend::start(echo_server(TEXT.len()));
    let sidecar = Sidecar::start();
    let speaking = TestService::speaking(Protocol::Tcp, &[backend.address]);
    let mut client = Peer::connect(sidecar.service(&TestService { port: PORT, ..speaking }));
    client.write(TEXT);
    assert_eq!(client.until("TLS").unwrap(), TEXT);
}

#[test]
fn an_endpoint_that_lacks_the_target_port_is_never_picked() {
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::start();
    let two = [backend.address, backend.address];
    let service = TestService { port: PORT, ..TestService::speaking(Protocol::Http, &two) };
    let mut client = Peer::connect(sidecar.service(&service));
    sidecar.told(|set| {
        let mut told = (*set.endpoints[&name_of("reviews")]).clone();
        let elsewhere = EndpointPort { number: 9, state: EndpointState::Ready };
        told.endpoints[0].ports = [(PORT + 1, elsewhere)].into();
        set.insert_endpoints(told);
    });
    for _ in 0..20 {
        assert_eq!(client.ask(&get("/")).1, "ok");
    }
    sidecar.settled();
    assert_eq!(sidecar.sum("istio_requests_total", &["response_code=\"200\""]), 20.0);
}

#[test]
fn two_services_before_one_workload_are_counted_apart() {
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::start();
    let one = TestService { port: PORT, ..TestService::http(backend.address) };
    let other = TestService { name: "admin", number: 1, port: 81, ..one.clone() };
    let mut first = Peer::connect(sidecar.service(&one));
    let mut second = Peer::connect(sidecar.service(&other));
    assert_eq!(first.ask(&get("/")).1, "ok");
    for _ in 0..2 {
        assert_eq!(second.ask(&get("/")).1, "ok");
    }
    sidecar.settled();
    let named = |service| {
        let label = format!("destination_service_name=\"{service}\"");
        sidecar.sum("istio_requests_total", &[&label])
    };
    assert_eq!((named("reviews"), named("admin")), (1.0, 2.0));
}

#[test]
fn a_connection_to_a_workload_of_two_services_counts_for_the_one_called() {
    const TEXT: &str = "neither HTTP nor TLS";
    let backend = Backend::start(echo_server(TEXT.len()));
    let sidecar = Sidecar::start();
    let speaking = TestService::speaking(Protocol::Tcp, &[backend.address]);
    let service = TestService { port: PORT, ..speaking };
    let address = sidecar.service(&service);
    sidecar.told(|set| {
        let mut told = (*set.endpoints[&name_of("reviews")]).clone();
        told.endpoints[0].workload.services.insert(name_of("all"));
        set.insert_endpoints(told);
    });
    let mut client = Peer::connect(address);
    client.write(TEXT);
    assert_eq!(client.until("TLS").unwrap(), TEXT);
    let labels = ["destination_service_name=\"reviews\""];
    assert_eq!(sidecar.sum("istio_tcp_connections_opened_total", &labels), 1.0);
}

#[test]
fn a_request_without_host_is_given_the_services_port_and_not_the_target() {
    let backend = Backend::http(|head, _| head.into());
    let number = backend.address.port();
    let sidecar = Sidecar::start().without_control();
    let leading = [("reviews", PORT), ("reviews", PORT + 1)];
    sidecar.own_port_behind(number, Protocol::Http, &leading);
    let mut client = Peer::connect(sidecar.inbound(number));
    let (_, seen) = client.ask("GET / HTTP/1.0\r\n\r\n");
    assert!(seen.contains("reviews.default.svc.cluster.local:80\r\n"), "{seen}");
}
