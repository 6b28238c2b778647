//! What a sidecar would be told of one callee, for people who ask without one: the very resources, as they would be
//! sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use axum::http::StatusCode;
use heddle_compile::Client;
use heddle_model::{
    Identity, Locality, Owner, ServiceName, Workload, WorkloadId, name::check_label,
};
use heddle_wire::{
    discovery::{self as wire, MESH_NAME, Resource, ResourceType as Kind},
    local::control_api::{ClientView, ViewedResource},
};
use serde::Deserialize;

use super::{Control, unknown};
use crate::{
    error::Refused,
    session::{Current as _, Encoded},
    views::{ClientResources, encoded},
};

/// Of whom, and about whom.
#[derive(Debug, Deserialize)]
pub(crate) struct ViewQuery {
    /// The workload that calls; absent: any of the namespace.
    workload: Option<String>,
    /// Its namespace, where no workload is named.
    namespace: Option<String>,
    /// Whom it names: a host, or an address.
    host: String,
}

impl Control {
    /// What a client would be told.
    pub(crate) fn viewed(&self, query: &ViewQuery) -> Result<ClientView, Refused> {
        let mut mesh = self.mesh();
        let client = match (&query.workload, &query.namespace) {
            (Some(id), _) => {
                let id = WorkloadId(id.clone());
                mesh.registry().workloads.get(&id).cloned().ok_or_else(|| unknown(&id))?
            }
            (None, Some(namespace)) => anybody(namespace)?,
            (None, None) => {
                let reason = "say whose view is asked for: `workload`, or a `namespace`";
                return Err(Refused::new(StatusCode::BAD_REQUEST, reason));
            }
        };
        let host = query.host.trim_end_matches('.').to_ascii_lowercase();
        let generation = mesh.generations.newest();
        let mut resources = mesh.as_told(&client, |told| of_host(told, &client, &host));
        if query.workload.is_none() {
            // No labels are known: what depends on them is told as if it held.
            let any = Client::any_of(&client.namespace);
            for one in &mut resources {
                if one.kind == Kind::Destination.type_url()
                    && let Some(service) = ServiceName::from_unique(&one.name)
                    && let Some(all) = mesh.index.destination(mesh.registry(), any, &service)
                {
                    one.body = hexadecimal(&encoded(&all).bytes);
                }
            }
        }
        Ok(ClientView { generation, workload: client, resources })
    }
}

/// A client of this namespace, with nothing known of it.
fn anybody(namespace: &str) -> Result<Workload, Refused> {
    check_label(namespace).map_err(|error| {
        Refused::new(StatusCode::BAD_REQUEST, format!("`{namespace}` is no namespace: {error}"))
    })?;
    Ok(Workload {
        id: WorkloadId(format!("any of {namespace}")),
        name: "any".to_owned(),
        namespace: namespace.to_owned(),
        identity: Identity::local(namespace, "any"),
        services: BTreeSet::new(),
        version: String::new(),
        labels: BTreeMap::new(),
        addresses: IpAddr::V4(Ipv4Addr::UNSPECIFIED).into(),
        ports: BTreeMap::new(),
        locality: Locality::default(),
    })
}

/// What a call of `host` needs to be known: whom it means, its rules, and who is behind all that they name.
fn of_host(told: &mut ClientResources<'_>, client: &Workload, host: &str) -> Vec<ViewedResource> {
    let mut found = Vec::new();
    let mut take = |told: &mut ClientResources<'_>, kind: Kind, name: &str| {
        let resource = told.resource(kind, name)?;
        found.push(viewed(kind, name, &resource));
        wire::decode(kind.type_url(), name, &resource.bytes).ok()
    };
    take(told, Kind::Mesh, MESH_NAME);
    take(told, Kind::Inbound, &client.id.0);
    let service = match host.parse() {
        Ok(ip) => match take(told, Kind::Address, &wire::address_name(ip)) {
            Some(Resource::Address(address)) => match address.owner {
                Owner::Service(service) => Some(service),
                _ => None,
            },
            _ => None,
        },
        Err(_) => match take(told, Kind::Name, &wire::host_name(&client.namespace, host)) {
            Some(Resource::Name(answer)) => answer.service.map(|service| {
                for ip in service.vips {
                    take(told, Kind::Address, &wire::address_name(ip));
                }
                service.name
            }),
            _ => None,
        },
    };
    if let Some(service) = service {
        let name = wire::service_name(&service);
        take(told, Kind::Destination, &name);
        for backend in told.backends(&name).iter() {
            take(told, Kind::Endpoints, backend);
        }
    }
    found
}

fn viewed(kind: Kind, name: &str, resource: &Encoded) -> ViewedResource {
    ViewedResource {
        kind: kind.type_url().to_owned(),
        name: name.to_owned(),
        body: hexadecimal(&resource.bytes),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
