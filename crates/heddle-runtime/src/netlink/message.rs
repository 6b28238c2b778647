//! Netlink messages: written and read. Lengths are filled in as the parts close.

/// Parts of a message start at multiples of this.
const ALIGN: usize = 4;
/// Length of a message's header.
pub(crate) const HEADER_BYTES: usize = 16;
/// Set on an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// What is left of an attribute's kind without its flags.
const KIND_MASK: u16 = 0x3fff;

/// A message under construction.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of `kind` with `flags` beside NLM_F_REQUEST, and its family's fixed `header`.
    pub(crate) fn new(kind: u16, flags: i32, header: &[u8]) -> Self {
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(header);
        Self { bytes }
    }

    /// Adds an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.enclose(kind, |message| message.bytes.extend_from_slice(value))
    }

    /// Adds a text, ended by NUL.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.enclose(kind, |message| {
            message.bytes.extend_from_slice(value.as_bytes());
            message.bytes.push(0);
        })
    }

    /// Adds an attribute that holds attributes.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.enclose(kind | NESTED, fill)
    }

    /// Adds raw bytes: the fixed header of a message within an attribute.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn enclose(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - start)
            .expect("invariant: an attribute holds a name, an address or a short list");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// The message as sent, numbered `sequence`.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length =
            u32::try_from(self.bytes.len()).expect("invariant: a message is a few attributes long");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        self.bytes
    }
}

/// One received message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages in what one recv gave; ends at the first that is cut off.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER_BYTES)?;
        let length = usize::try_from(u32_at(header, 0)?).ok()?;
        let payload = bytes.get(HEADER_BYTES..length)?;
        let message = Received {
            kind: u16_at(header, 4)?,
            flags: u16_at(header, 6)?,
            sequence: u32_at(header, 8)?,
            payload,
        };
        bytes = bytes.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in a payload, without their flags; ends at the first that is cut off.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & KIND_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A native-endian number at an offset.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..offset + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// A native-endian number at an offset.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..offset + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// A native-endian signed number at an offset.
pub(crate) fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    bytes.get(offset..offset + 4)?.try_into().ok().map(i32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut message = Message::new(16, libc::NLM_F_ACK, &[1, 2, 3, 4]);
        message.text(3, "lo").nested(18, |inner| {
            inner.attribute(1, &[7]).attribute(2, &5_u32.to_ne_bytes());
        });
        let first = message.finish(41);
        let both = [&*first, &*Message::new(17, 0, &[]).finish(42)].concat();
        let all: Vec<_> = messages(&both).collect();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].kind, all[0].sequence, all[1].sequence), (16, 41, 42));
        let outer: Vec<_> = attributes(&all[0].payload[4..]).collect();
        assert_eq!(outer[0], (3, &b"lo\0"[..]));
        assert_eq!(outer[1].0, 18);
        let inner: Vec<_> = attributes(outer[1].1).collect();
        assert_eq!(inner, [(1, &[7][..]), (2, &5_u32.to_ne_bytes()[..])]);
    }

    #[test]
    fn torn_messages_end_the_reading() {
        let whole = Message::new(16, 0, &[0; 8]).finish(1);
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length]).count(), 0);
        }
        let mut lying = whole;
        lying[..4].copy_from_slice(&3_u32.to_ne_bytes());
        assert_eq!(messages(&lying).count(), 0);
        assert_eq!(attributes(&[2, 0, 1, 0, 9, 9]).count(), 0);
    }
}
