//! A message by its parts, whatever its version on the wire: a head, and [`Frames`], which are pieces of
//! its body, trailers, or a reset in the middle of it. Whatever does not go from HTTP/1 to HTTP/1 as the
//! bytes it is goes by these: what comes from or goes to HTTP/2, and replies of the mesh's own.
//!
//! Here is what both directions have in common. HTTP/1 is taken apart by `frames/http1.rs`, and put
//! together for its clients by `frames/respond.rs`; HTTP/2 is `http2`'s. What is asked to become no HTTP is
//! `frames/tunnel.rs`'s.

pub(crate) mod http1;
pub(crate) mod respond;
pub(crate) mod tunnel;

use std::{
    cell::OnceCell,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::Reason;
use heddle_logic::{HeaderEdit, route::RequestView};
use http::{HeaderMap, HeaderName, HeaderValue, header, request};

/// A response's head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// None of those that delimit the body or name a hop.
    pub(crate) fields: HeaderMap,
    /// Bytes of the body, where they are known.
    pub(crate) length: Option<u64>,
}

/// What follows a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A piece of the body.
    Data(Bytes),
    /// Fields behind the body; nothing follows them.
    Trailers(HeaderMap),
}

impl Frame {
    /// Bytes that it takes while it waits: a small piece costs more than what is in it.
    pub(crate) fn weight(&self) -> usize {
        let content = match self {
            Self::Data(data) => data.len(),
            Self::Trailers(fields) => bytes_of(fields) as usize,
        };
        content + size_of::<Self>()
    }
}

/// The sender gave up, with HTTP/2's word for why: what came so far is not the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reset(pub(crate) Reason);

/// A body that comes in frames.
pub(crate) trait Frames {
    /// The next frame; `None` behind the last.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, Reset>>>;

    /// Is it known already that nothing more comes?
    fn is_over(&self) -> bool;

    /// Waits until whoever sends them is gone, where that shows in another way than by their end.
    async fn gone(&mut self) {
        std::future::pending().await
    }
}

/// A request's head, as rules and labels see it.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    head: &'a request::Parts,
    authority: OnceCell<&'a str>,
}

impl<'a> Seen<'a> {
    pub(crate) fn of(head: &'a request::Parts) -> Self {
        Self { head, authority: OnceCell::new() }
    }
}

impl RequestView for Seen<'_> {
    fn method(&self) -> &str {
        tunnel::Becomes::by(self.head).method(self.head)
    }

    fn target(&self) -> &str {
        self.head.uri.path_and_query().map_or("/", |target| target.as_str())
    }

    fn path(&self) -> &[u8] {
        self.head.uri.path().as_bytes()
    }

    fn authority(&self) -> &str {
        self.authority.get_or_init(|| {
            let host = || self.head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
            let named = self.head.uri.authority().map(|authority| authority.as_str());
            named.or_else(host).unwrap_or_default()
        })
    }

    fn scheme(&self) -> &str {
        self.head.uri.scheme_str().unwrap_or("http")
    }

    fn any_header(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        let mut lines = self.head.headers.get_all(name).iter();
        lines.any(|value| test(&String::from_utf8_lossy(value.as_bytes())))
    }
}

/// Takes away what belongs to one hop (RFC 9110 §7.6.1), and what Connection nominates: none of it has a
/// place in HTTP/2 (RFC 9113 §8.2.2). `te: trailers` is everybody's.
pub(crate) fn strip_hop_by_hop(fields: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = fields
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != header::TE)
        .collect();
    for name in nominated {
        fields.remove(name);
    }
    const OF_A_HOP: [HeaderName; 3] =
        [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];
    for name in OF_A_HOP {
        fields.remove(name);
    }
    fields.remove("keep-alive");
    fields.remove("proxy-connection");
    let trailers = fields.get_all(header::TE).iter().any(|value| {
        let accepted = value.to_str().unwrap_or_default().split(',');
        accepted.into_iter().any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
    });
    fields.remove(header::TE);
    if trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Takes out of trailers what belongs to one hop, and what a recipient that merged them into the head would
/// frame, route or authenticate the message by (RFC 9110 §6.5.1).
pub(crate) fn clean_trailers(fields: &mut HeaderMap) {
    const OF_THE_HEAD: [HeaderName; 10] = [
        header::AUTHORIZATION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::HOST,
        header::SET_COOKIE,
        header::TE,
        header::TRAILER,
    ];
    strip_hop_by_hop(fields);
    for name in OF_THE_HEAD {
        fields.remove(name);
    }
}

/// Carries out what a rule changes.
pub(crate) fn apply(fields: &mut HeaderMap, edits: &[HeaderEdit]) {
    for edit in edits {
        let Ok(name) = edit.name().parse::<HeaderName>() else { continue };
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).ok();
        match edit {
            HeaderEdit::Remove(_) => drop(fields.remove(name)),
            HeaderEdit::Set(_, text) => {
                if let Some(value) = value(text) {
                    fields.insert(name, value);
                }
            }
            HeaderEdit::Add(_, text) => {
                if let Some(value) = value(text) {
                    fields.append(name, value);
                }
            }
        }
    }
}

/// About how many bytes fields are on the wire: what they are as lines of HTTP/1.
pub(crate) fn bytes_of(fields: &HeaderMap) -> u64 {
    fields.iter().map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64).sum()
}
