//! Requests to the workload by the template of their path, on one worker: found without an allocation where a path like
//! it has come before.
//!
//! A template gets counters when a request of it is answered by something else than 4xx, so that whoever tries paths
//! fills no room with what is not there.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use hashbrown::HashMap;

use crate::{
    limits::PATHS_AT_HAND,
    metrics::{Metrics, RuleCounts, ServiceLabels, UNKNOWN_PATH},
    path_template::Template,
};

/// Status of gRPC for a method that is not there.
const UNIMPLEMENTED: u32 = 12;
/// Services whose counters of one template are at hand; a workload is of few.
const SERVICES_MAX: usize = 8;

/// One template.
#[derive(Debug)]
pub(crate) struct Path {
    template: Box<str>,
    /// Its counters, by the service that was called.
    counts: RefCell<Vec<(String, Arc<RuleCounts>)>>,
}

/// All templates that the worker has at hand.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    known: RefCell<HashMap<Box<str>, Rc<Path>>>,
    /// Those of paths that nothing has answered yet.
    unknown: RefCell<Vec<(String, Arc<RuleCounts>)>>,
}

impl Paths {
    /// The template that a request's target has; `None` where it is no path.
    pub(crate) fn of(&self, target: &str) -> Option<Rc<Path>> {
        let template = Template::of(target)?;
        let mut known = self.known.borrow_mut();
        if let Some(path) = known.get(template.as_str()) {
            return Some(Rc::clone(path));
        }
        if known.len() >= PATHS_AT_HAND {
            known.retain(|_, path| !path.counts.borrow().is_empty());
        }
        let path = Path { template: template.as_str().into(), counts: RefCell::default() };
        let path = Rc::new(path);
        // Without room it is looked up again the next time; the counters it shares then are found by its service.
        if known.len() < PATHS_AT_HAND {
            known.insert(path.template.clone(), Rc::clone(&path));
        }
        Some(path)
    }

    /// Runs `count` on the counters of a request that is over: its service, its status, and that of gRPC.
    pub(crate) fn count(
        &self,
        metrics: &Metrics,
        path: &Path,
        service: &ServiceLabels,
        (status, grpc): (u16, Option<u32>),
        count: impl FnOnce(&RuleCounts),
    ) {
        let Some(service) = service.known() else { return };
        if let Some((_, counts)) = path.counts.borrow().iter().find(|(of, _)| *of == service) {
            return count(counts);
        }
        let is_there = status != 0 && !(400..500).contains(&status) && grpc != Some(UNIMPLEMENTED);
        let (list, template) = match is_there {
            true => (&path.counts, &*path.template),
            false => (&self.unknown, UNKNOWN_PATH),
        };
        let mut list = list.borrow_mut();
        if let Some((_, counts)) = list.iter().find(|(of, _)| *of == service) {
            return count(counts);
        }
        let counts = metrics.path(service, template);
        count(&counts);
        if list.len() < SERVICES_MAX {
            list.push((service.to_owned(), counts));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_tries_paths_fills_no_room() {
        let paths = Paths::default();
        for number in 0..PATHS_AT_HAND * 3 {
            paths.of(&format!("/{}", "a".repeat(number % 40 + 1).replace('a', "ab"))).unwrap();
            paths.of(&format!("/x{}y/z{}", number % 100, number / 100)).unwrap();
        }
        assert!(paths.known.borrow().len() <= PATHS_AT_HAND);
        let [one, other] = ["/users/1?a", "/users/2"].map(|target| paths.of(target).unwrap());
        assert!(Rc::ptr_eq(&one, &other));
        assert!(paths.of("*").is_none());
    }
}
