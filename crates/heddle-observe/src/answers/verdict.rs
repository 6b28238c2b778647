//! What to look at first on a service's page, in sentences: is it wrong and whose fault is it, and what of it is done on
//! purpose. One place that says so, for the dashboard and for the command line.

use heddle_model::ServiceName;
use heddle_wire::local::observe_api::{Cause, FaultWord, ServicePage};

/// From this share of failed calls on something is wrong.
const FAILED: f64 = 0.01;

/// Is anything measured of it?
fn is_idle(page: &ServicePage) -> bool {
    let summary = &page.summary;
    summary.client.per_second == 0.0
        && summary.server.per_second == 0.0
        && summary.sent_bytes_per_second == 0.0
}

/// What is wrong, in sentences; none where all is well.
pub(super) fn wrong(page: &ServicePage) -> Vec<String> {
    let (client, server) = (&page.summary.client, &page.summary.server);
    let mut told = Vec::new();
    if is_idle(page) {
        return told;
    }
    let failed = 1.0 - client.success.min(server.success);
    if failed >= FAILED {
        told.push(format!("{} of the calls fail.", percent(failed)));
        let own = 1.0 - server.success;
        let unreached = own < failed / 2.0 && server.per_second < client.per_second * 0.99;
        told.push(match unreached {
            true => "Most of them never get an answer from the service: it cannot be reached, or a sidecar refuses them.".to_owned(),
            false if page.cause.is_some() => {
                "The service answers with errors because another one fails it.".to_owned()
            }
            false => "The service itself answers with errors.".to_owned(),
        });
        told.extend(page.cause.as_ref().and_then(behind));
    }
    told
}

/// What rules do on purpose, as they ask for it and as it was measured.
pub(super) fn on_purpose(page: &ServicePage) -> Vec<String> {
    let client = &page.summary.client;
    if is_idle(page) {
        return Vec::new();
    }
    let mut told: Vec<String> = page.faults.iter().map(asked).collect();
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

/// The deepest service whose failures are this one's, and the way there.
fn behind(cause: &Cause) -> Option<String> {
    let there = title(cause.path.last()?);
    let way: Vec<String> = cause.path.iter().map(title).collect();
    let way = if way.len() > 2 { format!(" ({})", way.join(" → ")) } else { String::new() };
    Some(match cause.injected > cause.failed {
        true => format!(
            "The cause is a fault injected on purpose into calls to {there}{way}: {} of them are aborted.",
            percent(cause.injected)
        ),
        false => format!(
            "The cause is {there}{way}: {} of the calls to it fail. Look there first.",
            percent(cause.failed)
        ),
    })
}

/// What a rule asks for.
fn asked(fault: &FaultWord) -> String {
    let some = if fault.partly { " of some" } else { "" };
    let detail = match fault.detail.as_str() {
        "" => String::new(),
        detail => format!(" ({detail})"),
    };
    let share = percent(fault.percent / 100.0);
    format!("The rule {} asks for {} {share}{some}{detail}.", fault.rule, fault.what)
}

/// A service's name, the namespace only where it is not the default one.
fn title(service: &ServiceName) -> String {
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

#[cfg(test)]
mod tests {
    use heddle_wire::local::observe_api::Rates;

    use super::*;

    fn page() -> ServicePage {
        let mut rates = serde_json::to_value(Rates::default()).unwrap();
        rates["per_second"] = 10.0.into();
        rates["success"] = 1.0.into();
        let summary = serde_json::json!({
            "service": {"name": "front", "namespace": "default"}, "kind": "http", "client": rates, "server": rates,
            "sent_bytes_per_second": 0.0, "received_bytes_per_second": 0.0,
        });
        let page = serde_json::json!({
            "summary": summary, "previous": summary,
            "series": [], "callers": [], "callees": [], "versions": [], "workloads": [],
        });
        serde_json::from_value(page).unwrap()
    }

    fn cause(names: &[&str], failed: f64, injected: f64) -> Option<Cause> {
        let path = names.iter().map(|name| ServiceName::new(name, "default").unwrap()).collect();
        Some(Cause { path, failed, injected })
    }

    #[test]
    fn of_a_service_that_is_well_nothing_is_said() {
        assert!(wrong(&page()).is_empty() && on_purpose(&page()).is_empty());
    }

    #[test]
    fn the_deepest_callee_that_fails_is_the_cause() {
        let mut page = page();
        page.summary.client.success = 0.5;
        page.summary.server.success = 0.5;
        assert_eq!(
            wrong(&page),
            ["50 % of the calls fail.", "The service itself answers with errors."]
        );
        page.cause = cause(&["front", "reviews", "ratings"], 0.9, 0.0);
        assert_eq!(
            wrong(&page)[1..],
            [
                "The service answers with errors because another one fails it.",
                "The cause is ratings (front → reviews → ratings): 90 % of the calls to it fail. Look there first."
            ]
        );
        page.cause = cause(&["front", "ratings"], 0.1, 0.8);
        assert!(wrong(&page)[2].contains("injected on purpose into calls to ratings: 80 %"));
    }

    #[test]
    fn a_fault_is_told_as_its_rule_asks_and_as_it_was_measured() {
        let mut page = page();
        page.summary.client.injected_per_second = 8.1;
        page.faults = vec![FaultWord {
            what: "abort".to_owned(),
            percent: 80.0,
            detail: "500".to_owned(),
            rule: "VirtualService/default/ratings".to_owned(),
            partly: false,
        }];
        let told = on_purpose(&page);
        assert_eq!(told[0], "The rule VirtualService/default/ratings asks for abort 80 % (500).");
        assert!(told[1].starts_with("81 % of the calls are aborted on purpose"), "{told:?}");
    }
}
