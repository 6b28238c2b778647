//! Files of rules as `-f` names them: read whole, in a fixed order, within limits.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use heddle_wire::local::control_api::SourceFile;

use crate::failure::{Doing as _, Failure};

/// Largest file of rules, bytes: a cluster's export of 10,000 objects has about 20 MB.
const FILE_MAX: u64 = 32 * 1024 * 1024;
/// Most files in one call: each of 10,000 objects may have its own, and some hold none.
const FILES_MAX: usize = 20_000;

/// Reads files, the `.yaml`, `.yml` and `.json` files of folders (sorted by name, not those of
/// folders within), and for `-` standard input.
///
/// # Errors
/// A refusal naming the file that cannot be read, is no text or is too large.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<SourceFile>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            files.push(source(Path::new("-"), &mut io::stdin().lock())?);
        } else if fs::metadata(path).doing(|| format!("read {}", path.display()))?.is_dir() {
            for file in rule_files(path)? {
                files.push(open(&file)?);
            }
        } else {
            files.push(open(path)?);
        }
        if files.len() > FILES_MAX {
            return Err(Failure::refused(format!(
                "more than {FILES_MAX} files at once: apply them in parts"
            )));
        }
    }
    Ok(files)
}

fn rule_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let listing = fs::read_dir(folder).doing(|| format!("read the folder {}", folder.display()))?;
    let is_rules = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        matches!(extension, Some("yaml" | "yml" | "json")) && !hidden && !path.is_dir()
    };
    let mut files: Vec<PathBuf> =
        listing.filter_map(Result::ok).map(|entry| entry.path()).filter(is_rules).collect();
    files.sort();
    if files.is_empty() {
        return Err(Failure::refused(format!(
            "the folder {} holds no .yaml, .yml or .json file",
            folder.display()
        )));
    }
    Ok(files)
}

fn open(path: &Path) -> Result<SourceFile, Failure> {
    if let (Ok(target), false) = (fs::read_link(path), path.exists()) {
        return Err(Failure::refused(format!(
            "{} is a link to {}, which is not there",
            path.display(),
            target.display()
        )));
    }
    let mut file = File::open(path).doing(|| format!("read {}", path.display()))?;
    source(path, &mut file)
}

fn source(path: &Path, from: &mut impl Read) -> Result<SourceFile, Failure> {
    let shown = || {
        if path.as_os_str() == "-" { "standard input".into() } else { path.display().to_string() }
    };
    let mut bytes = Vec::new();
    from.take(FILE_MAX + 1).read_to_end(&mut bytes).doing(|| format!("read {}", shown()))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Failure::refused(format!(
            "{} is larger than {} MiB: split it",
            shown(),
            FILE_MAX >> 20
        )));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::refused(format!("{} is no UTF-8 text (at byte {at})", shown()))
    })?;
    Ok(SourceFile { file: path.display().to_string(), text })
}
