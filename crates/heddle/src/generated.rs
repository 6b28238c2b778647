//! `heddle completion`, `heddle man`: what is made from the commands themselves, internal ones left out.

use std::{fs, io, path::Path};

use clap::{Command, CommandFactory as _};
use clap_complete::generate;
use clap_mangen::Man;

use crate::{
    cli::{
        Cli,
        made::{CompletionArgs, ManArgs},
    },
    failure::{Doing as _, Failure},
    output,
};

/// `heddle completion`.
///
/// # Errors
/// Never; a reader that goes away is none.
pub(crate) fn completion(args: &CompletionArgs) -> Result<(), Failure> {
    let mut text = Vec::new();
    generate(args.shell, &mut public(), "heddle", &mut text);
    output::line(String::from_utf8_lossy(&text).trim_end());
    Ok(())
}

/// `heddle man`.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    let Some(folder) = &args.to else {
        let page = page(public()).doing(|| "make the man page".to_owned())?;
        output::line(String::from_utf8_lossy(&page).trim_end());
        return Ok(());
    };
    fs::create_dir_all(folder).doing(|| format!("make the folder {}", folder.display()))?;
    let mut all = public();
    // Pages of subcommands are called by their full names then.
    all.build();
    write(folder, "heddle", all.clone())?;
    for command in all.get_subcommands().filter(|command| command.get_name() != "help") {
        write(folder, &format!("heddle-{}", command.get_name()), command.clone())?;
    }
    output::line(format!("man pages are in {}: man -l {0}/heddle.1", folder.display()));
    Ok(())
}

fn write(folder: &Path, name: &str, command: Command) -> Result<(), Failure> {
    let path = folder.join(format!("{name}.1"));
    page(command)
        .and_then(|page| fs::write(&path, page))
        .doing(|| format!("write {}", path.display()))
}

fn page(command: Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    Man::new(command).render(&mut text)?;
    Ok(text)
}

/// All commands that people may type.
fn public() -> Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let about = all.get_about().cloned().unwrap_or_default();
    Command::new("heddle")
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .args(all.get_arguments().cloned())
        .subcommands(shown)
}
