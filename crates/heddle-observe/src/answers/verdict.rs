//! What to look at first on a service's page, in sentences: is it wrong, since when, and whose fault is it. One place
//! that says so, for the dashboard and for the command line.

use heddle_wire::local::observe_api::{Edge, ServicePage};

/// From this share of failed calls on something is wrong.
const FAILED: f64 = 0.01;

/// The sentences; none where all is well.
pub(super) fn of(page: &ServicePage) -> Vec<String> {
    let (client, server) = (&page.summary.client, &page.summary.server);
    let mut told = Vec::new();
    let idle = client.per_second == 0.0 && server.per_second == 0.0;
    if idle && page.summary.sent_bytes_per_second == 0.0 {
        return told;
    }
    let failed = 1.0 - client.success.min(server.success);
    if failed >= FAILED {
        told.push(format!("{} of the calls fail.", percent(failed)));
        let own = 1.0 - server.success;
        let unreached = own < failed / 2.0 && server.per_second < client.per_second * 0.99;
        told.push(match unreached {
            true => "Most of them never get an answer from the service: it cannot be reached, or a sidecar refuses them.".to_owned(),
            false => "The service itself answers with errors.".to_owned(),
        });
        told.extend(suspect(&page.callees).map(|edge| {
            format!(
                "Its own calls to {} fail too ({}): look there first.",
                title(edge),
                percent(1.0 - edge.client.success)
            )
        }));
    }
    if client.per_second > 0.0 {
        let share = |rate: f64| percent(rate / client.per_second);
        if client.injected_per_second > 0.0 {
            let share = share(client.injected_per_second);
            told.push(format!("{share} of the calls are aborted on purpose by a fault rule; none of that counts as an error here."));
        }
        if client.delayed_per_second > 0.0 {
            let share = share(client.delayed_per_second);
            told.push(format!("{share} of the calls are delayed on purpose by a fault rule."));
        }
    }
    told
}

/// The callee that fails it most.
fn suspect(callees: &[Edge]) -> Option<&Edge> {
    let failing = callees.iter().filter(|edge| edge.client.success < 1.0 - FAILED);
    failing.min_by(|a, b| a.client.success.total_cmp(&b.client.success))
}

/// The callee's name, the namespace only where it is not the default one.
fn title(edge: &Edge) -> String {
    let service = &edge.destination;
    match service.namespace.as_str() {
        "" | "default" => service.name.clone(),
        namespace if service.is_host() => format!("{} ({namespace})", service.name),
        namespace => format!("{}.{namespace}", service.name),
    }
}

/// A share of 1. What is something is never shown as nothing.
fn percent(share: f64) -> String {
    match share * 100.0 {
        all if all >= 99.95 => "100 %".to_owned(),
        little if little < 0.1 => "<0.1 %".to_owned(),
        little if little < 10.0 => format!("{little:.1} %"),
        more => format!("{more:.0} %"),
    }
}
