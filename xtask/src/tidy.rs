//! Rules of the house that no compiler checks: crate arrows, lengths, module docs, loose ends.

mod arrows;
mod files;
mod floors;
mod imports;
mod page;
mod sources;
mod tokens;

use std::path::{Path, PathBuf};

use crate::command::root;
use sources::rust_files;

/// Checks everything and reports all findings at once.
pub(crate) fn run() -> Result<(), String> {
    let mut findings = arrows::check()?;
    let mut sources = rust_files(&root().join("crates"))?;
    sources.extend(rust_files(&root().join("xtask"))?);
    for file in sources {
        let text =
            std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let shown = file.strip_prefix(root()).unwrap_or(&file).to_owned();
        findings.extend(files::check(&shown, &text));
    }
    findings.extend(floors::check(&root())?);
    findings.extend(page::check(&root())?);
    findings.extend(reasons(&root().join("Cargo.toml"))?);
    findings.extend(unfilled(&root())?);
    if findings.is_empty() {
        println!("tidy: no finding");
        return Ok(());
    }
    Err(format!("{} finding(s):\n  {}", findings.len(), findings.join("\n  ")))
}

/// Every dependency has a comment line above it that says why it is there.
fn reasons(manifest: &Path) -> Result<Vec<String>, String> {
    let text =
        std::fs::read_to_string(manifest).map_err(|e| format!("{}: {e}", manifest.display()))?;
    let section = text.split("[workspace.dependencies]").nth(1).unwrap_or("");
    let section = section.split("\n[").next().unwrap_or("");
    let lines: Vec<&str> = section.lines().collect();
    let unexplained = lines.windows(2).filter(|pair| {
        let named = pair[1].split_once('=').map(|(name, _)| name.trim());
        named.is_some_and(|name| !name.starts_with('#') && !name.starts_with("heddle-"))
            && !pair[0].starts_with('#')
    });
    Ok(unexplained.map(|pair| format!("Cargo.toml: no reason above `{}`", pair[1])).collect())
}

/// Texts for readers hold no placeholder: a word in capitals with an underscore, outside of code.
fn unfilled(root: &Path) -> Result<Vec<String>, String> {
    let docs = std::fs::read_dir(root.join("docs")).map_err(|e| format!("docs: {e}"))?;
    let mut texts: Vec<PathBuf> = docs.flatten().map(|entry| entry.path()).collect();
    texts.extend(["README.md", "ARCHITECTURE.md"].map(|name| root.join(name)));
    texts.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut findings = Vec::new();
    for path in texts {
        let text =
            std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let shown = path.strip_prefix(root).unwrap_or(&path).display();
        // Every other piece between backticks is code.
        let prose = text.split('`').step_by(2).flat_map(str::split_whitespace);
        let is_unfilled = |word: &&str| {
            word.contains('_') && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        };
        findings.extend(
            prose.filter(is_unfilled).map(|word| format!("{shown}: `{word}` is left over")),
        );
    }
    Ok(findings)
}
