//! The one place where tests wait: for a condition, within bounds, never for a time.

use std::{thread, time::Duration};

use heddle_runtime::clock;

/// Longest wait for anything; a machine that needs longer is not one to test on.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until `look` finds something.
///
/// # Panics
/// After [`PATIENCE`], naming what was waited for.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = clock::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(clock::now() < deadline, "gave up waiting until {what}");
        thread::park_timeout(LOOK_EVERY);
    }
}

/// Waits until a condition holds.
///
/// # Panics
/// As [`wait_for`].
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}
