//! Counters with one writer each.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that one thread writes and any thread reads.
///
/// Adding is a plain load and store: no locked instruction, and no lost update, since nobody else
/// writes.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds so that who sees the new value also sees everything written before.
    pub(super) fn add_release(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn get_acquire(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
