//! What people's hands type out of the habit of other tools, and what it is here: added to the error that clap
//! has already. Nothing is accepted that would not be without it.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    path::Path,
};

use clap::{
    CommandFactory as _, Error,
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::cli::Cli;

/// The error with what helps, for whoever typed `words`.
pub(crate) fn explained(mut error: Error, words: &[OsString]) -> Error {
    only_public(&mut error);
    if let Some(tip) = tip(&error, words) {
        let tips = vec![StyledStr::from(tip)];
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// Internal subcommands are nobody's typing error.
fn only_public(error: &mut Error) {
    let hidden: BTreeSet<String> = Cli::command()
        .get_subcommands()
        .filter(|command| command.is_hide_set())
        .map(|command| command.get_name().to_owned())
        .collect();
    let named: Vec<String> = match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::String(one)) => vec![one.clone()],
        Some(ContextValue::Strings(all)) => all.clone(),
        _ => return,
    };
    let public: Vec<String> = named.into_iter().filter(|name| !hidden.contains(name)).collect();
    let left = match <[String; 1]>::try_from(public) {
        Ok([one]) => ContextValue::String(one),
        Err(none) if none.is_empty() => ContextValue::None,
        Err(several) => ContextValue::Strings(several),
    };
    error.insert(ContextKind::SuggestedSubcommand, left);
}

fn tip(error: &Error, words: &[OsString]) -> Option<String> {
    let typed = words.iter().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-"))?;
    let word = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) => word.as_str(),
        _ => "",
    };
    match (typed.to_str()?, error.kind()) {
        ("apply" | "inject" | "up", ErrorKind::UnknownArgument) if is_file(word) => {
            Some(format!("files are named with -f: heddle {} -f {word}", typed.display()))
        }
        ("run", ErrorKind::UnknownArgument) if !word.starts_with('-') => {
            Some(run_with_dashes(words, word))
        }
        (other, ErrorKind::InvalidSubcommand) => elsewhere(other).map(str::to_owned),
        _ => None,
    }
}

fn is_file(word: &str) -> bool {
    is_name_of_rules(word) || Path::new(word).exists()
}

/// Can a word only be the name of a file with rules?
pub(crate) fn is_name_of_rules(word: &str) -> bool {
    word == "-" || [".yaml", ".yml", ".json"].iter().any(|end| word.ends_with(end))
}

/// `run --service a curl x` with the two dashes where they belong.
fn run_with_dashes(words: &[OsString], first: &str) -> String {
    let at = words.iter().position(|word| word == OsStr::new(first)).unwrap_or(words.len());
    let text = |words: &[OsString]| -> Vec<String> {
        words.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    };
    let (ours, program) = (text(&words[1..at]), text(&words[at..]));
    format!("`--` comes before the program: heddle {} -- {}", ours.join(" "), program.join(" "))
}

/// What other tools call it.
fn elsewhere(word: &str) -> Option<&'static str> {
    Some(match word {
        "describe" | "desc" => {
            "`heddle get KIND NAME -o yaml` shows a rule, `heddle status` what is wrong"
        }
        "ps" | "proxy" | "pc" | "proxy-config" => {
            "`heddle proxy-status` shows which proxy runs what"
        }
        "create" | "replace" | "edit" | "patch" => "`heddle apply -f FILE` makes and changes rules",
        "start" => "`heddle up` starts a mesh, `heddle run` a program in it",
        "compose" => "`heddle up -f mesh.yaml` starts several programs from one file",
        "stop" | "kill" => "`heddle down` ends a mesh",
        "rm" | "remove" => {
            "`heddle delete KIND NAME` takes a rule out of force, `heddle down` ends a mesh"
        }
        "list" | "ls" => "`heddle get services`, `heddle get workloads`, `heddle get` for rules",
        "stat" | "stats" | "metrics" => "`heddle top` shows rates, errors and latency",
        "kube-inject" => "`heddle inject -f FILE` adds the sidecar to manifests",
        "manifest" => "`heddle install --print` prints the manifests",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn said(line: &str) -> String {
        let words: Vec<OsString> =
            ["heddle"].into_iter().chain(line.split_whitespace()).map(OsString::from).collect();
        let error = Cli::try_parse_from(&words).unwrap_err();
        explained(error, &words).to_string()
    }

    #[test]
    fn internal_commands_are_never_suggested() {
        assert!(!said("holdr").contains("holder"), "{}", said("holdr"));
        let apply = said("aply");
        assert!(apply.contains("'apply'") && !apply.contains("'app'"), "{apply}");
        assert!(said("staus").contains("'status'"));
    }

    #[test]
    fn what_was_meant_is_said_as_it_is_typed_here() {
        for (line, right) in [
            ("apply rules.yaml", "heddle apply -f rules.yaml"),
            ("inject pods.yaml", "heddle inject -f pods.yaml"),
            ("up mesh.yaml", "heddle up -f mesh.yaml"),
            ("run --service a curl http://b/", "heddle run --service a -- curl http://b/"),
            (
                "run --service a python3 -m http.server",
                "heddle run --service a -- python3 -m http.server",
            ),
            ("ls", "heddle get services"),
            ("stop", "heddle down"),
            ("compose up", "heddle up -f mesh.yaml"),
        ] {
            assert!(said(line).contains(right), "{line}: {}", said(line));
        }
        assert!(!said("apply --fiel x").contains("-f --fiel"));
    }
}
