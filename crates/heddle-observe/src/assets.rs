//! The dashboard's files, built by `build.rs` and embedded.

use include_dir::{Dir, include_dir};

static UI: Dir<'_> = include_dir!("$OUT_DIR/ui");

/// A file of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asset {
    pub(crate) content_type: &'static str,
    pub(crate) body: &'static [u8],
    /// Its name changes with its content, so it may be kept for ever.
    pub(crate) immutable: bool,
}

/// The file at a URL path; the page itself at the root.
pub(crate) fn find(path: &str) -> Option<Asset> {
    let path = match path.trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    let file = UI.get_file(path)?;
    Some(Asset {
        content_type: content_type(path),
        body: file.contents(),
        immutable: path.starts_with("assets/"),
    })
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_at_the_root_and_nowhere_else() {
        let page = find("/").unwrap();
        assert_eq!(page.content_type, "text/html; charset=utf-8");
        assert_eq!(find("/index.html"), Some(page));
        assert_eq!(find("/service/default/reviews"), None);
        assert_eq!(find("/nothing.js"), None);
        assert_eq!(find("/../Cargo.toml"), None);
    }
}
