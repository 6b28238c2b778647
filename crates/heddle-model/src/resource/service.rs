//! A Kubernetes `Service` as a file declares it: ports, who is behind them, and which addresses it has.

use std::collections::BTreeMap;

use crate::registry::ServicePort;

/// What a `Service` object says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceObject {
    /// Its ports by number, those of TCP.
    pub ports: BTreeMap<u16, ServicePort>,
    /// Labels a workload of its namespace must carry to belong to it; `None`: it selects nobody.
    pub selector: Option<BTreeMap<String, String>>,
    /// `clusterIP: None`: it has no address of its own, and its name stands for those of its workloads.
    pub headless: bool,
    /// Another name for which it stands (`type: ExternalName`).
    pub external_name: Option<String>,
}
