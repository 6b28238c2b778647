//! Where tasks read the time and wait: measuring is their business.
#![expect(clippy::disallowed_methods, reason = "a task runner has no clock to be tested with")]

use std::{
    thread,
    time::{Duration, Instant},
};

/// The monotonic time.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A pause that is the point: load has to last.
pub(crate) fn pause(duration: Duration) {
    thread::sleep(duration);
}
