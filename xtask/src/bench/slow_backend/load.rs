//! Requests at a fixed rate, whether or not others are answered: each has its time, and its latency counts
//! from then, also where its connection is still busy.
#![expect(clippy::disallowed_methods, reason = "load has its own pace; nothing is tested here")]

use std::{
    io::{Read, Write},
    net::TcpStream as Blocking,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::LocalSet,
    time::{Instant, sleep_until},
};

use super::backends::SLOW_ANSWER;

const PER_SECOND: f64 = 1_750.0;
const CONNECTIONS: u32 = 64;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: echo\r\n\r\n";
/// A connection without an answer for so long has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What it gave.
#[derive(Default)]
pub(super) struct Load {
    /// Of every request after the warm-up.
    pub(super) latencies_ms: Vec<f64>,
    /// How many of them the slow backend answered.
    pub(super) of_slow: usize,
}

/// Does a request to this address get an answer?
pub(super) fn answers(to: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = Blocking::connect(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(REQUEST)?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// Loads for `warm_up`, then counts for `counted`.
pub(super) fn run(to: &str, warm_up: Duration, counted: Duration) -> Result<Load, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let to = to.to_owned();
    LocalSet::new().block_on(&runtime, async move {
        let begun = Instant::now();
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|at| {
                let work = connection(to.clone(), at, begun, (warm_up, counted));
                tokio::task::spawn_local(work)
            })
            .collect();
        let mut all = Load::default();
        for connection in connections {
            let one = connection.await.map_err(|e| e.to_string())??;
            all.latencies_ms.extend(one.latencies_ms);
            all.of_slow += one.of_slow;
        }
        Ok(all)
    })
}

async fn connection(
    to: String,
    at: u32,
    begun: Instant,
    (warm_up, counted): (Duration, Duration),
) -> Result<Load, String> {
    let failed = |error: std::io::Error| format!("connection {at}: {error}");
    let mut stream = TcpStream::connect(&to).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let (mut load, mut turn) = (Load::default(), 0);
    let mut seen = Vec::new();
    loop {
        let due = f64::from(at + CONNECTIONS * turn) / PER_SECOND;
        let due = begun + Duration::from_secs_f64(due);
        turn += 1;
        if due >= begun + warm_up + counted {
            return Ok(load);
        }
        sleep_until(due).await;
        seen.clear();
        stream.write_all(REQUEST).await.map_err(failed)?;
        let answer = answer(&mut stream, &mut seen);
        let answered = tokio::time::timeout(PATIENCE, answer).await;
        answered.map_err(|_| format!("connection {at}: no answer"))?.map_err(failed)?;
        if due >= begun + warm_up {
            load.latencies_ms.push((Instant::now() - due).as_secs_f64() * 1e3);
            load.of_slow += usize::from(seen.ends_with(&SLOW_ANSWER[SLOW_ANSWER.len() - 4..]));
        }
    }
}

/// Reads a whole answer: its head, and the four bytes of its body.
async fn answer(stream: &mut TcpStream, seen: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        if stream.read_buf(seen).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if !b"HTTP/1.1 200".starts_with(&seen[..seen.len().min(12)]) {
            return Err(std::io::Error::other(String::from_utf8_lossy(seen).into_owned()));
        }
        let head = seen.windows(4).position(|four| four == b"\r\n\r\n");
        if head.is_some_and(|end| seen.len() >= end + 8) {
            return Ok(());
        }
    }
}
