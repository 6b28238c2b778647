//! One line of an access log, as Envoy would write it: a text, or a JSON object on one line. Whatever a client
//! sent stays within its place: in a text, what could end a line or a quoted part is escaped; in JSON, as JSON
//! does.

use std::{
    borrow::Cow,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use heddle_model::{
    discovery::GRPC_STATUSES,
    timestamp::civil,
    yaml::log_format::{Command, Header, Piece, Plain, TimePart},
};
use heddle_runtime::clock;
use heddle_wire::trace::otlp_logs::Record;
use serde_json::{Map, Value};

use crate::{
    facts::{Facts, Place},
    metrics::Grpc,
    refusal::{Flag, Flags},
    snapshot::{LinePlan, LogPlan},
};

/// Adds the line, with its end, to `text`.
pub(crate) fn write(plan: &LinePlan, facts: &Facts, host: &str, text: &mut String) {
    let made = Made { facts, host };
    match plan {
        LinePlan::Text(pieces) => pieces.iter().for_each(|piece| made.write(piece, text)),
        LinePlan::Json(fields) => {
            let of = |(name, pieces): &(String, Vec<Piece>)| (name.clone(), made.json(pieces));
            let fields = Value::Object(fields.iter().map(of).collect::<Map<_, _>>());
            // Writing to a string cannot fail.
            let _ = write!(text, "{fields}");
        }
    }
    text.push('\n');
}

/// What stands for what is not known.
const ABSENT: &str = "-";

/// What a collector is told of it: the body is the line, without its end; attributes are not escaped, for they
/// stand alone.
pub(crate) fn record(plan: &LogPlan, facts: &Facts, host: &str) -> Record {
    let made = Made { facts, host };
    let mut body = String::new();
    write(&plan.line, facts, host, &mut body);
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

/// What an operator stands for, not written yet: a line is made for each call, and none of its values is a text of
/// its own first.
enum Shown<'a> {
    Absent,
    Text(Cow<'a, str>),
    Number(u64),
    Address(SocketAddr),
    Ip(IpAddr),
    Flags(Flags),
    Moment(&'a [TimePart], Duration),
}

impl<'a, T: Into<Cow<'a, str>>> From<Option<T>> for Shown<'a> {
    fn from(text: Option<T>) -> Self {
        text.map_or(Shown::Absent, |text| Shown::Text(text.into()))
    }
}

impl Shown<'_> {
    /// As it stands in a text.
    fn write(&self, text: &mut String) {
        // Writing to a string cannot fail.
        let _ = match self {
            Self::Absent => write!(text, "{ABSENT}"),
            Self::Text(own) => write!(text, "{own}"),
            Self::Number(number) => write!(text, "{number}"),
            Self::Address(at) => write!(text, "{at}"),
            Self::Ip(at) => write!(text, "{at}"),
            Self::Flags(flags) => write!(text, "{flags}"),
            Self::Moment(parts, since_epoch) => {
                moment(parts, *since_epoch, text);
                Ok(())
            }
        };
    }

    /// The same, at most so many characters of it.
    fn text(&self, most: Option<usize>) -> Cow<'_, str> {
        if let Self::Text(text) = self {
            return cut(text, most).into();
        }
        let mut text = String::new();
        self.write(&mut text);
        match self {
            Self::Absent | Self::Number(_) => text.into(),
            _ => cut(&text, most).to_owned().into(),
        }
    }
}

impl<'a> Made<'a> {
    fn write(&self, piece: &'a Piece, line: &mut String) {
        match piece {
            Piece::Text(text) => line.push_str(text),
            Piece::Command(command, most) => match (self.value(command), most) {
                (Shown::Text(text), _) => escape(cut(&text, *most), line),
                (long, Some(_)) => line.push_str(&long.text(*most)),
                (whole, None) => whole.write(line),
            },
        }
    }

    /// A single operator keeps its sort; what stands among others is text.
    fn json(&self, pieces: &'a [Piece]) -> Value {
        if let [Piece::Command(command, most)] = pieces {
            return match self.value(command) {
                Shown::Absent => Value::Null,
                Shown::Number(number) => number.into(),
                text => text.text(*most).into_owned().into(),
            };
        }
        Value::String(self.text(pieces))
    }

    fn text(&self, pieces: &'a [Piece]) -> String {
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Command(command, most) => text.push_str(&self.value(command).text(*most)),
            }
        }
        text
    }

    fn value(&self, command: &'a Command) -> Shown<'a> {
        match command {
            Command::StartTime(parts) => Shown::Moment(parts, self.facts.started),
            Command::Request(header) => either(header, |name| self.request(name)),
            Command::Response(header) => either(header, |name| self.response(name)),
            Command::Environment(name) => std::env::var(name).ok().into(),
            Command::Plain(plain) => self.plain(*plain),
        }
    }

    fn request(&self, name: &str) -> Option<Cow<'a, str>> {
        let Some(request) = &self.facts.request else {
            // A connection that was refused has an id without one.
            return self.facts.request_field(name).map(Cow::from);
        };
        Some(match name {
            ":method" => request.method.as_str().into(),
            ":authority" => Some(&request.authority).filter(|text| !text.is_empty())?.into(),
            ":scheme" => request.scheme.as_ref().into(),
            ":path" => self.path(),
            // The path that came, where another was sent on.
            "x-envoy-original-path" if request.sent_path.is_some() => {
                request.target.as_str().into()
            }
            _ => self.facts.request_field(name)?.into(),
        })
    }

    /// The path that was sent on, with its query.
    fn path(&self) -> Cow<'a, str> {
        let Some(request) = &self.facts.request else { return "".into() };
        let query = || request.target.split_once('?').map(|(_, query)| query);
        match &request.sent_path {
            None => request.target.as_str().into(),
            Some(path) => match query() {
                Some(query) if !path.contains('?') => format!("{path}?{query}").into(),
                _ => path.as_str().into(),
            },
        }
    }

    fn response(&self, name: &str) -> Option<Cow<'a, str>> {
        match (name, self.facts.response_field(name)) {
            (_, Some(value)) => Some(value.into()),
            ("x-envoy-upstream-service-time", None) => {
                self.facts.service_ms().map(|millis| millis.to_string().into())
            }
            (":status", None) => Some(self.facts.finish.status.to_string().into()),
            (_, None) => None,
        }
    }

    fn plain(&self, plain: Plain) -> Shown<'a> {
        let facts = self.facts;
        let remote = facts.ends.remote;
        let text = |text: &'a Option<String>| text.as_deref().into();
        let ip = |at: Option<SocketAddr>| at.map_or(Shown::Absent, |at| Shown::Ip(at.ip()));
        match plain {
            Plain::Protocol => facts.request.as_ref().map(|one| one.protocol).into(),
            Plain::ResponseCode => Shown::Number(facts.finish.status.into()),
            Plain::ResponseFlags => Shown::Flags(facts.finish.flags),
            Plain::ResponseCodeDetails => details(facts).into(),
            Plain::ConnectionTerminationDetails => {
                is_connection(facts).then_some(facts.answer.details).flatten().into()
            }
            Plain::UpstreamTransportFailureReason => text(&facts.upstream.failure),
            Plain::BytesReceived => Shown::Number(facts.finish.received),
            Plain::BytesSent => Shown::Number(facts.finish.sent),
            Plain::Duration => millis(Some(facts.finish.duration)),
            Plain::ResponseDuration => millis(facts.answer.after),
            Plain::UpstreamHost | Plain::UpstreamRemoteAddress => {
                facts.upstream.address.as_ref().map_or(Shown::Absent, place)
            }
            Plain::UpstreamCluster | Plain::UpstreamClusterRaw => text(&facts.upstream.cluster),
            Plain::UpstreamLocalAddress => shown(facts.upstream.local),
            Plain::DownstreamLocalAddress => shown(Some(facts.ends.called)),
            Plain::DownstreamLocalAddressWithoutPort => ip(Some(facts.ends.called)),
            Plain::DownstreamLocalPort => Shown::Number(facts.ends.called.port().into()),
            Plain::DownstreamRemoteAddress | Plain::DownstreamDirectRemoteAddress => shown(remote),
            Plain::DownstreamRemoteAddressWithoutPort
            | Plain::DownstreamDirectRemoteAddressWithoutPort => ip(remote),
            Plain::RequestedServerName => text(&facts.server_name),
            Plain::RouteName => text(&facts.rule),
            Plain::UpstreamRequestAttemptCount => Shown::Number(facts.upstream.attempts.into()),
            Plain::GrpcStatus => grpc(facts.finish.grpc).map(grpc_name).into(),
            Plain::GrpcStatusNumber => {
                grpc(facts.finish.grpc).map_or(Shown::Absent, |status| Shown::Number(status.into()))
            }
            Plain::Hostname => Shown::Text(self.host.into()),
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

fn millis(time: Option<Duration>) -> Shown<'static> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    time.map_or(Shown::Absent, |time| Shown::Number(millis(time)))
}

/// An address whose port is not known is written without.
fn shown(at: Option<SocketAddr>) -> Shown<'static> {
    match at {
        None => Shown::Absent,
        Some(at) if at.port() == 0 => Shown::Ip(at.ip()),
        Some(at) => Shown::Address(at),
    }
}

fn place(at: &Place) -> Shown<'_> {
    match at {
        Place::Address(at) => Shown::Address(*at),
        Place::Socket(_) => Shown::Text(at.to_string().into()),
    }
}

fn either<'a>(header: &Header, value: impl Fn(&str) -> Option<Cow<'a, str>>) -> Shown<'a> {
    value(&header.name).or_else(|| value(header.or.as_ref()?)).into()
}

fn cut(text: &str, most: Option<usize>) -> &str {
    let Some(most) = most else { return text };
    text.char_indices().nth(most).map_or(text, |(at, _)| &text[..at])
}

/// What could end a line or a quoted part, or is no character that is seen, does not stand as it is.
fn escape(text: &str, line: &mut String) {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        return line.push_str(text);
    }
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

fn moment(parts: &[TimePart], since_epoch: Duration, text: &mut String) {
    let (year, month, day, of_day) = civil(since_epoch.as_secs());
    for part in parts {
        match part {
            TimePart::Text(plain) => text.push_str(plain),
            TimePart::Year => digits(year.unsigned_abs(), 4, text),
            TimePart::Month => digits(month.unsigned_abs(), 2, text),
            TimePart::Day => digits(day.unsigned_abs(), 2, text),
            TimePart::Hour => digits(of_day / 3_600, 2, text),
            TimePart::Minute => digits(of_day / 60 % 60, 2, text),
            TimePart::Second => digits(of_day % 60, 2, text),
            TimePart::Epoch => digits(since_epoch.as_secs(), 1, text),
            TimePart::Fraction(wanted) => {
                let wanted = (*wanted).min(9);
                let unit = 10_u32.pow(9 - u32::try_from(wanted).unwrap_or(9));
                digits((since_epoch.subsec_nanos() / unit).into(), wanted, text);
            }
        }
    }
}

/// A number with as many digits as it has, at least so many.
fn digits(mut number: u64, least: usize, text: &mut String) {
    let mut all = [b'0'; 20];
    let mut from = all.len();
    while number > 0 {
        from -= 1;
        all[from] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    let from = from.min(all.len().saturating_sub(least));
    text.extend(all[from..].iter().map(|digit| char::from(*digit)));
}

#[cfg(test)]
mod tests;
