//! The mesh's network: the hub, and for each workload a namespace linked to it with its addresses
//! and redirection rules. Only what is where is decided here; how it is made is
//! `heddle_runtime::netns_op`'s business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use heddle_control::AddressRanges;
use heddle_model::{Addresses, Workload};
use heddle_runtime::{
    netlink::Network,
    netns_op::{Hub, HubNet, OpError, WorkloadNet},
    nft::RedirectRules,
    ns::{Mode, Namespaces},
    preflight::Missing,
    process,
};
use heddle_wire::local::proxy_config::{
    ESCAPE_MARK, PORT_DNS, PORT_HEALTH, PORT_INBOUND, PORT_MERGED_METRICS, PORT_METRICS,
    PORT_OUTBOUND,
};

use crate::failure::Failure;

/// The hub's bridge.
const BRIDGE: &str = "heddle0";
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
    hub.create_workload(WorkloadNet {
        link: link_name(workload),
        bridge: BRIDGE.to_owned(),
        addresses: networks(workload.addresses),
        gateways: vec![v4.into(), v6.into()],
        rules: RedirectRules {
            mark: ESCAPE_MARK,
            outbound_port: PORT_OUTBOUND,
            inbound_port: PORT_INBOUND,
            dns_port: PORT_DNS,
            inbound_excluded: vec![PORT_MERGED_METRICS, PORT_HEALTH, PORT_METRICS],
        },
    })
    .await
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
