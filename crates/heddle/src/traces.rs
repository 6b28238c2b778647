//! `heddle traces`: recent traces as a list, one as a waterfall at 80 columns, either as the API's JSON.

use std::fmt::Write as _;

use heddle_observe::limits::SERVICES_TOLD_MAX;
use heddle_runtime::clock;
use heddle_wire::local::traces_api::{StoreState, Trace, TraceList, TraceSpan};

use crate::{
    chosen::{Chosen, Dashboard},
    cli::{Output, TracesArgs},
    explain::text::counted,
    failure::Failure,
    output::{self, cut},
    top::figures::{NONE, milliseconds},
};

/// Columns of a terminal that every other one has.
const WIDTH: usize = 80;
/// Digits of an id in a list, which are enough to ask for it by.
const ID_DIGITS: usize = 12;
/// So many hexadecimal digits are an id and no service.
const ID_DIGITS_MIN: usize = 8;
/// Columns of a waterfall: who and what, the status, the bar, and how long.
const COLUMNS: [usize; 4] = [36, 7, 25, 8];
/// Further levels are drawn at this one.
const DEPTH_MAX: usize = 12;
/// Spans of a waterfall: more are for a page that scrolls.
const SPANS_MAX: usize = 200;
/// Tags that say why something failed.
const REASONS: [(&str, &str); 6] = [
    ("heddle.refusal", "refused"),
    ("response_flags", "flags"),
    ("heddle.rule", "rule"),
    ("heddle.attempts", "attempts"),
    ("upstream_address", "answered by"),
    ("otel.status_description", "said"),
];

/// `heddle traces`.
///
/// # Errors
/// A refusal where no such mesh runs, its dashboard does not answer, or what is asked for makes no sense.
pub(crate) async fn traces(args: &TracesArgs) -> Result<(), Failure> {
    let dashboard = Chosen::of(&args.mesh).await?.dashboard().await?;
    match &args.what {
        Some(id) if is_id(id) => one(&dashboard, id, args.output).await,
        _ => list(&dashboard, args).await,
    }
}

fn is_id(text: &str) -> bool {
    (ID_DIGITS_MIN..=32).contains(&text.len()) && text.bytes().all(|one| one.is_ascii_hexdigit())
}

async fn one(dashboard: &Dashboard, id: &str, output: Output) -> Result<(), Failure> {
    let trace: Trace = dashboard.ask(&format!("/api/v1/traces/{id}")).await?;
    match output {
        Output::Json => output::json(&serde_json::json!({ "traces": [trace] }))?,
        Output::Text => output::line(waterfall(&trace, now())),
    }
    Ok(())
}

async fn list(dashboard: &Dashboard, args: &TracesArgs) -> Result<(), Failure> {
    let asked: TraceList = dashboard.ask(&format!("/api/v1/traces?{}", query(args))).await?;
    match args.output {
        Output::Json => output::json(&asked)?,
        Output::Text if asked.traces.is_empty() => output::line(nothing(&asked, args)),
        Output::Text => output::line(listed(&asked, now())),
    }
    Ok(())
}

/// The question as a URL has it.
fn query(args: &TracesArgs) -> String {
    let mut query = format!("limit={}", args.limit);
    for (name, value) in [
        ("service", &args.what),
        ("status", &args.status),
        ("longer_than", &args.slower_than),
        ("shorter_than", &args.faster_than),
        ("path", &args.path),
        ("since", &args.since),
    ] {
        if let Some(value) = value {
            query.push_str(&format!("&{name}="));
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
                    query.push(char::from(byte));
                } else {
                    query.push_str(&format!("%{byte:02X}"));
                }
            }
        }
    }
    query
}

/// What to do where there are none.
fn nothing(asked: &TraceList, args: &TracesArgs) -> String {
    let store = &asked.store;
    if store.traces > 0
        && let Some(service) = unheard_of(store, args)
    {
        return format!(
            "none of the {} traces that are kept has a span of `{}` (`heddle get services` lists services; an id needs {ID_DIGITS_MIN} digits)",
            store.traces,
            plain(service)
        );
    }
    match &store.elsewhere {
        _ if store.traces > 0 => {
            format!("none of the {} traces that are kept is so", store.traces)
        }
        Some(to) if to == "none" => {
            "no traces: the mesh was started with --trace-to none".to_owned()
        }
        Some(to) => format!("no traces here: the spans of the mesh go to {}", plain(to)),
        None => "no traces yet: make a call, e.g. heddle run --service client -- curl -s http://SERVICE/".to_owned(),
    }
}

/// The service that was asked for, if no trace has a span of it.
fn unheard_of<'a>(store: &StoreState, args: &'a TracesArgs) -> Option<&'a str> {
    let asked = args.what.as_deref()?;
    let filters = [&args.status, &args.slower_than, &args.faster_than, &args.path, &args.since];
    let is_it = |known: &String| {
        known.strip_prefix(asked).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    // Of very many services some are not named: with a filter nobody knows then.
    let all_named = store.services.len() < SERVICES_TOLD_MAX;
    let is_certain = filters.iter().all(|filter| filter.is_none()) || all_named;
    (is_certain && !store.services.iter().any(is_it)).then_some(asked)
}

/// Enough of an id to ask for it by: those of 64 bits have zeros before them.
fn short_id(id: &str) -> String {
    match id.strip_prefix("0000000000000000") {
        Some(short) => plain(short),
        None => plain(&id.chars().take(ID_DIGITS).collect::<String>()),
    }
}

fn listed(asked: &TraceList, now: f64) -> String {
    let rows = asked.traces.iter().map(|trace| {
        let failed =
            if trace.errors > 0 { format!(" ({} failed)", trace.errors) } else { String::new() };
        vec![
            ago(now - trace.start),
            milliseconds(Some(trace.duration_ms)),
            plain(&trace.status),
            // Some are still expected.
            format!("{}{}", trace.span_count, if trace.complete { "" } else { "+" }),
            short_id(&trace.id),
            format!("{} {}{failed}", short(&trace.service), plain(&trace.name)),
        ]
    });
    let head = ["AGO", "TOOK", "STATUS", "SPANS", "TRACE", "WHAT"];
    let table = output::table(&head, &rows.collect::<Vec<_>>());
    let mut text: Vec<String> = table.lines().map(|line| cut(line, WIDTH)).collect();
    if asked.more {
        text.push("(there are more: --limit, or filters)".to_owned());
    }
    text.join("\n")
}

/// A trace with a line for each span.
fn waterfall(trace: &Trace, now: f64) -> String {
    let mut text = String::new();
    let failed = match trace.errors {
        0 => String::new(),
        errors => format!(", {errors} failed"),
    };
    push(&mut text, &format!("trace {}", plain(&trace.id)));
    let took = milliseconds(Some(trace.duration_ms));
    let spans = trace.spans.len();
    let told = counted(spans, "span");
    push(&mut text, &format!("{took}, {told}{failed}, {} ago\n", ago(now - trace.start)));
    for span in trace.spans.iter().take(SPANS_MAX) {
        push(&mut text, line(trace, span).trim_end());
    }
    let left_out = usize::try_from(trace.left_out).unwrap_or(usize::MAX);
    let hidden = spans.saturating_sub(SPANS_MAX).saturating_add(left_out);
    if hidden > 0 {
        push(&mut text, &format!("({})", counted(hidden, "more span")));
    }
    for span in trace.spans.iter().filter(|span| span.error).take(SPANS_MAX) {
        let reasons = reasons(span);
        if !reasons.is_empty() {
            push(
                &mut text,
                &format!("\n{} {}: {}", short(&span.service), about(span), span.status),
            );
            reasons.iter().for_each(|reason| push(&mut text, &cut(&format!("  {reason}"), WIDTH)));
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn line(trace: &Trace, span: &TraceSpan) -> String {
    let [who, status, bar, _] = COLUMNS;
    let depth = usize::try_from(span.depth).unwrap_or(DEPTH_MAX).min(DEPTH_MAX);
    let sign = match span.kind.as_str() {
        "client" | "producer" => " -> ",
        "server" | "consumer" => " <- ",
        _ => " ",
    };
    let label = format!("{}{}{sign}{}", " ".repeat(depth), short(&span.service), about(span));
    let (label, said) = (cut(&label, who), cut(&plain(&span.status), status));
    let drawn = drawn(trace.duration_ms, span, bar);
    format!("{label:who$} {said:status$} {drawn} {}", milliseconds(Some(span.duration_ms)))
}

/// The bar of a span, `width` columns.
fn drawn(whole: f64, span: &TraceSpan, width: usize) -> String {
    let at = |ms: f64| {
        if whole > 0.0 { (ms / whole * width as f64).clamp(0.0, width as f64) } else { 0.0 }
    };
    let begin = (at(span.offset_ms).floor() as usize).min(width - 1);
    let end = (at(span.offset_ms + span.duration_ms).ceil() as usize).clamp(begin + 1, width);
    let sign = if span.error { "x" } else { "=" };
    format!("{}{}{}", " ".repeat(begin), sign.repeat(end - begin), " ".repeat(width - end))
}

fn about(span: &TraceSpan) -> String {
    match (span.method.as_str(), span.path.as_str()) {
        ("", _) | (_, "") => plain(&span.name),
        (method, path) => plain(&format!("{method} {path}")),
    }
}

/// Why a span failed, as far as it says so.
fn reasons(span: &TraceSpan) -> Vec<String> {
    let tag = |(name, word): (&str, &str)| {
        let value = span.tags.get(name).filter(|value| !value.is_empty() && *value != NONE)?;
        Some(format!("{word}: {}", plain(value)))
    };
    let events = span.events.iter();
    let events = events
        .map(|event| format!("at {}: {}", milliseconds(Some(event.offset_ms)), plain(&event.text)));
    REASONS.into_iter().filter_map(tag).chain(events).collect()
}

/// A service without the namespace that goes without saying.
fn short(service: &str) -> String {
    let suffix = format!(".{}", heddle_model::name::DEFAULT_NAMESPACE);
    plain(service.strip_suffix(&suffix).unwrap_or(service))
}

/// Text of somebody else's that moves no cursor and turns no line round.
fn plain(text: &str) -> String {
    let safe = |one: char| match one {
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => '\u{fffd}',
        one if one.is_control() => '\u{fffd}',
        one => one,
    };
    text.chars().map(safe).collect()
}

/// How long ago something was.
fn ago(seconds: f64) -> String {
    match seconds.max(0.0) {
        seconds if seconds < 100.0 => format!("{seconds:.0}s"),
        seconds if seconds < 6_000.0 => format!("{:.0}m", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.0}h", seconds / 3_600.0),
        seconds => format!("{:.0}d", seconds / 86_400.0),
    }
}

/// Unix time in seconds.
fn now() -> f64 {
    clock::unix_now().as_secs_f64()
}

fn push(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ok = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser as _;
    use heddle_wire::local::traces_api::SpanEvent;

    use super::*;
    use crate::cli::{Cli, Command};

    fn span(service: &str, kind: &str, depth: u64, times: (f64, f64), status: &str) -> TraceSpan {
        TraceSpan {
            service: service.to_owned(),
            kind: kind.to_owned(),
            depth,
            offset_ms: times.0,
            duration_ms: times.1,
            status: status.to_owned(),
            error: status == "503",
            method: "GET".to_owned(),
            path: "/page".to_owned(),
            ..TraceSpan::default()
        }
    }

    fn sample() -> Trace {
        let failing = TraceSpan {
            tags: BTreeMap::from([
                ("heddle.refusal".to_owned(), "no-endpoint".to_owned()),
                ("response_flags".to_owned(), "-".to_owned()),
            ]),
            events: vec![SpanEvent { offset_ms: 60.0, text: "refused: \u{1b}[2J".to_owned() }],
            ..span("a.default", "client", 2, (50.0, 25.0), "503")
        };
        Trace {
            id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
            start: 1_000.0,
            duration_ms: 100.0,
            service: "client.default".to_owned(),
            name: "GET /page".to_owned(),
            status: "200".to_owned(),
            errors: 1,
            span_count: 3,
            complete: true,
            spans: vec![
                span("client.default", "client", 0, (0.0, 100.0), "200"),
                span("a.default", "server", 1, (2.0, 96.0), "200"),
                failing,
            ],
            ..Trace::default()
        }
    }

    #[test]
    fn a_waterfall_fits_80_columns_and_says_why_something_failed() {
        let text = waterfall(&sample(), 1_042.0);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        for wanted in [
            "100 ms, 3 spans, 1 failed, 42s ago",
            "client -> GET /page                  200     ========================= 100 ms",
            "  a -> GET /page                     503                 xxxxxxx       25 ms",
            "  refused: no-endpoint",
            "  at 60 ms: refused: \u{fffd}[2J",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        assert!(!text.contains("flags:"), "{text}");
    }

    #[test]
    fn one_span_is_no_spans() {
        let mut trace = sample();
        trace.spans.truncate(1);
        let text = waterfall(&Trace { left_out: 1, ..trace }, 1_042.0);
        assert!(text.contains(", 1 span, 1 failed") && text.contains("(1 more span)"), "{text}");
    }

    #[test]
    fn a_service_without_a_span_is_named() {
        let asked = |words: &[&str]| {
            let words = [&["heddle", "traces"], words].concat();
            match Cli::try_parse_from(words).unwrap().command {
                Command::Traces(args) => args,
                _ => unreachable!("it is `traces`"),
            }
        };
        let services = vec!["web.default".to_owned()];
        let store = StoreState { traces: 3, services, ..StoreState::default() };
        let told = TraceList { store, ..TraceList::default() };
        let none = "none of the 3 traces that are kept has a span of `we` (`heddle get services`";
        let so = "none of the 3 traces that are kept is so";
        for (words, says) in [
            (&["we"][..], none),
            (&["we", "--status", "5xx"], none),
            (&["web", "--status", "5xx"], so),
            (&["web.default", "--since", "1m"], so),
            (&["--status", "5xx"], so),
        ] {
            let text = nothing(&told, &asked(words));
            assert!(text.starts_with(says), "{words:?}: {text}");
        }
    }

    #[test]
    fn a_list_fits_80_columns() {
        let long = Trace { name: "GET /a/very/long/path".repeat(9), ..sample() };
        let list = TraceList { traces: vec![sample(), long], more: true, ..TraceList::default() };
        let text = listed(&list, 1_030.0);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(
            text.contains("30s  100 ms  200     3      4bf92f3577b3  client GET /page (1 failed)"),
            "{text}"
        );
        assert!(text.ends_with("(there are more: --limit, or filters)"));
    }

    #[test]
    fn a_bar_is_drawn_whatever_its_span_says() {
        for (offset, duration, whole) in [
            (0.0, 0.0, 0.0),
            (-5.0, 1.0, 10.0),
            (1e300, 1e300, 10.0),
            (f64::NAN, f64::NAN, 1.0),
            (99.99, 0.0, 100.0),
        ] {
            let bar = drawn(whole, &span("a", "server", 0, (offset, duration), "200"), 25);
            assert!(bar.len() == 25 && bar.contains('='), "{bar:?}");
        }
    }

    #[test]
    fn an_id_is_no_service() {
        assert!(
            is_id("4bf92f3577b3")
                && !is_id("4bf92f3")
                && !is_id("reviews")
                && !is_id("feedface.default")
        );
    }
}
