//! Metrics by the names that sidecars give them, and where the store has each.

use std::{borrow::Cow, sync::Arc};

use crate::{
    measure::{
        BYTES_TO_CALLEE, BYTES_TO_CALLER, CLOSED, CONNECTIONS_OPEN, COUNTED, Cell, Dimension,
        Histogram, OPENED, OWN_CONNECTIONS_OPEN, OWN_REQUESTS_IN_FLIGHT, Protocol, REFUSED,
        REQUESTS_IN_FLIGHT, Reporter, UNREACHED,
    },
    promql::labels::Label,
};

/// A metric.
#[derive(Debug)]
pub(super) struct Family {
    /// Without what a histogram's parts have behind it.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    /// Which places have it.
    pub(super) of: &'static [Protocol],
    pub(super) what: What,
}

/// What of a place a metric is.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// One counter for each kind of answer.
    Answers,
    /// A histogram; of calls with an injected abort there may be another.
    Histogram(Histogram, Option<Histogram>),
    /// These dimensions added up.
    Counter(&'static [Dimension]),
    /// The inbound gauge and the outbound one.
    Gauge([Dimension; 2]),
}

const CALLS: &[Protocol] = &[Protocol::Http, Protocol::Grpc];
const TCP: &[Protocol] = &[Protocol::Tcp];

/// All of them.
pub(super) const FAMILIES: [Family; 17] = [
    Family {
        name: "istio_requests_total",
        help: "Finished HTTP requests.",
        of: CALLS,
        what: What::Answers,
    },
    Family {
        name: "istio_request_duration_milliseconds",
        help: "From a request's first byte to its response's last, ms.",
        of: CALLS,
        what: What::Histogram(Histogram::Latency, Some(Histogram::InjectedLatency)),
    },
    Family {
        name: "istio_request_bytes",
        help: "Bytes of a request as the client sent it.",
        of: CALLS,
        what: What::Histogram(Histogram::RequestBytes, None),
    },
    Family {
        name: "istio_response_bytes",
        help: "Bytes of a response as the client got it.",
        of: CALLS,
        what: What::Histogram(Histogram::ResponseBytes, None),
    },
    Family {
        name: "istio_tcp_connections_opened_total",
        help: "Connections opened.",
        of: TCP,
        what: What::Counter(&[OPENED]),
    },
    Family {
        name: "istio_tcp_connections_closed_total",
        help: "Connections closed.",
        of: TCP,
        what: What::Counter(&[CLOSED, UNREACHED]),
    },
    Family {
        name: "istio_tcp_sent_bytes_total",
        help: "Bytes sent to clients.",
        of: TCP,
        what: What::Counter(&[BYTES_TO_CALLER]),
    },
    Family {
        name: "istio_tcp_received_bytes_total",
        help: "Bytes received from clients.",
        of: TCP,
        what: What::Counter(&[BYTES_TO_CALLEE]),
    },
    Family {
        name: "heddle_rule_requests_total",
        help: "Requests by the rule that decided about them.",
        of: &[Protocol::Rule],
        what: What::Answers,
    },
    Family {
        name: "heddle_rule_request_duration_milliseconds",
        help: "How long they took, aborts left out, ms.",
        of: &[Protocol::Rule],
        what: What::Histogram(Histogram::Latency, None),
    },
    Family {
        name: "heddle_path_requests_total",
        help: "Requests by the template of their path, as the workloads behind it count them.",
        of: &[Protocol::Path],
        what: What::Answers,
    },
    Family {
        name: "heddle_path_request_duration_milliseconds",
        help: "How long they took, aborts left out, ms.",
        of: &[Protocol::Path],
        what: What::Histogram(Histogram::Latency, None),
    },
    Family {
        name: "heddle_refusals_total",
        help: "Replies and resets of the mesh itself.",
        of: &[Protocol::Refusal],
        what: What::Counter(&[REFUSED]),
    },
    Family {
        name: "heddle_faults_injected_total",
        help: "Faults by sort.",
        of: &[Protocol::Counter],
        what: What::Counter(&[COUNTED]),
    },
    Family {
        name: "heddle_retries_total",
        help: "Requests sent again, by reason.",
        of: &[Protocol::Counter],
        what: What::Counter(&[COUNTED]),
    },
    Family {
        name: "heddle_requests_in_flight",
        help: "Requests begun and not finished, on average over a slot.",
        of: &[Protocol::Saturation],
        what: What::Gauge([REQUESTS_IN_FLIGHT, OWN_REQUESTS_IN_FLIGHT]),
    },
    Family {
        name: "heddle_connections_open",
        help: "Open downstream connections, on average over a slot.",
        of: &[Protocol::Saturation],
        what: What::Gauge([CONNECTIONS_OPEN, OWN_CONNECTIONS_OPEN]),
    },
];

/// Endpoints that are out now: what sidecars tell of the present has no history.
pub(super) const EJECTED: &str = "heddle_endpoint_ejected";
pub(super) const EJECTED_HELP: &str = "1 for each endpoint that is out for its errors now.";

impl Family {
    /// As Prometheus calls its type.
    pub(super) fn kind(&self) -> &'static str {
        match self.what {
            What::Answers | What::Counter(_) => "counter",
            What::Histogram(..) => "histogram",
            What::Gauge(_) => "gauge",
        }
    }

    /// Names of its series.
    pub(super) fn series(&self) -> Vec<String> {
        match self.what {
            What::Histogram(..) => {
                ["_bucket", "_sum", "_count"].map(|part| format!("{}{part}", self.name)).into()
            }
            _ => vec![self.name.to_owned()],
        }
    }

    /// Has this place it?
    pub(super) fn is_of(&self, cell: &Cell) -> bool {
        self.of.contains(&cell.protocol)
            && (cell.protocol != Protocol::Counter || cell.version == self.name)
    }
}

/// A label.
pub(super) fn label(name: &'static str, value: &str) -> Label {
    (Cow::Borrowed(name), Arc::from(value))
}

/// Labels of a place, but for those by which it has several series.
pub(super) fn labels(cell: &Cell) -> Vec<Label> {
    let namespace = &cell.destination.namespace;
    let mut labels: Vec<Label> = cell.said.iter().map(|(name, value)| label(name, value)).collect();
    match cell.protocol {
        Protocol::Http | Protocol::Grpc | Protocol::Tcp if cell.said.is_empty() => {
            labels.extend(derived(cell));
        }
        Protocol::Http | Protocol::Grpc | Protocol::Tcp => {}
        Protocol::Rule | Protocol::Path => {
            let by = if cell.protocol == Protocol::Rule { "rule" } else { "path" };
            labels.push(label("destination_service", &host(cell)));
            labels.push(label(by, &cell.version));
        }
        Protocol::Refusal => {
            let outbound = cell.reporter == Reporter::Client;
            labels.push(label("code", &cell.version));
            labels.push(label("direction", if outbound { "outbound" } else { "inbound" }));
        }
        Protocol::Saturation | Protocol::Counter => {}
    }
    if matches!(cell.protocol, Protocol::Refusal | Protocol::Saturation | Protocol::Counter) {
        // As the targets have them that Prometheus is told of.
        labels.push(label("instance", &cell.workload));
        labels.push(label("namespace", namespace));
        labels.push(label("service", &cell.destination.name));
    }
    labels
}

fn host(cell: &Cell) -> String {
    match cell.destination.namespace.is_empty() {
        true => cell.destination.name.clone(),
        false => cell.destination.fqdn(),
    }
}

/// Labels of a place that an earlier version stored, or into which several were folded: as far as it is known.
fn derived(cell: &Cell) -> Vec<Label> {
    let reporter = match cell.reporter {
        Reporter::Client => "source",
        Reporter::Server => "destination",
    };
    vec![
        label("reporter", reporter),
        label("request_protocol", cell.protocol.as_str()),
        label("source_canonical_service", &cell.source.name),
        label("source_workload_namespace", &cell.source.namespace),
        label("destination_service", &host(cell)),
        label("destination_service_name", &cell.destination.name),
        label("destination_service_namespace", &cell.destination.namespace),
        label("destination_version", &cell.version),
    ]
}
