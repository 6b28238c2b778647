//! Backends that serve one request at a time, in one thread. The last of them takes ten times as long, and
//! says so in its answers.
#![expect(
    clippy::disallowed_methods,
    reason = "a backend that takes its time; nothing is tested here"
)]

use std::{cell::Cell, net::TcpListener as Listener, rc::Rc, thread, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::LocalSet,
    time::{Instant, sleep_until},
};

/// Time for one request: 500 a second.
const SERVICE: Duration = Duration::from_millis(2);
/// The slow one's: 50 a second.
const SLOW: Duration = Duration::from_millis(20);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfast";
/// As long as the other.
pub(super) const SLOW_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow";

/// One of them.
struct Backend {
    service: Duration,
    answer: &'static [u8],
    /// When it is done with what it has.
    free_at: Cell<Instant>,
}

/// Starts one at each address; they end with the process.
pub(super) fn start(addresses: &[&str]) -> Result<thread::JoinHandle<()>, String> {
    let bind = |address: &&str| {
        let listener = Listener::bind((*address, 80)).map_err(|e| format!("{address}: {e}"))?;
        listener.set_nonblocking(true).map_err(|e| e.to_string())?;
        Ok::<_, String>(listener)
    };
    let listeners = addresses.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
    Ok(thread::spawn(move || serve_all(listeners)))
}

fn serve_all(listeners: Vec<Listener>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    let last = listeners.len() - 1;
    LocalSet::new().block_on(&runtime, async move {
        for (at, listener) in listeners.into_iter().enumerate() {
            let (service, answer) =
                if at == last { (SLOW, SLOW_ANSWER) } else { (SERVICE, ANSWER) };
            let backend = Rc::new(Backend { service, answer, free_at: Cell::new(Instant::now()) });
            tokio::task::spawn_local(accept(listener, backend));
        }
        std::future::pending::<()>().await;
    });
}

async fn accept(listener: Listener, backend: Rc<Backend>) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::task::spawn_local(serve(stream, Rc::clone(&backend)));
    }
}

async fn serve(mut stream: TcpStream, backend: Rc<Backend>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        seen.extend_from_slice(&buffer[..read]);
        while let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            seen.drain(..end + 4);
            // In the order of their coming, without a gap: a late timer costs no capacity.
            let done = backend.free_at.get().max(Instant::now()) + backend.service;
            backend.free_at.set(done);
            sleep_until(done).await;
            stream.write_all(backend.answer).await?;
        }
    }
}
