//! The access log that `heddle up --access-log FILE` asks for. Sidecars append to one file, whose path they are given;
//! with `-` it is a file of the mesh, which is followed here and begun anew before it grows large.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf, absolute},
    time::Duration,
};

use heddle_runtime::{clock, task};
use tokio::task::JoinHandle;

use crate::{
    cli::{Output, TraceArgs},
    failure::{Doing as _, Failure},
    mesh::MeshPaths,
    output,
};

/// The file that means: print it here.
pub(crate) const HERE: &str = "-";

/// How often it is looked for new lines.
const LOOK: Duration = Duration::from_millis(200);
/// Beyond this size, bytes, the mesh's own file is begun anew.
const SIZE_MAX: u64 = 16 << 20;
/// Sidecars find out within a second that a file has gone, and write to the old one until then.
const LEFT: Duration = Duration::from_secs(2);
/// Longest line that is printed, bytes; of a longer one what comes first.
const LINE_MAX: usize = 64 << 10;

/// Makes of what is asked for, else of what the file of programs says, the path that sidecars are given. Returns it where
/// it is to be shown here.
///
/// # Errors
/// A refusal where no file can be there.
pub(crate) fn prepare(
    args: &mut TraceArgs,
    of_file: Option<&Path>,
    paths: &MeshPaths,
) -> Result<Option<PathBuf>, Failure> {
    let asked = args.access_log.take().map(PathBuf::from);
    let Some(asked) = asked.or_else(|| of_file.map(Path::to_owned)) else { return Ok(None) };
    let is_here = asked.as_os_str() == HERE;
    let path = if is_here { paths.run_dir().join("access.log") } else { asked };
    let path = absolute(&path).doing(|| format!("find the folder of {}", path.display()))?;
    let refused =
        |why: String| Failure::refused(format!("--access-log: {}: {why}", path.display()));
    let Some(text) = path.to_str() else { return Err(refused("it is no text".to_owned())) };
    args.access_log = Some(text.to_owned());
    if is_here {
        return Ok(Some(path));
    }
    let opened = File::options().append(true).create(true).open(&path);
    opened.map_err(|error| refused(error.to_string()))?;
    Ok(None)
}

/// Prints lines as they come, for as long as the handle is there: to standard error where a program reads the other.
pub(crate) fn show(path: PathBuf, output: Output) -> Shown {
    let print: fn(&str) = match output {
        Output::Json => output::aside,
        Output::Text => |line| output::line(line),
    };
    Shown(task::spawn_contained("access log", async move {
        let mut printer = Printer { begun: Vec::new(), print };
        loop {
            let file = follow(&path, &mut printer).await;
            // What sidecars write until they have seen that it is gone.
            clock::sleep(LEFT).await;
            if let Some(mut file) = file {
                printer.rest_of(&mut file);
            }
        }
    }))
}

/// Ends the printing when it goes.
#[derive(Debug)]
pub(crate) struct Shown(JoinHandle<()>);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Follows one file until it is large, and takes it away then.
async fn follow<P: FnMut(&str)>(path: &Path, printer: &mut Printer<P>) -> Option<File> {
    let mut file = None;
    loop {
        clock::sleep(LOOK).await;
        if file.is_none() {
            file = File::open(path).ok();
        }
        let Some(open) = &mut file else { continue };
        printer.rest_of(open);
        if open.metadata().is_ok_and(|found| found.len() > SIZE_MAX) {
            // If it cannot be taken away it goes on growing, and is looked at again.
            if fs::remove_file(path).is_ok() {
                return file;
            }
        }
    }
}

/// Prints whole lines.
struct Printer<P: FnMut(&str)> {
    begun: Vec<u8>,
    print: P,
}

impl<P: FnMut(&str)> Printer<P> {
    fn rest_of(&mut self, file: &mut File) {
        let mut read = vec![0; LINE_MAX];
        loop {
            match file.read(&mut read) {
                Ok(0) => return,
                Ok(count) => self.take(&read[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_MAX.saturating_sub(self.begun.len());
            self.begun.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                let line = String::from_utf8_lossy(&self.begun);
                (self.print)(line.trim_end_matches('\n'));
                self.begun.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_printed_whole_and_long_ones_are_cut() {
        let mut printed = Vec::new();
        let print = |line: &str| printed.push(line.to_owned());
        let mut printer = Printer { begun: Vec::new(), print };
        let long = "x".repeat(LINE_MAX + 10) + "\n";
        for piece in ["on", "e\ntwo\nth", "ree\n", &long, "four\n"] {
            printer.take(piece.as_bytes());
        }
        assert_eq!(printed[..3], ["one", "two", "three"]);
        assert_eq!((printed[3].len(), printed[4].as_str()), (LINE_MAX, "four"));
    }
}
