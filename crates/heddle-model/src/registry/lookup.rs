//! Questions to a registry, answered by what its engine told, or from the workloads themselves.

use std::net::IpAddr;

use super::{EndpointPort, Registry, Service, ServicePort, Workload};
use crate::ServiceName;

impl Registry {
    /// The workload that has this address.
    #[must_use]
    pub fn workload_at(&self, ip: IpAddr) -> Option<&Workload> {
        match &self.addresses {
            Some(index) => index.workloads.get(&ip).and_then(|id| self.workloads.get(id)),
            None => self.workloads.values().find(|workload| workload.addresses.contains(ip)),
        }
    }

    /// The service that has this virtual address.
    #[must_use]
    pub fn service_at(&self, ip: IpAddr) -> Option<&Service> {
        match &self.addresses {
            Some(index) => index.services.get(&ip).and_then(|name| self.services.get(name)),
            None => self.services.values().find(|service| service.vips.contains(&ip)),
        }
    }

    /// The workloads that belong to a service, whether its ports lead to them or not.
    pub fn belonging<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> impl Iterator<Item = &'a Workload> + 'a {
        let told = self.members.get(service);
        let by_list = told.into_iter().flat_map(|members| members.workloads.keys());
        let by_list = by_list.filter_map(|id| self.workloads.get(id));
        let all = told.is_none().then(|| self.workloads.values()).into_iter().flatten();
        by_list.chain(all.filter(move |one| one.services.contains(service)))
    }

    /// What a port of a service leads to on a workload, if it leads there.
    #[must_use]
    pub fn led_to(
        &self,
        service: &ServiceName,
        port: &ServicePort,
        workload: &Workload,
    ) -> Option<EndpointPort> {
        match self.members.get(service) {
            Some(members) => members.workloads.get(&workload.id)?.get(&port.number).copied(),
            None => {
                let target = workload.port(&port.target)?;
                Some(EndpointPort { number: target.number, state: target.state })
            }
        }
    }
}
