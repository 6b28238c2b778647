//! Where a request or connection may go: to any endpoint of a cluster, or to one upstream.

use std::{rc::Rc, sync::Arc};

use heddle_model::{ServiceName, discovery::ClusterKey};

use super::Upstream;
use crate::{
    breaker::{Counted, Limit},
    refusal::Refusal,
    snapshot::Cluster,
};

/// Where a request may go.
#[derive(Debug, Clone)]
pub(crate) enum Backend {
    /// Any endpoint of a cluster.
    Cluster(Arc<Cluster>),
    /// This one.
    Upstream(Rc<Upstream>),
    /// The address that the client asked for, in the name of a service that has no endpoints.
    AsAsked(Rc<Upstream>, Arc<Cluster>),
}

impl Backend {
    /// The service in whose name it is called; `None` of a single one.
    pub(crate) fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Cluster(cluster) | Self::AsAsked(_, cluster) => Some(&cluster.key.service),
            Self::Upstream(_) => None,
        }
    }

    /// What Istio calls it.
    pub(crate) fn cluster_name(&self) -> String {
        match self {
            Self::Cluster(cluster) | Self::AsAsked(_, cluster) => {
                let ClusterKey { service, subset, port } = &cluster.key;
                let subset = subset.as_ref().map_or("", |subset| &subset.name);
                format!("outbound|{port}|{subset}|{}", service.fqdn())
            }
            Self::Upstream(upstream) => upstream.cluster_name(),
        }
    }

    /// Is whoever answers another sidecar? On one machine every workload has one, and what is within TLS no
    /// sidecar reads.
    pub(crate) fn is_a_hop(&self) -> bool {
        match self {
            Self::Cluster(cluster) => cluster.tls.is_none() && !cluster.outside.leaves,
            Self::Upstream(upstream) => upstream.workload().is_some(),
            Self::AsAsked(..) => false,
        }
    }

    /// Counts one more of `what`, where a rule limits that.
    ///
    /// # Errors
    /// [`Refusal::Overflow`].
    pub(crate) fn enter(&self, what: Limit) -> Result<Option<Counted>, Refusal> {
        let Self::Cluster(cluster) = self else { return Ok(None) };
        let Some(breaker) = &cluster.breaker else { return Ok(None) };
        breaker.enter(what).map_err(|overflow| Refusal::Overflow(overflow.to_string()))
    }

    /// Is it one of those that may be picked?
    pub(crate) fn has(&self, upstream: &Rc<Upstream>) -> bool {
        match self {
            Self::Upstream(only) | Self::AsAsked(only, _) => Rc::ptr_eq(only, upstream),
            Self::Cluster(cluster) => {
                cluster.endpoints.iter().any(|one| one.slot.stamp == upstream.stamp)
            }
        }
    }

    /// May a client that is bound to `upstream` go on with it in place of another endpoint? Whichever
    /// subset is picked, it is the service that the client authenticated itself to.
    pub(crate) fn is_served_by(&self, upstream: &Rc<Upstream>) -> bool {
        match self {
            Self::Upstream(only) | Self::AsAsked(only, _) => Rc::ptr_eq(only, upstream),
            Self::Cluster(cluster) => match upstream.workload() {
                Some(workload) => workload.services.contains(&cluster.key.service),
                // Nothing is known of it but that it is one of them.
                None => cluster.endpoints.iter().any(|one| one.slot.stamp == upstream.stamp),
            },
        }
    }
}
