//! The last good set on disk, so that a sidecar starts and serves while the control plane is gone.
//!
//! One file, replaced by rename, mode 0600: a line that names format and version, a checksum, and
//! the resources as they came, with the time of their last use. Evicted resources stay in it until
//! newer ones need the room. Nothing here can fail a sidecar: a full disk costs the saving, a file
//! that is torn, foreign or of another version is as good as none; each is logged once.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use prost::Message;

/// Resources in the file; of more, those not used for longest are left out.
pub const SAVED_RESOURCES_MAX: usize = 8192;
/// Bytes of the file's payload.
pub const SAVED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// First bytes of the file; the number is the format's version.
const MAGIC: &[u8] = b"heddle saved set 2\n";
const CHECKSUM_LEN: usize = 8;
const FILE_NAME: &str = "last-good-set";

/// What is saved.
#[derive(Clone, PartialEq, Message)]
pub struct SavedSet {
    /// Mesh it belongs to.
    #[prost(string, tag = "1")]
    pub mesh: String,
    /// Workload it belongs to.
    #[prost(string, tag = "2")]
    pub workload: String,
    /// Generation that was in force.
    #[prost(uint64, tag = "3")]
    pub generation: u64,
    /// The resources.
    #[prost(message, repeated, tag = "4")]
    pub resources: Vec<SavedResource>,
}

/// One resource.
#[derive(Clone, PartialEq, Message)]
pub struct SavedResource {
    /// Type URL.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// Name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Version, as the control plane gave it.
    #[prost(string, tag = "3")]
    pub version: String,
    /// The resource, encoded.
    #[prost(bytes = "vec", tag = "4")]
    pub body: Vec<u8>,
    /// Last use, seconds of Unix time.
    #[prost(uint64, tag = "5")]
    pub last_used: u64,
    /// In use when saved, not evicted: loaded at start.
    #[prost(bool, tag = "6")]
    pub active: bool,
}

/// The file and what went wrong with it so far.
#[derive(Debug)]
pub struct SavedFile {
    path: PathBuf,
    write_failure_logged: bool,
}

/// Why there is no saved set.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is longer than {SAVED_BYTES_MAX} bytes")]
    TooLong,
    #[error("it is no saved set of this version")]
    Foreign,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it does not decode: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("it belongs to another workload: `{0}`")]
    OtherWorkload(String),
}

impl SavedFile {
    /// The file in `folder`, which is made when first written to.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join(FILE_NAME), write_failure_logged: false }
    }

    /// The saved set of this workload; empty if there is none that can be used.
    #[must_use]
    pub fn load(&self, mesh: &str, workload: &str) -> SavedSet {
        match self.read(mesh, workload) {
            Ok(set) => set,
            Err(error) => {
                if !matches!(&error, LoadError::Io(e) if e.kind() == io::ErrorKind::NotFound) {
                    tracing::warn!(file = %self.path.display(), %error, "the saved set is not used");
                }
                SavedSet { mesh: mesh.into(), workload: workload.into(), ..SavedSet::default() }
            }
        }
    }

    fn read(&self, mesh: &str, workload: &str) -> Result<SavedSet, LoadError> {
        let limit = MAGIC.len() + CHECKSUM_LEN + SAVED_BYTES_MAX;
        let mut bytes = Vec::new();
        fs::File::open(&self.path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Err(LoadError::TooLong);
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or(LoadError::Foreign)?;
        let (sum, payload) = rest.split_at_checked(CHECKSUM_LEN).ok_or(LoadError::Foreign)?;
        if sum != checksum(payload).to_be_bytes() {
            return Err(LoadError::Checksum);
        }
        let set = SavedSet::decode(payload)?;
        if set.mesh != mesh || set.workload != workload {
            return Err(LoadError::OtherWorkload(format!("{}/{}", set.mesh, set.workload)));
        }
        Ok(set)
    }

    /// Replaces the file by `set` and what the file had beside it, within the bounds.
    pub fn save(&mut self, set: SavedSet) {
        let before = self.load(&set.mesh, &set.workload);
        let set = merged(set, before);
        match self.write(&set) {
            Ok(()) => self.write_failure_logged = false,
            Err(_) if self.write_failure_logged => {}
            Err(error) => {
                self.write_failure_logged = true;
                tracing::warn!(file = %self.path.display(), %error, "the last good set cannot be saved");
            }
        }
    }

    fn write(&self, set: &SavedSet) -> io::Result<()> {
        let payload = set.encode_to_vec();
        replace(&self.path, &[MAGIC, &checksum(&payload).to_be_bytes(), &payload])
    }
}

/// Puts a file of mode 0600 in the place of another, or nothing.
///
/// # Errors
/// The system's.
pub(crate) fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let fresh = path.with_extension("new");
    let written = (|| {
        // One that an earlier process left half-way may have other rights.
        let _none_there = fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        for part in parts {
            file.write_all(part)?;
        }
        // No fsync, which could stall this thread: after a crash of the machine what is read tells.
        fs::rename(&fresh, path)
    })();
    if written.is_err() {
        let _best_effort = fs::remove_file(&fresh);
    }
    written
}

/// `set` and the resources only `before` has (as evicted ones), the least recently used left out.
fn merged(mut set: SavedSet, before: SavedSet) -> SavedSet {
    let mut all: BTreeMap<(String, String), SavedResource> = before
        .resources
        .into_iter()
        .map(|one| {
            ((one.type_url.clone(), one.name.clone()), SavedResource { active: false, ..one })
        })
        .collect();
    for one in set.resources {
        all.insert((one.type_url.clone(), one.name.clone()), one);
    }
    let mut resources: Vec<_> = all.into_values().collect();
    resources.sort_by_key(|one| std::cmp::Reverse((one.active, one.last_used)));
    resources.truncate(SAVED_RESOURCES_MAX);
    let mut room = SAVED_BYTES_MAX - ROOM_FOR_NAMES;
    resources.retain(|one| {
        let fits = one.encoded_len() + ROOM_PER_RESOURCE <= room;
        if fits {
            room -= one.encoded_len() + ROOM_PER_RESOURCE;
        }
        fits
    });
    set.resources = resources;
    set
}

/// Mesh, workload and generation in the payload.
const ROOM_FOR_NAMES: usize = 1024;
/// A resource's tag and length in the payload.
const ROOM_PER_RESOURCE: usize = 8;

/// FNV-1a, 64 bits: tells a torn or bit-flipped file; no defence against a forger, who could as well
/// write a right one.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::Folder;

    fn resource(name: &str, last_used: u64, active: bool) -> SavedResource {
        SavedResource {
            type_url: "type/A".into(),
            name: name.into(),
            version: "v".into(),
            body: vec![7; 10],
            last_used,
            active,
        }
    }

    fn set(resources: Vec<SavedResource>) -> SavedSet {
        SavedSet { mesh: "m".into(), workload: "w".into(), generation: 3, resources }
    }

    fn names(set: &SavedSet) -> Vec<(&str, bool)> {
        set.resources.iter().map(|one| (one.name.as_str(), one.active)).collect()
    }

    #[test]
    fn what_was_saved_is_loaded_and_only_for_its_owner() {
        let dir = Folder::new("saved");
        let mut file = SavedFile::new(&dir.path().join("deep/state"));
        assert!(file.load("m", "w").resources.is_empty());
        file.save(set(vec![resource("a", 1, true)]));
        let loaded = file.load("m", "w");
        assert_eq!((loaded.generation, names(&loaded)), (3, vec![("a", true)]));
        assert!(file.load("m", "other").resources.is_empty());
        let mode = fs::metadata(&file.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_was_evicted_stays_as_inactive() {
        let dir = Folder::new("saved");
        let mut file = SavedFile::new(dir.path());
        file.save(set(vec![resource("a", 1, true), resource("b", 2, true)]));
        file.save(set(vec![resource("b", 3, true)]));
        assert_eq!(names(&file.load("m", "w")), [("b", true), ("a", false)]);
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let dir = Folder::new("saved");
        let mut file = SavedFile::new(dir.path());
        file.save(set(vec![resource("a", 1, true)]));
        let good = fs::read(&file.path).unwrap();
        for cut in 0..good.len() {
            fs::write(&file.path, &good[..cut]).unwrap();
            assert!(file.load("m", "w").resources.is_empty(), "cut at {cut}");
        }
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 0x10;
            fs::write(&file.path, &bad).unwrap();
            assert!(file.load("m", "w").resources.is_empty(), "flipped at {index}");
        }
        file.save(set(vec![resource("c", 1, true)]));
        assert_eq!(names(&file.load("m", "w")), [("c", true)]);
    }

    #[test]
    fn a_file_of_another_format_is_as_good_as_none() {
        let dir = Folder::new("saved");
        let mut file = SavedFile::new(dir.path());
        file.save(set(vec![resource("a", 1, true)]));
        let now = fs::read(&file.path).unwrap();
        for version in [1, 3] {
            let magic = format!("heddle saved set {version}\n").into_bytes();
            assert_eq!(magic.len(), MAGIC.len(), "the rest of the file is whole");
            fs::write(&file.path, [&magic, &now[MAGIC.len()..]].concat()).unwrap();
            assert!(matches!(file.read("m", "w"), Err(LoadError::Foreign)), "version {version}");
            assert!(file.load("m", "w").resources.is_empty());
        }
        file.save(set(vec![resource("c", 1, true)]));
        assert_eq!(names(&file.load("m", "w")), [("c", true)], "and it is replaced");
    }

    #[test]
    fn the_least_recently_used_are_left_out_beyond_the_bound() {
        let old = (0..SAVED_RESOURCES_MAX as u64).map(|i| resource(&format!("old{i}"), i, true));
        let kept = merged(set(vec![resource("new", 5, true)]), set(old.collect()));
        assert_eq!(kept.resources.len(), SAVED_RESOURCES_MAX);
        assert_eq!(kept.resources[0].name, "new", "what is in use comes first");
        assert!(kept.resources.iter().all(|one| one.name != "old0"));

        let mut big = resource("big", 9, false);
        big.body = vec![0; SAVED_BYTES_MAX];
        let kept = merged(set(vec![resource("new", 5, true)]), set(vec![big]));
        assert_eq!(names(&kept), [("new", true)]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_only_the_saving() {
        let dir = Folder::new("saved");
        fs::write(dir.path().join("file"), b"in the way").unwrap();
        let mut file = SavedFile::new(&dir.path().join("file"));
        file.save(set(vec![resource("a", 1, true)]));
        file.save(set(vec![resource("a", 1, true)]));
        assert!(file.load("m", "w").resources.is_empty());
    }
}
