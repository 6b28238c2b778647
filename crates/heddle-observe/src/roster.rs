//! Who is in the mesh, as the control plane last said.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use heddle_model::{Protocol, ServiceName, discovery::WorkloadInfo};
use heddle_wire::local::{
    control_api::{ServiceView, WorkloadView},
    last_scrape::LastScrape,
    observe_api::Ejection,
};

use crate::{grown::Grown, limits, measure::Owner, names::FailedName};

/// The members known, present or departed.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// By workload id.
    pub(crate) members: BTreeMap<String, Member>,
    /// Services with ports.
    pub(crate) services: BTreeMap<ServiceName, KnownService>,
    /// Did the control plane answer the last time?
    pub(crate) control: bool,
    /// The newest generation that a sidecar runs: when it grows, rules may have changed.
    pub(crate) generation: u64,
    /// Has it ever answered?
    asked: bool,
}

/// A service with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownService {
    /// Its first virtual address; a headless service has none.
    pub(crate) address: Option<IpAddr>,
    pub(crate) kind: ServiceKind,
}

/// What a service's declared ports say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceKind {
    /// At least one port is declared to speak HTTP.
    Http,
    /// All ports are declared TCP or TLS.
    Tcp,
    /// Nothing is said: traffic will tell.
    Undeclared,
}

/// One workload.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) owner: Owner,
    /// All services it belongs to now; the owner's stands for them where only one can be told.
    pub(crate) services: BTreeSet<ServiceName>,
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    /// Still listed by the control plane.
    pub(crate) present: bool,
    /// It has been away, or what was known of its counters was lost: they have a past that is not to be booked. Of
    /// one that is found for the first time its start tells.
    pub(crate) ran_before: bool,
    /// Did the last scrape succeed?
    pub(crate) scraped: bool,
    /// Endpoints that its sidecar gives no requests, as the last scrape said.
    pub(crate) ejected: Vec<Ejection>,
    /// Connections of its sidecar on which no TLS came about.
    pub(crate) tls: Grown,
    /// Calls of it that lost their trace.
    pub(crate) lost: Grown,
    /// Names that it asked for in vain, as the last scrape said.
    pub(crate) names: Vec<FailedName>,
}

impl Member {
    /// One that is not listed, of which nothing else is known.
    pub(crate) fn new(mut owner: Owner, name: String, address: IpAddr) -> Self {
        if owner.version.is_empty() {
            crate::measure::UNKNOWN.clone_into(&mut owner.version);
        }
        Self {
            owner,
            services: BTreeSet::new(),
            name,
            address,
            present: false,
            ran_before: false,
            scraped: false,
            ejected: Vec::new(),
            tls: Grown::default(),
            lost: Grown::default(),
            names: Vec::new(),
        }
    }
}

impl Roster {
    /// Takes over an answer of the control plane.
    pub(crate) fn update(&mut self, workloads: Vec<WorkloadView>, services: Vec<ServiceView>) {
        self.asked = true;
        self.control = true;
        let listed: BTreeSet<String> =
            workloads.iter().map(|view| view.workload.id.0.clone()).collect();
        let generations = workloads.iter().map(|view| view.generation);
        self.generation = generations.max().unwrap_or_default();
        for (id, member) in &mut self.members {
            member.present = listed.contains(id);
            member.scraped &= member.present;
            member.ran_before |= !member.present;
        }
        let scraped = workloads.into_iter().filter(|view| view.sidecar);
        for view in scraped.take(limits::SIDECARS_MAX) {
            let workload = view.workload;
            // A workload of no service goes by the name that its sidecar's peers have for it.
            let service = workload.first_service().cloned().unwrap_or_else(|| ServiceName {
                namespace: workload.namespace.clone(),
                name: WorkloadInfo::from(&workload).canonical_name().to_owned(),
            });
            let known = self.members.entry(workload.id.0.clone());
            let services = if workload.services.is_empty() {
                BTreeSet::from([service.clone()])
            } else {
                workload.services
            };
            let member = known.or_insert_with(|| {
                let owner = Owner { id: workload.id.0, service, version: workload.version };
                let member = Member::new(owner, workload.name, workload.addresses.first());
                Member { present: true, ..member }
            });
            member.services = services;
        }
        self.services = services
            .into_iter()
            .map(|view| {
                let kind = kind(view.service.ports.values().map(|port| port.protocol));
                (
                    view.service.name,
                    KnownService { address: view.service.vips.first().copied(), kind },
                )
            })
            .collect();
        self.forget_oldest();
    }

    /// Takes a sidecar that ends at its own word, where the control plane has not told of it, or no longer does: as
    /// one that has left.
    pub(crate) fn admit(&mut self, about: LastScrape, service: ServiceName) {
        let LastScrape { workload, name, version, address, .. } = about;
        self.members.entry(workload.0.clone()).or_insert_with(|| {
            let owner = Owner { id: workload.0, service: service.clone(), version };
            Member { services: [service].into(), ..Member::new(owner, name, address) }
        });
        self.forget_oldest();
    }

    /// Is it known who there is?
    pub(crate) fn is_known(&self) -> bool {
        self.asked
    }

    /// The control plane did not answer: what was known stays.
    pub(crate) fn unanswered(&mut self) {
        self.control = false;
    }

    /// Workloads that are there now.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.present)
    }

    /// The virtual address of a service, then those of its workloads.
    pub(crate) fn addresses(&self, service: &ServiceName) -> Vec<String> {
        let own = self.services.get(service).and_then(|known| known.address);
        let members = self.present().filter(|member| member.services.contains(service));
        let members = members.map(|member| member.address).take(limits::ROWS_MAX);
        own.into_iter().chain(members).map(|address| address.to_string()).collect()
    }

    /// Departed members are kept for the tables of the past, up to as many as may be present.
    fn forget_oldest(&mut self) {
        let mut departed = self.members.values().filter(|member| !member.present).count();
        self.members.retain(|_, member| {
            let keep = member.present || departed <= limits::SIDECARS_MAX;
            departed -= usize::from(!keep);
            keep
        });
    }
}

fn kind(protocols: impl Iterator<Item = Protocol>) -> ServiceKind {
    let mut kind = ServiceKind::Undeclared;
    for protocol in protocols {
        match protocol {
            Protocol::Http | Protocol::Http2 | Protocol::Grpc => return ServiceKind::Http,
            Protocol::Tcp | Protocol::Tls => kind = ServiceKind::Tcp,
            Protocol::Undeclared => {}
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use heddle_model::{Addresses, Identity, Locality, Workload, WorkloadId};

    use super::*;

    fn listed(id: &str) -> WorkloadView {
        let workload = Workload {
            id: WorkloadId(id.to_owned()),
            name: "api-v1".to_owned(),
            namespace: "default".to_owned(),
            identity: Identity::local("default", "api"),
            services: [ServiceName::new("api", "default").unwrap()].into(),
            version: "v1".to_owned(),
            labels: BTreeMap::new(),
            addresses: Addresses::Both(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
            ports: BTreeMap::new(),
            locality: Locality::default(),
        };
        WorkloadView { workload, connected: true, generation: 1, sidecar: true }
    }

    #[test]
    fn who_has_no_sidecar_is_not_scraped() {
        let mut roster = Roster::default();
        assert!(!roster.is_known());
        let bare = WorkloadView { sidecar: false, ..listed("job-1") };
        roster.update(vec![bare, listed("api-v1-1")], Vec::new());
        assert!(roster.is_known());
        assert_eq!(roster.members.keys().collect::<Vec<_>>(), ["api-v1-1"]);
    }

    #[test]
    fn a_workload_of_no_service_goes_by_its_labels_as_its_peers_call_it() {
        let mut view = listed("client-7d9-x1");
        view.workload.services.clear();
        view.workload.labels.insert("app".to_owned(), "client".to_owned());
        let mut roster = Roster::default();
        roster.update(vec![view], Vec::new());
        assert_eq!(roster.members["client-7d9-x1"].owner.service.name, "client");
    }

    #[test]
    fn a_workload_is_of_all_the_services_it_belongs_to_now() {
        let name = |name: &str| ServiceName::new(name, "default").unwrap();
        let mut view = listed("api-v1-1");
        view.workload.services.insert(name("web"));
        let mut roster = Roster::default();
        roster.update(vec![view], Vec::new());
        assert_eq!(roster.addresses(&name("api")), ["127.0.0.1"]);
        assert_eq!(roster.addresses(&name("web")), ["127.0.0.1"]);
        roster.update(vec![listed("api-v1-1")], Vec::new());
        assert!(roster.addresses(&name("web")).is_empty(), "it has left this one");
    }

    #[test]
    fn a_member_missing_from_one_answer_has_run_before_when_it_returns() {
        let mut roster = Roster::default();
        roster.update(vec![listed("old")], Vec::new());
        roster.update(vec![listed("old"), listed("api-v1-1")], Vec::new());
        assert!(!roster.members["old"].ran_before, "its start tells whether it has a past");
        assert!(!roster.members["api-v1-1"].ran_before, "it joined while we watched");
        roster.update(Vec::new(), Vec::new());
        assert!(!roster.members["api-v1-1"].present);
        roster.update(vec![listed("api-v1-1")], Vec::new());
        let member = &roster.members["api-v1-1"];
        assert!(member.present && member.ran_before);
    }
}
