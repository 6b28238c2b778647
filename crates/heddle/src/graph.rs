//! `heddle graph`: who calls whom, as text, as the API's JSON, or for Graphviz.

use std::fmt::Write as _;

use heddle_wire::local::observe_api::{Edge, Graph, Node};

use crate::{
    cli::{GraphArgs, GraphOutput},
    failure::Failure,
    output,
    top::{
        self,
        figures::{bytes, milliseconds, name, percent, rate},
    },
};

/// Seconds the rates are over: long enough that a caller that calls now and then is in the picture.
const WINDOW: u64 = 30;

/// `heddle graph`.
///
/// # Errors
/// A refusal where no such mesh runs or its dashboard does not answer.
pub(crate) async fn graph(args: GraphArgs) -> Result<(), Failure> {
    let dashboard = top::dashboard_of(&args.mesh).await?;
    let graph: Graph = top::ask(dashboard, &format!("/api/v1/graph?window={WINDOW}")).await?;
    match args.output {
        GraphOutput::Text => output::line(text(&graph)),
        GraphOutput::Json => output::json(&graph)?,
        GraphOutput::Dot => output::line(dot(&graph)),
    }
    Ok(())
}

/// Each service with its calls below it.
fn text(graph: &Graph) -> String {
    if graph.nodes.is_empty() {
        return "no services yet; join one: heddle run --service hello --port http:8080 -- python3 -m http.server 8080"
            .to_owned();
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
    let mut words = vec![format!(
        "{} {} {unit} ({} at the server)",
        edge.protocol,
        rate(edge.client.per_second),
        rate(edge.server.per_second)
    )];
    words.push(percent(edge.client.success.min(edge.server.success)));
    if edge.client.injected_per_second > 0.0 {
        words.push(format!("{} aborts/s injected", rate(edge.client.injected_per_second)));
    }
    if tcp {
        let total = edge.sent_bytes_per_second + edge.received_bytes_per_second;
        words.push(bytes(total));
    } else {
        words.push(format!(
            "p99 {} ({} at the server)",
            milliseconds(edge.client.p99_ms),
            milliseconds(edge.server.p99_ms)
        ));
    }
    words.join(", ")
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
    use heddle_wire::local::observe_api::Rates;

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
    fn graphviz_gets_escaped_names_and_red_edges_for_trouble() {
        let dot = dot(&sample());
        assert!(dot.starts_with("digraph \"de\\\"mo\" {"), "{dot}");
        assert!(dot.contains("\"web.default.svc.cluster.local\" -> \"api.default.svc.cluster.local\" [label=\"4.0/s\\n10 % failed\", color=red"), "{dot}");
        assert!(dot.ends_with('}'));
    }

    #[test]
    fn an_empty_mesh_says_what_to_do() {
        assert!(text(&Graph::default()).contains("heddle run --service"));
    }
}
