//! What a cluster's watchers bring, put in force. Who is in the mesh and which rules there are is in the
//! cluster's own store: nothing of it is kept here, and nothing of it is refused, only left out of force.

use std::sync::Arc;

use heddle_compile::{Finding, RuleIndex};
use heddle_model::{ResourceKey, resource::Resource};
use heddle_runtime::clock;
use heddle_wire::local::control_api::Problem;
use tokio::sync::watch;

use super::Control;
use crate::{kubernetes::registry::Cluster, mesh::Mesh, registry::Touched, rules::Rules, verify};

/// What has become of one object of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct RuleChange {
    /// Which.
    pub(crate) key: ResourceKey,
    /// When it was made, seconds since the Unix epoch: the older of two in conflict wins.
    pub(crate) created: u64,
    /// What it says now; `None` if it is gone.
    pub(crate) said: Option<Result<Arc<Resource>, Vec<Problem>>>,
}

/// Of an object what its status says.
#[derive(Debug, Clone)]
pub(crate) struct RuleState {
    /// Why its newest version is not in force; empty if it is.
    pub(crate) problems: Vec<Problem>,
    /// What is worth saying of the one in force.
    pub(crate) findings: Vec<Finding>,
    /// The version in force, if there is one.
    pub(crate) resource: Option<Arc<Resource>>,
}

/// How much there is of what, for metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) services: u64,
    pub(crate) workloads: u64,
    pub(crate) rules: u64,
    pub(crate) refused: u64,
    pub(crate) proxies: u64,
    pub(crate) generation: u64,
    pub(crate) pushes: u64,
    pub(crate) pushes_refused: u64,
}

impl Control {
    /// Takes in a batch of changes of the cluster's objects, as at most one generation.
    pub(crate) fn take_cluster(&self, change: impl FnOnce(&mut Cluster) -> Touched) {
        let mut mesh = self.mesh();
        let Some(cluster) = mesh.population.cluster_mut() else { return };
        let touched = change(cluster);
        if touched.anything() {
            self.commit(&mut mesh, &touched);
        }
    }

    /// Looks at the cluster.
    pub(crate) fn with_cluster<T>(&self, look: impl FnOnce(&Cluster) -> T) -> Option<T> {
        self.mesh().population.cluster_mut().map(|cluster| look(cluster))
    }

    /// Puts a batch of the cluster's rules in force as one generation. What is invalid, or what a proxy would
    /// not load, leaves the version in force that there was.
    pub(crate) fn take_cluster_rules(&self, mut changes: Vec<RuleChange>) {
        let mut mesh = self.mesh();
        let mut rules = mesh.rules.clone();
        // Whoever writes a status changes the object, and says nothing new.
        changes.retain(|change| !says_the_same(&rules, change));
        if changes.is_empty() {
            return;
        }
        let count = changes.len();
        admit(&mut rules, changes, &mesh);
        self.rules_changed.send_replace(());
        let index = RuleIndex::new(&rules.in_force().resources);
        if super::rule_changes::same_effect(&mesh.rules, &rules) {
            mesh.replace_rules(rules, index);
            return;
        }
        let generation = mesh.put_rules(rules, index);
        self.after_commit();
        tracing::info!(generation, objects = count, "rules changed");
    }

    /// Ticks whenever rules have changed, or what is wrong with them.
    pub(crate) fn rule_changes(&self) -> watch::Receiver<()> {
        self.rules_changed.subscribe()
    }

    /// States of all rules, for their status.
    pub(crate) fn rule_states(&self) -> Vec<(ResourceKey, RuleState)> {
        let mesh = self.mesh();
        let findings = mesh.index.findings_at(mesh.registry(), clock::unix_now().as_secs());
        let findings = super::rule_changes::by_key(&findings);
        let states = mesh.rules.keys().map(|key| {
            let own = findings.get(key).map_or(&[][..], Vec::as_slice);
            let state = RuleState {
                problems: mesh.rules.refused(key).to_vec(),
                findings: own.iter().copied().cloned().collect(),
                resource: mesh.rules.applied(key).map(|applied| applied.resource.clone()),
            };
            (key.clone(), state)
        });
        states.collect()
    }

    /// The newest generation.
    pub(crate) fn newest(&self) -> u64 {
        self.mesh().generations.newest()
    }

    /// How much there is.
    pub(crate) fn numbers(&self) -> Numbers {
        let mesh = self.mesh();
        let registry = mesh.registry();
        Numbers {
            services: registry.services.len() as u64,
            workloads: registry.workloads.len() as u64,
            rules: mesh.rules.keys().count() as u64,
            refused: mesh.rules.keys().filter(|key| !mesh.rules.refused(key).is_empty()).count()
                as u64,
            proxies: mesh.connected() as u64,
            generation: mesh.generations.newest(),
            pushes: mesh.pushes.sent,
            pushes_refused: mesh.pushes.refused,
        }
    }

    /// What a route's parents say of it.
    pub(crate) fn parents_of(&self, key: &ResourceKey) -> Vec<heddle_compile::ParentStatus> {
        let mesh = self.mesh();
        mesh.index.route_status(mesh.registry(), key)
    }

    /// Notes what is wrong with the cluster, for status.
    pub(crate) fn note_cluster(&self, problems: Vec<Problem>) {
        self.troubles().cluster = problems;
    }
}

fn says_the_same(rules: &Rules, change: &RuleChange) -> bool {
    let RuleChange { key, created, said } = change;
    let Some(Ok(resource)) = said else { return false };
    rules.refused(key).is_empty()
        && rules
            .applied(key)
            .is_some_and(|one| one.order == *created && one.resource.text == resource.text)
}

/// Takes changes over as far as a proxy would take the whole. If it would not, each half is tried, down to
/// single objects, so that one bad object does not hold up the others.
fn admit(rules: &mut Rules, changes: Vec<RuleChange>, mesh: &Mesh) {
    let mut trial = rules.clone();
    let mut concerned: Vec<Arc<Resource>> = Vec::new();
    for change in &changes {
        let RuleChange { key, created, said } = change;
        concerned.extend(rules.applied(key).map(|applied| applied.resource.clone()));
        match said {
            None => trial.remove(key),
            Some(Ok(resource)) => {
                concerned.push(resource.clone());
                trial.put_at(*created, resource.clone());
            }
            Some(Err(problems)) => trial.refuse(key, problems.clone()),
        }
    }
    let index = RuleIndex::new(&trial.in_force().resources);
    let Err(problems) = verify::verify_changed(&index, mesh.registry(), &concerned) else {
        *rules = trial;
        return;
    };
    let mut first = changes;
    if first.len() <= 1 {
        first.iter().for_each(|one| rules.refuse(&one.key, problems.clone()));
        return;
    }
    let second = first.split_off(first.len() / 2);
    admit(rules, first, mesh);
    admit(rules, second, mesh);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::AddressRanges, documents::parse, generations::Generations};

    fn control() -> Control {
        let ranges = AddressRanges::default();
        let settings = ranges.settings("test".to_owned());
        let cluster = Cluster::new("cluster.local".to_owned(), ranges);
        let mesh = Mesh::new(settings, cluster.into(), Rules::default(), Generations::after(0));
        Control::without_store(mesh)
    }

    /// A rule of this name that was made at this moment, as it says now.
    fn says(name: &str, created: u64, http: &str) -> RuleChange {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec:\n  hosts: [reviews]\n  http: {http}\n"
        );
        let said = parse(name, &text, "shop").map(|all| Arc::new(all.resources[0].clone()));
        let (kind, namespace) = ("VirtualService".to_owned(), "shop".to_owned());
        let key = ResourceKey { kind, namespace, name: name.to_owned() };
        RuleChange { key, created, said: Some(said) }
    }

    fn state(control: &Control, name: &str) -> Option<RuleState> {
        control.rule_states().into_iter().find(|(key, _)| key.name == name).map(|(_, state)| state)
    }

    const GOOD: &str = "[{route: [{destination: {host: reviews}}]}]";
    const BAD: &str = "[{route: [{destination: {host: reviews}, weight: -1}]}]";

    #[test]
    fn an_invalid_version_leaves_the_last_good_one_in_force_until_the_object_goes() {
        let control = control();
        control.take_cluster_rules(vec![says("a", 1, GOOD)]);
        let before = control.mesh().generations.newest();
        control.take_cluster_rules(vec![says("a", 1, BAD), says("never", 2, BAD)]);
        assert_eq!(control.mesh().generations.newest(), before, "nothing has changed for anybody");
        let a = state(&control, "a").unwrap();
        assert!(a.resource.is_some() && !a.problems.is_empty());
        assert!(state(&control, "never").unwrap().resource.is_none());
        assert_eq!(control.status().out_of_force.len(), 2);
        let gone = RuleChange { said: None, ..says("a", 1, GOOD) };
        control.take_cluster_rules(vec![gone]);
        assert!(state(&control, "a").is_none());
    }

    #[test]
    fn what_says_the_same_again_is_no_generation_and_the_older_of_two_wins() {
        let control = control();
        control.take_cluster_rules(vec![says("young", 7, GOOD)]);
        control.take_cluster_rules(vec![says("old", 3, GOOD)]);
        let before = control.mesh().generations.newest();
        control.take_cluster_rules(vec![says("old", 3, GOOD), says("young", 7, GOOD)]);
        assert_eq!(control.mesh().generations.newest(), before);
        let first = control.mesh().rules.in_force().resources[0].key.name.clone();
        assert_eq!(first, "old");
    }

    #[test]
    fn members_do_not_join_a_cluster() {
        let control = Arc::new(control());
        assert!(control.remove(&heddle_model::WorkloadId("a".to_owned())).is_err());
    }
}
