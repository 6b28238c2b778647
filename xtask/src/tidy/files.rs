//! What each source file must keep: a module doc, a bounded length, bounded functions, no loose
//! ends; and the demo's applications know nothing of the mesh.

use std::path::Path;

/// Lines of product code in a file, its inline tests left out.
const FILE_LINES_MAX: usize = 700;
/// Lines of a function, comments included.
const FUNCTION_LINES_MAX: usize = 70;
/// The demo's applications.
const APPS: &str = "crates/heddle/src/demo/apps";

/// Findings of one file.
pub(super) fn check(path: &Path, text: &str) -> Vec<String> {
    let product = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    let lines: Vec<&str> = product.lines().collect();
    let shown = path.display();
    let in_tests = path.components().any(|part| part.as_os_str() == "tests");
    let mut findings = Vec::new();
    if !text.starts_with("//!") && !text.starts_with("#![") {
        findings.push(format!("{shown}: says not in its first line what it is for"));
    }
    if lines.len() > FILE_LINES_MAX && !in_tests {
        findings.push(format!("{shown}: {} lines, at most {FILE_LINES_MAX}", lines.len()));
    }
    if path.ends_with("mod.rs") {
        findings.push(format!("{shown}: use NAME.rs beside NAME/"));
    }
    if path.starts_with(APPS) || path.ends_with("demo/apps.rs") {
        findings.extend(mesh_imports(path, text));
    }
    findings.extend(lines.iter().enumerate().filter_map(|(at, line)| {
        loose_end(line).map(|word| format!("{shown}:{}: `{word}` is left over", at + 1))
    }));
    findings.extend(long_functions(path, &lines));
    findings
}

fn mesh_imports(path: &Path, text: &str) -> Vec<String> {
    let uses = |line: &&str| !line.trim_start().starts_with("//") && line.contains("heddle_");
    text.lines()
        .filter(uses)
        .map(|line| {
            format!("{}: a demo application uses the mesh: `{}`", path.display(), line.trim())
        })
        .collect()
}

fn loose_end(line: &str) -> Option<&'static str> {
    // Split so that this file does not find itself.
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")]
        .into_iter()
        .find(|word| line.contains(word))
}

/// Functions longer than the limit: from the `fn` line to the closing brace at the same indent.
fn long_functions(path: &Path, lines: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let ends =
            is_function(line).then(|| lines[at..].iter().position(|l| *l == closing)).flatten();
        if let Some(length) = ends {
            if length + 1 > FUNCTION_LINES_MAX {
                findings.push(format!(
                    "{}:{}: a function of {} lines, at most {FUNCTION_LINES_MAX}",
                    path.display(),
                    at + 1,
                    length + 1
                ));
            }
            at += length;
        }
        at += 1;
    }
    findings
}

fn is_function(line: &str) -> bool {
    let text = line.trim_start();
    let text = text
        .strip_prefix("pub(crate) ")
        .or_else(|| text.strip_prefix("pub(super) "))
        .unwrap_or(text);
    let text = text.strip_prefix("pub ").unwrap_or(text);
    let text = text.strip_prefix("const ").unwrap_or(text);
    let text = text.strip_prefix("async ").unwrap_or(text);
    let text = text.strip_prefix("unsafe ").unwrap_or(text);
    text.starts_with("fn ") && !line.trim_end().ends_with(';')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_module_doc_is_found() {
        assert_eq!(check(Path::new("crates/a/src/b.rs"), "fn a() {}\n").len(), 1);
        assert_eq!(check(Path::new("crates/a/src/b.rs"), "//! Doc.\nfn a() {}\n").len(), 0);
    }

    #[test]
    fn a_mesh_import_in_a_demo_application_is_found() {
        let text = "//! Doc.\nuse heddle_model::ServiceName;\n";
        assert_eq!(check(Path::new("crates/heddle/src/demo/apps/kv.rs"), text).len(), 1);
        assert_eq!(check(Path::new("crates/heddle/src/run.rs"), text).len(), 0);
    }

    #[test]
    fn a_long_function_is_found_by_its_line() {
        let text = format!("//! Doc.\nfn a() {{\n{}}}\n", "    b();\n".repeat(FUNCTION_LINES_MAX));
        let findings = check(Path::new("crates/a/src/b.rs"), &text);
        assert!(findings[0].starts_with("crates/a/src/b.rs:2:"), "{findings:?}");
    }
}
