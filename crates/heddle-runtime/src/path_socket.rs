//! Path sockets only our own user (or root) may speak to, and their owner by SO_PEERCRED.

use std::{
    fs::File,
    io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
        },
    },
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

/// Longest path that a socket's address holds, bytes: `sun_path` without its final zero.
pub const PATH_BYTES_MAX: usize = 107;

/// A path that an address holds, for one that may be longer: by its folder, which stays open with it.
struct Short {
    path: PathBuf,
    _folder: Option<File>,
}

impl Short {
    fn of(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let folder = File::open(folder)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }
}

/// Connects to the path socket at `path`, which may be longer than an address holds.
///
/// # Errors
/// What the system says.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let short = Short::of(path)?;
    UnixStream::connect(&short.path).await
}

/// Binds a path socket of mode 0600, replacing one whose process is dead.
///
/// # Errors
/// As [`bind_detached`], and if the runtime can take no more descriptors.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    UnixListener::from_std(bind_detached(path)?)
}

/// The same of no runtime yet.
///
/// It is bound under another name and renamed, so that it never exists with other rights.
///
/// # Errors
/// `AddrInUse` if a live process serves it, `AlreadyExists` if something else stands there, and
/// whatever the system says.
pub fn bind_detached(path: &Path) -> io::Result<StdUnixListener> {
    match path.symlink_metadata() {
        Ok(meta) if !meta.file_type().is_socket() => {
            let text = format!("{} is no socket: move it away", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Ok(_) if is_served(path)? => {
            let text = format!("{} is served by a running process", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
        _ => {}
    }
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    if fresh.symlink_metadata().is_ok() {
        std::fs::remove_file(&fresh)?;
    }
    let short = Short::of(&fresh)?;
    let listener = StdUnixListener::bind(&short.path)?;
    listener.set_nonblocking(true)?;
    let placed = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| std::fs::rename(&fresh, path));
    if let Err(error) = placed {
        drop(std::fs::remove_file(&fresh));
        return Err(error);
    }
    Ok(listener)
}

fn is_served(path: &Path) -> io::Result<bool> {
    let short = Short::of(path)?;
    Ok(StdUnixStream::connect(&short.path).is_ok())
}

/// Who may speak: our own user and root.
#[derive(Debug, Clone, Copy)]
pub struct Peers {
    own_uid: u32,
}

impl Peers {
    /// Learns our own user id the way a peer's is learnt.
    ///
    /// # Errors
    /// The system's, if no socket pair can be made.
    pub fn new() -> io::Result<Self> {
        let (one, _other) = UnixStream::pair()?;
        Ok(Self { own_uid: one.peer_cred()?.uid() })
    }

    /// May this peer speak? A refusal is logged.
    #[must_use]
    pub fn allow(self, stream: &UnixStream) -> bool {
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
    async fn a_path_longer_than_an_address_is_served_and_reached() {
        let folder = Folder::new("sockets");
        let long = folder.join("a".repeat(PATH_BYTES_MAX).as_str());
        std::fs::create_dir(&long).unwrap();
        let path = long.join("admin.sock");
        let listener = bind(&path).unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let (client, server) = tokio::join!(connect(&path), listener.accept());
        assert!(client.is_ok() && server.is_ok());
        drop(listener);
        bind(&path).unwrap();
    }

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
