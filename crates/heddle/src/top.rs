//! `heddle top`: live traffic per service, the same numbers as the dashboard's.
//!
//! On a terminal the table is redrawn in place until Ctrl-C and then left standing; anywhere else it
//! is printed once, so that a pipe ends.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, stdout},
};

use heddle_runtime::{clock, terminal};
use heddle_wire::local::observe_api::{Ejection, Rates, ServiceSummary, TlsFailure};

use crate::{
    chosen::{Chosen, Dashboard},
    cli::{NamespaceFlags, Output, TopArgs},
    failure::{Doing as _, Failure},
    output,
    termination::Termination,
};

pub(crate) mod ejected;
pub(crate) mod figures;

use figures::{bytes, milliseconds, name, percent, rate};

/// Seconds the rates are over, as in the dashboard's live picture.
const WINDOW: u64 = 10;
/// Where nothing has joined.
pub(crate) const NOTHING_YET: &str = "no services yet; join one: heddle run --service hello --port http:8080 -- python3 -m http.server 8080 (in a cluster: kubectl label namespace NAME heddle.dev/inject=true, and restart what runs there)";
/// The other screen, the cursor hidden, long lines cut.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l";
/// Everything as it was.
const LEAVE: &str = "\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l";
/// Rows of a table's head.
const HEAD_ROWS: usize = 2;
/// Rows of a picture below its table: a blank one, the trouble, and two that the cursor goes down.
const ROWS_BELOW: usize = 4;
/// Columns: title and width; the first is as wide as the longest service.
const COLUMNS: [(&str, usize); 12] = [
    ("REQ/S", 8),
    ("SUCCESS", 8),
    ("4XX/S", 7),
    ("5XX/S", 7),
    ("INJ/S", 7),
    ("P50", 9),
    ("P90", 9),
    ("P99", 9),
    ("P50", 9),
    ("P90", 9),
    ("P99", 9),
    ("TCP", 11),
];

/// `heddle top`.
///
/// # Errors
/// A refusal where no such mesh runs or its dashboard does not answer; on a terminal only at the start.
pub(crate) async fn top(args: TopArgs) -> Result<(), Failure> {
    let dashboard = Chosen::of(&args.mesh).await?.dashboard().await?;
    let services = ask(&dashboard, &args.namespaces).await?;
    if args.output == Output::Json {
        output::json(&services)?;
    } else if args.once || !stdout().is_terminal() {
        output::line(with_trouble(table(&services, false), &Trouble::ask(&dashboard).await?));
    }
    if args.once || !stdout().is_terminal() {
        return Ok(());
    }
    if args.output == Output::Json {
        loop {
            clock::sleep(args.interval).await;
            let services = ask(&dashboard, &args.namespaces).await?;
            output::json(&services)?;
        }
    }
    // Taken over before anything is drawn: whichever ends this, the terminal is as it was.
    let signals = Termination::watch().doing(|| "watch for signals".to_owned())?;
    watch(&args, &dashboard, services, signals).await;
    Ok(())
}

/// Redraws until Ctrl-C, or another signal that asks for the end.
async fn watch(
    args: &TopArgs,
    dashboard: &Dashboard,
    mut services: Vec<ServiceSummary>,
    mut signals: Termination,
) {
    let coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut trouble = String::new();
    let mut out = Trouble::ask(dashboard).await.unwrap_or_default();
    output::line(ENTER);
    loop {
        let rows = terminal::rows(&stdout()).unwrap_or(usize::MAX);
        let picture = with_trouble(table(&services, coloured), &out);
        output::line(frame(&picture, &trouble, rows));
        let asked = async {
            clock::sleep(args.interval).await;
            let services = ask(dashboard, &args.namespaces).await?;
            Ok::<_, Failure>((services, Trouble::ask(dashboard).await?))
        };
        tokio::select! {
            answer = asked => match answer {
                Ok(fresh) => {
                    (services, out) = fresh;
                    trouble.clear();
                }
                Err(failure) => trouble = format!("these numbers are old: {failure}"),
            },
            () = signals.next() => break,
        }
    }
    output::line(LEAVE);
    output::line(with_trouble(table(&services, false), &out));
}

/// What is told below the table.
#[derive(Debug, Default)]
struct Trouble {
    ejections: Vec<Ejection>,
    tls: Vec<TlsFailure>,
}

impl Trouble {
    async fn ask(dashboard: &Dashboard) -> Result<Self, Failure> {
        let ejections = ask_ejected(dashboard).await?;
        Ok(Self { ejections, tls: dashboard.ask("/api/v1/tls-failures").await? })
    }
}

/// The table, and below it who is out for its errors, and where no TLS came about.
fn with_trouble(mut table: String, trouble: &Trouble) -> String {
    let now = clock::unix_now().as_secs_f64();
    let tls = trouble.tls.iter().map(|one| without_tls(one, now));
    for line in ejected::lines_now(&trouble.ejections).into_iter().chain(tls) {
        table.push('\n');
        table.push_str(&line);
    }
    table
}

fn without_tls(one: &TlsFailure, now: f64) -> String {
    format!(
        "tls: {} has {:.0} connections on which no TLS came about ({}), the last {:.0} s ago",
        one.by,
        one.total,
        one.reason,
        (now - one.last).max(0.0)
    )
}

/// One picture from the top left corner, clearing what an earlier one left, on a terminal of so
/// many rows: one more would scroll the head away.
fn frame(table: &str, trouble: &str, rows: usize) -> String {
    let mut lines: Vec<&str> = table.lines().collect();
    let room = rows.saturating_sub(ROWS_BELOW).max(HEAD_ROWS + 1);
    let more;
    if lines.len() > room {
        more = format!("+{} more", lines.len() - (room - 1));
        lines.truncate(room - 1);
        lines.push(&more);
    }
    let mut frame = String::from("\u{1b}[H");
    for line in lines.into_iter().chain(["", trouble]) {
        frame.push_str(line);
        frame.push_str("\u{1b}[K\n");
    }
    frame.push_str("\u{1b}[J");
    frame
}

/// Asks for the services of the namespaces that are meant.
async fn ask(
    dashboard: &Dashboard,
    namespaces: &NamespaceFlags,
) -> Result<Vec<ServiceSummary>, Failure> {
    let path = format!("/api/v1/services?window={WINDOW}");
    let mut services: Vec<ServiceSummary> = dashboard.ask(&path).await?;
    services.retain(|row| namespaces.has(&row.service.namespace));
    Ok(services)
}

/// Asks the dashboard who is out for its errors.
///
/// # Errors
/// As [`Dashboard::ask`].
pub(crate) async fn ask_ejected(dashboard: &Dashboard) -> Result<Vec<Ejection>, Failure> {
    dashboard.ask("/api/v1/ejections").await
}

/// The table with its two heads; lines without an end.
fn table(services: &[ServiceSummary], coloured: bool) -> String {
    if services.is_empty() {
        return NOTHING_YET.to_owned();
    }
    let names: Vec<String> = services.iter().map(|row| name(&row.service)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(7);
    let mut text = String::new();
    let before: usize = COLUMNS[..5].iter().map(|(_, width)| width + 1).sum();
    let sides = format!("{:-^29} {:-^29}", " client ", " server ");
    push_line(&mut text, &format!("{:width$} {:before$}{sides}", "", ""));
    let heads: Vec<String> =
        COLUMNS.iter().map(|(title, width)| format!("{title:>width$}")).collect();
    push_line(&mut text, &format!("{:width$} {}", "SERVICE", heads.join(" ")));
    for (row, name) in services.iter().zip(&names) {
        let cells: Vec<String> = cells(row)
            .into_iter()
            .zip(COLUMNS)
            .map(|(cell, (_, width))| format!("{cell:>width$}"))
            .collect();
        let line = format!("{name:width$} {}", cells.join(" "));
        push_line(&mut text, &if coloured { colour(row, line) } else { line });
    }
    text.truncate(text.trim_end().len());
    text
}

fn push_line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ok = writeln!(text, "{}", line.trim_end());
}

fn cells(row: &ServiceSummary) -> [String; 12] {
    let own = own(row);
    let failures = row.client.server_errors_per_second.max(row.server.server_errors_per_second);
    // Delays too: they explain the callers' latency as aborts explain missing calls.
    let faults = |rates: &Rates| rates.injected_per_second + rates.delayed_per_second;
    let injected = faults(&row.client).max(faults(&row.server));
    let asked = own.per_second > 0.0 || row.client.per_second > 0.0;
    let tcp = row.sent_bytes_per_second + row.received_bytes_per_second;
    let latency = |rates: &Rates| [rates.p50_ms, rates.p90_ms, rates.p99_ms].map(milliseconds);
    let [client50, client90, client99] = latency(&row.client);
    let [server50, server90, server99] = latency(&row.server);
    [
        rate(own.per_second),
        if asked { percent(success(row)) } else { figures::NONE.to_owned() },
        rate(own.client_errors_per_second),
        rate(failures),
        rate(injected),
        client50,
        client90,
        client99,
        server50,
        server90,
        server99,
        if tcp > 0.0 { bytes(tcp) } else { figures::NONE.to_owned() },
    ]
}

/// The service's own numbers; its callers' where it has measured nothing.
fn own(row: &ServiceSummary) -> &Rates {
    if row.server.per_second > 0.0 { &row.server } else { &row.client }
}

/// The worse of both sides: a service cannot count the calls that never reached it.
fn success(row: &ServiceSummary) -> f64 {
    row.client.success.min(row.server.success)
}

/// Red from 5 % failures, yellow from 1 %.
fn colour(row: &ServiceSummary, line: String) -> String {
    match 1.0 - success(row) {
        share if share >= 0.05 => format!("\u{1b}[31m{line}\u{1b}[0m"),
        share if share >= 0.01 => format!("\u{1b}[33m{line}\u{1b}[0m"),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use heddle_model::ServiceName;

    use super::*;

    fn row(name: &str, failures: f64) -> ServiceSummary {
        let rates = Rates {
            per_second: 12.34,
            success: 1.0 - failures,
            server_errors_per_second: 12.34 * failures,
            p50_ms: Some(1.5),
            p90_ms: Some(12.0),
            p99_ms: Some(1_200.0),
            ..Rates::default()
        };
        ServiceSummary {
            service: ServiceName::new(name, "default").unwrap(),
            kind: "http".to_owned(),
            client: rates,
            server: Rates { success: 1.0, ..rates },
            sent_bytes_per_second: 0.0,
            received_bytes_per_second: 0.0,
        }
    }

    #[test]
    fn columns_line_up_whatever_the_names() {
        let text = table(&[row("a", 0.0), row("a-much-longer-name", 0.5)], false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        let column = |line: &str, what: &str| line.find(what).map(|at| at + what.len());
        assert_eq!(column(lines[1], "REQ/S"), column(lines[2], "12.3"));
        assert_eq!(column(lines[2], "12.3"), column(lines[3], "12.3"));
        assert!(lines[3].contains("50 %"), "the callers' failures count: {}", lines[3]);
    }

    #[test]
    fn injected_delays_count_as_faults() {
        let mut delayed = row("a", 0.0);
        delayed.client.delayed_per_second = 7.7;
        delayed.client.injected_per_second = 1.0;
        assert_eq!(cells(&delayed)[4], "8.7");
    }

    #[test]
    fn only_trouble_is_coloured() {
        assert!(!table(&[row("a", 0.0)], true).contains('\u{1b}'));
        assert!(table(&[row("a", 0.02)], true).contains("\u{1b}[33m"));
        assert!(table(&[row("a", 0.2)], true).contains("\u{1b}[31m"));
    }

    #[test]
    fn who_gets_no_tls_is_told_below_the_table() {
        let by = heddle_model::WorkloadId("me-v1-1".to_owned());
        let failure = TlsFailure { by, reason: "expired".to_owned(), total: 3.0, last: 96.0 };
        assert_eq!(
            without_tls(&failure, 100.0),
            "tls: me-v1-1 has 3 connections on which no TLS came about (expired), the last 4 s ago"
        );
    }

    #[test]
    fn an_empty_mesh_says_what_to_do() {
        assert!(table(&[], true).contains("heddle run --service"));
    }

    #[test]
    fn a_frame_clears_what_an_earlier_one_left() {
        let frame = frame("a\nb", "", usize::MAX);
        assert!(frame.starts_with("\u{1b}[H") && frame.ends_with("\u{1b}[J"));
        assert_eq!(frame.matches("\u{1b}[K").count(), 4);
    }

    #[test]
    fn more_services_than_rows_keep_the_head_and_are_counted() {
        let table = (1..=20).map(|n| format!("line {n}\n")).collect::<String>();
        let frame = frame(&table, "trouble", 10);
        assert!(frame.contains("line 1\u{1b}") && frame.contains("line 5\u{1b}"), "{frame:?}");
        assert!(!frame.contains("line 6") && frame.contains("+15 more"), "{frame:?}");
        // One less for the line end that printing adds.
        assert_eq!(frame.matches('\n').count(), 10 - 2);
    }
}
