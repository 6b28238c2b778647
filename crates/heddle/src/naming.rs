//! Services and workloads as people name them, with what may be meant by a name that nobody has.

use heddle_model::{Service, ServiceName, ServicePort, name::check_label};
use heddle_wire::local::control_api::{ServiceView, WorkloadView};

use crate::{failure::Failure, rules::made::unknown};

/// The service that `written` names, as seen from `namespace`.
///
/// # Errors
/// Nobody has that name: which ones may be meant. `flag` is where it was written.
pub(crate) fn service<'a>(
    all: &'a [ServiceView],
    written: &str,
    namespace: &str,
    flag: &str,
) -> Result<&'a Service, Failure> {
    let host = written.trim_end_matches('.').to_ascii_lowercase();
    let of_mesh = ServiceName::resolve(&host, namespace).ok();
    let services = || all.iter().map(|view| &view.service);
    let found = services().find(|one| Some(&one.name) == of_mesh.as_ref());
    let found =
        found.or_else(|| services().find(|one| one.name.is_host() && one.name.name == host));
    found.ok_or_else(|| no_such(all, &host, of_mesh.as_ref(), flag))
}

fn no_such(all: &[ServiceView], written: &str, meant: Option<&ServiceName>, flag: &str) -> Failure {
    let Some(meant) = meant else {
        let known = names(all, None);
        return Failure::refused(format!(
            "{flag}: {}",
            unknown(&format!("service `{written}`"), written, &known)
        ));
    };
    let elsewhere = all.iter().map(|view| &view.service.name);
    let elsewhere: Vec<_> =
        elsewhere.filter(|one| one.name == meant.name && !one.is_host()).map(short).collect();
    let what = format!("service `{}` in namespace `{}`", meant.name, meant.namespace);
    if !elsewhere.is_empty() {
        return Failure::refused(format!(
            "{flag}: there is no {what}; did you mean `{}`?",
            elsewhere.join("` or `")
        ));
    }
    let known = names(all, Some(&meant.namespace));
    Failure::refused(format!("{flag}: {}", unknown(&what, &meant.name, &known)))
}

fn names<'a>(all: &'a [ServiceView], namespace: Option<&str>) -> Vec<&'a str> {
    let names = all.iter().map(|view| &view.service.name);
    let here = names.filter(|one| namespace.is_none_or(|namespace| one.namespace == namespace));
    here.map(|one| one.name.as_str()).collect()
}

/// `reviews.default`, or a host.
pub(crate) fn short(service: &ServiceName) -> String {
    match service.is_host() {
        true => service.name.clone(),
        false => format!("{}.{}", service.name, service.namespace),
    }
}

/// A port with its name and what it speaks.
pub(crate) fn named_port(port: &ServicePort) -> String {
    let parts = [port.name.as_str(), port.protocol.as_str()];
    let known: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{} ({})", port.number, known.join(", "))
}

/// The object that a rule is part of: `kind/namespace/name`.
pub(crate) fn object(rule: &str) -> &str {
    rule.split('#').next().unwrap_or(rule)
}

/// Whoever `written` names: a workload by its id or name, or those of a service.
///
/// # Errors
/// Nobody has that name: which ones may be meant.
pub(crate) fn callers<'a>(
    all: &'a [WorkloadView],
    written: &str,
    namespace: &str,
    flag: &str,
) -> Result<Vec<&'a WorkloadView>, Failure> {
    let named = |one: &&WorkloadView| one.workload.id.0 == written;
    if let Some(one) = all.iter().find(named) {
        return Ok(vec![one]);
    }
    let (name, of) = match written.split_once('.') {
        Some((name, of)) => {
            (name, of.trim_end_matches(".svc.cluster.local").trim_end_matches(".svc"))
        }
        None => (written, namespace),
    };
    let here = || all.iter().filter(|view| view.workload.namespace == of);
    let by =
        |fits: &dyn Fn(&WorkloadView) -> bool| here().filter(|view| fits(view)).collect::<Vec<_>>();
    let of_service = by(&|view| {
        view.workload.services.iter().any(|one| one.name == name && one.namespace == of)
    });
    if !of_service.is_empty() {
        return Ok(of_service);
    }
    let pod = format!("{of}.{name}");
    let of_name = by(&|view| view.workload.name == name || view.workload.id.0 == pod);
    if !of_name.is_empty() {
        return Ok(of_name);
    }
    check_label(name).map_err(|error| Failure::usage(format!("{flag}: `{written}`: {error}")))?;
    let mut known: Vec<&str> = here()
        .flat_map(|view| view.workload.services.iter().map(|one| one.name.as_str()))
        .chain(here().map(|view| view.workload.name.as_str()))
        .collect();
    known.sort_unstable();
    known.dedup();
    let what = format!("service or workload `{name}` in namespace `{of}`");
    Err(Failure::refused(format!("{flag}: {}", unknown(&what, name, &known))))
}
