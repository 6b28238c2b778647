//! The same question where no sidecar is asked: what one would do that was told this.

use std::sync::Arc;

use heddle_wire::{
    discovery::Resource,
    local::{
        proxy_config::ProxyConfig,
        sidecar_api::{ExplainRequest, Explanation},
    },
};

use super::explain;
use crate::{
    Shared,
    metrics::Metrics,
    snapshot::{CompiledDestination, ResourceSet, SnapshotBuilder},
};

/// What would become of a call if the sidecar of `config` had these resources. Who is out for errors, and how much is
/// under way, only a live one knows.
///
/// # Errors
/// A destination whose rules do not build.
pub async fn as_told(
    config: ProxyConfig,
    resources: Vec<Resource>,
    generation: u64,
    asked: &ExplainRequest,
) -> Result<Explanation, String> {
    let mut set = ResourceSet::default();
    for resource in resources {
        match resource {
            Resource::Address(address) => set.insert_address(address),
            Resource::Name(answer) => set.insert_name(answer),
            Resource::Endpoints(endpoints) => set.insert_endpoints(endpoints),
            Resource::Inbound(inbound) => set.inbound = Some(Arc::new(inbound)),
            Resource::Mesh(mesh) => set.mesh = Some(Arc::new(mesh)),
            Resource::Destination(destination) => {
                let built = CompiledDestination::new(destination);
                set.insert_destination(built.map_err(|error| error.to_string())?);
            }
        }
    }
    let own = config.workload.clone();
    let metrics = Arc::new(Metrics::new(&config));
    // Nobody answers what is not among the resources.
    let (shared, _) = Shared::new(config, metrics);
    let builder = SnapshotBuilder::new(own).with_breakers(shared.state.breakers.clone());
    let mut builder = builder.with_retries(shared.state.retries.clone());
    shared.snapshot.store(Arc::new(builder.build(&set, generation).snapshot));
    let mut told = explain(&shared, asked).await;
    told.live = false;
    told.connected = true;
    for target in &mut told.targets {
        target.limits.iter_mut().for_each(|limit| limit.now = None);
    }
    Ok(told)
}
