//! The words of the command line before they are read: `--mesh` before the subcommand, the mesh that `HEDDLE_MESH`
//! names, and whether somebody asks for JSON.

use std::ffi::{OsStr, OsString};

use clap::CommandFactory as _;

use crate::cli::{Cli, values};

/// Names the mesh of commands that name none.
pub(crate) const MESH_VARIABLE: &str = "HEDDLE_MESH";
/// Flags that say which mesh is meant, without their values.
const CHOOSE: [&str; 5] = ["--mesh", "--kubernetes", "--context", "--kubeconfig", "--revision"];

/// The words with `--mesh` where the subcommand takes it; `variable` is what [`MESH_VARIABLE`] holds.
///
/// # Errors
/// What is wrong with the variable, where it counts.
pub(crate) fn settled(
    words: Vec<OsString>,
    variable: Option<OsString>,
) -> Result<Vec<OsString>, String> {
    let (before, at) = leading_mesh(&words);
    let Some(command) = words.get(at).and_then(|word| word.to_str()) else { return Ok(words) };
    let cli = Cli::command();
    let Some(command) = cli.find_subcommand(command) else { return Ok(words) };
    let mut flags = before;
    let takes_mesh = command.get_arguments().any(|argument| argument.get_id() == "mesh");
    if flags.is_empty() && takes_mesh && !command.is_hide_set() && !chooses(&words[at + 1..]) {
        flags.extend(of_variable(variable)?);
    }
    let program = words.iter().take(1);
    Ok(program.chain(&words[at..=at]).chain(&flags).chain(&words[at + 1..]).cloned().collect())
}

/// `--mesh NAME` or `--mesh=NAME` before the subcommand, and where that is.
fn leading_mesh(words: &[OsString]) -> (Vec<OsString>, usize) {
    let mut flags = Vec::new();
    let mut at = 1;
    while let Some(word) = words.get(at) {
        let length = match word.to_str() {
            Some("--mesh") => 2,
            Some(word) if word.starts_with("--mesh=") => 1,
            _ => break,
        };
        flags.extend(words.iter().skip(at).take(length).cloned());
        at += length;
    }
    (flags, at)
}

/// Do flags of the subcommand say which mesh is meant?
fn chooses(words: &[OsString]) -> bool {
    let ours = words.iter().take_while(|word| *word != "--");
    let flag = |word: &OsString| {
        let word = word.to_string_lossy();
        let name = word.split_once('=').map_or(&*word, |(name, _)| name);
        CHOOSE.contains(&name)
    };
    ours.into_iter().any(flag)
}

fn of_variable(variable: Option<OsString>) -> Result<Option<OsString>, String> {
    let Some(name) = variable.filter(|name| !name.is_empty()) else { return Ok(None) };
    let name = name.to_string_lossy().into_owned();
    let name = values::label(&name).map_err(|error| format!("{MESH_VARIABLE}: {error}"))?;
    Ok(Some(format!("--mesh={name}").into()))
}

/// Is JSON asked for, as far as words tell that may not even be a command?
pub(crate) fn ask_for_json(words: &[OsString]) -> bool {
    let ours: Vec<&OsStr> =
        words.iter().map(OsString::as_os_str).take_while(|word| *word != "--").collect();
    let joined =
        |word: &OsStr| ["--output=json", "-ojson", "-o=json"].iter().any(|one| word == *one);
    let apart = |pair: &[&OsStr]| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json";
    ours.iter().any(|word| joined(word)) || ours.windows(2).any(apart)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn settles(line: &str, variable: Option<&str>) -> String {
        let settled = settled(words(line), variable.map(OsString::from)).unwrap();
        settled.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_mesh_may_be_named_before_the_subcommand() {
        for (typed, read) in [
            ("heddle --mesh shop status -o json", "heddle status --mesh shop -o json"),
            ("heddle --mesh=shop run --service a -- x", "heddle run --mesh=shop --service a -- x"),
            ("heddle --mesh shop", "heddle --mesh shop"),
            ("heddle --mesh shop nonsense", "heddle --mesh shop nonsense"),
            ("heddle --mesh", "heddle --mesh"),
            ("heddle status --mesh shop", "heddle status --mesh shop"),
        ] {
            assert_eq!(settles(typed, None), read);
        }
    }

    #[test]
    fn a_variable_names_the_mesh_where_no_flag_does() {
        let of = |typed: &str| settles(typed, Some("shop"));
        assert_eq!(of("heddle status"), "heddle status --mesh=shop");
        assert_eq!(
            of("heddle run --service a -- x --mesh b"),
            "heddle run --mesh=shop --service a -- x --mesh b"
        );
        for as_typed in [
            "heddle status --mesh other",
            "heddle status --context=far",
            "heddle status --kubernetes",
            "heddle version",
            "heddle holder --state-dir x",
            "heddle",
        ] {
            assert_eq!(of(as_typed), as_typed);
        }
        assert_eq!(of("heddle --mesh a status"), "heddle status --mesh a");
        assert_eq!(settles("heddle status", Some("")), "heddle status");
        let wrong = settled(words("heddle status"), Some("My Mesh".into())).unwrap_err();
        assert!(wrong.starts_with("HEDDLE_MESH: ") && wrong.contains("a-z, 0-9"), "{wrong}");
    }

    #[test]
    fn a_program_that_is_run_asks_for_nothing_of_ours() {
        for json in ["get -o json", "get -ojson", "get --output json", "get --output=json"] {
            assert!(ask_for_json(&words(json)), "{json}");
        }
        for text in ["get", "get -o yaml", "run --service a -- x -o json"] {
            assert!(!ask_for_json(&words(text)), "{text}");
        }
    }
}
