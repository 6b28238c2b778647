//! ServiceEntries: their addresses outlive a restart, and reach those who see them.

use heddle_model::{
    Owner,
    discovery::{OutsideAddress, Provenance},
};
use heddle_wire::{
    discovery::{Resource, ResourceType as Kind},
    local::control_api::{ResourceView, ServiceView},
};

use crate::{
    plane::{Folder, Plane, request},
    proxy::{Proxy, report},
};

fn entry(name: &str, host: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec:\n  hosts: [{host}]\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n{spec}\n"
    )
}

async fn address(plane: &Plane, host: &str) -> Option<String> {
    let services: Vec<ServiceView> = plane.get("/v1/services").await;
    let found = services.iter().find(|view| view.service.name.name == host)?;
    Some(found.service.vip_v4()?.to_string())
}

#[tokio::test]
async fn a_host_keeps_its_address_over_a_restart_and_over_the_coming_and_going_of_others() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    plane.join_http("reviews", "v1").await;
    plane.apply(&entry("b", "b.example.com", "  resolution: DNS")).await.unwrap();
    let before = address(&plane, "b.example.com").await.unwrap();
    assert!(before.starts_with("240.240."), "{before}");
    plane.apply(&entry("a", "a.example.com", "  resolution: DNS")).await.unwrap();
    plane.apply(&entry("none", "n.example.com", "  resolution: NONE")).await.unwrap();
    assert_eq!(address(&plane, "n.example.com").await, None);
    assert_ne!(address(&plane, "a.example.com").await.unwrap(), before);
    plane.stop();
    let plane = Plane::start(&folder).await;
    assert_eq!(address(&plane, "b.example.com").await.as_ref(), Some(&before));
    plane.delete("ServiceEntry", "a", false).await.unwrap();
    plane.delete("ServiceEntry", "b", false).await.unwrap();
    assert_eq!(address(&plane, "b.example.com").await, None);
    plane.apply(&entry("c", "c.example.com", "  resolution: DNS")).await.unwrap();
    assert_ne!(address(&plane, "c.example.com").await.unwrap(), before, "it rests");
    plane.apply(&entry("again", "b.example.com", "  resolution: DNS")).await.unwrap();
    assert_eq!(address(&plane, "b.example.com").await, Some(before));
}

#[tokio::test]
async fn a_proxy_is_told_of_an_entry_as_of_a_service_and_of_its_own_sidecar() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let member = plane.join_http("reviews", "v1").await.workload;
    report(&plane, &member.id, &[("0.0.0.0", 9080)]).await;
    let me = plane.join(&request("client", "", &[])).await.unwrap().workload;
    let mut proxy = Proxy::connect(&plane, &me.id).await;
    proxy.start(&me.id, &[]).await;
    proxy.subscribe(Kind::Name, &["default/api.example.com", "shop/api.example.com"]).await;
    proxy.subscribe(Kind::Destination, &["default/api.example.com"]).await;
    let mut removed = Vec::new();
    while removed.is_empty() {
        removed = proxy.take().await.removed;
    }
    assert_eq!(removed, [(Kind::Destination, "default/api.example.com".to_owned())]);

    let spec = format!(
        "  resolution: STATIC\n  endpoints:\n  - {{address: 192.0.2.1}}\n  - {{address: {}, ports: {{http: 9080}}}}",
        member.addresses.first()
    );
    let sidecar = "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s}\nspec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}\n";
    let text = entry("api", "api.example.com", &spec) + sidecar;
    let (answer, group) = tokio::join!(plane.apply(&text), proxy.take());
    answer.unwrap();
    let key = |kind, name: &str| (kind, name.to_owned());
    let Resource::Name(answer) = &group.resources[&key(Kind::Name, "default/api.example.com")]
    else {
        panic!()
    };
    let service = answer.service.clone().unwrap();
    assert_eq!((service.name.name.as_str(), service.vips.len()), ("api.example.com", 2));
    assert!(!group.resources.contains_key(&key(Kind::Name, "shop/api.example.com")), "not seen");
    let Resource::Endpoints(behind) =
        &group.resources[&key(Kind::Endpoints, "default/api.example.com")]
    else {
        panic!()
    };
    assert_eq!(behind.outside[0].at, OutsideAddress::Ip([192, 0, 2, 1].into()));
    assert_eq!(behind.endpoints[0].workload.id, member.id);
    let Resource::Inbound(own) = &group.resources[&key(Kind::Inbound, &me.id.0)] else { panic!() };
    assert!(own.outbound.names_outside);
    assert_eq!(own.outbound.registry_only, Some(Provenance("Sidecar/default/s".into())));

    let vip = service.vips[0].to_string();
    proxy.subscribe(Kind::Address, &[&vip, "192.0.2.1"]).await;
    let group = proxy.take().await;
    let owner = |ip: &str| match &group.resources[&key(Kind::Address, ip)] {
        Resource::Address(address) => address.owner.clone(),
        _ => panic!(),
    };
    assert_eq!(owner(&vip), Owner::Service(service.name));
    assert_eq!(owner("192.0.2.1"), Owner::NotKnown, "an endpoint's address is no service's");

    // A member that ends is no endpoint any more, though the entry is not its service.
    let (_, group) = tokio::join!(plane.leave(&member.id), proxy.take());
    let Resource::Endpoints(behind) =
        &group.resources[&key(Kind::Endpoints, "default/api.example.com")]
    else {
        panic!()
    };
    assert_eq!((behind.endpoints.len(), behind.outside.len()), (0, 2));
}

#[tokio::test]
async fn a_route_may_name_an_entrys_host_as_its_backend() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    plane.join_http("reviews", "v1").await;
    let spec = "  resolution: STATIC\n  endpoints: [{address: 192.0.2.1}]";
    let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec: {parentRefs: [{kind: Service, group: '', name: reviews}], rules: [{backendRefs: [{name: vm, port: 80}]}]}\n";
    let text = entry("vm", "vm.default.svc.cluster.local", spec) + route;
    plane.apply(&text).await.unwrap();
    let views: Vec<ResourceView> = plane.get("/v1/resources?kind=httproute").await;
    let status = views[0].status.clone().unwrap();
    let conditions = status.parents[0].conditions.iter();
    let shown: Vec<_> = conditions.map(|one| format!("{} {}", one.status, one.reason)).collect();
    assert_eq!(shown, ["True Accepted", "True ResolvedRefs"]);
    assert_eq!(views[0].state, "Programmed");
}
