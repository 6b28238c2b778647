//! Looks at rule files: their text, or why there is none. Blocking; called off the main thread.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::limits::{FILE_BYTES_MAX, FILES_MAX};

/// What a look at a file brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileText {
    /// Its text.
    Text(String),
    /// There is none.
    Gone,
    /// It is there and cannot be read, and why.
    Unreadable(String),
}

/// Is this the name of a rule file? Editors' swap, lock and backup files are not.
pub(crate) fn is_rule_file(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let suffix = path.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
    matches!(suffix, "yaml" | "yml" | "json") && !name.starts_with('.')
}

/// Looks at one file.
pub(crate) fn look(path: &Path) -> FileText {
    match text(path) {
        Ok(text) => FileText::Text(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
            Ok(target) => FileText::Unreadable(format!(
                "it is a link to {}, which is not there; its last good version stays in force",
                target.display()
            )),
            Err(_) => FileText::Gone,
        },
        Err(error) => FileText::Unreadable(format!(
            "the file cannot be read: {error}; its last good version stays in force"
        )),
    }
}

fn text(path: &Path) -> io::Result<String> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    // Asked before opening: a named pipe would block until somebody writes.
    if !fs::metadata(path)?.is_file() {
        return Err(invalid("it is no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(invalid(format!("it is larger than {} MiB: split it", FILE_BYTES_MAX >> 20)));
    }
    String::from_utf8(bytes)
        .map_err(|error| invalid(format!("byte {} is no UTF-8", error.utf8_error().valid_up_to())))
}

/// The rule files of a folder in order of their names.
///
/// # Errors
/// Why it cannot be listed: the system's reason, or that it holds too many.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let cannot = |error: io::Error| format!("cannot be listed: {error}");
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if is_rule_file(&path) && !path.is_dir() {
            paths.push(path);
        }
    }
    if paths.len() > FILES_MAX {
        return Err(format!(
            "holds {} rule files, more than the {FILES_MAX} allowed: put several objects into one",
            paths.len()
        ));
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use heddle_testkit::folder::Folder;

    use super::*;

    #[test]
    fn rule_files_are_told_from_editors_leavings() {
        for name in ["a.yaml", "b.yml", "c.json", "d.e.yaml"] {
            assert!(is_rule_file(Path::new(name)), "{name}");
        }
        for name in
            [".a.yaml", ".#a.yaml", "a.yaml~", "a.yaml.swp", "4913", "a.txt", "..data", "yaml"]
        {
            assert!(!is_rule_file(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let folder = Folder::new("read");
        fs::create_dir_all(folder.join("folder.yaml")).unwrap();
        fs::write(folder.join("big.yaml"), vec![b'#'; FILE_BYTES_MAX as usize + 1]).unwrap();
        fs::write(folder.join("latin.yaml"), b"a: \xe4").unwrap();
        fs::write(folder.join("good.yaml"), b"a: b").unwrap();
        assert_eq!(look(&folder.join("good.yaml")), FileText::Text("a: b".to_owned()));
        assert_eq!(look(&folder.join("none.yaml")), FileText::Gone);
        for (name, why) in [
            ("folder.yaml", "no regular file"),
            ("big.yaml", "larger than 32 MiB"),
            ("latin.yaml", "byte 3 is no UTF-8"),
        ] {
            let FileText::Unreadable(reason) = look(&folder.join(name)) else { panic!("{name}") };
            assert!(reason.contains(why), "{reason}");
        }
        std::os::unix::fs::symlink("nowhere", folder.join("dangling.yaml")).unwrap();
        let FileText::Unreadable(reason) = look(&folder.join("dangling.yaml")) else { panic!() };
        assert!(reason.contains("a link to nowhere, which is not there"), "{reason}");
        let paths = list(folder.path()).unwrap();
        assert_eq!(paths.len(), 4, "folders are not read: {paths:?}");
    }
}
