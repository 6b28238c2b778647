//! The path and the authority that go on in place of those that came, and where a redirect points.
//!
//! What is rewritten is the canonical path ([`crate::path`]), the one that the rules saw; the query stays
//! as it came. Whatever a rule makes of a path, it begins with a slash and holds no byte that would end
//! a request's first line.

use heddle_model::{
    discovery::{PathRewrite, Redirect, RedirectPath},
    pattern::{PatternError, Replacement},
};

use crate::{
    path,
    route::{Reach, RequestView, without_fragment},
};

/// How a rule rewrites paths.
#[derive(Debug, Clone)]
pub enum PathRewriter {
    /// This in place of what the rule's condition took.
    Prefix(String),
    /// By pattern.
    Regex(Replacement),
}

impl PathRewriter {
    /// Builds it.
    ///
    /// # Errors
    /// [`PatternError`] of its regular expression.
    pub fn build(rewrite: &PathRewrite) -> Result<Self, PatternError> {
        Ok(match rewrite {
            PathRewrite::Prefix(text) => Self::Prefix(text.clone()),
            PathRewrite::Regex(regex) => {
                Self::Regex(Replacement::new(&regex.pattern, &regex.substitution)?)
            }
        })
    }

    /// The path to send in place of the canonical `path`, of which the rule's condition took `reach`.
    #[must_use]
    pub fn rewrite(&self, path: &str, reach: Reach) -> String {
        match self {
            Self::Prefix(text) => path::sendable(&swap(path, reach, text)),
            Self::Regex(replacement) => path::sendable(&replacement.apply(path)),
        }
    }
}

/// The path with `text` in place of what was taken of it.
fn swap(path: &str, reach: Reach, text: &str) -> String {
    let rest = match reach {
        Reach::Whole => "",
        Reach::Prefix(bytes) => path.get(bytes..).unwrap_or_default(),
    };
    format!("{text}{rest}")
}

/// Where a redirect sends the client that asked for the canonical `path`.
#[must_use]
pub fn location(
    redirect: &Redirect,
    request: &dyn RequestView,
    path: &str,
    reach: Reach,
) -> String {
    let target = without_fragment(request.target());
    let query = target.find('?').map_or("", |at| &target[at..]);
    let path = match &redirect.path {
        // Its own query goes before the request's.
        Some(RedirectPath::Whole(whole)) if whole.contains('?') => whole.clone(),
        Some(RedirectPath::Whole(whole)) => format!("{whole}{query}"),
        Some(RedirectPath::Prefix(text)) => format!("{}{query}", swap(path, reach, text)),
        None => format!("{path}{query}"),
    };
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    let scheme = redirect.scheme.as_deref().unwrap_or_else(|| request.scheme());
    let host = match &redirect.authority {
        Some(host) => host,
        None => host(request, scheme, redirect.drops_port || redirect.port.is_some()),
    };
    match redirect.port {
        // A client that named no host finds the same one again.
        _ if host.is_empty() => path,
        Some(port) => format!("{scheme}://{host}:{port}{path}"),
        None => format!("{scheme}://{host}{path}"),
    }
}

/// The request's host; without its port where another one follows, or where the old scheme implied it and
/// the new one does not.
fn host<'a>(request: &'a dyn RequestView, scheme: &str, ported: bool) -> &'a str {
    let authority = request.authority();
    let Some(at) = authority.rfind(':').filter(|at| !authority[*at..].contains(']')) else {
        return authority;
    };
    let implied = match request.scheme() {
        "https" => ":443",
        _ => ":80",
    };
    let drops = ported || scheme != request.scheme() && &authority[at..] == implied;
    if drops { &authority[..at] } else { authority }
}

#[cfg(test)]
mod tests {
    use heddle_model::discovery::RegexRewrite;

    use super::*;
    use crate::route::testing::Asked;

    fn rewritten(rewrite: &PathRewrite, path: &str, reach: Reach) -> String {
        PathRewriter::build(rewrite).unwrap().rewrite(path, reach)
    }

    #[test]
    fn what_the_condition_took_is_replaced_and_nothing_else() {
        let to = |text: &str| PathRewrite::Prefix(text.to_owned());
        assert_eq!(rewritten(&to("/v2"), "/v1/a", Reach::Prefix(3)), "/v2/a");
        assert_eq!(rewritten(&to("/"), "/v1/a", Reach::Prefix(3)), "//a", "as in Envoy");
        assert_eq!(rewritten(&to("/new"), "/old", Reach::Whole), "/new");
        assert_eq!(rewritten(&to("/x/"), "/a", Reach::Prefix(1)), "/x/a");
        assert_eq!(rewritten(&to("a b#"), "/v1/é", Reach::Prefix(4)), "/a%20b%23%C3%A9");
    }

    #[test]
    fn a_pattern_rewrites_by_its_groups() {
        let regex = PathRewrite::Regex(RegexRewrite {
            pattern: "^/a/([^/]+)(/.*)$".into(),
            substitution: r"\2/of/\1".into(),
        });
        assert_eq!(rewritten(&regex, "/a/b/c", Reach::Whole), "/c/of/b");
        assert_eq!(rewritten(&regex, "/x", Reach::Whole), "/x");
    }

    #[test]
    fn a_redirect_keeps_what_it_does_not_say() {
        let asked = Asked::get("/old/a?x=1").host("r:80");
        let to = |redirect: Redirect| location(&redirect, &asked, "/old/a", Reach::Prefix(4));
        let none = Redirect::default;
        assert_eq!(to(none()), "http://r:80/old/a?x=1");
        assert_eq!(to(Redirect { scheme: Some("https".into()), ..none() }), "https://r/old/a?x=1");
        assert_eq!(to(Redirect { port: Some(8080), ..none() }), "http://r:8080/old/a?x=1");
        let called = Asked::get("/old/a").host("r:8080");
        let dropped = Redirect { drops_port: true, ..none() };
        assert_eq!(location(&dropped, &called, "/old/a", Reach::Whole), "http://r/old/a");
        let authority = Some("new:81".into());
        assert_eq!(to(Redirect { authority, ..none() }), "http://new:81/old/a?x=1");
        let whole =
            |path: &str| Redirect { path: Some(RedirectPath::Whole(path.into())), ..none() };
        assert_eq!(to(whole("/new")), "http://r:80/new?x=1");
        assert_eq!(to(whole("new?y=2")), "http://r:80/new?y=2");
        let prefix = Redirect { path: Some(RedirectPath::Prefix("/new".into())), ..none() };
        assert_eq!(to(prefix), "http://r:80/new/a?x=1");
        let six = Asked::get("/").host("[::1]");
        assert_eq!(location(&none(), &six, "/", Reach::Whole), "http://[::1]/");
        let nameless = Asked::get("/").host("");
        assert_eq!(location(&whole("/new"), &nameless, "/", Reach::Whole), "/new");
    }
}
