//! The id that a request without one gets, and that a refusal names.

use heddle_logic::sampling::{DECISION_AT, SAMPLED_DIGIT};

/// A generated `x-request-id`: a random UUID.
#[derive(Debug, Clone)]
pub(crate) struct RequestId([u8; 36]);

impl RequestId {
    /// Of 128 random bits.
    pub(crate) fn of(random: [u64; 2]) -> Self {
        // Version 4, variant 1.
        let high = (random[0] & !0xf000) | 0x4000;
        let low = (random[1] >> 2) | 1 << 63;
        let mut digits = [0; 32];
        digits[..16].copy_from_slice(&hex(high));
        digits[16..].copy_from_slice(&hex(low));
        let mut text = [b'-'; 36];
        for (to, from) in
            [(0..8, 0..8), (9..13, 8..12), (14..18, 12..16), (19..23, 16..20), (24..36, 20..32)]
        {
            text[to].copy_from_slice(&digits[from]);
        }
        Self(text)
    }

    /// From now on it says that its trace is recorded.
    pub(crate) fn says_recorded(&mut self) {
        self.0[DECISION_AT] = SAMPLED_DIGIT;
    }

    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Sixteen hexadecimal digits: all at once, a nibble per byte.
fn hex(bits: u64) -> [u8; 16] {
    const LOW_NIBBLES: u128 = 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f;
    let mut spread = u128::from(bits);
    spread = (spread | spread << 32) & 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff;
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & LOW_NIBBLES;
    spread.to_be_bytes().map(|nibble| if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_are_those_of_the_number() {
        for bits in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX, 0xf0e1_d2c3_b4a5_9687] {
            assert_eq!(hex(bits).as_slice(), format!("{bits:016x}").as_bytes());
        }
    }
}
