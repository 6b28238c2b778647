//! The rules in force, from both sources, and who holds which object.
//!
//! An object belongs to the source that made it. Of two files that hold one object the first by
//! path wins; an applied object wins over a file that came later, until it is deleted. Order of
//! force, which decides conflicts between objects: applied ones by creation, then files by path.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use heddle_model::{ResourceKey, resource::Resource};
use heddle_wire::local::control_api::Problem;

use crate::{documents::parse, files::RuleFiles, store::AppliedDocument};

/// The source of what was applied.
pub(crate) const APPLIED: &str = "apply";

/// An applied object.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    /// Order of creation; an edit keeps it.
    pub(crate) order: u64,
    /// When it was made, Unix time in seconds; 0 where that is not known here.
    pub(crate) since: u64,
    /// The object.
    pub(crate) resource: Arc<Resource>,
}

/// Who holds an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder<'a> {
    /// It was applied.
    Apply,
    /// A file of the `--config` folder.
    File(&'a str),
}

/// All rules of a mesh. Cloning is cheap: objects are shared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    applied: BTreeMap<ResourceKey, Applied>,
    /// The greatest order given out.
    newest: u64,
    /// Stored, but not valid for this version: out of force until applied again or deleted.
    unreadable: BTreeMap<ResourceKey, Problem>,
    /// Why the newest version of a cluster's object is not in force; the one before it may be.
    refused: BTreeMap<ResourceKey, Vec<Problem>>,
    /// Files of the `--config` folder.
    pub(crate) files: RuleFiles,
}

/// What counts, and what does not because another object of that name does.
#[derive(Debug, Default)]
pub(crate) struct InForce {
    /// In order of force.
    pub(crate) resources: Vec<Arc<Resource>>,
    /// One per object that lost, at its place.
    pub(crate) lost: Vec<(ResourceKey, Problem)>,
}

impl Rules {
    /// Takes back applied documents from the store. One that does not parse any more (an older
    /// version accepted it) is reported and kept in the store, out of force.
    pub(crate) fn recall(documents: &BTreeMap<ResourceKey, AppliedDocument>) -> Self {
        let mut rules = Self::default();
        for (key, document) in documents {
            match recalled(key, document) {
                Ok(resource) => {
                    let (order, since) = (document.order, document.since);
                    let applied = Applied { order, since, resource: Arc::new(resource) };
                    rules.newest = rules.newest.max(order);
                    rules.applied.insert(key.clone(), applied);
                }
                Err(problem) => {
                    let reason = format!(
                        "the stored {key} is not in force: {}; apply it again, or delete it",
                        problem.reason
                    );
                    rules.unreadable.insert(key.clone(), Problem { reason, ..problem });
                }
            }
        }
        rules
    }

    /// What counts.
    pub(crate) fn in_force(&self) -> InForce {
        let mut applied: Vec<&Applied> = self.applied.values().collect();
        applied.sort_by_key(|applied| applied.order);
        let mut in_force = InForce::default();
        let mut holders: BTreeMap<&ResourceKey, Holder<'_>> = BTreeMap::new();
        for applied in applied {
            holders.insert(&applied.resource.key, Holder::Apply);
            in_force.resources.push(applied.resource.clone());
        }
        for (path, file) in self.files.iter() {
            for resource in &file.resources {
                let key = &resource.key;
                let reason = match holders.get(key) {
                    None => {
                        holders.insert(key, Holder::File(path));
                        in_force.resources.push(resource.clone());
                        continue;
                    }
                    Some(Holder::Apply) => format!(
                        "{key} in {path} is not in force: an object of that name was made with `apply`; delete that one, or take this one out of the file"
                    ),
                    Some(Holder::File(first)) => format!(
                        "{key} in {path} is not in force: {first} holds it, the first by path wins; keep it in one file"
                    ),
                };
                let problem = Problem {
                    file: Some(path.clone()),
                    line: Some(resource.origin.line),
                    field: None,
                    reason,
                };
                in_force.lost.push((key.clone(), problem));
            }
        }
        in_force
    }

    /// Who holds each object that anybody holds.
    pub(crate) fn holders(&self) -> HashMap<&ResourceKey, Holder<'_>> {
        let mut holders = HashMap::new();
        // The first file by path goes before the others, and what was applied before all files.
        let files = self.files.iter().collect::<Vec<_>>();
        for (path, file) in files.into_iter().rev() {
            holders.extend(file.resources.iter().map(|held| (&held.key, Holder::File(path))));
        }
        let applied = self.applied.keys().chain(self.unreadable.keys());
        holders.extend(applied.map(|key| (key, Holder::Apply)));
        holders
    }

    /// An applied object.
    pub(crate) fn applied(&self, key: &ResourceKey) -> Option<&Applied> {
        self.applied.get(key)
    }

    /// Puts an applied object in place; an edit keeps order and time of its creation, which are returned.
    pub(crate) fn put(&mut self, resource: Arc<Resource>, now: u64) -> (u64, u64) {
        self.unreadable.remove(&resource.key);
        let key = resource.key.clone();
        let (order, since) = match self.applied.get(&key) {
            Some(applied) => (applied.order, applied.since),
            None => {
                self.newest += 1;
                (self.newest, now)
            }
        };
        self.applied.insert(key, Applied { order, since, resource });
        (order, since)
    }

    /// Puts an object in place that was made at `created`: the order of force is that of creation.
    pub(crate) fn put_at(&mut self, created: u64, resource: Arc<Resource>) {
        self.refused.remove(&resource.key);
        self.applied.insert(resource.key.clone(), Applied { order: created, since: 0, resource });
    }

    /// Leaves the version of an object in force that there is, and notes why the newest one is not.
    pub(crate) fn refuse(&mut self, key: &ResourceKey, problems: Vec<Problem>) {
        self.refused.insert(key.clone(), problems);
    }

    /// Why the newest version of an object is not in force; nothing if it is.
    pub(crate) fn refused(&self, key: &ResourceKey) -> &[Problem] {
        self.refused.get(key).map_or(&[], Vec::as_slice)
    }

    /// All objects that were applied, in force or not.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &ResourceKey> {
        let never = self.refused.keys().filter(|key| !self.applied.contains_key(key));
        self.applied.keys().chain(never)
    }

    /// Takes an applied object away.
    pub(crate) fn remove(&mut self, key: &ResourceKey) {
        self.applied.remove(key);
        self.unreadable.remove(key);
        self.refused.remove(key);
    }

    /// Objects in force or not, from both sources.
    pub(crate) fn len(&self) -> usize {
        self.applied.len() + self.files.len()
    }

    /// Problems of what is not in force: newest versions of files, and stored objects.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        let files = self.files.iter().flat_map(|(_, file)| &file.problems);
        self.unreadable.values().chain(self.refused.values().flatten()).chain(files)
    }

    /// Every object with its source's name and whether its file's newest version is invalid.
    pub(crate) fn sources(&self) -> Vec<(Arc<Resource>, String, bool)> {
        let applied =
            self.applied.values().map(|a| (a.resource.clone(), APPLIED.to_owned(), false));
        let files = self.files.iter().flat_map(|(path, file)| {
            let invalid = !file.problems.is_empty();
            file.resources.iter().map(move |resource| (resource.clone(), path.clone(), invalid))
        });
        applied.chain(files).collect()
    }
}

/// Reads a stored document so that its lines are those of the file it came from.
fn recalled(key: &ResourceKey, document: &AppliedDocument) -> Result<Resource, Problem> {
    let read = |text: &str| {
        let all = parse(&document.file, text, &key.namespace)
            .map_err(|errors| errors.into_iter().next().unwrap_or_default())?;
        let found = all.resources.into_iter().find(|resource| resource.key == *key);
        found.ok_or_else(|| Problem {
            reason: "its text names another object".to_owned(),
            ..Problem::default()
        })
    };
    let resource = read(&document.text)?;
    match document.line.saturating_sub(resource.origin.line) {
        0 => Ok(resource),
        missing => {
            let moved = read(&("\n".repeat(missing) + &document.text))?;
            Ok(Resource { text: resource.text, ..moved })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_object_keeps_its_place_and_an_unreadable_one_is_reported_until_it_goes() {
        let text = "# why\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: a\nspec:\n  host: a\n";
        let whole = format!("# a file\n---\n{text}---\n{}", text.replace("name: a", "name: b"));
        let resources = parse("rules.yaml", &whole, "shop").unwrap().resources;
        let documents: BTreeMap<ResourceKey, AppliedDocument> = resources
            .iter()
            .zip(1..)
            .map(|(resource, order)| {
                let (file, line) = (resource.origin.file.clone(), resource.origin.line);
                let text = resource.text.clone();
                (resource.key.clone(), AppliedDocument { order, file, line, text, since: 5 })
            })
            .collect();
        let rules = Rules::recall(&documents);
        let recalled: Vec<Resource> =
            rules.in_force().resources.iter().map(|resource| (**resource).clone()).collect();
        assert_eq!(recalled, resources, "namespace, file and lines included");
        assert_eq!(rules.problems().count(), 0);

        let mut documents = documents;
        let key = resources[1].key.clone();
        documents.entry(key.clone()).and_modify(|document| document.text = "kind: Old".to_owned());
        let mut rules = Rules::recall(&documents);
        assert_eq!(rules.in_force().resources.len(), 1);
        assert!(rules.problems().any(|problem| problem.reason.contains("b is not in force")));
        assert_eq!(rules.holders().get(&key), Some(&Holder::Apply), "so it can be deleted");
        rules.put(Arc::new(resources[1].clone()), 9);
        assert_eq!(rules.problems().count(), 0);
    }
}
