//! Which connections of a workload go to its sidecar: what is wished, as an ordered list of rules.
//!
//! | chain | what | where to |
//! |---|---|---|
//! | output | the sidecar's own, by mark or by user | its way |
//! | output | the sidecar's to the application's door, where callers keep their addresses | the workload's address |
//! | output | TCP to excluded ports | its way |
//! | output | UDP and TCP port 53, loopback too | DNS port |
//! | output | 127.0.0.0/8 and ::1 | its way |
//! | output | by excluded interfaces, to excluded networks | its way |
//! | output | other TCP, or that to included ports and networks | outbound port |
//! | prerouting | TCP from outside to included ports, but excluded ones | inbound port |
//!
//! Where callers keep their addresses (Istio's TPROXY mode) the sidecar calls the application from its caller's
//! address, so that the application's answers are for somebody outside. Three things bring them back: the sidecar
//! calls a *door*, an address of the loopback that stands for the workload's, which is how those connections are told;
//! they are marked, and so are the answers; and what is so marked is routed to this machine
//! ([`RedirectRules::route_callers`]). What comes from outside is redirected as ever. To take it by TPROXY, with its
//! destination unchanged, would give both connections one pair of addresses, told apart by the ports of two
//! machines that know nothing of each other: now and then a caller's new connection would be taken for the sidecar's.
//! By the door the kernel tells them apart whatever the ports.
//!
//! Whoever puts them in force writes the same list in another language: [`crate::nft`] as messages to the
//! kernel, [`crate::iptables`] as arguments. [`RedirectRules::text`] is for people.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::{
    net::{DOOR_V6, door},
    netlink::{Netlink, NetlinkError, Network, RouteFamily},
};

const DNS_PORT: u16 = 53;
/// Name of the table.
pub(crate) const TABLE: &str = "heddle";
/// NF_IP_PRI_NAT_DST: where destination NAT hooks in.
const PRIORITY_NAT: i32 = -100;
/// NF_IP_PRI_MANGLE: before that, where what is marked finds its route.
const PRIORITY_MANGLE: i32 = -150;
/// Mark of connections made in a caller's name, and of what they carry. Istio's in TPROXY mode.
pub const CALLERS_MARK: u32 = 0x539;
/// Table of the route that such packets have, and place of the rule that leads to it. Istio's.
pub const CALLERS_TABLE: u8 = 133;
/// The interface of a machine's connections to itself.
const LOOPBACK: &str = "lo";

/// How the sidecar's own sockets are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Escape {
    /// By SO_MARK.
    Mark(u32),
    /// By the user or the group of their process.
    Owner {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

/// What is redirected, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedirectRules {
    /// The sidecar's own sockets, which are let through.
    pub escape: Escape,
    /// Listener for the application's outgoing TCP, on 127.0.0.1 and ::1.
    pub outbound_port: u16,
    /// Listener for incoming TCP, on the wildcard addresses.
    pub inbound_port: u16,
    /// Listener for DNS, UDP and TCP, on 127.0.0.1 and ::1; `None`: names are not captured.
    pub dns_port: Option<u16>,
    /// Ports whose incoming TCP is redirected; `None`: all.
    pub inbound_included: Option<Vec<u16>>,
    /// Ports whose incoming TCP is not.
    pub inbound_excluded: Vec<u16>,
    /// Networks to which outgoing TCP is redirected; `None`: all.
    pub outbound_included: Option<Vec<Network>>,
    /// Networks to which it is not.
    pub outbound_excluded: Vec<Network>,
    /// Ports to which outgoing TCP is redirected whatever its network, but an excluded one.
    pub outbound_ports_included: Vec<u16>,
    /// Ports to which it is not.
    pub outbound_ports_excluded: Vec<u16>,
    /// Interfaces whose traffic is left alone, both ways.
    pub interfaces_excluded: Vec<String>,
    /// The workload's own addresses, at most one of each family, at which the application sees its callers' addresses
    /// instead of the sidecar's; none: nowhere.
    #[serde(default)]
    pub callers_kept_at: Vec<IpAddr>,
}

/// Rules that the kernel asks at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) kind: ChainKind,
    pub(crate) hook: Hook,
    pub(crate) rules: Vec<Rule>,
}

/// What a chain's rules may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainKind {
    /// Change where connections go.
    Nat,
    /// Mark packets, which are routed anew then.
    Route,
}

/// Where a chain's rules are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Output,
    Prerouting,
}

/// One rule: conditions that must all hold, and what happens then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) verdict: Verdict,
}

/// A property of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    Mark(u32),
    Uid(u32),
    Gid(u32),
    /// It stands before conditions on ports.
    Protocol(Transport),
    Port(u16),
    OtherPorts(Vec<u16>),
    To(Network),
    NotBy(Network),
    /// Of the connection that it belongs to.
    ConnectionMark(u32),
    From(String),
    NotFrom(&'static str),
    Out(String),
}

/// What carries ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// What happens to a connection's first packet, and so to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    LetThrough,
    /// To this port of this machine.
    Redirect(u16),
    /// To this address.
    SendTo(IpAddr),
    /// The connection is marked, and the next rule asked.
    MarkConnection(u32),
    /// The packet is.
    Mark(u32),
}

impl RedirectRules {
    /// All TCP and all names, but what comes to the ports that are not redirected.
    pub fn all(escape: Escape, [outbound_port, inbound_port, dns_port]: [u16; 3]) -> Self {
        Self {
            escape,
            outbound_port,
            inbound_port,
            dns_port: Some(dns_port),
            inbound_included: None,
            inbound_excluded: Vec::new(),
            outbound_included: None,
            outbound_excluded: Vec::new(),
            outbound_ports_included: Vec::new(),
            outbound_ports_excluded: Vec::new(),
            interfaces_excluded: Vec::new(),
            callers_kept_at: Vec::new(),
        }
    }

    /// All rules, by where they are asked.
    pub(crate) fn chains(&self) -> Vec<Chain> {
        let nat = |name, hook, rules| Chain { name, kind: ChainKind::Nat, hook, rules };
        let mut chains = vec![
            nat("output", Hook::Output, self.output()),
            nat("prerouting", Hook::Prerouting, self.prerouting()),
        ];
        if !self.callers_kept_at.is_empty() {
            let (kind, hook) = (ChainKind::Route, Hook::Output);
            chains.push(Chain { name: "callers", kind, hook, rules: self.callers() });
        }
        chains
    }

    /// Calls in a caller's name, and what answers them.
    fn callers(&self) -> Vec<Rule> {
        let calls = self.callers_kept_at.iter().map(|own| Rule {
            conditions: in_a_callers_name(*own),
            verdict: Verdict::MarkConnection(CALLERS_MARK),
        });
        let of_them = vec![Condition::ConnectionMark(CALLERS_MARK)];
        let mark = Rule { conditions: of_them, verdict: Verdict::Mark(CALLERS_MARK) };
        calls.chain([mark]).collect()
    }

    /// What the workload sends, in this order.
    fn output(&self) -> Vec<Rule> {
        use Condition::{Gid, Mark, Out, Port, Protocol, To, Uid};
        use Transport::{Tcp, Udp};
        let mut rules: Vec<Rule> = (self.callers_kept_at.iter())
            .map(|own| Rule { conditions: in_a_callers_name(*own), verdict: Verdict::SendTo(*own) })
            .collect();
        rules.extend(match self.escape {
            Escape::Mark(mark) => vec![let_through(vec![Mark(mark)])],
            Escape::Owner { uid, gid } => {
                vec![let_through(vec![Uid(uid)]), let_through(vec![Gid(gid)])]
            }
        });
        for &port in &self.outbound_ports_excluded {
            rules.push(let_through(vec![Protocol(Tcp), Port(port)]));
            if port == DNS_PORT {
                rules.push(let_through(vec![Protocol(Udp), Port(port)]));
            }
        }
        if let Some(dns_port) = self.dns_port {
            let dns = |protocol| redirect(vec![Protocol(protocol), Port(DNS_PORT)], dns_port);
            rules.extend([Udp, Tcp].map(dns));
        }
        rules.extend(Network::LOOPBACKS.map(|network| let_through(vec![To(network)])));
        let interfaces = self.interfaces_excluded.iter().cloned();
        rules.extend(interfaces.map(|interface| let_through(vec![Out(interface)])));
        let networks = self.outbound_excluded.iter();
        rules.extend(networks.map(|network| let_through(vec![To(*network)])));
        let to_sidecar = |conditions| redirect(conditions, self.outbound_port);
        match &self.outbound_included {
            None => rules.push(to_sidecar(vec![Protocol(Tcp)])),
            Some(networks) => {
                let ports = self.outbound_ports_included.iter();
                rules.extend(ports.map(|port| to_sidecar(vec![Protocol(Tcp), Port(*port)])));
                let networks = networks.iter();
                rules.extend(networks.map(|network| to_sidecar(vec![Protocol(Tcp), To(*network)])));
            }
        }
        rules
    }

    /// What comes to the workload from outside, in this order.
    fn prerouting(&self) -> Vec<Rule> {
        use Condition::{From, NotFrom, OtherPorts, Port, Protocol};
        let interfaces = self.interfaces_excluded.iter().cloned();
        let mut rules: Vec<Rule> =
            interfaces.map(|interface| let_through(vec![From(interface)])).collect();
        let incoming = |port: Option<u16>| {
            let mut conditions = vec![NotFrom(LOOPBACK), Protocol(Transport::Tcp)];
            if !self.inbound_excluded.is_empty() {
                conditions.push(OtherPorts(self.inbound_excluded.clone()));
            }
            conditions.extend(port.map(Port));
            redirect(conditions, self.inbound_port)
        };
        match &self.inbound_included {
            None => rules.push(incoming(None)),
            Some(ports) => rules.extend(ports.iter().map(|port| incoming(Some(*port)))),
        }
        rules
    }

    /// Where a connection of the application to `address` goes instead; `None`: it goes its way. Interfaces are not
    /// looked at.
    pub fn captured(&self, address: SocketAddr) -> Option<u16> {
        let holds = |condition: &Condition| match condition {
            Condition::Protocol(protocol) => *protocol == Transport::Tcp,
            Condition::Port(port) => *port == address.port(),
            Condition::OtherPorts(ports) => !ports.contains(&address.port()),
            Condition::To(network) => network.contains(address.ip()),
            Condition::NotFrom(_) => true,
            // An application calls in its own name.
            Condition::NotBy(_)
            | Condition::ConnectionMark(_)
            | Condition::Mark(_)
            | Condition::Uid(_)
            | Condition::Gid(_)
            | Condition::From(_)
            | Condition::Out(_) => false,
        };
        let rules = self.output();
        match rules.iter().find(|rule| rule.conditions.iter().all(holds))?.verdict {
            Verdict::Redirect(port) => Some(port),
            _ => None,
        }
    }

    /// Puts in force the routes that belong to these rules, in place of those of an earlier call.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN; EOPNOTSUPP if the kernel lacks rules for routes.
    pub fn route_callers(&self, netlink: &mut Netlink) -> Result<(), NetlinkError> {
        for family in RouteFamily::ALL {
            let is_v4 = family == RouteFamily::V4;
            if !self.callers_kept_at.iter().any(|own| own.is_ipv4() == is_v4) {
                netlink.forget_marked(family, CALLERS_MARK, CALLERS_TABLE)?;
                continue;
            }
            netlink.route_marked_here(family, CALLERS_MARK, CALLERS_TABLE)?;
            if !is_v4 {
                let loopback = netlink.link_index(LOOPBACK)?;
                netlink.ensure_address(loopback, Network::new(DOOR_V6.into(), 128))?;
            }
        }
        Ok(())
    }

    /// The rules in the language of `nft`, with the routes that belong to them as comments.
    pub fn text(&self) -> String {
        let chain = |Chain { name, kind, hook, rules }: &Chain| {
            let lines: String = rules.iter().map(|rule| format!("\t\t{rule}\n")).collect();
            let priority = kind.priority();
            format!(
                "\tchain {name} {{\n\t\ttype {kind} hook {hook} priority {priority}; policy accept;\n{lines}\t}}\n"
            )
        };
        let chains: String = self.chains().iter().map(chain).collect();
        let routes: String = (self.callers_kept_at.iter())
            .map(|own| {
                let family = if own.is_ipv4() { 4 } else { 6 };
                let (mark, table) = (CALLERS_MARK, CALLERS_TABLE);
                format!(
                    "# ip -{family} rule add fwmark {mark:#x} lookup {table} priority {table}\n\
                     # ip -{family} route replace local default dev lo table {table}\n"
                )
            })
            .collect();
        format!("table inet {TABLE} {{\n{chains}}}\n{routes}")
    }
}

/// Whoever calls the door on its own behalf does so from the loopback.
fn in_a_callers_name(own: IpAddr) -> Vec<Condition> {
    let (loopback, longest) = match own {
        IpAddr::V4(_) => (Network::LOOPBACKS[0], 32),
        IpAddr::V6(_) => (Network::LOOPBACKS[1], 128),
    };
    vec![
        Condition::NotBy(loopback),
        Condition::To(Network::new(door(own), longest)),
        Condition::Protocol(Transport::Tcp),
    ]
}

fn let_through(conditions: Vec<Condition>) -> Rule {
    Rule { conditions, verdict: Verdict::LetThrough }
}

fn redirect(conditions: Vec<Condition>, port: u16) -> Rule {
    Rule { conditions, verdict: Verdict::Redirect(port) }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.conditions {
            write!(f, "{condition} ")?;
        }
        match self.verdict {
            Verdict::LetThrough => f.write_str("return"),
            Verdict::Redirect(port) => write!(f, "redirect to :{port}"),
            Verdict::SendTo(IpAddr::V4(address)) => write!(f, "dnat ip to {address}"),
            Verdict::SendTo(IpAddr::V6(address)) => write!(f, "dnat ip6 to {address}"),
            Verdict::MarkConnection(mark) => write!(f, "ct mark set {mark:#x}"),
            Verdict::Mark(mark) => write!(f, "meta mark set {mark:#x}"),
        }
    }
}

impl ChainKind {
    /// Its place among what else is asked there.
    pub(crate) fn priority(self) -> i32 {
        match self {
            Self::Nat => PRIORITY_NAT,
            Self::Route => PRIORITY_MANGLE,
        }
    }
}

impl fmt::Display for ChainKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nat => "nat",
            Self::Route => "route",
        })
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Output => "output",
            Self::Prerouting => "prerouting",
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark(mark) => write!(f, "meta mark {mark:#x}"),
            Self::Uid(uid) => write!(f, "meta skuid {uid}"),
            Self::Gid(gid) => write!(f, "meta skgid {gid}"),
            Self::Protocol(protocol) => write!(f, "meta l4proto {protocol}"),
            Self::Port(port) => write!(f, "th dport {port}"),
            Self::OtherPorts(ports) => {
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                write!(f, "th dport != {{ {} }}", ports.join(", "))
            }
            Self::To(network) if network.address.is_ipv4() => write!(f, "ip daddr {network}"),
            Self::To(network) => write!(f, "ip6 daddr {network}"),
            Self::NotBy(network) if network.address.is_ipv4() => {
                write!(f, "ip saddr != {network}")
            }
            Self::NotBy(network) => write!(f, "ip6 saddr != {network}"),
            Self::ConnectionMark(mark) => write!(f, "ct mark {mark:#x}"),
            Self::From(interface) => write!(f, "iifname \"{interface}\""),
            Self::NotFrom(interface) => write!(f, "iifname != \"{interface}\""),
            Self::Out(interface) => write!(f, "oifname \"{interface}\""),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> RedirectRules {
        RedirectRules::all(Escape::Owner { uid: 1337, gid: 1337 }, [15001, 15006, 15053])
    }

    fn network(text: &str) -> Network {
        text.parse().expect("a network")
    }

    #[test]
    fn the_text_is_what_nft_reads() {
        let mut rules = rules();
        rules.inbound_excluded = vec![15020, 15021];
        rules.outbound_excluded = vec![network("10.1.0.0/16")];
        rules.interfaces_excluded = vec!["net1".to_owned()];
        let expected = "\
table inet heddle {
\tchain output {
\t\ttype nat hook output priority -100; policy accept;
\t\tmeta skuid 1337 return
\t\tmeta skgid 1337 return
\t\tmeta l4proto udp th dport 53 redirect to :15053
\t\tmeta l4proto tcp th dport 53 redirect to :15053
\t\tip daddr 127.0.0.0/8 return
\t\tip6 daddr ::1/128 return
\t\toifname \"net1\" return
\t\tip daddr 10.1.0.0/16 return
\t\tmeta l4proto tcp redirect to :15001
\t}
\tchain prerouting {
\t\ttype nat hook prerouting priority -100; policy accept;
\t\tiifname \"net1\" return
\t\tiifname != \"lo\" meta l4proto tcp th dport != { 15020, 15021 } redirect to :15006
\t}
}
";
        assert_eq!(rules.text(), expected);
    }

    #[test]
    fn where_callers_keep_their_addresses_the_text_has_their_rules_and_routes() {
        let mut rules = rules();
        rules.callers_kept_at = ["10.1.2.3", "fd00::3"].map(|ip| ip.parse().unwrap()).to_vec();
        let text = rules.text();
        for expected in [
            "\t\tip saddr != 127.0.0.0/8 ip daddr 127.0.0.7/32 meta l4proto tcp dnat ip to 10.1.2.3\n",
            "\t\tip6 saddr != ::1/128 ip6 daddr ::7/128 meta l4proto tcp dnat ip6 to fd00::3\n",
            "\tchain callers {\n\t\ttype route hook output priority -150; policy accept;\n",
            "\t\tip saddr != 127.0.0.0/8 ip daddr 127.0.0.7/32 meta l4proto tcp ct mark set 0x539\n",
            "\t\tct mark 0x539 meta mark set 0x539\n",
            "# ip -4 rule add fwmark 0x539 lookup 133 priority 133\n",
            "# ip -6 route replace local default dev lo table 133\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        let to_door = SocketAddr::new(door(rules.callers_kept_at[0]), 80);
        assert_eq!(rules.captured(to_door), None, "an application's own call goes its way");
    }

    #[test]
    fn what_is_excluded_beats_what_is_included() {
        let mut rules = rules();
        let to = |text: &str| text.parse::<SocketAddr>().expect("an address");
        for (address, expected) in [
            ("10.1.2.3:80", Some(15001)),
            ("[fd00::1]:80", Some(15001)),
            ("127.0.0.5:80", None),
            ("[::1]:80", None),
            ("127.0.0.53:53", Some(15053)),
        ] {
            assert_eq!(rules.captured(to(address)), expected, "{address}");
        }
        rules.outbound_included = Some(vec![network("10.0.0.0/8")]);
        rules.outbound_excluded = vec![network("10.1.0.0/16")];
        rules.outbound_ports_included = vec![443];
        rules.outbound_ports_excluded = vec![53, 3306];
        for (address, expected) in [
            ("10.2.2.3:80", Some(15001)),
            ("10.1.2.3:80", None),
            ("10.1.2.3:443", None),
            ("10.2.2.3:3306", None),
            ("9.9.9.9:80", None),
            ("9.9.9.9:443", Some(15001)),
            ("9.9.9.9:53", None),
            ("[fd00::1]:443", Some(15001)),
            ("[fd00::1]:80", None),
        ] {
            assert_eq!(rules.captured(to(address)), expected, "{address}");
        }
    }
}
