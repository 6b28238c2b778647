//! What rules say of metrics' tags and of when bytes are counted, on the way that calls take.

use std::{collections::BTreeMap, time::Duration};

use heddle_model::{
    Protocol,
    discovery::{Metric, MetricChange, Provenance, SideTelemetry, TagChange, WorkloadTelemetry},
};
use heddle_runtime::clock;

use crate::mesh::{Mesh, answers, with_standing_clock};

fn changes(metric: Metric, tags: &[(&str, &str)]) -> SideTelemetry {
    let one = |(name, value): &(&str, &str)| {
        let change = match *value {
            "" => TagChange::Removed,
            value => TagChange::Value(value.to_owned()),
        };
        ((*name).to_owned(), change)
    };
    let tags = tags.iter().map(one).collect::<BTreeMap<_, _>>();
    let change = MetricChange { provenance: Provenance::default(), metric, disabled: None, tags };
    SideTelemetry { metrics: vec![change], ..SideTelemetry::default() }
}

#[test]
fn each_side_counts_under_the_tags_that_its_rules_give() {
    with_standing_clock(|| async {
        let mut mesh = Mesh::new(answers);
        let client = [
            ("user", "request.headers['x-user']"),
            ("callee", "filter_state.upstream_peer.workload"),
            ("status", "string(response.code)"),
            ("source_principal", ""),
        ];
        let server = [("port", "string(destination.port)"), ("zone", "'a'")];
        mesh.telling(&WorkloadTelemetry {
            client: changes(Metric::RequestCount, &client),
            server: changes(Metric::All, &server),
        });
        let mut end = mesh.call();
        for user in ["me", "me", "you"] {
            let request = format!("GET / HTTP/1.1\r\nHost: reviews\r\nX-User: {user}\r\n\r\n");
            end.ask(&request).await;
        }
        end.ask("GET / HTTP/1.1\r\nHost: reviews\r\n\r\n").await;
        let of =
            |user: &str| mesh.client.requests(&[&format!("user=\"{user}\""), "status=\"200\""]);
        assert_eq!((of("me"), of("you"), of("unknown")), (2.0, 1.0, 1.0));
        assert_eq!(mesh.client.requests(&["callee=\"unknown\""]), 0.0);
        assert_eq!(mesh.client.requests(&["source_principal"]), 0.0);
        assert_eq!(mesh.client.sum("istio_request_bytes_count", &["source_principal"]), 4.0);
        assert_eq!(mesh.servers[0].requests(&["port=\"9080\"", "zone=\"a\""]), 4.0);
        mesh.telling(&WorkloadTelemetry::default());
        end.ask("GET / HTTP/1.1\r\nHost: reviews\r\n\r\n").await;
        assert_eq!(mesh.client.requests(&["source_principal"]), 1.0);
    });
}

#[test]
fn bytes_of_an_open_connection_are_counted_as_often_as_a_rule_says() {
    with_standing_clock(|| async {
        let mut mesh = Mesh::speaking(Protocol::Tcp, &[20], |mut end| async move {
            while end.body(4).await == 4 {
                end.send("pong").await;
            }
        });
        let side = || SideTelemetry {
            reporting_interval: Some(Duration::from_secs(30)),
            ..SideTelemetry::default()
        };
        mesh.telling(&WorkloadTelemetry { client: side(), server: side() });
        let mut end = mesh.call();
        let sent = || mesh.client.sum("istio_tcp_sent_bytes_total", &[]);
        end.send("ping").await;
        assert_eq!(end.body(4).await, 4);
        assert_eq!(mesh.client.sum("istio_tcp_connections_opened_total", &[]), 1.0);
        end.send("ping").await;
        assert_eq!(end.body(4).await, 4);
        let before = sent();
        assert!(before < 8.0, "{before} counted as they moved");
        clock::sleep(Duration::from_secs(31)).await;
        assert_eq!(sent(), 8.0);
        end.send("ping").await;
        assert_eq!(end.body(4).await, 4);
        assert_eq!(sent(), 8.0);
        drop(end);
        clock::sleep(Duration::from_secs(1)).await;
        assert_eq!(sent(), 12.0, "all of them at its end");
    });
}
