//! Scrapes every sidecar, keeps its counters for up to 90 days, answers questions about them, and
//! serves the dashboard.
//!
//! It asks the control plane who is there, scrapes `:15090/stats/prometheus` of each, turns counters
//! into increases, and adds those up in time slots of 1 s, 10 s, 1 min and 10 min ([`limits`] says
//! how many are kept). All of that is in memory; all but the slots of 1 s is also kept in a file and comes
//! back from there (`history`). Nothing here is on the data path: if this process stops, calls go on.
//!
//! The way of a number, by file: `rounds` (when) → `scrape` (bytes) → [`exposition`] (samples) →
//! `measure` (what it means) → `ledger` (increase) → `store` (slots) → `rates` (per second) →
//! `answers` (JSON) → `routes` (HTTP).
//!
//! `census` keeps up who there is. A sidecar that ends asks to be scraped once more (`last_scrape`), so that also what lives
//! shorter than an interval is counted.
//!
//! Where a Prometheus scrapes the same sidecars, figures are read from there instead (`elsewhere`), into a store that is
//! made for the question.
//!
//! Who is out for its errors and which names were not found are no numbers over time: `ejected` and `names` take them
//! from each scrape as they are. Rules and their changes come from the control plane (`rulebook`); the changes are kept in the
//! file as well.
//!
//! The same numbers are told as Prometheus tells its own, to who asks in its words: `prometheus` answers the calls, and
//! `promql` works queries out.
//!
//! Traces are not asked for but sent here, by sidecars and by applications: `traces` takes spans in at a listener of
//! their own, and answers with them.
//!
//! Single calls are no numbers either, and are kept nowhere: [`tap`] passes on what sidecars tell of them while somebody
//! looks, here and for `heddle tap`.
//!
//! Not here: what the numbers look like – the page under `ui/`, `heddle top` and `heddle graph` are
//! three printers over the same JSON (`heddle_wire::local::observe_api`).

use std::{cell::RefCell, rc::Rc};

use heddle_runtime::{net, pulse, task};
use tokio::{net::TcpListener, sync::mpsc};

pub mod config;
pub mod control;
pub mod error;
pub mod exposition;
pub mod limits;
pub mod quantile;
pub mod tap;

mod answers;
mod assets;
mod census;
mod ejected;
mod elsewhere;
mod grown;
mod history;
mod hosts;
mod kept_file;
mod last_scrape;
mod ledger;
mod lifetime;
mod measure;
mod names;
mod prometheus;
mod promql;
mod rates;
mod roster;
mod rounds;
mod routes;
mod rulebook;
mod scrape;
mod server;
mod source_url;
mod store;
mod targets;
mod traces;

pub use config::{DashboardListener, ObserveConfig, PrometheusSource, SpansTold};
pub use control::{ClusterControl, ControlSource};
pub use error::ObserveError;
pub use measure::grpc_as_http;
pub use source_url::SourceUrl;

use census::Census;
use last_scrape::Desk;
use server::Face;
use traces::{Traces, intake::Intake};

/// Runs until the process is ended: scrapes, stores and answers on this thread.
///
/// # Errors
/// Only at the start: no runtime, or no listener.
pub fn run(config: ObserveConfig) -> Result<(), ObserveError> {
    task::run_local(serve(config)).map_err(ObserveError::Runtime)?
}

async fn serve(config: ObserveConfig) -> Result<(), ObserveError> {
    pulse::answer();
    let listener = listen(config.dashboard)?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, mesh = %config.mesh, "the dashboard listens");
    }
    let config = Rc::new(config);
    let interval = config.scrape_interval.as_secs().max(1);
    let mut view =
        answers::View { mesh: config.mesh.clone(), interval, ..answers::View::default() };
    take_spans(&config, &view.traces)?;
    if let Some(told) = &config.prometheus {
        view.elsewhere = Some(Rc::new(elsewhere::Elsewhere::new(told.clone())));
    }
    let file = config
        .history
        .clone()
        .and_then(|path| history::open(path, &mut view.store, &mut view.rulebook));
    let view = Rc::new(RefCell::new(view));
    if let Some(file) = file {
        drop(task::spawn_contained("history", history::keep(Rc::clone(&view), file)));
    }
    let census = Rc::new(Census::new(Rc::clone(&view), Rc::clone(&config)));
    drop(task::spawn_contained("roster", Rc::clone(&census).follow()));
    drop(task::spawn_contained(
        "rules",
        rounds::follow_rules(Rc::clone(&view), Rc::clone(&config)),
    ));
    let (asks, asked) = mpsc::channel(limits::LAST_SCRAPES_MAX);
    drop(task::spawn_contained(
        "scrape rounds",
        rounds::keep_scraping(Rc::clone(&view), Rc::clone(&config), asked),
    ));
    let desk = Rc::new(Desk::new(Rc::clone(&view), census, asks));
    if let Some(run_dir) = &config.run_dir {
        let listener = Desk::listen(run_dir)?;
        drop(task::spawn_contained("last scrapes", Rc::clone(&desk).serve(listener)));
    }
    if let Some(address) = config.health {
        let listener = net::listen_tcp(address, None, false)
            .map_err(|source| ObserveError::Bind { address, source })?;
        let health =
            server::serve(Face::Pods(desk), listener, Rc::clone(&view), Rc::clone(&config));
        drop(task::spawn_contained("health", health));
    }
    server::serve(Face::Dashboard, listener, view, config).await;
    Ok(())
}

/// Takes spans in, and keeps them.
fn take_spans(config: &ObserveConfig, traces: &Rc<RefCell<Traces>>) -> Result<(), ObserveError> {
    traces.borrow_mut().elsewhere.clone_from(&config.told.elsewhere);
    let Some(listener) = config.spans else { return Ok(()) };
    let listener = listen(listener)?;
    let endpoint = match (&config.told.endpoint[..], listener.local_addr()) {
        ("", Ok(address)) => format!("http://{address}"),
        (told, _) => told.to_owned(),
    };
    traces.borrow_mut().endpoint = endpoint;
    let file = config.traces.clone();
    if let Some(file) = file.and_then(|path| traces::file::open(path, &mut traces.borrow_mut())) {
        let kept = traces::file::keep(Rc::clone(traces), file);
        drop(task::spawn_contained("traces", kept));
    }
    drop(task::spawn_contained("settled traces", traces::file::settle(Rc::clone(traces))));
    let intake = Rc::new(Intake::new(Rc::clone(traces)));
    drop(task::spawn_contained("spans", intake.serve(listener)));
    Ok(())
}

fn listen(dashboard: DashboardListener) -> Result<TcpListener, ObserveError> {
    match dashboard {
        DashboardListener::Inherited(fd) => net::inherited_fd(fd)
            .and_then(net::tcp_listener_from)
            .map_err(|source| ObserveError::Inherited { fd, source }),
        DashboardListener::Bind(address) => net::listen_tcp(address, None, false)
            .map_err(|source| ObserveError::Bind { address, source }),
    }
}
