//! `heddle graph`: who calls whom, as text, as the API's JSON, or for Graphviz.

use std::fmt::Write as _;

use heddle_model::ServiceName;
use heddle_runtime::clock;
use heddle_wire::local::{
    control_api::Status,
    observe_api::{Edge, Graph, Node, Rates},
};

use crate::{
    chosen::Chosen,
    cli::{GraphArgs, GraphOutput, NamespaceFlags},
    failure::Failure,
    output,
    top::{
        self, ejected,
        figures::{bytes, milliseconds, name, percent, rate},
    },
};

/// Seconds after a change of the rules in which nothing is told yet: what was measured before is still coming in.
const SETTLES: u64 = 2;

/// `heddle graph`.
///
/// # Errors
/// A refusal where no such mesh runs or its dashboard does not answer.
pub(crate) async fn graph(args: GraphArgs) -> Result<(), Failure> {
    let mesh = Chosen::of(&args.mesh).await?;
    let dashboard = mesh.dashboard().await?;
    let asked = args.window.as_secs().max(1);
    let changed = if args.across_changes { None } else { since_change(&mesh).await };
    let window = changed.map_or(asked, |since| window(asked, since));
    let mut graph: Graph = dashboard.ask(&format!("/api/v1/graph?window={window}")).await?;
    keep(&mut graph, &args.namespaces);
    match args.output {
        GraphOutput::Text => {
            output::line(text(&graph));
            if window < asked {
                output::notice(format!(
                    "over the last {window} s: the rules have changed since (--across-changes counts all {asked} s)"
                ));
            }
        }
        GraphOutput::Json => output::json(&graph)?,
        GraphOutput::Dot => output::line(dot(&graph)),
    }
    Ok(())
}

/// How many seconds ago the rules changed; `None` where nobody knows, as with several replicas that do not answer.
async fn since_change(mesh: &Chosen) -> Option<u64> {
    let status = mesh.get::<Status>("/v1/status").await.ok()?;
    let now = clock::unix_now().as_secs();
    (status.rules_changed > 0).then(|| now.saturating_sub(status.rules_changed))
}

/// The window that begins after a change which was so many seconds ago.
fn window(asked: u64, since: u64) -> u64 {
    asked.min(since.saturating_sub(SETTLES).max(1))
}

/// Only services of the namespaces that are meant, and those they call or are called by.
fn keep(graph: &mut Graph, namespaces: &NamespaceFlags) {
    let has = |service: &ServiceName| namespaces.has(&service.namespace);
    graph.edges.retain(|edge| has(&edge.source) || has(&edge.destination));
    let edges = &graph.edges;
    let touched = |name: &ServiceName| {
        edges.iter().any(|edge| edge.source == *name || edge.destination == *name)
    };
    graph.nodes.retain(|node| has(&node.service) || touched(&node.service));
}

/// Each service with its calls below it.
fn text(graph: &Graph) -> String {
    if graph.nodes.is_empty() {
        return top::NOTHING_YET.to_owned();
    }
    let mut text = String::new();
    for node in &graph.nodes {
        push(&mut text, &format!("{}  {}", name(&node.service), node_words(node)));
        let calls: Vec<&Edge> =
            graph.edges.iter().filter(|edge| edge.source == node.service).collect();
        let widest = calls.iter().map(|edge| name(&edge.destination).chars().count()).max();
        let width = widest.unwrap_or(0);
        for edge in calls {
            let callee = name(&edge.destination);
            push(&mut text, &format!("  -> {callee:width$}  {}", edge_words(edge)));
        }
    }
    for line in ejected::lines_now(&graph.ejections) {
        push(&mut text, &line);
    }
    text.truncate(text.trim_end().len());
    text
}

fn node_words(node: &Node) -> String {
    let mut words = vec![node.kind.clone()];
    if node.rates.per_second > 0.0 || node.client.per_second > 0.0 {
        let unit = if node.kind == "tcp" { "conn/s" } else { "req/s" };
        words.push(format!("{} {unit}", rate(node.rates.per_second.max(node.client.per_second))));
        words.push(percent(node.rates.success.min(node.client.success)));
    }
    if node.bytes_per_second > 0.0 {
        words.push(bytes(node.bytes_per_second));
    }
    if node.versions.len() > 1 {
        let shares = node.versions.iter();
        let shares = shares.map(|known| format!("{} {}", known.version, percent(known.share)));
        words.push(shares.collect::<Vec<_>>().join(" + "));
    }
    words.join(", ")
}

fn edge_words(edge: &Edge) -> String {
    let tcp = edge.protocol == "tcp";
    let unit = if tcp { "conn/s" } else { "req/s" };
    let sides = Sides::of(edge);
    let calls = |rates: &Rates| rate(rates.per_second);
    let mut words = vec![format!("{} {}", edge.protocol, sides.words(calls, &format!(" {unit}")))];
    words.push(percent(edge.client.success.min(edge.server.success)));
    for (injected, what) in
        [(edge.client.injected_per_second, "aborts"), (edge.client.delayed_per_second, "delays")]
    {
        if injected > 0.0 {
            words.push(format!("{} {what}/s injected", rate(injected)));
        }
    }
    if tcp {
        let total = edge.sent_bytes_per_second + edge.received_bytes_per_second;
        words.push(bytes(total));
    } else {
        words.push(format!("p99 {}", sides.words(|rates| milliseconds(rates.p99_ms), "")));
    }
    words.join(", ")
}

/// A call as both sides measured it. A caller outside the mesh measures nothing: no zeros are told of it.
struct Sides<'a> {
    client: Option<&'a Rates>,
    server: &'a Rates,
}

impl<'a> Sides<'a> {
    fn of(edge: &'a Edge) -> Self {
        let seen_by_server_only = edge.client.per_second <= 0.0 && edge.server.per_second > 0.0;
        Self { client: (!seen_by_server_only).then_some(&edge.client), server: &edge.server }
    }

    fn words(&self, figure: impl Fn(&Rates) -> String, unit: &str) -> String {
        let server = figure(self.server);
        match self.client {
            Some(client) => format!("{}{unit} ({server} at the server)", figure(client)),
            None => format!("{server}{unit} at the server"),
        }
    }
}

/// For `dot -Tsvg`.
fn dot(graph: &Graph) -> String {
    let mut text = String::new();
    push(&mut text, &format!("digraph {} {{", quoted(&graph.mesh)));
    push(
        &mut text,
        "  rankdir=LR; node [shape=box, fontname=\"sans-serif\"]; edge [fontname=\"sans-serif\"];",
    );
    for node in &graph.nodes {
        let shape = match node.kind.as_str() {
            "tcp" => ", shape=cylinder",
            "outside" => ", style=dashed",
            "client" => ", shape=ellipse",
            _ => "",
        };
        let label = format!("{}\n{}", name(&node.service), node_words(node));
        let line = format!("  {} [label={}{shape}];", quoted(&node.service.fqdn()), quoted(&label));
        push(&mut text, &line);
    }
    for edge in &graph.edges {
        let failed = 1.0 - edge.client.success.min(edge.server.success);
        let colour = if failed >= 0.01 { ", color=red, fontcolor=red" } else { "" };
        let figure = match edge.protocol.as_str() {
            "tcp" => bytes(edge.sent_bytes_per_second + edge.received_bytes_per_second),
            _ => format!("{}/s", rate(edge.client.per_second.max(edge.server.per_second))),
        };
        let trouble =
            if failed >= 0.01 { format!("\n{} failed", percent(failed)) } else { String::new() };
        let line = format!(
            "  {} -> {} [label={}{colour}];",
            quoted(&edge.source.fqdn()),
            quoted(&edge.destination.fqdn()),
            quoted(&format!("{figure}{trouble}"))
        );
        push(&mut text, &line);
    }
    text.push('}');
    text
}

/// A DOT string. Backslashes are doubled, so that no name can begin an escape of Graphviz.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

fn push(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ok = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use heddle_model::ServiceName;

    use super::*;

    fn sample() -> Graph {
        let service = |name: &str| ServiceName { namespace: "default".into(), name: name.into() };
        let rates = |per_second, success| Rates { per_second, success, ..Rates::default() };
        let node = |name: &str, kind: &str| Node {
            service: service(name),
            kind: kind.into(),
            rates: rates(4.0, 1.0),
            client: rates(4.0, 0.9),
            bytes_per_second: 0.0,
            versions: Vec::new(),
            failing_since: None,
            cause: None,
            faults: Vec::new(),
            addresses: Vec::new(),
        };
        let edge = Edge {
            source: service("web"),
            destination: service("api"),
            protocol: "http".into(),
            client: Rates { p99_ms: Some(40.0), ..rates(4.0, 0.9) },
            server: Rates { p99_ms: Some(30.0), ..rates(3.6, 1.0) },
            sent_bytes_per_second: 0.0,
            received_bytes_per_second: 0.0,
        };
        Graph {
            mesh: "de\"mo".into(),
            nodes: vec![node("api", "http"), node("web", "client")],
            edges: vec![edge],
            ..Graph::default()
        }
    }

    #[test]
    fn calls_stand_below_their_caller_with_both_sides() {
        let text = text(&sample());
        assert!(text.contains("web  client, 4.0 req/s, 90 %\n  -> api  http 4.0 req/s (3.6 at the server), 90 %, p99 40 ms (30 ms at the server)"), "{text}");
    }

    #[test]
    fn injected_faults_are_named_by_kind() {
        let mut graph = sample();
        graph.edges[0].client.injected_per_second = 2.0;
        assert!(text(&graph).contains("90 %, 2.0 aborts/s injected, p99"), "{}", text(&graph));
        graph.edges[0].client.delayed_per_second = 3.2;
        let both = "2.0 aborts/s injected, 3.2 delays/s injected, p99";
        assert!(text(&graph).contains(both), "{}", text(&graph));
    }

    #[test]
    fn a_caller_that_measures_nothing_is_not_told_to_call_nothing() {
        let mut graph = sample();
        graph.edges[0].client = Rates { success: 1.0, ..Rates::default() };
        let wanted = "-> api  http 3.6 req/s at the server, 100 %, p99 30 ms at the server";
        assert!(text(&graph).contains(wanted), "{}", text(&graph));
    }

    #[test]
    fn graphviz_gets_escaped_names_and_red_edges_for_trouble() {
        let dot = dot(&sample());
        assert!(dot.starts_with("digraph \"de\\\"mo\" {"), "{dot}");
        assert!(dot.contains("\"web.default.svc.cluster.local\" -> \"api.default.svc.cluster.local\" [label=\"4.0/s\\n10 % failed\", color=red"), "{dot}");
        assert!(dot.ends_with('}'));
    }

    #[test]
    fn what_was_before_a_change_of_the_rules_is_left_out() {
        assert_eq!(
            [window(30, 100), window(30, 12), window(30, 0), window(300, 63)],
            [30, 10, 1, 61]
        );
    }

    #[test]
    fn an_empty_mesh_says_what_to_do() {
        assert!(text(&Graph::default()).contains("heddle run --service"));
    }
}
