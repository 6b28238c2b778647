//! How many workloads call from where: what a rule needs that lets zones share what they can take.

use std::collections::BTreeMap;

use heddle_model::{Registry, Workload};

use crate::rules::RuleIndex;

impl RuleIndex {
    /// How many workloads of the same service there are, `workload` among them, by where they run; nothing
    /// where no rule looks at it, or it is in no service. Also who is not ready calls others.
    pub(crate) fn callers(
        &self,
        registry: &Registry,
        workload: &Workload,
    ) -> BTreeMap<String, u32> {
        let mut callers = BTreeMap::new();
        let Some(service) = workload.first_service().filter(|_| self.looks_at_callers()) else {
            return callers;
        };
        let told = registry.members.get(service);
        let alike = told.into_iter().flat_map(|members| members.workloads.keys());
        let alike = alike.filter_map(|id| registry.workloads.get(id));
        let all = told.is_none().then(|| registry.workloads.values()).into_iter().flatten();
        for one in alike.chain(all.filter(|one| one.services.contains(service))) {
            *callers.entry(one.locality.place()).or_default() += 1;
        }
        callers
    }
}
