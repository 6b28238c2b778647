//! `Upgrade: h2c` (RFC 7540 §3.2, which RFC 9113 took back and clients still send): the request that asks
//! for it becomes the first stream. It reads from no connection: [`Joined`] puts what the request said in
//! frames behind the client's preface, where the codec finds it.

use heddle_wire::http1::{Framing, Request, Version};

/// A client's preface (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, type, flags and stream of a frame.
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 1 | 4;
/// Bytes of SETTINGS, those of the request and the frame together: each of the few that there are, many
/// times.
const SETTINGS_BYTES_MAX: usize = 600;
/// Fields that a frame holds without another behind it (RFC 9113 §4.2).
const FIELDS_BYTES_MAX: usize = 16 * 1024;
/// Fields that are about the connection the request came on.
const OF_THE_UPGRADE: [&[u8]; 6] =
    [b"connection", b"host", b"http2-settings", b"keep-alive", b"proxy-connection", b"upgrade"];

/// What is told a client whose request becomes a stream.
pub(crate) const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";

/// The frames of a request that asks for HTTP/2; `None` if it does not, or not as it has to.
pub(crate) fn offered(request: &Request<'_>) -> Option<Joined> {
    let fields = request.fields();
    let head = request.head();
    if head.version() != Version::Http11
        // A body would have to come whole before the first frame.
        || !matches!(head.framing(), Framing::None | Framing::Length(0))
        || !lists(request, "upgrade", b"h2c")
        || !lists(request, "connection", b"upgrade")
        || !lists(request, "connection", b"http2-settings")
    {
        return None;
    }
    let mut settings = fields.values("http2-settings");
    let (Some(coded), None) = (settings.next(), settings.next()) else { return None };
    let settings = decoded(coded).filter(|bytes| bytes.len() % 6 == 0)?;
    (settings.len() <= SETTINGS_BYTES_MAX).then_some(())?;
    Some(Joined { settings, request: headers(request)?, begun: Vec::new(), ready: None })
}

/// Is it among the elements of this field?
fn lists(request: &Request<'_>, name: &str, wanted: &[u8]) -> bool {
    let mut elements = request.fields().values(name).flat_map(|v| v.split(|byte| *byte == b','));
    elements.any(|element| element.trim_ascii().eq_ignore_ascii_case(wanted))
}

/// Base64 for addresses, without padding (RFC 4648 §5).
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let (mut bits, mut width, mut bytes) = (0_u32, 0, Vec::with_capacity(text.len()));
    for digit in text {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        width += 6;
        if width >= 8 {
            width -= 8;
            bytes.push((bits >> width) as u8);
        }
    }
    Some(bytes)
}

/// The request as a frame, every field as a literal that no table remembers (RFC 7541 §6.2.2).
fn headers(request: &Request<'_>) -> Option<Vec<u8>> {
    let mut block = Vec::new();
    let target = request.target();
    literal(&mut block, b":method", request.method().as_bytes());
    literal(&mut block, b":scheme", b"http");
    literal(&mut block, b":authority", request.authority().as_bytes());
    literal(&mut block, b":path", target.as_bytes());
    for (name, value) in request.fields().iter() {
        let name = name.to_ascii_lowercase();
        if !OF_THE_UPGRADE.contains(&&name[..]) {
            literal(&mut block, &name, value.trim_ascii());
        }
    }
    (block.len() <= FIELDS_BYTES_MAX).then(|| frame(HEADERS, WHOLE, 1, &block))
}

fn literal(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        number(block, text.len());
        block.extend_from_slice(text);
    }
}

/// With a prefix of seven bits (RFC 7541 §5.1).
fn number(block: &mut Vec<u8>, number: usize) {
    let Some(mut rest) = number.checked_sub(127) else { return block.push(number as u8) };
    block.push(127);
    while rest >= 128 {
        block.push(rest as u8 | 128);
        rest >>= 7;
    }
    block.push(rest as u8);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A client's beginning, to which the request that it sent before is added.
#[derive(Debug)]
pub(crate) struct Joined {
    /// What its request said of them; the frame's go before.
    settings: Vec<u8>,
    request: Vec<u8>,
    /// What has come so far.
    begun: Vec<u8>,
    /// All of it, and how much was taken.
    ready: Option<(Vec<u8>, usize)>,
}

impl Joined {
    /// More has come. What is no beginning goes on as it is: the codec says so.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.begun.extend_from_slice(bytes);
        let Some(rest) = self.begun.strip_prefix(PREFACE) else {
            let hopeful = PREFACE.starts_with(&self.begun);
            return if !hopeful {
                self.give_up()
            };
        };
        let Some((head, rest)) = rest.split_first_chunk::<FRAME_HEAD>() else { return };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if (head[3], head[4]) != (SETTINGS, 0) || self.settings.len() + length > SETTINGS_BYTES_MAX
        {
            return self.give_up();
        }
        let Some((settings, rest)) = rest.split_at_checked(length) else { return };
        let settings = frame(SETTINGS, 0, 0, &[&self.settings, settings].concat());
        self.ready = Some(([PREFACE, &settings, &self.request, rest].concat(), 0));
    }

    fn give_up(&mut self) {
        self.ready = Some((std::mem::take(&mut self.begun), 0));
    }

    /// Takes at most so many bytes; `None` while more has to come.
    pub(crate) fn take(&mut self, most: usize) -> Option<&[u8]> {
        let (bytes, taken) = self.ready.as_mut()?;
        let from = *taken;
        *taken += most.min(bytes.len() - from);
        Some(&bytes[from..*taken])
    }

    /// Was all of it taken?
    pub(crate) fn is_over(&self) -> bool {
        self.ready.as_ref().is_some_and(|(bytes, taken)| *taken == bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use heddle_wire::http1::{RequestHead, Scan};

    use super::*;

    fn joined(fields: &str) -> Option<Joined> {
        let raw = format!("GET /a?b HTTP/1.1\r\nHost: reviews\r\n{fields}\r\n");
        let mut head = RequestHead::new();
        assert_eq!(head.scan(raw.as_bytes()).unwrap(), Scan::Complete);
        offered(&head.view(raw.as_bytes()))
    }

    const OFFER: &str =
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";

    #[test]
    fn only_a_whole_offer_is_one() {
        assert!(joined(OFFER).is_some());
        assert!(joined("").is_none());
        assert!(joined(&OFFER.replace("AAMAAABk", "AAMAAAB")).is_none(), "cut settings");
        assert!(joined(&OFFER.replace("AAMAAABk", "AAMAAA*k")).is_none(), "no base64");
        assert!(joined(&OFFER.replace(", HTTP2-Settings", "")).is_none(), "not nominated");
        assert!(joined(&format!("{OFFER}HTTP2-Settings: AAMAAABk\r\n")).is_none(), "twice");
        assert!(joined(&format!("{OFFER}Content-Length: 1\r\n")).is_none(), "a body");
    }

    #[test]
    fn the_request_stands_behind_the_settings_however_the_beginning_is_cut() {
        let client = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0]), b"rest"].concat();
        for cut in 0..client.len() {
            let mut joined = joined(&format!("{OFFER}X-A: 1\r\n")).unwrap();
            joined.add(&client[..cut]);
            joined.add(&client[cut..]);
            let mut all = Vec::new();
            while !joined.is_over() {
                all.extend_from_slice(joined.take(7).unwrap());
            }
            let both = [0, 3, 0, 0, 0, 100, 0, 4, 0, 0, 1, 0];
            let begun = [PREFACE, &frame(SETTINGS, 0, 0, &both)].concat();
            let rest = all.strip_prefix(&begun[..]).unwrap();
            assert_eq!(rest[3..9], [HEADERS, WHOLE, 0, 0, 0, 1]);
            assert!(rest.ends_with(b"\0\x03x-a\x011rest"), "{rest:?}");
        }
    }

    #[test]
    fn what_is_no_beginning_goes_on_as_it_is() {
        let mut joined = joined(OFFER).unwrap();
        joined.add(b"PRI * HTTP/1");
        assert_eq!(joined.take(64).unwrap(), b"PRI * HTTP/1");
        assert!(joined.is_over());
    }

    #[test]
    fn numbers_are_written_as_hpack_has_them() {
        let written = |n| {
            let mut block = Vec::new();
            number(&mut block, n);
            block
        };
        assert_eq!(written(10), [10]);
        assert_eq!(written(127), [127, 0]);
        assert_eq!(written(1337 + 96), [127, 0x9a, 0x0a]);
    }
}
