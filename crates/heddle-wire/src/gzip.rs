//! What gzip made smaller, made whole again (RFC 1951 and 1952): bodies that others send us are often compressed, and
//! never larger than a few MiB, so that a table of lengths and a loop over bits will do. Nothing is compressed here.

use std::sync::LazyLock;

/// Longest code, bits.
const LENGTH_MAX: usize = 15;
/// Of an encoded length of a repeat: what it begins at, and how many bits add to it.
const LENGTHS: [(u16, u32); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];
/// The same of how far back it is.
const DISTANCES: [(u16, u32); 30] = [
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 1),
    (7, 1),
    (9, 2),
    (13, 2),
    (17, 3),
    (25, 3),
    (33, 4),
    (49, 4),
    (65, 5),
    (97, 5),
    (129, 6),
    (193, 6),
    (257, 7),
    (385, 7),
    (513, 8),
    (769, 8),
    (1025, 9),
    (1537, 9),
    (2049, 10),
    (3073, 10),
    (4097, 11),
    (6145, 11),
    (8193, 12),
    (12289, 12),
    (16385, 13),
    (24577, 13),
];
/// In which order the lengths of the codes for lengths are told.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// The symbol at which a block ends.
const END: u16 = 256;

/// Blocks that bring their own codes: so many, and one more for so many bytes. Such a block may be 12 bytes long and
/// costs as much as hundreds. Who compresses brings codes only where they save more than they take, so that there are
/// some 60 bytes and more in one, however often it is made to send what it has; the other blocks cost what their bits do.
const BLOCKS_WITH_CODES: (usize, usize) = (64, 32);

/// Why bytes are nothing that gzip made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GzipError {
    /// They break the format's rules, or end too early.
    #[error("it is no gzip")]
    Malformed,
    /// They come to more than was asked for.
    #[error("it is too large when it is decompressed")]
    TooLarge,
    /// They come to something else than their sender had.
    #[error("it does not match its checksum")]
    Checksum,
}

use GzipError::Malformed;

/// The bytes that `compressed` stands for, `most` at most. One member, as every sender of requests makes it.
///
/// # Errors
/// It is not what gzip makes, or too large.
pub fn decompress(compressed: &[u8], most: usize) -> Result<Vec<u8>, GzipError> {
    let mut input = Input { bytes: after_header(compressed).ok_or(Malformed)?, held: 0, count: 0 };
    let mut output = Vec::new();
    let mut with_codes = BLOCKS_WITH_CODES.0 + compressed.len() / BLOCKS_WITH_CODES.1;
    loop {
        let last = input.bits(1)? == 1;
        match input.bits(2)? {
            0 => input.stored(&mut output, most)?,
            1 => {
                let (symbols, distances) = fixed()?;
                input.block(symbols, distances, &mut output, most)?;
            }
            2 => {
                with_codes = with_codes.checked_sub(1).ok_or(Malformed)?;
                let (symbols, distances) = input.told()?;
                input.block(&symbols, &distances, &mut output, most)?;
            }
            _ => return Err(Malformed),
        }
        if last {
            break;
        }
    }
    let (checksum, rest) = input.bytes.split_first_chunk::<4>().ok_or(Malformed)?;
    let (length, _) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
    let same = u32::from_le_bytes(*checksum) == crc(&output)
        && u32::from_le_bytes(*length) as usize == output.len();
    if same { Ok(output) } else { Err(GzipError::Checksum) }
}

/// What follows a member's header.
fn after_header(bytes: &[u8]) -> Option<&[u8]> {
    let (header, mut rest) = bytes.split_first_chunk::<10>()?;
    let [0x1f, 0x8b, 8, flags, ..] = *header else { return None };
    if flags & 0b100 != 0 {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        rest = behind.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    // A name, and a comment, each up to a zero.
    for flag in [0b1000, 0b1_0000] {
        if flags & flag != 0 {
            let end = rest.iter().position(|byte| *byte == 0)?;
            rest = rest.get(end + 1..)?;
        }
    }
    rest.get(if flags & 0b10 != 0 { 2 } else { 0 }..)
}

struct Input<'a> {
    bytes: &'a [u8],
    /// Bits that have been taken and not used.
    held: u32,
    count: u32,
}

impl Input<'_> {
    /// The next `need` bits, at most 16.
    fn bits(&mut self, need: u32) -> Result<u32, GzipError> {
        while self.count < need {
            let (first, rest) = self.bytes.split_first().ok_or(Malformed)?;
            self.held |= u32::from(*first) << self.count;
            self.count += 8;
            self.bytes = rest;
        }
        let value = self.held & ((1 << need) - 1);
        self.held >>= need;
        self.count -= need;
        Ok(value)
    }

    /// A block that is not compressed.
    fn stored(&mut self, output: &mut Vec<u8>, most: usize) -> Result<(), GzipError> {
        // Less than a byte is held, which is not used.
        (self.held, self.count) = (0, 0);
        let (head, rest) = self.bytes.split_first_chunk::<4>().ok_or(Malformed)?;
        let length = u16::from_le_bytes([head[0], head[1]]);
        if length != !u16::from_le_bytes([head[2], head[3]]) {
            return Err(Malformed);
        }
        let (part, rest) = rest.split_at_checked(usize::from(length)).ok_or(Malformed)?;
        if output.len() + part.len() > most {
            return Err(GzipError::TooLarge);
        }
        output.extend_from_slice(part);
        self.bytes = rest;
        Ok(())
    }

    /// The codes that a block brings with it.
    fn told(&mut self) -> Result<(Codes, Codes), GzipError> {
        let symbols = self.bits(5)? as usize + 257;
        let distances = self.bits(5)? as usize + 1;
        let told = self.bits(4)? as usize + 4;
        if symbols > 286 || distances > DISTANCES.len() {
            return Err(Malformed);
        }
        let mut lengths = [0_u8; ORDER.len()];
        for at in ORDER.iter().take(told) {
            lengths[*at] = u8::try_from(self.bits(3)?).unwrap_or(0);
        }
        let codes = Codes::of(&lengths)?;
        let mut lengths: Vec<u8> = Vec::with_capacity(symbols + distances);
        while lengths.len() < symbols + distances {
            let symbol = codes.next(self)?;
            let (value, times) = match symbol {
                0..16 => (u8::try_from(symbol).unwrap_or(0), 1),
                16 => (*lengths.last().ok_or(Malformed)?, 3 + self.bits(2)?),
                17 => (0, 3 + self.bits(3)?),
                _ => (0, 11 + self.bits(7)?),
            };
            lengths.extend(std::iter::repeat_n(value, times as usize));
        }
        let (own, more) = lengths.split_at(symbols);
        if more.len() != distances || own[usize::from(END)] == 0 {
            return Err(Malformed);
        }
        Ok((Codes::of(own)?, Codes::of(more)?))
    }

    fn block(
        &mut self,
        symbols: &Codes,
        distances: &Codes,
        output: &mut Vec<u8>,
        most: usize,
    ) -> Result<(), GzipError> {
        loop {
            let symbol = symbols.next(self)?;
            if symbol == END {
                return Ok(());
            }
            if let Ok(byte) = u8::try_from(symbol) {
                if output.len() >= most {
                    return Err(GzipError::TooLarge);
                }
                output.push(byte);
                continue;
            }
            let (length, more) = *LENGTHS.get(usize::from(symbol - END - 1)).ok_or(Malformed)?;
            let length = usize::from(length) + self.bits(more)? as usize;
            let (distance, more) =
                *DISTANCES.get(usize::from(distances.next(self)?)).ok_or(Malformed)?;
            let distance = usize::from(distance) + self.bits(more)? as usize;
            let from = output.len().checked_sub(distance).ok_or(Malformed)?;
            if output.len() + length > most {
                return Err(GzipError::TooLarge);
            }
            // What is repeated may reach into what it makes.
            for at in from..from + length {
                output.push(output[at]);
            }
        }
    }
}

/// Codes by their lengths, in canonical order.
struct Codes {
    counts: [u16; LENGTH_MAX + 1],
    symbols: Vec<u16>,
}

impl Codes {
    fn of(lengths: &[u8]) -> Result<Self, GzipError> {
        let mut counts = [0_u16; LENGTH_MAX + 1];
        for length in lengths {
            *counts.get_mut(usize::from(*length)).ok_or(Malformed)? += 1;
        }
        counts[0] = 0;
        let mut left = 1_i32;
        for count in &counts[1..] {
            left = left * 2 - i32::from(*count);
            if left < 0 {
                return Err(Malformed);
            }
        }
        let mut symbols: Vec<u16> = (0..).take(lengths.len()).collect();
        symbols.retain(|symbol| lengths[usize::from(*symbol)] > 0);
        symbols.sort_by_key(|symbol| lengths[usize::from(*symbol)]);
        Ok(Self { counts, symbols })
    }

    fn next(&self, input: &mut Input<'_>) -> Result<u16, GzipError> {
        let (mut code, mut first, mut index) = (0_usize, 0_usize, 0_usize);
        for count in &self.counts[1..] {
            code |= input.bits(1)? as usize;
            let count = usize::from(*count);
            if code < first + count {
                return self.symbols.get(index + code - first).copied().ok_or(Malformed);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(Malformed)
    }
}

/// The codes of blocks that bring none, made once: such a block may be ten bits long.
fn fixed() -> Result<&'static (Codes, Codes), GzipError> {
    static FIXED: LazyLock<Result<(Codes, Codes), GzipError>> = LazyLock::new(|| {
        let mut lengths = [8_u8; 288];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        Ok((Codes::of(&lengths)?, Codes::of(&[5; 30])?))
    });
    FIXED.as_ref().map_err(|error| *error)
}

/// CRC-32 as gzip has it.
fn crc(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut i = 0;
        while i < 16 {
            let mut value = i as u32;
            let mut bit = 0;
            while bit < 4 {
                value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    let half = |crc: u32, part: u32| TABLE[((crc ^ part) & 15) as usize] ^ (crc >> 4);
    !bytes.iter().fold(!0, |crc, byte| half(half(crc, u32::from(*byte)), u32::from(*byte) >> 4))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What Python's gzip makes of these, with the time left out.
    fn samples() -> Vec<(Vec<u8>, Vec<u8>)> {
        let bytes = |hex: &str| -> Vec<u8> {
            let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            (0..hex.len()).step_by(2).map(digit).collect()
        };
        let span = |i: u64| format!(r#"{{"spanId":"{:016x}","name":"GET /page/{i}"}}"#, i * 7919);
        let body = (0..40).map(span).collect::<Vec<_>>().join(",");
        let body = format!(r#"{{"resourceSpans":[{body}]}}"#);
        let compressed = concat!(
            "1f8b08000000000002037595bb6ac34010457f256c6db066669fee43489d7421c5be942a8eb14865fcef91db70af402058ce",
            "163be7686fee3ab79fdf6b9f6f977adedce9e3e6b6fdeb75b8935bfe3deee0cef57bee2b2fcfef4fc74bfd9ac7c5dd0f0491",
            "39578408476c8c8910e548e87d20c438925aeb08f11c29b53684048eb4522a42224746ce052189236b4a1921992222312684",
            "148e5808118e928f5f82f701327cfe92cc3c64b80052540d32dc0069b2ef8818ae808cfd850c77e05100ac46b804ba8c81b3",
            "e116a8f60ebb11ae81fad66038c23dd0582b2c47b9079a4b81e928f7406bceb01de51e684f09c6a3dc039d31c27a947b604b",
            "08301fe51e987a0ffb51ee817933d88f720f2caac27e947b605904f6a3dc03abfbd9c19f2ef7c0da5c613fc63d785c07b01f",
            "e31ed8da3becc7b8075e5a83fd18f7c05badf8e2e11ef8500aecc7b8073ee50cfb31ee812f29c17e8c7be05b8cb01fdb3df8",
            "bcff01b6ae169329080000",
        );
        vec![
            (bytes("1f8b080000000000020303000000000000000000"), Vec::new()),
            (bytes("1f8b08000000000002032b2e48cc2b0600260a086805000000"), b"spans".to_vec()),
            (
                bytes("1f8b0800000000000403010600f9ff73746f7265640bf9435606000000"),
                b"stored".to_vec(),
            ),
            (
                bytes("1f8b08000000000002034b4c1c05a360140c77000003da389ae8030000"),
                vec![b'a'; 1_000],
            ),
            (bytes(compressed), body.into_bytes()),
        ]
    }

    #[test]
    fn what_gzip_made_smaller_is_whole_again() {
        for (compressed, wanted) in samples() {
            assert_eq!(decompress(&compressed, 1 << 20).unwrap(), wanted);
            let less = wanted.len().saturating_sub(1);
            if less < wanted.len() {
                assert_eq!(decompress(&compressed, less), Err(GzipError::TooLarge));
            }
        }
    }

    #[test]
    fn what_is_cut_or_changed_is_told() {
        for (compressed, wanted) in samples() {
            for end in 0..compressed.len() {
                assert!(decompress(&compressed[..end], 1 << 20).is_err(), "{end}");
            }
            for at in 10..compressed.len() {
                let mut changed = compressed.clone();
                changed[at] ^= 0x10;
                // A bit that nobody looks at may be another.
                assert!(decompress(&changed, 1 << 20).map_or(true, |got| got == wanted), "{at}");
            }
        }
        assert_eq!(decompress(b"{}", 10), Err(Malformed));
    }

    /// Bits as they stand in a stream: of each value so many, the least first.
    #[derive(Default)]
    struct Bits(Vec<bool>);

    impl Bits {
        fn push(&mut self, parts: &[(u32, u32)]) {
            for (value, count) in parts {
                self.0.extend((0..*count).map(|bit| value >> bit & 1 == 1));
            }
        }

        fn fill_byte(&mut self) {
            self.0.resize(self.0.len().next_multiple_of(8), false);
        }

        /// One member that comes to `whole`.
        fn member(mut self, whole: &[u8]) -> Vec<u8> {
            // The last block: it brings no codes, and is empty.
            self.push(&[(1, 1), (1, 2), (0, 7)]);
            self.fill_byte();
            let byte = |bits: &[bool]| {
                bits.iter().enumerate().fold(0, |byte, (at, bit)| byte | u8::from(*bit) << at)
            };
            let length = u32::try_from(whole.len()).unwrap();
            let mut member = b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec();
            member.extend(self.0.chunks(8).map(byte));
            member.extend(crc(whole).to_le_bytes());
            member.extend(length.to_le_bytes());
            member
        }
    }

    /// So many empty blocks of 90 bits that bring codes: for an end and one distance.
    fn empty_blocks_with_codes(count: usize) -> Vec<u8> {
        let mut bits = Bits::default();
        for _ in 0..count {
            bits.push(&[(0, 1), (2, 2), (0, 5), (0, 5), (14, 4)]);
            // Of the codes for lengths there are the ones for "many zeros" and for "1".
            let told = |at: &usize| (u32::from(matches!(at, 18 | 1)), 3);
            bits.push(&ORDER.iter().take(18).map(told).collect::<Vec<_>>());
            bits.push(&[(1, 1), (127, 7), (1, 1), (107, 7), (0, 1), (0, 1), (0, 1)]);
        }
        bits.member(b"")
    }

    #[test]
    fn the_codes_of_blocks_that_bring_none_are_made_once() {
        assert!(std::ptr::eq(fixed().unwrap(), fixed().unwrap()));
    }

    #[test]
    fn more_blocks_with_codes_than_anybody_makes_are_no_gzip() {
        assert_eq!(decompress(&empty_blocks_with_codes(60), 10), Ok(Vec::new()));
        assert_eq!(decompress(&empty_blocks_with_codes(4_000), 10), Err(Malformed));
    }

    #[test]
    fn what_was_sent_byte_by_byte_is_whole_again() {
        let mut bits = Bits::default();
        for _ in 0..10_000 {
            // An `a`, whose code has its first bit first, the end, and the empty block that a flush makes.
            bits.push(&[(0, 1), (1, 2), (0b1000_1001, 8), (0, 7), (0, 3)]);
            bits.fill_byte();
            bits.push(&[(0, 16), (0xffff, 16)]);
        }
        let whole = vec![b'a'; 10_000];
        assert_eq!(decompress(&bits.member(&whole), 10_000), Ok(whole));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_come_to_more_than_was_asked_for(
            head in prop::sample::select(vec![&b"\x1f\x8b\x08\0\0\0\0\0\0\0"[..], &b"\x1f\x8b\x08\x1f\0\0\0\0\0\0"[..], &b""[..]]),
            rest in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let bytes = [head, &rest].concat();
            prop_assert!(decompress(&bytes, 1_000).map_or(true, |whole| whole.len() <= 1_000));
        }
    }
}
