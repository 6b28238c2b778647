//! Rules of a cluster, written and taken away as `kubectl` would: the API server is their store, and its webhook says
//! what it does not take.

use heddle_model::{ResourceKey, yaml};
use heddle_runtime::clock;
use kube::{
    Api, Error,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions},
    core::GroupVersionKind,
};
use serde_json::Value;

use super::{
    cluster::Reach,
    error::{ANSWER_WAIT, ReachError},
    explain,
};

/// Who owns the fields that are written here.
const FIELD_MANAGER: &str = "heddle-cli";
/// How the API server begins what a webhook says.
const BY_WEBHOOK: &str = "admission webhook ";
/// What of an object's kind is there once for the whole cluster.
const CLUSTER_WIDE: [&str; 1] = ["GatewayClass"];

/// An object to be written.
#[derive(Debug, Clone)]
pub struct Object {
    /// Which.
    pub key: ResourceKey,
    /// Its `apiVersion`.
    pub api_version: String,
    /// The whole of it, its namespace among it.
    pub value: Value,
}

/// How it is written.
#[derive(Debug, Clone, Copy)]
pub struct Put {
    /// The API server checks everything and keeps nothing.
    pub dry_run: bool,
    /// Fields that somebody else wrote are taken over.
    pub force: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It is new, of this version.
    Created(String),
    /// It is another now, of this version.
    Changed(String),
    /// It is as it was, of this version.
    Unchanged(String),
}

impl Reach {
    /// Writes an object, server-side.
    ///
    /// # Errors
    /// What the API server, or the mesh's webhook, has against it.
    pub async fn put(&self, object: &Object, how: Put) -> Result<Written, ReachError> {
        let Object { key, api_version, value } = object;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let api = self.rules(group, version, key);
        let before = self.look(&api, key, group).await?;
        let mut parameters = PatchParams::apply(FIELD_MANAGER);
        parameters.dry_run = how.dry_run;
        parameters.force = how.force;
        let patch = Patch::Apply(value);
        let asked = clock::within(ANSWER_WAIT, api.patch(&key.name, &parameters, &patch)).await;
        let after = match asked {
            Some(Ok(after)) => after.metadata.resource_version.unwrap_or_default(),
            Some(Err(error)) => return Err(self.refused("patch", key, group, &error)),
            None => return Err(explain::late(self.place(), &format!("apply {key}"))),
        };
        Ok(match before {
            None => Written::Created(after),
            Some(version) if version == after => Written::Unchanged(after),
            Some(_) => Written::Changed(after),
        })
    }

    /// Takes an object away. It must be there.
    ///
    /// # Errors
    /// It is not there, or may not be deleted.
    pub async fn delete(&self, key: &ResourceKey, dry_run: bool) -> Result<(), ReachError> {
        let (api, group) = self.of_key(key).await?;
        let mut parameters = DeleteParams { dry_run, ..DeleteParams::default() };
        let found = clock::within(ANSWER_WAIT, api.get(&key.name)).await;
        let found = match found {
            Some(Ok(found)) => found,
            Some(Err(error)) => return Err(self.refused("get", key, group, &error)),
            None => return Err(explain::late(self.place(), &format!("look for {key}"))),
        };
        // Not one that another makes in its place meanwhile.
        parameters.preconditions =
            Some(Preconditions { uid: found.metadata.uid, resource_version: None });
        match clock::within(ANSWER_WAIT, api.delete(&key.name, &parameters)).await {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(self.refused("delete", key, group, &error)),
            None => Err(explain::late(self.place(), &format!("delete {key}"))),
        }
    }

    /// The objects beside this one, in the version that the API server likes best.
    async fn of_key(
        &self,
        key: &ResourceKey,
    ) -> Result<(Api<DynamicObject>, &'static str), ReachError> {
        let group =
            yaml::group_of(&key.kind).filter(|group| !group.is_empty()).ok_or_else(|| {
                ReachError::last(format!("{key} is the cluster's own: delete it with kubectl"))
            })?;
        let groups = match clock::within(ANSWER_WAIT, self.client.list_api_groups()).await {
            Some(Ok(groups)) => groups.groups,
            Some(Err(error)) => {
                let right = explain::Right { verb: "get", what: "API groups", namespace: None };
                return Err(explain::error(self.place(), "ask for API groups", right, &error));
            }
            None => return Err(explain::late(self.place(), "ask for API groups")),
        };
        let served = groups.into_iter().find(|one| one.name == group);
        let version = served.and_then(|one| {
            let first = one.versions.into_iter().next();
            one.preferred_version.or(first).map(|version| version.version)
        });
        let version = version.ok_or_else(|| self.unknown_kind(key, group))?;
        Ok((self.rules(group, &version, key), group))
    }

    fn rules(&self, group: &str, version: &str, key: &ResourceKey) -> Api<DynamicObject> {
        let kind = bare(&key.kind);
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match CLUSTER_WIDE.contains(&kind) {
            true => Api::all_with(self.client.clone(), &resource),
            false => Api::namespaced_with(self.client.clone(), &key.namespace, &resource),
        }
    }

    /// The version of an object, if it is there.
    async fn look(
        &self,
        api: &Api<DynamicObject>,
        key: &ResourceKey,
        group: &str,
    ) -> Result<Option<String>, ReachError> {
        match clock::within(ANSWER_WAIT, api.get_metadata_opt(&key.name)).await {
            Some(Ok(found)) => {
                Ok(found.map(|found| found.metadata.resource_version.unwrap_or_default()))
            }
            Some(Err(error)) => Err(self.refused("get", key, group, &error)),
            None => Err(explain::late(self.place(), &format!("look for {key}"))),
        }
    }

    fn unknown_kind(&self, key: &ResourceKey, group: &str) -> ReachError {
        ReachError::last(format!(
            "the cluster of context `{}` does not know the kind {} of {group}: `heddle install` defines it",
            self.context(),
            bare(&key.kind)
        ))
    }

    fn refused(
        &self,
        verb: &'static str,
        key: &ResourceKey,
        group: &str,
        error: &Error,
    ) -> ReachError {
        let plural =
            ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", bare(&key.kind))).plural;
        match explain::status(error) {
            Some((_, said)) if said.starts_with(BY_WEBHOOK) => {
                ReachError::passing(by_webhook(&said))
            }
            Some((404, said)) if said.starts_with("namespaces ") => ReachError::passing(format!(
                "there is no namespace `{}` in the cluster of context `{}`",
                key.namespace,
                self.context()
            )),
            // Of an object that is not there the server names the kind, of a kind that is not there nothing.
            Some((404, said)) if said.contains(&format!("{:?} not found", key.name)) => {
                ReachError::passing(format!("there is no {key}"))
            }
            Some((404, _)) => self.unknown_kind(key, group),
            Some((409, said)) => ReachError::passing(format!(
                "{said}: change it there, or take these fields over with --force"
            )),
            _ => {
                let what = format!("{plural}.{group}");
                let right = explain::Right { verb, what: &what, namespace: Some(&key.namespace) };
                explain::error(self.place(), &format!("{verb} {key}"), right, error)
            }
        }
    }
}

/// The kind without its group, which keys of some kinds have.
fn bare(kind: &str) -> &str {
    kind.split_once('.').map_or(kind, |(kind, _)| kind)
}

/// What a webhook said, without what the API server puts before it where the webhook is the mesh's own.
fn by_webhook(said: &str) -> String {
    let own = said.split_once("denied the request: ").filter(|(by, _)| by.contains("heddle.dev"));
    own.map_or(said, |(_, reason)| reason).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meshs_own_webhook_is_heard_without_ado_and_others_are_named() {
        let own = "admission webhook \"validator.heddle.dev\" denied the request: spec.http[0]: no";
        assert_eq!(by_webhook(own), "spec.http[0]: no");
        let other = "admission webhook \"policy.example\" denied the request: no";
        assert_eq!(by_webhook(other), other);
    }

    #[test]
    fn a_kind_that_goes_by_its_group_is_known_to_the_cluster_without_it() {
        assert_eq!(bare("Gateway.gateway.networking.k8s.io"), "Gateway");
        assert_eq!(bare("VirtualService"), "VirtualService");
    }
}
