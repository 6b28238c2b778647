//! Prometheus HTTP service discovery: every sidecar as a target a Prometheus on the host can reach.
//!
//! The host has no route into the mesh, so a target is the dashboard's own address, as the asker
//! called it, with the sidecar's metrics passed through under `__metrics_path__`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::roster::Roster;

/// One group of the answer, as Prometheus' `http_sd_config` reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TargetGroup {
    targets: Vec<String>,
    labels: BTreeMap<&'static str, String>,
}

/// All sidecars that are there now. `host` is what the asker reached the dashboard by.
pub(crate) fn targets(roster: &Roster, mesh: &str, host: &str) -> Vec<TargetGroup> {
    let group = |member: &crate::roster::Member| {
        let id = &member.owner.id;
        let labels = [
            ("__metrics_path__", format!("/sidecars/{id}/stats/prometheus")),
            // All targets have one address, so that cannot tell them apart.
            ("instance", id.clone()),
            ("mesh", mesh.to_owned()),
            ("namespace", member.owner.service.namespace.clone()),
            ("service", member.owner.service.name.clone()),
            ("version", member.owner.version.clone()),
            ("workload", member.name.clone()),
        ];
        TargetGroup { targets: vec![host.to_owned()], labels: labels.into() }
    };
    roster.present().map(group).collect()
}
