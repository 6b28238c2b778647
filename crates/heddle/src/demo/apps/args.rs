//! What an application is started with.

use std::path::PathBuf;

/// Arguments of one application.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AppArgs {
    /// What to be.
    #[arg(value_parser = ["frontend", "restaurants", "reviews", "photos", "ratings", "specials", "store", "tables", "loadgen"])]
    pub(crate) role: String,
    /// Version shown in answers; `reviews` calls `ratings` from v2 on, and v2 of `specials` is broken.
    #[arg(long, default_value = "v1")]
    pub(crate) version: String,
    /// Port to listen on.
    #[arg(long, default_value_t = 80)]
    pub(crate) port: u16,
    /// Path socket that tells what was sent and received: outside any network.
    #[arg(long)]
    pub(crate) counts: PathBuf,
    /// Calls per second of the load generator.
    #[arg(long, default_value_t = 20.0)]
    pub(crate) rate: f64,
    /// Seconds after which the load generator stops by itself.
    #[arg(long, default_value_t = 86_400)]
    pub(crate) seconds: u64,
}
