//! What somebody wants to see of the calls of a mesh, and how its sidecars are reached.

use std::{future::Future, time::Duration};

use heddle_runtime::local_http::Opened;
use heddle_wire::local::{
    control_api::WorkloadView,
    tap_api::{Side, TapFilter},
};

/// Time between two looks at who is there.
const LOOK: Duration = Duration::from_secs(2);

/// How workloads are found and their sidecars reached.
pub trait Ways: 'static {
    /// Time between two looks at who is there.
    fn pause(&self) -> Duration {
        LOOK
    }

    /// Who is there.
    fn workloads(&self) -> impl Future<Output = Result<Vec<WorkloadView>, String>>;

    /// `GET path` of a sidecar's admin page, with the field that `/tap` wants; the head of its answer.
    fn open(
        &self,
        workload: &WorkloadView,
        path: &str,
    ) -> impl Future<Output = Result<Opened, String>>;
}

/// On which sides of calls it is listened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sides {
    /// The callee's, and the caller's for what the callee's sidecar does not tell: each call once.
    #[default]
    Once,
    /// The caller's only.
    Client,
    /// The callee's only.
    Server,
    /// Both: most calls twice.
    Both,
}

impl Sides {
    pub(crate) fn has(self, side: Side) -> bool {
        match self {
            Self::Once | Self::Both => true,
            Self::Client => side == Side::Client,
            Self::Server => side == Side::Server,
        }
    }
}

/// What somebody wants to see.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Which calls; `side` and `unseen` are not looked at.
    pub filter: TapFilter,
    /// On which sides.
    pub sides: Sides,
}
