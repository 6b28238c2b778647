//! A call for people: one line that fits the terminal, and below it what is out of the ordinary. Texts of peers are
//! made plain and cut.

use heddle_wire::local::tap_api::{Party, Side, TappedCall};

use crate::output::cut;

/// Columns that are filled where nothing says how many there are.
const USUAL: usize = 120;
/// Fewest columns that a line is made for.
const FEWEST: usize = 80;
/// Columns of the parts that are always as wide: side, status, duration.
const SIDE: usize = 6;
const STATUS: usize = 6;
const DURATION: usize = 7;
/// Columns before what stands below a line.
const INDENT: usize = 4;

/// How wide what is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Columns of a terminal; `None` where nothing is to be cut.
    width: Option<usize>,
    coloured: bool,
    /// Of the time: with milliseconds or without.
    time: usize,
    /// Of each end of a call.
    party: usize,
}

impl Layout {
    /// For a terminal of so many columns; `None`: it is none.
    pub(super) fn new(width: Option<usize>, coloured: bool) -> Self {
        let columns = width.unwrap_or(USUAL).max(FEWEST);
        let (time, party) = match columns {
            ..100 => (8, 13),
            100..140 => (12, 17),
            _ => (12, 24),
        };
        Self { width: width.map(|width| width.max(FEWEST)), coloured, time, party }
    }

    /// What stands over the first line.
    pub(super) fn head(&self) -> String {
        let time = if self.time > 8 { "TIME (UTC)" } else { "UTC" };
        self.row([time, "SIDE", "FROM", "TO", "STATUS", "TOOK"].map(str::to_owned), "REQUEST")
    }

    /// A call.
    pub(super) fn lines(&self, call: &TappedCall) -> String {
        let time = call.time.split_once('T').map_or("", |(_, time)| time).trim_end_matches('Z');
        let time: String = plain(time).chars().take(self.time).collect();
        let to = match (&call.to.workload, call.side) {
            (Some(_), _) => party(&call.to),
            (None, Side::Client | Side::Server) => service(&call.to),
        };
        let cells = [
            time,
            call.side.as_str().to_owned(),
            party(&call.from),
            to,
            status(call),
            duration(call.duration_ms),
        ];
        let line = self.row(cells, &request(call));
        let mut text = self.colour(call, line);
        for detail in details(call) {
            for line in self.wrapped(&detail) {
                text.push('\n');
                text.push_str(&line);
            }
        }
        text
    }

    /// Cells side by side, and at the end what gets all the room there is left.
    fn row(&self, cells: [String; 6], last: &str) -> String {
        let [time, side, from, to, status, duration] = cells;
        let (width, party) = (self.time, self.party);
        let (from, to) = (self.fit(&from, party), self.fit(&to, party));
        let line = format!(
            "{time:width$} {side:SIDE$} {from:party$} > {to:party$} {status:STATUS$} {duration:>DURATION$} "
        );
        let left = self.width.map(|all| all.saturating_sub(line.chars().count()));
        let last = left.map_or_else(|| last.to_owned(), |left| cut(last, left));
        (line + &last).trim_end().to_owned()
    }

    /// Names are whole where nothing is to be cut.
    fn fit(&self, text: &str, most: usize) -> String {
        if self.width.is_some() { cut(text, most) } else { text.to_owned() }
    }

    /// Lines of words, indented.
    fn wrapped(&self, text: &str) -> Vec<String> {
        let room = self.width.unwrap_or(usize::MAX).saturating_sub(INDENT);
        let mut lines = vec![String::new()];
        let mut used = 0;
        for word in text.split(' ') {
            let length = word.chars().count();
            if used > 0 && used + 1 + length > room {
                lines.push(String::new());
                used = 0;
            }
            let Some(line) = lines.last_mut() else { break };
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(&if self.width.is_some() { cut(word, room) } else { word.to_owned() });
            used += length.min(room);
        }
        lines.into_iter().map(|line| format!("{:INDENT$}{line}", "")).collect()
    }

    fn colour(&self, call: &TappedCall, line: String) -> String {
        match (self.coloured, call.failed()) {
            (true, true) => format!("\u{1b}[31m{line}\u{1b}[0m"),
            (true, false) if (400..500).contains(&call.status) => {
                format!("\u{1b}[33m{line}\u{1b}[0m")
            }
            _ => line,
        }
    }
}

/// Who somebody is, in one word; a caller of whom nothing is known is outside the mesh.
fn party(party: &Party) -> String {
    match &party.workload {
        Some(workload) => plain(workload),
        None => service(party),
    }
}

fn service(party: &Party) -> String {
    let short = |service: &String| match service.split_once(".svc.") {
        Some((short, _)) => short.to_owned(),
        None => service.clone(),
    };
    let known = party.service.as_ref().map(short).or_else(|| party.address.clone());
    known.map_or_else(|| "outside".to_owned(), |known| plain(&known))
}

/// Of gRPC both: what HTTP says, and what is meant.
fn status(call: &TappedCall) -> String {
    match (call.status, call.grpc_status) {
        (status, Some(grpc)) if status > 0 => format!("{status}/{grpc}"),
        (0, _) => "-".to_owned(),
        (status, _) => status.to_string(),
    }
}

fn duration(ms: f64) -> String {
    match ms {
        ..10.0 => format!("{ms:.1}ms"),
        ..1_000.0 => format!("{ms:.0}ms"),
        _ => format!("{:.2}s", ms / 1_000.0),
    }
}

fn request(call: &TappedCall) -> String {
    if call.protocol == "tcp" {
        let host = if call.authority.is_empty() {
            String::new()
        } else {
            format!(" {}", plain(&call.authority))
        };
        return format!("tcp{host}, {} in, {} out", call.received_bytes, call.sent_bytes);
    }
    if call.method.is_empty() {
        return "a head that cannot be read".to_owned();
    }
    format!("{} {}", plain(&call.method), plain(&call.path))
}

/// What is out of the ordinary, or was asked for.
fn details(call: &TappedCall) -> Vec<String> {
    let mut details = Vec::new();
    if call.retries > 0 {
        details.push(format!("sent {} times", call.retries + 1));
    }
    for fault in &call.faults {
        details.push(format!("fault: {}, by {}", plain(&fault.what), plain(&fault.rule)));
    }
    if let Some(refusal) = &call.refusal {
        let rule = call.rule.as_deref().map(|rule| format!(", by {}", plain(rule)));
        let (code, reason) = (plain(&refusal.code), plain(&refusal.reason));
        details.push(format!("refused: {code}{}: {reason}", rule.unwrap_or_default()));
    } else if call.flags != "-" && call.faults.is_empty() {
        details.push(format!("flags: {}", plain(&call.flags)));
    }
    for (name, value) in &call.request_headers {
        details.push(format!("> {}: {}", plain(name), plain(value)));
    }
    for (name, value) in &call.response_headers {
        details.push(format!("< {}: {}", plain(name), plain(value)));
    }
    details
}

/// A text of a peer: what a terminal would obey is written out.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) {
            plain.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Is it none that is seen: a control character, an end of a line, one that turns the direction of writing or has no
/// width?
pub(super) fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use heddle_wire::local::tap_api::{Fault, Refused};

    use super::*;

    fn call() -> TappedCall {
        TappedCall {
            time: "2026-11-30T08:36:47.045Z".to_owned(),
            side: Side::Server,
            from: Party { workload: Some("productpage-v1".to_owned()), ..Party::default() },
            to: Party { workload: Some("reviews-v2".to_owned()), ..Party::default() },
            protocol: "HTTP/1.1".to_owned(),
            method: "GET".to_owned(),
            path: "/reviews/0?x=1&and=so&on=for-a-while".to_owned(),
            status: 200,
            duration_ms: 12.34,
            flags: "-".to_owned(),
            ..TappedCall::default()
        }
    }

    #[test]
    fn a_line_fits_the_terminal_and_uses_it() {
        let narrow = Layout::new(Some(80), false);
        assert_eq!(
            narrow.head(),
            "UTC      SIDE   FROM          > TO            STATUS    TOOK REQUEST"
        );
        assert_eq!(
            narrow.lines(&call()),
            "08:36:47 server productpage-… > reviews-v2    200       12ms GET /reviews/0?x=1…"
        );
        let wide = Layout::new(Some(200), false).lines(&call());
        assert!(
            wide.starts_with("08:36:47.045 server productpage-v1           > reviews-v2"),
            "{wide}"
        );
        assert!(wide.ends_with("GET /reviews/0?x=1&and=so&on=for-a-while"), "{wide}");
        let piped = Layout::new(None, false).lines(&call());
        assert!(piped.contains("productpage-v1") && piped.ends_with("for-a-while"), "{piped}");
        for width in [1, 80, 81, 99, 100, 139, 140, 500] {
            let layout = Layout::new(Some(width), false);
            let longest = TappedCall { path: "/".repeat(2_000), ..call() };
            let line = layout.lines(&longest);
            assert_eq!(line.chars().count(), width.max(80), "{line}");
        }
    }

    #[test]
    fn what_is_out_of_the_ordinary_stands_below() {
        let told = TappedCall {
            side: Side::Client,
            to: Party {
                service: Some("reviews.default.svc.cluster.local".to_owned()),
                ..Party::default()
            },
            status: 503,
            retries: 2,
            rule: Some("VirtualService/default/reviews".to_owned()),
            refusal: Some(Refused {
                code: "no-endpoints".to_owned(),
                reason:
                    "nobody behind reviews is ready: start one, or look why the ones there are not"
                        .to_owned(),
            }),
            faults: vec![Fault { what: "delay".to_owned(), rule: "Fault/default/slow".to_owned() }],
            request_headers: BTreeMap::from([("user-agent".to_owned(), "curl/8".to_owned())]),
            ..call()
        };
        let text = Layout::new(Some(80), true).lines(&told);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("\u{1b}[31m") && lines[0].contains("> reviews.defa… 503"),
            "{text}"
        );
        assert_eq!(lines[1], "    sent 3 times");
        assert_eq!(lines[2], "    fault: delay, by Fault/default/slow");
        assert!(
            lines[3].starts_with("    refused: no-endpoints, by VirtualService/default/reviews:")
        );
        assert!(lines.iter().all(|line| line.chars().count() <= 80 + 9), "{text}");
        assert_eq!(lines.last(), Some(&"    > user-agent: curl/8"));
        assert!(!Layout::new(Some(80), false).lines(&told).contains('\u{1b}'));
    }

    #[test]
    fn nothing_of_a_peer_is_obeyed() {
        let hostile = "\u{1b}[2J\n\r\t\u{9b}1m\u{202e}\u{200b}\u{feff}\u{7}x".to_owned();
        let told = TappedCall {
            path: hostile.clone(),
            method: hostile.clone(),
            authority: hostile.clone(),
            flags: hostile.clone(),
            from: Party { workload: Some(hostile.clone()), ..Party::default() },
            to: Party { service: Some(hostile.clone()), ..Party::default() },
            request_headers: BTreeMap::from([(hostile.clone(), hostile)]),
            ..call()
        };
        let text = Layout::new(None, false).lines(&told);
        assert_eq!(text.lines().count(), 3);
        assert!(!text.chars().any(|c| c != '\n' && is_obeyed(c)), "{text:?}");
        assert!(text.contains("\\u{1b}[2J\\u{a}"), "{text}");
    }

    #[test]
    fn connections_and_grpc_say_what_they_are() {
        let tcp = TappedCall {
            protocol: "tcp".to_owned(),
            method: String::new(),
            status: 0,
            received_bytes: 12,
            sent_bytes: 34,
            ..call()
        };
        let text = Layout::new(None, false).lines(&tcp);
        assert!(text.contains(" -  ") && text.ends_with("tcp, 12 in, 34 out"), "{text}");
        let grpc = TappedCall { grpc_status: Some(14), duration_ms: 2_345.6, ..call() };
        let text = Layout::new(None, true).lines(&grpc);
        assert!(text.contains("200/14") && text.contains("2.35s") && text.contains("\u{1b}[31m"));
    }
}
