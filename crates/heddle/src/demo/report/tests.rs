//! The report on synthetic scrapes.

use super::*;
use crate::demo::plan::Program;

fn request(reporter: &str, edge: (&str, &str), code: &str, flags: &str, count: u64) -> String {
    let (source, destination) = edge;
    format!(
        "istio_requests_total{{reporter=\"{reporter}\",source_canonical_service=\"{source}\",\
         destination_service_name=\"{destination}\",destination_version=\"v1\",\
         response_code=\"{code}\",response_flags=\"{flags}\"}} {count}\n"
    )
}

fn evidence(service: &'static str, metrics: String, told: Option<AppCounts>) -> Evidence {
    let member = Member { service, version: "v1", port: None, program: Program::Example };
    Evidence { member, metrics, told }
}

/// A mesh in which every planned edge carried 10 calls, both sides agreeing.
fn complete() -> Vec<Evidence> {
    EDGES
        .iter()
        .map(|edge| {
            let text = request("source", *edge, "200", "-", 10)
                + &request("destination", *edge, "200", "-", 10);
            evidence("none", text, None)
        })
        .collect()
}

#[test]
fn a_mesh_that_saw_every_call_on_both_sides_is_captured() {
    let report = make("demo", 1.0, &complete()).unwrap();
    assert!(report.captured_both_sides);
    assert_eq!((report.edges.len(), report.failed), (EDGES.len(), 0));
}

#[test]
fn an_edge_that_nobody_used_is_not_captured() {
    let mut all = complete();
    all.pop();
    assert!(!make("demo", 1.0, &all).unwrap().captured_both_sides);
}

#[test]
fn an_injected_abort_is_no_failure_and_is_not_expected_at_the_server() {
    let mut all = complete();
    all.push(evidence("none", request("source", ("reviews", "ratings"), "500", "FI", 5), None));
    let report = make("demo", 1.0, &all).unwrap();
    let edge = report.edges.iter().find(|edge| edge.destination == "ratings").unwrap();
    assert_eq!((edge.client_requests, edge.injected_aborts, edge.failed), (Some(15), 5, 0));
    assert!(report.captured_both_sides);
}

#[test]
fn what_fails_after_an_injected_fault_is_no_failure_of_the_demo() {
    let mut all = complete();
    let text = request("source", ("reviews", "ratings"), "500", "FI", 3)
        + &request("source", ("frontend", "reviews"), "502", "-", 3)
        + &request("source", ("loadgen", "frontend"), "500", "-", 4);
    all.push(evidence("none", text, None));
    let report = make("demo", 1.0, &all).unwrap();
    assert_eq!((report.injected_aborts, report.failed_after_faults), (3, 6));
    assert_eq!(report.failed, 1, "three faults account for three calls of each edge before them");
}

#[test]
fn a_call_the_application_sent_and_no_sidecar_saw_is_found() {
    let told = AppCounts { sent: [("frontend".to_owned(), 11)].into(), ..AppCounts::default() };
    let mut all = complete();
    all.push(evidence("loadgen", String::new(), Some(told)));
    let report = make("demo", 1.0, &all).unwrap();
    assert!(!report.captured_both_sides);
    let edge = report.edges.iter().find(|edge| edge.source == "loadgen").unwrap();
    assert_eq!((edge.app_sent, edge.app_received), (Some(11), None));
}

#[test]
fn a_missing_answer_is_a_failure() {
    let mut all = complete();
    let edge = ("frontend", "photos");
    all.push(evidence(
        "none",
        request("source", edge, "0", "UC", 1) + &request("destination", edge, "0", "DC", 1),
        None,
    ));
    let report = make("demo", 1.0, &all).unwrap();
    assert_eq!(report.failed, 1);
}

#[test]
fn a_call_from_outside_the_mesh_is_seen_by_the_callee_alone() {
    let mut all = complete();
    let edge = ("unknown", "frontend");
    let told = AppCounts { received: [("unknown".to_owned(), 3)].into(), ..AppCounts::default() };
    let text =
        request("destination", edge, "200", "-", 2) + &request("destination", edge, "503", "UF", 1);
    all.push(evidence("none", text, Some(told)));
    let report = make("demo", 1.0, &all).unwrap();
    assert!(report.captured_both_sides);
    let edge = report.edges.iter().find(|edge| edge.source == "outside").unwrap();
    assert_eq!((edge.client_requests, edge.server_requests, edge.failed), (None, 3, 1));
}

#[test]
fn a_broken_connection_is_a_failure_of_the_service() {
    let mut all = complete();
    let sample = |name: &str, flags: &str, count: u64| {
        format!(
            "istio_tcp_connections_{name}_total{{reporter=\"destination\",\
             source_canonical_service=\"restaurants\",destination_service_name=\"store\",\
             destination_version=\"v2\",response_flags=\"{flags}\"}} {count}\n"
        )
    };
    let text = sample("opened", "-", 4) + &sample("closed", "-", 2) + &sample("closed", "UF", 1);
    all.push(evidence("none", text, None));
    let report = make("demo", 1.0, &all).unwrap();
    let store = report.services.iter().find(|service| service.version == "v2").unwrap();
    assert_eq!((store.requests, store.success_rate), (4, 0.75));
}

#[test]
fn calls_of_grpc_are_told_by_their_own_status() {
    let mut all = complete();
    let calls = |status: u8, count: u64| {
        request("source", ("frontend", "tables"), "200", "-", count).replace(
            "response_code",
            &format!("request_protocol=\"grpc\",grpc_response_status=\"{status}\",response_code"),
        )
    };
    all.push(evidence("none", calls(0, 4) + &calls(5, 2) + &calls(14, 1), None));
    let report = make("demo", 1.0, &all).unwrap();
    let edge = report.edges.iter().find(|edge| edge.destination == "tables").unwrap();
    assert_eq!(edge.protocol, "grpc");
    let statuses: Vec<_> = edge.grpc_statuses.iter().map(|(s, n)| (s.as_str(), *n)).collect();
    assert_eq!(statuses, [("0", 4), ("14", 1), ("5", 2)]);
    assert_eq!(edge.failed, 1, "what is not found is no failure, and who is not there is");
}

#[test]
fn what_is_broken_on_purpose_is_no_failure_of_the_demo_and_who_took_it_out_is_told() {
    let mut all = complete();
    let broken = request("source", ("frontend", "specials"), "503", "-", 3)
        .replace("destination_version=\"v1\"", "destination_version=\"v2\"");
    let at_server = broken.replace("reporter=\"source\"", "reporter=\"destination\"");
    let labels = "destination_service=\"specials.default.svc.cluster.local\",destination_port=\"80\",subset=\"\"";
    let out = format!(
        "heddle_endpoint_ejected{{{labels},endpoint=\"specials-v2-1\",address=\"a\",reason=\"consecutive5xxErrors\",rule=\"DestinationRule/default/specials\"}} 1\nheddle_endpoint_ejections_total{{{labels},reason=\"consecutive5xxErrors\"}} 2\n"
    );
    all.push(evidence("frontend", broken + &out, None));
    all.push(evidence("specials", at_server, None));
    let report = make("demo", 1.0, &all).unwrap();
    assert_eq!((report.failed, report.ejections), (0, 2));
    assert!(report.captured_both_sides);
    let edge = report.edges.iter().find(|edge| edge.destination == "specials").unwrap();
    assert_eq!((edge.failed, edge.failed_on_purpose), (0, 3));
    let out = &report.taken_out[0];
    assert_eq!(
        (&*out.service, &*out.by, &*out.endpoint),
        ("specials", "frontend-v1", "specials-v2-1")
    );
}
