//! What a sidecar in a pod is started with: variables that the injection writes, and the pod's labels in a file of
//! the downward API. Every variable that is missing or wrong is named, all at once.
//!
//! | variable | what |
//! |---|---|
//! | `POD_NAME`, `POD_NAMESPACE`, `POD_IPS` | the pod; its addresses with commas between them, one of each family at most |
//! | `POD_UID`, `NODE_NAME`, `SERVICE_ACCOUNT` | likewise, and may be absent |
//! | `HEDDLE_DISCOVERY_ADDRESS` | `HOST:PORT` of the control plane |
//! | `HEDDLE_OBSERVE_ADDRESS` | `HOST:PORT` of the observer, which is asked for a last scrape; absent: nobody is |
//! | `HEDDLE_TRUST_DOMAIN`, `HEDDLE_CLUSTER_DOMAIN` | `cluster.local` if absent |
//! | `HEDDLE_WORKLOAD_NAME` | the Deployment's or whatever made the pod |
//! | `HEDDLE_CONCURRENCY` | worker threads; 0: one for each processor; absent: 2 |
//! | `HEDDLE_MEMORY_LIMIT` | bytes |
//! | `HEDDLE_NATIVE_SIDECAR` | `true`: the kubelet ends the sidecar after the application (an init container that restarts) |
//! | `HEDDLE_INTERCEPTION_MODE` | `TPROXY`: the application sees its callers' addresses; `REDIRECT`, or absent: the sidecar's |
//! | `HEDDLE_TERMINATION_DRAIN` | seconds, as `5` or `5s` |
//! | `HEDDLE_APP_PROBES` | the application's probes that the sidecar asks, JSON ([`super::app_probes`]) |
//! | `HEDDLE_APP_METRICS` | where the application shows its own metrics, JSON; absent: they are not merged |
//! | `HEDDLE_STATE_DIR`, `HEDDLE_TOKEN_FILE`, `HEDDLE_ROOTS_FILE`, `HEDDLE_POD_INFO` | where the volumes are mounted |

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use heddle_model::{
    Addresses, Identity, WorkloadId,
    identity::{DEFAULT_SERVICE_ACCOUNT, DEFAULT_TRUST_DOMAIN},
    name::{check_label, check_subdomain},
};

use super::{
    app_probes::{APP_METRICS_VARIABLE, APP_PROBES_VARIABLE, AppProbes, HttpGet},
    proxy_config::{Pod, ProxyConfig, SecureControl, Surroundings},
};

/// The control plane, where nothing else is said.
pub const DISCOVERY_ADDRESS: &str = "heddle-control.heddle-system.svc:15012";
/// Name of the mesh, and of the cluster in metrics: what Istio calls one that was given no name.
pub const MESH: &str = "Kubernetes";
/// Folder of what a sidecar keeps: an emptyDir.
pub const STATE_DIR: &str = "/var/lib/heddle";
/// The projected token.
pub const TOKEN_FILE: &str = "/var/run/secrets/heddle/token/heddle-token";
/// Whom the mesh believes: a mounted ConfigMap.
pub const ROOTS_FILE: &str = "/var/run/secrets/heddle/ca/root-cert.pem";
/// Folder of the downward API.
pub const POD_INFO: &str = "/etc/heddle/pod";
/// The pod's own resolver file.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where the observer is asked for a last scrape.
pub const OBSERVE_ADDRESS_VARIABLE: &str = "HEDDLE_OBSERVE_ADDRESS";
/// Says that the kubelet ends the sidecar after the application.
pub const NATIVE_SIDECAR_VARIABLE: &str = "HEDDLE_NATIVE_SIDECAR";
/// Says how the pod's connections get to the sidecar.
pub const INTERCEPTION_VARIABLE: &str = "HEDDLE_INTERCEPTION_MODE";
/// Its value where the application sees its callers' addresses; Istio's word for it.
pub const TPROXY: &str = "TPROXY";
/// Its value where it sees the sidecar's.
pub const REDIRECT: &str = "REDIRECT";
/// How long inbound connections are accepted after SIGTERM where nothing else is said, seconds: an endpoint that is
/// withdrawn is unknown everywhere by then.
pub const DRAIN_SECONDS: u64 = 5;
/// Worker threads where nothing else is said, as in Istio.
pub const WORKERS: usize = 2;

/// Longest drain that can be asked for, seconds.
const DRAIN_SECONDS_MAX: u64 = 3600;

/// What of the machine a configuration depends on.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Processors that this process may use, at least 1.
    pub processors: usize,
}

/// The file of the pod's labels, as the environment says.
#[must_use]
pub fn labels_file(variable: &impl Fn(&str) -> Option<String>) -> PathBuf {
    path(variable, "HEDDLE_POD_INFO", POD_INFO).join("labels")
}

/// The configuration that the environment describes; `labels` is the text of [`labels_file`].
///
/// # Errors
/// Everything that is missing or wrong.
pub fn config(
    variable: &impl Fn(&str) -> Option<String>,
    labels: &str,
    machine: Machine,
) -> Result<ProxyConfig, Vec<String>> {
    let mut reader = Reader { variable, problems: Vec::new() };
    let name = reader.needed("POD_NAME", |text| check_subdomain(text).map_err(|e| e.to_string()));
    let namespace =
        reader.needed("POD_NAMESPACE", |text| check_label(text).map_err(|e| e.to_string()));
    let addresses = reader.read("POD_IPS", None, addresses);
    let workers = reader.read("HEDDLE_CONCURRENCY", Some("2"), |text| workers(text, machine));
    let memory_limit = reader.read("HEDDLE_MEMORY_LIMIT", Some("0"), bytes);
    let app_probes = reader.read(APP_PROBES_VARIABLE, Some("{}"), app_probes).unwrap_or_default();
    let app_metrics = reader.read(APP_METRICS_VARIABLE, Some("null"), app_metrics).flatten();
    let pod = pod(&mut reader, namespace.as_deref().unwrap_or_default());
    let labels = parse_labels(labels).unwrap_or_else(|problem| {
        let file = labels_file(variable);
        reader.problems.push(format!("{}: {problem}", file.display()));
        BTreeMap::new()
    });
    let (
        Some(name),
        Some(namespace),
        Some(addresses),
        Some(workers),
        Some(memory_limit),
        Some(pod),
    ) = (name, namespace, addresses, workers, memory_limit, pod)
    else {
        return Err(reader.problems);
    };
    if !reader.problems.is_empty() {
        return Err(reader.problems);
    }
    let workload_name = or(variable, "HEDDLE_WORKLOAD_NAME", &name);
    let label = |keys: &[&str]| keys.iter().find_map(|key| labels.get(*key)).cloned();
    let service = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let version =
        label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    Ok(ProxyConfig {
        mesh: MESH.to_owned(),
        workload: WorkloadId::of_pod(&namespace, &name),
        service: service.unwrap_or_else(|| workload_name.clone()),
        version: version.unwrap_or_default(),
        name: workload_name,
        namespace,
        labels,
        addresses,
        ports: BTreeMap::new(),
        workers,
        state_dir: path(variable, "HEDDLE_STATE_DIR", STATE_DIR),
        memory_limit,
        app_probes,
        app_metrics,
        ready_fd: None,
        surroundings: Surroundings::Pod(pod),
    })
}

/// What is around the sidecar.
fn pod<V: Fn(&str) -> Option<String>>(reader: &mut Reader<'_, V>, namespace: &str) -> Option<Pod> {
    let variable = reader.variable;
    let address = reader.read("HEDDLE_DISCOVERY_ADDRESS", Some(DISCOVERY_ADDRESS), host_and_port);
    let observer = given(variable, OBSERVE_ADDRESS_VARIABLE)
        .and_then(|_| reader.read(OBSERVE_ADDRESS_VARIABLE, None, host_and_port));
    let default_drain = DRAIN_SECONDS.to_string();
    let drain = reader.read("HEDDLE_TERMINATION_DRAIN", Some(&default_drain), seconds);
    let native = reader.read(NATIVE_SIDECAR_VARIABLE, Some("false"), yes_or_no);
    let keeps_callers = reader.read(INTERCEPTION_VARIABLE, Some(REDIRECT), |text| match text {
        TPROXY => Ok(true),
        REDIRECT => Ok(false),
        _ => Err(format!("use {REDIRECT} or {TPROXY}")),
    });
    let identity = Identity {
        trust_domain: or(variable, "HEDDLE_TRUST_DOMAIN", DEFAULT_TRUST_DOMAIN),
        namespace: namespace.to_owned(),
        service_account: or(variable, "SERVICE_ACCOUNT", DEFAULT_SERVICE_ACCOUNT),
    };
    let (host, port) = address?;
    Some(Pod {
        control: SecureControl {
            host,
            port,
            roots: path(variable, "HEDDLE_ROOTS_FILE", ROOTS_FILE),
            token: path(variable, "HEDDLE_TOKEN_FILE", TOKEN_FILE),
        },
        resolv_conf: PathBuf::from(RESOLV_CONF),
        identity,
        uid: or(variable, "POD_UID", ""),
        node: or(variable, "NODE_NAME", ""),
        observer,
        native: native?,
        drain_seconds: drain?,
        keeps_callers: keeps_callers?,
    })
}

fn or(variable: &impl Fn(&str) -> Option<String>, name: &str, default: &str) -> String {
    given(variable, name).unwrap_or_else(|| default.to_owned())
}

fn path(variable: &impl Fn(&str) -> Option<String>, name: &str, default: &str) -> PathBuf {
    given(variable, name).map_or_else(|| Path::new(default).to_owned(), PathBuf::from)
}

/// A variable's value; an empty one counts as absent, as templates write it.
fn given(variable: &impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Reads variables and keeps what is wrong with them.
struct Reader<'a, V> {
    variable: &'a V,
    problems: Vec<String>,
}

impl<V: Fn(&str) -> Option<String>> Reader<'_, V> {
    /// A variable that must be there.
    fn needed(
        &mut self,
        name: &str,
        check: impl FnOnce(&str) -> Result<(), String>,
    ) -> Option<String> {
        self.read(name, None, |text| check(text).map(|()| text.to_owned()))
    }

    fn read<T>(
        &mut self,
        name: &str,
        default: Option<&str>,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(text) = given(self.variable, name).or_else(|| default.map(str::to_owned)) else {
            self.problems.push(format!(
                "`{name}` is not set: the injection sets it from the pod (`heddle inject`)"
            ));
            return None;
        };
        match read(&text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.problems.push(format!("`{name}` is `{text}`: {why}"));
                None
            }
        }
    }
}

fn addresses(text: &str) -> Result<Addresses, String> {
    let (mut v4, mut v6) = (None, None);
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let twice = match part.parse() {
            Ok(IpAddr::V4(ip)) => v4.replace(ip).is_some(),
            Ok(IpAddr::V6(ip)) => v6.replace(ip).is_some(),
            Err(_) => return Err(format!("`{part}` is no IP address: use `status.podIPs`")),
        };
        if twice {
            return Err("it has two addresses of one family: use `status.podIPs`".to_owned());
        }
    }
    match (v4, v6) {
        (Some(v4), Some(v6)) => Ok(Addresses::Both(v4, v6)),
        (Some(v4), None) => Ok(Addresses::V4(v4)),
        (None, Some(v6)) => Ok(Addresses::V6(v6)),
        (None, None) => Err("it holds no IP address: use `status.podIPs`".to_owned()),
    }
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("use HOST:PORT, as `{DISCOVERY_ADDRESS}`");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let is_host = host.parse::<IpAddr>().is_ok() || check_subdomain(host).is_ok();
    if is_host { Ok((host.to_owned(), port)) } else { Err(wrong()) }
}

fn workers(text: &str, machine: Machine) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Ok(machine.processors.max(1)),
        Ok(count) if count <= 256 => Ok(count),
        _ => Err("use a number of threads from 1 to 256, or 0 for one each processor".to_owned()),
    }
}

fn bytes(text: &str) -> Result<Option<u64>, String> {
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(bytes) => Ok(Some(bytes)),
        Err(_) => Err("use a number of bytes, as `resourceFieldRef` gives it".to_owned()),
    }
}

fn app_probes(text: &str) -> Result<AppProbes, String> {
    serde_json::from_str(text).map_err(|error| {
        format!("it is no JSON of probes by path, as the injection writes it: {error}")
    })
}

fn app_metrics(text: &str) -> Result<Option<HttpGet>, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("it is no JSON of a GET, as the injection writes it: {error}"))
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "use `true` or `false`".to_owned())
}

fn seconds(text: &str) -> Result<u64, String> {
    let seconds = text.strip_suffix('s').unwrap_or(text).parse().ok();
    seconds
        .filter(|seconds| *seconds <= DRAIN_SECONDS_MAX)
        .ok_or_else(|| format!("use seconds up to {DRAIN_SECONDS_MAX}, as `5s`"))
}

/// Reads labels as the downward API writes them: `KEY="VALUE"`, a line each, the value quoted as in Go.
///
/// # Errors
/// The line that is none.
pub fn parse_labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = || format!("line {} is no `KEY=\"VALUE\"`", at + 1);
        let (key, value) = line.split_once('=').ok_or_else(wrong)?;
        // Of what JSON and Go quote differently, no label can hold anything.
        let value: String = serde_json::from_str(value.trim()).map_err(|_| wrong())?;
        labels.insert(key.trim().to_owned(), value);
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::proxy_config::{ControlPlane, Ending, Outside};

    const MACHINE: Machine = Machine { processors: 8 };

    const POD: [(&str, &str); 3] =
        [("POD_NAME", "web-7f3a"), ("POD_NAMESPACE", "shop"), ("POD_IPS", "10.1.2.3,fd00::3")];

    fn read(extra: &[(&str, &str)], labels: &str) -> Result<ProxyConfig, Vec<String>> {
        let variable = |name: &str| {
            let all = extra.iter().chain(&POD);
            let mut found = all.filter(|(key, _)| *key == name);
            found.next().map(|(_, value)| (*value).to_owned())
        };
        config(&variable, labels, MACHINE)
    }

    #[test]
    fn a_pod_is_described_by_its_environment_and_its_labels() {
        let labels = "app=\"web\"\nversion=\"v2\"\nexample.com/team=\"a-b\"\n";
        let config =
            read(&[("HEDDLE_WORKLOAD_NAME", "web"), ("HEDDLE_MEMORY_LIMIT", "134217728")], labels)
                .unwrap();
        assert_eq!(config.workload.0, "shop.web-7f3a");
        assert_eq!((config.name.as_str(), config.service.as_str()), ("web", "web"));
        assert_eq!((config.version.as_str(), config.labels.len()), ("v2", 3));
        assert_eq!(config.addresses.iter().count(), 2);
        assert_eq!((config.workers, config.memory_limit), (2, Some(134_217_728)));
        let ControlPlane::Tls(control) = config.control_plane() else { panic!() };
        assert_eq!(control.host, "heddle-control.heddle-system.svc");
        assert_eq!(control.port, 15012);
        assert_eq!(control.token, Path::new(TOKEN_FILE));
        assert!(matches!(config.outside(), Outside::Direct { .. }));
        let accepting = std::time::Duration::from_secs(5);
        assert_eq!(config.ending(), Ending::WithApplication { accepting });
        let native = read(&[("HEDDLE_NATIVE_SIDECAR", "true")], "").unwrap();
        assert_eq!(native.ending(), Ending::AfterApplication);
        let keeping = read(&[("HEDDLE_INTERCEPTION_MODE", "TPROXY")], "").unwrap();
        assert!(keeping.keeps_callers() && !native.keeps_callers());
        let identity = config.identity().to_string();
        assert_eq!(identity, "spiffe://cluster.local/ns/shop/sa/default");
        assert!(config.is_redirected() && !config.proves_capture());
        assert_eq!(config.escape_mark(), None);
        assert!(config.virtual_ranges().is_none() && config.inherited().published.is_empty());
    }

    #[test]
    fn canonical_names_are_found_as_istio_finds_them() {
        let of = |labels: &str| {
            let config = read(&[("HEDDLE_WORKLOAD_NAME", "web")], labels).unwrap();
            (config.service, config.version)
        };
        let all =
            "app=\"a\"\napp.kubernetes.io/name=\"b\"\nservice.istio.io/canonical-name=\"c\"\n";
        assert_eq!(of(all).0, "c");
        assert_eq!(of("app=\"a\"\napp.kubernetes.io/name=\"b\"\n").0, "b");
        assert_eq!(of(""), ("web".to_owned(), String::new()));
    }

    #[test]
    fn everything_that_is_missing_or_wrong_is_named_at_once() {
        let wrong = [
            ("POD_IPS", "10.1.2.3,10.1.2.4"),
            ("HEDDLE_CONCURRENCY", "many"),
            ("HEDDLE_DISCOVERY_ADDRESS", "control"),
            ("HEDDLE_TERMINATION_DRAIN", "soon"),
            ("HEDDLE_MEMORY_LIMIT", "128Mi"),
            ("HEDDLE_INTERCEPTION_MODE", "NONE"),
            ("HEDDLE_APP_PROBES", "[1]"),
            ("HEDDLE_APP_METRICS", "{}"),
            ("POD_NAMESPACE", "Shop"),
            ("POD_NAME", " "),
        ];
        let problems = read(&wrong, "app=web").unwrap_err().join("\n");
        for (name, _) in wrong {
            assert!(problems.contains(&format!("`{name}`")), "{name} in {problems}");
        }
        assert!(problems.contains("/etc/heddle/pod/labels: line 1"), "{problems}");
        assert!(problems.contains("`POD_NAME` is not set"), "{problems}");
    }

    #[test]
    fn numbers_and_addresses_are_taken_as_kubernetes_and_people_write_them() {
        let with = |extra: &[(&str, &str)]| read(extra, "").unwrap();
        assert_eq!(with(&[("HEDDLE_CONCURRENCY", "0")]).workers, 8);
        assert_eq!(with(&[("HEDDLE_CONCURRENCY", "")]).workers, 2);
        assert_eq!(with(&[("POD_IPS", "fd00::3")]).addresses.iter().count(), 1);
        let config = with(&[("HEDDLE_DISCOVERY_ADDRESS", "[fd00::1]:1")]);
        let ControlPlane::Tls(control) = config.control_plane() else { panic!() };
        assert_eq!((control.host.as_str(), control.port), ("fd00::1", 1));
        for drain in ["30", "30s"] {
            let accepting = std::time::Duration::from_secs(30);
            let config = with(&[("HEDDLE_TERMINATION_DRAIN", drain)]);
            assert_eq!(config.ending(), Ending::WithApplication { accepting });
        }
    }
}
