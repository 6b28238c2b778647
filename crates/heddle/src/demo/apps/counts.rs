//! What an application counted itself, told on a path socket: one line in, one JSON line out.
//!
//! `counts` answers at once; `stop` first runs the stop hook (the load generator ends its load and
//! waits for the calls in flight).

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// Calls by peer: requests, or connections where the protocol is not HTTP.
#[derive(Debug, Default, serde::Serialize)]
struct Table {
    sent: BTreeMap<String, u64>,
    received: BTreeMap<String, u64>,
    failed: BTreeMap<String, u64>,
}

/// Shared counters of one application.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(Arc<Mutex<Table>>);

impl Counts {
    /// One call sent to `peer`; `ok` is false for 5xx or no answer.
    pub(super) fn sent(&self, peer: &str, ok: bool) {
        self.change(|table| {
            *table.sent.entry(peer.to_owned()).or_default() += 1;
            *table.failed.entry(peer.to_owned()).or_default() += u64::from(!ok);
        });
    }

    /// One call received from `peer`, as the caller named itself.
    pub(super) fn received(&self, peer: &str) {
        self.change(|table| *table.received.entry(peer.to_owned()).or_default() += 1);
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn line(&self) -> String {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_string(&*table).unwrap_or_default()
    }

    /// Serves the socket on a thread of its own.
    pub(super) fn serve(
        &self,
        socket: &Path,
        stop: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<()> {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        let counts = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A reader that went away is no trouble of the application.
                let _ = counts.answer(&stream, &stop);
            }
        });
        Ok(())
    }

    fn answer(&self, mut stream: &UnixStream, stop: &impl Fn()) -> std::io::Result<()> {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        if line.trim() == "stop" {
            stop();
        }
        writeln!(stream, "{}", self.line())
    }
}
