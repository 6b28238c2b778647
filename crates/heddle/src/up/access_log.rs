//! The access log that `heddle up --access-log FILE` asks for. Sidecars append to one file, whose path they are given;
//! with `-` it is a file of the mesh, which is followed here and begun anew before it grows large.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf, absolute},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use heddle_runtime::{clock, task};
use tokio::{
    sync::mpsc::{self, Sender},
    task::JoinHandle,
};

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
/// Read at once, bytes.
const READ: usize = 64 << 10;
/// So many of those wait for whoever prints.
const WAITING: usize = 4;

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
/// A thread of its own prints, so whoever does not read what is printed keeps nothing but that from going on.
pub(crate) fn show(path: PathBuf, output: Output) -> Shown {
    let print: fn(&str) = match output {
        Output::Json => output::aside,
        Output::Text => |line| output::line(line),
    };
    let (lines, mut printed) = mpsc::channel::<Vec<u8>>(WAITING);
    let leaves_out = Arc::new(AtomicBool::new(false));
    let lost = Arc::clone(&leaves_out);
    let printing = move || {
        let mut printer = Printer { begun: Vec::new(), print };
        while let Some(read) = printed.blocking_recv() {
            printer.take(&read);
            if lost.swap(false, Ordering::Relaxed) {
                print(
                    "heddle: lines of the access log are left out here: nobody read them in time",
                );
            }
        }
    };
    // Not joined: it may be blocked, and ends with the process then.
    let thread = thread::Builder::new().name("access log".to_owned()).spawn(printing);
    if let Err(error) = thread {
        output::notice(format!("the access log is not printed: {error}"));
    }
    Shown(task::spawn_contained("access log", async move {
        loop {
            let Some(mut file) = follow(&path, &lines).await else { return };
            // What sidecars write until they have seen that it is gone.
            clock::sleep(LEFT).await;
            let mut step = Step::More;
            while step == Step::More {
                step = read_some(&mut file, &lines, LEFT).await;
            }
            // It has no name any more, and what has one grows meanwhile.
            leaves_out.fetch_or(step == Step::NoRoom, Ordering::Relaxed);
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

/// Follows one file until it is large, and takes it away then. `None`: nobody prints any more.
async fn follow(path: &Path, lines: &Sender<Vec<u8>>) -> Option<File> {
    let mut file = None;
    loop {
        clock::sleep(LOOK).await;
        if file.is_none() {
            file = File::open(path).ok();
        }
        let Some(open) = &mut file else { continue };
        loop {
            let step = read_some(open, lines, LOOK).await;
            if lines.is_closed() {
                return None;
            }
            // If it cannot be taken away it goes on growing, and is looked at again.
            if open.metadata().is_ok_and(|found| found.len() > SIZE_MAX)
                && fs::remove_file(path).is_ok()
            {
                return file;
            }
            if step != Step::More {
                break;
            }
        }
    }
}

/// What has come of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There may be more.
    More,
    /// That was all, for now.
    All,
    /// Whoever prints has not taken what was read before.
    NoRoom,
}

/// Hands on what comes next in a file, if there is room for it within `limit`.
async fn read_some(file: &mut File, lines: &Sender<Vec<u8>>, limit: Duration) -> Step {
    let Some(Ok(room)) = clock::within(limit, lines.reserve()).await else { return Step::NoRoom };
    let mut read = vec![0; READ];
    match file.read(&mut read) {
        Ok(0) => Step::All,
        Ok(count) => {
            read.truncate(count);
            room.send(read);
            // A file that grows as fast as it is read leaves the others of this thread their turn.
            tokio::task::yield_now().await;
            Step::More
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Step::More,
        Err(_) => Step::All,
    }
}

/// Prints whole lines.
struct Printer<P: FnMut(&str)> {
    begun: Vec<u8>,
    print: P,
}

impl<P: FnMut(&str)> Printer<P> {
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
    fn where_nobody_reads_a_large_file_is_begun_anew_all_the_same() {
        let path = std::env::temp_dir().join(format!("heddle-log-{}", std::process::id()));
        fs::write(&path, vec![b'x'; (16 << 20) + 1]).unwrap();
        task::run_local(async {
            let (lines, mut printed) = mpsc::channel(1);
            let mut file = follow(&path, &lines).await.unwrap();
            assert!(!path.exists());
            assert_eq!(read_some(&mut file, &lines, LOOK).await, Step::NoRoom);
            assert_eq!(printed.recv().await.unwrap().len(), READ);
            assert_eq!(read_some(&mut file, &lines, LOOK).await, Step::More);
            drop(printed);
            assert!(follow(Path::new("/dev/null"), &lines).await.is_none());
        })
        .unwrap();
    }

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
