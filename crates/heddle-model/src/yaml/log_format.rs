//! Formats of access logs: Envoy's command operators (`%REQ(:METHOD)%`), read and checked where they are
//! configured. What an operator comes to for a request is the sidecar's.

use super::report::suggest;

/// Istio's default text.
pub const DEFAULT_TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Istio's default JSON: names and formats.
pub const DEFAULT_JSON: &[(&str, &str)] = &[
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// Longest format in bytes.
pub const FORMAT_BYTES_MAX: usize = 8_192;

/// A part of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// It stands as it is.
    Text(String),
    /// What the operator comes to, at most so many characters of it.
    Command(Command, Option<usize>),
}

/// A command operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `%START_TIME%`, in this form.
    StartTime(Vec<TimePart>),
    /// `%REQ(X?Y)%`: a field of the request, in lower case, or the other where it is not there.
    Request(Header),
    /// `%RESP(X?Y)%`.
    Response(Header),
    /// `%ENVIRONMENT(X)%`.
    Environment(String),
    /// One without an argument.
    Plain(Plain),
}

/// Which field, in lower case, and which other one stands for it where it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// This one.
    pub name: String,
    /// Or that one.
    pub or: Option<String>,
}

macro_rules! plain {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// Operators without an argument.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Plain {
            $($(#[$doc])* $variant,)+
        }
        const PLAIN: &[(&str, Plain)] = &[$(($name, Plain::$variant),)+];
    };
}

plain! {
    /// Version of HTTP.
    Protocol = "PROTOCOL",
    /// Status; 0 where there was none.
    ResponseCode = "RESPONSE_CODE",
    /// Short flags.
    ResponseFlags = "RESPONSE_FLAGS",
    /// Who answered, and why.
    ResponseCodeDetails = "RESPONSE_CODE_DETAILS",
    /// Why the client's connection was ended.
    ConnectionTerminationDetails = "CONNECTION_TERMINATION_DETAILS",
    /// Why the upstream was not connected to.
    UpstreamTransportFailureReason = "UPSTREAM_TRANSPORT_FAILURE_REASON",
    /// Bytes from the client.
    BytesReceived = "BYTES_RECEIVED",
    /// Bytes to the client.
    BytesSent = "BYTES_SENT",
    /// Milliseconds from first byte to last.
    Duration = "DURATION",
    /// Milliseconds from first byte to the first of the response.
    ResponseDuration = "RESPONSE_DURATION",
    /// Address and port of the upstream.
    UpstreamHost = "UPSTREAM_HOST",
    /// The same.
    UpstreamRemoteAddress = "UPSTREAM_REMOTE_ADDRESS",
    /// Name of the cluster.
    UpstreamCluster = "UPSTREAM_CLUSTER",
    /// The same.
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW",
    /// Our end of the upstream's connection.
    UpstreamLocalAddress = "UPSTREAM_LOCAL_ADDRESS",
    /// What the client called.
    DownstreamLocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
    /// The same without its port.
    DownstreamLocalAddressWithoutPort = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    /// Its port.
    DownstreamLocalPort = "DOWNSTREAM_LOCAL_PORT",
    /// The client.
    DownstreamRemoteAddress = "DOWNSTREAM_REMOTE_ADDRESS",
    /// The same without its port.
    DownstreamRemoteAddressWithoutPort = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    /// The client.
    DownstreamDirectRemoteAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    /// The same without its port.
    DownstreamDirectRemoteAddressWithoutPort = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    /// The name that a client of TLS asked for.
    RequestedServerName = "REQUESTED_SERVER_NAME",
    /// The rule that decided.
    RouteName = "ROUTE_NAME",
    /// How often it was sent.
    UpstreamRequestAttemptCount = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    /// Status of gRPC, by its name.
    GrpcStatus = "GRPC_STATUS",
    /// The same as a number.
    GrpcStatusNumber = "GRPC_STATUS_NUMBER",
    /// Name of the workload's host.
    Hostname = "HOSTNAME",
    /// Id of the trace.
    TraceId = "TRACE_ID",
}

/// A part of a moment's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimePart {
    /// It stands as it is.
    Text(String),
    /// `%Y`.
    Year,
    /// `%m`.
    Month,
    /// `%d`.
    Day,
    /// `%H`.
    Hour,
    /// `%M`.
    Minute,
    /// `%S`.
    Second,
    /// `%s`: seconds since the Unix epoch.
    Epoch,
    /// `%3f`: so many digits of a second's fraction.
    Fraction(usize),
}

/// Reads a format.
///
/// # Errors
/// The operator that is wrong or that nobody knows, and what would be right.
pub fn parse(text: &str) -> Result<Vec<Piece>, String> {
    if text.len() > FORMAT_BYTES_MAX {
        return Err(format!(
            "the format has {} bytes, more than the {FORMAT_BYTES_MAX} allowed",
            text.len()
        ));
    }
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('%') {
            plain.push('%');
            rest = behind;
            continue;
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        let (piece, behind) = operator(rest)?;
        pieces.push(piece);
        rest = behind;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

/// The same as a check.
pub(super) fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

/// One operator and what follows it; `text` begins behind the `%`.
fn operator(text: &str) -> Result<(Piece, &str), String> {
    let begun = || {
        let shown: String = text.chars().take(40).collect();
        format!(
            "`%{shown}` begins no operator such as `%PROTOCOL%`: write `%%` for the sign itself"
        )
    };
    let length = text.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
    let (name, rest) = text.split_at(length.unwrap_or(text.len()));
    if name.is_empty() {
        return Err(begun());
    }
    let (argument, rest) = match rest.strip_prefix('(') {
        None => (None, rest),
        Some(inside) => {
            let (argument, rest) = inside.split_once(')').ok_or_else(begun)?;
            (Some(argument), rest)
        }
    };
    let (most, rest) = match rest.strip_prefix(':') {
        None => (None, rest),
        Some(rest) => {
            let (number, _) = rest.split_once('%').ok_or_else(begun)?;
            let most = number.parse().map_err(|_| {
                format!("`%{name}…:{number}%`: behind the `:` stands a number of characters")
            })?;
            (Some(most), &rest[number.len()..])
        }
    };
    let behind = rest.strip_prefix('%').ok_or_else(begun)?;
    Ok((Piece::Command(command(name, argument)?, most), behind))
}

fn command(name: &str, argument: Option<&str>) -> Result<Command, String> {
    let needed = |what: &str| format!("`%{name}%` needs {what}, e.g. `%{name}(x-request-id)%`");
    match (name, argument) {
        ("START_TIME", form) => Ok(Command::StartTime(time_form(form.unwrap_or_default())?)),
        ("REQ", Some(argument)) => Ok(Command::Request(header(name, argument)?)),
        ("RESP", Some(argument)) => Ok(Command::Response(header(name, argument)?)),
        ("ENVIRONMENT", Some(variable)) if !variable.is_empty() => {
            Ok(Command::Environment(variable.to_owned()))
        }
        ("REQ" | "RESP", None) => Err(needed("the name of a header")),
        ("ENVIRONMENT", _) => Err("`%ENVIRONMENT%` needs the name of a variable".to_owned()),
        _ => match (PLAIN.iter().find(|(known, _)| *known == name), argument) {
            (Some((_, plain)), None) => Ok(Command::Plain(*plain)),
            (Some(_), Some(_)) => Err(format!("`%{name}%` takes no argument")),
            (None, _) => {
                let mut known: Vec<_> = PLAIN.iter().map(|(known, _)| *known).collect();
                known.extend(["START_TIME", "REQ", "RESP", "ENVIRONMENT"]);
                Err(suggest("operator", name, &known))
            }
        },
    }
}

fn header(operator: &str, argument: &str) -> Result<Header, String> {
    let read = |name: &str| {
        let token = name.strip_prefix(':').unwrap_or(name);
        let valid = !token.is_empty()
            && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&b));
        if valid {
            return Ok(name.to_ascii_lowercase());
        }
        Err(format!("`%{operator}({argument})%`: `{name}` is no name of a header"))
    };
    match argument.split_once('?') {
        None => Ok(Header { name: read(argument)?, or: None }),
        Some((name, other)) => Ok(Header { name: read(name)?, or: Some(read(other)?) }),
    }
}

/// What `%START_TIME%` without an argument looks like: `2026-11-30T08:36:47.123Z`.
const DEFAULT_TIME: &str = "%Y-%m-%dT%H:%M:%S.%3fZ";

fn time_form(form: &str) -> Result<Vec<TimePart>, String> {
    let form = if form.is_empty() { DEFAULT_TIME } else { form };
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = form.chars();
    while let Some(one) = rest.next() {
        if one != '%' {
            plain.push(one);
            continue;
        }
        if !plain.is_empty() {
            parts.push(TimePart::Text(std::mem::take(&mut plain)));
        }
        let letter = rest.next();
        match letter {
            Some('Y') => parts.push(TimePart::Year),
            Some('m') => parts.push(TimePart::Month),
            Some('d') => parts.push(TimePart::Day),
            Some('H') => parts.push(TimePart::Hour),
            Some('M') => parts.push(TimePart::Minute),
            Some('S') => parts.push(TimePart::Second),
            Some('s') => parts.push(TimePart::Epoch),
            Some('f') => parts.push(TimePart::Fraction(9)),
            Some('%') => plain.push('%'),
            Some('F') => {
                parts.extend(joined([TimePart::Year, TimePart::Month, TimePart::Day], "-"))
            }
            Some('T') => {
                parts.extend(joined([TimePart::Hour, TimePart::Minute, TimePart::Second], ":"));
            }
            Some('z') => plain.push_str("+0000"),
            Some('Z') => plain.push_str("UTC"),
            Some(digits @ '1'..='9') if rest.as_str().starts_with('f') => {
                rest.next();
                parts.push(TimePart::Fraction(digits.to_digit(10).unwrap_or(9) as usize));
            }
            other => {
                let written = other.map(String::from).unwrap_or_default();
                return Err(format!(
                    "`%START_TIME({form})%`: `%{written}` is no part of a moment here: use %Y %m %d %F %H %M %S %T %s %f %3f %z %Z"
                ));
            }
        }
    }
    if !plain.is_empty() {
        parts.push(TimePart::Text(plain));
    }
    Ok(parts)
}

fn joined(parts: [TimePart; 3], by: &str) -> Vec<TimePart> {
    let [first, second, third] = parts;
    let between = || TimePart::Text(by.to_owned());
    vec![first, between(), second, between(), third]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istios_own_formats_are_read() {
        let pieces = parse(DEFAULT_TEXT).unwrap();
        assert!(pieces.contains(&Piece::Command(
            Command::Request(Header {
                name: "x-envoy-original-path".to_owned(),
                or: Some(":path".to_owned())
            }),
            None
        )));
        assert!(DEFAULT_JSON.iter().all(|(_, format)| parse(format).is_ok()));
        assert_eq!(DEFAULT_JSON.len(), 24);
    }

    #[test]
    fn operators_have_arguments_lengths_and_a_literal_sign() {
        let pieces = parse("100%% %REQ(USER-AGENT):7% %START_TIME(%s.%3f)%").unwrap();
        let agent = Header { name: "user-agent".to_owned(), or: None };
        let time = vec![TimePart::Epoch, TimePart::Text(".".to_owned()), TimePart::Fraction(3)];
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(
            pieces,
            [
                text("100% "),
                Piece::Command(Command::Request(agent), Some(7)),
                text(" "),
                Piece::Command(Command::StartTime(time), None)
            ]
        );
    }

    #[test]
    fn what_is_no_operator_is_refused_by_name() {
        for (text, words) in [
            ("%RESPONSE_COD%", "did you mean `RESPONSE_CODE`?"),
            ("%DYNAMIC_METADATA(a:b)%", "unknown operator `DYNAMIC_METADATA`"),
            ("%REQ%", "name of a header"),
            ("%REQ()%", "is no name of a header"),
            ("%REQ(a b)%", "`a b` is no name"),
            ("%REQ(a", "begins no operator"),
            ("%PROTOCOL(x)%", "takes no argument"),
            ("%REQ(a):x%", "a number of characters"),
            ("100% sure", "write `%%`"),
            ("%", "write `%%`"),
            ("%START_TIME(%Q)%", "`%Q` is no part of a moment"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(parse(&"x".repeat(9_000)).is_err());
    }
}
