//! `heddle explain`: what would become of a call, as the caller's own sidecar says it; where that cannot be asked, as the
//! same code says it of what the control plane would tell it.

mod complete;
pub(crate) mod text;

use std::{collections::BTreeMap, net::IpAddr};

use heddle_model::{ServiceName, Workload, WorkloadId, name::service_suffix};
use heddle_proxy::explain::as_told;
use heddle_runtime::local_http::Method;
use heddle_wire::{
    discovery,
    local::{
        app_probes::AppProbes,
        control_api::{ClientView, ResourceView, ServiceView, WorkloadView},
        proxy_config::{Local, Pod, ProxyConfig, SecureControl, Surroundings, VirtualRanges},
        sidecar_api::{ExplainRequest, Explanation},
    },
};
use serde::Serialize;

use crate::{
    chosen::Chosen,
    cli::{
        Output,
        asking::{Callee, ExplainArgs},
    },
    failure::{Doing as _, Failure},
    naming::{self, named_port, object},
    output, sidecars,
};

/// Sidecars of a service that are asked, one after the other, until one answers.
const TRIES: usize = 3;

/// An explanation, and where its rules come from.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    explanation: Explanation,
    /// Of each rule that is named: `apply`, a file, or the cluster.
    sources: BTreeMap<String, String>,
}

/// `heddle explain`.
///
/// # Errors
/// A refusal that names the flag, and what would be right.
pub(crate) async fn explain(args: ExplainArgs) -> Result<(), Failure> {
    let mesh = Chosen::of(&args.mesh).await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| mesh.namespace().to_owned());
    let workloads = mesh.workloads().await?;
    let services: Vec<ServiceView> = mesh.get("/v1/services").await?;
    let callers = naming::callers(&workloads, &args.from, &namespace, "--from")?;
    let of = callers.first().map_or(namespace.as_str(), |one| &one.workload.namespace);
    let port = port(&services, &args.to, of)?;
    let request = ExplainRequest {
        host: args.to.host.clone(),
        port,
        method: args.method.clone(),
        path: args.path.clone(),
        headers: args.headers.clone(),
        sni: args.sni.clone(),
    };
    let mut explanation = explained(&mesh, &callers, &request).await?;
    complete::not_ready(&mut explanation, &services, &workloads);
    let sources = sources(&mesh, &explanation).await?;
    match args.output {
        Output::Json => output::json(&Told { explanation, sources }),
        Output::Text => {
            output::line(text::of(&explanation, &sources));
            Ok(())
        }
    }
}

/// The port that is meant, where the callee is a service of the mesh one that it has.
fn port(services: &[ServiceView], to: &Callee, namespace: &str) -> Result<u16, Failure> {
    let service = match is_outside(services, &to.host, namespace) {
        true => None,
        false => Some(naming::service(services, &to.host, namespace, "--to")?),
    };
    let Some(service) = service else {
        return to.port.ok_or_else(|| {
            let host = &to.host;
            Failure::usage(format!("--to: `{host}` is no service of the mesh, so its port has to be said: {host}:443, say"))
        });
    };
    let ports: Vec<String> = service.ports.values().map(named_port).collect();
    let called = naming::short(&service.name);
    match to.port {
        Some(port) if service.ports.contains_key(&port) => Ok(port),
        Some(port) => Err(Failure::refused(format!(
            "--to: {called} has no port {port}; it has {}",
            ports.join(", ")
        ))),
        None => match service.ports.keys().collect::<Vec<_>>()[..] {
            [only] => Ok(*only),
            _ => Err(Failure::usage(format!(
                "--to: {called} has the ports {}: say which one, as in {}:{}",
                ports.join(", "),
                to.host,
                service.ports.keys().next().unwrap_or(&80)
            ))),
        },
    }
}

/// Is it nothing that the mesh could have? An address, or a name of another form than its own.
fn is_outside(services: &[ServiceView], host: &str, namespace: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let names = || services.iter().map(|view| &view.service.name);
    if names().any(|one| one.is_host() && one.name == host) {
        return false;
    }
    let Ok(meant) = ServiceName::resolve(&host, namespace) else { return true };
    let by_form = !host.contains('.') || host.ends_with(".svc") || host.ends_with(service_suffix());
    !by_form && !names().any(|one| one.namespace == meant.namespace && !one.is_host())
}

async fn explained(
    mesh: &Chosen,
    callers: &[&WorkloadView],
    request: &ExplainRequest,
) -> Result<Explanation, Failure> {
    let mut silent = None;
    let live = callers.iter().filter(|view| view.sidecar && view.connected);
    for caller in live.take(TRIES) {
        match sidecars::ask(mesh, caller, (Method::POST, "/explain"), Some(request)).await {
            Ok(told) => return Ok(told),
            Err(failure) => silent = Some(failure),
        }
    }
    let Some(caller) = callers.iter().find(|view| view.sidecar).or_else(|| callers.first()) else {
        return Err(Failure::refused("nobody is there who could call"));
    };
    let id = &caller.workload.id;
    if !caller.sidecar {
        return Err(Failure::refused(format!(
            "{id} has no sidecar: no rule of the mesh holds for its calls (`heddle inject` and docs/kubernetes.md say how it gets one)"
        )));
    }
    let mut told = by_control(mesh, id, request).await?;
    let why =
        silent.map_or_else(|| format!("the sidecar of {id} is not connected"), |one| one.message);
    told.notes.push(format!(
        "this is by what the control plane would tell the sidecar of {id}, since that was not asked ({why}): who is out for errors is not known"
    ));
    Ok(told)
}

async fn by_control(
    mesh: &Chosen,
    caller: &WorkloadId,
    request: &ExplainRequest,
) -> Result<Explanation, Failure> {
    let host = &request.host;
    let view: ClientView = mesh.get(&format!("/v1/view?workload={caller}&host={host}")).await?;
    let resources = decoded(&view)?;
    let config = config(mesh, &view.workload);
    as_told(config, resources, view.generation, request)
        .await
        .map_err(|reason| Failure::refused(format!("the rules cannot be read: {reason}")))
}

/// The resources of a view.
///
/// # Errors
/// One of them cannot be read: this version is another than the control plane's.
pub(crate) fn decoded(view: &ClientView) -> Result<Vec<discovery::Resource>, Failure> {
    let one = |resource: &heddle_wire::local::control_api::ViewedResource| {
        let bytes = (0..resource.body.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(resource.body.get(at..at + 2).unwrap_or("-"), 16))
            .collect::<Result<Vec<u8>, _>>();
        let bytes = bytes.doing(|| format!("read {}", resource.name))?;
        discovery::decode(&resource.kind, &resource.name, &bytes)
            .doing(|| format!("read {}", resource.name))
    };
    view.resources.iter().map(one).collect()
}

/// A sidecar as this workload would have it, for what it has to know of itself.
fn config(mesh: &Chosen, workload: &Workload) -> ProxyConfig {
    let service = workload.first_service();
    let surroundings = match mesh {
        Chosen::Local(_) => {
            let ranges = heddle_control::AddressRanges::default();
            Surroundings::Local(Local {
                discovery_socket: Default::default(),
                holder_socket: None,
                mark: None,
                published: BTreeMap::new(),
                kept: Vec::new(),
                keeper_fd: None,
                host_ports: Vec::new(),
                admin_socket: None,
                ranges: VirtualRanges {
                    v4: ranges.vip_v4,
                    v6: ranges.vip_v6,
                    host_gateway: ranges.host_gateway(),
                },
            })
        }
        Chosen::Cluster(_) => Surroundings::Pod(Pod {
            control: SecureControl {
                host: String::new(),
                port: 0,
                roots: Default::default(),
                token: Default::default(),
            },
            resolv_conf: Default::default(),
            identity: workload.identity.clone(),
            uid: String::new(),
            node: String::new(),
            native: false,
            observer: None,
            drain_seconds: 0,
            keeps_callers: false,
        }),
    };
    ProxyConfig {
        mesh: String::new(),
        workload: workload.id.clone(),
        name: workload.name.clone(),
        namespace: workload.namespace.clone(),
        service: service.map(|service| service.name.clone()).unwrap_or_default(),
        version: workload.version.clone(),
        labels: workload.labels.clone(),
        addresses: workload.addresses,
        ports: workload.ports.values().map(|port| (port.number, port.protocol)).collect(),
        workers: 1,
        state_dir: Default::default(),
        memory_limit: None,
        app_probes: AppProbes::new(),
        app_metrics: None,
        ready_fd: None,
        surroundings,
    }
}

/// Where the rules come from that an explanation names.
async fn sources(mesh: &Chosen, told: &Explanation) -> Result<BTreeMap<String, String>, Failure> {
    let targets = told.targets.iter();
    let rules = told
        .rule
        .iter()
        .map(|rule| &rule.rule)
        .chain(told.tried.iter().map(|tried| &tried.rule))
        .chain(told.faults.iter().map(|fault| &fault.rule))
        .chain(told.refusal.iter().filter_map(|refusal| refusal.rule.as_ref()))
        .chain(targets.filter_map(|target| target.policy.as_ref()));
    let rules: Vec<&String> = rules.collect();
    match rules.is_empty() {
        true => Ok(BTreeMap::new()),
        false => sources_of(mesh, &rules).await,
    }
}

/// Where each of these rules comes from, by `kind/namespace/name`.
///
/// # Errors
/// The control plane does not say.
pub(crate) async fn sources_of(
    mesh: &Chosen,
    rules: &[&String],
) -> Result<BTreeMap<String, String>, Failure> {
    let all: Vec<ResourceView> = mesh.get("/v1/resources").await?;
    let keys = all.into_iter().map(|view| (view.key.to_string(), view.source));
    let named = |key: &String| rules.iter().any(|rule| object(rule) == key);
    Ok(keys.filter(|(key, _)| named(key)).collect())
}
