//! Ranges of addresses, as rules and entries write them.

use std::net::IpAddr;

/// Is `ip` within the range?
pub(crate) fn holds((network, bits): (IpAddr, u8), ip: IpAddr) -> bool {
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            network.to_bits() & mask == ip.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            network.to_bits() & mask == ip.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_own_family_up_to_its_bits() {
        let range = |text: &str, bits| (text.parse::<IpAddr>().unwrap(), bits);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(holds(range("240.240.0.0", 16), ip("240.240.7.1")));
        assert!(!holds(range("240.240.0.0", 16), ip("240.241.0.1")));
        assert!(holds(range("0.0.0.0", 0), ip("1.2.3.4")));
        assert!(!holds(range("0.0.0.0", 0), ip("::1")));
        assert!(holds(range("fd68::", 16), ip("fd68:1::2")));
        assert!(holds(range("::1", 128), ip("::1")) && !holds(range("::1", 128), ip("::2")));
    }
}
