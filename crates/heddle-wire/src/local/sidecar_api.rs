//! What a person may ask of one sidecar: HTTP/1 with JSON bodies on its admin port, 127.0.0.1:15000 of its workload, and
//! on a machine's own mesh also on the path socket [`ADMIN_SOCKET`] in the workload's folder.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST /explain` | [`ExplainRequest`], at most [`EXPLAIN_BYTES_MAX`] | [`Explanation`] |
//! | `GET /refusals` | – | [`Refusals`]: what this sidecar refused lately |
//!
//! A refusal is a 4xx with a text that says why.

use heddle_model::{ServiceName, WorkloadId};
use serde::{Deserialize, Serialize};

/// Name of the path socket in a workload's folder.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// Largest [`ExplainRequest`], bytes.
pub const EXPLAIN_BYTES_MAX: usize = 64 << 10;
/// Rules of one port that are told as tried; more are counted.
pub const TRIED_MAX: usize = 32;
/// Endpoints of one target that are told; more are counted.
pub const ENDPOINTS_MAX: usize = 256;

/// A call that somebody thinks of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExplainRequest {
    /// Whom the program names: a service, a host outside or an address.
    pub host: String,
    /// Port that it connects to.
    pub port: u16,
    /// Method; `None`: what is usual there.
    #[serde(default)]
    pub method: Option<String>,
    /// Path with its query.
    #[serde(default)]
    pub path: Option<String>,
    /// Fields, in order. `host` is the authority.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The name that a client of TLS asks for; then it is no request but a connection of TLS.
    #[serde(default)]
    pub sni: Option<String>,
}

/// What a sidecar would do with a call, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whose sidecar says so.
    pub workload: WorkloadId,
    /// The newest generation of the rules that it has.
    pub generation: u64,
    /// Does it hear of the control plane? If not, what it has may be old.
    pub connected: bool,
    /// Are states of endpoints those of a live sidecar? If not, nobody knows who is out for errors.
    pub live: bool,
    /// What host and port mean to it.
    pub callee: Callee,
    /// `http`, `tls` or `tcp`: as what the call is taken.
    pub taken_as: String,
    /// The request as rules see it; `None` where there is none.
    pub request: Option<AskedRequest>,
    /// Rules before the one that decides, in order, each with why it does not.
    pub tried: Vec<TriedRule>,
    /// How many more there are.
    pub untold: usize,
    /// The rule that decides; `None`: none does.
    pub rule: Option<MetRule>,
    /// What is injected on purpose, at this sidecar.
    pub faults: Vec<InjectedFault>,
    /// `forwarded`, `answered` (by the rule itself) or `refused`.
    pub outcome: String,
    /// What a rule answers.
    pub answer: Option<OwnReply>,
    /// What the mesh answers instead, if that is certain.
    pub refusal: Option<ToldRefusal>,
    /// What goes on in place of what came.
    pub changes: Vec<String>,
    /// What answers are given on their way back.
    pub answer_changes: Vec<String>,
    /// Who is sent copies.
    pub mirrors: Vec<ToldMirror>,
    /// Most milliseconds from the end of the request to the end of its answer.
    pub timeout_ms: Option<f64>,
    /// What is sent again, in words.
    pub retries: Option<String>,
    /// Where it may go, with shares.
    pub targets: Vec<ToldTarget>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

impl Explanation {
    /// Of the sidecar of `workload`, which has nothing to say yet.
    #[must_use]
    pub fn by(workload: WorkloadId, generation: u64) -> Self {
        Self {
            workload,
            generation,
            connected: true,
            live: true,
            callee: Callee::default(),
            taken_as: String::new(),
            request: None,
            tried: Vec::new(),
            untold: 0,
            rule: None,
            faults: Vec::new(),
            outcome: String::new(),
            answer: None,
            refusal: None,
            changes: Vec::new(),
            answer_changes: Vec::new(),
            mirrors: Vec::new(),
            timeout_ms: None,
            retries: None,
            targets: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// What host and port mean to a workload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Callee {
    /// `service`, `workload` (its own address), `outside` or `nothing`.
    pub kind: String,
    /// In words.
    pub name: String,
    /// The service.
    pub service: Option<ServiceName>,
    /// Port that is called.
    pub port: u16,
    /// Name of the port; may be empty.
    pub port_name: String,
    /// What it is declared to speak; empty where nothing is declared.
    pub protocol: String,
    /// The address that stands for it.
    pub address: Option<String>,
}

/// The request as rules see it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AskedRequest {
    /// Method.
    pub method: String,
    /// Path with its query.
    pub path: String,
    /// Host.
    pub authority: String,
    /// Fields, those of secrets without their values.
    pub headers: Vec<(String, String)>,
}

/// A rule that does not decide.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TriedRule {
    /// `kind/namespace/name#rule`.
    pub rule: String,
    /// For each of its alternatives the first condition that is not met.
    pub because: Vec<String>,
}

/// The rule that decides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MetRule {
    /// `kind/namespace/name#rule`.
    pub rule: String,
    /// Its alternatives, each with its conditions; none: it is for all.
    pub matches: Vec<Vec<String>>,
}

/// Something that is injected on purpose.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct InjectedFault {
    /// By which rule.
    pub rule: String,
    /// What, in words.
    pub what: String,
    /// Into so many of a hundred.
    pub percent: f64,
    /// When it ends by itself, Unix time in seconds.
    pub until: Option<u64>,
}

/// What a rule answers by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnReply {
    /// Status.
    pub status: u16,
    /// Fields.
    pub headers: Vec<(String, String)>,
    /// Bytes of its body.
    pub body_bytes: usize,
}

/// What the mesh answers instead of passing a call on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ToldRefusal {
    /// As in `x-heddle-refusal`.
    pub code: String,
    /// HTTP status.
    pub status: u16,
    /// Status of gRPC.
    pub grpc_status: u8,
    /// Envoy's response flag.
    pub flag: String,
    /// What happens, and what to do.
    pub text: String,
    /// By which rule, if by one.
    pub rule: Option<String>,
}

/// Who is sent copies.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ToldMirror {
    /// In words.
    pub to: String,
    /// Of so many of a hundred requests.
    pub percent: f64,
    /// Endpoints that take them.
    pub endpoints: usize,
}

/// Where a share of the calls goes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ToldTarget {
    /// The service; `None` of something else.
    pub service: Option<ServiceName>,
    /// In words.
    pub name: String,
    /// Subset.
    pub subset: Option<String>,
    /// Labels that its endpoints carry.
    pub labels: Vec<String>,
    /// Port of the service.
    pub port: u16,
    /// Percent of the calls.
    pub share: f64,
    /// Why that share is refused, if it is.
    pub refusal: Option<ToldRefusal>,
    /// The DestinationRule whose policy holds.
    pub policy: Option<String>,
    /// How one endpoint is chosen.
    pub balancing: String,
    /// The TLS that is begun, if any.
    pub tls: Option<String>,
    /// When an endpoint is taken out for errors.
    pub ejection: Option<String>,
    /// What is limited.
    pub limits: Vec<ToldLimit>,
    /// What is changed for this target only.
    pub changes: Vec<String>,
    /// Who takes them.
    pub endpoints: Vec<ToldEndpoint>,
    /// How many more there are.
    pub untold: usize,
}

/// A limit of a DestinationRule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ToldLimit {
    /// The field that sets it.
    pub field: String,
    /// Most.
    pub most: u32,
    /// How many there are now; `None` where nobody counts.
    pub now: Option<u32>,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ToldEndpoint {
    /// Who it is.
    pub workload: String,
    /// Its version; may be empty.
    pub version: String,
    /// Where it is.
    pub address: String,
    /// Weight among the others.
    pub weight: u32,
    /// `region/zone/subzone`; may be empty.
    pub locality: String,
    /// `in use`, `ejected`, `spare` (others are nearer) or `not ready`.
    pub state: String,
    /// Since when it is out, and why.
    pub ejected: Option<ToldEjection>,
}

/// Why an endpoint is out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ToldEjection {
    /// `consecutive5xxErrors`, …
    pub reason: String,
    /// The rule that asks for it.
    pub rule: String,
    /// Since when, Unix time in seconds.
    pub since: u64,
    /// When it is tried again, Unix time in seconds.
    pub until: u64,
}

/// What a sidecar refused lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// Whose sidecar.
    pub workload: WorkloadId,
    /// Since when it remembers: Unix time in seconds of its start.
    pub since: u64,
    /// How many it has forgotten, because newer ones took their place.
    pub forgotten: u64,
    /// The oldest first.
    pub refusals: Vec<Refused>,
}

/// One refused request, or connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Refused {
    /// Its `x-request-id`.
    pub id: String,
    /// When, Unix time in milliseconds.
    pub at_ms: u64,
    /// `outbound`: by the caller's sidecar; `inbound`: by that of the one called.
    pub direction: String,
    /// The service that was called, or the host outside.
    pub service: String,
    /// Who called, where that is known.
    pub peer: Option<String>,
    /// Method.
    pub method: String,
    /// Host that the request named.
    pub authority: String,
    /// Path with its query, values of secrets left out.
    pub path: String,
    /// HTTP status of the answer; 0 for a connection.
    pub status: u16,
    /// Status of gRPC, of calls of gRPC.
    pub grpc_status: Option<u8>,
    /// Envoy's response flag.
    pub flag: String,
    /// As in `x-heddle-refusal`.
    pub code: String,
    /// The rule it follows from.
    pub rule: Option<String>,
    /// What happened.
    pub text: String,
}

impl Refused {
    /// Was it a connection, refused before any request of it was read? Nobody was told its id.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        self.status == 0
    }

    /// The status of the answer; empty where there was none.
    #[must_use]
    pub fn status_text(&self) -> String {
        if self.is_connection() { String::new() } else { self.status.to_string() }
    }
}

/// The rules of one port of a service, for callers of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PortRules {
    /// Its number; 0 stands for every port.
    pub port: u16,
    /// In the order in which they are tried.
    pub rules: Vec<RuleInForce>,
}

/// A rule that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RuleInForce {
    /// `kind/namespace/name#rule`.
    pub rule: String,
    /// Its alternatives, each with its conditions; none: it is for all.
    pub matches: Vec<Vec<String>>,
    /// What it does, in words.
    pub does: Vec<String>,
}
