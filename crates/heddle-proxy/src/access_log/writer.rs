//! The thread that writes access logs. A file that cannot be written costs its lines and nothing else: it is
//! told, counted, and tried again. Lines are gathered for a moment before they are written: a thread that is
//! woken for each of them costs more than everything else a line does.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::Receiver,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use heddle_runtime::clock;
use tokio::sync::oneshot;

/// What the thread is handed.
#[derive(Debug)]
pub(super) enum Order {
    Write(Line),
    /// Tells when all that came before is written.
    Finish(oneshot::Sender<()>),
}

/// One line with its end.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) path: String,
    pub(super) text: String,
}

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

/// Follows `orders` until nobody sends any more.
///
/// # Errors
/// Why the thread cannot be started.
pub(super) fn start(
    orders: Receiver<Order>,
    dropped: Arc<AtomicU64>,
) -> io::Result<JoinHandle<()>> {
    let run = move || Writer { files: BTreeMap::new(), dropped }.run(&orders);
    thread::Builder::new().name("access-log".to_owned()).spawn(run)
}

struct Writer {
    files: BTreeMap<String, Target>,
    dropped: Arc<AtomicU64>,
}

/// Where lines go, and what waits to go there.
struct Target {
    to: io::Result<Sink>,
    /// When it was opened, tried, or looked at last.
    looked: Instant,
    text: String,
    lines: u64,
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
    fn run(mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            // Nobody who sends meanwhile finds this thread asleep at the queue, and has to wake it.
            if self.follow(order) {
                clock::block(GATHER);
            }
            while let Ok(order) = orders.try_recv() {
                self.follow(order);
            }
            self.flush();
        }
    }

    /// Is there something that waits to be written?
    fn follow(&mut self, order: Order) -> bool {
        match order {
            Order::Write(line) => {
                if self.take(line) >= BATCH_BYTES {
                    self.flush();
                }
                true
            }
            Order::Finish(done) => {
                self.flush();
                let _nobody_waits_any_more = done.send(());
                false
            }
        }
    }

    fn flush(&mut self) {
        for (path, target) in &mut self.files {
            target.flush(path, &self.dropped);
        }
    }

    /// Bytes that wait for the same file.
    fn take(&mut self, line: Line) -> usize {
        let target = match self.files.entry(line.path) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let target = Target::open(new.key());
                new.insert(target)
            }
        };
        target.text.push_str(&line.text);
        target.lines += 1;
        target.text.len()
    }
}

impl Target {
    fn open(path: &str) -> Self {
        let (text, lines, told) = (String::new(), 0, false);
        Self { to: Sink::open(path), looked: clock::now(), text, lines, told }
    }

    fn flush(&mut self, path: &str, dropped: &AtomicU64) {
        if self.text.is_empty() {
            return;
        }
        let now = clock::now();
        if now.saturating_duration_since(self.looked) >= if self.to.is_ok() { LOOK } else { PAUSE }
        {
            self.looked = now;
            if self.to.as_ref().map_or(true, |sink| sink.was_moved(path)) {
                self.to = Sink::open(path);
            }
        }
        let written = match &mut self.to {
            Ok(sink) => sink.write(self.text.as_bytes()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        match written {
            Ok(()) => self.told = false,
            Err(error) => {
                dropped.fetch_add(self.lines, Ordering::Relaxed);
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(path, %error, "an access log cannot be written: its lines are dropped and counted");
                }
            }
        }
        self.text.clear();
        self.lines = 0;
    }
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
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn written(lines: &[(&str, &str)]) -> u64 {
        let (sender, receiver) = sync_channel(lines.len().max(1));
        let dropped = Arc::new(AtomicU64::new(0));
        for (path, text) in lines {
            let line = Line { path: (*path).to_owned(), text: (*text).to_owned() };
            sender.send(Order::Write(line)).unwrap();
        }
        drop(sender);
        Writer { files: BTreeMap::new(), dropped: Arc::clone(&dropped) }.run(&receiver);
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
        let (sender, receiver) = sync_channel(2);
        let writer = start(receiver, Arc::default()).unwrap();
        let (done, told) = oneshot::channel();
        sender.send(Order::Write(Line { path: path.clone(), text: "last\n".to_owned() })).unwrap();
        sender.send(Order::Finish(done)).unwrap();
        told.blocking_recv().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "last\n");
        drop(sender);
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
}
