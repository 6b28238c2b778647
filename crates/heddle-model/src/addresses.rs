//! The addresses of one workload: one family or both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use minicbor::{Decode, Decoder, Encode, Encoder};
use serde::{Deserialize, Serialize};

/// An IPv4 address, an IPv6 address or both; never none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Families", into = "Families")]
pub enum Addresses {
    /// IPv4 only.
    V4(Ipv4Addr),
    /// IPv6 only.
    V6(Ipv6Addr),
    /// Both families.
    Both(Ipv4Addr, Ipv6Addr),
}

impl Addresses {
    /// What there is of each family; `None` where there is neither.
    #[must_use]
    pub const fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Option<Self> {
        match (v4, v6) {
            (Some(v4), Some(v6)) => Some(Self::Both(v4, v6)),
            (Some(v4), None) => Some(Self::V4(v4)),
            (None, Some(v6)) => Some(Self::V6(v6)),
            (None, None) => None,
        }
    }

    /// The IPv4 address.
    #[must_use]
    pub const fn v4(self) -> Option<Ipv4Addr> {
        match self {
            Self::V4(v4) | Self::Both(v4, _) => Some(v4),
            Self::V6(_) => None,
        }
    }

    /// The IPv6 address.
    #[must_use]
    pub const fn v6(self) -> Option<Ipv6Addr> {
        match self {
            Self::V6(v6) | Self::Both(_, v6) => Some(v6),
            Self::V4(_) => None,
        }
    }

    /// The one to show and to dial where the family does not matter: IPv4 where there is one.
    #[must_use]
    pub const fn first(self) -> IpAddr {
        match self {
            Self::V4(v4) | Self::Both(v4, _) => IpAddr::V4(v4),
            Self::V6(v6) => IpAddr::V6(v6),
        }
    }

    /// The one of the family of `peer`, if there is one.
    #[must_use]
    pub fn of_family(self, peer: IpAddr) -> Option<IpAddr> {
        match peer {
            IpAddr::V4(_) => self.v4().map(IpAddr::V4),
            IpAddr::V6(_) => self.v6().map(IpAddr::V6),
        }
    }

    /// All of them, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> + Clone {
        self.v4().map(IpAddr::V4).into_iter().chain(self.v6().map(IpAddr::V6))
    }

    /// Is `ip` one of them?
    #[must_use]
    pub fn contains(self, ip: IpAddr) -> bool {
        self.of_family(ip) == Some(ip)
    }
}

impl From<IpAddr> for Addresses {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => Self::V6(v6),
        }
    }
}

impl<C> Encode<C> for Addresses {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        Families::from(*self).encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Addresses {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = d.position();
        let families: Families = d.decode_with(ctx)?;
        families.try_into().map_err(|reason| minicbor::decode::Error::message(reason).at(at))
    }
}

/// The form in JSON and on the wire: what is absent is left out.
#[derive(Decode, Encode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(deny_unknown_fields)]
struct Families {
    #[n(1)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    v4: Option<Ipv4Addr>,
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    v6: Option<Ipv6Addr>,
}

impl From<Addresses> for Families {
    fn from(addresses: Addresses) -> Self {
        Self { v4: addresses.v4(), v6: addresses.v6() }
    }
}

impl TryFrom<Families> for Addresses {
    type Error = &'static str;

    fn try_from(families: Families) -> Result<Self, Self::Error> {
        Self::new(families.v4, families.v6).ok_or("neither an IPv4 nor an IPv6 address")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Ipv4Addr = Ipv4Addr::new(240, 241, 0, 10);
    const V6: Ipv6Addr = Ipv6Addr::new(0xfd68, 0, 0, 1, 0, 0, 0, 10);

    #[test]
    fn one_family_is_enough_and_none_is_not() {
        assert_eq!(Addresses::new(None, None), None);
        let both = Addresses::new(Some(V4), Some(V6)).unwrap();
        assert_eq!(both.iter().collect::<Vec<_>>(), [IpAddr::V4(V4), IpAddr::V6(V6)]);
        assert_eq!(both.first(), IpAddr::V4(V4));
        let only = Addresses::new(None, Some(V6)).unwrap();
        assert_eq!(only.iter().collect::<Vec<_>>(), [IpAddr::V6(V6)]);
        assert_eq!((only.v4(), only.first()), (None, IpAddr::V6(V6)));
        assert!(only.contains(V6.into()));
        assert!(!only.contains(V4.into()));
    }
}
