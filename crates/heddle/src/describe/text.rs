//! A service's page as people read it: what is wrong first, then what there is, then how to go on.

use heddle_runtime::clock;
use heddle_wire::local::{
    observe_api::{Edge, Rates, TemplateRow},
    sidecar_api::RuleInForce,
};

use super::page::{Description, Measured};
use crate::{
    control_client::problem_line,
    naming::{object, short},
    output,
    top::{
        ejected,
        figures::{milliseconds, name, percent, rate},
    },
};

/// Rows of a table.
const ROWS: usize = 12;

pub(super) fn of(told: &Description) -> String {
    let mut lines = vec![format!("{} ({})", short(&told.service), told.host)];
    lines.extend(first(told));
    section(&mut lines, "ports", told.ports.clone());
    if !told.addresses.is_empty() {
        section(&mut lines, "addresses", told.addresses.clone());
    }
    workloads(&mut lines, told);
    rules(&mut lines, told);
    if let Some(measured) = &told.measured {
        calls(&mut lines, measured);
    }
    if let Some(why) = &told.unmeasured {
        lines.push(format!("\nnothing is measured: {why}"));
    }
    section(&mut lines, "problems", told.problems.iter().map(problem_line).collect());
    section(&mut lines, "to go on", commands(told));
    lines.join("\n")
}

fn section(lines: &mut Vec<String>, title: &str, rows: Vec<String>) {
    if rows.is_empty() {
        return;
    }
    lines.push(format!("\n{title}"));
    lines.extend(rows.iter().flat_map(|row| row.lines()).map(|row| format!("  {row}")));
}

/// What to look at first.
fn first(told: &Description) -> Vec<String> {
    let mut first = Vec::new();
    if told.workloads.is_empty() && !told.service.is_host() {
        first.push("Nobody is behind it: calls are refused.".to_owned());
    } else if !told.workloads.is_empty() && told.workloads.iter().all(|one| !one.ready) {
        first.push("None of its workloads is ready: calls are refused.".to_owned());
    }
    if let Some(sidecar) = &told.refused_by {
        first.push(format!("{sidecar} does not let callers of its namespace call it."));
    }
    if let Some(measured) = &told.measured {
        let mut sentences = measured.first.clone();
        if let (Some(since), Some(sentence)) = (measured.failing_since, sentences.first_mut()) {
            let ago = (clock::unix_now().as_secs_f64() - since).max(0.0);
            *sentence = format!("{}, for {ago:.0} s now.", sentence.trim_end_matches('.'));
        }
        first.extend(sentences);
        first.extend(measured.on_purpose.iter().chain(&measured.lost_contexts).cloned());
        first.extend(ejected::lines_now(&measured.ejections));
        first.extend(measured.names.iter().map(|failure| {
            let meant =
                failure.did_you_mean.as_ref().map(|meant| format!(" (did you mean `{meant}`?)"));
            format!(
                "{} asked for the name `{}` in vain{}.",
                failure.by,
                failure.name,
                meant.unwrap_or_default()
            )
        }));
    }
    if first.is_empty() {
        return Vec::new();
    }
    let mut lines = vec!["\nlook at first".to_owned()];
    lines.extend(first.into_iter().map(|line| format!("  {line}")));
    lines
}

fn workloads(lines: &mut Vec<String>, told: &Description) {
    let rows: Vec<Vec<String>> = told
        .workloads
        .iter()
        .take(ROWS)
        .map(|one| {
            let version = if one.version.is_empty() { "-" } else { &one.version };
            vec![
                one.id.clone(),
                version.to_owned(),
                one.address.clone(),
                one.ports.join(", "),
                one.sidecar.clone(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let table = output::table(&["WORKLOAD", "VERSION", "ADDRESS", "PORTS", "SIDECAR"], &rows);
        section(lines, "workloads", vec![table]);
    }
    if told.workloads.len() > ROWS {
        lines.push(format!("  and {} more", told.workloads.len() - ROWS));
    }
}

fn rules(lines: &mut Vec<String>, told: &Description) {
    for port in told.rules.iter().filter(|port| !port.rules.is_empty()) {
        let title = match port.port {
            0 => "rules on every port, tried in this order".to_owned(),
            port => format!("rules on port {port}, tried in this order"),
        };
        section(lines, &title, port.rules.iter().map(rule).collect());
    }
    section(lines, "policies", told.policies.iter().map(rule).collect());
    let objects = told.objects.iter().map(|one| {
        let notes: String =
            one.notes.iter().map(|note| format!("\n  {}", problem_line(note))).collect();
        format!("{} ({}): {}{notes}", one.object, one.source, one.state)
    });
    section(lines, "these rules are part of", objects.collect());
    if told.objects.is_empty() {
        lines.push("\nno rules: calls go to any of its workloads".to_owned());
    }
}

fn rule(rule: &RuleInForce) -> String {
    let conditions: Vec<_> = rule.matches.iter().map(|all| all.join(", and ")).collect();
    let matches = match conditions.is_empty() {
        true => "all calls".to_owned(),
        false => conditions.join("; or "),
    };
    format!("{}\n  for   {matches}\n  does  {}", rule.rule, rule.does.join("; "))
}

fn calls(lines: &mut Vec<String>, measured: &Measured) {
    let unit = if measured.kind == "tcp" { "CONN/S" } else { "REQ/S" };
    let side = |who: &str, rates: &Rates| {
        vec![
            who.to_owned(),
            rate(rates.per_second),
            percent(rates.success),
            rate(rates.server_errors_per_second),
            milliseconds(rates.p50_ms),
            milliseconds(rates.p99_ms),
        ]
    };
    let head = ["SEEN BY", unit, "SUCCESS", "5XX/S", "P50", "P99"];
    let rows = [side("its callers", &measured.client), side("itself", &measured.server)];
    let title = format!("calls of the last {:.0} s", measured.window);
    section(lines, &title, vec![output::table(&head, &rows)]);
    let table = |title: &str, edges: &[Edge], other: &dyn Fn(&Edge) -> String| {
        let row = |edge: &Edge| {
            let [client, server] = [&edge.client, &edge.server];
            vec![
                other(edge),
                edge.protocol.clone(),
                rate(client.per_second),
                percent(client.success),
                rate(server.per_second),
                percent(server.success),
            ]
        };
        let rows: Vec<_> = edges.iter().take(ROWS).map(row).collect();
        let head = [title, "SPEAKS", "CLIENT/S", "SUCCESS", "SERVER/S", "SUCCESS"];
        (!rows.is_empty()).then(|| output::table(&head, &rows))
    };
    let callers = table("CALLER", &measured.callers, &|edge| name(&edge.source));
    section(lines, "who calls it", callers.into_iter().collect());
    let callees = table("CALLEE", &measured.callees, &|edge| name(&edge.destination));
    section(lines, "whom it calls", callees.into_iter().collect());
    section(lines, "paths, as its own sidecars saw them", templates(measured));
}

/// The busiest paths, one line for what differs by numbers and ids only.
fn templates(measured: &Measured) -> Vec<String> {
    let row = |row: &TemplateRow| {
        let path = match row.path.as_str() {
            "unknown" => "(answered with 4xx only)",
            "overflow" => "(further ones)",
            path => path,
        };
        vec![
            path.to_owned(),
            rate(row.rates.per_second),
            percent(row.rates.success),
            milliseconds(row.rates.p50_ms),
            milliseconds(row.rates.p99_ms),
        ]
    };
    let rows: Vec<_> = measured.templates.iter().take(ROWS).map(row).collect();
    match rows.is_empty() {
        true => Vec::new(),
        false => vec![output::table(&["PATH", "REQ/S", "SUCCESS", "P50", "P99"], &rows)],
    }
}

fn commands(told: &Description) -> Vec<String> {
    let service = short(&told.service);
    let caller = told.measured.as_ref().and_then(|measured| measured.callers.first());
    let caller = caller.map_or_else(|| "CALLER".to_owned(), |edge| short(&edge.source));
    let port = told.ports.first().and_then(|port| port.split(' ').next()).unwrap_or("PORT");
    let mut commands = vec![
        format!(
            "heddle explain --from {caller} --to {service}:{port}    which rule a call meets, and where it goes"
        ),
        "heddle why    what was refused lately, by id".to_owned(),
    ];
    if let Some(first) = told.objects.first() {
        let mut parts = object(&first.object).split('/');
        if let (Some(kind), Some(namespace), Some(name)) =
            (parts.next(), parts.next(), parts.next())
        {
            let kind = kind.to_ascii_lowercase();
            commands.push(format!(
                "heddle get {kind} {name} -n {namespace} -o yaml    the rule as written"
            ));
        }
    }
    commands
}
