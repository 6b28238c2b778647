//! What outlives the process: applied documents, services' address indices, the last good text of
//! each rule file, and a bound no generation given out so far has passed.
//!
//! All of it is read once at start and mirrored in memory; afterwards the file is only written.
//! A write that fails changes nothing: the next one that succeeds writes the whole mirror first,
//! because a commit that failed may have reached the disk all the same. No call panics, whatever
//! is in the file.
//!
//! Only an absent file is a first start. A new one is whole before it has its name, so one that is
//! empty or holds something else was never ours, or is what is left of it.

use std::{
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use heddle_model::{ResourceKey, ServiceName};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::limits::STORE_CACHE_BYTES;

/// File name below the state folder.
pub(crate) const STORE_FILE: &str = "control.redb";
/// The layout written by this version.
const FORMAT: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const APPLIED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("applied");
const VIPS: TableDefinition<'_, &str, u32> = TableDefinition::new("vips");
const FILES: TableDefinition<'_, &str, &str> = TableDefinition::new("files");

/// Why the store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is damaged or not ours.
    #[error(
        "the store {path} is damaged ({reason}): move it away and start again; applied rules must then be applied once more"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A newer version wrote it.
    #[error(
        "the store {path} has format {found}, this version knows up to {FORMAT}: use the newer heddle, or move the file away"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// Another process has it open.
    #[error(
        "the store {path} is in use: another control plane runs with this state folder; stop it or use another --state-dir"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error(
        "the store {path} cannot be {action}: {reason}; make room or check the folder's permissions"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// `opened` or `written`.
        action: &'static str,
        /// The system's words.
        reason: String,
    },
}

/// One applied document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppliedDocument {
    /// Order of creation; an edit keeps it.
    pub(crate) order: u64,
    /// File as the user named it.
    pub(crate) file: String,
    /// 1-based line of the document in it.
    pub(crate) line: usize,
    /// The document.
    pub(crate) text: String,
    /// When it was made, Unix time in seconds; an edit keeps it. 0 where an older version wrote it.
    #[serde(default)]
    pub(crate) since: u64,
}

/// Everything the store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    /// No generation above this was ever given out.
    pub(crate) generation: u64,
    /// Applied documents.
    pub(crate) applied: BTreeMap<ResourceKey, AppliedDocument>,
    /// Services' address indices.
    pub(crate) vips: BTreeMap<ServiceName, u32>,
    /// Last good text of each rule file by path.
    pub(crate) files: BTreeMap<String, String>,
}

/// One change; `None` removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// An applied document.
    Applied(ResourceKey, Option<AppliedDocument>),
    /// A service's index.
    Vip(ServiceName, Option<u32>),
    /// A rule file's last good text.
    File(String, Option<String>),
    /// The generation bound; it only rises.
    Generation(u64),
}

impl Change {
    /// Is this void once `newer` is written too?
    pub(crate) fn is_replaced_by(&self, newer: &Self) -> bool {
        match (self, newer) {
            (Self::Applied(one, _), Self::Applied(other, _)) => one == other,
            (Self::Vip(one, _), Self::Vip(other, _)) => one == other,
            (Self::File(one, _), Self::File(other, _)) => one == other,
            (Self::Generation(_), Self::Generation(_)) => true,
            _ => false,
        }
    }
}

impl Content {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Applied(key, Some(document)) => {
                self.applied.insert(key, document);
            }
            Change::Applied(key, None) => {
                self.applied.remove(&key);
            }
            Change::Vip(name, Some(index)) => {
                self.vips.insert(name, index);
            }
            Change::Vip(name, None) => {
                self.vips.remove(&name);
            }
            Change::File(path, Some(text)) => {
                self.files.insert(path, text);
            }
            Change::File(path, None) => {
                self.files.remove(&path);
            }
            Change::Generation(bound) => self.generation = self.generation.max(bound),
        }
    }

    fn as_changes(&self) -> Vec<Change> {
        let applied = self.applied.iter().map(|(k, d)| Change::Applied(k.clone(), Some(d.clone())));
        let vips = self.vips.iter().map(|(name, index)| Change::Vip(name.clone(), Some(*index)));
        let files = self.files.iter().map(|(p, t)| Change::File(p.clone(), Some(t.clone())));
        applied.chain(vips).chain(files).chain([Change::Generation(self.generation)]).collect()
    }
}

/// The embedded store.
pub(crate) struct Store {
    path: PathBuf,
    database: Option<Database>,
    content: Content,
    rewrite: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or makes the store in `folder` and reads it.
    ///
    /// # Errors
    /// [`StoreError`]: a damaged file is never replaced by an empty one, because that would drop
    /// rules that are in force.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(STORE_FILE);
        let opening = |error: io::Error| io_error(&path, "opened", &error);
        if !folder.is_dir() {
            create_private(folder).map_err(opening)?;
        }
        let database = open_checked(&path)?;
        let content = contained(&path, || read(&path, &database))?;
        Ok(Self { path, database: Some(database), content, rewrite: false })
    }

    /// What is stored.
    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    /// Writes all changes or none.
    ///
    /// # Errors
    /// [`StoreError`]; the content is as before, and later writes are tried afresh.
    pub(crate) fn write(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let result = self.write_once(&changes);
        match &result {
            Ok(()) => {
                self.rewrite = false;
                changes.into_iter().for_each(|change| self.content.apply(change));
            }
            Err(_) => {
                // A failed commit may be on disk: undo it now if the disk allows, else at the next write.
                self.database = None;
                self.rewrite = true;
                if self.write_once(&[]).is_ok() {
                    self.rewrite = false;
                } else {
                    self.database = None;
                }
            }
        }
        result
    }

    fn write_once(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if self.database.is_none() {
            self.database = Some(open_checked(&self.path)?);
        }
        let Some(database) = &self.database else { return Ok(()) };
        let whole = if self.rewrite { Some(self.content.as_changes()) } else { None };
        let path = &self.path;
        contained(path, || {
            commit(database, whole.as_deref(), changes)
                .map_err(|error| redb_error(path, "written", error))
        })
    }
}

fn open_checked(path: &Path) -> Result<Database, StoreError> {
    let open = |check: bool| {
        contained(path, || {
            redb::Builder::new()
                .set_cache_size(STORE_CACHE_BYTES)
                .set_check_integrity_on_open(check)
                .create(path)
                .map_err(|error| redb_error(path, "opened", error.into()))
        })
    };
    // The check writes; on a full disk the rules must be readable all the same.
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path)?,
        Ok(meta) if meta.is_file() && meta.len() == 0 => {
            return Err(damaged(path, "it is empty, and a store never is".to_owned()));
        }
        _ => {}
    }
    let database = match open(true) {
        Err(StoreError::Io { .. }) => open(false)?,
        other => other?,
    };
    restrict(path);
    Ok(database)
}

/// Makes an empty store under another name and then gives it its own, unless another process has
/// made one meanwhile.
fn make(path: &Path) -> Result<(), StoreError> {
    let fresh = path.with_extension(format!("redb.new-{}", std::process::id()));
    let made = contained(path, || {
        let failed = |error: redb::Error| redb_error(path, "opened", error);
        let mut builder = redb::Builder::new();
        builder.set_cache_size(STORE_CACHE_BYTES);
        let database = builder.create(&fresh).map_err(|error| failed(error.into()))?;
        commit(&database, None, &[]).map_err(failed)
    });
    let named = made.and_then(|()| match std::fs::hard_link(&fresh, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // Not every file system has links.
        Err(_) => std::fs::rename(&fresh, path).map_err(|error| io_error(path, "opened", &error)),
        Ok(()) => Ok(()),
    });
    // Renamed, it is gone already.
    drop(std::fs::remove_file(&fresh));
    named.inspect(|()| tracing::info!(path = %path.display(), "a new store, without any rules"))
}

fn commit(
    database: &Database,
    whole: Option<&[Change]>,
    changes: &[Change],
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let mut applied = transaction.open_table(APPLIED)?;
        let mut vips = transaction.open_table(VIPS)?;
        let mut files = transaction.open_table(FILES)?;
        meta.insert("format", FORMAT)?;
        if whole.is_some() {
            applied.retain(|_, _| false)?;
            vips.retain(|_, _| false)?;
            files.retain(|_, _| false)?;
        }
        for change in whole.unwrap_or_default().iter().chain(changes) {
            match change {
                Change::Applied(key, Some(document)) => {
                    let json = serde_json::to_vec(document).map_err(|error| {
                        redb::Error::Io(io::Error::new(io::ErrorKind::InvalidData, error))
                    })?;
                    applied.insert(key.to_string().as_str(), json.as_slice())?;
                }
                Change::Applied(key, None) => drop(applied.remove(key.to_string().as_str())?),
                Change::Vip(name, Some(index)) => drop(vips.insert(vip_key(name).as_str(), index)?),
                Change::Vip(name, None) => drop(vips.remove(vip_key(name).as_str())?),
                Change::File(path, Some(text)) => drop(files.insert(path.as_str(), text.as_str())?),
                Change::File(path, None) => drop(files.remove(path.as_str())?),
                Change::Generation(bound) => {
                    let known = meta.get("generation")?.map_or(0, |known| known.value());
                    drop(meta.insert("generation", known.max(*bound))?);
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(path: &Path, database: &Database) -> Result<Content, StoreError> {
    let failed = |error: redb::Error| redb_error(path, "opened", error);
    let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
    let mut content = Content::default();
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Err(foreign(path)),
        Err(error) => return Err(failed(error.into())),
    };
    let number = |key: &str| -> Result<u64, StoreError> {
        let value = meta.get(key).map_err(|error| failed(error.into()))?;
        Ok(value.map_or(0, |value| value.value()))
    };
    let found = number("format")?;
    if found > FORMAT {
        return Err(StoreError::Newer { path: path.to_owned(), found });
    }
    if found == 0 {
        return Err(foreign(path));
    }
    content.generation = number("generation")?;
    let tables = || -> Result<_, redb::TableError> {
        Ok((
            transaction.open_table(APPLIED)?,
            transaction.open_table(VIPS)?,
            transaction.open_table(FILES)?,
        ))
    };
    let (applied, vips, files) = tables().map_err(|error| failed(error.into()))?;
    let mut rows = || -> Result<(), redb::StorageError> {
        let corrupt = |what: &str| redb::StorageError::Corrupted(format!("unreadable row {what}"));
        for row in applied.iter()? {
            let (key, value) = row?;
            let document = serde_json::from_slice(value.value()).ok();
            let entry = resource_key(key.value()).zip(document);
            let (key, document) = entry.ok_or_else(|| corrupt(key.value()))?;
            content.applied.insert(key, document);
        }
        for row in vips.iter()? {
            let (key, value) = row?;
            let name = key.value().split_once('/');
            let read = |namespace, name: &str| match name.contains('.') {
                true => ServiceName::of_host(name, namespace),
                false => ServiceName::new(name, namespace),
            };
            let name = name.and_then(|(namespace, name)| read(namespace, name).ok());
            content.vips.insert(name.ok_or_else(|| corrupt(key.value()))?, value.value());
        }
        for row in files.iter()? {
            let (key, value) = row?;
            content.files.insert(key.value().to_owned(), value.value().to_owned());
        }
        Ok(())
    };
    rows().map_err(|error| failed(error.into()))?;
    Ok(content)
}

fn vip_key(name: &ServiceName) -> String {
    format!("{}/{}", name.namespace, name.name)
}

fn resource_key(text: &str) -> Option<ResourceKey> {
    let mut parts = text.splitn(3, '/');
    let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    Some(ResourceKey {
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// Runs `work` so that a panic inside the storage engine, caused by what is in the file, is an error.
fn contained<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(damaged(path, "its pages contradict each other".to_owned())))
}

fn damaged(path: &Path, reason: String) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), reason }
}

fn foreign(path: &Path) -> StoreError {
    damaged(path, "it is a database, but not one of Heddle's".to_owned())
}

fn redb_error(path: &Path, action: &'static str, error: redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse { path },
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            StoreError::Damaged { path, reason: error.to_string() }
        }
        // A file cut short ends before its header says so.
        redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            StoreError::Damaged { path, reason: "it is cut short".to_owned() }
        }
        redb::Error::Io(error) => io_error(&path, action, &error),
        redb::Error::PreviousIo => {
            StoreError::Io { path, action, reason: "an earlier write failed".to_owned() }
        }
        other => StoreError::Damaged { path, reason: other.to_string() },
    }
}

fn io_error(path: &Path, action: &'static str, error: &io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), action, reason: error.to_string() }
}

fn create_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// The documents may name internal hosts: only the owner reads them. Best effort.
fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        tracing::warn!(path = %path.display(), %error, "store permissions not restricted");
    }
}

#[cfg(test)]
mod tests;
