//! What a breaker counts, for people: limits with how much of them is under way, and who is out.

use std::sync::atomic::Ordering;

use super::{Breaker, Ejected, Limit};

impl Breaker {
    /// Every limit that holds: its field, the most, and how many there are now.
    pub(crate) fn limits(&self) -> Vec<(&'static str, u32, u32)> {
        let set = Limit::ALL.into_iter().filter_map(|what| Some((what, self.limit(what)?)));
        let told = set.filter(|(_, most)| *most < u32::MAX).map(|(what, most)| {
            let now = self.counts.under_way[what as usize].load(Ordering::Acquire);
            (what.field(), most, now)
        });
        told.collect()
    }

    /// Those of its endpoints that are out now.
    pub(crate) fn out_now(&self) -> Vec<Ejected> {
        self.counts.ejected()
    }
}
