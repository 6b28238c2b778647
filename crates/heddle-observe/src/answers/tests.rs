//! Whole chains on synthetic scrapes: text in, JSON types out.

use std::net::IpAddr;

use heddle_model::ResourceKey;
use heddle_wire::local::{control_api::ResourceView, observe_api::Graph};

use super::*;
use crate::{
    grown::Grown,
    ledger::{Ledger, Past},
    measure::Owner,
    names::FailedName,
    roster::{KnownService, Member},
};

const START: u64 = 1_700_000_000;

/// A mesh of three sidecars whose scrapes are written by hand.
struct Mesh {
    view: View,
    ledgers: BTreeMap<&'static str, Ledger>,
    now: u64,
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name, "default").unwrap()
}

impl Mesh {
    fn new(members: &[(&'static str, &str)]) -> Self {
        let mut view = View { mesh: "test".to_owned(), ..View::default() };
        let mut ledgers = BTreeMap::new();
        for (index, (id, name)) in members.iter().enumerate() {
            let owner =
                Owner { id: (*id).to_owned(), service: service(name), version: "v1".to_owned() };
            ledgers.insert(*id, Ledger::new(owner.clone(), Past::default()));
            let address = IpAddr::from([240, 241, 0, u8::try_from(index).unwrap() + 10]);
            let member = Member {
                owner,
                services: [service(name)].into(),
                name: (*id).to_owned(),
                address,
                present: true,
                ran_before: false,
                scraped: true,
                ejected: Vec::new(),
                tls: Grown::default(),
                lost: Grown::default(),
                names: Vec::new(),
            };
            view.roster.members.insert((*id).to_owned(), member);
            let known = KnownService { address: Some(address), kind: ServiceKind::Undeclared };
            view.roster.services.insert(service(name), known);
        }
        view.roster.control = true;
        Self { view, ledgers, now: START }
    }

    /// One round, a second after the last.
    fn round(&mut self, scrapes: &[(&'static str, String)]) {
        self.view.store.begin_round(self.now, 1.0);
        self.now += 1;
        for (id, text) in scrapes {
            let ledger = self.ledgers.get_mut(id).unwrap();
            let store = &mut self.view.store;
            ledger.begin();
            for line in text.lines() {
                ledger.line(line.as_bytes(), &mut store.cells, &mut store.answers).unwrap();
            }
            let spread = store.spread(store.elapsed() - 1.0);
            for (cell, increase) in ledger.commit() {
                store.add(&cell, &increase, &spread);
            }
        }
    }

    fn graph(&self, window: u64) -> Graph {
        self.view.graph(TimeRange { window, end: None })
    }
}

/// Counters of calls `web` → `api` as one side reports them.
struct Calls {
    reporter: &'static str,
    version: &'static str,
    code: u16,
    flags: &'static str,
    count: u64,
    /// Upper bound of the bucket all of them are in.
    le: &'static str,
}

impl Calls {
    fn text(&self) -> String {
        let Self { reporter, version, code, flags, count, le } = self;
        let labels = format!(
            "reporter=\"{reporter}\",source_workload=\"web-v1\",source_workload_namespace=\"default\",\
             source_canonical_service=\"web\",destination_service=\"api.default.svc.cluster.local\",\
             destination_version=\"{version}\",request_protocol=\"http\",response_code=\"{code}\",response_flags=\"{flags}\""
        );
        let bound: f64 = le.parse().unwrap();
        let buckets: String = crate::quantile::BUCKETS
            .iter()
            .map(|&known| {
                let n = if known >= bound { *count } else { 0 };
                let le = if known.is_infinite() { "+Inf".to_owned() } else { known.to_string() };
                format!("istio_request_duration_milliseconds_bucket{{{labels},le=\"{le}\"}} {n}\n")
            })
            .collect();
        format!("istio_requests_total{{{labels}}} {count}\n{buckets}")
    }
}

fn client(code: u16, flags: &'static str, count: u64) -> String {
    Calls { reporter: "source", version: "v1", code, flags, count, le: "25" }.text()
}

fn server(version: &'static str, code: u16, count: u64) -> String {
    Calls { reporter: "destination", version, code, flags: "-", count, le: "10" }.text()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}

#[test]
fn statuses_of_grpc_that_come_to_the_same_are_one_row() {
    let mut mesh = Mesh::new(&[("api-1", "api")]);
    let count = |status: u32, protocol: &str, count: u64| {
        format!(
            "istio_requests_total{{reporter=\"destination\",destination_service=\"api.default.svc.cluster.local\",\
             request_protocol=\"{protocol}\",response_code=\"200\",grpc_response_status=\"{status}\",response_flags=\"-\"}} {count}\n"
        )
    };
    let told =
        |calls| count(0, "grpc", calls) + &count(2, "grpc", calls) + &count(13, "grpc", calls);
    mesh.round(&[("api-1", told(0))]);
    mesh.round(&[("api-1", told(10))]);
    let page = mesh.view.page(&service("api"), TimeRange { window: 10, end: None }).unwrap();
    let mut codes: Vec<u16> = page.responses.iter().map(|row| row.code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [200, 500], "statuses 2 and 13 are both 500");
}

#[test]
fn an_edge_is_measured_on_both_sides_and_injected_aborts_are_no_failures() {
    let mut mesh = Mesh::new(&[("web-1", "web"), ("api-1", "api")]);
    for second in 0..=20 {
        let web = client(200, "-", 60 * second)
            + &client(503, "UF", 20 * second)
            + &client(500, "FI", 20 * second);
        mesh.round(&[("web-1", web), ("api-1", server("v1", 200, 60 * second))]);
    }
    let graph = mesh.graph(10);
    assert_eq!(graph.edges.len(), 1);
    let edge = &graph.edges[0];
    assert_eq!((edge.source.name.as_str(), edge.destination.name.as_str()), ("web", "api"));
    assert_eq!(edge.protocol, "http");
    assert!(near(edge.client.per_second, 100.0) && near(edge.server.per_second, 60.0), "{edge:?}");
    assert!(near(edge.client.injected_per_second, 20.0));
    assert!(near(edge.client.server_errors_per_second, 20.0));
    assert!(near(edge.client.success, 0.75), "20 of the 80 that were not aborted on purpose");
    assert!(near(edge.server.success, 1.0));
    assert_eq!((edge.client.p50_ms, edge.server.p50_ms), (Some(17.5), Some(7.5)));
    let api = graph.nodes.iter().find(|node| node.service.name == "api").unwrap();
    assert_eq!(api.kind, "http");
    assert!(near(api.rates.success, 1.0) && near(api.client.success, 0.75));
    assert!(api.failing_since.is_some(), "its callers cannot reach it");
    let web = graph.nodes.iter().find(|node| node.service.name == "web").unwrap();
    assert_eq!((web.failing_since, web.rates.per_second), (None, 0.0));
    assert_eq!(graph.coverage.scraped, 2);
}

#[test]
fn versions_share_what_was_received() {
    let mut mesh = Mesh::new(&[("web-1", "web"), ("api-1", "api")]);
    for second in 0..=10 {
        let api = server("v1", 200, 30 * second) + &server("v2", 503, 10 * second);
        mesh.round(&[("api-1", api)]);
    }
    let graph = mesh.graph(10);
    let api = graph.nodes.iter().find(|node| node.service.name == "api").unwrap();
    let shares: Vec<_> = api.versions.iter().map(|v| (v.version.as_str(), v.share)).collect();
    assert_eq!(shares, [("v1", 0.75), ("v2", 0.25)]);
    assert!(near(api.versions[1].rates.success, 0.0));
}

#[test]
fn trouble_is_told_since_its_beginning_and_a_pause_ends_it() {
    let mut mesh = Mesh::new(&[("web-1", "web")]);
    let mut failed = 0;
    for second in 0..600 {
        failed += u64::from((100..130).contains(&second) || second >= 400);
        mesh.round(&[("web-1", client(200, "-", 10 * second) + &client(503, "UH", failed))]);
    }
    let since = mesh.view.failing_since(None)[&service("api")];
    assert!((since - (START + 400) as f64).abs() <= 10.0, "{since}");
    let healed = mesh.view.failing_since(Some(START + 300));
    assert!(healed.is_empty(), "the first trouble was over: {healed:?}");
}

#[test]
fn a_host_without_sidecar_is_shown_by_what_its_callers_saw() {
    let mut mesh = Mesh::new(&[("web-1", "web")]);
    let labels = "reporter=\"source\",destination_service=\"www.example.com\",destination_service_name=\"PassthroughCluster\",response_code=\"200\",response_flags=\"-\"";
    for second in 0..=10 {
        mesh.round(&[("web-1", format!("istio_requests_total{{{labels}}} {}", 5 * second))]);
    }
    let graph = mesh.graph(10);
    let node = graph.nodes.iter().find(|node| node.service.name == "www.example.com").unwrap();
    assert_eq!((node.kind.as_str(), node.service.namespace.as_str()), ("outside", ""));
    assert!(near(node.rates.per_second, 5.0));
}

#[test]
fn tcp_bytes_are_steady_although_they_are_written_every_five_seconds() {
    let mut mesh = Mesh::new(&[("web-1", "web"), ("store-1", "store")]);
    let labels = "reporter=\"source\",destination_service=\"store.default.svc.cluster.local\",request_protocol=\"tcp\",response_flags=\"-\"";
    for second in 0..=60u64 {
        let written = second / 5 * 5_000;
        let text = format!(
            "istio_tcp_connections_opened_total{{{labels}}} {second}\n\
             istio_tcp_received_bytes_total{{{labels}}} {written}\n\
             istio_tcp_sent_bytes_total{{{labels}}} {}\n",
            2 * written
        );
        mesh.round(&[("web-1", text)]);
        if second > 35 {
            let graph = mesh.graph(10);
            let edge = &graph.edges[0];
            assert_eq!(edge.protocol, "tcp");
            assert!(near(edge.sent_bytes_per_second, 1_000.0), "{edge:?}");
            assert!(near(edge.received_bytes_per_second, 2_000.0));
            let store = graph.nodes.iter().find(|node| node.service.name == "store").unwrap();
            assert_eq!(store.kind, "tcp");
            assert!(near(store.bytes_per_second, 3_000.0) && near(store.rates.per_second, 1.0));
        }
    }
}

#[test]
fn a_page_has_its_series_its_past_and_its_neighbours() {
    let mut mesh = Mesh::new(&[("web-1", "web"), ("api-1", "api")]);
    for second in 0..=240u64 {
        // Twice as much in the second half.
        let count = 10 * second + 10 * second.saturating_sub(180);
        let gauge = format!("heddle_requests_in_flight{{direction=\"inbound\"}} {}\n", 4);
        mesh.round(&[
            ("web-1", client(200, "-", count)),
            ("api-1", server("v1", 200, count) + &gauge),
        ]);
    }
    let page = mesh.view.page(&service("api"), TimeRange { window: 60, end: None }).unwrap();
    assert_eq!((page.step, page.series.len(), page.window), (1.0, 60, 60.0));
    assert!(near(page.summary.server.per_second, 20.0), "{:?}", page.summary);
    assert!(near(page.previous.server.per_second, 10.0), "{:?}", page.previous);
    assert!(near(page.previous_measured, 1.0));
    assert!(page.series.iter().all(|point| near(point.in_flight, 4.0)));
    assert!(page.series.windows(2).all(|pair| near(pair[1].at - pair[0].at, 1.0)));
    assert_eq!((page.callers.len(), page.callees.len()), (1, 0));
    assert_eq!(page.responses.len(), 1);
    assert_eq!((page.responses[0].code, page.responses[0].flags.as_str()), (200, "-"));
    assert!(
        near(page.workloads[0].in_flight, 4.0) && near(page.workloads[0].rates.per_second, 20.0)
    );
    let callees =
        mesh.view.page(&service("web"), TimeRange { window: 60, end: None }).unwrap().callees;
    assert_eq!(callees[0].destination, service("api"));
    assert!(mesh.view.page(&service("nobody"), TimeRange { window: 60, end: None }).is_none());
}

#[test]
fn a_workload_that_left_keeps_its_history() {
    let mut mesh = Mesh::new(&[("web-1", "web"), ("api-1", "api")]);
    for second in 0..=30 {
        mesh.round(&[("api-1", server("v1", 200, 10 * second))]);
    }
    mesh.view.roster.members.get_mut("api-1").unwrap().present = false;
    mesh.view.roster.services.remove(&service("api"));
    for _ in 0..30 {
        mesh.round(&[]);
    }
    let page = mesh.view.page(&service("api"), TimeRange { window: 60, end: None }).unwrap();
    assert!(page.summary.server.per_second > 4.0, "{:?}", page.summary);
    assert_eq!(page.workloads.len(), 1);
    assert!(!page.workloads[0].present);
    assert!(
        mesh.graph(10).nodes.iter().all(|node| node.service.name != "api"),
        "not in the live picture"
    );
}

#[test]
fn an_empty_mesh_has_an_empty_graph() {
    let view = View::default();
    let graph = view.graph(TimeRange { window: 10, end: None });
    assert!(graph.nodes.is_empty() && graph.edges.is_empty());
}

#[test]
fn points_are_never_closer_than_scrapes() {
    let mut mesh = Mesh::new(&[("web-1", "web"), ("api-1", "api")]);
    mesh.view.interval = 5;
    for round in 0..=30 {
        mesh.view.store.begin_round(START + 5 * round, 5.0);
    }
    let page = mesh.view.page(&service("api"), TimeRange { window: 60, end: None }).unwrap();
    assert_eq!((page.step, page.series.len()), (5.0, 12));
    assert!((mesh.graph(1).window - 5.0).abs() < 1e-9);
}

/// The fields of an interface in the page's TypeScript.
pub(crate) fn interface(source: &str, name: &str) -> Vec<String> {
    let start = source.find(&format!("export interface {name} {{")).expect(name);
    let body = &source[start..];
    let lines = body[..body.find("\n}").unwrap()].lines().skip(1);
    let mut fields: Vec<String> = lines
        .filter_map(|line| line.trim().split_once(':').map(|(field, _)| field.to_owned()))
        .collect();
    fields.sort();
    fields
}

/// Of the sidecar of `web`: what a rule decided, what was refused, and a name that was not found.
fn besides_traffic(count: u64) -> String {
    let rule = "destination_service=\"api.default.svc.cluster.local\",rule=\"VirtualService/default/api#http[0]\"";
    let name = "name=\"apii\",answer=\"NXDOMAIN\"";
    format!(
        "heddle_rule_requests_total{{{rule},response_code=\"2xx\",response_flags=\"-\"}} {count}\n\
         heddle_rule_requests_total{{{rule},response_code=\"aborted\",response_flags=\"FI\"}} {count}\n\
         heddle_rule_request_duration_milliseconds_bucket{{{rule},le=\"5\"}} {count}\n\
         heddle_rule_request_duration_milliseconds_bucket{{{rule},le=\"+Inf\"}} {count}\n\
         heddle_refusals_total{{code=\"no-route\",direction=\"outbound\"}} {count}\n\
         heddle_dns_failed{{{name}}} {count}\n\
         heddle_dns_failed_last_seconds{{{name}}} {START}\n"
    )
}

fn rule(percent: u8) -> ResourceView {
    let key = ResourceKey {
        kind: "VirtualService".to_owned(),
        namespace: "default".to_owned(),
        name: "api".to_owned(),
    };
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: api, namespace: default}}\n\
         spec:\n  hosts: [api]\n  http:\n  - fault: {{abort: {{httpStatus: 503, percentage: {{value: {percent}}}}}}}\n    \
         route: [{{destination: {{host: api}}}}]\n"
    );
    let (source, state, notes) = ("rules.yaml".to_owned(), "Programmed".to_owned(), Vec::new());
    ResourceView {
        key,
        source,
        line: 3,
        text,
        state,
        notes,
        status: None,
        warnings: Vec::new(),
        since: None,
    }
}

/// Ten seconds in which `web` called `api`, with a rule that was changed.
fn ruled() -> Mesh {
    let mut mesh = Mesh::new(&[("web-1", "web"), ("api-1", "api")]);
    mesh.view.rulebook.update(vec![rule(80)], START as f64);
    mesh.view.rulebook.update(vec![rule(50)], (START + 5) as f64);
    for second in 0..=10 {
        let caller = client(200, "-", second) + &besides_traffic(second);
        mesh.round(&[("web-1", caller), ("api-1", server("v1", 200, second))]);
        // As the loop of scrapes does it.
        let names = mesh.ledgers.get_mut("web-1").unwrap().names.take();
        mesh.view.roster.members.get_mut("web-1").unwrap().names = names;
    }
    mesh
}

#[test]
fn what_a_rule_decides_is_told_beside_it_and_is_no_traffic_of_its_own() {
    let mesh = ruled();
    let asked = TimeRange { window: 10, end: None };
    let page = mesh.view.page(&service("api"), asked).unwrap();
    assert!((page.summary.client.per_second - 1.0).abs() < 0.2, "{:?}", page.summary);
    let path = &page.paths[0];
    assert_eq!((path.rule.as_str(), path.in_force), ("VirtualService/default/api#http[0]", true));
    assert_eq!(path.matches, "all");
    assert!((path.rates.per_second - 2.0).abs() < 0.3 && path.rates.success > 0.999, "{path:?}");
    assert!((path.rates.injected_per_second - 1.0).abs() < 0.2);
    let rule = &page.rules[0];
    assert_eq!((rule.line, rule.parts[0].faults[0].percent), (3, 50.0));
    assert!(rule.parts[0].rates.per_second > 1.0);
    assert_eq!(page.changes[0].action, "configured");
    let graph = mesh.graph(10);
    assert_eq!(graph.edges.len(), 1, "{:?}", graph.edges);
    let node = graph.nodes.iter().find(|node| node.service == service("api")).unwrap();
    assert_eq!((node.faults[0].what.as_str(), graph.changes.len()), ("abort", 1));
    assert_eq!(node.versions.len(), 1, "a rule is no version");
}

#[test]
fn refusals_and_names_that_were_not_found_are_told_by_whose_they_are() {
    let mesh = ruled();
    let page = mesh.view.refusals_page(TimeRange { window: 60, end: None });
    let row = &page.refusals[0];
    assert_eq!((row.by.0.as_str(), row.direction.as_str()), ("web-1", "outbound"));
    assert_eq!((row.code.as_str(), row.count.round()), ("no-route", 10.0));
    let name = &page.names[0];
    assert_eq!((name.name.as_str(), name.did_you_mean.as_deref()), ("apii", Some("api")));
    let asked = TimeRange { window: 60, end: None };
    let meant = mesh.view.page(&service("api"), asked).unwrap();
    assert_eq!((meant.names.len(), meant.refusals.len()), (1, 0));
    let asking = mesh.view.page(&service("web"), asked).unwrap();
    assert_eq!((asking.names.len(), asking.refusals.len()), (1, 1));
}

#[test]
fn of_many_names_the_last_are_told_and_no_more_are_looked_for() {
    let mut mesh = ruled();
    let letter = |number: usize| char::from(b"abcdefghijklmnopqrst"[number]);
    // Two letters too many.
    let name = |number: usize| FailedName {
        name: format!("a{}p{}i", letter(number / 20), letter(number % 20)),
        last: (START + 5) as f64 + number as f64 / 1e3,
        ..FailedName::default()
    };
    let set = |mesh: &mut Mesh, id: &str, names: Vec<FailedName>| {
        mesh.view.roster.members.get_mut(id).unwrap().names = names;
    };
    set(&mut mesh, "api-1", (0..400).map(name).collect());
    set(&mut mesh, "web-1", vec![FailedName { last: (START + 1) as f64, ..name(0) }]);
    let asked = TimeRange { window: 60, end: None };
    let all = mesh.view.refusals_page(asked).names;
    assert_eq!((all.len(), &all[0].name), (limits::ROWS_MAX, &name(399).name));
    assert!(all.iter().all(|row| row.did_you_mean.as_deref() == Some("api")));
    // What a service's own workloads asked for is told before what it may have been meant by.
    let page = mesh.view.page(&service("web"), asked).unwrap();
    let told: Vec<_> = page.names.iter().map(|row| row.did_you_mean.as_deref()).collect();
    assert_eq!(told, [Some("api")]);
    let nonsense = |number| FailedName { name: format!("nonsense-{number}"), ..name(number) };
    let mut names: Vec<_> = (1..limits::ROWS_MAX).map(nonsense).collect();
    names.push(name(0));
    set(&mut mesh, "api-1", Vec::new());
    set(&mut mesh, "web-1", names.clone());
    assert_eq!(mesh.view.page(&service("api"), asked).unwrap().names.len(), 1);
    names.push(nonsense(limits::ROWS_MAX));
    set(&mut mesh, "web-1", names);
    assert_eq!(mesh.view.page(&service("api"), asked).unwrap().names.len(), 0);
}

#[test]
fn the_page_reads_exactly_the_fields_that_are_sent() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ui/src/api.ts");
    let source = std::fs::read_to_string(path).unwrap();
    let mesh = ruled();
    let graph = serde_json::to_value(mesh.graph(10)).unwrap();
    let asked = TimeRange { window: 60, end: None };
    let rules = serde_json::to_value(mesh.view.rules(asked)).unwrap();
    let refusals = serde_json::to_value(mesh.view.refusals_page(asked)).unwrap();
    let page = mesh.view.page(&service("api"), TimeRange { window: 10, end: None }).unwrap();
    let page = serde_json::to_value(page).unwrap();
    for (name, sent) in [
        ("Graph", &graph),
        ("Node", &graph["nodes"][0]),
        ("Edge", &graph["edges"][0]),
        ("Rates", &graph["edges"][0]["client"]),
        ("Version", &page["versions"][0]),
        ("ServicePage", &page),
        ("ServiceSummary", &page["summary"]),
        ("Point", &page["series"][0]),
        ("Response", &page["responses"][0]),
        ("WorkloadRow", &page["workloads"][0]),
        ("PathRow", &page["paths"][0]),
        ("RulesPage", &rules),
        ("RuleRow", &rules["rules"][0]),
        ("RulePart", &rules["rules"][0]["parts"][0]),
        ("FaultWord", &rules["rules"][0]["parts"][0]["faults"][0]),
        ("RuleChange", &rules["changes"][0]),
        ("RefusalsPage", &refusals),
        ("RefusalRow", &refusals["refusals"][0]),
        ("NameFailure", &refusals["names"][0]),
    ] {
        let mut fields: Vec<String> = sent.as_object().expect(name).keys().cloned().collect();
        fields.sort();
        assert_eq!(fields, interface(&source, name), "{name} in ui/src/api.ts");
    }
}
