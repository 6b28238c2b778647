//! Log set-up: to standard error, at the level HEDDLE_LOG names.
//!
//! Commands that people type log nothing unless asked; parts of a mesh log what happened, to the
//! files the holder gave them as standard error.

use std::io;

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::cli::Command;

/// Names the log level, or a filter such as `info,heddle_proxy=debug`.
pub(crate) const LOG_VARIABLE: &str = "HEDDLE_LOG";

/// Starts logging for this process.
pub(crate) fn start(command: &Command) {
    let part = matches!(
        command,
        Command::Holder(_) | Command::Control(_) | Command::Observe(_) | Command::Proxy(_)
    );
    let usual = if part { LevelFilter::INFO } else { LevelFilter::OFF };
    // A filter that cannot be read is told on standard error by the builder, and the usual one used.
    let filter = EnvFilter::builder()
        .with_default_directive(usual.into())
        .with_env_var(LOG_VARIABLE)
        .from_env_lossy();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Only a second call could fail.
    drop(logs.with_ansi(false).try_init());
}
