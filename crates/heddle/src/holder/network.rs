//! The mesh's network: the hub, and for each workload a namespace linked to it with its addresses
//! and redirection rules. Only what is where is decided here; how it is made is
//! `heddle_runtime::netns_op`'s business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use heddle_control::AddressRanges;
use heddle_model::{Addresses, Workload};
use heddle_runtime::{
    netlink::{Netlink, Network},
    netns_op::{Hub, HubNet, OpError, WorkloadNet},
    ns::{Mode, Namespaces},
    preflight::Missing,
    process,
    redirect::{Escape, RedirectRules},
};
use heddle_wire::local::proxy_config::{
    ESCAPE_MARK, PORT_DNS, PORT_INBOUND, PORT_OUTBOUND, PORTS_FOR_ALL,
};

use crate::failure::Failure;

/// The hub's bridge.
const BRIDGE: &str = "heddle0";
/// Most networks of the host that a workload gets a route to.
const ROUTES_MAX: usize = 64;
/// Hidden subcommand that does one operation inside the hub.
pub(crate) const OPERATION_COMMAND: &str = "netns-op";

/// The hub's addresses: the first of the workloads' ranges.
pub(crate) fn hub_addresses() -> (Ipv4Addr, Ipv6Addr) {
    let ranges = AddressRanges::default();
    let v4 = Ipv4Addr::from_bits(ranges.workload_v4.0.to_bits() | 1);
    let v6 = Ipv6Addr::from_bits(ranges.workload_v6.0.to_bits() | 1);
    (v4, v6)
}

/// Makes the mesh's namespaces and its hub.
///
/// # Errors
/// A refusal that says which step failed and what would help.
pub(crate) async fn make_mesh() -> Result<Hub, Failure> {
    let namespaces = Namespaces::create(Mode::of_caller())
        .map_err(|error| Failure::refused(format!("cannot make the mesh's namespaces: {error}")))?;
    let hub = Hub::new(namespaces, process::own_program(), vec![OPERATION_COMMAND.into()]);
    let (v4, v6) = hub_addresses();
    let addresses = networks(Addresses::Both(v4, v6));
    let made = hub.set_up(HubNet { bridge: BRIDGE.to_owned(), addresses }).await;
    made.map_err(|error| Failure::refused(Missing::of_operation(&error).to_string()))?;
    Ok(hub)
}

/// Makes a workload's network namespace, its rules in force. It lives as long as its descriptor or
/// a process in it.
///
/// # Errors
/// What the kernel refused.
pub(crate) async fn make_workload(hub: &Hub, workload: &Workload) -> Result<Namespaces, OpError> {
    let (v4, v6) = hub_addresses();
    let mut gateways = vec![v4.into()];
    let mut routes = Vec::new();
    match host_networks_v6() {
        None => gateways.push(v6.into()),
        Some(networks) => {
            routes.extend(networks.into_iter().map(|network| (network, v6.into())));
        }
    }
    hub.create_workload(WorkloadNet {
        link: link_name(workload),
        bridge: BRIDGE.to_owned(),
        addresses: networks(workload.addresses),
        gateways,
        routes,
        rules: RedirectRules {
            inbound_excluded: PORTS_FOR_ALL.to_vec(),
            ..RedirectRules::all(Escape::Mark(ESCAPE_MARK), [PORT_OUTBOUND, PORT_INBOUND, PORT_DNS])
        },
    })
    .await
}

/// What a workload reaches over IPv6 where the host has no default route for it: the services' range, and
/// what the host has a route to. `None` where it has one. A connect to anywhere else fails as it does on
/// the host, at once, and programs go on with IPv4.
fn host_networks_v6() -> Option<Vec<Network>> {
    let told = Netlink::open()
        .and_then(|mut netlink| Ok((netlink.has_default_route_v6()?, netlink.routed_networks()?)));
    let routed = match told {
        Ok((true, _)) => return None,
        Ok((false, routed)) => routed,
        Err(error) => {
            tracing::warn!(%error, "whether this host has IPv6 is not known: taken for granted");
            return None;
        }
    };
    let ranges = AddressRanges::default();
    let services = Network::new(ranges.vip_v6.0.into(), ranges.vip_v6.1);
    let mut found = vec![services];
    for network in routed.into_iter().filter(is_elsewhere_v6) {
        if found.len() < ROUTES_MAX && !found.contains(&network) {
            found.push(network);
        }
    }
    Some(found)
}

/// Is this a network of IPv6 that a workload could mean? Not the loopback, no link's own, not the mesh's.
fn is_elsewhere_v6(network: &Network) -> bool {
    let IpAddr::V6(ip) = network.address else { return false };
    let ranges = AddressRanges::default();
    let own = [ranges.vip_v6, ranges.workload_v6];
    let ours =
        own.iter().any(|(ip, prefix)| network.overlaps(&Network::new((*ip).into(), *prefix)));
    !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_multicast() && !ours
}

/// Removes a workload's link to the hub, so that its address is free at once.
///
/// # Errors
/// What the kernel refused.
pub(crate) async fn remove_workload(hub: &Hub, workload: &Workload) -> Result<(), OpError> {
    hub.delete_workload(link_name(workload)).await
}

fn networks(addresses: Addresses) -> Vec<Network> {
    let ranges = AddressRanges::default();
    let network = |ip: IpAddr| match ip {
        IpAddr::V4(_) => Network::new(ip, ranges.workload_v4.1),
        IpAddr::V6(_) => Network::new(ip, ranges.workload_v6.1),
    };
    addresses.iter().map(network).collect()
}

/// Unique in the mesh, since addresses are: `w-0-10`. Both families count alike in their last two
/// bytes.
fn link_name(workload: &Workload) -> String {
    let [high, low] = match workload.addresses.first() {
        IpAddr::V4(ip) => [ip.octets()[2], ip.octets()[3]],
        IpAddr::V6(ip) => [ip.octets()[14], ip.octets()[15]],
    };
    format!("w-{high}-{low}")
}
