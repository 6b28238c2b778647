//! Flags of what the binary has in it or makes from itself: examples, completions, man pages.

use std::path::PathBuf;

use clap::{Args, builder::PossibleValuesParser, builder::TypedValueParser as _};
use clap_complete::Shell;

/// `heddle example`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  heddle example                                                  what there is
  heddle example delay-ratings-80-percent                         the file itself
  heddle example delay-ratings-80-percent | heddle apply -f -     put it in force")]
pub(crate) struct ExampleArgs {
    /// Which one; without it all are listed
    pub name: Option<String>,
}

/// `heddle completion`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  source <(heddle completion bash)                                          for this shell
  heddle completion bash > /etc/bash_completion.d/heddle                    for everybody
  heddle completion zsh > \"${fpath[1]}/_heddle\"
  heddle completion fish > ~/.config/fish/completions/heddle.fish")]
pub(crate) struct CompletionArgs {
    /// Of which shell
    #[arg(value_parser = PossibleValuesParser::new(["bash", "zsh", "fish"]).try_map(|name| name.parse::<Shell>()))]
    pub shell: Shell,
}

/// `heddle man`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  heddle man | man -l -                       read it
  heddle man --to /usr/local/share/man/man1   the pages of all commands")]
pub(crate) struct ManArgs {
    /// Folder into which the pages of all commands are written; without it that of `heddle` is printed
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
}
