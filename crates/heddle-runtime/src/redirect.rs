//! Which connections of a workload go to its sidecar: what is wished, as an ordered list of rules.
//!
//! | chain | what | where to |
//! |---|---|---|
//! | output | the sidecar's own, by mark or by user | its way |
//! | output | TCP to excluded ports | its way |
//! | output | UDP and TCP port 53, loopback too | DNS port |
//! | output | 127.0.0.0/8 and ::1 | its way |
//! | output | by excluded interfaces, to excluded networks | its way |
//! | output | other TCP, or that to included ports and networks | outbound port |
//! | prerouting | TCP from outside to included ports, but excluded ones | inbound port |
//!
//! Whoever puts them in force writes the same list in another language: [`crate::nft`] as messages to the
//! kernel, [`crate::iptables`] as arguments. [`RedirectRules::text`] is for people.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::netlink::Network;

const DNS_PORT: u16 = 53;
/// Name of the table.
pub(crate) const TABLE: &str = "heddle";
/// NF_IP_PRI_NAT_DST: where destination NAT hooks in.
pub(crate) const PRIORITY: i32 = -100;
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
        }
    }

    /// What the workload sends, in this order.
    pub(crate) fn output(&self) -> Vec<Rule> {
        use Condition::{Gid, Mark, Out, Port, Protocol, To, Uid};
        use Transport::{Tcp, Udp};
        let mut rules = match self.escape {
            Escape::Mark(mark) => vec![let_through(vec![Mark(mark)])],
            Escape::Owner { uid, gid } => {
                vec![let_through(vec![Uid(uid)]), let_through(vec![Gid(gid)])]
            }
        };
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
    pub(crate) fn prerouting(&self) -> Vec<Rule> {
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
            Condition::Mark(_)
            | Condition::Uid(_)
            | Condition::Gid(_)
            | Condition::From(_)
            | Condition::Out(_) => false,
        };
        let rules = self.output();
        match rules.iter().find(|rule| rule.conditions.iter().all(holds))?.verdict {
            Verdict::Redirect(port) => Some(port),
            Verdict::LetThrough => None,
        }
    }

    /// The rules in the language of `nft`.
    pub fn text(&self) -> String {
        let chain = |name: &str, rules: &[Rule]| {
            let lines: String = rules.iter().map(|rule| format!("\t\t{rule}\n")).collect();
            format!(
                "\tchain {name} {{\n\t\ttype nat hook {name} priority {PRIORITY}; policy accept;\n{lines}\t}}\n"
            )
        };
        let (output, prerouting) =
            (chain("output", &self.output()), chain("prerouting", &self.prerouting()));
        format!("table inet {TABLE} {{\n{output}{prerouting}}}\n")
    }
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
        }
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
