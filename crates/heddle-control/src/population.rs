//! Who is in the mesh, and how that is known: members that join one by one, with addresses given here, or
//! a cluster whose objects say it. What is made of it (rules, views, sessions) does not ask which.
//!
//! Services of entries are put beside the others here. Members are few, so the registry is made anew with
//! them; a cluster's is edited in place.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use heddle_compile::RuleIndex;
use heddle_model::{Registry, ServiceName, Workload, WorkloadId, resource::Resource};

use crate::{
    kubernetes::registry::Cluster,
    registry::{Members, Redeclared, Touched, declared::declared},
};

/// The population of a mesh.
#[derive(Debug)]
pub(crate) enum Population {
    /// Workloads that join and leave.
    Members(Box<Joining>),
    /// What a cluster's objects say.
    Cluster(Box<Cluster>),
}

/// Members, with the services of entries where there are some.
#[derive(Debug)]
pub(crate) struct Joining {
    members: Members,
    merged: Option<Registry>,
}

/// What putting the services of entries in place came to.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    /// Services whose endpoints are to be looked at again.
    pub(crate) touched: BTreeSet<ServiceName>,
    /// Virtual addresses to remember; those that lost theirs have none.
    pub(crate) vips: Vec<(ServiceName, Option<u32>)>,
}

impl From<Members> for Population {
    fn from(members: Members) -> Self {
        Self::Members(Box::new(Joining { members, merged: None }))
    }
}

impl From<Cluster> for Population {
    fn from(cluster: Cluster) -> Self {
        Self::Cluster(Box::new(cluster))
    }
}

impl Population {
    /// Services and workloads, those of entries among them.
    pub(crate) fn registry(&self) -> &Registry {
        match self {
            Self::Members(joining) => {
                joining.merged.as_ref().unwrap_or_else(|| joining.members.registry())
            }
            Self::Cluster(cluster) => cluster.registry(),
        }
    }

    /// The same as it would be with what these objects declare; entries are as they are now.
    pub(crate) fn registry_with(&self, resources: &[Arc<Resource>]) -> Cow<'_, Registry> {
        match self {
            Self::Members(joining) => match joining.members.registry_with(&declared(resources)) {
                Cow::Borrowed(_) => Cow::Borrowed(self.registry()),
                other => other,
            },
            // What a cluster holds it says itself.
            Self::Cluster(cluster) => Cow::Borrowed(cluster.registry()),
        }
    }

    /// Takes over which services rules declare.
    pub(crate) fn declare(&mut self, resources: &[Arc<Resource>], now: u64) -> Redeclared {
        match self {
            Self::Members(joining) => joining.members.declare(declared(resources), now),
            Self::Cluster(_) => Redeclared::default(),
        }
    }

    /// The members that join, unless a cluster says who is in the mesh.
    pub(crate) fn members(&self) -> Option<&Members> {
        match self {
            Self::Members(joining) => Some(&joining.members),
            Self::Cluster(_) => None,
        }
    }

    /// The same, to be changed.
    pub(crate) fn members_mut(&mut self) -> Option<&mut Members> {
        match self {
            Self::Members(joining) => Some(&mut joining.members),
            Self::Cluster(_) => None,
        }
    }

    /// The cluster, if one says who is in the mesh.
    pub(crate) fn cluster_mut(&mut self) -> Option<&mut Cluster> {
        match self {
            Self::Members(_) => None,
            Self::Cluster(cluster) => Some(cluster),
        }
    }

    /// Has it a sidecar? Every member has.
    pub(crate) fn has_sidecar(&self, id: &WorkloadId) -> bool {
        match self {
            Self::Members(_) => true,
            Self::Cluster(cluster) => cluster.has_sidecar(id),
        }
    }

    /// The workload an address belongs to.
    pub(crate) fn workload_at(&self, ip: IpAddr) -> Option<&Workload> {
        match self {
            Self::Members(joining) => joining.members.workload_at(ip),
            Self::Cluster(cluster) => cluster.registry().workload_at(ip),
        }
    }

    /// The service a virtual address belongs to; none for an entry's own address, which depends on who
    /// asks.
    pub(crate) fn service_at(&self, ip: IpAddr) -> Option<&ServiceName> {
        match self {
            Self::Members(joining) => joining.members.service_at(ip),
            Self::Cluster(cluster) => cluster.registry().service_at(ip).map(|one| &one.name),
        }
    }

    /// Puts the services of entries beside those of the mesh as it is after a change.
    pub(crate) fn put_entries(&mut self, index: &RuleIndex, change: &Touched, now: u64) -> Placed {
        match self {
            Self::Members(joining) => joining.put_entries(index, now),
            Self::Cluster(cluster) => {
                let touched = cluster.put_entries(index, change.topology);
                Placed { touched, vips: Vec::new() }
            }
        }
    }
}

impl Joining {
    /// Told are all there are and were, since any of them may have a member of the mesh among its endpoints.
    fn put_entries(&mut self, index: &RuleIndex, now: u64) -> Placed {
        if self.merged.is_none() && !index.has_entries() {
            return Placed::default();
        }
        let before = self.merged.take().map(|merged| merged.outside).unwrap_or_default();
        let needy = RefCell::new(BTreeSet::new());
        let vip = |name: &ServiceName| {
            needy.borrow_mut().insert(name.clone());
            self.members.claimed_vips(name)
        };
        let mut merged = index.with_entries(self.members.registry(), &vip).into_owned();
        let needy = needy.into_inner();
        let vips = self.members.claim(&needy, now);
        for name in &needy {
            if let Some(service) = merged.services.get_mut(name) {
                service.vips = self.members.claimed_vips(name);
            }
        }
        let outside: &BTreeMap<_, _> = &merged.outside;
        let touched = outside.keys().chain(before.keys()).cloned().collect();
        self.merged = (!merged.outside.is_empty()).then_some(merged);
        Placed { touched, vips }
    }
}
