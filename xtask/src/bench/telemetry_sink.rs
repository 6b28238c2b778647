//! Who takes the spans of `telemetry`: reads whatever is posted, as cheaply as it can, and keeps nothing.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

/// Where it listens: Zipkin's port.
pub(super) const PORT: u16 = 9411;

/// Takes posts at [`PORT`] of every address until it is killed.
pub(super) fn run() -> Result<(), String> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).map_err(|e| format!("{PORT}: {e}"))?;
    for stream in listener.incoming() {
        let stream = stream.map_err(|e| e.to_string())?;
        // Ends when the sidecar closes.
        thread::spawn(move || serve(stream));
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let field = line.to_ascii_lowercase();
            if let Some(value) = field.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.trim().is_empty() {
                break;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")?;
    }
}
