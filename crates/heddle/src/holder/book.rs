//! What every workload and sidecar of the mesh needs of the holder: where files go, the namespaces,
//! and the book of who is in.

use std::{cell::RefCell, collections::BTreeMap};

use heddle_model::WorkloadId;
use heddle_runtime::netns_op::Hub;
use heddle_wire::local::control_api::Member;
use tokio::sync::Notify;

use super::membership::Membership;
use crate::{control_client::ControlClient, mesh::MeshPaths};

/// The mesh as its workloads see it.
#[derive(Debug)]
pub(crate) struct Book {
    /// Where the mesh keeps what.
    pub paths: MeshPaths,
    /// The mesh's namespaces and the operations in them.
    pub hub: Hub,
    /// Who is in, for the control plane.
    pub membership: Membership,
    /// What each member asked for and was given.
    pub members: RefCell<BTreeMap<WorkloadId, Member>>,
    /// Told when a workload or the starter has gone.
    pub changed: Notify,
}

impl Book {
    /// The book of a mesh that nobody has joined yet.
    pub(crate) fn new(paths: &MeshPaths, hub: Hub) -> Self {
        Self {
            paths: paths.clone(),
            hub,
            membership: Membership::new(ControlClient::new(paths)),
            members: RefCell::default(),
            changed: Notify::new(),
        }
    }

    /// Takes a workload off the book and tells the control plane.
    pub(crate) async fn forget(&self, id: &WorkloadId) {
        self.members.borrow_mut().remove(id);
        self.membership.leave(id).await;
        self.changed.notify_one();
    }
}
