//! Servers made of closures, and raw ends of connections: what a test needs to send anything, answer
//! anything, and fail at any byte. Everything waits within bounds.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use heddle_runtime::task;

use crate::wait::PATIENCE;

/// A server made of a closure that gets every connection, on a thread of its own.
#[derive(Debug)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Backend {
    /// Serves on a free port of 127.0.0.1.
    pub fn start(serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), serve)
    }

    /// Serves on this address.
    pub fn at(address: SocketAddr, serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, stopped) = (Arc::clone(&connections), Arc::clone(&stop));
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let number = count.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                let peer = Peer::new(stream.unwrap(), number);
                thread::spawn(move || serve(peer));
            }
        });
        Self { address, connections, stop }
    }

    /// Answers every request with 200 and what `answer` makes of its head and body.
    pub fn http(answer: impl Fn(&str, &[u8]) -> String + Send + Sync + 'static) -> Self {
        Self::start(http_server(answer))
    }

    /// Sends every piece of `size` bytes back.
    pub fn echo(size: usize) -> Self {
        Self::start(echo_server(size))
    }

    /// How many connections it has accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(self.address);
    }
}

/// A server for [`Backend::start`] that sends every piece of `size` bytes back.
pub fn echo_server(size: usize) -> impl Fn(Peer) + Send + Sync + 'static {
    move |mut peer| {
        while let Some(bytes) = peer.exactly(size) {
            peer.write_bytes(&bytes).unwrap();
        }
    }
}

/// A server for [`Backend::start`] that answers every request with 200 and what `answer` makes of it.
pub fn http_server(
    answer: impl Fn(&str, &[u8]) -> String + Send + Sync + 'static,
) -> impl Fn(Peer) + Send + Sync + 'static {
    move |mut peer| {
        while let Some((head, body)) = peer.request() {
            let text = answer(&head, &body);
            peer.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
        }
    }
}

/// An address where nobody listens.
#[must_use]
pub fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// One end of a connection, raw, bounded in time.
#[derive(Debug)]
pub struct Peer {
    /// The connection.
    pub stream: TcpStream,
    /// Which of its server's connections this is, from 0.
    pub number: usize,
    read: Vec<u8>,
}

impl Peer {
    /// Connects.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self::reach(address).unwrap()
    }

    /// Connects to what may refuse.
    ///
    /// # Errors
    /// As connect(2); also a reset that comes before the caller has noticed that it was connected.
    pub fn reach(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(TcpStream::connect_timeout(&address, PATIENCE)?, 0))
    }

    fn new(stream: TcpStream, number: usize) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, number, read: Vec::new() }
    }

    /// Writes; the other side may be gone, which reading will show.
    pub fn write(&mut self, text: &str) {
        let _gone = self.stream.write_all(text.as_bytes());
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// As write(2).
    pub fn write_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Closes the sending half.
    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes with a reset.
    pub fn reset(self) {
        reset_on_close(&self.stream).unwrap();
        drop(self.stream);
    }

    /// Reads until `end` has come and returns everything up to and with it; `None` at the end of
    /// the stream.
    pub fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = find(&self.read, end.as_bytes()) {
                let rest = self.read.split_off(at + end.len());
                let text = std::mem::replace(&mut self.read, rest);
                return Some(String::from_utf8(text).unwrap());
            }
            if self.more().ok()? == 0 {
                return None;
            }
        }
    }

    /// Exactly `n` bytes.
    pub fn exactly(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.read.len() < n {
            if self.more().ok()? == 0 {
                return None;
            }
        }
        let rest = self.read.split_off(n);
        Some(std::mem::replace(&mut self.read, rest))
    }

    /// Everything to the end of the stream.
    ///
    /// # Errors
    /// What ended it, if that was no end.
    pub fn rest(&mut self) -> io::Result<String> {
        while self.more()? > 0 {}
        Ok(String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned())
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let n = self.stream.read(&mut chunk)?;
        self.read.extend_from_slice(&chunk[..n]);
        Ok(n)
    }

    /// A request or response head.
    pub fn head(&mut self) -> Option<String> {
        self.until("\r\n\r\n")
    }

    /// A request with its body.
    pub fn request(&mut self) -> Option<(String, Vec<u8>)> {
        let head = self.head()?;
        let body = self.body(&head)?;
        Some((head, body))
    }

    /// A response with its body, delimited as its head says; not for HEAD.
    pub fn response(&mut self) -> Option<(String, String)> {
        let head = self.head()?;
        let body = self.body(&head)?;
        Some((head, String::from_utf8(body).unwrap()))
    }

    /// Sends and receives.
    pub fn ask(&mut self, request: &str) -> (String, String) {
        self.write(request);
        self.response().expect("a response")
    }

    fn body(&mut self, head: &str) -> Option<Vec<u8>> {
        let lower = head.to_ascii_lowercase();
        if let Some(length) = field(&lower, "content-length") {
            return self.exactly(length.parse().unwrap());
        }
        if field(&lower, "transfer-encoding").is_some_and(|coding| coding == "chunked") {
            return self.chunked();
        }
        Some(Vec::new())
    }

    /// A chunked body, framing included, so that tests see it.
    fn chunked(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until("\r\n")?;
            body.extend_from_slice(line.as_bytes());
            let size = line.trim().split(';').next()?;
            let size = usize::from_str_radix(size, 16).unwrap();
            if size > 0 {
                body.extend(self.exactly(size + 2)?);
                continue;
            }
            loop {
                let trailer = self.until("\r\n")?;
                body.extend_from_slice(trailer.as_bytes());
                if trailer == "\r\n" {
                    return Some(body);
                }
            }
        }
    }
}

/// The value of a field, names in lower case.
#[must_use]
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (one, value) = line.split_once(':')?;
        one.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// SO_LINGER 0 on a std socket, by way of a runtime that lives as long as the call.
fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    let copy = stream.try_clone()?;
    copy.set_nonblocking(true)?;
    task::run_local(async move {
        let copy = tokio::net::TcpStream::from_std(copy)?;
        heddle_runtime::net::reset_on_close(&copy)
    })?
}
