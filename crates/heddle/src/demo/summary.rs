//! What the demo tells people: what runs where, what to try, and how it went.

use heddle_model::discovery::GRPC_STATUSES;

use super::{report::Report, stage::Stage};
use crate::{output, top::ejected};

/// What runs where, the addresses, and three commands to try.
pub(super) fn welcome(stage: &Stage) -> String {
    let rows: Vec<Vec<String>> = stage
        .members
        .iter()
        .map(|running| {
            let member = &running.member;
            let port = member.port.map_or("–", |port| port.rsplit(':').next().unwrap_or(port));
            [member.service, member.version, port, member.program.shown()]
                .map(str::to_owned)
                .to_vec()
        })
        .collect();
    let mesh = stage.mesh.paths.name();
    let dashboard = stage.mesh.info.dashboard.map_or_else(String::new, |a| format!("http://{a}"));
    format!(
        "the demo runs ({:.1} s)\n\n{}\n\n  application  http://{}/\n  dashboard    {dashboard}/\n\n\
         Try, in another terminal:\n  \
         heddle top --mesh {mesh}\n  \
         heddle graph --mesh {mesh}\n  \
         heddle example delay-ratings-80-percent | heddle apply --mesh {mesh} -f -\n\n\
         `tables` is called by gRPC. One copy of `specials` is broken on purpose: a circuit breaker takes it out, and\n\
         `heddle top` says so.\n\n\
         Ctrl-C removes everything.",
        stage.startup_seconds,
        output::table(&["SERVICE", "VERSION", "PORT", "PROGRAM"], &rows),
        stage.front,
    )
}

/// How the calls of gRPC went, by their own status.
fn by_status(report: &Report) -> impl Iterator<Item = String> {
    let edges = report.edges.iter().filter(|edge| !edge.grpc_statuses.is_empty());
    edges.map(|edge| {
        let name = |status: &str| {
            let known = status.parse().ok().and_then(|at: usize| GRPC_STATUSES.get(at));
            known.map_or_else(|| format!("status {status}"), ToString::to_string)
        };
        let statuses = edge.grpc_statuses.iter();
        let statuses = statuses.map(|(status, count)| format!("{} {count}", name(status)));
        let statuses = statuses.collect::<Vec<_>>().join(", ");
        format!("gRPC, {} → {}: {statuses}", edge.source, edge.destination)
    })
}

/// Who was taken out, by whom and why.
fn breaker(report: &Report) -> impl Iterator<Item = String> {
    let failed: u64 = report.edges.iter().map(|edge| edge.failed_on_purpose).sum();
    let out = report.taken_out.iter().map(|one| {
        let (service, why) = (&one.service, ejected::reason(&one.reason));
        format!(
            "circuit breaker: {} of {service} is out: {why}, seen by {}, asked for by {}",
            one.endpoint, one.by, one.rule
        )
    });
    let total = (report.ejections > 0).then(|| {
        format!(
            "circuit breaker: taken out {} times, {failed} calls failed there",
            report.ejections
        )
    });
    out.chain(total)
}

/// What rules had injected, and what came of it: not to be taken for failures of the mesh.
fn faults(report: &Report) -> impl Iterator<Item = String> {
    let injected = report.edges.iter().filter_map(|edge| {
        let words: Vec<String> =
            [(edge.injected_aborts, "aborted"), (edge.injected_delays, "delayed")]
                .into_iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, done)| format!("{count} {done}"))
                .collect();
        (!words.is_empty()).then(|| {
            let words = words.join(", ");
            format!("faults, {} → {}: {words} on purpose by a rule", edge.source, edge.destination)
        })
    });
    let after = (report.failed_after_faults > 0).then(|| {
        format!(
            "faults: {} calls failed before them for that, which are not counted as failed",
            report.failed_after_faults
        )
    });
    injected.chain(after)
}

/// The result of an unattended run.
pub(super) fn result(report: &Report) -> String {
    let told = |count: Option<u64>| count.map_or_else(|| "–".to_owned(), |n| n.to_string());
    let rows: Vec<Vec<String>> = report
        .edges
        .iter()
        .map(|edge| {
            vec![
                format!("{} → {}", edge.source, edge.destination),
                edge.protocol.clone(),
                told(edge.app_sent),
                edge.client_requests.map_or_else(|| "–".to_owned(), |n| n.to_string()),
                edge.server_requests.to_string(),
                told(edge.app_received),
                (edge.injected_aborts + edge.injected_delays).to_string(),
                edge.failed.to_string(),
            ]
        })
        .collect();
    let verdict = if report.captured_both_sides { "yes" } else { "NO" };
    let stories: String = by_status(report)
        .chain(breaker(report))
        .chain(faults(report))
        .map(|line| line + "\n")
        .collect();
    format!(
        "{}\n\n{stories}startup {:.2} s, failed {}, captured on both sides: {verdict}",
        output::table(
            &[
                "CALLS",
                "PROTOCOL",
                "APP SENT",
                "CLIENT",
                "SERVER",
                "APP RECEIVED",
                "FAULTS",
                "FAILED"
            ],
            &rows
        ),
        report.startup_seconds,
        report.failed
    )
}
