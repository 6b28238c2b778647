//! A call as a line says it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::filter::{Ending, Name, Side};

/// A line of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TapLine {
    /// A call that is over.
    Call(Box<TappedCall>),
    /// So many calls that the filter asks for found no room since the last such line.
    Lost(Lost),
    /// Something to be known about the stream, for people.
    Notice(String),
}

/// Calls that found no room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// How many.
    pub calls: u64,
    /// The workload whose sidecar had no room; empty where readers had none.
    pub sidecar: String,
}

/// A request or a connection that is over, as one sidecar saw it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TappedCall {
    /// When it began, RFC 3339 with milliseconds.
    pub time: String,
    /// Whose sidecar tells of it: the caller's or the callee's.
    pub side: Side,
    /// Id of the workload that this sidecar is of.
    pub sidecar: String,
    /// Who called.
    pub from: Party,
    /// Who was called.
    pub to: Party,
    /// `HTTP/1.0`, `HTTP/1.1`, `HTTP/2` or `tcp`.
    pub protocol: String,
    /// Method; empty of a connection.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// The host that was asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub authority: String,
    /// Path and query as they came, secrets hidden; empty of a connection.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Status; 0 where nothing was answered.
    pub status: u16,
    /// Status of gRPC; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u32>,
    /// From its first byte to the last of its answer, milliseconds.
    pub duration_ms: f64,
    /// How often it was sent on after the first time.
    pub retries: u32,
    /// Envoy's response flags; `-` for none.
    pub flags: String,
    /// Bytes from the caller.
    pub received_bytes: u64,
    /// Bytes to the caller.
    pub sent_bytes: u64,
    /// The rule that decided where it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why the mesh refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refused>,
    /// Faults that were injected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// Fields of the request that were asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub request_headers: BTreeMap<String, String>,
    /// Fields of the answer that were asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub response_headers: BTreeMap<String, String>,
    /// `x-request-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Id of its trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Has the callee's sidecar, if it has one, seen it too, and the same answer?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seen_by_callee: bool,
}

/// One end of a call, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Party {
    /// Service: its full name, or a host outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Name of the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its namespace, or the service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its address, with the port where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl Party {
    /// Is it meant by this name?
    #[must_use]
    pub fn is(&self, name: &Name) -> bool {
        let own = [&self.service, &self.workload, &self.id].map(Option::as_deref);
        name.means(own, self.namespace.as_deref())
    }
}

/// Why the mesh refused a call.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Refused {
    /// The refusal's name.
    pub code: String,
    /// For people.
    pub reason: String,
}

/// A fault that was injected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fault {
    /// `delay`, `abort` or what a fault of a connection does.
    pub what: String,
    /// Its rule; `-` where none is known.
    pub rule: String,
}

impl TappedCall {
    /// Did it go wrong?
    #[must_use]
    pub fn failed(&self) -> bool {
        let ending = Ending {
            is_request: self.protocol != "tcp",
            status: self.status,
            grpc: self.grpc_status,
            refused: self.refusal.is_some(),
            reset: self.flags.split(',').any(|flag| ["UC", "UF", "DC"].contains(&flag)),
        };
        ending.failed()
    }
}
