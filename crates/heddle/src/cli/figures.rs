//! Flags of who keeps what was measured.

use std::path::PathBuf;

use clap::Args;
use heddle_observe::{PrometheusSource, SourceUrl};

/// Who is asked for what was measured, instead of the mesh's own store.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FiguresArgs {
    /// Read what the dashboard, `graph`, `top` and `describe` show from this Prometheus, which scrapes the sidecars, instead of from the mesh's own store; `http://` or `https://`, a host, and a path where it has one, as seen from this machine
    #[arg(long, value_name = "URL")]
    pub prometheus: Option<SourceUrl>,
    /// File with the bearer token that this Prometheus wants
    #[arg(long, value_name = "FILE", requires = "prometheus")]
    pub prometheus_token: Option<PathBuf>,
    /// The path socket that leads there
    #[arg(long, value_name = "SOCKET", requires = "prometheus", hide = true)]
    pub prometheus_through: Option<PathBuf>,
}

impl FiguresArgs {
    /// The same as words of a command line.
    pub(crate) fn words(&self) -> Vec<String> {
        let url = self.prometheus.as_ref().map(|url| format!("--prometheus={}", url.as_str()));
        let token = self.prometheus_token.as_ref().map(|file| {
            // Whoever reads it may be in another folder.
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            format!("--prometheus-token={}", file.display())
        });
        url.into_iter().chain(token).collect()
    }

    /// What the observer is told.
    pub(crate) fn source(self) -> Option<PrometheusSource> {
        let (token, through) = (self.prometheus_token, self.prometheus_through);
        self.prometheus.map(|url| PrometheusSource { url, token, through })
    }
}
