//! Tells where the mesh was started that a part of it had to be started again: which, how often and why.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use heddle_runtime::clock;
use heddle_wire::local::holder_api::Restarts;

use crate::{
    failure::Failure, holder_client::HolderClient, mesh::MeshPaths, output, status::restarted,
};

/// Time between two looks.
const PACE: Duration = Duration::from_secs(2);
/// Most lines after one look; the others are counted.
const LINES_MAX: usize = 10;

/// Prints a line for each part that was started again. Never returns.
pub(super) async fn tell(paths: &MeshPaths) -> Infallible {
    let mut known: BTreeMap<String, u64> = BTreeMap::new();
    loop {
        clock::sleep(PACE).await;
        // Without an answer it hangs or ends; the next look, or its end, tells which.
        if let Ok(restarts) = look(paths).await {
            news(&mut known, &restarts).into_iter().for_each(output::notice);
        }
    }
}

async fn look(paths: &MeshPaths) -> Result<Vec<Restarts>, Failure> {
    Ok(HolderClient::connect(paths).await?.info().await?.restarts)
}

/// What to say after a look.
fn news(known: &mut BTreeMap<String, u64>, now: &[Restarts]) -> Vec<String> {
    let more = |one: &&Restarts| known.get(&one.part).is_none_or(|count| *count < one.count);
    let mut lines: Vec<String> =
        now.iter().filter(more).map(|one| format!("{}{}", one.part, restarted(one))).collect();
    *known = now.iter().map(|one| (one.part.clone(), one.count)).collect();
    if lines.len() > LINES_MAX {
        let rest = lines.len() - LINES_MAX;
        lines.truncate(LINES_MAX);
        lines.push(format!("{rest} more parts were started again: see `heddle status`"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restarts(part: &str, count: u64) -> Restarts {
        let reason = "it ended (signal: 9 (SIGKILL))".to_owned();
        Restarts { part: part.to_owned(), count, unanswered: 0, since: 0, last: 0, reason }
    }

    #[test]
    fn each_restart_is_told_once_with_its_reason() {
        let mut known = BTreeMap::new();
        let first = news(&mut known, &[restarts("control", 1)]);
        assert!(
            first.len() == 1 && first[0].starts_with("control, started again once"),
            "{first:?}"
        );
        assert!(first[0].ends_with("it ended (signal: 9 (SIGKILL))"), "{first:?}");
        assert!(news(&mut known, &[restarts("control", 1)]).is_empty());
        let again = news(&mut known, &[restarts("control", 2)]);
        assert!(again[0].contains("2 times") && again[0].contains("the first time"), "{again:?}");
    }

    #[test]
    fn many_at_once_are_counted() {
        let all: Vec<Restarts> =
            (0..40).map(|n| restarts(&format!("sidecar of w-{n}"), 1)).collect();
        let lines = news(&mut BTreeMap::new(), &all);
        assert!(lines.len() == 11 && lines[10].starts_with("30 more"), "{lines:?}");
    }
}
