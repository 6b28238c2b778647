//! `heddle uninstall`: the mesh out of a cluster again, or one of several installations of it.

use heddle_control::installation::{self, Cluster, Found, Removal, Which};

use super::{mode, reached, refused};
use crate::{
    cli::cluster::UninstallArgs,
    failure::{Doing as _, Failure},
    output,
};

/// `heddle uninstall`.
///
/// # Errors
/// There are several installations and none is named, what the cluster refused, or what is not gone in time.
pub(crate) async fn uninstall(args: UninstallArgs) -> Result<(), Failure> {
    let cluster = reached(&args.cluster).await?;
    let which = which(&cluster, &args).await?;
    let removal =
        Removal { which, purge: args.purge, mode: mode(args.dry_run), limit: args.timeout };
    let done = if args.dry_run { "would delete" } else { "deleted" };
    let kept = installation::remove(&cluster, &removal, &mut |object| {
        output::line(format!("{done} {object}"))
    })
    .await
    .doing(|| format!("remove the mesh from {}", cluster.url()))?;
    if !kept.is_empty() {
        output::line(format!(
            "kept, because there are objects of them: {}; `heddle uninstall --purge` deletes those too",
            kept.join(", ")
        ));
    }
    Ok(())
}

/// The last installation takes along what all have shared.
async fn which(cluster: &Cluster, args: &UninstallArgs) -> Result<Which, Failure> {
    if args.all {
        return Ok(Which::All);
    }
    let found = installation::installations(cluster).await.map_err(refused)?;
    let all = || {
        let shown = |one: &Found| format!("{} in {}", one.revision(), one.namespace);
        found.iter().map(shown).collect::<Vec<_>>().join(", ")
    };
    let Some(revision) = &args.revision else {
        return match found.len() {
            0 | 1 => Ok(Which::All),
            _ => Err(Failure::refused(format!(
                "there are several installations ({}): name one with --revision, or give --all",
                all()
            ))),
        };
    };
    let own = found.iter().find(|one| one.revision() == revision);
    match (own, found.len()) {
        (Some(_), 1) => Ok(Which::All),
        // What an interrupted uninstall has left of it has its label.
        _ => Ok(Which::Revision(revision.clone(), own.map(|own| own.namespace.clone()))),
    }
}
