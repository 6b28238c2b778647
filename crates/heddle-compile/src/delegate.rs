//! VirtualServices without hosts, whose rules hold within another's: found, and merged with the rule
//! that names them as Istio merges them. A request must meet both rules' conditions; what only one of
//! them says holds, and what both say is the delegate's.

use std::{borrow::Cow, collections::BTreeMap};

use heddle_model::{
    discovery::{HeaderMatch, HttpMatch, StringMatch},
    resource::{Delegate, HttpRoute, Resource, RouteMatch, Spec, VirtualService},
};

use crate::{
    client::Client,
    rules::{Routing, RuleIndex},
};

/// One HTTP rule that holds for a VirtualService's hosts.
pub(crate) struct InForce<'a> {
    /// What it says.
    pub(crate) route: Cow<'a, HttpRoute>,
    /// Whose it is: the VirtualService's own, or its delegate's.
    pub(crate) resource: &'a Resource,
    /// Its position in that one's list.
    pub(crate) position: usize,
    /// Why there is nothing to delegate to.
    pub(crate) dangling: Option<String>,
}

impl RuleIndex {
    /// All HTTP rules that hold for a VirtualService's hosts, in order: those of delegates in the place
    /// of the rules that name them.
    pub(crate) fn in_force<'a>(&'a self, routing: Routing<'a>) -> Vec<InForce<'a>> {
        let mut all = Vec::with_capacity(routing.rule.http.len());
        for (position, route) in routing.rule.http.iter().enumerate() {
            let (resource, own) = (routing.resource, Cow::Borrowed(route));
            let Some(delegate) = &route.delegate else {
                all.push(InForce { route: own, resource, position, dangling: None });
                continue;
            };
            match self.delegate(resource, delegate) {
                Err(reason) => {
                    all.push(InForce { route: own, resource, position, dangling: Some(reason) });
                }
                Ok((resource, rule)) => {
                    let parts = rule.http.iter().enumerate();
                    all.extend(parts.filter_map(|(position, part)| {
                        let route = Cow::Owned(merged(route, part)?);
                        Some(InForce { route, resource, position, dangling: None })
                    }));
                }
            }
        }
        all
    }

    /// The VirtualService that a rule of `root` delegates to.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(crate) fn delegate(
        &self,
        root: &Resource,
        delegate: &Delegate,
    ) -> Result<(&Resource, &VirtualService), String> {
        let home = &root.key.namespace;
        let namespace = delegate.namespace.as_ref().unwrap_or(home);
        let name = format!("VirtualService/{namespace}/{}", delegate.name);
        let Some(found) = self.resource_of("VirtualService", namespace, &delegate.name) else {
            return Err(format!("there is no delegate `{name}`"));
        };
        match &found.spec {
            Spec::VirtualService(rule) if !rule.hosts.is_empty() => {
                Err(format!("`{name}` has hosts of its own, so that it is no delegate"))
            }
            Spec::VirtualService(rule) if Client::any_of(home).sees(namespace, &rule.export_to) => {
                Ok((found, rule))
            }
            _ => Err(format!("the delegate `{name}` is not exported to `{home}`")),
        }
    }

    /// Does a rule that reaches into the mesh delegate to this resource?
    pub(crate) fn is_delegated_to(&self, resource: &Resource) -> bool {
        self.routings().any(|root| {
            let mut named = root.rule.http.iter().filter_map(|route| route.delegate.as_ref());
            named.any(|one| {
                self.delegate(root.resource, one).is_ok_and(|(found, _)| found.key == resource.key)
            })
        })
    }
}

/// A delegate's rule within the rule that delegates; `None` if no request can meet both, as far as
/// Istio's rules about prefixes tell.
pub(crate) fn merged(root: &HttpRoute, part: &HttpRoute) -> Option<HttpRoute> {
    let mut route = part.clone();
    route.matches = matches(&root.matches, &part.matches)?;
    route.name = match (&*root.name, &*part.name) {
        (name, "") | ("", name) => name.to_owned(),
        (root, part) => format!("{root}-{part}"),
    };
    route.fault = route.fault.or_else(|| root.fault.clone());
    if route.mirrors.is_empty() {
        route.mirrors.clone_from(&root.mirrors);
    }
    let (traffic, roots) = (&mut route.traffic, &root.traffic);
    traffic.rewrite = traffic.rewrite.take().or_else(|| roots.rewrite.clone());
    traffic.headers = traffic.headers.take().or_else(|| roots.headers.clone());
    traffic.timeout = traffic.timeout.or(roots.timeout);
    traffic.retries = traffic.retries.take().or_else(|| roots.retries.clone());
    traffic.cors = traffic.cors.take().or_else(|| roots.cors.clone());
    Some(route)
}

/// Alternatives that meet one of each. Each of the delegate's must lie within one of the root's.
fn matches(roots: &[RouteMatch], parts: &[RouteMatch]) -> Option<Vec<RouteMatch>> {
    if roots.is_empty() || parts.is_empty() {
        return Some([roots, parts].concat());
    }
    let mut all = Vec::new();
    for part in parts {
        let before = all.len();
        all.extend(roots.iter().filter_map(|root| both(root, part)));
        if all.len() == before {
            return None;
        }
    }
    Some(all)
}

/// One alternative that meets both; `None` where the delegate's does not lie within the root's.
fn both(root: &RouteMatch, part: &RouteMatch) -> Option<RouteMatch> {
    if root.http.ignore_uri_case != part.http.ignore_uri_case {
        return None;
    }
    let (http, own) = (&root.http, &part.http);
    let within = |root: &Option<StringMatch>, part: &Option<StringMatch>| match (root, part) {
        (Some(root), Some(part)) => lies_within(root, part).then(|| Some(part.clone())),
        (root, part) => Some(part.clone().or_else(|| root.clone())),
    };
    let http = HttpMatch {
        uri: within(&http.uri, &own.uri)?,
        ignore_uri_case: own.ignore_uri_case,
        method: within(&http.method, &own.method)?,
        authority: within(&http.authority, &own.authority)?,
        scheme: within(&http.scheme, &own.scheme)?,
        headers: joined(&http.headers, &own.headers, header_lies_within)?,
        // Of two restrictions on one field neither may be lost, and one place holds one of them.
        without_headers: joined(&http.without_headers, &own.without_headers, |a, b| a == b)?,
        query_params: joined(&http.query_params, &own.query_params, lies_within)?,
    };
    Some(RouteMatch {
        http,
        port: agreed(root.port, part.port)?,
        source_labels: joined(&root.source_labels, &part.source_labels, |a, b| a == b)?,
        source_namespace: agreed(root.source_namespace.clone(), part.source_namespace.clone())?,
        gateways_only: root.gateways_only || part.gateways_only,
    })
}

/// What either says; `None` if they differ.
fn agreed<T: PartialEq>(root: Option<T>, part: Option<T>) -> Option<Option<T>> {
    match (root, part) {
        (Some(root), Some(part)) => (root == part).then_some(Some(part)),
        (root, part) => Some(part.or(root)),
    }
}

fn joined<T: Clone>(
    root: &BTreeMap<String, T>,
    part: &BTreeMap<String, T>,
    lies_within: impl Fn(&T, &T) -> bool,
) -> Option<BTreeMap<String, T>> {
    let mut all = root.clone();
    for (name, own) in part {
        if root.get(name).is_some_and(|root| !lies_within(root, own)) {
            return None;
        }
        all.insert(name.clone(), own.clone());
    }
    Some(all)
}

fn header_lies_within(root: &HeaderMatch, part: &HeaderMatch) -> bool {
    match (root, part) {
        (HeaderMatch::Present, _) => true,
        (HeaderMatch::Value(_), HeaderMatch::Present) => false,
        (HeaderMatch::Value(root), HeaderMatch::Value(part)) => lies_within(root, part),
    }
}

/// Does all that `part` means lie within what `root` means? Of a regular expression nobody knows.
fn lies_within(root: &StringMatch, part: &StringMatch) -> bool {
    match (root, part) {
        (StringMatch::Exact(root), StringMatch::Exact(part)) => root == part,
        (StringMatch::Prefix(root), StringMatch::Exact(part) | StringMatch::Prefix(part)) => {
            part.starts_with(root.as_str())
        }
        _ => false,
    }
}
