//! What the dependencies may be: under which licences, from where, and how many. Advisories are not
//! looked up here: their list is no package of a registry.

use serde_json::Value;

use crate::command::{output, program};

/// Licences that suit a program under Apache-2.0 (SPDX names).
const LICENCES: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    // Permissive: MIT's terms in plain words, with a grant of patents.
    "BlueOak-1.0.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
/// Most packages of all targets, our own included: each one is code somebody has to trust.
const PACKAGES_MAX: usize = 350;

/// Checks every package of `Cargo.lock` that a build for Linux uses.
///
/// # Errors
/// All findings, each with its package.
pub(crate) fn run() -> Result<(), String> {
    let target = ["--filter-platform", "x86_64-unknown-linux-gnu"];
    let arguments = [&["metadata", "--format-version", "1", "--locked"][..], &target].concat();
    let text = output(&mut program("cargo", &arguments))?;
    let metadata: Value =
        serde_json::from_str(&text).map_err(|e| format!("cargo metadata: {e}"))?;
    let used = metadata["resolve"]["nodes"].as_array().map_or(0, Vec::len);
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let mut findings: Vec<String> = packages.iter().filter_map(check).collect();
    if used > PACKAGES_MAX {
        findings.push(format!("{used} packages, at most {PACKAGES_MAX}"));
    }
    if findings.is_empty() {
        println!("deny: no finding in {used} packages");
        return Ok(());
    }
    Err(format!("{} finding(s):\n  {}", findings.len(), findings.join("\n  ")))
}

fn check(package: &Value) -> Option<String> {
    let name = format!("{} {}", shown(&package["name"]), shown(&package["version"]));
    let ours = package["source"].is_null();
    if !ours && !shown(&package["source"]).starts_with("registry+") {
        return Some(format!("{name}: not from a registry"));
    }
    let licence = shown(&package["license"]);
    (!is_allowed(licence)).then(|| format!("{name}: licence `{licence}` is not in the list"))
}

fn shown(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// Does an SPDX expression leave a choice of allowed licences? `/` is an old way to write `OR`.
fn is_allowed(expression: &str) -> bool {
    let bare = expression.replace(['(', ')'], " ").replace('/', " OR ");
    // In practice parentheses only group alternatives, so `AND` binds weaker here.
    bare.split(" AND ").all(|part| part.split(" OR ").any(|one| LICENCES.contains(&one.trim())))
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn one_allowed_alternative_is_enough_and_every_part_is_needed() {
        assert!(is_allowed("MIT OR GPL-3.0"));
        assert!(is_allowed("Unlicense/MIT"));
        assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!is_allowed("MIT AND GPL-3.0"));
        assert!(!is_allowed("GPL-3.0"));
        assert!(!is_allowed(""));
    }
}
