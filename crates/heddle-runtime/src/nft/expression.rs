//! The expressions of a rule: small programs of loads into a register, comparisons and a verdict.
//! Attributes are big-endian; marks compare in host order, ports and addresses in network order.

use crate::netlink::message::Message;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;

const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;

const NFT_META_MARK: u32 = 3;
const NFT_META_IIFNAME: u32 = 6;
const NFT_META_NFPROTO: u32 = 15;
const NFT_META_L4PROTO: u32 = 16;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
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
    /// Loads bytes of a header.
    Payload { base: u32, offset: u32, length: u32 },
    /// Goes on only if the loaded bytes compare so.
    Compare { operation: u32, value: Vec<u8> },
    /// Loads a constant.
    Constant(Vec<u8>),
    /// Ends the chain: the packet goes its way.
    Return,
    /// Changes the destination to this machine, at the loaded port.
    Redirect,
}

impl Rule {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Only packets of sockets with this mark.
    pub(super) fn mark(self, mark: u32) -> Self {
        self.meta(NFT_META_MARK, NFT_CMP_EQ, &mark.to_ne_bytes())
    }

    /// Only packets of this transport protocol.
    pub(super) fn protocol(self, protocol: i32) -> Self {
        self.meta(NFT_META_L4PROTO, NFT_CMP_EQ, &[protocol as u8])
    }

    /// Only packets that came in by another interface than `lo`.
    pub(super) fn not_from_loopback(self) -> Self {
        let mut name = [0; IFNAMSIZ];
        name[..2].copy_from_slice(b"lo");
        self.meta(NFT_META_IIFNAME, NFT_CMP_NEQ, &name)
    }

    /// Only packets to 127.0.0.0/8: the first byte of the destination says it.
    pub(super) fn destination_ipv4_loopback(self) -> Self {
        self.meta(NFT_META_NFPROTO, NFT_CMP_EQ, &[NFPROTO_IPV4]).network_header(16, &[127])
    }

    /// Only packets to ::1.
    pub(super) fn destination_ipv6_loopback(self) -> Self {
        let address = std::net::Ipv6Addr::LOCALHOST.octets();
        self.meta(NFT_META_NFPROTO, NFT_CMP_EQ, &[NFPROTO_IPV6]).network_header(24, &address)
    }

    /// Only packets to this port.
    pub(super) fn destination_port(self, port: u16) -> Self {
        self.load_destination_port().compare(NFT_CMP_EQ, &port.to_be_bytes())
    }

    /// Only packets to other ports than these.
    pub(super) fn destination_port_none_of(self, ports: &[u16]) -> Self {
        ports.iter().fold(self.load_destination_port(), |rule, port| {
            rule.compare(NFT_CMP_NEQ, &port.to_be_bytes())
        })
    }

    /// They go their way.
    pub(super) fn let_through(self) -> Self {
        self.then(Expression::Return)
    }

    /// They go to this port of this machine.
    pub(super) fn redirect_to(self, port: u16) -> Self {
        self.then(Expression::Constant(port.to_be_bytes().to_vec())).then(Expression::Redirect)
    }

    fn load_destination_port(self) -> Self {
        let base = NFT_PAYLOAD_TRANSPORT_HEADER;
        self.then(Expression::Payload { base, offset: 2, length: 2 })
    }

    fn network_header(self, offset: u32, value: &[u8]) -> Self {
        let (base, length) = (NFT_PAYLOAD_NETWORK_HEADER, value.len() as u32);
        self.then(Expression::Payload { base, offset, length }).compare(NFT_CMP_EQ, value)
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

impl Expression {
    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Payload { .. } => "payload",
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
            Self::Payload { base, offset, length } => {
                data.attribute(NFTA_PAYLOAD_DREG, &REGISTER.to_be_bytes())
                    .attribute(NFTA_PAYLOAD_BASE, &base.to_be_bytes())
                    .attribute(NFTA_PAYLOAD_OFFSET, &offset.to_be_bytes())
                    .attribute(NFTA_PAYLOAD_LEN, &length.to_be_bytes());
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
