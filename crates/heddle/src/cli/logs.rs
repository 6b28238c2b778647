//! `heddle logs`.

use clap::Args;

use super::common::MeshFlag;

/// `heddle logs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  heddle logs                 whose logs there are
  heddle logs web -f          what `web` writes, until Ctrl-C
  heddle logs web api         of both, each line with its name
  heddle logs control --tail 50
  heddle logs web-v1-3fa09c   of a workload that was started with `run`: its sidecar's")]
pub(crate) struct LogsArgs {
    /// Programs of `up -f`, services, workloads, or `control`, `observe`, `holder`; without one they are listed
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Go on with what is written, until Ctrl-C or the end of the mesh
    #[arg(long, short)]
    pub follow: bool,
    /// Only the last lines of each [default: all, or 10 with --follow of several]
    #[arg(long, value_name = "N")]
    pub tail: Option<usize>,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: MeshFlag,
}
