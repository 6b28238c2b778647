//! Which installations a cluster has: each keeps its settings in a ConfigMap of its own namespace.

use heddle_model::yaml;
use kube::{
    Api,
    api::{DynamicObject, ListParams},
};
use serde_json::{Value, json};

use super::{Cluster, InstallationError, Mode, PART_OF, failed, resource};
use crate::{
    injection::InjectionSettings,
    revision::{AUTHORITY, SETTINGS, labels},
};

/// One installation.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its namespace.
    pub namespace: String,
    /// How it injects; its revision, image and trust domain among it.
    pub settings: InjectionSettings,
    /// The same as it is written there.
    pub written: Value,
}

impl Found {
    /// What labels call it by.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.settings.revision
    }
}

/// All installations, by revision.
///
/// # Errors
/// The cluster did not say, or settings cannot be read.
pub async fn installations(cluster: &Cluster) -> Result<Vec<Found>, InstallationError> {
    let (name, _) = SETTINGS;
    let (key, value) = PART_OF;
    let all: Api<DynamicObject> =
        Api::all_with(cluster.client.clone(), &resource("v1", "ConfigMap"));
    // By its name alone it could be anybody's.
    let which = ListParams::default()
        .labels(&format!("{key}={value}"))
        .fields(&format!("metadata.name={name}"));
    let maps = all.list(&which).await;
    let maps = maps.map_err(|e| failed("look for installations of the mesh", &e))?;
    let mut found = maps.items.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    found.sort_by(|one, other| one.revision().cmp(other.revision()));
    Ok(found)
}

fn read(map: DynamicObject) -> Result<Found, InstallationError> {
    let (name, key) = SETTINGS;
    let namespace = map.metadata.namespace.unwrap_or_default();
    let text = map.data.pointer(&format!("/data/{key}")).and_then(Value::as_str);
    let file = format!("ConfigMap {namespace}/{name}, {key}");
    let text = text.unwrap_or_default();
    let settings = InjectionSettings::from_yaml(&file, text)
        .map_err(|error| InstallationError(error.to_string()))?;
    let documents = yaml::documents(&file, text).unwrap_or_default().into_iter();
    let written = documents.map(|document| document.value).next().unwrap_or_else(|| json!({}));
    Ok(Found { namespace, settings, written })
}

/// Gives a new installation the authority of another, so that the pods of both believe each other; `false`: it has
/// one already, or the other has none.
///
/// # Errors
/// What the cluster refused.
pub async fn share_authority(
    cluster: &Cluster,
    from: &Found,
    (namespace, revision): (&str, &str),
    mode: Mode,
) -> Result<bool, InstallationError> {
    let (name, keys) = AUTHORITY;
    let secret = |namespace: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}});
    if cluster.has(&secret(namespace)).await? {
        return Ok(false);
    }
    let Some(theirs) = cluster.get(&secret(&from.namespace)).await? else { return Ok(false) };
    let mut ours = secret(namespace);
    ours["metadata"]["labels"] = labels(revision);
    ours["type"] = json!("Opaque");
    for key in keys {
        ours["data"][key] = theirs["data"][key].clone();
    }
    cluster.apply(&ours, mode).await.map(|()| true)
}
