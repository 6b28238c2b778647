//! Rule files that are links: what they lead to is elsewhere, where nobody watches, so it is looked at
//! from time to time.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::read::is_rule_file;

/// What tells one state of a link's target from another; `None` if it is not there.
type Target = Option<(u64, u64, u64, i64, i64)>;

/// The links of a folder.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<PathBuf, Link>);

#[derive(Debug)]
struct Link {
    /// As it was when the file was read last.
    read: Target,
    /// As it was at the last look: a target that still changes is let come to rest.
    seen: Target,
}

impl Links {
    /// Is there none?
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in which files of a folder are links now. Nothing changes where it cannot be listed.
    pub(super) fn refresh(&mut self, folder: &Path) {
        let Ok(links) = links_in(folder) else { return };
        let mut known = std::mem::take(&mut self.0);
        for path in links {
            let link = known.remove(&path).unwrap_or_else(|| {
                let now = target(&path);
                Link { read: now, seen: now }
            });
            self.0.insert(path, link);
        }
    }

    /// Those whose targets have changed and come to rest since they were told last.
    pub(super) fn changed(&mut self) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        for (path, link) in &mut self.0 {
            let now = target(path);
            if now != link.read && now == link.seen {
                link.read = now;
                changed.push(path.clone());
            }
            link.seen = now;
        }
        changed
    }
}

fn links_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut links = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if is_rule_file(&path) && entry.file_type()?.is_symlink() {
            links.push(path);
        }
    }
    Ok(links)
}

fn target(link: &Path) -> Target {
    let meta = fs::metadata(link).ok()?;
    Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use heddle_testkit::folder::Folder;

    use super::*;

    #[test]
    fn a_links_target_is_told_once_it_has_changed_and_come_to_rest() {
        let (folder, outside) = (Folder::new("links"), Folder::new("links-outside"));
        let link = folder.join("a.yaml");
        fs::write(outside.join("a"), "a: 1").unwrap();
        fs::write(folder.join("plain.yaml"), "a: 1").unwrap();
        std::os::unix::fs::symlink(outside.join("a"), &link).unwrap();
        let mut links = Links::default();
        links.refresh(folder.path());
        assert_eq!(links.0.len(), 1, "the plain file is watched");
        assert!(links.changed().is_empty());
        fs::write(outside.join("a"), "a: 1234").unwrap();
        assert!(links.changed().is_empty(), "it may still be written");
        assert_eq!(links.changed(), std::slice::from_ref(&link));
        assert!(links.changed().is_empty(), "told once");
        fs::remove_file(outside.join("a")).unwrap();
        assert!(links.changed().is_empty());
        assert_eq!(links.changed(), std::slice::from_ref(&link), "it dangles now");
        fs::remove_file(&link).unwrap();
        links.refresh(folder.path());
        assert!(links.is_empty());
    }
}
