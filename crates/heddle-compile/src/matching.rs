//! What of a rule's alternatives is left for one client and port: what depends on neither is a proxy's to
//! decide, request by request.

use heddle_model::{discovery::HttpMatch, resource::RouteMatch};

use crate::{carries::asks_nothing, client::Client};

/// The alternatives left: `None` if none is, empty if one asks nothing of the request.
pub(crate) fn left(
    matches: &[RouteMatch],
    client: Client<'_>,
    on: impl Fn(u16) -> bool,
) -> Option<Vec<HttpMatch>> {
    if matches.is_empty() {
        return Some(Vec::new());
    }
    let here = |one: &&RouteMatch| {
        !one.gateways_only
            && one.port.is_none_or(&on)
            && client.is(&one.source_labels, one.source_namespace.as_deref())
    };
    let left: Vec<_> = matches.iter().filter(here).map(|one| one.http.clone()).collect();
    if left.is_empty() {
        return None;
    }
    Some(if left.iter().any(asks_nothing) { Vec::new() } else { left })
}
