//! Which sidecars a tap concerns, and whose an address is.

use std::collections::HashMap;

use heddle_model::{ServiceName, Workload, discovery::WorkloadInfo};
use heddle_wire::local::{
    control_api::WorkloadView,
    tap_api::{Name, Party, Side},
};

use super::ways::Asked;

/// As which side the sidecar of a workload is listened to, `None` within for both; `None`: it is not concerned.
pub(super) fn sides(view: &WorkloadView, asked: &Asked) -> Option<Option<Side>> {
    let workload = &view.workload;
    let filter = &asked.filter;
    let serves = filter.to.as_ref().is_none_or(|to| is(to, workload))
        && filter.namespace.as_ref().is_none_or(|one| {
            *one == workload.namespace
                || workload.services.iter().any(|service| service.namespace == *one)
        });
    let calls = filter.from.as_ref().is_none_or(|from| is(from, workload));
    let server = serves && asked.sides.has(Side::Server);
    let client = calls && asked.sides.has(Side::Client);
    match (server, client) {
        (true, true) => Some(None),
        (true, false) => Some(Some(Side::Server)),
        (false, true) => Some(Some(Side::Client)),
        (false, false) => None,
    }
}

/// Is a workload meant by this name: its own, or that of a service it belongs to?
pub(super) fn is(name: &Name, workload: &Workload) -> bool {
    let own = [None, Some(workload.name.as_str()), Some(workload.id.0.as_str())];
    let of_service = |service: &ServiceName| {
        name.means([Some(&service.fqdn()), None, None], Some(&service.namespace))
    };
    name.means(own, Some(&workload.namespace)) || workload.services.iter().any(of_service)
}

/// Whose addresses are whose.
#[derive(Debug, Default)]
pub(super) struct Who {
    by_address: HashMap<String, Party>,
    /// Has everybody a sidecar?
    pub(super) all_have_sidecars: bool,
}

impl Who {
    pub(super) fn of(workloads: &[WorkloadView]) -> Self {
        let mut by_address = HashMap::new();
        for WorkloadView { workload, .. } in workloads {
            let info = WorkloadInfo::from(workload);
            let party = Party {
                service: info.first_service().map(ServiceName::fqdn),
                workload: Some(workload.name.clone()),
                id: Some(workload.id.0.clone()),
                namespace: Some(workload.namespace.clone()),
                version: Some(workload.version.clone()).filter(|version| !version.is_empty()),
                address: None,
            };
            for ip in workload.addresses.iter() {
                by_address.insert(ip.to_string(), party.clone());
            }
        }
        Self { by_address, all_have_sidecars: workloads.iter().all(|view| view.sidecar) }
    }

    /// Fills in who somebody is of whom only the address is known.
    pub(super) fn complete(&self, party: &mut Party) {
        let Some(address) = party.address.as_deref() else { return };
        let ip = match address.parse::<std::net::SocketAddr>() {
            Ok(at) => at.ip().to_string(),
            Err(_) => address.to_owned(),
        };
        if let Some(known) = self.by_address.get(&ip) {
            *party = Party { address: party.address.take(), ..known.clone() };
        }
    }
}
