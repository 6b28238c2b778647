//! ARCHITECTURE.md is true: every file, folder and crate it names exists, and in its table of a
//! request's way the functions are in the files beside them.

use std::path::Path;

use super::{
    sources::rust_files,
    tokens::{Token, tokens},
};

/// The page.
const PAGE: &str = "ARCHITECTURE.md";

/// What the page says that is not so.
pub(super) fn check(root: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(root.join(PAGE)).map_err(|e| format!("{PAGE}: {e}"))?;
    let mut files: Vec<String> = Vec::new();
    for folder in ["crates", "xtask"] {
        let found = rust_files(&root.join(folder))?;
        files.extend(
            found.iter().filter_map(|path| {
                Some(path.strip_prefix(root).ok()?.to_string_lossy().into_owned())
            }),
        );
    }
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let exists = |path: &str| root.join(path).exists();
    let paths = untrue_paths(&text, &files, exists);
    Ok(paths.into_iter().chain(untrue_functions(&text, read)).collect())
}

/// Files, folders and modules the page names and that are nowhere.
fn untrue_paths(page: &str, files: &[String], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let is_path = |word: &&str| {
        let named = word.ends_with(".rs") || word.contains('/') || word.starts_with("heddle_");
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/_-.*:".contains(c));
        named && plain && !word.starts_with('/') && !word.contains("://")
    };
    let is_there = |word: &str| {
        if let Some((of, module)) = word.split_once("::") {
            let start =
                format!("crates/{}/src/{}", of.replace('_', "-"), module.replace("::", "/"));
            // `heddle_x::module::item` may name an item of the module.
            let parent = start.rsplit_once('/').map_or("", |(parent, _)| parent);
            let file = |stem: &str| files.contains(&format!("{stem}.rs"));
            return file(&start) || (module.contains("::") && file(parent));
        }
        if let Some((start, _)) = word.split_once('*') {
            let tail = word.rsplit_once('*').map_or("", |(_, tail)| tail);
            let folder = start.trim_end_matches('/');
            return files.iter().any(|file| file.starts_with(start))
                || (!tail.is_empty() && exists(folder));
        }
        let below = format!("/{word}");
        exists(word)
            || exists(&format!("crates/{word}"))
            || files.iter().any(|file| file.ends_with(&below))
    };
    let untrue = |word: &&str| !is_there(word);
    code(page)
        .filter(is_path)
        .filter(untrue)
        .map(|word| format!("{PAGE}: `{word}` is nowhere"))
        .collect()
}

/// Functions and types of the request table that are not in the files beside them.
fn untrue_functions(page: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut findings = Vec::new();
    for row in page.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [_, places, names] = cells.as_slice() else { continue };
        let places: Vec<&str> = code(places).filter(|place| place.ends_with(".rs")).collect();
        if places.is_empty() {
            continue;
        }
        let texts = places.iter().filter_map(|place| read(&format!("crates/{place}")));
        let tokens: Vec<Token> = texts.flat_map(|text| tokens(&text)).collect();
        let absent = code(names).filter(|name| !defines(&tokens, name));
        findings.extend(
            absent.map(|name| format!("{PAGE}: `{name}` is not in {}", places.join(" or "))),
        );
    }
    findings
}

/// What stands between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn defines(tokens: &[Token], name: &str) -> bool {
    let keywords = ["fn", "struct", "enum", "trait", "type"];
    // `Type::function` is looked for by its last part.
    let name = name.rsplit("::").next().unwrap_or(name);
    tokens.windows(2).any(|pair| {
        pair[1].is_word(name) && keywords.iter().any(|keyword| pair[0].is_word(keyword))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_is_elsewhere_is_found() {
        let page = "| step | file | function |\n|---|---|---|\n\
                    | a | `p/src/a.rs`, `p/src/b.rs` | `serve`, `Thing`, `gone` |\n\
                    | crate | sentence with `word` | – |\n";
        let read = |path: &str| match path {
            "crates/p/src/a.rs" => Some("pub async fn serve() { gone(); } // fn gone".to_owned()),
            "crates/p/src/b.rs" => Some("pub struct Thing;".to_owned()),
            _ => None,
        };
        let wanted = "ARCHITECTURE.md: `gone` is not in p/src/a.rs or p/src/b.rs";
        assert_eq!(untrue_functions(page, read), [wanted]);
    }

    #[test]
    fn a_path_that_is_nowhere_is_found() {
        let files = ["crates/heddle-x/src/a/b.rs", "crates/heddle-x/src/c.rs"].map(str::to_owned);
        let page = "`b.rs` `heddle-x/src/c.rs` `heddle_x::c` `heddle_x::a::b` `crates/heddle-x/src/a*` \
                    `gone.rs` `heddle_x::gone` `crates/heddle-y/src/*` `docs/` `no/folder` `/x/../y`";
        let found = untrue_paths(page, &files, |path| path == "docs/");
        let gone: Vec<&str> = found.iter().filter_map(|f| f.split('`').nth(1)).collect();
        assert_eq!(gone, ["gone.rs", "heddle_x::gone", "crates/heddle-y/src/*", "no/folder"]);
    }
}
