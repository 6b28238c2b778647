//! Has the desktop's browser show an address.

use std::{
    env, io,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

/// Programs that do it, the most usual first; `$BROWSER` goes before all of them.
const OPENERS: [&str; 4] = ["xdg-open", "sensible-browser", "wslview", "open"];

/// Starts the browser, which outlives this command.
///
/// # Errors
/// None of the programs can be started; about the first of them.
pub(super) fn open(url: &str) -> io::Result<()> {
    let chosen = env::var("BROWSER").ok().filter(|program| !program.is_empty());
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    for program in chosen.iter().map(String::as_str).chain(OPENERS) {
        let mut command = Command::new(program);
        command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C here is not meant for it.
        command.process_group(0);
        match command.spawn() {
            Ok(_runs_on) => return Ok(()),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}
