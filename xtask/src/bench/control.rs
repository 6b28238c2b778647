//! `cargo xtask bench control-at-scale`: the control plane of a large cluster, in a network of its own, since
//! its ports are fixed. What is measured, and how, is in `crates/heddle-control/benches/at_scale`.

use super::{heddle, options::Options};
use crate::command::{program, run};

/// For the list of benches.
pub(super) const ABOUT: &str = "A control plane on one processor with 5,000 Services, 50,000 pods and 200 sidecars: memory, time of changes of endpoints and rules, time of admissions.";

const BENCH: [&str; 7] =
    ["bench", "--locked", "--offline", "--package", "heddle-control", "--bench", "at_scale"];

/// Runs the bench.
pub(super) fn run_all(options: &Options) -> Result<(), String> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => heddle::build()?,
    };
    let binary = binary.canonicalize().map_err(|e| format!("{}: {e}", binary.display()))?;
    run(&mut program("cargo", &[&BENCH[..], &["--quiet", "--no-run"]].concat()))?;
    // It takes the processors that the control plane is not on, where there are any.
    let own = "ip link set lo up && (taskset -p -c 1-1023 $$ >/dev/null 2>&1; exec cargo \"$@\")";
    let mut bench = program("unshare", &["--map-root-user", "--net", "sh", "-c", own, "sh"]);
    bench.args(BENCH).args(["--quiet", "--", "--binary"]).arg(binary);
    run(&mut bench)
}
