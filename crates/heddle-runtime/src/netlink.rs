//! Links, addresses and routes of the current network namespace, by rtnetlink messages of our own.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
    str::FromStr,
};

pub(crate) mod message;
mod policy;
pub(crate) mod socket;

use message::{Message, attributes, i32_at, u32_at};
pub use policy::RouteFamily;
use socket::NetlinkSocket;

/// Longest name of a link, bytes.
pub const LINK_NAME_MAX: usize = 15;

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
/// Length of a struct ifinfomsg.
const IFINFO_BYTES: usize = 16;
/// Length of a struct rtmsg.
const RTMSG_BYTES: usize = 12;

/// A change of links, addresses or routes was refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}{}", detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct NetlinkError {
    /// What was asked, with its object.
    pub what: String,
    /// The kernel's errno.
    pub source: io::Error,
    /// The kernel's own words, if it had any.
    pub detail: Option<String>,
}

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Network {
    /// Address.
    pub address: IpAddr,
    /// Prefix length, bits.
    pub prefix: u8,
}

impl Network {
    /// An address in its network.
    pub const fn new(address: IpAddr, prefix: u8) -> Self {
        Self { address, prefix }
    }

    /// What a machine calls itself by.
    pub(crate) const LOOPBACKS: [Self; 2] = [
        Self::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
        Self::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    ];

    /// Is this one of its addresses?
    pub fn contains(&self, address: IpAddr) -> bool {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        self.overlaps(&Self::new(address, longest))
    }

    /// Do the two networks share an address?
    pub fn overlaps(&self, other: &Self) -> bool {
        let prefix = self.prefix.min(other.prefix);
        match (self.address, other.address) {
            (IpAddr::V4(one), IpAddr::V4(two)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
                u32::from(one) & mask == u32::from(two) & mask
            }
            (IpAddr::V6(one), IpAddr::V6(two)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
                u128::from(one) & mask == u128::from(two) & mask
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no network: an address with a prefix, as `10.0.0.0/8` or `fd00::/8`, or an address alone"
)]
pub struct NoNetwork(String);

impl FromStr for Network {
    type Err = NoNetwork;

    /// An address alone is the network of itself. Bits behind the prefix are cleared.
    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let wrong = || NoNetwork(text.chars().take(60).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let is_number = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = match prefix {
            Some(prefix) => Some(prefix).filter(is_number).and_then(|text| text.parse().ok()),
            None => Some(longest),
        };
        let prefix = prefix.filter(|prefix| *prefix <= longest).ok_or_else(wrong)?;
        let shift = u32::from(longest - prefix);
        let address = match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
                Ipv4Addr::from_bits(address.to_bits() & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        };
        Ok(Self { address, prefix })
    }
}

/// The address of a link on its wire (MAC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HardwareAddress(pub [u8; 6]);

impl HardwareAddress {
    /// The one that belongs to an IP address: who takes over that address takes over its hardware
    /// address too, so that what neighbours remember of it stays right. Of IPv6 the last four bytes
    /// count.
    pub fn of(address: IpAddr) -> Self {
        let [a, b, c, d] = match address {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(address) => (address.to_bits() as u32).to_be_bytes(),
        };
        // The second lowest bit of the first byte: given by us, not by a maker.
        Self([0x0a, 0x58, a, b, c, d])
    }
}

/// A connection to the kernel's routing of the network namespace it was opened in.
#[derive(Debug)]
pub struct Netlink {
    socket: NetlinkSocket,
}

impl Netlink {
    /// Opens one for the calling thread's network namespace.
    ///
    /// # Errors
    /// If no more descriptors can be opened.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = NetlinkSocket::open(libc::NETLINK_ROUTE).map_err(|source| NetlinkError {
            what: "open a routing socket".to_owned(),
            source,
            detail: None,
        })?;
        Ok(Self { socket })
    }

    /// The link's index.
    ///
    /// # Errors
    /// ENODEV if there is no such link.
    pub fn link_index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        let mut index = None;
        let message = Message::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &link_header(0, 0, 0));
        let dumped = self.socket.dump(message, &mut |payload| {
            let tail = payload.get(IFINFO_BYTES..).unwrap_or_default();
            let named = attributes(tail).any(|(kind, value)| {
                kind == libc::IFLA_IFNAME && value.strip_suffix(&[0]) == Some(name.as_bytes())
            });
            if named {
                index = i32_at(payload, 4).and_then(|index| u32::try_from(index).ok());
            }
        });
        let what = || format!("find link {name}");
        self.name(dumped, what)?;
        self.name(index.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV)), what)
    }

    /// Makes a bridge that is up: no spanning tree, no multicast snooping (a neighbour solicitation
    /// goes to all ports at once). Without a hardware address of its own it would take that of one
    /// of its ports, and another one when that port goes.
    ///
    /// # Errors
    /// EEXIST if the name is taken, EOPNOTSUPP if the kernel has no bridges.
    pub fn create_bridge(
        &mut self,
        name: &str,
        hardware: Option<HardwareAddress>,
    ) -> Result<(), NetlinkError> {
        let mut message = create_link_message();
        if let Some(HardwareAddress(bytes)) = hardware {
            message.attribute(libc::IFLA_ADDRESS, &bytes);
        }
        message.text(libc::IFLA_IFNAME, name).nested(libc::IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge");
            info.nested(IFLA_INFO_DATA, |data| {
                data.attribute(IFLA_BR_MCAST_SNOOPING, &[0]);
            });
        });
        self.request(message, || format!("make bridge {name}"))
    }

    /// Makes a pair of links: `name` here, up and a port of bridge `bridge`; `peer` in network
    /// namespace `target`, down and with this hardware address (`None`: one the kernel draws).
    ///
    /// # Errors
    /// EEXIST if the name is taken, EOPNOTSUPP if the kernel has no veth.
    pub fn create_veth(
        &mut self,
        name: &str,
        bridge: u32,
        (peer, hardware): (&str, Option<HardwareAddress>),
        target: BorrowedFd<'_>,
    ) -> Result<(), NetlinkError> {
        let mut message = create_link_message();
        message
            .text(libc::IFLA_IFNAME, name)
            .attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes())
            .nested(libc::IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_KIND, "veth");
                info.nested(IFLA_INFO_DATA, |data| {
                    data.nested(VETH_INFO_PEER, |other| {
                        other.raw(&link_header(0, 0, 0)).text(libc::IFLA_IFNAME, peer).attribute(
                            libc::IFLA_NET_NS_FD,
                            &(target.as_raw_fd() as u32).to_ne_bytes(),
                        );
                        if let Some(HardwareAddress(bytes)) = hardware {
                            other.attribute(libc::IFLA_ADDRESS, &bytes);
                        }
                    });
                });
            });
        self.request(message, || format!("make the pair of links {name} and {peer}"))
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// ENODEV if there is none of that index.
    pub fn set_up(&mut self, link: u32) -> Result<(), NetlinkError> {
        let up = libc::IFF_UP as u32;
        let header = link_header(link, up, up);
        let message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &header);
        self.request(message, || format!("bring link {link} up"))
    }

    /// Removes a link, with its peer.
    ///
    /// # Errors
    /// ENODEV if there is none of that name.
    pub fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let header = link_header(0, 0, 0);
        let mut message = Message::new(libc::RTM_DELLINK, libc::NLM_F_ACK, &header);
        message.text(libc::IFLA_IFNAME, name);
        self.request(message, || format!("remove link {name}"))
    }

    /// Gives a link an address, usable at once (IPv6 without duplicate address detection).
    ///
    /// # Errors
    /// EEXIST if it has it already, EAFNOSUPPORT or EACCES where IPv6 is off.
    pub fn add_address(&mut self, link: u32, network: Network) -> Result<(), NetlinkError> {
        let (family, bytes) = family_and_bytes(network.address);
        let flags = if network.address.is_ipv6() { libc::IFA_F_NODAD } else { 0 };
        let mut header = vec![family, network.prefix, flags as u8, libc::RT_SCOPE_UNIVERSE];
        header.extend_from_slice(&link.to_ne_bytes());
        let create = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = Message::new(libc::RTM_NEWADDR, create, &header);
        message.attribute(libc::IFA_LOCAL, &bytes).attribute(libc::IFA_ADDRESS, &bytes);
        let Network { address, prefix } = network;
        self.request(message, || format!("add address {address}/{prefix} to link {link}"))
    }

    /// The same, of an address that it may have.
    ///
    /// # Errors
    /// As there, but for EEXIST.
    pub fn ensure_address(&mut self, link: u32, network: Network) -> Result<(), NetlinkError> {
        match self.add_address(link, network) {
            Err(error) if error.source.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Sends everything that has no better route to `gateway`, which must be on a link's network.
    ///
    /// # Errors
    /// ENETUNREACH if the gateway is on no link's network, EEXIST if there is a default route.
    pub fn add_default_route(&mut self, gateway: IpAddr) -> Result<(), NetlinkError> {
        let any: IpAddr = match gateway {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.add_route(Network::new(any, 0), gateway)
    }

    /// The same for what goes to `network`, which must be written without host bits.
    ///
    /// # Errors
    /// As there; EINVAL for an address with host bits.
    pub fn add_route(&mut self, network: Network, gateway: IpAddr) -> Result<(), NetlinkError> {
        let (family, bytes) = family_and_bytes(gateway);
        let mut header = [0; RTMSG_BYTES];
        header[0] = family;
        header[1] = network.prefix;
        header[4] = libc::RT_TABLE_MAIN;
        header[5] = libc::RTPROT_STATIC;
        header[6] = libc::RT_SCOPE_UNIVERSE;
        header[7] = libc::RTN_UNICAST;
        let create = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = Message::new(libc::RTM_NEWROUTE, create, &header);
        if network.prefix > 0 {
            message.attribute(libc::RTA_DST, &family_and_bytes(network.address).1);
        }
        message.attribute(libc::RTA_GATEWAY, &bytes);
        let Network { address, prefix } = network;
        self.request(message, || format!("add the route to {address}/{prefix} by {gateway}"))
    }

    /// Has this namespace a way to IPv6 addresses that no other route is about?
    ///
    /// # Errors
    /// As recvmsg(2).
    pub fn has_default_route_v6(&mut self) -> Result<bool, NetlinkError> {
        let mut found = false;
        let message = Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &[0; RTMSG_BYTES]);
        let dumped = self.socket.dump(message, &mut |payload| {
            // Where there is no way the kernel lists one that is unreachable.
            let is_default = payload.first() == Some(&(libc::AF_INET6 as u8))
                && payload.get(1) == Some(&0)
                && payload.get(7) == Some(&libc::RTN_UNICAST);
            found |= is_default;
        });
        self.name(dumped, || "list the routes".to_owned())?;
        Ok(found)
    }

    /// Networks this namespace has a route to, default routes left out: what a mesh's addresses must
    /// not overlap.
    ///
    /// # Errors
    /// As recvmsg(2).
    pub fn routed_networks(&mut self) -> Result<Vec<Network>, NetlinkError> {
        let mut networks = Vec::new();
        let message = Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &[0; RTMSG_BYTES]);
        let dumped = self.socket.dump(message, &mut |payload| networks.extend(route_of(payload)));
        self.name(dumped, || "list the routes".to_owned())?;
        Ok(networks)
    }

    /// Addresses of this network namespace's own links, loopback's too; not those of whole networks.
    ///
    /// # Errors
    /// As recvmsg(2).
    pub fn local_addresses(&mut self) -> Result<Vec<IpAddr>, NetlinkError> {
        let mut addresses = Vec::new();
        let message = Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &[0; RTMSG_BYTES]);
        let dumped = self.socket.dump(message, &mut |payload| {
            let own = route_of(payload).filter(|_| payload.get(7) == Some(&libc::RTN_LOCAL));
            let is_whole =
                |route: &Network| route.prefix == if route.address.is_ipv4() { 32 } else { 128 };
            addresses.extend(own.filter(is_whole).map(|route| route.address));
        });
        self.name(dumped, || "list the addresses".to_owned())?;
        Ok(addresses)
    }

    fn request(
        &mut self,
        message: Message,
        what: impl FnOnce() -> String,
    ) -> Result<(), NetlinkError> {
        let result = self.socket.request(message);
        self.name(result, what)
    }

    fn name<T>(
        &mut self,
        result: io::Result<T>,
        what: impl FnOnce() -> String,
    ) -> Result<T, NetlinkError> {
        let detail = self.socket.take_detail();
        result.map_err(|source| NetlinkError { what: what(), source, detail })
    }
}

/// The destination of a dumped route, unless it is a default or a multicast one.
fn route_of(payload: &[u8]) -> Option<Network> {
    let (family, prefix, kind) = (*payload.first()?, *payload.get(1)?, *payload.get(7)?);
    if prefix == 0 || kind == libc::RTN_MULTICAST {
        return None;
    }
    let tail = payload.get(RTMSG_BYTES..)?;
    let (_, bytes) = attributes(tail).find(|(kind, _)| *kind == libc::RTA_DST)?;
    let address = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from_bits(u32_at(bytes, 0)?.to_be())),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    Some(Network { address, prefix })
}

/// A request for a new link that is up.
fn create_link_message() -> Message {
    let create = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let up = libc::IFF_UP as u32;
    Message::new(libc::RTM_NEWLINK, create, &link_header(0, up, up))
}

/// struct ifinfomsg.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; IFINFO_BYTES] {
    let mut header = [0; IFINFO_BYTES];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn family_and_bytes(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (libc::AF_INET as u8, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6 as u8, address.octets().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect("a network")
    }

    #[test]
    fn networks_are_read_as_they_are_written() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::1/9", "fd00::/9"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(network(text).to_string(), shown);
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/+8", "10.0.0.0/", "a/8"] {
            wrong.parse::<Network>().expect_err(wrong);
        }
        assert!(network("10.0.0.0/8").contains([10, 9, 8, 7].into()));
        assert!(!network("10.0.0.0/8").contains([11, 9, 8, 7].into()));
        assert!(!network("0.0.0.0/0").contains(Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn networks_overlap_by_the_shorter_prefix() {
        for (one, two, overlap) in [
            ("240.240.0.0/16", "240.240.7.0/24", true),
            ("240.240.0.0/16", "240.241.0.0/16", false),
            ("240.240.0.0/16", "0.0.0.0/0", true),
            ("10.0.0.1/32", "10.0.0.1/32", true),
            ("10.0.0.1/32", "10.0.0.2/32", false),
            ("fd68:6564:646c::/48", "fd68:6564:646c:1::/64", true),
            ("fd68:6564:646c::/64", "fd68:6564:646c:1::/64", false),
            ("::/0", "0.0.0.0/0", false),
        ] {
            assert_eq!(network(one).overlaps(&network(two)), overlap, "{one} {two}");
            assert_eq!(network(two).overlaps(&network(one)), overlap, "{two} {one}");
        }
    }

    #[test]
    fn the_loopback_network_is_listed_as_a_route() {
        let routes = Netlink::open().expect("opens").routed_networks().expect("lists");
        assert!(routes.contains(&network("127.0.0.1/32")), "{routes:?}");
    }
}
