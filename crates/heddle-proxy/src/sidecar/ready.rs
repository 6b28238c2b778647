//! Readiness: the redirection is proven, the sidecar knows which workload it serves, and it can show who it is.

use std::{
    fs::File,
    io::Write,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use heddle_runtime::{clock, memory, net};

use super::error::ProxyError;
use crate::{Shared, probe};

/// Between attempts.
const INTERVAL: Duration = Duration::from_millis(10);
/// Attempts between two lines in the log.
const ATTEMPTS_PER_LINE: u32 = 100;

/// The pipe that is told of readiness.
pub(super) fn pipe(shared: &Shared) -> Result<Option<File>, ProxyError> {
    let Some(number) = shared.config.ready_fd else { return Ok(None) };
    let descriptor =
        net::inherited_fd(number).map_err(|source| ProxyError::Inherited { number, source })?;
    Ok(Some(File::from(descriptor)))
}

/// Tries until the sidecar is ready, then says so: one byte to the pipe, 200 on the health port.
pub(super) async fn become_ready(shared: Arc<Shared>, pipe: Option<File>) {
    let mut attempts: u32 = 0;
    loop {
        match probe::probe(&shared).await {
            Ok(()) => break,
            Err(error) if attempts.is_multiple_of(ATTEMPTS_PER_LINE) => {
                tracing::warn!(%error, "not ready");
            }
            Err(_) => {}
        }
        attempts = attempts.wrapping_add(1);
        clock::sleep(INTERVAL).await;
    }
    let knows_itself = || shared.snapshot.load().inbound.is_some();
    let identified = || shared.identified.load(Ordering::Relaxed);
    while !(knows_itself() && identified()) {
        clock::sleep(INTERVAL).await;
    }
    shared.ready.store(true, Ordering::Relaxed);
    tracing::info!("ready");
    if let Some(mut pipe) = pipe
        && let Err(error) = pipe.write_all(b"1")
    {
        tracing::warn!(%error, "nobody takes the word that the sidecar is ready");
    }
    // More than half of the code that is mapped by now was for starting only.
    if let Err(error) = memory::forget_startup_code() {
        tracing::debug!(%error, "code of the start stays mapped");
    }
}
