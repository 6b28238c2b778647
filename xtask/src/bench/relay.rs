//! The floor of `http1`: a relay that passes on bytes without looking at them, one connection to the
//! application per connection of a client. What it costs is the kernel's price for a hop.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    task::LocalSet,
};

/// Bytes read at once.
const READ: usize = 16 * 1024;

/// Relays connections from `LISTEN` to `TARGET` (two arguments) until it is killed.
pub(super) fn run(words: &[&str]) -> Result<(), String> {
    let [listen, target] = words else { return Err("usage: bench relay LISTEN TARGET".into()) };
    let (listen, target) = ((*listen).to_owned(), (*target).to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(&listen).await.map_err(|e| format!("{listen}: {e}"))?;
        loop {
            let (client, _) = listener.accept().await.map_err(|e| e.to_string())?;
            // Ends when either side closes.
            tokio::task::spawn_local(relay(client, target.clone()));
        }
    })
}

async fn relay(mut client: TcpStream, target: String) -> std::io::Result<()> {
    let mut upstream = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (mut client_read, mut client_write) = client.split();
    let (mut upstream_read, mut upstream_write) = upstream.split();
    tokio::select! {
        ended = pump(&mut client_read, &mut upstream_write) => ended,
        ended = pump(&mut upstream_read, &mut client_write) => ended,
    }
}

async fn pump(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> std::io::Result<()> {
    let mut buffer = vec![0; READ];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}
