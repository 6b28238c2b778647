//! As much of HTTP/1 as probes and scrapers speak.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Longest request head, bytes.
const HEAD_MAX: usize = 8 * 1024;
/// Read at a time, bytes.
const CHUNK: usize = 1024;

/// A request, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Path without query.
    pub(super) path: String,
    /// HEAD: the answer has no body.
    pub(super) head_only: bool,
    /// May another request follow?
    pub(super) keep_alive: bool,
}

impl Request {
    /// Stands for a request that could not be read: its answer is the connection's last.
    pub(super) fn last() -> Self {
        Self { path: String::new(), head_only: false, keep_alive: false }
    }
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Request(Request),
    /// Not served; the answer says why and is the last on this connection.
    Refused(Page),
    /// The client closed.
    End,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Page {
    pub(super) fn text(status: u16, body: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.to_owned() }
    }

    pub(super) fn json(body: String) -> Self {
        Self { status: 200, content_type: "application/json", body }
    }

    pub(super) fn metrics(body: String) -> Self {
        Self { status: 200, content_type: "text/plain; version=0.0.4; charset=utf-8", body }
    }
}

/// Reads the next request head; `buffer` carries over what came of the one after.
pub(super) async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Read> {
    loop {
        if let Some(end) = head_end(buffer) {
            let head: Vec<u8> = buffer.drain(..end).collect();
            return Ok(parse(&head));
        }
        if buffer.len() >= HEAD_MAX {
            return Ok(Read::Refused(Page::text(431, "the request head is too long\n")));
        }
        let mut chunk = [0; CHUNK];
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return Ok(Read::End);
        }
        buffer.extend_from_slice(&chunk[..count]);
    }
}

/// Where the first head ends, its empty line included.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn parse(head: &[u8]) -> Read {
    let bad = || Read::Refused(Page::text(400, "this is no HTTP/1 request\n"));
    let Ok(head) = std::str::from_utf8(head) else { return bad() };
    let mut lines = head.split("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, version @ ("HTTP/1.1" | "HTTP/1.0")] = words[..] else { return bad() };
    if method != "GET" && method != "HEAD" {
        return Read::Refused(Page::text(405, "only GET and HEAD are served here\n"));
    }
    let mut keep_alive = version == "HTTP/1.1";
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else { return bad() };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_ascii_lowercase());
        match name.as_str() {
            "connection" => keep_alive = keep_alive && value != "close",
            // A body would be the beginning of a next request; so there is none.
            "transfer-encoding" => keep_alive = false,
            "content-length" => keep_alive = keep_alive && value == "0",
            _ => {}
        }
    }
    let path = target.split('?').next().unwrap_or_default().to_owned();
    Read::Request(Request { path, head_only: method == "HEAD", keep_alive })
}

/// The answer's bytes.
pub(super) fn encode(page: &Page, request: &Request) -> Vec<u8> {
    let reason = match page.status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    };
    let connection = if request.keep_alive { "keep-alive" } else { "close" };
    let mut bytes = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: {connection}\r\n\r\n",
        page.status,
        page.content_type,
        page.body.len(),
    )
    .into_bytes();
    if !request.head_only {
        bytes.extend_from_slice(page.body.as_bytes());
    }
    bytes
}

pub(super) async fn send(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}
