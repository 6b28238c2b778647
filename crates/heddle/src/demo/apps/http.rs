//! Just enough HTTP/1.1 for the demo's services: a thread per connection, keep-alive, JSON bodies.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

/// How long a call may take. Above the five seconds of the delay example, so that a delayed call is
/// slow and not lost.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest head or body accepted, bytes.
const MESSAGE_MAX: usize = 1 << 20;

/// A request as a service sees it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// A header's value by lower-case name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What a service answers.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Response {
    /// 200 with JSON.
    pub(super) fn json(body: &serde_json::Value) -> Self {
        Self { status: 200, content_type: "application/json", body: body.to_string() }
    }
}

/// Serves `handler` on `port` for ever, on both address families.
pub(super) fn serve(
    port: u16,
    handler: impl Fn(&Request) -> Response + Clone + Send + 'static,
) -> io::Result<()> {
    // On Linux `[::]` takes IPv4 too; a machine without IPv6 gets the other.
    let listener =
        TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))?;
    for stream in listener.incoming().flatten() {
        let handler = handler.clone();
        // Ends with the connection; an error means only that the client went away.
        thread::spawn(move || serve_connection(&stream, &handler));
    }
    Ok(())
}

fn serve_connection(stream: &TcpStream, handler: &impl Fn(&Request) -> Response) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut lines = read_head(&mut reader)?;
        if lines.is_empty() {
            return Ok(());
        }
        let first = lines.remove(0);
        let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
        let request = Request { path, headers: headers(&lines) };
        let length = request.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        skip(&mut reader, length)?;
        let close = request.header("connection") == Some("close");
        let response = handler(&request);
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{}",
            response.status,
            if response.status < 400 { "OK" } else { "Error" },
            response.content_type,
            response.body.len(),
            response.body
        );
        writer.write_all(head.as_bytes())?;
        if close {
            return Ok(());
        }
    }
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut limited = reader.take(MESSAGE_MAX as u64);
    loop {
        let mut line = String::new();
        if limited.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
            return Ok(lines);
        }
        lines.push(line.trim_end().to_owned());
    }
}

fn headers(lines: &[String]) -> Vec<(String, String)> {
    let pair = |line: &String| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    lines.iter().filter_map(pair).collect()
}

fn skip(reader: &mut impl BufRead, length: usize) -> io::Result<()> {
    io::copy(&mut reader.take(length.min(MESSAGE_MAX) as u64), &mut io::sink()).map(drop)
}

/// A client of one service that keeps its connection.
#[derive(Debug)]
pub(super) struct Client {
    host: String,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(super) fn new(host: &str) -> Self {
        Self { host: host.to_owned(), connection: None }
    }

    /// One GET; status and body.
    pub(super) fn get(&mut self, path: &str, extra: &[(&str, &str)]) -> io::Result<(u16, String)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\n", self.host);
        for (name, value) in extra {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        connection.get_mut().write_all(head.as_bytes())?;
        let mut lines = read_head(&mut connection)?;
        if lines.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let first = lines.remove(0);
        let status = first.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let (body, keep) = read_body(&mut connection, &headers(&lines))?;
        if keep {
            self.connection = Some(connection);
        }
        Ok((status, body))
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect((self.host.as_str(), 80))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CALL_TIMEOUT))?;
        Ok(BufReader::new(stream))
    }
}

/// The body and whether the connection can be used again.
fn read_body(
    reader: &mut impl BufRead,
    headers: &[(String, String)],
) -> io::Result<(String, bool)> {
    let value = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, v)| v.as_str());
    let close = value("connection") == Some("close");
    let mut body = Vec::new();
    if value("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0).min(MESSAGE_MAX);
            reader.take(size as u64).read_to_end(&mut body)?;
            reader.read_line(&mut line)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = value("content-length").and_then(|v| v.parse::<usize>().ok()) {
        body.resize(length.min(MESSAGE_MAX), 0);
        reader.read_exact(&mut body)?;
    } else {
        reader.take(MESSAGE_MAX as u64).read_to_end(&mut body)?;
        return Ok((String::from_utf8_lossy(&body).into_owned(), false));
    }
    Ok((String::from_utf8_lossy(&body).into_owned(), !close))
}
