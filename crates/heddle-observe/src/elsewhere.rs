//! What was measured, read from a Prometheus that scrapes the same sidecars, instead of from our own store.
//!
//! For each question the counters of its period are asked for (`query_range`), and read as if they were scrapes of long
//! ago: by a [`Ledger`](crate::ledger::Ledger) per sidecar into a [`Store`] of its own (`replay`). So counters that began
//! anew, new series and folded places are told as ever, and answers are made of that store by the same code.
//!
//! Its steps are a minute at least: a Prometheus scrapes once in a minute unless it is told otherwise, and a step
//! without a scrape would be a step without traffic.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use heddle_model::discovery::ClientTls;
use heddle_runtime::{
    clock, local_http, net,
    tls::{Asks, Origin},
};
use http_body_util::{BodyExt, Limited};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpStream, UnixStream},
    sync::Mutex,
};

use crate::{
    config::PrometheusSource, limits, measure::Owner, source_url::SourceUrl, store::Store,
};

mod replay;
mod wanted;
mod words;

use wanted::Wanted;
use words::{encode, said};

#[cfg(test)]
mod tests;

/// A Prometheus.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    url: SourceUrl,
    token: Option<PathBuf>,
    through: Option<PathBuf>,
    tls: Origin,
    /// One question at a time: each may take much memory.
    asking: Mutex<()>,
    /// The newest last.
    kept: RefCell<VecDeque<(Wanted, Rc<RefCell<Store>>)>>,
}

/// A period that is there, to be answered from.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) store: Rc<RefCell<Store>>,
    pub(crate) step: u64,
    /// The question's own period, within what is there.
    pub(crate) window: u64,
    pub(crate) end: Option<u64>,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
#[error("--prometheus {url}: {reason}")]
pub(crate) struct ElsewhereError {
    url: String,
    reason: String,
}

impl Elsewhere {
    /// The one that is told of.
    pub(crate) fn new(told: PrometheusSource) -> Self {
        let PrometheusSource { url, token, through } = told;
        let tls = ClientTls { server_name: url.host.clone(), ..ClientTls::default() };
        let (asking, kept) = (Mutex::default(), RefCell::default());
        Self { url, token, through, tls: Origin::new(tls), asking, kept }
    }

    /// The figures for the `window` seconds before `end` (default: now). `owner` knows whose sidecar is at an address.
    ///
    /// # Errors
    /// Nobody answers there, or something else than Prometheus, or it refuses, or it is too much.
    pub(crate) async fn figures(
        &self,
        window: u64,
        end: Option<u64>,
        owner: impl Fn(&str) -> Option<Owner>,
    ) -> Result<Figures, ElsewhereError> {
        let now = clock::unix_now().as_secs();
        let wanted = Wanted::new(window, end.unwrap_or(now), now);
        // Seconds that are still to come are taken off, as the store does.
        let ahead = end.unwrap_or(now).saturating_sub(now);
        let ends = end.filter(|end| *end < now).map(|end| end.min(wanted.end.saturating_sub(1)));
        let window = window.saturating_sub(ahead).max(u64::from(ahead == 0));
        let told = |store| Figures { store, step: wanted.step, window, end: ends };
        let _turn = self.asking.lock().await;
        let known = |(kept, _): &&(Wanted, _)| *kept == wanted;
        if let Some((_, store)) = self.kept.borrow().iter().find(known) {
            return Ok(told(Rc::clone(store)));
        }
        let fetched = clock::within(limits::ELSEWHERE_TIMEOUT, self.fetch(wanted)).await;
        let late = || format!("no whole answer within {} s", limits::ELSEWHERE_TIMEOUT.as_secs());
        let body = fetched.unwrap_or_else(|| Err(late()));
        let replayed = match body {
            Ok(body) => replay::replay(&body, wanted, owner).await,
            Err(reason) => Err(reason),
        };
        let store = replayed.map_err(|reason| {
            let url = self.url.as_str().to_owned();
            ElsewhereError { url, reason }
        })?;
        let store = Rc::new(RefCell::new(store));
        let kept = &mut *self.kept.borrow_mut();
        if kept.len() >= limits::ELSEWHERE_KEPT {
            kept.pop_front();
        }
        kept.push_back((wanted, Rc::clone(&store)));
        Ok(told(store))
    }

    /// The answer to one query.
    async fn fetch(&self, wanted: Wanted) -> Result<Vec<u8>, String> {
        let Wanted { back, end, step } = wanted;
        let (query, start) = (encode(&replay::query(step)), end.saturating_sub(back));
        let path = format!(
            "{}/api/v1/query_range?query={query}&start={start}&end={end}&step={step}",
            self.url.prefix
        );
        let token = match &self.token {
            Some(file) => {
                let text = fs::read_to_string(file)
                    .map_err(|error| format!("its token in {}: {error}", file.display()))?;
                Some(format!("Bearer {}", text.trim()))
            }
            None => None,
        };
        let field = match &token {
            Some(token) => ("authorization", token.as_str()),
            None => ("accept", "application/json"),
        };
        let stream = self.connect().await?;
        let opened = local_http::open_on(&self.url.authority(), stream, &path, field).await;
        let (head, body) = opened.map_err(|error| error.to_string())?.into_parts();
        let body = Limited::new(body, limits::ELSEWHERE_BYTES_MAX).collect().await;
        let body = body.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
            true => format!(
                "its answer is more than {} MiB; ask about a shorter time, or about fewer sidecars",
                limits::ELSEWHERE_BYTES_MAX >> 20
            ),
            false => format!("the answer broke off: {error}"),
        })?;
        let body = body.to_bytes().to_vec();
        if head.status.is_success() {
            return Ok(body);
        }
        Err(format!("it answered HTTP {}: {}", head.status, said(&body)))
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let stream: Box<dyn Stream> = match &self.through {
            Some(socket) => Box::new(way(socket).await?),
            None => Box::new(connected(&self.url).await?),
        };
        if !self.url.is_https {
            return Ok(stream);
        }
        let begun = self.tls.over(stream, Asks::Nothing, limits::CONNECT_TIMEOUT).await;
        match begun {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(format!("no TLS came about: {error}")),
        }
    }
}

/// Any connection.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// A connection by a path socket that leads there, or why it does not.
async fn way(socket: &Path) -> Result<UnixStream, String> {
    let broken = |error: std::io::Error| format!("no way by {}: {error}", socket.display());
    let mut stream = UnixStream::connect(socket).await.map_err(broken)?;
    let mut word = Vec::new();
    loop {
        match stream.read_u8().await.map_err(broken)? {
            b'\n' if word.is_empty() => return Ok(stream),
            b'\n' => return Err(String::from_utf8_lossy(&word).into_owned()),
            byte => word.push(byte),
        }
    }
}

async fn connected(url: &SourceUrl) -> Result<TcpStream, String> {
    let (host, port) = url.place();
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|error| format!("the name {host} was not found: {error}"))?;
    let mut last = format!("the name {host} has no address");
    for address in found {
        match clock::within(limits::CONNECT_TIMEOUT, net::connect_tcp(address, None)).await {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => last = format!("cannot connect to {address}: {error}"),
            None => last = format!("no connection to {address} in time"),
        }
    }
    Err(last)
}
