//! What a connection is told that is no HTTP where rules for HTTP hold: nothing goes past a rule
//! because the rule cannot read it. Whether it is one, `protocol` decides; what can be read as far as
//! a first line, the codec refuses with its own words.

use crate::{refusal::Refusal, verdict::Verdict};

/// Why the log says so, and where an operator can look.
pub(crate) const ADVICE: &str = "rules for HTTP hold on this port, so what is no HTTP is refused; \
    if it is meant to pass, declare the port's protocol (tcp, tls) or give it a TCP rule";

/// A fatal `access_denied` (RFC 8446 §6).
const TLS_ALERT: [u8; 7] = [0x15, 3, 1, 0, 2, 2, 49];

/// What it is instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// TLS: nobody can look into it.
    Tls,
    /// The server spoke first, as no server of HTTP does.
    ServerFirst,
}

impl Foreign {
    pub(crate) fn verdict(self) -> Verdict {
        match self {
            Self::Tls => Verdict::Tls,
            Self::ServerFirst => Verdict::Tcp,
        }
    }

    pub(crate) fn refusal(self) -> Refusal {
        let what = match self {
            Self::Tls => "TLS, where rules for HTTP hold",
            Self::ServerFirst => "the server spoke first, where rules for HTTP hold",
        };
        Refusal::BadRequest(what.into())
    }

    /// The last that the client hears, in its own language; what has none is reset.
    pub(crate) fn farewell(self) -> Vec<u8> {
        match self {
            Self::Tls => TLS_ALERT.to_vec(),
            Self::ServerFirst => Vec::new(),
        }
    }
}
