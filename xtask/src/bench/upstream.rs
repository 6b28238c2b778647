//! The application behind the measured proxy: answers every request with 1 KB, as cheaply as it
//! can, so that the proxy is what is measured. Started by `http1` in a namespace of its own.

use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

/// Body of every answer, bytes.
const BODY: usize = 1024;
/// Bytes read at once.
const READ: usize = 16 * 1024;

/// Serves `ADDR:PORT` (one argument) until it is killed.
pub(super) fn run(words: &[&str]) -> Result<(), String> {
    let address = words.first().ok_or("usage: bench upstream ADDR:PORT")?.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(&address).await.map_err(|e| format!("{address}: {e}"))?;
        loop {
            let (stream, _) = listener.accept().await.map_err(|e| e.to_string())?;
            // Ends when the proxy closes.
            tokio::task::spawn_local(serve(stream));
        }
    })
}

async fn serve(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (stays, last) = (answer(""), answer("Connection: close\r\n"));
    let mut buffer = vec![0; READ];
    let mut seen: Vec<u8> = Vec::new();
    loop {
        stream.ready(Interest::READABLE).await?;
        let read = match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        seen.extend_from_slice(&buffer[..read]);
        while let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = seen.drain(..end + 4).collect();
            if wants_close(&head) {
                return write_all(&stream, &last).await;
            }
            write_all(&stream, &stays).await?;
        }
    }
}

fn answer(more: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: upstream\r\nContent-Type: text/plain\r\nContent-Length: {BODY}\r\n{more}\r\n"
    );
    [head.as_bytes(), &[b'x'; BODY]].concat()
}

fn wants_close(head: &[u8]) -> bool {
    const CLOSE: &[u8] = b"connection: close\r\n";
    head.split_inclusive(|byte| *byte == b'\n').any(|line| line.eq_ignore_ascii_case(CLOSE))
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                stream.writable().await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
