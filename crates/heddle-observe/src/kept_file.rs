//! A file in which something is kept, and the thread that writes it: whatever a disk does, answers and scrapes do
//! not wait for it. What is in a file is told by its [`Layout`].
//!
//! A process may be killed at any moment: a batch is in the file as a whole or not at all. A file that cannot
//! be read is set aside under another name, and another begun. One that cannot be written is told of, and
//! tried again with everything; meanwhile what it keeps goes on in memory.

use std::{
    any::Any,
    io,
    os::unix::fs::PermissionsExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use heddle_runtime::clock;
use redb::{Database, ReadableTable as _, TableDefinition, WriteTransaction};
use tokio::sync::mpsc;

use crate::limits;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// What is in a file.
pub(crate) trait Layout: 'static {
    /// What it keeps, for messages.
    const WHAT: &'static str;
    /// The newest form that this version writes.
    const FORMAT: u64;
    /// What is written at once.
    type Batch: Send + 'static;
    /// What is read at the start.
    type Kept;

    /// Makes the tables that are not there yet.
    fn tables(transaction: &WriteTransaction) -> Result<(), redb::Error>;
    /// All that is in it.
    fn all(database: &Database) -> Result<Self::Kept, redb::Error>;
    /// Writes all of a batch or nothing.
    fn write(database: &Database, batch: &Self::Batch) -> Result<(), redb::Error>;
}

/// The file.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    /// None after a write that failed: it takes no other until it has been opened anew.
    pub(crate) database: Option<Database>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
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

/// Opens the file at `path`, or makes it, and gives what is in it. `None`: nothing is kept this time, which is told.
pub(crate) fn open<L: Layout>(path: PathBuf) -> Option<(File, L::Kept)> {
    let opened = match read::<L>(&path) {
        Err(FileError::Damaged(reason)) => {
            let aside = path.with_extension(format!("damaged-{}", clock::unix_now().as_secs()));
            tracing::error!(
                what = L::WHAT, path = %path.display(), aside = %aside.display(), reason,
                "what was kept cannot be read; it is set aside, and another file begun"
            );
            std::fs::rename(&path, &aside)
                .map_err(|error| FileError::Io(error.to_string()))
                .and_then(|()| read::<L>(&path))
        }
        other => other,
    };
    match opened {
        Ok((database, kept)) => Some((File { path, database: Some(database) }, kept)),
        Err(error) => {
            tracing::error!(
                what = L::WHAT, path = %path.display(), %error,
                "nothing is kept on the disk: it is in memory only"
            );
            None
        }
    }
}

/// Writes what has changed, again and again. `changes` gives it, or everything if it is asked for that.
pub(crate) async fn keep<L: Layout>(
    file: File,
    interval: Duration,
    mut changes: impl FnMut(bool) -> Option<L::Batch>,
) {
    let failed = Arc::new(AtomicBool::new(false));
    // One batch is written and one may wait.
    let (batches, taken) = mpsc::channel(1);
    let noted = Arc::clone(&failed);
    let writer = thread::Builder::new().name(L::WHAT.to_owned());
    if let Err(error) = writer.spawn(move || write_all::<L>(file, taken, &noted)) {
        tracing::error!(what = L::WHAT, %error, "nothing is kept: its thread cannot be started");
        return;
    }
    loop {
        clock::sleep(interval).await;
        // What has changed is left for the next time while the disk does not keep up.
        let Ok(place) = batches.try_reserve() else { continue };
        let whole = failed.swap(false, Ordering::Relaxed);
        if let Some(batch) = changes(whole) {
            place.send(batch);
        }
    }
}

fn write_all<L: Layout>(
    mut file: File,
    mut batches: mpsc::Receiver<L::Batch>,
    failed: &AtomicBool,
) {
    let mut told = false;
    while let Some(batch) = batches.blocking_recv() {
        match file.write::<L>(&batch) {
            Ok(()) if told => {
                told = false;
                tracing::info!(what = L::WHAT, path = %file.path.display(), "it is kept again");
            }
            Ok(()) => {}
            Err(error) => {
                if !told {
                    tracing::error!(
                        what = L::WHAT, path = %file.path.display(), %error,
                        "it cannot be written; it goes on in memory, and all of it is tried again"
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
    pub(crate) fn write<L: Layout>(&mut self, batch: &L::Batch) -> Result<(), FileError> {
        let written = contained(|| {
            let database = match self.database.take() {
                Some(database) => database,
                None => database(&self.path)?,
            };
            L::write(&database, batch)?;
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

/// Opens a file, or makes it, and reads it.
pub(crate) fn read<L: Layout>(path: &Path) -> Result<(Database, L::Kept), FileError> {
    contained(|| {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| FileError::Io(error.to_string()))?;
        }
        let database = database(path)?;
        // Who calls whom is no business of other users.
        let own = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, own).map_err(|error| FileError::Io(error.to_string()))?;
        let format = made::<L>(&database)?;
        if format > L::FORMAT {
            let known = L::FORMAT;
            let reason = format!("it has format {format}, and this version knows up to {known}");
            return Err(FileError::Damaged(reason));
        }
        let kept = L::all(&database)?;
        Ok((database, kept))
    })
}

/// The tables are there after this; what format the file has.
fn made<L: Layout>(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let format = {
        let mut meta = transaction.open_table(META)?;
        L::tables(&transaction)?;
        let format = meta.get("format")?.map(|format| format.value());
        if format.is_none() {
            meta.insert("format", L::FORMAT)?;
        }
        format.unwrap_or(L::FORMAT)
    };
    transaction.commit()?;
    Ok(format)
}

fn database(path: &Path) -> Result<Database, redb::Error> {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(limits::HISTORY_CACHE_BYTES).set_check_integrity_on_open(true);
    Ok(builder.create(path)?)
}

/// No file makes us panic, whatever is in it.
fn contained<T>(work: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    let panicked = |_: Box<dyn Any + Send>| {
        Err(FileError::Damaged("the library that reads it has panicked".to_owned()))
    };
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked)
}
