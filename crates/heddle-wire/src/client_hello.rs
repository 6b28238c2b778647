//! Which server a client of TLS asks for: the name (SNI, RFC 6066 §3) in its ClientHello (RFC 8446 §4.1.2), the
//! only words of a handshake that are not for the two ends alone. Nothing is verified and nothing changed: the
//! bytes go on as they came, and the server judges them.
//!
//! Where the client's real hello is encrypted (ECH), what stands here is the public name of whoever can
//! open it, and that is who gets the connection.

use std::net::IpAddr;

/// Most bytes of a ClientHello that are waited for, the heads of its records included.
pub const CLIENT_HELLO_BYTES_MAX: usize = 16 * 1024;

/// Most bytes of a name (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 253;

const RECORD_HEAD_BYTES: usize = 5;
const HANDSHAKE_HEAD_BYTES: usize = 4;
const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// Not all of it is there yet.
    NeedMore,
    /// This server: in lower case, without a dot at its end.
    Named(String),
    /// It names nobody, or cannot be read, or is longer than [`CLIENT_HELLO_BYTES_MAX`].
    Nameless,
}

/// Reads a ClientHello as it arrives, each byte once; it may come in any number of records.
#[derive(Debug, Clone, Default)]
pub struct HelloReader {
    /// Bytes looked at.
    at: usize,
    /// Bytes left of the record there.
    left: usize,
    /// The handshake message so far, without heads of records.
    message: Vec<u8>,
}

impl HelloReader {
    /// What is known from `bytes`, all of the connection's so far, from the first one. What is behind
    /// the hello is not looked at.
    pub fn look(&mut self, bytes: &[u8]) -> Hello {
        let seen = &bytes[..bytes.len().min(CLIENT_HELLO_BYTES_MAX)];
        loop {
            match message_of(&self.message) {
                Message::Whole(body) => return name_in(body).map_or(Hello::Nameless, Hello::Named),
                Message::Other => return Hello::Nameless,
                Message::Partial => {}
            }
            let rest = seen.get(self.at..).unwrap_or_default();
            if self.left > 0 && !rest.is_empty() {
                let taken = rest.len().min(self.left);
                self.message.extend_from_slice(&rest[..taken]);
                self.at += taken;
                self.left -= taken;
                continue;
            }
            match rest {
                // As RFC 8446 §5.1 says, no record of a handshake is empty.
                [kind, _, _, high, low, ..] if self.left == 0 => {
                    let length = usize::from(u16::from_be_bytes([*high, *low]));
                    if *kind != HANDSHAKE_RECORD || length == 0 {
                        return Hello::Nameless;
                    }
                    self.left = length;
                    self.at += RECORD_HEAD_BYTES;
                }
                _ if bytes.len() >= CLIENT_HELLO_BYTES_MAX => return Hello::Nameless,
                _ => return Hello::NeedMore,
            }
        }
    }
}

enum Message<'a> {
    Partial,
    Whole(&'a [u8]),
    /// It is no ClientHello, or longer than is waited for.
    Other,
}

fn message_of(bytes: &[u8]) -> Message<'_> {
    let [kind, a, b, c, body @ ..] = bytes else { return Message::Partial };
    let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
    if *kind != CLIENT_HELLO || length + HANDSHAKE_HEAD_BYTES > CLIENT_HELLO_BYTES_MAX {
        return Message::Other;
    }
    body.get(..length).map_or(Message::Partial, Message::Whole)
}

/// Bytes of which fields are taken one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A field with its length in one byte before it.
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(length.into())
    }

    /// The same with its length in two bytes.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length.into())
    }
}

/// The one name that the body of a ClientHello asks for; `None` where it asks for none or could be read in two
/// ways.
fn name_in(body: &[u8]) -> Option<String> {
    const VERSION_AND_RANDOM_BYTES: usize = 2 + 32;
    let mut fields = Fields(body);
    fields.take(VERSION_AND_RANDOM_BYTES)?;
    let _session = fields.short()?;
    let _suites = fields.long()?;
    let _compression = fields.short()?;
    let mut extensions = Fields(fields.long()?);
    if !fields.0.is_empty() {
        return None;
    }
    let mut name = None;
    while !extensions.0.is_empty() {
        let (kind, data) = (extensions.number()?, extensions.long()?);
        if kind == SERVER_NAME && name.replace(host_in(data)?).is_some() {
            return None;
        }
    }
    name
}

/// The host name in an extension `server_name`.
fn host_in(extension: &[u8]) -> Option<String> {
    let mut fields = Fields(extension);
    let mut list = Fields(fields.long()?);
    let mut host = None;
    while !list.0.is_empty() {
        let (kind, name) = (list.take(1)?[0], list.long()?);
        if kind == HOST_NAME && host.replace(name).is_some() {
            return None;
        }
    }
    let host = std::str::from_utf8(host?).ok()?;
    let host = host.strip_suffix('.').unwrap_or(host);
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = !host.is_empty() && host.len() <= NAME_BYTES_MAX && host.bytes().all(fine);
    (fields.0.is_empty() && is_name && host.parse::<IpAddr>().is_err())
        .then(|| host.to_ascii_lowercase())
}
