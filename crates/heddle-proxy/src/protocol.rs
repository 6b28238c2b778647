//! What a connection speaks: as declared, else by the first bytes of either side. No timer decides;
//! time only decides when to dial, and when to stop waiting for a client that says nothing.
//!
//! Where rules for HTTP hold, everything is HTTP: what cannot be told from it goes to the codec, which
//! refuses what it cannot read, and what can is [`Foreign`]. Nothing is relayed past a rule.

use std::{future::Future, io, pin::Pin, time::Instant};

use crate::{
    buffers::{Buffer, Lent, read_input},
    dial::Early,
    foreign::Foreign,
    limits::{
        CLIENT_HELLO_TIMEOUT, EARLY_DIAL_SILENCE, HEAD_READ_TIMEOUT, OUTBOUND_IDLE_TIMEOUT,
        REFUSAL_GRACE,
    },
    refusal::{Refusal, Refused},
    streams::HttpVersion,
    verdict::{Reason, Verdict},
};
use heddle_model::Protocol;
use heddle_runtime::{clock, transport::Transport};
use heddle_wire::{
    client_hello::{Hello, HelloReader},
    detect::{Detected, Detector},
};

/// When to dial on an undeclared port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EarlyDial {
    /// At once: the server may speak first.
    Now,
    /// When the client has been silent for a while: this port has answered HTTP before.
    AfterSilence,
    /// Not before the protocol is known: declared HTTP.
    Never,
}

/// What the name in a ClientHello is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HelloUse {
    /// For nothing: TLS is bytes.
    Nothing,
    /// It tells who is called, where the address does not.
    Names,
    /// Rules decide by it.
    Rules,
}

/// What is known before the first byte.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PortHints {
    pub(crate) declared: Protocol,
    pub(crate) dial: EarlyDial,
    /// Do rules for HTTP, and none for TCP, apply here? Then nothing but HTTP may pass.
    pub(crate) http_rules: bool,
    pub(crate) hello: HelloUse,
}

impl PortHints {
    /// `speaks_http`: this port has completed an HTTP response before.
    pub(crate) fn of(declared: Protocol, speaks_http: bool, http_rules: bool) -> Self {
        let dial = match declared {
            Protocol::Undeclared if speaks_http => EarlyDial::AfterSilence,
            Protocol::Undeclared => EarlyDial::Now,
            _ => EarlyDial::Never,
        };
        Self { declared, dial, http_rules, hello: HelloUse::Nothing }
    }

    /// The same where a ClientHello is of use. Where rules decide by it, whoever is dialled before it is
    /// there is as likely the wrong one.
    pub(crate) fn with_hello(self, hello: HelloUse) -> Self {
        let waits = matches!(self.declared, Protocol::Undeclared | Protocol::Tls);
        let dial =
            if hello == HelloUse::Rules && waits { EarlyDial::AfterSilence } else { self.dial };
        Self { hello, dial, ..self }
    }
}

/// The beginning of a first request, read before it was known to be one.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) bytes: Lent<Buffer>,
    /// When its first byte came: from then on the time for the head runs.
    pub(crate) since: Instant,
}

/// What a connection turned out to be.
#[derive(Debug)]
pub(crate) enum Decided {
    /// HTTP/1; `early` may be of use to the first request.
    Http { reason: Reason, held: Option<Beginning>, early: Option<Early> },
    /// HTTP/2; the same holds.
    Http2 { reason: Reason, held: Option<Beginning>, early: Option<Early> },
    /// TLS that goes where the name in its ClientHello says. `early` was dialled without knowing that.
    Tls {
        name: Option<String>,
        reason: Reason,
        held: Option<Lent<Buffer>>,
        early: Option<Result<Early, Refused>>,
    },
    /// To be relayed; a connection to relay to, or why there is none.
    Relay {
        verdict: Verdict,
        reason: Reason,
        held: Option<Lent<Buffer>>,
        to: Result<Early, Refused>,
    },
    /// A request head that did not come in time, where rules for HTTP forbid to relay it.
    HeadTimeout,
    /// No HTTP/1, where rules for HTTP forbid to relay it.
    Foreign(Foreign, Reason),
    /// Nobody to connect to, and the client said nothing that could be answered: reset, as without a
    /// mesh.
    Unserved(Refused),
    /// The client is gone, or was idle for too long.
    Gone,
}

/// Waits for the first bytes of either side and decides. `dial` connects where TCP rules say.
pub(crate) async fn decide(
    client: &mut Transport,
    hints: PortHints,
    mut dial: Pin<&mut impl Future<Output = Result<Early, Refused>>>,
) -> Decided {
    if let Some(verdict) = opaque(hints) {
        return Decided::Relay { verdict, reason: Reason::Declared, held: None, to: dial.await };
    }
    let mut wait = Wait::new(hints);
    let (mut held, mut early) = (None, None);
    let event = loop {
        let step = tokio::select! {
            biased;
            read = read_input(client, &mut held) => wait.client_bytes(read, held.as_ref()),
            result = dial.as_mut(), if wait.dialling && early.is_none() => {
                wait.dialled(&result);
                early = Some(result);
                None
            }
            spoke = server_speaks(early.as_ref()) => match wait.server_spoke(spoke) {
                // What it closed is no connection; the client's first request opens another one. A
                // reset is told once: whoever reads next sees an end.
                event @ (None | Some(Event::Unserved)) => {
                    early = Some(Err(Refusal::UpstreamReset.into()));
                    event
                }
                event => event,
            },
            () = clock::sleep_until(wait.deadline()) => wait.deadline_passed(),
        };
        if let Some(event) = step {
            break event;
        }
    };
    match (event, early) {
        (Event::Gone, _) => Decided::Gone,
        (Event::HeadTimeout, _) => Decided::HeadTimeout,
        (Event::Foreign(foreign, reason), _) => Decided::Foreign(foreign, reason),
        (Event::Http(version, reason), early) => {
            let begin = |(bytes, since)| Beginning { bytes, since };
            let held = held.zip(wait.first_byte).map(begin);
            let early = early.and_then(Result::ok);
            match version {
                HttpVersion::Http1 => Decided::Http { reason, held, early },
                HttpVersion::Http2 => Decided::Http2 { reason, held, early },
            }
        }
        (Event::Tls(reason), early) => Decided::Tls { name: wait.name.take(), reason, held, early },
        (Event::Unserved, Some(Err(refused))) => Decided::Unserved(refused),
        (Event::Unserved, _) => Decided::Gone,
        (Event::Relay(verdict, reason), Some(to)) => Decided::Relay { verdict, reason, held, to },
        (Event::Relay(verdict, reason), None) => {
            Decided::Relay { verdict, reason, held, to: dial.await }
        }
    }
}

/// What a connection is that nobody looks into, because its port was declared so.
fn opaque(hints: PortHints) -> Option<Verdict> {
    match hints.declared {
        Protocol::Tls if hints.hello != HelloUse::Nothing => None,
        Protocol::Tls => Some(Verdict::Tls),
        Protocol::Tcp => Some(Verdict::Tcp),
        Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::Undeclared => None,
    }
}

/// What ends the waiting.
#[derive(Debug, Clone, Copy)]
enum Event {
    Http(HttpVersion, Reason),
    Relay(Verdict, Reason),
    Tls(Reason),
    HeadTimeout,
    Foreign(Foreign, Reason),
    Unserved,
    Gone,
}

/// State of the waiting.
struct Wait {
    hints: PortHints,
    begun: Instant,
    first_byte: Option<Instant>,
    detector: Detector,
    hello: HelloReader,
    /// It speaks TLS, and its ClientHello is waited for.
    in_hello: bool,
    /// What that asks for.
    name: Option<String>,
    dialling: bool,
    dial_failed: Option<Instant>,
}

impl Wait {
    fn new(hints: PortHints) -> Self {
        Self {
            hints,
            begun: clock::now(),
            first_byte: None,
            detector: Detector::new(),
            hello: HelloReader::default(),
            in_hello: false,
            name: None,
            dialling: hints.dial == EarlyDial::Now,
            dial_failed: None,
        }
    }

    /// The client sent something or closed; `None` while that decides nothing.
    fn client_bytes(
        &mut self,
        read: io::Result<usize>,
        held: Option<&Lent<Buffer>>,
    ) -> Option<Event> {
        match read {
            Ok(0) if self.in_hello => Some(Event::Tls(Reason::ClientClosed)),
            // Nothing to answer, and nothing to relay on a port that speaks HTTP.
            Ok(0) if self.is_http() => Some(Event::Gone),
            Ok(0) => Some(Event::Relay(Verdict::Tcp, Reason::ClientClosed)),
            Ok(_) => {
                self.first_byte.get_or_insert_with(clock::now);
                self.look(held.map_or(&[], |held| held.filled()))
            }
            Err(_) => Some(Event::Gone),
        }
    }

    /// May nothing but HTTP be here, so that the codec refuses what is none?
    fn is_http(&self) -> bool {
        let declared =
            matches!(self.hints.declared, Protocol::Http | Protocol::Http2 | Protocol::Grpc);
        self.hints.http_rules || declared
    }

    fn look(&mut self, bytes: &[u8]) -> Option<Event> {
        let http = |version| {
            let declared = match self.hints.declared {
                Protocol::Http => Some(HttpVersion::Http1),
                Protocol::Http2 | Protocol::Grpc => Some(HttpVersion::Http2),
                _ => None,
            };
            let as_declared = declared == Some(version);
            Event::Http(version, if as_declared { Reason::Declared } else { Reason::ClientBytes })
        };
        let relay = |verdict| Event::Relay(verdict, Reason::ClientBytes);
        let foreign = |what| Event::Foreign(what, Reason::ClientBytes);
        Some(match self.detector.look(bytes) {
            Detected::NeedMore => return None,
            Detected::Tls if self.hints.hello != HelloUse::Nothing => {
                return self.read_hello(bytes);
            }
            // What is none of it where it was declared passes as it would without rules.
            _ if self.hints.declared == Protocol::Tls => {
                Event::Relay(Verdict::Tls, Reason::Declared)
            }
            Detected::Http2Preface => http(HttpVersion::Http2),
            Detected::Http1 => http(HttpVersion::Http1),
            // The codec refuses what it cannot read.
            Detected::Tcp if self.is_http() => http(HttpVersion::Http1),
            Detected::Tls if self.hints.http_rules => foreign(Foreign::Tls),
            Detected::Tls => relay(Verdict::Tls),
            Detected::Tcp => relay(Verdict::Tcp),
        })
    }

    fn read_hello(&mut self, bytes: &[u8]) -> Option<Event> {
        self.in_hello = true;
        match self.hello.look(bytes) {
            Hello::NeedMore => return None,
            Hello::Named(name) => self.name = Some(name),
            Hello::Nameless => {}
        }
        let declared = self.hints.declared == Protocol::Tls;
        Some(Event::Tls(if declared { Reason::Declared } else { Reason::ClientBytes }))
    }

    /// The server spoke first; `None` where that decides nothing.
    fn server_spoke(&self, spoke: Spoke) -> Option<Event> {
        match spoke {
            Spoke::Settings => Some(Event::Http(HttpVersion::Http2, Reason::ServerFirst)),
            Spoke::Reset if !self.hints.http_rules => Some(Event::Unserved),
            _ if !self.hints.http_rules => Some(Event::Relay(Verdict::Tcp, Reason::ServerFirst)),
            // One that waited in vain for a request closes.
            Spoke::Closed | Spoke::Reset => None,
            Spoke::Bytes => Some(Event::Foreign(Foreign::ServerFirst, Reason::ServerFirst)),
        }
    }

    fn dialled(&mut self, result: &Result<Early, Refused>) {
        // Rules may send requests elsewhere, where somebody answers.
        let elsewhere = self.hints.http_rules || self.hints.hello == HelloUse::Rules;
        if result.is_err() && !elsewhere {
            self.dial_failed = Some(clock::now());
        }
    }

    /// The next moment at which waiting longer makes no sense, or dialling does.
    fn deadline(&self) -> Instant {
        match (self.first_byte, self.dial_failed) {
            (first_byte, Some(failed)) => first_byte.unwrap_or(failed).max(failed) + REFUSAL_GRACE,
            (Some(first_byte), None) if self.in_hello => first_byte + CLIENT_HELLO_TIMEOUT,
            (Some(first_byte), None) => first_byte + HEAD_READ_TIMEOUT,
            (None, None) if self.hints.dial == EarlyDial::AfterSilence && !self.dialling => {
                self.begun + EARLY_DIAL_SILENCE
            }
            (None, None) => self.begun + OUTBOUND_IDLE_TIMEOUT,
        }
    }

    fn deadline_passed(&mut self) -> Option<Event> {
        match (self.first_byte, self.dial_failed) {
            (_, Some(_)) => Some(Event::Unserved),
            (Some(_), None) if self.in_hello => Some(Event::Tls(Reason::HeadLimit)),
            (Some(_), None) if self.is_http() => Some(Event::HeadTimeout),
            (Some(_), None) => Some(Event::Relay(Verdict::Undecided, Reason::HeadLimit)),
            (None, None) if self.hints.dial == EarlyDial::AfterSilence && !self.dialling => {
                self.dialling = true;
                None
            }
            // A server that speaks first may take its time; a client of HTTP may not for ever.
            (None, None)
                if matches!(self.hints.declared, Protocol::Undeclared | Protocol::Tls)
                    && self.dialling =>
            {
                self.begun = clock::now();
                None
            }
            (None, None) => Some(Event::Gone),
        }
    }
}

/// What a server did that was asked nothing yet.
#[derive(Debug, Clone, Copy)]
enum Spoke {
    /// What a server of HTTP/2 begins with, and nothing else is likely to.
    Settings,
    Bytes,
    Closed,
    Reset,
}

async fn server_speaks(early: Option<&Result<Early, Refused>>) -> Spoke {
    match early {
        Some(Ok(early)) => {
            let mut first = [0; FRAME_HEAD_BYTES];
            match early.transport.peek_at(&mut first).await {
                Ok(0) => Spoke::Closed,
                Ok(_) if is_settings(first) => Spoke::Settings,
                Ok(_) => Spoke::Bytes,
                Err(_) => Spoke::Reset,
            }
        }
        _ => std::future::pending().await,
    }
}

/// Bytes of a frame's head (RFC 9113 §4.1).
const FRAME_HEAD_BYTES: usize = 9;

/// Is this the head of the SETTINGS that a server of HTTP/2 begins with, as some do before they have read
/// a byte? All nine bytes of it are fixed but one, and that one is a small multiple of a setting's length.
fn is_settings(first: [u8; FRAME_HEAD_BYTES]) -> bool {
    const SETTINGS: u8 = 4;
    const SETTING_BYTES: u8 = 6;
    let [0, 0, length, SETTINGS, 0, 0, 0, 0, 0] = first else { return false };
    length % SETTING_BYTES == 0
}
