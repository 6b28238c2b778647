//! One proxy as `proxy-status` tells of it, here and in a cluster.

use heddle_wire::local::control_api::ProxyStatus;

/// What a proxy runs, of rules whose newest generation is this.
pub(super) fn proxy_state(proxy: &ProxyStatus, newest: u64) -> String {
    match (&proxy.nack, proxy.connected) {
        (_, false) => "not connected".to_owned(),
        (Some(nack), true) => format!("refused: {nack}"),
        (None, true) if proxy.generation < newest => "pending".to_owned(),
        (None, true) => "in force".to_owned(),
    }
}

/// Its row, but for what only a cluster has.
pub(super) fn proxy_row(proxy: &ProxyStatus, state: String) -> Vec<String> {
    let destinations: Vec<String> =
        proxy.destinations.iter().map(|name| format!("{}.{}", name.name, name.namespace)).collect();
    vec![proxy.workload.0.clone(), proxy.generation.to_string(), state, destinations.join(",")]
}
