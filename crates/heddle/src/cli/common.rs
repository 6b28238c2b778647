//! Flags that many subcommands have.

use clap::{Args, ValueEnum};

use super::values;

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Text,
    /// For programs: one JSON document
    Json,
}

/// Which mesh.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct MeshFlag {
    /// Which mesh; may be left out if only one is running
    #[arg(long, value_name = "NAME", value_parser = values::label)]
    pub mesh: Option<String>,
}
