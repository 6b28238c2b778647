//! The fields of a head as ranges into its raw bytes, with the ones the proxy reads pre-indexed.

use super::{ADDED_FIELDS_MAX, FIELDS_MAX, HeadError};

/// Fields that are recognised while scanning, so that reading them costs no search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum KnownHeader {
    /// Any other name.
    Other,
    /// `host`.
    Host,
    /// `content-length`.
    ContentLength,
    /// `transfer-encoding`.
    TransferEncoding,
    /// `connection`.
    Connection,
    /// `upgrade`.
    Upgrade,
    /// `expect`.
    Expect,
    /// `te`.
    Te,
    /// `idempotency-key`.
    IdempotencyKey,
    /// `x-request-id`.
    XRequestId,
    /// `keep-alive`.
    KeepAlive,
    /// `content-type`.
    ContentType,
    /// `proxy-connection`: not a standard, hop-by-hop wherever it is sent.
    ProxyConnection,
    /// `trailer`.
    Trailer,
    /// `authorization`.
    Authorization,
    /// `proxy-authorization`.
    ProxyAuthorization,
    /// `www-authenticate`.
    WwwAuthenticate,
    /// `proxy-authenticate`.
    ProxyAuthenticate,
}

/// Number of [`KnownHeader`] variants.
const KNOWN: usize = KnownHeader::ProxyAuthenticate as usize + 1;
/// "No such field" in the index.
const ABSENT: u8 = u8::MAX;
const _: () = assert!(
    FIELDS_MAX + ADDED_FIELDS_MAX < ABSENT as usize,
    "a field's index must fit beside ABSENT"
);

/// One field line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    /// First byte of the line.
    pub(super) start: u32,
    /// First byte of the value, blanks around it left out.
    pub(super) value: u32,
    /// Behind the last byte of the value.
    pub(super) value_end: u32,
    /// Bytes of the name.
    pub(super) name_len: u16,
    /// Which name.
    pub(super) known: KnownHeader,
}

impl Field {
    pub(super) fn name(self, raw: &[u8]) -> &[u8] {
        slice(raw, self.start, self.start + u32::from(self.name_len))
    }

    pub(super) fn value(self, raw: &[u8]) -> &[u8] {
        slice(raw, self.value, self.value_end)
    }
}

/// A range of the raw head; empty where `raw` is not the head that was scanned.
pub(super) fn slice(raw: &[u8], start: u32, end: u32) -> &[u8] {
    raw.get(start as usize..end as usize).unwrap_or_default()
}

/// The field lines of one head.
#[derive(Debug, Clone)]
pub(super) struct FieldTable {
    fields: Vec<Field>,
    /// Index of the first field of each known name.
    first: [u8; KNOWN],
    /// Most fields.
    max: u8,
}

impl Default for FieldTable {
    fn default() -> Self {
        Self { fields: Vec::new(), first: [ABSENT; KNOWN], max: FIELDS_MAX as u8 }
    }
}

impl FieldTable {
    /// Forgets all fields and keeps room for `kept` of them.
    pub(super) fn clear(&mut self, kept: usize) {
        self.fields.clear();
        self.fields.shrink_to(kept);
        self.first = [ABSENT; KNOWN];
        self.max = FIELDS_MAX as u8;
    }

    /// Has room for what a hop of the mesh adds.
    pub(super) fn allow_additions(&mut self) {
        self.max = (FIELDS_MAX + ADDED_FIELDS_MAX) as u8;
    }

    #[inline]
    pub(super) fn push(&mut self, field: Field) -> Result<(), HeadError> {
        let index = self.fields.len();
        if index == usize::from(self.max) {
            return Err(HeadError::TooManyFields);
        }
        let first = &mut self.first[field.known as usize];
        if *first == ABSENT {
            *first = index as u8;
        }
        self.fields.push(field);
        Ok(())
    }

    pub(super) fn all(&self) -> &[Field] {
        &self.fields
    }

    pub(super) fn has(&self, known: KnownHeader) -> bool {
        self.first[known as usize] != ABSENT
    }

    /// The first field of a known name.
    pub(super) fn known(&self, known: KnownHeader) -> Option<Field> {
        self.fields.get(usize::from(self.first[known as usize])).copied()
    }

    /// All fields of a known name, in order.
    pub(super) fn every(&self, known: KnownHeader) -> impl Iterator<Item = Field> + '_ {
        let from = usize::from(self.first[known as usize]).min(self.fields.len());
        self.fields[from..].iter().copied().filter(move |field| field.known == known)
    }
}

/// A head's fields together with the bytes they point into. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    pub(super) table: &'a FieldTable,
    pub(super) raw: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Number of field lines.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table.all().len()
    }

    /// All fields in order, name and value as sent.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let raw = self.raw;
        self.table.all().iter().map(move |field| (field.name(raw), field.value(raw)))
    }

    /// Value of the first field of a known name.
    #[must_use]
    pub fn known(&self, known: KnownHeader) -> Option<&'a [u8]> {
        self.table.known(known).map(|field| field.value(self.raw))
    }

    /// Does a field of this name offer or use a scheme that authenticates a connection?
    pub(super) fn names_connection_scheme(&self, known: KnownHeader) -> bool {
        self.table.has(known)
            && self.table.every(known).any(|field| {
                // A list of challenges is not told from one challenge's parameters here: a scheme
                // stands at the beginning of an element either way.
                elements(field.value(self.raw)).any(|element| {
                    let scheme = element.split(|byte| is_blank(*byte)).next().unwrap_or_default();
                    scheme.eq_ignore_ascii_case(b"ntlm")
                        || scheme.eq_ignore_ascii_case(b"negotiate")
                })
            })
    }

    /// Value of the first field called `name`, compared without case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// Values of all fields called `name`, compared without case.
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let raw = self.raw;
        self.table
            .all()
            .iter()
            .filter(move |field| {
                usize::from(field.name_len) == name.len()
                    && field.name(raw).eq_ignore_ascii_case(name.as_bytes())
            })
            .map(move |field| field.value(raw))
    }
}

/// Recognises a name. By length first: most names end there.
#[inline]
pub(super) fn recognise(name: &[u8]) -> KnownHeader {
    let (known, same) = match (name.len(), name[0] | 0x20) {
        (2, b't') => (KnownHeader::Te, is_word(name, b"te")),
        (4, b'h') => (KnownHeader::Host, is_word(name, b"host")),
        (6, b'e') => (KnownHeader::Expect, is_word(name, b"expect")),
        (7, b'u') => (KnownHeader::Upgrade, is_word(name, b"upgrade")),
        (7, b't') => (KnownHeader::Trailer, is_word(name, b"trailer")),
        (10, b'c') => (KnownHeader::Connection, is_word(name, b"connection")),
        (10, b'k') => (KnownHeader::KeepAlive, is_word(name, b"keep-alive")),
        (12, b'c') => (KnownHeader::ContentType, is_word(name, b"content-type")),
        (12, b'x') => (KnownHeader::XRequestId, is_word(name, b"x-request-id")),
        (13, b'a') => (KnownHeader::Authorization, is_word(name, b"authorization")),
        (14, b'c') => (KnownHeader::ContentLength, is_word(name, b"content-length")),
        (15, b'i') => (KnownHeader::IdempotencyKey, is_word(name, b"idempotency-key")),
        (16, b'p') => (KnownHeader::ProxyConnection, is_word(name, b"proxy-connection")),
        (16, b'w') => (KnownHeader::WwwAuthenticate, is_word(name, b"www-authenticate")),
        (18, b'p') => (KnownHeader::ProxyAuthenticate, is_word(name, b"proxy-authenticate")),
        (19, b'p') => (KnownHeader::ProxyAuthorization, is_word(name, b"proxy-authorization")),
        (17, b't') => (KnownHeader::TransferEncoding, is_word(name, b"transfer-encoding")),
        _ => return KnownHeader::Other,
    };
    if same { known } else { KnownHeader::Other }
}

/// Compares without case a text that holds no control character with a word of letters and `-`:
/// among such bytes only those become equal under the case bit that are equal without case. A fixed
/// length and no early exit let this be a few wide instructions.
#[inline]
pub(super) fn is_word<const N: usize>(text: &[u8], word: &[u8; N]) -> bool {
    let Some(text) = text.first_chunk::<N>().filter(|_| text.len() == N) else { return false };
    text.iter().zip(word).fold(0, |differs, (a, b)| differs | ((a | 0x20) ^ b)) == 0
}

pub(super) fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// The elements of a comma-separated list, blanks trimmed, empty ones left out.
pub(super) fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}
