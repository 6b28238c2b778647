//! Path sockets only our own user (or root) may speak to, and their owner by SO_PEERCRED.

use std::{
    io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream as StdUnixStream,
    },
    path::Path,
};

use tokio::net::{UnixListener, UnixStream};

/// Binds a path socket of mode 0600, replacing one whose process is dead.
///
/// It is bound under another name and renamed, so that it never exists with other rights.
///
/// # Errors
/// `AddrInUse` if a live process serves it, `AlreadyExists` if something else stands there, and
/// whatever the system says.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match path.symlink_metadata() {
        Ok(meta) if !meta.file_type().is_socket() => {
            let text = format!("{} is no socket: move it away", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Ok(_) if StdUnixStream::connect(path).is_ok() => {
            let text = format!("{} is served by a running control plane", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
        _ => {}
    }
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    if fresh.symlink_metadata().is_ok() {
        std::fs::remove_file(&fresh)?;
    }
    let listener = UnixListener::bind(&fresh)?;
    let placed = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| std::fs::rename(&fresh, path));
    if let Err(error) = placed {
        drop(std::fs::remove_file(&fresh));
        return Err(error);
    }
    Ok(listener)
}

/// Who may speak: our own user and root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peers {
    own_uid: u32,
}

impl Peers {
    /// Learns our own user id the way a peer's is learnt.
    ///
    /// # Errors
    /// The system's, if no socket pair can be made.
    pub(crate) fn new() -> io::Result<Self> {
        let (one, _other) = UnixStream::pair()?;
        Ok(Self { own_uid: one.peer_cred()?.uid() })
    }

    /// May this peer speak? A refusal is logged.
    pub(crate) fn allow(self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == self.own_uid || peer.uid() == 0 => true,
            Ok(peer) => {
                tracing::warn!(
                    uid = peer.uid(),
                    pid = peer.pid(),
                    "connection of another user refused"
                );
                false
            }
            Err(error) => {
                tracing::warn!(%error, "connection without credentials refused");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use heddle_testkit::folder::Folder;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = Folder::new("sockets");
        let path = folder.join("control.sock");
        let first = bind(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let refused = bind(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse, "{refused}");
        drop(first);
        let second = bind(&path).unwrap();
        let client = UnixStream::connect(&path).await.unwrap();
        let (server, _) = second.accept().await.unwrap();
        assert!(Peers::new().unwrap().allow(&server));
        assert!(
            !Peers { own_uid: 77_777 }.allow(&server) || client.peer_cred().unwrap().uid() == 0
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"mine").unwrap();
        let refused = bind(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists, "{refused}");
    }
}
