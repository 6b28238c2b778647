//! The expressions of a rule: small programs of loads into a register, comparisons and a verdict.
//! Attributes are big-endian; marks compare in host order, ports and addresses in network order.

use std::net::IpAddr;

use crate::{
    netlink::{Network, message::Message},
    redirect::{self, Condition, Transport, Verdict},
};

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_META_SREG: u16 = 3;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_CT_SREG: u16 = 4;
const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;

const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;

const NFT_META_MARK: u32 = 3;
const NFT_META_IIFNAME: u32 = 6;
const NFT_META_OIFNAME: u32 = 7;
const NFT_META_SKUID: u32 = 10;
const NFT_META_SKGID: u32 = 11;
const NFT_META_NFPROTO: u32 = 15;
const NFT_META_L4PROTO: u32 = 16;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NFT_CT_MARK: u32 = 3;
const NFT_NAT_DNAT: u32 = 1;
const NFT_RETURN: i32 = -5;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// Bytes an interface name takes in a register.
const IFNAMSIZ: usize = 16;

/// A rule under construction: conditions in order, a verdict last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rule(Vec<Expression>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    /// Loads a property of the packet.
    Meta { key: u32 },
    /// Loads the mark of the packet's connection.
    ConnectionMark,
    /// Loads bytes of a header.
    Payload { base: u32, offset: u32, length: u32 },
    /// Keeps these bits of the loaded bytes.
    Mask(Vec<u8>),
    /// Goes on only if the loaded bytes compare so.
    Compare { operation: u32, value: Vec<u8> },
    /// Loads a constant.
    Constant(Vec<u8>),
    /// Ends the chain: the packet goes its way.
    Return,
    /// Changes the destination to this machine, at the loaded port.
    Redirect,
    /// Changes it to the loaded address, of a family.
    SendTo { family: u8 },
    /// Marks the packet with what is loaded.
    Mark,
    /// Marks its connection.
    MarkConnection,
}

/// Which of a packet's addresses.
#[derive(Debug, Clone, Copy)]
enum Side {
    Source,
    Destination,
}

impl From<&redirect::Rule> for Rule {
    fn from(rule: &redirect::Rule) -> Self {
        let conditions = rule.conditions.iter().fold(Self::default(), Self::only);
        match rule.verdict {
            Verdict::LetThrough => conditions.then(Expression::Return),
            Verdict::Redirect(port) => conditions
                .then(Expression::Constant(port.to_be_bytes().to_vec()))
                .then(Expression::Redirect),
            Verdict::SendTo(address) => {
                let (family, bytes) = match address {
                    IpAddr::V4(address) => (NFPROTO_IPV4, address.octets().to_vec()),
                    IpAddr::V6(address) => (NFPROTO_IPV6, address.octets().to_vec()),
                };
                conditions.then(Expression::Constant(bytes)).then(Expression::SendTo { family })
            }
            Verdict::MarkConnection(mark) => conditions
                .then(Expression::Constant(mark.to_ne_bytes().to_vec()))
                .then(Expression::MarkConnection),
            Verdict::Mark(mark) => conditions
                .then(Expression::Constant(mark.to_ne_bytes().to_vec()))
                .then(Expression::Mark),
        }
    }
}

impl Rule {
    /// Only packets of which this holds.
    fn only(self, condition: &Condition) -> Self {
        match condition {
            Condition::Mark(mark) => self.meta(NFT_META_MARK, NFT_CMP_EQ, &mark.to_ne_bytes()),
            Condition::Uid(uid) => self.meta(NFT_META_SKUID, NFT_CMP_EQ, &uid.to_ne_bytes()),
            Condition::Gid(gid) => self.meta(NFT_META_SKGID, NFT_CMP_EQ, &gid.to_ne_bytes()),
            Condition::Protocol(protocol) => {
                let number = match protocol {
                    Transport::Tcp => libc::IPPROTO_TCP,
                    Transport::Udp => libc::IPPROTO_UDP,
                };
                self.meta(NFT_META_L4PROTO, NFT_CMP_EQ, &[number as u8])
            }
            Condition::Port(port) => {
                self.load_destination_port().compare(NFT_CMP_EQ, &port.to_be_bytes())
            }
            Condition::OtherPorts(ports) => {
                ports.iter().fold(self.load_destination_port(), |rule, port| {
                    rule.compare(NFT_CMP_NEQ, &port.to_be_bytes())
                })
            }
            Condition::To(network) => self.network(Side::Destination, *network, NFT_CMP_EQ),
            Condition::NotBy(network) => self.network(Side::Source, *network, NFT_CMP_NEQ),
            Condition::ConnectionMark(mark) => {
                self.then(Expression::ConnectionMark).compare(NFT_CMP_EQ, &mark.to_ne_bytes())
            }
            Condition::From(name) => self.meta(NFT_META_IIFNAME, NFT_CMP_EQ, &interface(name)),
            Condition::NotFrom(name) => self.meta(NFT_META_IIFNAME, NFT_CMP_NEQ, &interface(name)),
            Condition::Out(name) => self.meta(NFT_META_OIFNAME, NFT_CMP_EQ, &interface(name)),
        }
    }

    /// Only packets with one side in a network, or not: that address's bits of its prefix say it.
    fn network(self, side: Side, network: Network, operation: u32) -> Self {
        let Network { address, prefix } = network;
        let (protocol, offset, address) = match (address, side) {
            (IpAddr::V4(ip), Side::Source) => (NFPROTO_IPV4, 12, ip.octets().to_vec()),
            (IpAddr::V4(ip), Side::Destination) => (NFPROTO_IPV4, 16, ip.octets().to_vec()),
            (IpAddr::V6(ip), Side::Source) => (NFPROTO_IPV6, 8, ip.octets().to_vec()),
            (IpAddr::V6(ip), Side::Destination) => (NFPROTO_IPV6, 24, ip.octets().to_vec()),
        };
        let (base, length) = (NFT_PAYLOAD_NETWORK_HEADER, address.len() as u32);
        let loaded = self
            .meta(NFT_META_NFPROTO, NFT_CMP_EQ, &[protocol])
            .then(Expression::Payload { base, offset, length });
        if usize::from(prefix) == address.len() * 8 {
            return loaded.compare(operation, &address);
        }
        let bits = |at: usize| usize::from(prefix).saturating_sub(at * 8).min(8);
        let mask = (0..address.len()).map(|at| (0xff00_u16 >> bits(at)) as u8).collect();
        loaded.then(Expression::Mask(mask)).compare(operation, &address)
    }

    fn load_destination_port(self) -> Self {
        let base = NFT_PAYLOAD_TRANSPORT_HEADER;
        self.then(Expression::Payload { base, offset: 2, length: 2 })
    }

    fn meta(self, key: u32, operation: u32, value: &[u8]) -> Self {
        self.then(Expression::Meta { key }).compare(operation, value)
    }

    fn compare(self, operation: u32, value: &[u8]) -> Self {
        self.then(Expression::Compare { operation, value: value.to_vec() })
    }

    fn then(mut self, expression: Expression) -> Self {
        self.0.push(expression);
        self
    }

    /// Writes the expressions as a list's elements.
    pub(super) fn write(&self, list: &mut Message) {
        for expression in &self.0 {
            list.nested(NFTA_LIST_ELEM, |element| {
                element.text(NFTA_EXPR_NAME, expression.name());
                element.nested(NFTA_EXPR_DATA, |data| expression.write(data));
            });
        }
    }
}

/// A name as a register holds it.
fn interface(name: &str) -> [u8; IFNAMSIZ] {
    let mut register = [0; IFNAMSIZ];
    for (place, byte) in register.iter_mut().zip(name.bytes()).take(IFNAMSIZ - 1) {
        *place = byte;
    }
    register
}

impl Expression {
    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } | Self::Mark => "meta",
            Self::ConnectionMark | Self::MarkConnection => "ct",
            Self::SendTo { .. } => "nat",
            Self::Payload { .. } => "payload",
            Self::Mask(_) => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Constant(_) | Self::Return => "immediate",
            Self::Redirect => "redir",
        }
    }

    fn write(&self, data: &mut Message) {
        match self {
            Self::Meta { key } => {
                data.attribute(NFTA_META_KEY, &key.to_be_bytes())
                    .attribute(NFTA_META_DREG, &REGISTER.to_be_bytes());
            }
            Self::Mark => {
                data.attribute(NFTA_META_KEY, &NFT_META_MARK.to_be_bytes())
                    .attribute(NFTA_META_SREG, &REGISTER.to_be_bytes());
            }
            Self::ConnectionMark => {
                data.attribute(NFTA_CT_KEY, &NFT_CT_MARK.to_be_bytes())
                    .attribute(NFTA_CT_DREG, &REGISTER.to_be_bytes());
            }
            Self::MarkConnection => {
                data.attribute(NFTA_CT_KEY, &NFT_CT_MARK.to_be_bytes())
                    .attribute(NFTA_CT_SREG, &REGISTER.to_be_bytes());
            }
            Self::SendTo { family } => {
                data.attribute(NFTA_NAT_TYPE, &NFT_NAT_DNAT.to_be_bytes())
                    .attribute(NFTA_NAT_FAMILY, &u32::from(*family).to_be_bytes())
                    .attribute(NFTA_NAT_REG_ADDR_MIN, &REGISTER.to_be_bytes());
            }
            Self::Payload { base, offset, length } => {
                data.attribute(NFTA_PAYLOAD_DREG, &REGISTER.to_be_bytes())
                    .attribute(NFTA_PAYLOAD_BASE, &base.to_be_bytes())
                    .attribute(NFTA_PAYLOAD_OFFSET, &offset.to_be_bytes())
                    .attribute(NFTA_PAYLOAD_LEN, &length.to_be_bytes());
            }
            Self::Mask(mask) => {
                data.attribute(NFTA_BITWISE_SREG, &REGISTER.to_be_bytes())
                    .attribute(NFTA_BITWISE_DREG, &REGISTER.to_be_bytes())
                    .attribute(NFTA_BITWISE_LEN, &(mask.len() as u32).to_be_bytes())
                    .nested(NFTA_BITWISE_MASK, |inner| {
                        inner.attribute(NFTA_DATA_VALUE, mask);
                    })
                    .nested(NFTA_BITWISE_XOR, |inner| {
                        inner.attribute(NFTA_DATA_VALUE, &vec![0; mask.len()]);
                    });
            }
            Self::Compare { operation, value } => {
                data.attribute(NFTA_CMP_SREG, &REGISTER.to_be_bytes())
                    .attribute(NFTA_CMP_OP, &operation.to_be_bytes())
                    .nested(NFTA_CMP_DATA, |inner| {
                        inner.attribute(NFTA_DATA_VALUE, value);
                    });
            }
            Self::Constant(value) => {
                data.attribute(NFTA_IMMEDIATE_DREG, &REGISTER.to_be_bytes()).nested(
                    NFTA_IMMEDIATE_DATA,
                    |inner| {
                        inner.attribute(NFTA_DATA_VALUE, value);
                    },
                );
            }
            Self::Return => {
                data.attribute(NFTA_IMMEDIATE_DREG, &REGISTER_VERDICT.to_be_bytes()).nested(
                    NFTA_IMMEDIATE_DATA,
                    |inner| {
                        inner.nested(NFTA_DATA_VERDICT, |verdict| {
                            verdict.attribute(NFTA_VERDICT_CODE, &NFT_RETURN.to_be_bytes());
                        });
                    },
                );
            }
            Self::Redirect => {
                data.attribute(NFTA_REDIR_REG_PROTO_MIN, &REGISTER.to_be_bytes());
            }
        }
    }
}
