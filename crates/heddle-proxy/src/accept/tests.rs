//! How many connections a worker lets in.

use std::path::Path;

use heddle_wire::local::proxy_config::ProxyConfig;

use super::*;
use crate::{limits::CONNECTIONS_PER_SOURCE, metrics::Metrics, testing::proxy_config};

/// So many workers of one sidecar, each asked in turn on this thread.
fn with_workers(count: usize, test: impl FnOnce(&[Rc<Worker>])) {
    let config = ProxyConfig { workers: count, ..proxy_config(Path::new("/nowhere")) };
    let metrics = Arc::new(Metrics::new(&config));
    let shared = Arc::new(Shared::new(config, metrics).0);
    let workers = async {
        let worker = |index| start_worker(Arc::clone(&shared), index, WorkerOptions::default());
        test(&(0..count).map(worker).collect::<Vec<_>>());
    };
    task::run_local(workers).unwrap();
}

fn source(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

fn admit(worker: &Rc<Worker>, direction: Direction, from: u8) -> Result<Open, Refusal> {
    let source = (direction == Direction::Inbound).then(|| source(from));
    Open::admit(worker, direction, source)
}

/// Admits until it is refused.
fn fill(worker: &Rc<Worker>, direction: Direction, from: u8) -> Vec<Open> {
    let admitted = std::iter::from_fn(|| admit(worker, direction, from).ok());
    admitted.take(2 * CONNECTIONS_TOTAL).collect()
}

#[test]
fn the_cap_of_one_source_holds_for_all_workers_together() {
    for count in [1, 2, 4] {
        with_workers(count, |workers| {
            let mut open: Vec<_> =
                workers.iter().map(|worker| fill(worker, Direction::Inbound, 1)).collect();
            assert_eq!(open.iter().map(Vec::len).sum::<usize>(), CONNECTIONS_PER_SOURCE);
            let refused = admit(&workers[0], Direction::Inbound, 1);
            assert!(
                matches!(refused, Err(Refusal::ConnectionLimit(what)) if what.contains("source"))
            );
            // Nobody else is concerned, and what has ended makes room.
            admit(&workers[0], Direction::Inbound, 2).unwrap();
            open[0].pop();
            admit(&workers[0], Direction::Inbound, 1).unwrap();
        });
    }
}

#[test]
fn the_cap_in_total_holds_for_all_workers_and_for_each_direction_by_itself() {
    with_workers(2, |workers| {
        let refused = |worker, direction| {
            let refused = admit(worker, direction, 9);
            matches!(refused, Err(Refusal::ConnectionLimit(what)) if what.contains("all"))
        };
        let mut open = fill(&workers[0], Direction::Outbound, 0);
        assert_eq!(open.len(), CONNECTIONS_TOTAL);
        assert!(workers.iter().all(|worker| refused(worker, Direction::Outbound)));
        let inbound: Vec<_> = (0..4)
            .flat_map(|from| workers.iter().map(move |worker| (worker, from)))
            .flat_map(|(worker, from)| fill(worker, Direction::Inbound, from))
            .collect();
        assert_eq!(inbound.len(), CONNECTIONS_TOTAL);
        assert!(workers.iter().all(|worker| refused(worker, Direction::Inbound)));
        open.pop();
        admit(&workers[1], Direction::Outbound, 0).unwrap();
        drop((open, inbound));
        assert_eq!(workers[0].shared.state.connections.count(), 0);
        assert!(workers.iter().all(|worker| worker.shared.state.sources.len() == 0));
    });
}
