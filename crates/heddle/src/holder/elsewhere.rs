//! The way from the observer, which has none out of the mesh's network, to the one program outside that it was told to
//! ask: connections to a path socket are passed on from the host's side.
//!
//! The first line there says whether there is a way: empty, or why not.

use std::{io, path::PathBuf, time::Duration};

use heddle_observe::SourceUrl;
use heddle_runtime::{clock, path_socket, task};
use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional},
    net::{TcpStream, UnixStream},
};

/// Longest attempt to connect.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// Listens at the path and passes on to where the URL points.
///
/// # Errors
/// The socket cannot be made.
pub(crate) fn pass_on(socket: PathBuf, url: SourceUrl) -> io::Result<()> {
    let listener = path_socket::bind(&socket)?;
    drop(task::spawn_contained("way to figures", async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let one = one(stream, url.clone());
                    drop(task::spawn_contained("connection for figures", one));
                }
                Err(error) => {
                    tracing::warn!(%error, "the way to figures takes no connection");
                    clock::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }));
    Ok(())
}

async fn one(mut asking: UnixStream, url: SourceUrl) {
    let (host, port) = url.place();
    let connected = clock::within(CONNECT_WAIT, TcpStream::connect((host, port))).await;
    let connected = connected.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
    // Whoever has gone meanwhile needs no word.
    let _gone = match connected {
        Ok(mut stream) => match asking.write_all(b"\n").await {
            Ok(()) => copy_bidirectional(&mut asking, &mut stream).await.map(drop),
            Err(gone) => Err(gone),
        },
        Err(error) => {
            let reason = format!("cannot connect to {host}:{port}: {error}\n");
            asking.write_all(reason.as_bytes()).await
        }
    };
}
