//! `heddle check`: whether a cluster can take the mesh, or whether the mesh in it is well. Each question is printed
//! when it is answered; one that cannot be asked is a failure of its own, and the others are asked all the same.

mod after;
mod before;
mod report;

use heddle_control::installation;
use serde::Serialize;

use self::report::{Answer, Checked, Report};
use super::reached;
use crate::{
    cli::{Output, cluster::CheckArgs},
    failure::{Failure, REFUSED},
    output,
};

/// The document.
#[derive(Debug, Serialize)]
struct Document {
    cluster: String,
    checks: Vec<Checked>,
}

/// `heddle check`: 0 where nothing has failed, else 1.
///
/// # Errors
/// No cluster is reached, or a revision is named that is not there.
pub(crate) async fn check(args: CheckArgs) -> Result<u8, Failure> {
    let cluster = reached(&args.cluster).await?;
    let mut report = Report { shows: args.output == Output::Text, checks: Vec::new() };
    before::version(&cluster, &mut report).await?;
    let all = if args.before {
        Vec::new()
    } else {
        installation::installations(&cluster).await.unwrap_or_else(|error| {
            report.failed("installations", error);
            Vec::new()
        })
    };
    let chosen = |revision: &str| args.revision.as_ref().is_none_or(|one| one == revision);
    let found: Vec<_> = all.iter().filter(|one| chosen(one.revision())).cloned().collect();
    match (found.is_empty(), &args.revision) {
        (true, Some(revision)) => {
            return Err(Failure::refused(format!("no revision {revision} is installed")));
        }
        (true, None) => before::rest(&cluster, &args.namespace, &mut report).await,
        (false, _) => after::all(&cluster, &found, &mut report).await,
    }
    let failed = report.checks.iter().filter(|one| one.answer == Answer::Failed).count();
    if args.output == Output::Json {
        let cluster = cluster.url().to_owned();
        output::json(&Document { cluster, checks: report.checks })?;
    } else if failed > 0 {
        output::line(format!("{failed} of {} checks failed", report.checks.len()));
    } else if found.is_empty() {
        output::line("next:  heddle install");
    }
    Ok(if failed > 0 { REFUSED } else { 0 })
}
