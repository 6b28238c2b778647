//! What a hand at the keyboard may type to disturb or divide calls: `heddle fault` and `heddle split`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{
    common::{Output, TargetFlags},
    values::{self, AbortFlag, HeaderFlag, Share, TcpFlag},
};

/// Whose sidecar injects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum SideFlag {
    /// The caller's
    #[default]
    Client,
    /// The called one's
    Server,
}

/// `heddle fault`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  heddle fault ratings --delay 5s --percent 80        four of five calls take 5 s longer
  heddle fault ratings --abort 503 --for 10m          all calls fail, for ten minutes
  heddle fault ratings --abort UNAVAILABLE            the same in gRPC's words
  heddle fault reviews --delay 2s --from frontend --path /slow
  heddle fault store --tcp resetAfterBytes=1000       connections are reset
  heddle fault ratings --delay 1s --side server       the called one's sidecar waits
  heddle fault                                        what is in force
  heddle fault --clear ratings                        take away what was made so")]
pub(crate) struct FaultArgs {
    /// Whose calls; without it, the faults that are in force are listed
    #[arg(value_parser = values::label)]
    pub service: Option<String>,
    /// Calls take so much longer
    #[arg(long, value_name = "DURATION", value_parser = values::duration, group = "does")]
    pub delay: Option<Duration>,
    /// Calls are answered with this: an HTTP status, or a name such as UNAVAILABLE for gRPC
    #[arg(long, value_name = "STATUS", value_parser = values::abort, group = "does")]
    pub abort: Option<AbortFlag>,
    /// Connections: refuse, blackhole, resetAfterBytes=N or bytesPerSecond=N
    #[arg(long, value_name = "FAULT", value_parser = values::tcp_fault, group = "does")]
    pub tcp: Option<TcpFlag>,
    /// Share of the calls, 0.0001 to 100
    #[arg(long, value_name = "N", default_value = "100", value_parser = values::share, requires = "does")]
    pub percent: Share,
    /// End by itself after this time [default: not before `--clear`]
    #[arg(long = "for", value_name = "DURATION", value_parser = values::duration, requires = "does")]
    pub lasts: Option<Duration>,
    /// Only calls of this service or workload
    #[arg(long, value_name = "WORKLOAD", requires = "does")]
    pub from: Option<String>,
    /// Only requests whose path begins so
    #[arg(long, value_name = "PREFIX", requires = "does")]
    pub path: Option<String>,
    /// Only requests of this method
    #[arg(long, value_name = "METHOD", requires = "does")]
    pub method: Option<String>,
    /// Only requests with this header; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::header, requires = "does")]
    pub header: Vec<HeaderFlag>,
    /// Whose sidecar injects it
    #[arg(long, value_enum, default_value_t, requires = "does")]
    pub side: SideFlag,
    /// Take away the faults that were made with this command, of SERVICE or all
    #[arg(long, conflicts_with = "does")]
    pub clear: bool,
    /// How it is put in force.
    #[command(flatten)]
    pub put: PutArgs,
}

/// `heddle split`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  heddle split reviews v2=99 v3=1      one call of a hundred goes to v3
  heddle split reviews v3=100          all of them do
  heddle split reviews --clear         as before: all versions alike")]
pub(crate) struct SplitArgs {
    /// Whose calls
    #[arg(value_parser = values::label)]
    pub service: String,
    /// Versions with their shares, which are 100 together
    #[arg(value_name = "VERSION=PERCENT", value_parser = values::version_share, required_unless_present = "clear", conflicts_with = "clear")]
    pub shares: Vec<(String, u32)>,
    /// Take away what this command has made
    #[arg(long)]
    pub clear: bool,
    /// How it is put in force.
    #[command(flatten)]
    pub put: PutArgs,
}

/// How what a command has made is put in force.
#[derive(Debug, Clone, Args)]
pub(crate) struct PutArgs {
    /// Namespace of the service [default: `default`; in a cluster that of the context]
    #[arg(long, short, value_name = "NS", value_parser = values::label)]
    pub namespace: Option<String>,
    /// Print what would be applied, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait for the proxies; 0 returns at once
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    pub timeout: Duration,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: TargetFlags,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}
