//! One line of an access log, as Envoy would write it: a text, or a JSON object on one line. Whatever a client
//! sent stays within its place: in a text, what could end a line or a quoted part is escaped; in JSON, as JSON
//! does.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use heddle_model::{
    discovery::GRPC_STATUSES,
    timestamp::civil,
    yaml::log_format::{Command, Header, Piece, Plain, TimePart},
};
use heddle_runtime::clock;
use heddle_wire::trace::otlp_logs::Record;
use serde_json::{Map, Value};

use crate::{
    facts::Facts,
    metrics::Grpc,
    refusal::Flag,
    snapshot::{LinePlan, LogPlan},
};

/// The line, with its end.
pub(crate) fn line(plan: &LinePlan, facts: &Facts, host: &str) -> String {
    let made = Made { facts, host };
    let mut line = match plan {
        LinePlan::Text(pieces) => {
            let mut line = String::with_capacity(512);
            pieces.iter().for_each(|piece| made.write(piece, &mut line));
            line
        }
        LinePlan::Json(fields) => {
            let of = |(name, pieces): &(String, Vec<Piece>)| (name.clone(), made.json(pieces));
            Value::Object(fields.iter().map(of).collect::<Map<_, _>>()).to_string()
        }
    };
    line.push('\n');
    line
}

/// What stands for what is not known.
const ABSENT: &str = "-";

/// What a collector is told of it: the body is the line, without its end; attributes are not escaped, for they
/// stand alone.
pub(crate) fn record(plan: &LogPlan, facts: &Facts, host: &str) -> Record {
    let made = Made { facts, host };
    let mut body = line(&plan.line, facts, host);
    body.truncate(body.trim_end_matches('\n').len());
    let attribute = |(name, pieces): &(String, Vec<Piece>)| (name.clone(), made.text(pieces));
    Record {
        at: facts.started,
        observed: clock::unix_now(),
        body,
        attributes: plan.attributes.iter().map(attribute).collect(),
        span: facts.trace.map(|ids| (ids.trace, ids.span)),
    }
}

struct Made<'a> {
    facts: &'a Facts,
    host: &'a str,
}

impl Made<'_> {
    fn write(&self, piece: &Piece, line: &mut String) {
        match piece {
            Piece::Text(text) => line.push_str(text),
            Piece::Command(command, most) => match self.value(command) {
                Value::Null => line.push_str(ABSENT),
                Value::String(text) => escape(cut(&text, *most), line),
                other => line.push_str(&other.to_string()),
            },
        }
    }

    /// A single operator keeps its sort; what stands among others is text.
    fn json(&self, pieces: &[Piece]) -> Value {
        if let [Piece::Command(command, most)] = pieces {
            return match self.value(command) {
                Value::String(text) => Value::String(cut(&text, *most).to_owned()),
                other => other,
            };
        }
        Value::String(self.text(pieces))
    }

    fn text(&self, pieces: &[Piece]) -> String {
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Command(command, most) => match self.value(command) {
                    Value::Null => text.push_str(ABSENT),
                    Value::String(value) => text.push_str(cut(&value, *most)),
                    other => text.push_str(&other.to_string()),
                },
            }
        }
        text
    }

    fn value(&self, command: &Command) -> Value {
        match command {
            Command::StartTime(parts) => moment(parts, self.facts.started).into(),
            Command::Request(header) => either(header, |name| self.request(name)),
            Command::Response(header) => either(header, |name| self.response(name)),
            Command::Environment(name) => std::env::var(name).ok().into(),
            Command::Plain(plain) => self.plain(*plain),
        }
    }

    fn request(&self, name: &str) -> Option<String> {
        let request = self.facts.request.as_ref()?;
        Some(match name {
            ":method" => request.method.clone(),
            ":authority" => Some(&request.authority).filter(|text| !text.is_empty())?.clone(),
            ":scheme" => request.scheme.clone(),
            ":path" => self.path(),
            // The path that came, where another was sent on.
            "x-envoy-original-path" if request.sent_path.is_some() => request.target.clone(),
            _ => self.facts.request_field(name)?.to_owned(),
        })
    }

    /// The path that was sent on, with its query.
    fn path(&self) -> String {
        let Some(request) = &self.facts.request else { return String::new() };
        let query = request.target.split_once('?').map(|(_, query)| query);
        match (&request.sent_path, query) {
            (None, _) => request.target.clone(),
            (Some(path), Some(query)) if !path.contains('?') => format!("{path}?{query}"),
            (Some(path), _) => path.clone(),
        }
    }

    fn response(&self, name: &str) -> Option<String> {
        match (name, self.facts.response_field(name)) {
            (_, Some(value)) => Some(value.to_owned()),
            ("x-envoy-upstream-service-time", None) => {
                self.facts.service_ms().map(|millis| millis.to_string())
            }
            (":status", None) => Some(self.facts.finish.status.to_string()),
            (_, None) => None,
        }
    }

    fn plain(&self, plain: Plain) -> Value {
        let facts = self.facts;
        let remote = facts.ends.remote;
        let text = |text: &Option<String>| text.clone().into();
        match plain {
            Plain::Protocol => facts.request.as_ref().map(|one| one.protocol).into(),
            Plain::ResponseCode => facts.finish.status.into(),
            Plain::ResponseFlags => facts.finish.flags.to_string().into(),
            Plain::ResponseCodeDetails => details(facts).into(),
            Plain::ConnectionTerminationDetails => {
                is_connection(facts).then_some(facts.answer.details).flatten().into()
            }
            Plain::UpstreamTransportFailureReason => text(&facts.upstream.failure),
            Plain::BytesReceived => facts.finish.received.into(),
            Plain::BytesSent => facts.finish.sent.into(),
            Plain::Duration => millis(Some(facts.finish.duration)),
            Plain::ResponseDuration => millis(facts.answer.after),
            Plain::UpstreamHost | Plain::UpstreamRemoteAddress => text(&facts.upstream.address),
            Plain::UpstreamCluster | Plain::UpstreamClusterRaw => text(&facts.upstream.cluster),
            Plain::UpstreamLocalAddress => shown(facts.upstream.local),
            Plain::DownstreamLocalAddress => shown(Some(facts.ends.called)),
            Plain::DownstreamLocalAddressWithoutPort => facts.ends.called.ip().to_string().into(),
            Plain::DownstreamLocalPort => facts.ends.called.port().into(),
            Plain::DownstreamRemoteAddress | Plain::DownstreamDirectRemoteAddress => shown(remote),
            Plain::DownstreamRemoteAddressWithoutPort
            | Plain::DownstreamDirectRemoteAddressWithoutPort => {
                remote.map(|at| at.ip().to_string()).into()
            }
            Plain::RequestedServerName => text(&facts.server_name),
            Plain::RouteName => text(&facts.rule),
            Plain::UpstreamRequestAttemptCount => facts.upstream.attempts.into(),
            Plain::GrpcStatus => grpc(facts.finish.grpc).map(grpc_name).into(),
            Plain::GrpcStatusNumber => grpc(facts.finish.grpc).into(),
            Plain::Hostname => self.host.into(),
            Plain::TraceId => facts.trace.as_ref().map(|ids| ids.trace.to_string()).into(),
        }
    }
}

/// Was it a connection that carried no requests? One without a readable head was answered as one.
fn is_connection(facts: &Facts) -> bool {
    facts.request.is_none() && facts.finish.status == 0
}

/// Who answered, or that the client did not wait for it.
fn details(facts: &Facts) -> Option<&'static str> {
    if is_connection(facts) {
        return None;
    }
    let left = facts.finish.flags.has(Flag::DC).then_some("downstream_remote_disconnect");
    left.or(facts.answer.details)
}

fn grpc(grpc: Grpc) -> Option<u8> {
    match grpc {
        Grpc::Status(status) => Some(status),
        Grpc::No | Grpc::Unanswered => None,
    }
}

/// As Envoy writes it: `DeadlineExceeded`.
fn grpc_name(status: u8) -> String {
    let Some(name) = GRPC_STATUSES.get(usize::from(status)) else { return status.to_string() };
    match *name {
        "OK" => "OK".to_owned(),
        // It leaves out an `l` there.
        "CANCELLED" => "Canceled".to_owned(),
        name => name.split('_').fold(String::new(), |mut camel, word| {
            let (first, rest) = word.split_at(1);
            camel.push_str(first);
            camel.push_str(&rest.to_ascii_lowercase());
            camel
        }),
    }
}

fn millis(time: Option<Duration>) -> Value {
    time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).into()
}

/// An address whose port is not known is written without.
fn shown(at: Option<SocketAddr>) -> Value {
    at.map(|at| if at.port() == 0 { at.ip().to_string() } else { at.to_string() }).into()
}

fn either(header: &Header, value: impl Fn(&str) -> Option<String>) -> Value {
    value(&header.name).or_else(|| value(header.or.as_ref()?)).into()
}

fn cut(text: &str, most: Option<usize>) -> &str {
    let Some(most) = most else { return text };
    text.char_indices().nth(most).map_or(text, |(at, _)| &text[..at])
}

/// What could end a line or a quoted part, or is no character that is seen, does not stand as it is.
fn escape(text: &str, line: &mut String) {
    for one in text.chars() {
        match one {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            one if one.is_control() || is_invisible(one) => {
                let _ = write!(line, "\\u{{{:x}}}", u32::from(one));
            }
            one => line.push(one),
        }
    }
}

/// Ends of lines that are no control characters, and what turns the direction of writing.
fn is_invisible(one: char) -> bool {
    matches!(one, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn moment(parts: &[TimePart], since_epoch: Duration) -> String {
    let (year, month, day, of_day) = civil(since_epoch.as_secs());
    let mut text = String::with_capacity(32);
    for part in parts {
        // Writing to a string cannot fail.
        let _ = match part {
            TimePart::Text(plain) => write!(text, "{plain}"),
            TimePart::Year => write!(text, "{year:04}"),
            TimePart::Month => write!(text, "{month:02}"),
            TimePart::Day => write!(text, "{day:02}"),
            TimePart::Hour => write!(text, "{:02}", of_day / 3_600),
            TimePart::Minute => write!(text, "{:02}", of_day / 60 % 60),
            TimePart::Second => write!(text, "{:02}", of_day % 60),
            TimePart::Epoch => write!(text, "{}", since_epoch.as_secs()),
            TimePart::Fraction(digits) => {
                let nanos = format!("{:09}", since_epoch.subsec_nanos());
                write!(text, "{}", &nanos[..*digits.min(&9)])
            }
        };
    }
    text
}

#[cfg(test)]
mod tests;
