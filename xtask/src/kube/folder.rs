//! Where a cluster's files are: one folder on the host, and the same one under a fixed path inside.
//!
//! All of it is below the user's cache folder, beside the built components that all clusters share.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where the components see the cluster's folder, in the cluster's own mount namespace.
pub(super) const INSIDE: &str = "/run/heddle-kube";
/// Longest name of a cluster, bytes: it becomes part of paths and of the names of control groups.
const NAME_MAX: usize = 32;

/// The folder of one cluster.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    name: String,
    path: PathBuf,
}

impl Folder {
    /// The folder of the cluster called `name`, which need not exist.
    ///
    /// # Errors
    /// A name that is more than lower-case letters, digits and dashes, or no home to put it in.
    pub(super) fn of(name: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(fits) {
            return Err(format!(
                "`{name}` cannot be a cluster's name: 1 to {NAME_MAX} lower-case letters, digits and dashes"
            ));
        }
        Ok(Self { name: name.to_owned(), path: cache()?.join("clusters").join(name) })
    }

    /// The cluster's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder in it, as the host sees it.
    pub(super) fn at(&self, part: impl AsRef<Path>) -> PathBuf {
        self.path.join(part)
    }

    /// Writes a file in it, with the folders that lead to it.
    pub(super) fn write(&self, part: &str, text: &str) -> Result<(), String> {
        let path = self.at(part);
        make(path.parent().unwrap_or(&self.path))?;
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// The configuration of `kubectl` and of every other client, as the host sees it.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.at("kubeconfig")
    }

    /// What a component said.
    pub(super) fn log(&self, component: &str) -> PathBuf {
        self.at("logs").join(format!("{component}.log"))
    }

    /// The control group below which all containers of the cluster are.
    pub(super) fn control_group(&self) -> String {
        format!("heddle-kube-{}", self.name)
    }
}

/// Makes a folder and those that lead to it.
pub(super) fn make(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// `$XDG_CACHE_HOME/heddle-kube`, outside any work tree: a clean clone finds what an earlier one has built.
pub(crate) fn cache() -> Result<PathBuf, String> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Ok(base
        .ok_or("neither XDG_CACHE_HOME nor HOME is set to an absolute path")?
        .join("heddle-kube"))
}

#[cfg(test)]
mod tests {
    use super::Folder;

    #[test]
    fn a_name_cannot_lead_out_of_the_folder() {
        for wrong in ["", "..", "a/b", "A", "a b", &"x".repeat(33)] {
            assert!(Folder::of(wrong).is_err(), "{wrong}");
        }
    }
}
