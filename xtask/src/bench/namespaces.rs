//! Two network namespaces joined by a cable, with the redirection of a sidecar: where the load
//! stands and where the application stands. Made with iproute2 and nft, removed on drop.

use std::process::Command;

use crate::command::{output, program};

/// Where the load (and an outbound proxy) stands.
pub(super) const NEAR: &str = "heddle-bench-near";
/// Where the application (and an inbound proxy) stands.
pub(super) const FAR: &str = "heddle-bench-far";
/// The load's address.
pub(super) const NEAR_ADDRESS: &str = "240.241.0.11";
/// The three endpoints' addresses.
pub(super) const FAR_ADDRESSES: [&str; 3] = ["240.241.0.21", "240.241.0.22", "240.241.0.23"];
/// The service's virtual address.
pub(super) const VIP: &str = "240.240.0.10";
/// The uid the peers run as: their way around the redirection, as in Istio.
pub(super) const PEER_UID: &str = "1337";

/// The redirection every sidecar stands behind: Heddle's sockets carry a mark, the peers' a uid.
const RULES: &str = "table inet bench {
  chain output { type nat hook output priority -100;
    meta mark 0x539 return; meta skuid 1337 return; ip daddr 127.0.0.0/8 return; ip6 daddr ::1 return;
    udp dport 53 redirect to :15053; meta l4proto tcp redirect to :15001; };
  chain prerouting { type nat hook prerouting priority -100;
    iifname \"lo\" return; tcp dport { 15020, 15021, 15090 } return;
    meta l4proto tcp redirect to :15006; };
}";

/// The pair of namespaces.
#[derive(Debug)]
pub(super) struct Pair(());

impl Pair {
    /// Makes both, with addresses and a route for the virtual address.
    pub(super) fn make() -> Result<Self, String> {
        let pair = Self(());
        remove();
        let cable = [
            "link", "add", "bench0", "netns", NEAR, "type", "veth", "peer", "name", "bench0",
            "netns", FAR,
        ];
        for name in [NEAR, FAR] {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        ip(&cable)?;
        let near = format!("{NEAR_ADDRESS}/16");
        ip(&["-n", NEAR, "address", "add", &near, "dev", "bench0"])?;
        for address in FAR_ADDRESSES {
            ip(&["-n", FAR, "address", "add", &format!("{address}/16"), "dev", "bench0"])?;
        }
        for name in [NEAR, FAR] {
            ip(&["-n", name, "link", "set", "bench0", "up"])?;
        }
        ip(&["-n", NEAR, "route", "add", "240.240.0.0/16", "via", FAR_ADDRESSES[0]])?;
        Ok(pair)
    }

    /// Puts the redirection on the side where the proxy stands.
    pub(super) fn redirect(&self, outbound: bool) -> Result<(), String> {
        self.stop_redirecting()?;
        output(&mut inside(if outbound { NEAR } else { FAR }, "nft", &[RULES])).map(drop)
    }

    /// Removes the redirection of both sides.
    pub(super) fn stop_redirecting(&self) -> Result<(), String> {
        for name in [NEAR, FAR] {
            output(&mut inside(name, "nft", &["flush ruleset"]))?;
        }
        Ok(())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        remove();
    }
}

/// A command inside a namespace.
pub(super) fn inside(namespace: &str, name: &str, arguments: &[&str]) -> Command {
    let mut command = program("ip", &["netns", "exec", namespace, name]);
    command.args(arguments);
    command
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    output(&mut program("ip", arguments)).map(drop)
}

/// Only the two names of this bench; that they are absent is no error.
fn remove() {
    for name in [NEAR, FAR] {
        drop(
            program("ip", &["netns", "delete", name]).stderr(std::process::Stdio::null()).status(),
        );
    }
}
