//! What this sidecar refused lately, for whoever asks why by the id of a request. Written only where a request is
//! refused; bounded in number and in bytes, the oldest give way.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
};

use heddle_model::{WorkloadId, secret};
use heddle_runtime::clock;
use heddle_wire::local::sidecar_api::{Refusals, Refused};

/// Most that are remembered.
pub const REMEMBERED_MAX: usize = 256;
/// Most bytes of text of all of them.
const BYTES_MAX: usize = 256 << 10;
/// Ended sidecars of which something is kept.
pub const LEFT_MAX: usize = 64;
/// Longest text of a client's that is kept, bytes.
const TEXT_MAX: usize = 512;

/// The newest refusals.
#[derive(Debug)]
pub struct RecentRefusals {
    /// Seconds since 1970.
    since: u64,
    ring: Mutex<Ring>,
    /// Those that found it taken.
    missed: AtomicU64,
}

#[derive(Debug, Default)]
struct Ring {
    refusals: VecDeque<Refused>,
    bytes: usize,
    forgotten: u64,
}

impl Default for RecentRefusals {
    fn default() -> Self {
        let since = clock::unix_now().as_secs();
        Self { since, ring: Mutex::default(), missed: AtomicU64::default() }
    }
}

impl RecentRefusals {
    /// Takes note of one; texts of the client's are cut, and values of secrets left out. Where another worker notes
    /// one at this moment this one counts as forgotten: a refusal waits for nobody.
    pub(crate) fn note(&self, refused: Refused) {
        let refused = Refused {
            method: cut(refused.method),
            authority: cut(refused.authority),
            path: cut(secret::shown_target(&refused.path).into_owned()),
            text: cut(refused.text),
            rule: refused.rule.map(cut),
            service: cut(refused.service),
            ..refused
        };
        let mut ring = match self.ring.try_lock() {
            Ok(ring) => ring,
            Err(TryLockError::Poisoned(ring)) => ring.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.missed.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        ring.bytes += bytes(&refused);
        ring.refusals.push_back(refused);
        while ring.refusals.len() > REMEMBERED_MAX || ring.bytes > BYTES_MAX {
            let Some(oldest) = ring.refusals.pop_front() else { break };
            ring.bytes -= bytes(&oldest);
            ring.forgotten += 1;
        }
    }

    /// All that are remembered, as the sidecar of `workload` tells of them.
    #[must_use]
    pub fn told(&self, workload: &WorkloadId) -> Refusals {
        let ring = self.ring();
        Refusals {
            workload: workload.clone(),
            since: self.since,
            forgotten: ring.forgotten + self.missed.load(Ordering::Relaxed),
            refusals: ring.refusals.iter().cloned().collect(),
        }
    }

    /// Leaves them in a folder, for who asks when this sidecar is gone; those of the ones that ended longest ago give
    /// way. Nothing is left where nothing was refused.
    ///
    /// # Errors
    /// What the system says.
    pub fn leave(&self, folder: &Path, workload: &WorkloadId) -> io::Result<()> {
        let told = self.told(workload);
        if told.refusals.is_empty() {
            return Ok(());
        }
        DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
        let fresh = folder.join(format!("{workload}.new"));
        fs::write(&fresh, serde_json::to_vec(&told)?)?;
        fs::rename(fresh, folder.join(format!("{workload}.json")))?;
        clear_up(folder);
        Ok(())
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // A panic in between leaves at worst a count that is off.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the oldest away where there are too many. Others that end at the same moment do the same: what has gone
/// meanwhile is no trouble.
fn clear_up(folder: &Path) {
    let Ok(all) = fs::read_dir(folder) else { return };
    let age = |one: fs::DirEntry| Some((one.metadata().ok()?.modified().ok()?, one.path()));
    let mut left: Vec<_> = all.flatten().filter_map(age).collect();
    left.sort();
    for (_, oldest) in left.iter().rev().skip(LEFT_MAX) {
        drop(fs::remove_file(oldest));
    }
}

fn bytes(refused: &Refused) -> usize {
    let Refused { id, service, method, authority, path, text, .. } = refused;
    let texts = [id, service, method, authority, path, text];
    let more = [&refused.peer, &refused.rule].into_iter().flatten();
    let texts = texts.into_iter().chain(more).map(String::len).sum::<usize>();
    texts + size_of::<Refused>()
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
        // Else the bytes that were cut off would be kept, and counted nowhere.
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(id: usize, path: &str) -> Refused {
        Refused { id: id.to_string(), path: path.to_owned(), ..Refused::default() }
    }

    #[test]
    fn the_oldest_give_way_and_are_counted() {
        let recent = RecentRefusals::default();
        (0..REMEMBERED_MAX + 10).for_each(|id| recent.note(refused(id, "/")));
        let told = recent.told(&WorkloadId("a-1".into()));
        assert_eq!((told.refusals.len(), told.forgotten), (REMEMBERED_MAX, 10));
        assert_eq!(told.refusals[0].id, "10");
    }

    #[test]
    fn long_texts_are_cut_and_all_of_them_stay_within_the_bytes() {
        let recent = RecentRefusals::default();
        for id in 0..1_000 {
            recent.note(Refused {
                authority: "é".repeat(4_000),
                method: "M".repeat(70_000),
                text: "t".repeat(70_000),
                ..refused(id, &"x".repeat(70_000))
            });
        }
        let told = recent.told(&WorkloadId("a-1".into()));
        let kept: usize = told.refusals.iter().map(bytes).sum();
        assert!(kept <= BYTES_MAX && !told.refusals.is_empty(), "{kept}");
        assert_eq!(told.refusals.len() as u64 + told.forgotten, 1_000);
        assert!(told.refusals.iter().all(|one| one.path.len() <= TEXT_MAX + 3));
        let ring = recent.ring();
        let held = ring.refusals.iter().map(|one| one.path.capacity() + one.text.capacity());
        assert!(held.max() <= Some(3 * TEXT_MAX), "what was cut off is held no longer");
    }

    #[test]
    fn what_ended_sidecars_leave_is_bounded_and_nothing_is_left_of_nothing() {
        let folder = crate::testing::Folder::new("left");
        let recent = RecentRefusals::default();
        let left = folder.join("refusals");
        recent.leave(&left, &WorkloadId("none-1".into())).unwrap();
        assert!(!left.exists());
        recent.note(refused(1, "/"));
        for number in 0..LEFT_MAX + 5 {
            recent.leave(&left, &WorkloadId(format!("a-{number}"))).unwrap();
        }
        let files = || fs::read_dir(&left).unwrap().map(|one| one.unwrap().path());
        assert_eq!(files().count(), LEFT_MAX);
        let told: Refusals =
            serde_json::from_slice(&fs::read(files().next().unwrap()).unwrap()).unwrap();
        assert_eq!(told.refusals[0].id, "1");
    }

    #[test]
    fn values_of_secrets_in_a_query_are_left_out() {
        let recent = RecentRefusals::default();
        recent.note(refused(1, "/a?access_token=hunter2&b=c"));
        let told = recent.told(&WorkloadId("a-1".into()));
        assert_eq!(told.refusals[0].path, "/a?access_token=(hidden)&b=c");
    }
}
