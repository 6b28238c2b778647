//! The program to run: does it exist, may it be executed, and is it one that cannot work here?

use std::{
    env,
    ffi::OsStr,
    fs::{self, Metadata},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::failure::{Failure, NOT_EXECUTABLE, NOT_FOUND};

/// Where programs are looked for if PATH is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const EXECUTABLE: u32 = 0o111;

/// Finds the program as exec would, so that a misspelt one is refused before a workload joins.
///
/// # Errors
/// Exit code 127 where there is none, 126 where it cannot be executed.
pub(crate) fn find(program: &OsStr) -> Result<(PathBuf, Metadata), Failure> {
    let name = program.to_string_lossy();
    let path = Path::new(program);
    if program.as_encoded_bytes().contains(&b'/') {
        return match fs::metadata(path) {
            Ok(found) => executable(path.to_owned(), found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::exiting(
                NOT_FOUND,
                format!("cannot run `{name}`: there is no such file"),
            )),
            Err(error) => {
                Err(Failure::exiting(NOT_EXECUTABLE, format!("cannot run `{name}`: {error}")))
            }
        };
    }
    let folders = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let mut refused = None;
    for candidate in env::split_paths(&folders).map(|folder| folder.join(program)) {
        let Ok(found) = fs::metadata(&candidate) else { continue };
        match executable(candidate, found) {
            Ok(found) => return Ok(found),
            Err(failure) => refused = refused.or(Some(failure)),
        }
    }
    let nowhere = format!("cannot run `{name}`: no folder of PATH holds such a program");
    Err(refused.unwrap_or_else(|| Failure::exiting(NOT_FOUND, nowhere)))
}

fn executable(path: PathBuf, found: Metadata) -> Result<(PathBuf, Metadata), Failure> {
    if found.is_file() && found.permissions().mode() & EXECUTABLE != 0 {
        return Ok((path, found));
    }
    let what = if found.is_dir() { "it is a folder" } else { "it is not executable (chmod +x)" };
    let message = format!("cannot run `{}`: {what}", path.display());
    Err(Failure::exiting(NOT_EXECUTABLE, message))
}

/// Why the program will not work where only one user id exists; `None` if nothing speaks against it.
pub(crate) fn rootless_warning(path: &Path, found: &Metadata) -> Option<String> {
    let mode = found.permissions().mode();
    let bit = match (mode & SETUID != 0, mode & SETGID != 0) {
        (true, _) => "setuid",
        (_, true) => "setgid",
        _ => return None,
    };
    Some(format!(
        "{} is a {bit} program: in a mesh of an ordinary user only your own user id exists, so it runs without the rights it expects; start the mesh as root if it needs them",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_not_executable_are_told_apart_as_in_a_shell() {
        let code = |program: &str| find(OsStr::new(program)).unwrap_err().code;
        assert_eq!(code("/nonexistent/program"), NOT_FOUND);
        assert_eq!(code("no-such-program-anywhere"), NOT_FOUND);
        assert_eq!(code(""), NOT_EXECUTABLE);
        assert_eq!(code("/etc/passwd"), NOT_EXECUTABLE);
        assert_eq!(code("/etc"), NOT_EXECUTABLE);
        assert!(find(OsStr::new("sh")).is_ok());
    }
}
