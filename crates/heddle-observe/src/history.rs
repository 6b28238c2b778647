//! The file in which the store is kept, and the thread that writes it: whatever a disk does, answers and
//! scrapes do not wait for it. What is in it is the store's business ([`crate::store::kept`]).
//!
//! A process may be killed at any moment: a batch is in the file as a whole or not at all. A file that cannot
//! be read is set aside under another name, and another begun. One that cannot be written is told of, and
//! tried again with everything; meanwhile the store goes on in memory.

use std::{
    any::Any,
    cell::RefCell,
    io,
    os::unix::fs::PermissionsExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use heddle_runtime::clock;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::mpsc;

use crate::{
    answers::View,
    limits,
    store::{
        Store,
        kept::{Batch, Kept},
    },
};

/// The layout that this version writes.
const FORMAT: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const SLOTS: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("slots");
const PLACES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("places");
const ANSWERS: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("answers");

/// The file.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    /// None after a write that failed: it takes no other until it has been opened anew.
    database: Option<Database>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("another process has it open")]
    InUse,
    #[error("it cannot be read: {0}")]
    Damaged(String),
    #[error("{0}")]
    Io(String),
}

impl From<redb::Error> for FileError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            redb::Error::Io(error) if error.kind() != io::ErrorKind::InvalidData => {
                Self::Io(error.to_string())
            }
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// Opens the file at `path`, or makes it, and gives the store what is in it. `None`: nothing is kept this time, which
/// is told.
pub(crate) fn open(path: PathBuf, store: &mut Store) -> Option<File> {
    let opened = match read(&path) {
        Err(FileError::Damaged(reason)) => {
            let aside = path.with_extension(format!("damaged-{}", clock::unix_now().as_secs()));
            tracing::error!(
                path = %path.display(), aside = %aside.display(), reason,
                "the history cannot be read; it is set aside, and another begun"
            );
            std::fs::rename(&path, &aside)
                .map_err(|error| FileError::Io(error.to_string()))
                .and_then(|()| read(&path))
        }
        other => other,
    };
    match opened {
        Ok((database, kept)) => {
            tracing::info!(path = %path.display(), slots = kept.slots.len(), "the history goes on");
            store.restore(kept);
            Some(File { path, database: Some(database) })
        }
        Err(error) => {
            tracing::error!(
                path = %path.display(), %error,
                "the history is not kept: the picture is in memory only"
            );
            None
        }
    }
}

/// Writes what has changed, again and again.
pub(crate) async fn keep(view: Rc<RefCell<View>>, file: File) {
    let failed = Arc::new(AtomicBool::new(false));
    // One batch is written and one may wait.
    let (batches, taken) = mpsc::channel(1);
    let noted = Arc::clone(&failed);
    let writer = thread::Builder::new().name("history".to_owned());
    if let Err(error) = writer.spawn(move || write_all(file, taken, &noted)) {
        tracing::error!(%error, "the history is not kept: its thread cannot be started");
        return;
    }
    loop {
        clock::sleep(limits::HISTORY_INTERVAL).await;
        // What has changed is left for the next time while the disk does not keep up.
        let Ok(place) = batches.try_reserve() else { continue };
        let whole = failed.swap(false, Ordering::Relaxed);
        place.send(view.borrow_mut().store.changes(whole));
    }
}

fn write_all(mut file: File, mut batches: mpsc::Receiver<Batch>, failed: &AtomicBool) {
    let mut told = false;
    while let Some(batch) = batches.blocking_recv() {
        match file.write(&batch) {
            Ok(()) if told => {
                told = false;
                tracing::info!(path = %file.path.display(), "the history is kept again");
            }
            Ok(()) => {}
            Err(error) => {
                if !told {
                    tracing::error!(
                        path = %file.path.display(), %error,
                        "the history cannot be written; the picture goes on in memory, and all of it is tried again"
                    );
                }
                told = true;
                pause();
                failed.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl File {
    /// Writes all of a batch or nothing.
    fn write(&mut self, batch: &Batch) -> Result<(), FileError> {
        let written = contained(|| {
            let database = match self.database.take() {
                Some(database) => database,
                None => database(&self.path)?,
            };
            write(&database, batch)?;
            Ok(database)
        });
        self.database = Some(written?);
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "this thread has no runtime and no paused clock")]
fn pause() {
    thread::sleep(limits::HISTORY_RETRY);
}

fn read(path: &Path) -> Result<(Database, Kept), FileError> {
    contained(|| {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| FileError::Io(error.to_string()))?;
        }
        let database = database(path)?;
        // Who calls whom is no business of other users.
        let own = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, own).map_err(|error| FileError::Io(error.to_string()))?;
        let format = made(&database)?;
        if format > FORMAT {
            let reason = format!("it has format {format}, and this version knows up to {FORMAT}");
            return Err(FileError::Damaged(reason));
        }
        let kept = all(&database)?;
        Ok((database, kept))
    })
}

fn database(path: &Path) -> Result<Database, redb::Error> {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(limits::HISTORY_CACHE_BYTES).set_check_integrity_on_open(true);
    Ok(builder.create(path)?)
}

/// The tables are there after this; what format the file has.
fn made(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let format = {
        let mut meta = transaction.open_table(META)?;
        transaction.open_table(SLOTS)?;
        transaction.open_table(PLACES)?;
        transaction.open_table(ANSWERS)?;
        let format = meta.get("format")?.map(|format| format.value());
        if format.is_none() {
            meta.insert("format", FORMAT)?;
        }
        format.unwrap_or(FORMAT)
    };
    transaction.commit()?;
    Ok(format)
}

fn all(database: &Database) -> Result<Kept, redb::Error> {
    let transaction = database.begin_read()?;
    let mut kept = Kept::default();
    for row in transaction.open_table(SLOTS)?.iter()? {
        let (key, bytes) = row?;
        kept.slots.push((key.value(), bytes.value().to_vec()));
    }
    for row in transaction.open_table(PLACES)?.iter()? {
        let (key, bytes) = row?;
        kept.places.push((key.value(), bytes.value().to_vec()));
    }
    for row in transaction.open_table(ANSWERS)?.iter()? {
        let (key, bytes) = row?;
        kept.answers.push((key.value(), bytes.value().to_vec()));
    }
    Ok(kept)
}

fn write(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut slots = transaction.open_table(SLOTS)?;
        let mut places = transaction.open_table(PLACES)?;
        let mut answers = transaction.open_table(ANSWERS)?;
        if batch.whole {
            slots.retain(|_, _| false)?;
            places.retain(|_, _| false)?;
            answers.retain(|_, _| false)?;
        }
        for (tier, there) in &batch.tiers {
            slots.retain_in((*tier, 0)..(*tier, *there.start()), |_, _| false)?;
            let newer = (*tier, there.end().saturating_add(1))..=(*tier, u64::MAX);
            slots.retain_in(newer, |_, _| false)?;
        }
        for (key, bytes) in &batch.slots {
            slots.insert(key, bytes.as_slice())?;
        }
        for (number, bytes) in &batch.places {
            places.insert(number, bytes.as_slice())?;
        }
        for (number, bytes) in &batch.answers {
            answers.insert(number, bytes.as_slice())?;
        }
        for number in &batch.forgotten {
            places.remove(number)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// No file makes us panic, whatever is in it.
fn contained<T>(work: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    let panicked = |_: Box<dyn Any + Send>| {
        Err(FileError::Damaged("the library that reads it has panicked".to_owned()))
    };
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked)
}

#[cfg(test)]
mod tests;
