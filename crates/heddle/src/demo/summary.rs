//! What the demo tells people: what runs where, what to try, and how it went.

use super::{report::Report, stage::Stage};
use crate::output;

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
         heddle apply --mesh {mesh} -f examples/delay-ratings-80-percent.yaml\n\n\
         Ctrl-C removes everything.",
        stage.startup_seconds,
        output::table(&["SERVICE", "VERSION", "PORT", "PROGRAM"], &rows),
        stage.front,
    )
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
                edge.failed.to_string(),
            ]
        })
        .collect();
    let verdict = if report.captured_both_sides { "yes" } else { "NO" };
    format!(
        "{}\n\nstartup {:.2} s, failed {}, captured on both sides: {verdict}",
        output::table(
            &["CALLS", "PROTOCOL", "APP SENT", "CLIENT", "SERVER", "APP RECEIVED", "FAILED"],
            &rows
        ),
        report.startup_seconds,
        report.failed
    )
}
