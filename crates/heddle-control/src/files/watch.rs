//! Which rule files to look at, and when: a batch once the folder has come to rest.
//!
//! A file is looked at when it was closed after writing or renamed into place, never while it is
//! being written: a half-written file must not replace good rules. A file that vanishes is waited
//! for a little, because many editors save by renaming the old one away first. What links lead to is
//! looked at twice a second.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use heddle_runtime::clock;
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use tokio::sync::mpsc;

use super::{links::Links, read::is_rule_file};
use crate::limits::{
    FILE_EVENTS_MAX, FILE_WRITING_MAX, FILES_SETTLE, FILES_SETTLE_MAX, FOLDER_RETRY, LINKS_INTERVAL,
};

/// How long a vanished file may take to come back before it counts as removed.
const GONE_SETTLE: Duration = Duration::from_millis(100);

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Batch {
    /// These files.
    Files(BTreeSet<PathBuf>),
    /// The whole folder, except what is being written.
    Folder {
        /// Files that are open for writing now; another batch follows for them.
        except: BTreeSet<PathBuf>,
    },
}

/// Something that happened in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hint {
    Written(PathBuf),
    /// Its rights changed, say.
    Touched(PathBuf),
    Writing(PathBuf),
    Gone(PathBuf),
    Everything,
    FolderGone,
}

/// Watches one folder, not those below it.
#[derive(Debug)]
pub(crate) struct FolderWatch {
    folder: PathBuf,
    /// `None` while the folder cannot be watched; it is then looked for, and read as a whole.
    watcher: Option<RecommendedWatcher>,
    hints: mpsc::Receiver<Hint>,
    hint: mpsc::Sender<Hint>,
    overflow: Arc<AtomicBool>,
    pending: Pending,
    links: Links,
    /// When to look at what the links lead to.
    links_due: Instant,
    problem: Option<String>,
}

impl FolderWatch {
    /// Starts to watch. The first batch is the whole folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let (hint, hints) = mpsc::channel(FILE_EVENTS_MAX);
        let mut watch = Self {
            folder: folder.to_owned(),
            watcher: None,
            hints,
            hint,
            overflow: Arc::new(AtomicBool::new(false)),
            pending: Pending { everything: true, ..Pending::default() },
            links: Links::default(),
            links_due: clock::now() + LINKS_INTERVAL,
            problem: None,
        };
        watch.start();
        watch.links.refresh(folder);
        watch
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Why the folder is not watched, if it is not.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// The next batch: waits until something happened and the folder came to rest. While the folder
    /// cannot be watched, a batch comes every second.
    pub(crate) async fn next(&mut self) -> Batch {
        loop {
            let now = clock::now();
            if self.overflow.swap(false, Ordering::Relaxed) {
                self.pending.note(Hint::Everything, now);
            }
            if now >= self.links_due {
                self.links_due = now + LINKS_INTERVAL;
                for link in self.links.changed() {
                    self.pending.note(Hint::Written(link), now);
                }
            }
            if let Some(batch) = self.pending.take(now) {
                self.links.refresh(&self.folder);
                return batch;
            }
            let retry = self.watcher.is_none().then(|| now + FOLDER_RETRY);
            let links = (!self.links.is_empty()).then_some(self.links_due);
            let wake = [self.pending.due(), retry, links].into_iter().flatten().min();
            let hint = match wake {
                Some(at) => {
                    clock::within(at.saturating_duration_since(now), self.hints.recv()).await
                }
                None => Some(self.hints.recv().await),
            };
            match hint {
                Some(Some(Hint::FolderGone)) => {
                    self.watcher = None;
                    self.problem = Some(format!(
                        "the folder {} is gone; its rules stay in force",
                        self.folder.display()
                    ));
                }
                Some(Some(hint)) => self.pending.note(hint, clock::now()),
                // `self` holds a sender, so the channel does not close.
                Some(None) => {}
                None if self.watcher.is_none() => self.start(),
                None => {}
            }
        }
    }

    /// Tries to watch; the folder is read as a whole either way.
    fn start(&mut self) {
        self.pending.everything = true;
        let (hint, overflow, folder) =
            (self.hint.clone(), self.overflow.clone(), self.folder.clone());
        let handler = move |event: notify::Result<Event>| {
            for hint_of in
                event.map_or_else(|_| vec![Hint::Everything], |event| hints(&folder, &event))
            {
                if hint.try_send(hint_of).is_err() {
                    overflow.store(true, Ordering::Relaxed);
                }
            }
        };
        let watcher = notify::recommended_watcher(handler).and_then(|mut watcher| {
            watcher.watch(&self.folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.problem = None;
            }
            Err(error) => {
                let folder = self.folder.display();
                let seconds = FOLDER_RETRY.as_secs();
                self.problem = Some(format!(
                    "the folder {folder} cannot be watched ({error}); it is looked at every {seconds} s, what was read from it stays in force"
                ));
            }
        }
    }
}

/// What has happened and was not handed out yet.
#[derive(Debug, Default)]
struct Pending {
    everything: bool,
    changed: BTreeSet<PathBuf>,
    /// Being written since.
    writing: BTreeMap<PathBuf, Instant>,
    /// Missing since.
    gone: BTreeMap<PathBuf, Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Pending {
    fn note(&mut self, hint: Hint, now: Instant) {
        match hint {
            Hint::Written(path) => {
                self.writing.remove(&path);
                self.gone.remove(&path);
                self.changed.insert(path);
            }
            Hint::Touched(path) => drop(self.changed.insert(path)),
            Hint::Writing(path) => {
                self.gone.remove(&path);
                self.writing.entry(path).or_insert(now);
            }
            Hint::Gone(path) => {
                self.writing.remove(&path);
                self.changed.remove(&path);
                self.gone.insert(path, now);
            }
            Hint::Everything | Hint::FolderGone => self.everything = true,
        }
        // A file that is merely being written is no reason to be in a hurry with the next ones.
        self.first = self.has_news().then(|| self.first.unwrap_or(now));
        self.last = Some(now);
    }

    /// When to look again, if nothing else happens.
    fn due(&self) -> Option<Instant> {
        let rest = match (self.first, self.last) {
            (Some(first), Some(last)) if self.has_news() => {
                Some((last + FILES_SETTLE).min(first + FILES_SETTLE_MAX))
            }
            _ => None,
        };
        let written = self.writing.values().map(|since| *since + FILE_WRITING_MAX).min();
        let back = self.gone.values().map(|since| *since + GONE_SETTLE).max();
        match (rest, back) {
            (rest, Some(back)) => Some(rest.map_or(back, |rest| rest.max(back))),
            (rest, None) => rest.or(written),
        }
    }

    fn has_news(&self) -> bool {
        self.everything || !self.changed.is_empty() || !self.gone.is_empty()
    }

    /// The batch, if the folder has come to rest.
    fn take(&mut self, now: Instant) -> Option<Batch> {
        let stale = |since: &Instant| *since + FILE_WRITING_MAX <= now;
        let unclosed = self.writing.iter().filter(|(_, since)| stale(since));
        self.changed.extend(unclosed.map(|(path, _)| path.clone()));
        self.writing.retain(|_, since| !stale(since));
        // At start nothing has happened, and there is nothing to wait for.
        let begun = self.first.is_none() && self.everything;
        if !begun && (!self.has_news() || self.due().is_some_and(|due| due > now)) {
            return None;
        }
        (self.first, self.last) = (None, None);
        let mut paths = std::mem::take(&mut self.changed);
        paths.extend(std::mem::take(&mut self.gone).into_keys());
        if std::mem::take(&mut self.everything) {
            return Some(Batch::Folder { except: self.writing.keys().cloned().collect() });
        }
        paths.retain(|path| !self.writing.contains_key(path));
        (!paths.is_empty()).then_some(Batch::Files(paths))
    }
}

/// What an event means. Our own reading (opening) and everything about other names means nothing,
/// except that a name beginning with two dots is how Kubernetes swaps a whole folder.
fn hints(folder: &Path, event: &Event) -> Vec<Hint> {
    if event.need_rescan() {
        return vec![Hint::Everything];
    }
    let about = |path: &Path, hint: fn(PathBuf) -> Hint| {
        let swap = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
        match () {
            () if is_rule_file(path) => Some(hint(path.to_owned())),
            () if swap => Some(Hint::Everything),
            () => None,
        }
    };
    let paths = event.paths.iter().map(PathBuf::as_path);
    let own = event.paths.iter().any(|path| path == folder);
    match event.kind {
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) if own => {
            vec![Hint::FolderGone]
        }
        _ if own => Vec::new(),
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
            paths.filter_map(|path| about(path, Hint::Written)).collect()
        }
        EventKind::Modify(ModifyKind::Metadata(_)) => {
            paths.filter_map(|path| about(path, Hint::Touched)).collect()
        }
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => {
            paths.filter_map(|path| about(path, Hint::Writing)).collect()
        }
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
            paths.filter_map(|path| about(path, Hint::Gone)).collect()
        }
        // Both halves were told one by one.
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
