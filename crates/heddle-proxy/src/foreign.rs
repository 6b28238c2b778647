//! What a connection is told that is no HTTP/1 where rules for HTTP hold: nothing goes past a rule
//! because the rule cannot read it. Whether it is one, `protocol` decides; what can be read as far as
//! a first line, the codec refuses with its own words.

use crate::{refusal::Refusal, verdict::Verdict};

/// Why the log says so, and where an operator can look.
pub(crate) const ADVICE: &str = "rules for HTTP hold on this port, so what is no HTTP/1 is refused; \
    if it is meant to pass, declare the port's protocol (tcp, tls, http2, grpc) or give it a TCP rule";

/// SETTINGS without a setting, which has to come first; then GOAWAY for no stream at all with
/// HTTP_1_1_REQUIRED (RFC 9113 §6.5, §6.8, §7): the words follow.
const SETTINGS_AND_GOAWAY: [u8; 9 + 9 + 8] = [
    0, 0, 0, 4, 0, 0, 0, 0, 0, //
    0, 0, 0, 7, 0, 0, 0, 0, 0, //
    0, 0, 0, 0, 0, 0, 0, 0x0d,
];
/// Where the low byte of GOAWAY's length stands.
const GOAWAY_LENGTH: usize = 9 + 2;
/// What GOAWAY carries before its words.
const GOAWAY_BYTES: u8 = 8;
/// The words of GOAWAY.
const GOAWAY_WORDS: &[u8] = b"heddle: rules for HTTP/1 hold on this port";
/// A fatal `access_denied` (RFC 8446 §6).
const TLS_ALERT: [u8; 7] = [0x15, 3, 1, 0, 2, 2, 49];

/// What it is instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// HTTP/2 without an upgrade.
    Http2,
    /// TLS: nobody can look into it.
    Tls,
    /// The server spoke first, as no server of HTTP does.
    ServerFirst,
}

impl Foreign {
    pub(crate) fn verdict(self) -> Verdict {
        match self {
            Self::Http2 => Verdict::Http2,
            Self::Tls => Verdict::Tls,
            Self::ServerFirst => Verdict::Tcp,
        }
    }

    pub(crate) fn refusal(self) -> Refusal {
        let what = match self {
            Self::Http2 => return Refusal::BadVersion,
            Self::Tls => "TLS, where rules for HTTP hold",
            Self::ServerFirst => "the server spoke first, where rules for HTTP hold",
        };
        Refusal::BadRequest(what.into())
    }

    /// The last that the client hears, in its own language; what has none is reset.
    pub(crate) fn farewell(self) -> Vec<u8> {
        match self {
            Self::Http2 => {
                let mut frames = [&SETTINGS_AND_GOAWAY, GOAWAY_WORDS].concat();
                // A short constant: far below the 255 that the byte can say.
                frames[GOAWAY_LENGTH] = GOAWAY_BYTES + GOAWAY_WORDS.len() as u8;
                frames
            }
            Self::Tls => TLS_ALERT.to_vec(),
            Self::ServerFirst => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_are_as_long_as_they_say() {
        let frames = Foreign::Http2.farewell();
        let (settings, goaway) = frames.split_at(9);
        assert_eq!(settings, [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(usize::from(goaway[2]), goaway.len() - 9);
        assert!(goaway.ends_with(GOAWAY_WORDS));
    }
}
