//! A pod's own metrics: what a scraper is told by annotations to ask of the application, it is told to ask of the
//! sidecar, which shows the application's behind its own. Otherwise one of the two would not be scraped, and where
//! only the mesh may call, the application's would be refused.

use std::collections::BTreeMap;

use heddle_wire::local::{
    app_probes::{HttpGet, Scheme},
    proxy_config::PORT_MERGED_METRICS,
};
use serde_json::Value;

use super::pod::Pod;

const GROUP: &str = "prometheus.io/";
const SCRAPE: &str = "prometheus.io/scrape";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";
const SCHEME: &str = "prometheus.io/scheme";
/// What a scraper is to be told.
pub(super) const OURS: [(&str, &str); 3] =
    [(SCRAPE, "true"), (PORT, "15020"), (PATH, "/stats/prometheus")];
/// Where metrics are unless it is said.
const USUAL_PATH: &str = "/metrics";

/// Does the pod say anything about being scraped?
pub(super) fn is_asked(pod: &Pod) -> bool {
    pod.annotations.keys().any(|key| key.starts_with(GROUP))
}

/// Sends scrapers to the sidecar; returns where the application's metrics are, and notes in `replaced` what the
/// annotations were. A pod that is not to be scraped stays so; one that cannot be understood stays as it is.
pub(super) fn take_over(
    pod: &mut Pod,
    replaced: &mut BTreeMap<String, Option<String>>,
    warnings: &mut Vec<String>,
) -> Option<HttpGet> {
    let said = |key: &str| {
        let value = pod.annotations.get(key).and_then(Value::as_str).map(str::trim);
        value.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    // As in Istio: a port alone is a wish too.
    let is_to_be = match said(SCRAPE) {
        Some(text) => text == "true",
        None => said(PORT).is_some(),
    };
    if !is_to_be {
        return None;
    }
    let port = match port(pod, said(PORT).as_deref()) {
        Ok(port) if port == PORT_MERGED_METRICS => return None,
        Ok(port) => port,
        Err(reason) => {
            warnings
                .push(format!("the pod's own metrics are not merged into the sidecar's: {reason}"));
            return None;
        }
    };
    let scheme = match said(SCHEME) {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
        _ => Scheme::Http,
    };
    let mut path = said(PATH).unwrap_or_else(|| USUAL_PATH.to_owned());
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    let http = (scheme == Scheme::Https).then_some((SCHEME, "http"));
    for (key, value) in OURS.into_iter().chain(http) {
        let before = pod.annotations.insert(key.to_owned(), value.into());
        let before = before.and_then(|value| value.as_str().map(str::to_owned));
        replaced.insert(key.to_owned(), before);
    }
    Some(HttpGet { path, port, scheme, http_headers: Vec::new() })
}

/// The port that is named, or else the only one there is.
fn port(pod: &Pod, said: Option<&str>) -> Result<u16, String> {
    if let Some(text) = said {
        let port = text.parse::<u16>().ok().filter(|port| *port > 0);
        return port.ok_or_else(|| format!("annotation {PORT}: `{text}` is no port"));
    }
    let declared = pod.containers.iter().filter_map(|container| container["ports"].as_array());
    let numbers = declared.flatten().filter_map(|port| port["containerPort"].as_u64());
    let numbers: Vec<u16> = numbers.filter_map(|number| u16::try_from(number).ok()).collect();
    match numbers[..] {
        [only] => Ok(only),
        _ => Err(format!(
            "{PORT} does not say which of its {} declared ports has them",
            numbers.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Where metrics are taken from, what annotations become, and what is warned of.
    fn of(annotations: Value, ports: Value) -> (Option<HttpGet>, Value, Vec<String>) {
        let mut pod = Pod::read(json!({
            "metadata": {"annotations": annotations},
            "spec": {"containers": [{"name": "app", "ports": ports}]},
        }))
        .unwrap();
        let (mut replaced, mut warnings) = (BTreeMap::new(), Vec::new());
        let get = take_over(&mut pod, &mut replaced, &mut warnings);
        (get, pod.into_value()["metadata"]["annotations"].take(), warnings)
    }

    #[test]
    fn scrapers_are_sent_to_the_sidecar_and_the_sidecar_to_the_application() {
        let told = json!({SCRAPE: "true", PORT: "15020", PATH: "/stats/prometheus"});
        let (get, annotations, _) = of(json!({SCRAPE: "true", PORT: "8080", PATH: "m"}), json!([]));
        let get = get.unwrap();
        assert_eq!((get.port, get.path.as_str(), get.scheme), (8080, "/m", Scheme::Http));
        assert_eq!(annotations, told);
        let (get, annotations, _) = of(json!({SCRAPE: "true"}), json!([{"containerPort": 9000}]));
        let get = get.unwrap();
        assert_eq!((get.port, get.path.as_str()), (9000, USUAL_PATH));
        assert_eq!(annotations, told);
        let (get, annotations, _) = of(json!({PORT: "8443", SCHEME: "https"}), json!([]));
        assert_eq!(get.unwrap().scheme, Scheme::Https);
        assert_eq!(annotations[SCHEME], "http");
    }

    #[test]
    fn what_is_not_to_be_scraped_or_not_understood_stays_as_it_is() {
        for (annotations, ports, warned) in [
            (json!({SCRAPE: "false", PORT: "8080"}), json!([]), 0),
            (json!({"other": "x"}), json!([]), 0),
            (json!({"prometheus.io/probe": "true"}), json!([{"containerPort": 1}]), 0),
            (json!({SCRAPE: "true", PORT: "15020", PATH: "/stats/prometheus"}), json!([]), 0),
            (json!({SCRAPE: "true", PORT: "http"}), json!([]), 1),
            (json!({SCRAPE: "true"}), json!([]), 1),
            (json!({SCRAPE: "true"}), json!([{"containerPort": 1}, {"containerPort": 2}]), 1),
        ] {
            let (get, after, warnings) = of(annotations.clone(), ports);
            assert_eq!((get, after), (None, annotations));
            assert_eq!(warnings.len(), warned, "{warnings:?}");
        }
    }
}
