//! Refuses to start where the host routes addresses that the mesh gives to its services and
//! workloads: programs in the mesh could not tell the two apart.

use std::net::IpAddr;

use heddle_control::AddressRanges;
use heddle_runtime::netlink::{Netlink, Network};

use crate::failure::{Doing as _, Failure};

/// Longest prefixes of routes that lead as good as everywhere. VPNs that take all traffic add
/// `0.0.0.0/1` and `128.0.0.0/1` beside the default route instead of replacing it.
const EVERYWHERE_V4: u8 = 3;
/// As above, for IPv6.
const EVERYWHERE_V6: u8 = 7;

/// Compares the mesh's ranges with the host's routes.
///
/// # Errors
/// A refusal naming the route in the way.
pub(crate) fn check() -> Result<(), Failure> {
    let routes = Netlink::open()
        .and_then(|mut netlink| netlink.routed_networks())
        .doing(|| "read the host's routes".to_owned())?;
    match first_overlap(&routes) {
        None => Ok(()),
        Some((route, ours)) => Err(Failure::refused(format!(
            "this host has a route to {}/{}, which overlaps {}/{}, the addresses of the mesh: remove the route, or run where it is absent",
            route.address, route.prefix, ours.address, ours.prefix
        ))),
    }
}

fn first_overlap(routes: &[Network]) -> Option<(Network, Network)> {
    let ranges = AddressRanges::default();
    let v4 = |(address, prefix)| Network::new(IpAddr::V4(address), prefix);
    let v6 = |(address, prefix)| Network::new(IpAddr::V6(address), prefix);
    let ours =
        [v4(ranges.vip_v4), v4(ranges.workload_v4), v6(ranges.vip_v6), v6(ranges.workload_v6)];
    routes
        .iter()
        // What is nearer wins over a default route.
        .filter(|route| !leads_everywhere(route))
        .find_map(|route| Some((*route, *ours.iter().find(|range| route.overlaps(range))?)))
}

fn leads_everywhere(route: &Network) -> bool {
    route.prefix <= if route.address.is_ipv4() { EVERYWHERE_V4 } else { EVERYWHERE_V6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlaps(text: &str) -> bool {
        let (address, prefix) = text.split_once('/').unwrap();
        let route = Network::new(address.parse().unwrap(), prefix.parse().unwrap());
        first_overlap(&[route]).is_some()
    }

    #[test]
    fn ordinary_routes_are_not_in_the_way() {
        for route in
            ["0.0.0.0/0", "192.168.0.0/16", "240.242.0.0/16", "fe80::/64", "::/0", "fd00::/64"]
        {
            assert!(!overlaps(route), "{route}");
        }
    }

    #[test]
    fn the_halves_a_vpn_routes_are_a_default_route() {
        for route in ["0.0.0.0/1", "128.0.0.0/1", "224.0.0.0/3", "8000::/1", "2000::/3", "fc00::/7"]
        {
            assert!(!overlaps(route), "{route}");
        }
    }

    #[test]
    fn a_wider_and_a_narrower_route_are_both_in_the_way() {
        for route in ["240.0.0.0/4", "240.241.0.5/32", "fd68:6564:646c:1::/64", "fd00::/8"] {
            assert!(overlaps(route), "{route}");
        }
    }
}
