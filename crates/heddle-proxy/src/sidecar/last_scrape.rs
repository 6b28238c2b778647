//! What was measured since the observer's last scrape, all of it where there was none: the observer is asked to come
//! once more, and the sidecar ends when it has been, or does not answer in time.

use std::sync::Arc;

use heddle_runtime::{
    clock,
    local_http::{self, Ask, CallError, Method},
    path_socket,
};
use heddle_wire::local::{
    last_scrape::{LAST_SCRAPE, LastScrape},
    proxy_config::Observer,
};

use crate::{Shared, export::Ways, limits::LAST_SCRAPE_MAX};

/// Who is asked, in errors.
const OBSERVER: &str = "the observer";

/// Asks for it, and waits until it is done.
pub(super) async fn ask(shared: &Arc<Shared>) {
    let lost = match clock::within(LAST_SCRAPE_MAX, Box::pin(call(shared))).await {
        Some(Ok(())) => return,
        Some(Err(error)) => error,
        None => format!("{OBSERVER} has not answered within {} s", LAST_SCRAPE_MAX.as_secs()),
    };
    tracing::info!(reason = %lost, "what was measured since the last scrape is lost to the dashboard");
}

async fn call(shared: &Arc<Shared>) -> Result<(), String> {
    let about = about(shared);
    let ask = Ask::new(&Method::POST, LAST_SCRAPE);
    let called: Result<(), CallError> = match shared.config.observer() {
        Observer::None => return Ok(()),
        Observer::Socket(socket) => {
            let stream = path_socket::connect(&socket).await;
            let stream = stream.map_err(|error| format!("{}: {error}", socket.display()))?;
            local_http::call_on(OBSERVER, stream, ask, Some(&about)).await
        }
        Observer::At { host, port } => {
            let stream = Ways(Arc::clone(shared)).connect_to(host, port).await?;
            local_http::call_on(OBSERVER, stream, ask, Some(&about)).await
        }
    };
    called.map_err(|error| error.to_string())
}

/// The workload, and what its calls are booked under.
fn about(shared: &Shared) -> LastScrape {
    let config = &shared.config;
    let service = match &config.service[..] {
        "" => shared.metrics.own().canonical_name(),
        service => service,
    };
    LastScrape {
        workload: config.workload.clone(),
        name: config.name.clone(),
        namespace: config.namespace.clone(),
        service: service.to_owned(),
        version: config.version.clone(),
        address: config.addresses.first(),
    }
}
