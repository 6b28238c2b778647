//! A workload that calls itself, through its own service: inside the process, past no rule.

use std::net::SocketAddr;

use heddle_testkit::resources::{self, PORT};

use crate::mesh::{GET, Mesh, REVIEWS, answers, with_standing_clock};

#[test]
fn a_call_to_oneself_passes_both_of_ones_sides_and_no_network() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(answers);
        let server = &mesh.servers[0];
        for _ in 0..3 {
            let mut end = server.call(SocketAddr::new(resources::vip(REVIEWS), PORT));
            let (head, _) = end.ask(GET).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        }
        assert_eq!(mesh.connects(), 0);
        let from_itself = "source_workload=\"reviews-v1\"";
        for reporter in ["reporter=\"source\"", "reporter=\"destination\""] {
            assert_eq!(server.requests(&[reporter, from_itself]), 3.0, "{reporter}");
        }
    });
}
