//! The memory watchdog: this process's own memory against the limit it was given, and what must be
//! given up to stay within it, in three steps: what is only kept at hand, requests, connections.
//!
//! Without a limit nothing is refused. A machine's or a shared cgroup's limit is not this process's:
//! its neighbours' use of it would refuse calls here. But with a limit or without, what a flood has
//! left free goes back to the kernel soon after it: the allocator keeps most of what was freed
//! between what is still used, for ever if nobody asks.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use heddle_runtime::{clock, memory};
use tokio::sync::Notify;

use crate::{
    buffers,
    limits::{
        MEMORY_KEPT_FREE, MEMORY_LOOK, MEMORY_REFUSE_CONNECTIONS, MEMORY_REFUSE_REQUESTS,
        MEMORY_RETURN, MEMORY_RETURN_PAUSES, MEMORY_SHRINK,
    },
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
    calm: Notify,
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

    /// Waits until memory is about to be given back to the kernel, and free buffers should be free.
    pub(crate) async fn returned(&self) {
        self.calm.notified().await;
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

/// Gives back what is free, again and again; thread 0's.
pub(crate) async fn give_back(shared: Arc<Memory>) {
    // Now, before anything is served: a flood may be over before the first look.
    let Ok(used) = memory::anonymous_bytes() else { return };
    let mut kept = Kept::new(used);
    loop {
        clock::sleep(MEMORY_RETURN).await;
        let Ok(used) = memory::anonymous_bytes() else { return };
        if !kept.is_due(used) {
            continue;
        }
        shared.calm.notify_waiters();
        // The workers need a moment to free theirs.
        clock::sleep(MEMORY_LOOK).await;
        buffers::free_all();
        memory::give_back_freed();
        kept.gave_back(used, memory::anonymous_bytes().unwrap_or(used));
    }
}

/// When it is worth to ask the allocator for what it keeps: it looks at all it has, and the workers
/// wait meanwhile. So not while memory grows, not for little, and ever more seldom while nothing
/// comes of it, since then it is in use.
#[derive(Debug)]
struct Kept {
    /// Bytes at the last look.
    last: u64,
    /// The fewest bytes there ever were.
    least: u64,
    /// Looks to let pass, and how many it were after the last vain attempt.
    pause: u32,
    pauses: u32,
}

impl Kept {
    fn new(used: u64) -> Self {
        Self { last: used, least: used, pause: 0, pauses: 0 }
    }

    fn is_due(&mut self, used: u64) -> bool {
        self.least = self.least.min(used);
        let grows = used > std::mem::replace(&mut self.last, used);
        if grows || used < self.least + MEMORY_KEPT_FREE {
            return false;
        }
        let rests = self.pause > 0;
        self.pause = self.pause.saturating_sub(1);
        !rests
    }

    fn gave_back(&mut self, before: u64, after: u64) {
        let vain = before.saturating_sub(after) < MEMORY_KEPT_FREE / 8;
        self.pauses = if vain { (2 * self.pauses + 1).min(MEMORY_RETURN_PAUSES) } else { 0 };
        self.pause = self.pauses;
        self.last = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_a_flood_left_is_given_back_at_the_second_look_after_it() {
        let mut kept = Kept::new(10 * MIB);
        assert!(!kept.is_due(10 * MIB));
        // Also one that is over before the first look.
        assert!(!kept.is_due(300 * MIB), "it grew");
        assert!(kept.is_due(300 * MIB));
        kept.gave_back(300 * MIB, 11 * MIB);
        assert!(!kept.is_due(11 * MIB));
        // And the next one.
        assert!(!kept.is_due(200 * MIB));
        assert!(kept.is_due(150 * MIB));
    }

    #[test]
    fn memory_in_use_is_asked_for_ever_more_seldom_and_not_forgotten() {
        let mut kept = Kept::new(10 * MIB);
        let looks = 100;
        let mut asked = Vec::new();
        for look in 0..looks {
            if kept.is_due(300 * MIB) {
                kept.gave_back(300 * MIB, 300 * MIB);
                asked.push(look);
            }
        }
        assert_eq!(asked[..4], [1, 3, 7, 14]);
        let apart = usize::try_from(MEMORY_RETURN_PAUSES).unwrap() + 1;
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] <= apart), "{asked:?}");
    }

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
