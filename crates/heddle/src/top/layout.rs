//! The table of `heddle top` at any width: the golden signals of one side first (traffic, errors, latency,
//! saturation), then more of that side, then both sides beside each other. The figures of one row's side are never
//! mixed with the other's: what is not measured on a side is not told of it.

use heddle_wire::local::observe_api::{Rates, ServiceSummary, Version};

use super::figures::{self, bytes, milliseconds, name, percent, rate};
use crate::cli::live::Side;

/// Longest name that is not cut, where there is room.
const NAME_MAX: usize = 40;
/// Shortest room for names.
const NAME_MIN: usize = 8;

/// One column of a side's figures.
struct Column {
    title: &'static str,
    width: usize,
    cell: fn(&Rates, bool) -> String,
}

/// The calls, if they are requests.
fn requests(rates: &Rates, tcp: bool) -> String {
    if tcp { figures::NONE.to_owned() } else { rate(rates.per_second) }
}

fn success(rates: &Rates, _: bool) -> String {
    if rates.per_second > 0.0 { percent(rates.success) } else { figures::NONE.to_owned() }
}

/// Delays too: they explain the callers' latency as aborts explain missing calls.
fn injected(rates: &Rates, _: bool) -> String {
    rate(rates.injected_per_second + rates.delayed_per_second)
}

const fn column(title: &'static str, width: usize, cell: fn(&Rates, bool) -> String) -> Column {
    Column { title, width, cell }
}

const REQUESTS: Column = column("REQ/S", 7, requests);
const SUCCESS: Column = column("SUCCESS", 8, success);
const P50: Column = column("P50", 8, |rates, _| milliseconds(rates.p50_ms));
const P90: Column = column("P90", 8, |rates, _| milliseconds(rates.p90_ms));
const P99: Column = column("P99", 8, |rates, _| milliseconds(rates.p99_ms));

/// What fits into 80 columns.
const GOLDEN: [Column; 4] = [REQUESTS, SUCCESS, P50, P99];
/// What a wider terminal has.
const FULL: [Column; 8] = [
    REQUESTS,
    SUCCESS,
    column("4XX/S", 7, |rates, _| rate(rates.client_errors_per_second)),
    column("5XX/S", 7, |rates, _| rate(rates.server_errors_per_second)),
    column("INJ/S", 7, injected),
    P50,
    P90,
    P99,
];
/// Width of the columns behind a side's figures: what is in flight, bytes, and whose figures they are.
const BUSY: usize = 6;
const TCP: usize = 10;
const SIDE: usize = 6;

/// How much of a row there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Golden,
    Full,
    Both,
}

impl Layout {
    fn columns(self) -> &'static [Column] {
        match self {
            Self::Golden => &GOLDEN,
            Self::Full | Self::Both => &FULL,
        }
    }

    /// Width of everything but the name, with the blanks between.
    fn fixed(self) -> usize {
        let side: usize = self.columns().iter().map(|column| column.width + 1).sum();
        match self {
            Self::Both => 2 * side + BUSY + TCP + 2,
            Self::Golden | Self::Full => side + BUSY + TCP + SIDE + 3,
        }
    }
}

/// What of a service is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shown {
    /// Whose figures, where there is room for one side.
    pub(super) side: Side,
    /// A row for each version?
    pub(super) versions: bool,
}

/// One row: a service, or one of its versions.
#[derive(Debug)]
pub(super) struct Row<'a> {
    name: String,
    client: Option<&'a Rates>,
    server: Option<&'a Rates>,
    busy: Option<f64>,
    tcp: Option<f64>,
    is_tcp: bool,
}

impl<'a> Row<'a> {
    pub(super) fn of(service: &'a ServiceSummary) -> Self {
        let tcp = service.sent_bytes_per_second + service.received_bytes_per_second;
        let measured = |rates: &'a Rates| Some(rates).filter(|rates| rates.per_second > 0.0);
        Self {
            name: name(&service.service),
            client: measured(&service.client),
            server: measured(&service.server),
            busy: service.in_flight,
            tcp: Some(tcp),
            is_tcp: service.kind == "tcp",
        }
    }

    fn of_version(service: &ServiceSummary, version: &'a Version) -> Self {
        Self {
            name: format!("  {} {}", version.version, percent(version.share)),
            client: None,
            server: Some(&version.rates),
            busy: None,
            tcp: None,
            is_tcp: service.kind == "tcp",
        }
    }

    /// The side that is shown where one is: the callers' own, for calls that never arrived are in it.
    fn shown(&self, side: Side) -> (Option<&'a Rates>, &'static str) {
        match (side, self.client, self.server) {
            (Side::Client, client, _) => (client, "client"),
            (Side::Server, _, server) | (Side::Auto, None, server @ Some(_)) => (server, "server"),
            (Side::Auto, client, _) => (client, "client"),
        }
    }

    /// Share of calls that failed, on the side that is shown, or on the worse of both.
    fn failed(&self, side: Side, layout: Layout) -> f64 {
        let failed = |rates: Option<&Rates>| rates.map_or(0.0, |rates| 1.0 - rates.success);
        match layout {
            Layout::Both => failed(self.client).max(failed(self.server)),
            Layout::Golden | Layout::Full => failed(self.shown(side).0),
        }
    }
}

/// What a service is ordered by: figures of the side that is shown.
pub(super) fn figures_of(service: &ServiceSummary, side: Side) -> Rates {
    Row::of(service).shown(side).0.copied().unwrap_or_default()
}

/// The table with its heads, as wide as there is room; lines without an end.
pub(super) fn table(
    services: &[&ServiceSummary],
    what: Shown,
    width: usize,
    coloured: bool,
) -> String {
    let mut rows = Vec::new();
    for service in services {
        rows.push(Row::of(service));
        if what.versions && service.versions.len() > 1 {
            rows.extend(service.versions.iter().map(|one| Row::of_version(service, one)));
        }
    }
    let longest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let wished = longest.clamp(NAME_MIN, NAME_MAX);
    let fits = |layout: &Layout| layout.fixed() + wished <= width;
    let layout = [Layout::Both, Layout::Full].into_iter().find(fits).unwrap_or(Layout::Golden);
    let names = width.saturating_sub(layout.fixed()).clamp(NAME_MIN, wished);
    let mut lines = heads(layout, names);
    for row in &rows {
        let line = line(row, layout, names, what.side);
        let failed = row.failed(what.side, layout);
        lines.push(if coloured { colour(failed, line) } else { line });
    }
    lines.join("\n")
}

fn heads(layout: Layout, names: usize) -> Vec<String> {
    let titles = |columns: &[Column]| -> Vec<String> {
        columns.iter().map(|column| format!("{:>1$}", column.title, column.width)).collect()
    };
    let side = titles(layout.columns()).join(" ");
    let behind = format!("{:>BUSY$} {:>TCP$}", "BUSY", "TCP");
    match layout {
        Layout::Both => {
            let width = side.chars().count();
            let sides = format!("{:names$} {:-^width$} {:-^width$}", "", " client ", " server ");
            vec![sides, format!("{:names$} {side} {side} {behind}", "SERVICE")]
        }
        Layout::Golden | Layout::Full => {
            vec![
                format!("{:names$} {side} {behind} {:SIDE$}", "SERVICE", "SIDE")
                    .trim_end()
                    .to_owned(),
            ]
        }
    }
}

/// How many lines the head has at this width.
pub(super) fn head_rows(table: &str) -> usize {
    if table.lines().next().is_some_and(|line| line.starts_with("SERVICE")) { 1 } else { 2 }
}

fn line(row: &Row<'_>, layout: Layout, names: usize, side: Side) -> String {
    let cells = |rates: Option<&Rates>| -> String {
        let cell = |column: &Column| {
            let cell = rates
                .map_or_else(|| figures::NONE.to_owned(), |rates| (column.cell)(rates, row.is_tcp));
            format!("{cell:>0$}", column.width)
        };
        layout.columns().iter().map(cell).collect::<Vec<_>>().join(" ")
    };
    let busy = row.busy.map_or_else(|| figures::NONE.to_owned(), rate);
    let tcp = row.tcp.filter(|tcp| *tcp > 0.0).map_or_else(|| figures::NONE.to_owned(), bytes);
    let behind = format!("{busy:>BUSY$} {tcp:>TCP$}");
    let name = cut(&row.name, names);
    let line = match layout {
        Layout::Both => {
            format!("{name:names$} {} {} {behind}", cells(row.client), cells(row.server))
        }
        Layout::Golden | Layout::Full => {
            let (rates, whose) = row.shown(side);
            let whose = if rates.is_some() { whose } else { figures::NONE };
            format!("{name:names$} {} {behind} {whose}", cells(rates))
        }
    };
    line.trim_end().to_owned()
}

/// A name that is longer than its room keeps its beginning. What could steer the terminal is no part of a name.
fn cut(name: &str, room: usize) -> String {
    let clean = || name.chars().map(|c| if c.is_control() { '?' } else { c });
    if name.chars().count() <= room {
        return clean().collect();
    }
    clean().take(room.saturating_sub(1)).chain(['…']).collect()
}

/// Red from 5 % failures, yellow from 1 %.
fn colour(failed: f64, line: String) -> String {
    match failed {
        share if share >= 0.05 => format!("\u{1b}[31m{line}\u{1b}[0m"),
        share if share >= 0.01 => format!("\u{1b}[33m{line}\u{1b}[0m"),
        _ => line,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use heddle_model::ServiceName;

    use super::*;

    /// A service whose callers see these failures, and which sees none itself.
    pub(in crate::top) fn row(name: &str, failures: f64) -> ServiceSummary {
        let rates = Rates {
            per_second: 12.34,
            success: 1.0 - failures,
            server_errors_per_second: 12.34 * failures,
            p50_ms: Some(1.5),
            p90_ms: Some(12.0),
            p99_ms: Some(1_200.0),
            ..Rates::default()
        };
        let server = Rates { per_second: 7.7, success: 1.0, p99_ms: Some(33.0), ..rates };
        ServiceSummary {
            service: ServiceName::new(name, "default").unwrap(),
            kind: "http".to_owned(),
            client: rates,
            server,
            sent_bytes_per_second: 0.0,
            received_bytes_per_second: 0.0,
            in_flight: Some(3.0),
            versions: vec![
                Version { version: "v1".into(), share: 0.6, rates: server },
                Version { version: "v2".into(), share: 0.4, rates: server },
            ],
        }
    }

    fn shown(services: &[ServiceSummary], what: Shown, width: usize) -> String {
        table(&services.iter().collect::<Vec<_>>(), what, width, false)
    }

    #[test]
    fn eighty_columns_hold_the_golden_signals_of_one_side() {
        let services = [row("a", 0.0), row("a-name-that-is-longer-than-its-room", 0.5)];
        let text = shown(&services, Shown::default(), 80);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
        let heads: Vec<&str> = lines[0].split_whitespace().collect();
        assert_eq!(heads, ["SERVICE", "REQ/S", "SUCCESS", "P50", "P99", "BUSY", "TCP", "SIDE"]);
        assert!(lines[1].contains("12.3") && lines[1].ends_with("client"), "{text}");
        assert!(lines[2].contains('…') && lines[2].contains("50 %"), "{text}");
        let column = |line: &str, what: &str| {
            line.find(what).map(|at| line[..at].chars().count() + what.chars().count())
        };
        assert_eq!(column(lines[0], "REQ/S"), column(lines[1], "12.3"));
        assert_eq!(column(lines[1], "12.3"), column(lines[2], "12.3"));
    }

    #[test]
    fn a_row_has_the_figures_of_one_side_only() {
        let services = [row("a", 0.5)];
        let of = |side| shown(&services, Shown { side, ..Shown::default() }, 80);
        let client = of(Side::Client);
        assert!(
            client.contains("50 %") && client.contains("1.2 s") && !client.contains("33 ms"),
            "{client}"
        );
        let server = of(Side::Server);
        assert!(
            server.contains("100 %") && server.contains("33 ms") && !server.contains("1.2 s"),
            "{server}"
        );
        assert!(server.contains("7.7") && server.ends_with("server"), "{server}");
        // Callers outside the mesh measure nothing.
        let mut outside = row("b", 0.0);
        outside.client = Rates::default();
        let text = shown(&[outside], Shown::default(), 80);
        assert!(text.contains("33 ms") && text.ends_with("server"), "{text}");
    }

    #[test]
    fn wider_terminals_show_more_and_the_widest_both_sides() {
        let services = [row("a", 0.0)];
        let middle = shown(&services, Shown::default(), 120);
        assert!(middle.contains("4XX/S") && middle.contains("SIDE"), "{middle}");
        let wide = shown(&services, Shown::default(), 200);
        assert!(wide.contains(" client -") && wide.matches("P99").count() == 2, "{wide}");
        assert_eq!((head_rows(&middle), head_rows(&wide)), (1, 2));
        for (text, width) in [(&middle, 120), (&wide, 200)] {
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
        }
    }

    #[test]
    fn versions_stand_below_their_service_as_it_measured_them() {
        let services = [row("a", 0.5)];
        let text = shown(&services, Shown { versions: true, ..Shown::default() }, 80);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].starts_with("  v1 60 %") && lines[2].ends_with("server"), "{text}");
        assert!(lines[3].starts_with("  v2 40 %"), "{text}");
    }

    #[test]
    fn injected_delays_count_as_faults_and_tcp_has_no_requests() {
        let mut delayed = row("a", 0.0);
        (delayed.client.delayed_per_second, delayed.client.injected_per_second) = (7.7, 1.0);
        assert!(shown(&[delayed], Shown::default(), 120).contains("8.7"));
        let mut store = row("store", 0.0);
        (store.kind, store.sent_bytes_per_second) = ("tcp".to_owned(), 2_000.0);
        let text = shown(&[store], Shown::default(), 80);
        assert!(!text.contains("12.3") && text.contains("2.0 kB/s"), "{text}");
    }

    #[test]
    fn only_trouble_is_coloured_and_a_name_cannot_steer_the_terminal() {
        let coloured = |failures| {
            let services = [row("a", failures)];
            table(&[&services[0]], Shown::default(), 80, true)
        };
        assert!(!coloured(0.0).contains('\u{1b}'));
        assert!(coloured(0.02).contains("\u{1b}[33m"));
        assert!(coloured(0.2).contains("\u{1b}[31m"));
        assert_eq!(cut("a\u{1b}[2J", 20), "a?[2J");
    }
}
