//! Whether an entry was used, so that what nobody asks for can be given back.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// "Was used since the last sweep": set by readers without a clock, taken by thread 0's sweep.
///
/// It survives rebuilds, so an entry's idleness does not depend on how often its rules change.
#[derive(Debug, Clone, Default)]
pub struct UseMark(Arc<AtomicBool>);

impl UseMark {
    /// Notes a use. Writes only if needed, so that workers do not share a dirty cache line.
    #[inline]
    pub fn touch(&self) {
        if !self.0.load(Ordering::Relaxed) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Was it used since the last call?
    #[must_use]
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// A value with its use mark.
#[derive(Debug)]
pub(super) struct Used<T> {
    pub(super) value: T,
    pub(super) mark: UseMark,
}

impl<T> Used<T> {
    #[inline]
    pub(super) fn get(&self) -> &T {
        self.mark.touch();
        &self.value
    }
}
