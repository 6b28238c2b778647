//! Which kinds of rules the API server serves, and in which version: Istio's, the Gateway API's and our own
//! may be installed, or not yet, or not any more.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use super::client::{Api, ApiError, Kind};

/// How often is looked for kinds that came.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(10);

type Wanted = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

/// Kinds that are read as rules: group, versions we can read with the best first, and kinds with their plurals.
const WANTED: &[Wanted] = &[
    (
        "networking.istio.io",
        &["v1", "v1beta1", "v1alpha3"],
        &[
            ("VirtualService", "virtualservices"),
            ("DestinationRule", "destinationrules"),
            ("ServiceEntry", "serviceentries"),
            ("WorkloadEntry", "workloadentries"),
            ("Sidecar", "sidecars"),
        ],
    ),
    (
        "gateway.networking.k8s.io",
        &["v1", "v1beta1", "v1alpha3", "v1alpha2"],
        &[
            ("HTTPRoute", "httproutes"),
            ("GRPCRoute", "grpcroutes"),
            ("TLSRoute", "tlsroutes"),
            ("TCPRoute", "tcproutes"),
        ],
    ),
    ("telemetry.istio.io", &["v1", "v1alpha1"], &[("Telemetry", "telemetries")]),
    ("heddle.dev", &["v1alpha1"], &[("Fault", "faults"), ("MeshConfig", "meshconfigs")]),
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Group {
    name: String,
    versions: Vec<Version>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Version {
    version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    resources: Vec<Resource>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resource {
    name: String,
}

/// The kinds of rules that are served, each in the best version that we can read.
///
/// # Errors
/// [`ApiError`]: it could not be asked.
pub(crate) async fn served(api: &Api) -> Result<Vec<Kind>, ApiError> {
    let groups: Groups = read(api.get("API groups", "/apis").await?)?;
    let mut found = Vec::new();
    for (group, readable, kinds) in WANTED {
        let Some(served) = groups.groups.iter().find(|one| one.name == *group) else { continue };
        let mut resources = BTreeMap::new();
        for version in readable.iter().filter(|version| served.serves(version)) {
            let path = format!("/apis/{group}/{version}");
            let told: Resources = match api.get("API resources", &path).await {
                Ok(told) => read(told)?,
                // It went between the two questions.
                Err(ApiError::NotFound(_)) => continue,
                Err(error) => return Err(error),
            };
            for resource in told.resources {
                resources.entry(resource.name).or_insert(*version);
            }
        }
        found.extend(kinds.iter().filter_map(|(kind, plural)| {
            let version = resources.get(*plural)?;
            Some(Kind::new(group, version, kind, plural))
        }));
    }
    Ok(found)
}

impl Group {
    fn serves(&self, version: &str) -> bool {
        self.versions.iter().any(|one| one.version == version)
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|error| ApiError::Unanswered(error.to_string()))
}
