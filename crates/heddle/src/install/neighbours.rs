//! The other installations of a cluster: none of them may be overwritten, and all of them believe each other.

use heddle_control::installation::{self, Cluster, Found, Mode};

use super::manifests::Values;
use crate::{failure::Failure, output};

/// What is installed already.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// The one that is being changed.
    pub(super) own: Option<Found>,
    /// The others.
    others: Vec<Found>,
}

impl Neighbours {
    /// Looks, and refuses values that would take another's place.
    pub(super) async fn of(cluster: &Cluster, values: &Values) -> Result<Self, Failure> {
        let found = installation::installations(cluster)
            .await
            .map_err(|error| Failure::refused(error.to_string()))?;
        let Values { namespace, revision, .. } = values;
        for Found { namespace: theirs, settings, .. } in &found {
            let their_revision = &settings.revision;
            if theirs == namespace && their_revision != revision {
                return Err(Failure::refused(format!(
                    "the namespace {namespace} holds the revision {their_revision}: `--revision {their_revision}` \
                     changes that, another --namespace installs beside it"
                )));
            }
            if their_revision != revision && settings.tags.contains(revision) {
                return Err(Failure::refused(format!(
                    "`{revision}` is a tag of the revision {their_revision}: choose another --revision, or \
                     `heddle tag remove {revision}`"
                )));
            }
            if theirs != namespace && their_revision == revision {
                return Err(Failure::refused(format!(
                    "the revision {revision} is in the namespace {theirs}: `--namespace {theirs}` changes that, \
                     another --revision installs beside it"
                )));
            }
        }
        let (own, others): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|one| one.revision() == revision);
        Ok(Self { own: own.into_iter().next(), others })
    }

    /// Gives a new installation the authority of one that issues for the same trust domain.
    pub(super) async fn share_authority(
        &self,
        cluster: &Cluster,
        values: &Values,
        mode: Mode,
    ) -> Result<(), Failure> {
        let own = (values.namespace.as_str(), values.revision.as_str());
        for other in &self.others {
            let from = format!("{} (revision {})", other.namespace, other.revision());
            if other.settings.trust_domain != values.trust_domain {
                output::notice(format!(
                    "{from} has the trust domain {}: its pods and those of this one do not believe each other",
                    other.settings.trust_domain
                ));
                continue;
            }
            let shared = installation::share_authority(cluster, other, own, mode).await;
            if shared.map_err(|error| Failure::refused(error.to_string()))? {
                output::line(format!("Secret heddle-ca copied from {from}"));
                break;
            }
        }
        Ok(())
    }
}
