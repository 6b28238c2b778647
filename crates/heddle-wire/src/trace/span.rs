//! A finished span, before it is written for somebody: what one sidecar saw of one request.

use std::{borrow::Cow, net::IpAddr, time::Duration};

use super::context::SpanContext;

/// Whose spans these are: the sidecar's workload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Called `service.name` or `serviceName` by receivers: `NAME.NAMESPACE`.
    pub service: String,
    /// Its own address.
    pub address: Option<IpAddr>,
    /// What else is known of it, by attribute.
    pub attributes: Vec<(&'static str, String)>,
}

/// Which end of a call is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Who calls.
    Client,
    /// Who is called.
    Server,
}

/// One end of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Where it is: its own id, and its parent's.
    pub context: SpanContext,
    /// Which end.
    pub kind: Kind,
    /// What was called, as Istio names it: `HOST:PORT/*`.
    pub name: String,
    /// When it began, since 1970.
    pub start: Duration,
    /// How long it took.
    pub duration: Duration,
    /// What is known of it, by tag.
    pub tags: Vec<(Cow<'static, str>, String)>,
    /// What happened on the way, and when, since 1970.
    pub events: Vec<(Duration, String)>,
    /// Did it fail, as Envoy sees it: refused, without an answer, or answered with 5xx?
    pub failed: bool,
}

impl Span {
    /// About how much memory it takes, bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let tags = self.tags.iter().map(|(name, value)| name.len() + value.len() + 48);
        let events = self.events.iter().map(|(_, what)| what.len() + 40);
        size_of::<Self>() + self.name.len() + tags.chain(events).sum::<usize>()
    }

    /// A tag's value.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str())
    }
}
