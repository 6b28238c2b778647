//! What a sample means: from Istio's metric names and labels to *where* (a [`Cell`]) and *what* (a
//! [`Dimension`]) was counted.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use heddle_model::ServiceName;

use crate::{exposition::Sample, limits};

mod dimension;
mod histogram;
mod said;

pub(crate) use dimension::{
    ANSWER, BYTES_TO_CALLEE, BYTES_TO_CALLER, CLOSED, CONNECTIONS_OPEN, COUNTED, Dimension,
    LATENCY_SUM, OPENED, OWN_CONNECTIONS_OPEN, OWN_REQUESTS_IN_FLIGHT, REFUSED, REQUESTS_IN_FLIGHT,
    UNREACHED, is_gauge,
};
pub(crate) use histogram::{BUCKETS_MAX, Histogram};
pub(crate) use said::{Said, cut};

/// Name of a caller or callee nobody knows.
pub(crate) const UNKNOWN: &str = "unknown";

/// Which side measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reporter {
    /// The caller's sidecar.
    Client,
    /// The callee's sidecar.
    Server,
}

/// Where something was counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Cell {
    pub(crate) reporter: Reporter,
    pub(crate) source: ServiceName,
    pub(crate) destination: ServiceName,
    /// Version of the callee; `unknown` where there is none.
    pub(crate) version: String,
    /// On the server's side the id of the workload that measured, else the callee's workload name.
    pub(crate) workload: String,
    pub(crate) protocol: Protocol,
    /// The labels as the sidecar has them; none where several places were folded together.
    pub(crate) said: Said,
}

/// What was spoken; the last five mark what is counted besides traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Http,
    Grpc,
    Tcp,
    /// Gauges of a workload.
    Saturation,
    /// Calls by the rule that decided about them, which stands for the version; they are in the traffic as well.
    Rule,
    /// Refusals of a workload's sidecar; their code stands for the version.
    Refusal,
    /// Another counter of a workload's sidecar; the metric's name stands for the version.
    Counter,
    /// Calls by the template of their path, which stands for the version; they are in the traffic as well.
    Path,
}

impl Protocol {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http
            | Self::Saturation
            | Self::Rule
            | Self::Refusal
            | Self::Counter
            | Self::Path => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }

    /// Is it counted by what was answered?
    pub(crate) fn is_of_answers(self) -> bool {
        matches!(self, Self::Http | Self::Grpc | Self::Rule | Self::Path)
    }

    /// Calls and connections, each counted once by each side.
    pub(crate) fn is_traffic(self) -> bool {
        matches!(self, Self::Http | Self::Grpc | Self::Tcp)
    }
}

/// A status code with its response flags.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Answer {
    /// Of a call of gRPC what its status came to in HTTP's terms.
    pub(crate) code: u16,
    pub(crate) flags: String,
    /// HTTP's own status.
    pub(crate) http: u16,
    /// The status of a call of gRPC.
    pub(crate) grpc: Option<u8>,
}

impl Answer {
    /// Made by an injected abort.
    pub(crate) fn injected(&self) -> bool {
        has_flag(&self.flags, "FI")
    }

    /// Held back by an injected delay.
    pub(crate) fn delayed(&self) -> bool {
        has_flag(&self.flags, "DI")
    }

    /// 5xx or no answer, and not on purpose.
    pub(crate) fn failed(&self) -> bool {
        !self.injected() && (self.code == 0 || self.code >= 500)
    }

    /// 4xx, and not on purpose.
    pub(crate) fn client_error(&self) -> bool {
        !self.injected() && (400..500).contains(&self.code)
    }
}

/// All kinds of answers seen, numbered from [`ANSWER`].
#[derive(Debug, Default)]
pub(crate) struct Answers {
    known: Vec<Answer>,
    numbers: HashMap<Answer, Dimension>,
}

impl Answers {
    /// The number of a kind of answer; once too many are known, new ones lose their flags.
    pub(crate) fn number(&mut self, code: u16, flags: &str) -> Dimension {
        self.number_of(Answer { code, flags: cut(flags).to_owned(), http: code, grpc: None })
    }

    /// The same of one that may be of gRPC.
    pub(crate) fn number_of(&mut self, mut answer: Answer) -> Dimension {
        if !self.numbers.contains_key(&answer) && self.known.len() >= limits::RESPONSES_MAX {
            // One per hundred at most, so this cannot grow without end either.
            let flags = if answer.injected() { "FI" } else { "-" };
            let code = (answer.code / 100).min(9) * 100;
            answer = Answer { code, flags: flags.to_owned(), http: code, grpc: None };
        }
        if let Some(&number) = self.numbers.get(&answer) {
            return number;
        }
        let number = Dimension::try_from(self.known.len()).unwrap_or(0).saturating_add(ANSWER);
        self.known.push(answer.clone());
        self.numbers.insert(answer, number);
        number
    }

    /// All of them, in the order of their numbers.
    pub(crate) fn all(&self) -> &[Answer] {
        &self.known
    }

    /// The answer with this number.
    pub(crate) fn get(&self, number: Dimension) -> Option<&Answer> {
        self.known.get(usize::from(number.checked_sub(ANSWER)?))
    }
}

/// All cells in use, so that equal ones are one.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    known: HashSet<Rc<Cell>>,
}

impl Cells {
    /// The shared form of a cell. Beyond [`limits::CELLS_MAX`] callers, versions and workloads are
    /// folded together.
    pub(crate) fn intern(&mut self, mut cell: Cell) -> Rc<Cell> {
        if let Some(known) = self.known.get(&cell) {
            return Rc::clone(known);
        }
        if self.known.len() >= limits::CELLS_MAX {
            self.forget_unused();
        }
        if self.known.len() >= limits::CELLS_MAX {
            cell.source = outside(UNKNOWN);
            UNKNOWN.clone_into(&mut cell.version);
            UNKNOWN.clone_into(&mut cell.workload);
            cell.said = Said::default();
            if self.known.len() >= 2 * limits::CELLS_MAX {
                cell.destination = outside(UNKNOWN);
            }
            if let Some(known) = self.known.get(&cell) {
                return Rc::clone(known);
            }
        }
        let cell = Rc::new(cell);
        self.known.insert(Rc::clone(&cell));
        cell
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Drops cells that neither a slot nor a followed counter names any more.
    pub(crate) fn forget_unused(&mut self) {
        self.known.retain(|cell| Rc::strong_count(cell) > 1);
    }
}

/// Whose sidecar a scrape came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) id: String,
    pub(crate) service: ServiceName,
    pub(crate) version: String,
}

/// What to do with a series' values.
#[derive(Debug, Clone)]
pub(crate) enum Meaning {
    /// Not for us.
    None,
    /// A counter whose increases belong there.
    Counter(Rc<Cell>, Dimension),
    /// A cumulative bucket of a histogram.
    Bucket(Rc<Cell>, Histogram, usize),
    /// A gauge of the workload.
    Gauge(Rc<Cell>, Dimension),
    /// When the sidecar's process started, Unix seconds: a change means that all counters began anew.
    Started,
}

/// Is this metric read at all? Asked before a line's labels are parsed.
pub(crate) fn is_read(name: &str) -> bool {
    matches!(
        name,
        "istio_requests_total"
            | "istio_request_duration_milliseconds_bucket"
            | "istio_request_duration_milliseconds_sum"
            | "istio_request_bytes_bucket"
            | "istio_request_bytes_sum"
            | "istio_response_bytes_bucket"
            | "istio_response_bytes_sum"
            | "istio_tcp_connections_opened_total"
            | "istio_tcp_connections_closed_total"
            | "istio_tcp_sent_bytes_total"
            | "istio_tcp_received_bytes_total"
            | "heddle_rule_requests_total"
            | "heddle_rule_request_duration_milliseconds_bucket"
            | "heddle_rule_request_duration_milliseconds_sum"
            | "heddle_path_requests_total"
            | "heddle_path_request_duration_milliseconds_bucket"
            | "heddle_path_request_duration_milliseconds_sum"
            | "heddle_refusals_total"
            | "heddle_faults_injected_total"
            | "heddle_retries_total"
            | "heddle_requests_in_flight"
            | "heddle_connections_open"
            | "process_start_time_seconds"
    )
}

/// What a sample of `owner`'s sidecar means.
pub(crate) fn meaning(
    sample: &Sample<'_>,
    owner: &Owner,
    cells: &mut Cells,
    answers: &mut Answers,
) -> Meaning {
    match sample.name {
        "process_start_time_seconds" => return Meaning::Started,
        "heddle_requests_in_flight" => {
            return gauge(sample, owner, cells, [REQUESTS_IN_FLIGHT, OWN_REQUESTS_IN_FLIGHT]);
        }
        "heddle_connections_open" => {
            return gauge(sample, owner, cells, [CONNECTIONS_OPEN, OWN_CONNECTIONS_OPEN]);
        }
        "heddle_refusals_total" => {
            return Meaning::Counter(cells.intern(refusal_cell(sample, owner)), REFUSED);
        }
        "heddle_faults_injected_total" | "heddle_retries_total" => {
            return Meaning::Counter(cells.intern(counter_cell(sample, owner)), COUNTED);
        }
        name if name.starts_with("heddle_rule_") || name.starts_with("heddle_path_") => {
            return of_rule(sample, owner, cells, answers);
        }
        _ => {}
    }
    let Some(cell) = traffic_cell(sample, owner) else { return Meaning::None };
    let flags = sample.label("response_flags");
    // An abort made here says nothing about how long the callee takes.
    let latency =
        if has_flag(flags, "FI") { Histogram::InjectedLatency } else { Histogram::Latency };
    let cell = cells.intern(cell);
    let bucket = |histogram: Histogram| match histogram.bucket(sample.label("le")) {
        Some(bucket) => Meaning::Bucket(Rc::clone(&cell), histogram, bucket),
        None => Meaning::None,
    };
    let counter = |dimension| Meaning::Counter(Rc::clone(&cell), dimension);
    match sample.name {
        "istio_requests_total" => counter(answers.number_of(answer(sample, flags))),
        "istio_request_duration_milliseconds_bucket" => bucket(latency),
        "istio_request_duration_milliseconds_sum" => counter(latency.sum()),
        "istio_request_bytes_bucket" => bucket(Histogram::RequestBytes),
        "istio_request_bytes_sum" => counter(Histogram::RequestBytes.sum()),
        "istio_response_bytes_bucket" => bucket(Histogram::ResponseBytes),
        "istio_response_bytes_sum" => counter(Histogram::ResponseBytes.sum()),
        "istio_tcp_connections_opened_total" => counter(OPENED),
        "istio_tcp_connections_closed_total" if unreached(flags) => counter(UNREACHED),
        "istio_tcp_connections_closed_total" => counter(CLOSED),
        // Istio's words are the proxy's: it *sends* to the client and *receives* from it.
        "istio_tcp_sent_bytes_total" => counter(BYTES_TO_CALLER),
        "istio_tcp_received_bytes_total" => counter(BYTES_TO_CALLEE),
        _ => Meaning::None,
    }
}

/// What a call was answered with.
fn answer(sample: &Sample<'_>, flags: &str) -> Answer {
    let http = status_code(sample.label("response_code"));
    let status = sample.label("grpc_response_status");
    Answer {
        code: grpc_as_http(status).unwrap_or(http),
        flags: cut(if flags.is_empty() { "-" } else { flags }).to_owned(),
        http,
        grpc: status.parse().ok(),
    }
}

/// `inbound` is what the workload is asked, which is its saturation; the other is what it asks itself.
fn gauge(
    sample: &Sample<'_>,
    owner: &Owner,
    cells: &mut Cells,
    [inbound, outbound]: [Dimension; 2],
) -> Meaning {
    let dimension = match sample.label("direction") {
        "inbound" => inbound,
        "outbound" => outbound,
        // Without a direction it could be either.
        _ => return Meaning::None,
    };
    let cell = Cell {
        reporter: Reporter::Server,
        source: outside(UNKNOWN),
        destination: owner.service.clone(),
        version: owner.version.clone(),
        workload: owner.id.clone(),
        protocol: Protocol::Saturation,
        said: Said::default(),
    };
    Meaning::Gauge(cells.intern(cell), dimension)
}

fn counter_cell(sample: &Sample<'_>, owner: &Owner) -> Cell {
    Cell {
        version: sample.name.to_owned(),
        protocol: Protocol::Counter,
        said: Said::of(sample),
        ..refusal_cell(sample, owner)
    }
}

fn refusal_cell(sample: &Sample<'_>, owner: &Owner) -> Cell {
    let outbound = sample.label("direction") == "outbound";
    Cell {
        reporter: if outbound { Reporter::Client } else { Reporter::Server },
        source: owner.service.clone(),
        destination: owner.service.clone(),
        version: cut(sample.label("code")).to_owned(),
        workload: owner.id.clone(),
        protocol: Protocol::Refusal,
        said: Said::default(),
    }
}

/// What a rule decided, as the caller's sidecar counts it; and what a path was asked for, as the callee's does.
fn of_rule(
    sample: &Sample<'_>,
    owner: &Owner,
    cells: &mut Cells,
    answers: &mut Answers,
) -> Meaning {
    // A rule is the caller's sidecar's to tell of, and a path the callee's.
    let (protocol, reporter, label) = match sample.name.starts_with("heddle_path_") {
        true => (Protocol::Path, Reporter::Server, "path"),
        false => (Protocol::Rule, Reporter::Client, "rule"),
    };
    let source = match protocol {
        Protocol::Path => outside(UNKNOWN),
        _ => owner.service.clone(),
    };
    let cell = cells.intern(Cell {
        reporter,
        source,
        destination: destination_service(sample, reporter, owner),
        version: cut(sample.label(label)).to_owned(),
        workload: String::new(),
        protocol,
        said: Said::default(),
    });
    match sample.name {
        "heddle_rule_requests_total" | "heddle_path_requests_total" => {
            let code = status_code(sample.label("response_code"));
            Meaning::Counter(cell, answers.number(code, sample.label("response_flags")))
        }
        name if name.ends_with("_sum") => Meaning::Counter(cell, LATENCY_SUM),
        _ => match Histogram::Latency.bucket(sample.label("le")) {
            Some(bucket) => Meaning::Bucket(cell, Histogram::Latency, bucket),
            None => Meaning::None,
        },
    }
}

fn traffic_cell(sample: &Sample<'_>, owner: &Owner) -> Option<Cell> {
    let protocol = match sample.label("request_protocol") {
        "grpc" => Protocol::Grpc,
        "tcp" => Protocol::Tcp,
        _ if sample.name.starts_with("istio_tcp_") => Protocol::Tcp,
        _ => Protocol::Http,
    };
    let version = match cut(sample.label("destination_version")) {
        "" => UNKNOWN,
        version => version,
    };
    let (reporter, source, workload) = match sample.label("reporter") {
        "source" => {
            let workload = cut(sample.label("destination_workload")).to_owned();
            (Reporter::Client, owner.service.clone(), workload)
        }
        "destination" => (Reporter::Server, source_service(sample), owner.id.clone()),
        _ => return None,
    };
    let destination = destination_service(sample, reporter, owner);
    let version = version.to_owned();
    let said = match protocol {
        Protocol::Tcp => Said::of(sample),
        _ => Said::of_calls(sample),
    };
    Some(Cell { reporter, source, destination, version, workload, protocol, said })
}

/// A status code, or the class `5xx` that an overflow series keeps of it as its first code; 0 for what
/// is neither, as for no answer.
fn status_code(text: &str) -> u16 {
    let class = text.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok());
    let class = class.filter(|class| *class <= 9).map(|class| class * 100);
    class.or_else(|| text.parse().ok()).unwrap_or(0)
}

/// What a call of gRPC came to in HTTP's terms, by its `grpc_response_status`: its own status is 200 even
/// where the call failed. The mapping is that of `google.rpc.Code`. `None` without a status.
#[must_use]
pub fn grpc_as_http(text: &str) -> Option<u16> {
    const HTTP: [u16; 17] =
        [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
    let status: usize = text.parse().ok()?;
    Some(HTTP.get(status).copied().unwrap_or(500))
}

/// The calling service as the server's sidecar names it.
fn source_service(sample: &Sample<'_>) -> ServiceName {
    let name = ["source_canonical_service", "source_app", "source_workload"]
        .into_iter()
        .map(|label| cut(sample.label(label)))
        .find(|value| !value.is_empty() && *value != UNKNOWN);
    let namespace = cut(sample.label("source_workload_namespace"));
    match name {
        Some(name) if !namespace.is_empty() && namespace != UNKNOWN => {
            ServiceName { namespace: namespace.to_owned(), name: name.to_owned() }
        }
        Some(name) => outside(name),
        None => outside(UNKNOWN),
    }
}

fn destination_service(sample: &Sample<'_>, reporter: Reporter, owner: &Owner) -> ServiceName {
    let host = cut(sample.label("destination_service"));
    if let Some(service) = in_mesh(host) {
        return service;
    }
    if !host.is_empty() && host != UNKNOWN {
        // A host that a ServiceEntry names is a service of the entry's namespace.
        let namespace = cut(sample.label("destination_service_namespace"));
        let entry = ServiceName::of_host(host, namespace).ok().filter(|_| namespace != UNKNOWN);
        return entry.unwrap_or_else(|| outside(host));
    }
    let name = cut(sample.label("destination_service_name"));
    match reporter {
        Reporter::Server => owner.service.clone(),
        Reporter::Client if name.is_empty() => outside(UNKNOWN),
        Reporter::Client => outside(name),
    }
}

/// A service of the mesh by its fully qualified name; anything shorter is a host of the outside.
pub(crate) fn in_mesh(host: &str) -> Option<ServiceName> {
    let short = host.strip_suffix(heddle_model::name::service_suffix())?.strip_suffix('.')?;
    let (name, namespace) = short.split_once('.')?;
    ServiceName::new(name, namespace).ok()
}

/// The name of something outside the mesh.
pub(crate) fn outside(name: &str) -> ServiceName {
    ServiceName { namespace: String::new(), name: name.to_owned() }
}

/// Flags with which a TCP connection never reached an endpoint.
fn unreached(flags: &str) -> bool {
    ["UF", "UH", "UO", "NR", "NC", "URX", "DF"].into_iter().any(|flag| has_flag(flags, flag))
}

fn has_flag(flags: &str, wanted: &str) -> bool {
    flags.split(',').any(|flag| flag == wanted)
}
