//! The thread that writes access logs. A file that cannot be written costs its lines and nothing else: it is
//! told, counted, and tried again. Lines are gathered for a moment before they are written: a thread that is
//! woken for each of them costs more than everything else a line does.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use heddle_runtime::clock;
use tokio::sync::oneshot;

/// Most lines that wait to be written, and most bytes.
const LINES_MAX: u64 = 8_192;
const BYTES_MAX: usize = 4 << 20;
/// Bytes that are written at once, at most: whole lines.
const BATCH_BYTES: usize = 64 * 1024;
/// How long lines are gathered once the first one has come. Whoever follows a file sees them that much later.
const GATHER: Duration = Duration::from_millis(10);
/// How long a file that failed is left alone.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether a file was moved away, for somebody who rotates it.
const LOOK: Duration = Duration::from_secs(1);
/// Only the user may read what people asked for.
const MODE: u32 = 0o600;

/// Lines on their way from the workers to the thread that writes: added up by file, so that none is a piece of memory
/// of its own that one thread takes and another gives back.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    all: Mutex<All>,
    /// Something has come, where nothing was.
    come: Condvar,
}

#[derive(Debug, Default)]
struct All {
    files: Vec<Lines>,
    lines: u64,
    bytes: usize,
    /// Told when all that came before is written.
    finish: Vec<oneshot::Sender<()>>,
    /// Nobody adds any more.
    closed: bool,
}

/// Lines for one file.
#[derive(Debug, Default)]
struct Lines {
    path: String,
    text: String,
    count: u64,
}

impl Waiting {
    /// Adds a line with its end; false if there is no room.
    pub(super) fn add(&self, path: &str, line: &str) -> bool {
        let mut all = self.lock();
        if all.lines >= LINES_MAX || all.bytes + line.len() > BYTES_MAX {
            return false;
        }
        let is_first = all.lines == 0;
        all.lines += 1;
        all.bytes += line.len();
        match all.files.iter_mut().find(|file| file.path == path) {
            Some(file) => file.add(line),
            None => {
                let mut file = Lines { path: path.to_owned(), ..Lines::default() };
                file.add(line);
                all.files.push(file);
            }
        }
        drop(all);
        if is_first {
            self.come.notify_one();
        }
        true
    }

    /// Tells when all lines so far are written.
    pub(super) fn written(&self) -> oneshot::Receiver<()> {
        let (done, written) = oneshot::channel();
        self.lock().finish.push(done);
        self.come.notify_one();
        written
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.come.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the first line after none; false: nothing comes any more.
    fn has_come(&self) -> bool {
        let nothing = |all: &mut All| all.lines == 0 && all.finish.is_empty() && !all.closed;
        let all = self.come.wait_while(self.lock(), nothing);
        let all = all.unwrap_or_else(PoisonError::into_inner);
        all.lines > 0 || !all.finish.is_empty()
    }

    /// Takes all lines there are; `files`, which are written, are to be filled again.
    fn take(&self, files: &mut Vec<Lines>) -> Vec<oneshot::Sender<()>> {
        let mut all = self.lock();
        std::mem::swap(&mut all.files, files);
        (all.lines, all.bytes) = (0, 0);
        std::mem::take(&mut all.finish)
    }
}

impl Lines {
    fn add(&mut self, line: &str) {
        self.text.push_str(line);
        self.count += 1;
    }

    /// Has given its lines away. Its memory stays for the next ones, unless they were uncommonly many.
    fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(8 * BATCH_BYTES);
        self.count = 0;
    }
}

/// Writes what comes, until it is closed.
///
/// # Errors
/// Why the thread cannot be started.
pub(super) fn start(waiting: Arc<Waiting>, dropped: Arc<AtomicU64>) -> io::Result<JoinHandle<()>> {
    let run = move || Writer { files: Vec::new(), dropped }.run(&waiting);
    thread::Builder::new().name("access-log".to_owned()).spawn(run)
}

struct Writer {
    files: Vec<Target>,
    dropped: Arc<AtomicU64>,
}

/// Where lines go.
struct Target {
    path: String,
    to: io::Result<Sink>,
    /// When it was opened, tried, or looked at last.
    looked: Instant,
    /// Its failure was told.
    told: bool,
}

enum Sink {
    /// Standard output or error: inherited, and not opened anew, which another user's may not be.
    Standard(Standard),
    File(File),
}

#[derive(Clone, Copy)]
enum Standard {
    Output,
    Error,
}

impl Writer {
    fn run(mut self, waiting: &Waiting) {
        let mut files = Vec::new();
        while waiting.has_come() {
            // Nobody who adds a line meanwhile finds this thread asleep, and has to wake it.
            clock::block(GATHER);
            let finish = waiting.take(&mut files);
            for lines in &mut files {
                if lines.count > 0 {
                    self.write(lines);
                    lines.clear();
                }
            }
            for done in finish {
                let _nobody_waits_any_more = done.send(());
            }
        }
    }

    fn write(&mut self, lines: &Lines) {
        let known = self.files.iter().position(|target| target.path == lines.path);
        let at = known.unwrap_or_else(|| {
            self.files.push(Target::open(&lines.path));
            self.files.len() - 1
        });
        self.files[at].write(lines, &self.dropped);
    }
}

impl Target {
    fn open(path: &str) -> Self {
        let to = Sink::open(path);
        Self { path: path.to_owned(), to, looked: clock::now(), told: false }
    }

    fn write(&mut self, lines: &Lines, dropped: &AtomicU64) {
        let (now, path) = (clock::now(), self.path.as_str());
        if now.saturating_duration_since(self.looked) >= if self.to.is_ok() { LOOK } else { PAUSE }
        {
            self.looked = now;
            if self.to.as_ref().map_or(true, |sink| sink.was_moved(path)) {
                self.to = Sink::open(path);
            }
        }
        for batch in batches(&lines.text) {
            let written = match &mut self.to {
                Ok(sink) => sink.write(batch.as_bytes()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            let Err(error) = written else {
                self.told = false;
                continue;
            };
            let lost = batch.bytes().filter(|byte| *byte == b'\n').count();
            dropped.fetch_add(lost as u64, Ordering::Relaxed);
            if !std::mem::replace(&mut self.told, true) {
                tracing::warn!(path, %error, "an access log cannot be written: its lines are dropped and counted");
            }
        }
    }
}

/// Whole lines, at most [`BATCH_BYTES`] of them at a time; one that is longer stands alone.
fn batches(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let end = |line: &str| line.find('\n').map_or(line.len(), |at| at + 1);
        let cut = match text.as_bytes().get(..BATCH_BYTES) {
            None => text.len(),
            Some(most) => match most.iter().rposition(|byte| *byte == b'\n') {
                Some(at) => at + 1,
                None => end(text),
            },
        };
        let (batch, rest) = text.split_at(cut);
        text = rest;
        (!batch.is_empty()).then_some(batch)
    })
}

impl Sink {
    fn open(path: &str) -> io::Result<Self> {
        match path {
            "/dev/stdout" => Ok(Self::Standard(Standard::Output)),
            "/dev/stderr" => Ok(Self::Standard(Standard::Error)),
            _ => OpenOptions::new().append(true).create(true).mode(MODE).open(path).map(Self::File),
        }
    }

    /// Does the path lead to another file by now, or to none?
    fn was_moved(&self, path: &str) -> bool {
        let Self::File(file) = self else { return false };
        let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
        let (own, there) = (file.metadata().map(identity), std::fs::metadata(path).map(identity));
        own.ok() != there.ok()
    }

    /// All of it. Appended in one piece where the kernel takes it, so that sidecars may share a file.
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Standard(Standard::Output) => {
                let mut to = io::stdout().lock();
                to.write_all(text).and_then(|()| to.flush())
            }
            Self::Standard(Standard::Error) => io::stderr().lock().write_all(text),
            Self::File(file) => file.write_all(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(lines: &[(&str, &str)]) -> u64 {
        let waiting = Waiting::default();
        let dropped = Arc::new(AtomicU64::new(0));
        for (path, text) in lines {
            assert!(waiting.add(path, text));
        }
        waiting.close();
        Writer { files: Vec::new(), dropped: Arc::clone(&dropped) }.run(&waiting);
        dropped.load(Ordering::Relaxed)
    }

    #[test]
    fn lines_are_appended_and_only_their_owner_reads_them() {
        let folder = heddle_testkit::folder::Folder::new("access-log");
        let path = folder.path().join("a.log");
        let path = path.to_str().unwrap();
        assert_eq!(written(&[(path, "one\n"), (path, "two\n")]), 0);
        assert_eq!(written(&[(path, "three\n")]), 0);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o777, MODE);
    }

    #[test]
    fn who_ends_is_told_when_the_last_line_is_written() {
        let folder = heddle_testkit::folder::Folder::new("access-log");
        let path = folder.path().join("a.log");
        let path = path.to_str().unwrap().to_owned();
        let waiting = Arc::new(Waiting::default());
        let writer = start(Arc::clone(&waiting), Arc::default()).unwrap();
        assert!(waiting.add(&path, "last\n"));
        waiting.written().blocking_recv().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "last\n");
        waiting.close();
        writer.join().unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_written_costs_its_lines_and_no_others() {
        let folder = heddle_testkit::folder::Folder::new("access-log");
        let path = folder.path().join("a.log");
        let path = path.to_str().unwrap();
        let lost = written(&[("/nowhere/at/all", "a\n"), (path, "b\n"), ("/dev/full", "c\n")]);
        assert_eq!(lost, 2);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "b\n");
    }

    #[test]
    fn what_finds_no_room_is_refused_until_the_rest_is_written() {
        let waiting = Waiting::default();
        let long = "x".repeat(BYTES_MAX / 2) + "\n";
        assert!(waiting.add("/dev/full", &long));
        assert!(!waiting.add("/dev/full", &long));
        for _ in 1..LINES_MAX {
            assert!(waiting.add("/dev/full", "x\n"));
        }
        assert!(!waiting.add("/dev/full", "x\n"));
        waiting.take(&mut Vec::new());
        assert!(waiting.add("/dev/full", &long));
    }

    #[test]
    fn what_is_written_at_once_is_whole_lines() {
        let line = "x".repeat(999) + "\n";
        let long = "y".repeat(BATCH_BYTES) + "\n";
        let text = line.repeat(100) + &long + &line;
        let all: Vec<_> = batches(&text).collect();
        assert_eq!(all.concat(), text);
        assert_eq!(
            all.iter().map(|one| one.len()).collect::<Vec<_>>(),
            [65_000, 35_000, 65_537, 1_000]
        );
        assert_eq!(batches("").count(), 0);
    }
}
