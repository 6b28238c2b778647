//! The two containers with their volumes, and where in the pod they stand.

use heddle_wire::local::{
    app_probes::{APP_METRICS_VARIABLE, APP_PROBES_VARIABLE, AppProbes, HttpGet},
    pod_environment::{INTERCEPTION_VARIABLE, NATIVE_SIDECAR_VARIABLE, OBSERVE_ADDRESS_VARIABLE},
    proxy_config::{PORT_HEALTH, PORT_METRICS},
};
use serde_json::{Value, json};

use super::{
    InjectionSettings, InterceptionMode, Rejected, Surroundings, identity, merge,
    names::{
        INIT, ISTIO_INIT, ISTIO_PROXY, PROXY, VOLUME_CA, VOLUME_PODINFO, VOLUME_STATE, VOLUME_TOKEN,
    },
    options::Options,
    pod::{Pod, name},
    probes,
    record::{Override, Record},
};

/// Longest a sidecar may take to be ready the first time, seconds.
const START_SECONDS_MAX: u64 = 600;
/// Longest an application is held back in classic order, as `heddle sidecar-ready` takes it.
const HOLD_MAX: &str = "300s";

/// What is to be added.
pub(super) struct Additions<'a> {
    pub(super) around: Surroundings<'a>,
    pub(super) options: &'a Options,
    pub(super) settings: &'a InjectionSettings,
    pub(super) probes: &'a AppProbes,
    /// Where the application's own metrics are that the sidecar is to show.
    pub(super) app_metrics: Option<HttpGet>,
}

impl Additions<'_> {
    /// Adds containers, volumes and secrets, and notes which.
    pub(super) fn put_into(&self, pod: &mut Pod, record: &mut Record) -> Result<(), Rejected> {
        let their_proxy = take_one(pod, [PROXY, ISTIO_PROXY], record)?;
        let their_init = take_one(pod, [INIT, ISTIO_INIT], record)?;
        // A pod needs a container beside its init containers.
        let native = self.options.native && !pod.containers.is_empty();
        let proxy = self.proxy(pod, native, their_proxy.as_ref())?;
        let init = self.init();
        let init = match their_init {
            Some(theirs) => merge::container(init, &theirs),
            None => init,
        };
        record.init_containers.push(INIT.to_owned());
        if native {
            // First of all, so that what starts next can use the network.
            record.init_containers.push(PROXY.to_owned());
            pod.init_containers.splice(0..0, [init, proxy]);
        } else {
            // Last of the init containers: before the sidecar runs nothing may be sent to it.
            record.containers.push(PROXY.to_owned());
            pod.init_containers.push(init);
            let at = if self.options.hold { 0 } else { pod.containers.len() };
            pod.containers.insert(at, proxy);
        }
        self.volumes(pod, record)?;
        for secret in &self.settings.image_pull_secrets {
            if !pod.pull_secrets.iter().any(|there| name(there) == secret) {
                pod.pull_secrets.push(json!({"name": secret}));
                record.image_pull_secrets.push(secret.clone());
            }
        }
        Ok(())
    }

    fn init(&self) -> Value {
        let Self { options, settings, .. } = self;
        let uid = settings.proxy_uid.to_string();
        let mut args = vec!["init".to_owned(), "--proxy-uid".to_owned(), uid.clone()];
        args.extend(["--proxy-gid".to_owned(), uid]);
        args.extend((!options.capture_dns).then(|| "--no-dns".to_owned()));
        args.extend(options.capture.arguments());
        let keeps_callers = options.mode == InterceptionMode::Tproxy;
        if keeps_callers {
            args.extend(["--mode", "tproxy", "--pod-ips=$(POD_IPS)"].map(str::to_owned));
        }
        let mut init = json!({
            "name": INIT,
            "image": options.image,
            "command": [settings.program],
            "args": args,
            "resources": settings.init_resources,
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"add": settings.init_capabilities, "drop": ["ALL"]},
                "privileged": false,
                "readOnlyRootFilesystem": true,
                "runAsGroup": 0,
                "runAsNonRoot": false,
                "runAsUser": 0,
            },
        });
        if keeps_callers {
            init["env"] = json!([of_pod("POD_IPS", "status.podIPs")]);
        }
        self.pull_policy(&mut init);
        init
    }

    fn proxy(&self, pod: &Pod, native: bool, theirs: Option<&Value>) -> Result<Value, Rejected> {
        let Self { options, settings, .. } = self;
        let ready = json!({"path": "/healthz/ready", "port": PORT_HEALTH});
        let mut proxy = json!({
            "name": PROXY,
            "image": options.image,
            "command": [settings.program],
            "args": ["proxy", "--kubernetes"],
            "env": self.environment(pod, native)?,
            // A name no Service of the user's is likely to call its target: it would mean this port.
            "ports": [{"name": "heddle-metrics", "containerPort": PORT_METRICS, "protocol": "TCP"}],
            "resources": options.resources,
            "securityContext": self.proxy_rights(),
            "startupProbe": {
                "httpGet": ready,
                "periodSeconds": 1,
                "timeoutSeconds": 3,
                "failureThreshold": START_SECONDS_MAX,
            },
            "readinessProbe": {
                "httpGet": ready,
                "initialDelaySeconds": options.readiness.delay_seconds,
                "periodSeconds": options.readiness.period_seconds,
                "timeoutSeconds": 3,
                "failureThreshold": options.readiness.failures,
            },
            "volumeMounts": self.mounts(),
        });
        self.pull_policy(&mut proxy);
        if native {
            proxy["restartPolicy"] = json!("Always");
            // Run when the pod begins to end; SIGTERM comes only after the application has gone.
            let drain = [settings.program.as_str(), "sidecar-drain"];
            proxy["lifecycle"] = json!({"preStop": {"exec": {"command": drain}}});
        } else if options.hold {
            // The kubelet starts the next container once this has ended.
            let wait = [settings.program.as_str(), "sidecar-ready", "--timeout", HOLD_MAX];
            proxy["lifecycle"] = json!({"postStart": {"exec": {"command": wait}}});
        }
        let mut proxy = match theirs {
            Some(theirs) => merge::container(proxy, theirs),
            None => proxy,
        };
        add_memory_limit(&mut proxy);
        Ok(proxy)
    }

    /// None; but who takes its callers' addresses needs a capability, and only root's process is given one. Its group
    /// tells its connections then.
    fn proxy_rights(&self) -> Value {
        let Self { options, settings, .. } = self;
        let mut rights = json!({
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": settings.proxy_uid,
            "runAsNonRoot": true,
            "runAsUser": settings.proxy_uid,
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        if options.mode == InterceptionMode::Tproxy {
            rights["capabilities"]["add"] = json!(settings.tproxy_capabilities);
            rights["runAsNonRoot"] = json!(false);
            rights["runAsUser"] = json!(0);
        }
        rights
    }

    fn environment(&self, pod: &Pod, native: bool) -> Result<Vec<Value>, Rejected> {
        let Self { around, options, settings, probes: asked, .. } = self;
        let value = |name: &str, value: &str| json!({"name": name, "value": value});
        let observer = format!("heddle-observe.{}.svc:{PORT_HEALTH}", settings.namespace);
        let mut env = vec![
            of_pod("POD_NAME", "metadata.name"),
            of_pod("POD_NAMESPACE", "metadata.namespace"),
            of_pod("POD_UID", "metadata.uid"),
            of_pod("POD_IPS", "status.podIPs"),
            of_pod("NODE_NAME", "spec.nodeName"),
            of_pod("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            value("HEDDLE_DISCOVERY_ADDRESS", &options.discovery_address),
            value(OBSERVE_ADDRESS_VARIABLE, &observer),
            value("HEDDLE_TRUST_DOMAIN", &settings.trust_domain),
            value("HEDDLE_CLUSTER_DOMAIN", &settings.cluster_domain),
            value("HEDDLE_REVISION", &settings.revision),
            value("HEDDLE_WORKLOAD_NAME", &identity::workload_name(pod, *around)),
        ];
        if native {
            // Then it is told to end when the application has gone, else together with it.
            env.push(value(NATIVE_SIDECAR_VARIABLE, "true"));
        }
        if options.mode != InterceptionMode::default() {
            env.push(value(INTERCEPTION_VARIABLE, options.mode.name()));
        }
        if let Some(seconds) = options.drain_seconds {
            env.push(value("HEDDLE_TERMINATION_DRAIN", &seconds.to_string()));
        }
        if let Some(count) = options.concurrency {
            env.push(value("HEDDLE_CONCURRENCY", &count.to_string()));
        }
        if let Some(level) = &options.log_level {
            env.push(value("HEDDLE_LOG", level));
        }
        if let Some(get) = &self.app_metrics {
            env.push(value(APP_METRICS_VARIABLE, &json!(get).to_string()));
        }
        if !asked.is_empty() {
            env.push(value(APP_PROBES_VARIABLE, &probes::to_text(asked)?));
        }
        Ok(env)
    }

    fn mounts(&self) -> Vec<Value> {
        let mut mounts = vec![
            json!({"name": VOLUME_TOKEN, "mountPath": "/var/run/secrets/heddle/token", "readOnly": true}),
            json!({"name": VOLUME_CA, "mountPath": "/var/run/secrets/heddle/ca", "readOnly": true}),
            json!({"name": VOLUME_STATE, "mountPath": "/var/lib/heddle"}),
            json!({"name": VOLUME_PODINFO, "mountPath": "/etc/heddle/pod", "readOnly": true}),
        ];
        mounts.extend(self.options.user_mounts.iter().cloned());
        mounts
    }

    fn volumes(&self, pod: &mut Pod, record: &mut Record) -> Result<(), Rejected> {
        let Self { options, settings, .. } = self;
        let token = json!({
            "audience": settings.token_audience,
            "expirationSeconds": settings.token_seconds,
            "path": "heddle-token",
        });
        let info = |part: &str| json!({"path": part, "fieldRef": {"fieldPath": format!("metadata.{part}")}});
        let ours = vec![
            json!({"name": VOLUME_TOKEN, "projected": {"sources": [{"serviceAccountToken": token}]}}),
            json!({"name": VOLUME_CA, "configMap": {"name": settings.root_config_map}}),
            json!({"name": VOLUME_STATE, "emptyDir": {}}),
            json!({"name": VOLUME_PODINFO, "downwardAPI": {"items": [info("labels"), info("annotations")]}}),
        ];
        let users = options.user_volumes.iter().cloned();
        for volume in ours.into_iter().chain(users) {
            let volume_name = name(&volume).to_owned();
            if pod.volumes.iter().any(|there| name(there) == volume_name) {
                let asked = options.user_volumes.iter().any(|user| name(user) == volume_name);
                return Err(Rejected::new(match asked {
                    true => format!(
                        "annotation {}: the pod has a volume `{volume_name}` already: name it otherwise",
                        options.user_volumes_from
                    ),
                    false => format!(
                        "spec.volumes: `{volume_name}` is the name of a volume of the mesh's: name it otherwise"
                    ),
                }));
            }
            record.volumes.push(volume_name);
            pod.volumes.push(volume);
        }
        Ok(())
    }

    fn pull_policy(&self, container: &mut Value) {
        if let Some(policy) = &self.settings.image_pull_policy {
            container["imagePullPolicy"] = json!(policy);
        }
    }
}

/// A variable with what is known of the pod.
fn of_pod(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

/// Takes out the user's container that is meant for one of ours, and notes where it stood.
fn take_one(
    pod: &mut Pod,
    names: [&str; 2],
    record: &mut Record,
) -> Result<Option<Value>, Rejected> {
    let mut found = Vec::new();
    for is_init in [false, true] {
        let list = if is_init { &mut pod.init_containers } else { &mut pod.containers };
        let (taken, kept) = std::mem::take(list)
            .into_iter()
            .partition(|container| names.contains(&name(container)));
        *list = kept;
        let taken: Vec<Value> = taken;
        found.extend(taken.into_iter().map(|container| Override { is_init, container }));
    }
    if found.len() > 1 {
        return Err(Rejected::new(format!(
            "several containers named `{}` or `{}`: one can be merged into the mesh's own",
            names[0], names[1]
        )));
    }
    let theirs = found.first().map(|found| found.container.clone());
    record.overrides.extend(found);
    Ok(theirs)
}

/// How much memory the container may have is known to the kubelet; without a limit it would say the node's.
fn add_memory_limit(proxy: &mut Value) {
    let limits = proxy.get("resources").and_then(|resources| resources.get("limits"));
    if limits.and_then(|limits| limits.get("memory")).is_none() {
        return;
    }
    if let Some(Value::Array(env)) = proxy.get_mut("env") {
        let limit = json!({"resource": "limits.memory", "divisor": "1"});
        let variable = "HEDDLE_MEMORY_LIMIT";
        if !env.iter().any(|there| name(there) == variable) {
            env.push(json!({"name": variable, "valueFrom": {"resourceFieldRef": limit}}));
        }
    }
}
