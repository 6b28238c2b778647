//! The kubelet's probes of an application, sent to the sidecar instead, which asks the application what they ask.
//!
//! A connection from the kubelet would be captured like any other: a `tcpSocket` probe would always find a
//! listener, and where a policy demands the mesh's identities every probe would fail. `exec` probes stay, and
//! so do those that name another host: they are not about a port of this pod.

use heddle_wire::local::{
    app_probes::{
        APP_PROBES_PREFIX, APP_PROBES_VARIABLE, AppProbe, AppProbes, Ask, Grpc, HttpGet, TcpSocket,
    },
    proxy_config::PORT_MERGED_METRICS,
};
use serde_json::{Map, Value, json};

use super::{
    Rejected,
    names::{INIT, ISTIO_INIT, ISTIO_PROXY, PROXY},
    pod::{Pod, name, text},
};

/// A container's probes and what they are called in paths (Istio's words).
const KINDS: [(&str, &str); 3] =
    [("startupProbe", "startupz"), ("livenessProbe", "livez"), ("readinessProbe", "readyz")];
/// What is sent elsewhere.
const HANDLERS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// Sends the pod's probes to the sidecar; returns what they were, by their new paths.
pub(super) fn rewrite(pod: &mut Pod, warnings: &mut Vec<String>) -> AppProbes {
    let mut probes = AppProbes::new();
    for container in pod.lasting_mut() {
        let container_name = name(container).to_owned();
        if [INIT, ISTIO_INIT, PROXY, ISTIO_PROXY].contains(&container_name.as_str()) {
            continue;
        }
        let ports = container.get("ports").cloned().unwrap_or_default();
        for (kind, word) in KINDS {
            let Some(Value::Object(probe)) = container.get_mut(kind) else { continue };
            match read(probe, &ports) {
                Ok(Some(asked)) => {
                    let path = format!("{APP_PROBES_PREFIX}{container_name}/{word}");
                    set(probe, "httpGet", json!({"path": path, "port": PORT_MERGED_METRICS}));
                    probes.insert(path, asked);
                }
                Ok(None) => {}
                Err(reason) => warnings
                    .push(format!("container {container_name}: {kind} stays as it is: {reason}")),
            }
        }
    }
    probes
}

/// Puts probes back that [`rewrite`] has sent elsewhere. Ports that had names have numbers.
pub(super) fn restore(pod: &mut Pod, probes: &AppProbes) {
    for container in pod.lasting_mut() {
        let container_name = name(container).to_owned();
        for (kind, word) in KINDS {
            let path = format!("{APP_PROBES_PREFIX}{container_name}/{word}");
            let (Some(asked), Some(Value::Object(probe))) =
                (probes.get(&path), container.get_mut(kind))
            else {
                continue;
            };
            let (handler, value) = match &asked.ask {
                Ask::HttpGet(get) => ("httpGet", serde_json::to_value(get)),
                Ask::TcpSocket(socket) => ("tcpSocket", serde_json::to_value(socket)),
                Ask::Grpc(grpc) => ("grpc", serde_json::to_value(grpc)),
            };
            set(probe, handler, value.unwrap_or_default());
        }
    }
}

/// Gives probes that were found later to the pod's sidecar, which is there already.
pub(super) fn give(pod: &mut Pod, added: &AppProbes) -> Result<(), Rejected> {
    if added.is_empty() {
        return Ok(());
    }
    let mut all = given(pod);
    all.extend(added.clone());
    let variable = json!({"name": APP_PROBES_VARIABLE, "value": to_text(&all)?});
    let Some(Value::Object(proxy)) = proxy_mut(pod) else { return Ok(()) };
    let env = proxy.entry("env").or_insert_with(|| json!([]));
    if let Value::Array(env) = env {
        match env.iter_mut().find(|there| name(there) == APP_PROBES_VARIABLE) {
            Some(there) => *there = variable,
            None => env.push(variable),
        }
    }
    Ok(())
}

/// The probes that the pod's sidecar was given.
pub(super) fn given(pod: &mut Pod) -> AppProbes {
    let env = proxy_mut(pod).and_then(|proxy| proxy.get("env")).and_then(Value::as_array);
    let variable = env.into_iter().flatten().find(|there| name(there) == APP_PROBES_VARIABLE);
    let text = variable.and_then(|variable| variable.get("value")).and_then(Value::as_str);
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn proxy_mut(pod: &mut Pod) -> Option<&mut Value> {
    pod.init_containers.iter_mut().chain(&mut pod.containers).find(|there| name(there) == PROXY)
}

/// As the variable's text.
pub(super) fn to_text(probes: &AppProbes) -> Result<String, Rejected> {
    serde_json::to_string(probes)
        .map_err(|error| Rejected::new(format!("the probes cannot be written as JSON: {error}")))
}

/// Replaces what a probe does.
fn set(probe: &mut Map<String, Value>, handler: &str, value: Value) {
    probe.retain(|key, _| key == handler || !HANDLERS.contains(&key.as_str()));
    probe.insert(handler.to_owned(), value);
}

/// What a probe asks of a port of this pod; `None` where it asks nothing of one, or of the sidecar already.
fn read(probe: &Map<String, Value>, ports: &Value) -> Result<Option<AppProbe>, String> {
    let mut handlers = HANDLERS.iter().filter_map(|key| Some((*key, probe.get(*key)?)));
    let Some((handler, asked)) = handlers.find(|(_, value)| value.is_object()) else {
        return Ok(None);
    };
    if text(asked, "host").is_some_and(|host| !host.is_empty()) || is_ours(asked) {
        return Ok(None);
    }
    let port = port(asked.get("port"), ports)?;
    let ask = match handler {
        "httpGet" => Ask::HttpGet(http_get(asked, port)?),
        "tcpSocket" => Ask::TcpSocket(TcpSocket { port }),
        _ => {
            Ask::Grpc(Grpc { port, service: text(asked, "service").unwrap_or_default().to_owned() })
        }
    };
    let timeout = probe.get("timeoutSeconds").and_then(Value::as_u64);
    let timeout_seconds =
        timeout.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(1).max(1);
    Ok(Some(AppProbe { ask, timeout_seconds }))
}

fn http_get(asked: &Value, port: u16) -> Result<HttpGet, String> {
    let fields = ["path", "scheme", "httpHeaders"].map(|key| (key, asked.get(key)));
    let mut get = Map::from_iter([("port".to_owned(), port.into())]);
    for (key, value) in fields {
        if let Some(value) = value.filter(|value| !value.is_null() && value.as_str() != Some("")) {
            get.insert(key.to_owned(), value.clone());
        }
    }
    let mut get: HttpGet = serde_json::from_value(get.into()).map_err(|error| error.to_string())?;
    if !get.path.starts_with('/') {
        get.path.insert(0, '/');
    }
    Ok(get)
}

/// A number, or the name of one of the container's ports.
fn port(asked: Option<&Value>, ports: &Value) -> Result<u16, String> {
    let is_port = |number: u64| u16::try_from(number).ok().filter(|port| *port > 0);
    let found = match asked {
        Some(Value::Number(number)) => number.as_u64().and_then(is_port),
        Some(Value::String(name)) => {
            let mut named = ports.as_array().into_iter().flatten();
            let port = named.find(|port| text(port, "name") == Some(name));
            let number = port.and_then(|port| port.get("containerPort")).and_then(Value::as_u64);
            number.or_else(|| name.parse().ok()).and_then(is_port)
        }
        _ => None,
    };
    found.ok_or_else(|| match asked {
        Some(asked) => format!("{asked} is no port of the container"),
        None => "it names no port".to_owned(),
    })
}

/// Does it ask the sidecar already?
fn is_ours(asked: &Value) -> bool {
    asked.get("port").and_then(Value::as_u64) == Some(u64::from(PORT_MERGED_METRICS))
        && text(asked, "path").is_some_and(|path| path.starts_with(APP_PROBES_PREFIX))
}
