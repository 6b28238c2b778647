//! What is accepted and what is refused, one small file per question. The first comments of a file in
//! `cases/` say what is right:
//!
//! - `# expect: accepted`: the file is read, with at least one object of the mesh;
//! - `# expect: refused FIELD: WORDS`: the one error is at that field and says these words;
//! - `# expect: skipped N KINDS`: so many objects are none of the mesh's, of these kinds;
//! - `# expect: kept N`: so many objects are of kinds that are not served yet;
//! - `# expect: weights A B`: what the first rule's destinations get;
//! - `# expect: key KEY`: which object the first one is.
//!
//! The truth is Istio's own validation and how Kubernetes reads YAML; where a difference is meant, the
//! file says so, and `docs/differences-from-istio.md` says why.

use std::{fs, path::Path};

use heddle_model::{
    resource::{Resource, Spec},
    yaml::{ParseError, Parsed, parse},
};

/// What a file says about itself.
fn expectations(text: &str) -> Vec<&str> {
    let comments = text.lines().take_while(|line| line.starts_with('#'));
    comments.filter_map(|line| line.strip_prefix("# expect: ")).collect()
}

/// Why the reader does not do what is right; `None` if it does.
fn fault(read: &Result<Parsed, Vec<ParseError>>, expected: &str) -> Option<String> {
    let (what, rest) = expected.split_once(' ').unwrap_or((expected, ""));
    match (what, read) {
        ("refused", Ok(_)) => Some("accepted".to_owned()),
        ("refused", Err(errors)) => refusal_fault(errors, rest),
        (_, Err(errors)) => Some(errors.iter().map(|error| format!("{error}; ")).collect()),
        ("accepted", Ok(parsed)) => {
            parsed.resources.is_empty().then(|| "it holds nothing of the mesh".to_owned())
        }
        ("skipped", Ok(parsed)) => {
            let kinds: Vec<&str> = parsed.skipped.0.keys().map(String::as_str).collect();
            differs(&format!("{} {}", parsed.skipped.count(), kinds.join(", ")), rest)
        }
        ("kept", Ok(parsed)) => {
            let kept = parsed.resources.iter().filter(|resource| resource.is_not_served());
            differs(&kept.count().to_string(), rest)
        }
        ("weights", Ok(parsed)) => differs(&weights(&parsed.resources[0]), rest),
        ("key", Ok(parsed)) => differs(&parsed.resources[0].key.to_string(), rest),
        (other, Ok(_)) => Some(format!("nobody knows what `{other}` means")),
    }
}

fn refusal_fault(errors: &[ParseError], expected: &str) -> Option<String> {
    let (field, words) = expected.rsplit_once(": ").unwrap_or((expected, ""));
    let [error] = errors else {
        return Some(errors.iter().map(|error| format!("{error}; ")).collect());
    };
    let right = error.field == field.trim_end_matches(':') && error.reason.contains(words);
    (!right).then(|| error.to_string())
}

fn differs(found: &str, expected: &str) -> Option<String> {
    (found != expected).then(|| found.to_owned())
}

fn weights(resource: &Resource) -> String {
    let Spec::VirtualService(rule) = &resource.spec else { return String::new() };
    let weights = rule.http[0].route.iter().map(|to| to.weight.to_string());
    weights.collect::<Vec<_>>().join(" ")
}

#[test]
fn each_file_is_read_as_it_says_itself() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 100, "the cases are missing: {}", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap();
        let expected = expectations(&text);
        assert!(!expected.is_empty(), "{name} says nothing about itself");
        let read = parse(&name, &text, "default");
        let faults = expected.iter().filter_map(|expected| {
            fault(&read, expected).map(|found| format!("{name}: {expected}, and found {found}"))
        });
        wrong.extend(faults);
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
