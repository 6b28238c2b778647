//! The memory watchdog: this process's own memory against the limit it was given, and what must be
//! given up to stay within it, in three steps: what is only kept at hand, requests, connections.
//!
//! Without a limit there is none of this. A machine's or a shared cgroup's limit is not this
//! process's: its neighbours' use of it would refuse calls here.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use heddle_runtime::{clock, memory};
use tokio::sync::Notify;

use crate::{
    buffers,
    limits::{MEMORY_LOOK, MEMORY_REFUSE_CONNECTIONS, MEMORY_REFUSE_REQUESTS, MEMORY_SHRINK},
};

/// How close the sidecar is to its limit, and so what it gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Pressure {
    /// Nothing.
    #[default]
    None,
    /// Idle connections and free buffers.
    Shrink,
    /// New requests too, also on open connections.
    RefuseRequests,
    /// New connections too.
    RefuseConnections,
}

impl Pressure {
    /// What `used` bytes of `limit` mean.
    #[must_use]
    pub fn of(used: u64, limit: u64) -> Self {
        let percent = u128::from(used) * 100 / u128::from(limit.max(1));
        match percent {
            MEMORY_REFUSE_CONNECTIONS.. => Self::RefuseConnections,
            MEMORY_REFUSE_REQUESTS.. => Self::RefuseRequests,
            MEMORY_SHRINK.. => Self::Shrink,
            _ => Self::None,
        }
    }

    fn of_number(number: u8) -> Self {
        [Self::None, Self::Shrink, Self::RefuseRequests]
            .into_iter()
            .find(|pressure| *pressure as u8 == number)
            .unwrap_or(Self::RefuseConnections)
    }
}

/// The pressure of now, for every thread.
#[derive(Debug, Default)]
pub struct Memory {
    now: AtomicU8,
    changed: Notify,
}

impl Memory {
    /// The pressure of now; one load.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        Pressure::of_number(self.now.load(Ordering::Relaxed))
    }

    /// Says what it is from now on.
    pub fn set(&self, pressure: Pressure) {
        if self.now.swap(pressure as u8, Ordering::Relaxed) != pressure as u8 {
            self.changed.notify_waiters();
        }
    }

    /// Waits until something must be given up.
    pub(crate) async fn pressed(&self) {
        loop {
            // Asked for before the look, so that no change between the two is missed.
            let changed = self.changed.notified();
            if self.pressure() > Pressure::None {
                return;
            }
            changed.await;
        }
    }
}

/// Looks again and again; thread 0's.
pub(crate) async fn watch(pressure: Arc<Memory>, limit: Option<u64>) {
    let Some(limit) = limit else { return };
    loop {
        clock::sleep(MEMORY_LOOK).await;
        let used = match memory::anonymous_bytes() {
            Ok(used) => used,
            Err(error) => {
                tracing::warn!(%error, "own memory cannot be read: its limit is not watched");
                return;
            }
        };
        let (before, now) = (pressure.pressure(), Pressure::of(used, limit));
        pressure.set(now);
        if now > Pressure::None {
            // Thread 0 relays host ports; the workers free theirs. What was freed is still this
            // process's until it is given back.
            buffers::free_all();
            memory::give_back_freed();
        }
        if now > before && now > Pressure::Shrink {
            tracing::warn!(used, limit, ?now, "the memory limit is near");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_begins_at_its_share_of_the_limit() {
        for (used, pressure) in [
            (0, Pressure::None),
            (849, Pressure::None),
            (850, Pressure::Shrink),
            (919, Pressure::Shrink),
            (920, Pressure::RefuseRequests),
            (969, Pressure::RefuseRequests),
            (970, Pressure::RefuseConnections),
            (u64::MAX, Pressure::RefuseConnections),
        ] {
            assert_eq!(Pressure::of(used, 1000), pressure, "{used}");
        }
        assert_eq!(Pressure::of(1, 0), Pressure::RefuseConnections);
    }

    #[test]
    fn every_thread_sees_what_was_set() {
        let memory = Memory::default();
        assert_eq!(memory.pressure(), Pressure::None);
        for pressure in [
            Pressure::RefuseConnections,
            Pressure::RefuseRequests,
            Pressure::Shrink,
            Pressure::None,
        ] {
            memory.set(pressure);
            assert_eq!(memory.pressure(), pressure);
        }
    }
}
