//! What an HTTP rule does with requests besides choosing where they go: answer them, change them and
//! their answers, bound and repeat them, copy them.
//!
//! Every field may be missing. A sidecar one version older skips [`Traffic`] whole and does what it
//! did with such a rule before: it carried out the rest. Where that would be another rule than the one
//! written (an own answer), the rule's action refuses in words for those, and the field here goes first
//! for everybody else.

use std::{collections::BTreeMap, time::Duration};

use minicbor::{Decode, Encode};

use super::parts::{StringMatch, Target};
use crate::wire::closed;

/// What happens to requests of a rule on the way.
#[derive(Debug, Clone, Default, Decode, Encode, PartialEq)]
#[cbor(map)]
pub struct Traffic {
    /// They are answered without an upstream. Goes before the rule's action.
    #[n(1)]
    pub answer: Option<Answer>,
    /// Path and authority that go on in place of those that came.
    #[n(2)]
    pub rewrite: Option<Rewrite>,
    /// Fields of requests and responses, behind those of the target.
    #[n(3)]
    pub headers: Option<HeaderRules>,
    /// From the end of a request to the end of its response; `None`: no limit.
    #[n(4)]
    pub timeout: Option<Duration>,
    /// What is repeated; `None`: what a sidecar repeats by itself.
    #[n(5)]
    pub retries: Option<Retries>,
    /// Which scripts of other origins may read answers.
    #[n(6)]
    pub cors: Option<CorsPolicy>,
    /// Who else is sent a copy.
    #[cbor(n(7), default)]
    pub mirrors: Vec<Mirror>,
    /// Status of a share that goes to something absent; `None`: 503, as in Istio. The Gateway API asks for
    /// 500.
    #[n(50)]
    pub absent_status: Option<u16>,
}

/// What a request is answered without an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is sent elsewhere.
    Redirect(Redirect),
    /// It is given this.
    Direct(DirectResponse),
}

closed!(Answer { 1 => Redirect(redirect), 2 => Direct(response) });

/// Where a client is sent. What is `None` is as in the request.
#[derive(Debug, Clone, Default, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct Redirect {
    /// The path.
    #[n(1)]
    pub path: Option<RedirectPath>,
    /// Host, with its port if that is to be named.
    #[n(2)]
    pub authority: Option<String>,
    /// Port in place of the request's.
    #[n(3)]
    pub port: Option<u16>,
    /// Scheme.
    #[n(4)]
    pub scheme: Option<String>,
    /// Status, 300 to 399.
    #[cbor(n(5), default)]
    pub status: u16,
    /// The port of the request is not kept: without a `port` it is the one that the scheme implies.
    #[cbor(n(50), default)]
    pub drops_port: bool,
}

/// The path of a redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPath {
    /// This one. The request's query follows unless it has one of its own.
    Whole(String),
    /// The request's, with this in place of what the rule's condition matched.
    Prefix(String),
}

closed!(RedirectPath { 1 => Whole(path), 2 => Prefix(text) });

/// An answer as written.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct DirectResponse {
    /// Status, 200 to 599.
    #[n(1)]
    pub status: u16,
    /// Body.
    #[cbor(n(2), with = "minicbor::bytes", default)]
    pub body: Vec<u8>,
}

/// What goes on in place of what came.
#[derive(Debug, Clone, Default, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct Rewrite {
    /// The path, without the query.
    #[n(1)]
    pub path: Option<PathRewrite>,
    /// The authority.
    #[n(2)]
    pub authority: Option<String>,
}

/// How a path is rewritten. The query stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// This in place of what the rule's condition matched: a prefix, or the whole path.
    Prefix(String),
    /// Every match of a regular expression.
    Regex(RegexRewrite),
}

closed!(PathRewrite { 1 => Prefix(text), 2 => Regex(rewrite) });

/// A regular expression and what to put in the place of its matches.
#[derive(Debug, Clone, Default, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct RegexRewrite {
    /// RE2 syntax; found anywhere.
    #[cbor(n(1), default)]
    pub pattern: String,
    /// Text with `\1` for a group and `\\` for a backslash.
    #[cbor(n(2), default)]
    pub substitution: String,
}

/// Changes to fields, of one place where a rule has them.
#[derive(Debug, Clone, Default, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct HeaderRules {
    /// Of requests.
    #[cbor(n(1), default)]
    pub request: HeaderOperations,
    /// Of responses.
    #[cbor(n(2), default)]
    pub response: HeaderOperations,
    /// The authority of requests, unless the rule's `rewrite` has one.
    #[n(3)]
    pub authority: Option<String>,
}

/// Changes to fields; names in lower case. First what is removed, then what is set, then what is
/// added.
#[derive(Debug, Clone, Default, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct HeaderOperations {
    /// Fields that go.
    #[cbor(n(1), default)]
    pub remove: Vec<String>,
    /// Fields that have this value and no other.
    #[cbor(n(2), default)]
    pub set: BTreeMap<String, String>,
    /// Fields that have this value besides.
    #[cbor(n(3), default)]
    pub add: BTreeMap<String, String>,
}

impl HeaderOperations {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.remove.len() + self.set.len() + self.add.len()
    }
}

/// When a request is sent again because its rule says so.
#[derive(Debug, Clone, Default, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct Retries {
    /// Most further attempts; 0: none.
    #[cbor(n(1), default)]
    pub attempts: u32,
    /// From the end of a request to the head of its response, of one attempt.
    #[n(2)]
    pub per_try_timeout: Option<Duration>,
    /// Envoy's names of conditions. One that a sidecar does not know asks for nothing.
    #[cbor(n(3), default)]
    pub conditions: Vec<String>,
    /// Statuses that are repeated.
    #[cbor(n(4), default)]
    pub statuses: Vec<u16>,
    /// Waiting time before the first further attempt, as an upper bound; it doubles from then on.
    #[n(5)]
    pub backoff: Option<Duration>,
    /// May a further attempt go where one has failed while there are others?
    #[cbor(n(6), default)]
    pub same_endpoint: bool,
    /// Requests of every method may be repeated: the rule's author says so.
    #[cbor(n(7), default)]
    pub any_method: bool,
    /// A further attempt goes to another locality, if there is one (`retryRemoteLocalities`).
    #[cbor(n(70), default)]
    pub other_localities: bool,
}

/// Which scripts of other origins may read answers (Fetch standard), and what a sidecar answers the
/// preflights of browsers.
#[derive(Debug, Clone, Default, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct CorsPolicy {
    /// Origins that may; `*` is all.
    #[cbor(n(1), default)]
    pub origins: Vec<StringMatch>,
    /// `access-control-allow-methods`; `*` repeats what is asked for.
    #[cbor(n(2), default)]
    pub methods: String,
    /// `access-control-allow-headers`; `*` repeats what is asked for.
    #[cbor(n(3), default)]
    pub headers: String,
    /// `access-control-expose-headers`.
    #[cbor(n(4), default)]
    pub expose: String,
    /// `access-control-max-age`, seconds.
    #[n(5)]
    pub max_age: Option<u64>,
    /// `access-control-allow-credentials`.
    #[cbor(n(6), default)]
    pub credentials: bool,
    /// Are preflights of other origins answered here too (without leave), and not passed on?
    #[cbor(n(7), default)]
    pub keeps_unmatched: bool,
}

/// Who is sent copies of a share of requests.
#[derive(Debug, Clone, Decode, Encode, PartialEq)]
#[cbor(map)]
pub struct Mirror {
    /// Where they go.
    #[n(1)]
    pub to: Target,
    /// Share in percent, 0 to 100.
    #[cbor(n(2), default)]
    pub percent: f64,
    /// What of their answers is compared with those that clients get.
    #[cbor(n(80), default)]
    pub compare: MirrorCompare,
}

/// What of a copy's answer is compared with that of the request it was made of.
#[derive(Debug, Clone, Copy, Default, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct MirrorCompare {
    /// Statuses.
    #[cbor(n(1), default)]
    pub status: bool,
    /// Time to the head of the answer.
    #[cbor(n(2), default)]
    pub latency: bool,
    /// Bodies, by a hash.
    #[cbor(n(3), default)]
    pub body: bool,
}

impl MirrorCompare {
    /// Is anything compared?
    #[must_use]
    pub const fn any(self) -> bool {
        self.status || self.latency || self.body
    }
}
