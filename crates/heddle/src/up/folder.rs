//! Tells where the mesh was started what of its `--config` folder is not in force: whoever edits a
//! file there looks at no other command's output.

use std::{convert::Infallible, time::Duration};

use heddle_runtime::clock;
use heddle_wire::local::control_api::{Problem, Status};

use crate::{
    control_client::{ControlClient, problem_line},
    output,
};

/// Time between two looks: short beside the change from an editor to a terminal.
const PACE: Duration = Duration::from_secs(1);

/// Prints each problem once while it lasts, and when the last one is gone. Never returns.
pub(super) async fn tell(control: &ControlClient) -> Infallible {
    let mut known: Vec<Problem> = Vec::new();
    loop {
        // Without an answer nothing is known to have changed: it is being restarted.
        if let Ok(status) = control.get::<Status>("/v1/status").await {
            for line in news(&known, &status.out_of_force) {
                output::notice(line);
            }
            known = status.out_of_force;
        }
        clock::sleep(PACE).await;
    }
}

/// What to say after a look.
fn news(before: &[Problem], now: &[Problem]) -> Vec<String> {
    if now.is_empty() && !before.is_empty() {
        return vec!["all rules of the folder are in force".to_owned()];
    }
    let new = now.iter().filter(|problem| !before.contains(problem));
    new.map(|problem| format!("not in force: {}", problem_line(problem))).collect()
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    #[test]
    fn a_problem_is_told_once_and_so_is_its_end() {
        let problem = |reason: &str| Problem { reason: reason.to_owned(), ..Problem::default() };
        let (first, second) = (problem("no YAML"), problem("no field"));
        assert!(news(&[], &[]).is_empty());
        assert_eq!(news(&[], slice::from_ref(&first)), ["not in force: no YAML"]);
        let both = [first.clone(), second.clone()];
        assert_eq!(news(&[first], &both), ["not in force: no field"]);
        assert!(news(&both, slice::from_ref(&second)).is_empty());
        assert_eq!(news(&[second], &[]), ["all rules of the folder are in force"]);
    }
}
