//! Who of the control plane's replicas writes: the holder of a Lease. All of them read and serve.
//!
//! Clocks of different machines are not compared: a lease has run out when its holder has not been seen to renew
//! it for its whole length by our own clock.

use std::time::{Duration, Instant};

use heddle_model::timestamp;
use heddle_runtime::clock;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::client::{Api, ApiError, Kind};
use crate::revision::labels;

/// The lease's name.
const NAME: &str = "heddle-control";
/// How long it is good without being renewed.
const LENGTH: Duration = Duration::from_secs(15);
/// How often it is renewed, or looked at.
const INTERVAL: Duration = Duration::from_secs(3);
/// A holder that could not renew for so long writes no more: before another may begin.
const GIVE_UP: Duration = Duration::from_secs(10);

/// A replica that would lead.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Where the lease is.
    pub(crate) api: Api,
    /// In which namespace.
    pub(crate) namespace: String,
    /// Whose.
    pub(crate) revision: String,
    /// Unique among the replicas: the pod's name.
    pub(crate) identity: String,
    /// Does it lead now?
    pub(crate) leads: watch::Sender<bool>,
}

/// The lease as it was seen last, and since when it is so.
#[derive(Debug)]
struct Seen {
    holder: String,
    renewed: String,
    since: Instant,
}

impl Candidate {
    /// Stands for election, for ever.
    pub(crate) async fn run(&self) {
        let mut seen: Option<Seen> = None;
        let mut renewed = clock::now();
        loop {
            match self.turn(&mut seen).await {
                Ok(true) => {
                    renewed = clock::now();
                    self.lead(true);
                }
                Ok(false) => self.lead(false),
                Err(error) => {
                    tracing::debug!(%error, "the lease was not renewed");
                    if clock::now().duration_since(renewed) > GIVE_UP {
                        self.lead(false);
                    }
                }
            }
            clock::sleep(INTERVAL).await;
        }
    }

    /// Gives the lease up, if it is ours, so that another need not wait for it to run out.
    pub(crate) async fn resign(&self) {
        if !self.leads.send_replace(false) {
            return;
        }
        let free = async {
            let mut lease = self.api.get("leases", &self.path()).await?;
            if lease["spec"]["holderIdentity"] == json!(self.identity) {
                lease["spec"]["holderIdentity"] = json!("");
                self.api.replace("leases", &self.path(), &lease).await?;
            }
            Ok::<(), ApiError>(())
        };
        if let Err(error) = free.await {
            tracing::debug!(%error, "the lease was not given up; it runs out by itself");
        }
    }

    fn lead(&self, now: bool) {
        if self.leads.send_replace(now) != now {
            tracing::info!(
                leads = now,
                identity = self.identity,
                "leadership of the control plane"
            );
        }
    }

    /// One look at the lease; is it ours after it?
    async fn turn(&self, seen: &mut Option<Seen>) -> Result<bool, ApiError> {
        let lease = match self.api.get("leases", &self.path()).await {
            Ok(lease) => lease,
            Err(ApiError::NotFound(_)) => return self.create().await,
            Err(error) => return Err(error),
        };
        let text = |key: &str| lease["spec"][key].as_str().unwrap_or_default().to_owned();
        let (holder, renewed) = (text("holderIdentity"), text("renewTime"));
        let same = seen.as_ref().is_some_and(|one| one.holder == holder && one.renewed == renewed);
        if !same {
            *seen = Some(Seen { holder: holder.clone(), renewed, since: clock::now() });
        }
        let ran_out =
            seen.as_ref().is_some_and(|one| clock::now().duration_since(one.since) > LENGTH);
        if holder != self.identity && !holder.is_empty() && !ran_out {
            return Ok(false);
        }
        let taken = self.taken(lease, holder != self.identity);
        match self.api.replace("leases", &self.path(), &taken).await {
            Ok(_) => Ok(true),
            Err(ApiError::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn create(&self) -> Result<bool, ApiError> {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": NAME, "namespace": self.namespace,
                "labels": labels(&self.revision),
            },
        });
        let lease = self.taken(lease, true);
        match self.api.create("leases", &kind().path(&self.namespace, ""), &lease).await {
            Ok(_) => Ok(true),
            Err(ApiError::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn taken(&self, mut lease: Value, anew: bool) -> Value {
        let now = micro_time(clock::unix_now());
        let spec = &mut lease["spec"];
        spec["holderIdentity"] = json!(self.identity);
        spec["leaseDurationSeconds"] = json!(LENGTH.as_secs());
        spec["renewTime"] = json!(now);
        if anew {
            let before = spec["leaseTransitions"].as_i64();
            spec["leaseTransitions"] = json!(before.map_or(0, |count| count.saturating_add(1)));
            spec["acquireTime"] = json!(now);
        }
        lease
    }

    fn path(&self) -> String {
        kind().path(&self.namespace, NAME)
    }
}

fn kind() -> Kind {
    Kind::new("coordination.k8s.io", "v1", "Lease", "leases")
}

/// Kubernetes' `MicroTime`.
fn micro_time(since_epoch: Duration) -> String {
    let seconds = timestamp::format(since_epoch.as_secs());
    format!("{}.{:06}Z", seconds.trim_end_matches('Z'), since_epoch.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_six_digits_below_the_second() {
        let moment = Duration::new(1_767_323_045, 1_234_000);
        assert_eq!(micro_time(moment), "2026-01-02T03:04:05.001234Z");
    }
}
