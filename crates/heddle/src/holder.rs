//! The holder: one small process per mesh that keeps what must not end while the mesh lives.
//!
//! It holds the mesh's namespaces and the host-side sockets, starts control plane, dashboard and
//! sidecars and starts them again, and opens sockets on the host for sidecars. It knows no rule:
//! who may join under which name and address is the control plane's decision. Its own death ends
//! everything: its children die with it, and every `heddle run` notices its connection closing.
//!
//! [`state`] is what it holds, [`session`] serves one connection, [`workload`] is one workload from
//! join to end, [`part`] keeps a process running, [`network`] is all that touches namespaces.

use std::{fs, io, net::SocketAddr, os::unix::fs::PermissionsExt as _, rc::Rc, time::Duration};

use heddle_runtime::{clock, fdpass::FdStream, process, task};
use tokio::net::UnixListener;

use crate::{
    cli::HolderArgs,
    failure::{Doing as _, Failure},
    mesh::{MeshPaths, ProcessRecord, RunRoot},
    parts::name_process,
    termination::Termination,
};

pub(crate) mod book;
pub(crate) mod broker;
pub(crate) mod elsewhere;
pub(crate) mod membership;
pub(crate) mod names;
pub(crate) mod network;
pub(crate) mod outbox;
pub(crate) mod part;
pub(crate) mod parts;
pub(crate) mod publish;
pub(crate) mod session;
pub(crate) mod sidecar;
pub(crate) mod starter;
pub(crate) mod state;
pub(crate) mod workload;

use parts::Listeners;
use starter::Starter;
use state::Holder;

/// Most connections at once; every workload has two, one of `run` and one of its sidecar.
const SESSIONS_MAX: usize = 4096;
/// Longest wait for the control plane when the mesh starts.
const CONTROL_WAIT: Duration = Duration::from_secs(20);
/// Longest wait for the last answer to be read.
const GOODBYE_WAIT: Duration = Duration::from_secs(1);
/// Pause after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// `heddle holder`. Its starter hands it the locked lock file as standard input and a socket as
/// standard output, so that neither is free for a moment.
///
/// # Errors
/// Where it could not start; the starter has been told.
pub(crate) fn run(args: HolderArgs) -> Result<(), Failure> {
    name_process("heddle-holder");
    starter::close_stray_descriptors();
    let lock = starter::inherited_lock()?;
    let starter = starter::inherited_socket()?;
    let paths = RunRoot::open()?.mesh(&args.mesh)?;
    if !paths.is_lock(&lock) {
        return Err(Failure::refused("the holder is started by `heddle up`, not by hand"));
    }
    // More sidecars than the usual 1024 descriptors allow are a mesh too; if not, so be it.
    drop(process::raise_open_files());
    let done = task::run_local(async {
        let starter = Starter::new(starter)?;
        let result = hold(&args, &paths, &lock, &starter).await;
        remove_files(&paths, &lock);
        if let Err(failure) = &result {
            starter.failed(&failure.message).await;
        }
        result
    });
    done.doing(|| "start the holder".to_owned())?
}

async fn hold(
    args: &HolderArgs,
    paths: &MeshPaths,
    lock: &fs::File,
    starter: &Starter,
) -> Result<(), Failure> {
    let mut signals = Termination::watch().doing(|| "watch for signals".to_owned())?;
    let dashboard = publish::bind_any(&args.dashboard, "--dashboard").map_err(Failure::refused)?;
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let spans = args.tracing.trace_listen.unwrap_or(loopback);
    let spans = publish::bind_any(&[spans], "--trace-listen").map_err(Failure::refused)?;
    let hub = network::make_mesh().await?;
    let socket = paths.socket();
    let listener =
        UnixListener::bind(&socket).doing(|| format!("listen on {}", socket.display()))?;
    // Its folder is private already; this is for whoever looks at the file.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))
        .doing(|| format!("close {} to others", socket.display()))?;
    let listeners = Listeners { dashboard, spans };
    let listening = listeners.addresses().doing(|| "read the dashboard's port".to_owned())?;
    let holder = Rc::new(Holder::new(paths, hub, listening));
    let parts = parts::start(&holder, args, listeners);
    let began = tokio::select! {
        began = begin(&holder, lock, starter) => began,
        () = starter.gone() => Err(Failure::refused("whoever started the mesh has gone")),
    };
    if began.is_ok() {
        let accepting = task::spawn_contained("accept", accept(Rc::clone(&holder), listener));
        tokio::select! {
            () = holder.wait_for_end(starter) => {}
            () = signals.next() => holder.ends_because("its holder was sent a signal to end"),
        }
        starter.ended(&holder.reason()).await;
        holder.end_workloads().await;
        accepting.abort();
    }
    parts.end().await;
    remove_files(paths, lock);
    holder.ended.send_replace(true);
    let _all_read = clock::within(GOODBYE_WAIT, holder.farewells()).await;
    began
}

/// Waits for the control plane, then makes the mesh known.
async fn begin(holder: &Holder, lock: &fs::File, starter: &Starter) -> Result<(), Failure> {
    starter.progress("starting the control plane").await;
    let ready = tokio::select! {
        ready = clock::within(CONTROL_WAIT, holder.book.membership.ready()) => ready.is_some(),
        () = holder.control.keeps_ending() => false,
    };
    if !ready {
        let log = holder.book.paths.run_dir().join("control.log");
        return Err(Failure::refused(format!(
            "the control plane does not start:\n{}",
            crate::up::log_tail(&log)
        )));
    }
    let record = ProcessRecord::own().doing(|| "read /proc/self/stat".to_owned())?;
    record.write(lock).doing(|| format!("write {}", holder.book.paths.lock().display()))?;
    starter.ready(holder.describe()).await;
    Ok(())
}

async fn accept(holder: Rc<Holder>, listener: UnixListener) {
    let (own, _) = process::effective_ids();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => FdStream::new(stream),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                clock::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let allowed = stream.peer_credentials().is_ok_and(|peer| peer.uid == own || peer.uid == 0);
        if !allowed || holder.sessions.get() >= SESSIONS_MAX {
            tracing::warn!(allowed, sessions = holder.sessions.get(), "a connection is refused");
            continue;
        }
        let (reader, writer) = stream.into_split();
        holder.sessions.set(holder.sessions.get() + 1);
        let counted = Rc::clone(&holder);
        task::spawn_contained("session", async move {
            let reader = reader.without_fds();
            session::serve(Rc::clone(&counted), reader, outbox::Outbox::new(writer)).await;
            counted.sessions.set(counted.sessions.get().saturating_sub(1));
        });
    }
}

/// Removes the mesh's files, once: with the lock file gone, another mesh may have taken the name.
fn remove_files(paths: &MeshPaths, lock: &fs::File) {
    if !paths.is_lock(lock) {
        return;
    }
    let gone = |result: io::Result<()>, what: &std::path::Path| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %what.display(), %error, "cannot be removed");
        }
        _ => {}
    };
    gone(fs::remove_file(paths.socket()), &paths.socket());
    gone(fs::remove_dir_all(paths.run_dir()), &paths.run_dir());
    gone(fs::remove_file(paths.lock()), &paths.lock());
}

#[cfg(test)]
mod tests {
    use heddle_testkit::folder::Folder;

    use super::*;

    #[test]
    fn a_later_mesh_of_the_name_keeps_its_files() {
        let folder = Folder::new("holder");
        let paths = RunRoot::at(folder.path()).mesh("m").unwrap();
        let lock = paths.try_lock().unwrap().and_then(|lock| lock.hand_on()).unwrap();
        fs::create_dir(paths.run_dir()).unwrap();
        remove_files(&paths, &lock);
        assert!(!paths.run_dir().exists() && !paths.lock().exists());
        let later = paths.try_lock().unwrap().and_then(|lock| lock.hand_on()).unwrap();
        fs::create_dir(paths.run_dir()).unwrap();
        remove_files(&paths, &lock);
        assert!(paths.run_dir().exists() && paths.is_lock(&later));
    }
}
