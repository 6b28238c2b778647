//! What `get` and `delete` are asked for: `vs reviews`, `vs,dr`, `vs/reviews dr/ratings`, and nothing half-meant.

use super::kinds::{self, Kind};
use crate::{cli::DeleteArgs, failure::Failure, habits};

/// Longest name of an object.
const NAME_MAX: usize = 253;

/// A kind, and which of it; without names all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) kind: Kind,
    pub(super) names: Vec<String>,
}

/// What is to be deleted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ToDelete {
    /// What files define.
    InFiles,
    /// Kinds with names.
    Named(Vec<(&'static str, String)>),
    /// All of these kinds that labels and namespace leave.
    AllOf(Vec<&'static str>),
}

/// Reads the words behind `get`.
///
/// # Errors
/// A usage failure that says what would be right.
pub(super) fn wanted(words: &[String]) -> Result<Vec<Wanted>, Failure> {
    let Some((first, names)) = words.split_first() else {
        return Ok(vec![Wanted { kind: Kind::All, names: Vec::new() }]);
    };
    if words.iter().any(|word| word.contains('/')) {
        return slashed(words);
    }
    let mut all: Vec<Wanted> = Vec::new();
    for word in first.split(',') {
        let kind = kinds::kind(word)?;
        if kind == Kind::All && !names.is_empty() {
            return Err(Failure::usage("a name needs its kind: heddle get KIND NAME"));
        }
        for name in names {
            check_name(name)?;
        }
        if !all.iter().any(|known| known.kind == kind) {
            all.push(Wanted { kind, names: names.to_vec() });
        }
    }
    Ok(all)
}

/// `vs/reviews dr/ratings`: each word with its kind.
fn slashed(words: &[String]) -> Result<Vec<Wanted>, Failure> {
    let mut all: Vec<Wanted> = Vec::new();
    for word in words {
        let Some((kind, name)) = word.split_once('/') else {
            return Err(Failure::usage(format!(
                "`{word}` has no kind beside words that have one: use KIND/NAME for each, or KIND NAME NAME…"
            )));
        };
        let kind = kinds::kind(kind)?;
        if kind == Kind::All {
            return Err(Failure::usage("a name needs its kind: heddle get KIND/NAME"));
        }
        check_name(name)?;
        match all.iter_mut().find(|known| known.kind == kind) {
            Some(known) => known.names.push(name.to_owned()),
            None => all.push(Wanted { kind, names: vec![name.to_owned()] }),
        }
    }
    Ok(all)
}

fn check_name(name: &str) -> Result<(), Failure> {
    let part_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    if !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(part_of_name) {
        return Ok(());
    }
    let shown: String = name.chars().take(60).collect();
    Err(Failure::usage(format!("`{shown}` is no name of an object")))
}

/// What `delete` is asked for.
///
/// # Errors
/// A usage failure that says what would be right.
pub(super) fn to_delete(args: &DeleteArgs) -> Result<ToDelete, Failure> {
    if args.what.is_empty() {
        if args.filename.is_empty() {
            return Err(Failure::usage(
                "say what to delete: `heddle delete KIND NAME`, `heddle delete KIND --all`, or `heddle delete -f FILE`",
            ));
        }
        return Ok(ToDelete::InFiles);
    }
    if let Some(file) = args.what.first().filter(|word| habits::is_name_of_rules(word)) {
        return Err(Failure::usage(format!("files are named with -f: heddle delete -f {file}")));
    }
    let wanted = wanted_rules(&args.what)?;
    let named = wanted.iter().any(|(_, names)| !names.is_empty());
    if !args.all && args.selector.is_none() {
        if !named {
            return Err(Failure::usage(format!(
                "say which: `heddle delete {0} <NAME>`, `heddle delete {0} --all` or `heddle delete {0} -l KEY=VALUE`",
                args.what[0]
            )));
        }
        if args.all_namespaces {
            return Err(Failure::usage(
                "-A goes with --all or --selector: one rule has one namespace, -n NS",
            ));
        }
        let each = |(kind, names): (&'static str, Vec<String>)| {
            names.into_iter().map(move |name| (kind, name))
        };
        return Ok(ToDelete::Named(wanted.into_iter().flat_map(each).collect()));
    }
    if named {
        return Err(Failure::usage("either names, or --all and --selector"));
    }
    Ok(ToDelete::AllOf(wanted.into_iter().map(|(kind, _)| kind).collect()))
}

/// As [`wanted`], for rules only; `all` is every kind of rule that can be deleted.
fn wanted_rules(words: &[String]) -> Result<Vec<(&'static str, Vec<String>)>, Failure> {
    let mut rules = Vec::new();
    for Wanted { kind, names } in wanted(words)? {
        match kind {
            Kind::Rule(kind) => rules.push((kind, names)),
            // What is deleted is the object that declares it.
            Kind::Services => rules.push(("Service", names)),
            Kind::All => rules.extend(heddle_model::yaml::kinds().map(|kind| (kind, Vec::new()))),
            Kind::Workloads => {
                return Err(Failure::usage(
                    "a workload is no kind of rule: it ends with its program, or in a cluster with its pod",
                ));
            }
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Vec<(Kind, String)>, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let all = wanted(&words).map_err(|failure| failure.message)?;
        Ok(all.into_iter().map(|one| (one.kind, one.names.join(" "))).collect())
    }

    #[test]
    fn kinds_and_names_are_written_as_with_kubectl() {
        let vs = |names: &str| (Kind::Rule("VirtualService"), names.to_owned());
        let dr = |names: &str| (Kind::Rule("DestinationRule"), names.to_owned());
        assert_eq!(read(""), Ok(vec![(Kind::All, String::new())]));
        assert_eq!(read("vs"), Ok(vec![vs("")]));
        assert_eq!(read("vs a b"), Ok(vec![vs("a b")]));
        assert_eq!(read("vs,dr"), Ok(vec![vs(""), dr("")]));
        assert_eq!(read("vs,virtualservices,dr a"), Ok(vec![vs("a"), dr("a")]));
        assert_eq!(read("vs/a dr/b vs/c"), Ok(vec![vs("a c"), dr("b")]));
        assert_eq!(read("services/web"), Ok(vec![(Kind::Services, "web".to_owned())]));
    }

    #[test]
    fn what_is_half_meant_is_refused() {
        for (line, says) in [
            ("all x", "get KIND NAME"),
            ("all/x", "KIND/NAME"),
            ("vs/a b", "`b` has no kind"),
            ("vs a_b", "`a_b` is no name"),
            ("vs a?x=1", "no name of an object"),
            ("vs/", "no name of an object"),
            ("vs,", "`` is no kind"),
            ("elephants", "no kind"),
        ] {
            let said = read(line).unwrap_err();
            assert!(said.contains(says), "{line}: {said}");
        }
    }
}
