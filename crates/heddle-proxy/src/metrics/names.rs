//! Names that the workload asked for and got no address of.
//!
//! What counts is the name that was meant. Resolvers of libc put the domains of their search list behind a name, and
//! ask for it itself before or after: names with such a domain are forgotten where the name without it has an answer,
//! whichever it is. A name that resolves again is forgotten too.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use heddle_model::name::service_suffix;

use super::{edge::Escaped, render::family};
use crate::limits::FAILED_NAMES;

/// Bytes of a name that are shown: no name is longer in DNS, but an escaped one is when written.
const NAME_BYTES: usize = 255;

/// Names without an address, by name.
#[derive(Debug, Default)]
pub(crate) struct FailedNames(Mutex<BTreeMap<String, Failure>>);

#[derive(Debug, Clone, Copy)]
struct Failure {
    /// What the last answer was: a `RCODE`.
    answer: &'static str,
    count: u64,
    /// Unix time.
    last: Duration,
}

impl FailedNames {
    /// A question about the addresses of `host` got this reply at `now`, Unix time.
    pub(crate) fn answered(&self, host: &str, reply: &[u8], now: Duration) {
        let Some(code) = reply.get(3).map(|byte| byte & 0x0f) else { return };
        let answer = match code {
            0 => None,
            2 => Some("SERVFAIL"),
            3 => Some("NXDOMAIN"),
            5 => Some("REFUSED"),
            // The client's mistakes, which say nothing about the name.
            _ => return,
        };
        let mut end = host.len().min(NAME_BYTES);
        while !host.is_char_boundary(end) {
            end -= 1;
        }
        let host = &host[..end];
        let names = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !names.is_empty() {
            names.retain(|name, _| !is_searched(name, host));
        }
        let Some(answer) = answer else {
            names.remove(host);
            return;
        };
        if host.is_empty() {
            return;
        }
        if let Some(meant) = names.iter_mut().find(|(name, _)| is_searched(host, name)) {
            meant.1.last = now;
            return;
        }
        if names.len() >= FAILED_NAMES && !names.contains_key(host) {
            let oldest = names.iter().min_by_key(|(_, failure)| failure.last);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                names.remove(&oldest);
            }
        }
        let failure =
            names.entry(host.to_owned()).or_insert(Failure { answer, count: 0, last: now });
        *failure = Failure { answer, count: failure.count + 1, last: now };
    }

    /// Writes them as Prometheus reads them.
    pub(super) fn write(&self, text: &mut String) {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (name, help) = ("heddle_dns_failed", "Questions for a name that has no address.");
        family(text, name, "gauge", help);
        for (host, failure) in &names {
            let (host, Failure { answer, count, .. }) = (Escaped(host), failure);
            let _ = writeln!(text, "{name}{{name=\"{host}\",answer=\"{answer}\"}} {count}");
        }
        let help = "When a name without an address was last asked for, seconds since 1970.";
        let name = "heddle_dns_failed_last_seconds";
        family(text, name, "gauge", help);
        for (host, failure) in &names {
            let (host, Failure { answer, last, .. }) = (Escaped(host), failure);
            let last = last.as_millis() as f64 / 1e3;
            let _ = writeln!(text, "{name}{{name=\"{host}\",answer=\"{answer}\"}} {last}");
        }
    }
}

/// Is `name` what a search list made of `meant`?
fn is_searched(name: &str, meant: &str) -> bool {
    let rest = name.strip_prefix(meant);
    // What all domains end with that a search list of the mesh has.
    let suffix = service_suffix();
    let domain = suffix.split_once('.').map_or(suffix, |(_, domain)| domain);
    let searched = |rest: &str| {
        let rest = rest.strip_suffix(domain)?;
        (rest.starts_with('.') && rest.ends_with('.')).then_some(())
    };
    rest.and_then(searched).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u8) -> [u8; 12] {
        [0, 0, 0x81, 0x80 | code, 0, 0, 0, 0, 0, 0, 0, 0]
    }

    fn told(names: &FailedNames) -> Vec<String> {
        let mut text = String::new();
        names.write(&mut text);
        let lines = text.lines().filter(|line| line.starts_with("heddle_dns_failed{"));
        lines.map(str::to_owned).collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_name_that_was_meant_is_told_and_not_what_a_search_list_made_of_it() {
        let names = FailedNames::default();
        for host in [
            "leaf.defalt.default.svc.cluster.local",
            "leaf.defalt.svc.cluster.local",
            "leaf.defalt",
        ] {
            names.answered(host, &reply(3), at(5));
        }
        assert_eq!(told(&names), ["heddle_dns_failed{name=\"leaf.defalt\",answer=\"NXDOMAIN\"} 1"]);
        names.answered("example.com.default.svc.cluster.local", &reply(3), at(6));
        names.answered("example.com", &reply(0), at(6));
        assert_eq!(told(&names).len(), 1, "a name outside that has addresses");
        names.answered("leaf.defalt.svc.cluster.local", &reply(3), at(7));
        assert_eq!(told(&names).len(), 1, "the search list came after the name");
    }

    #[test]
    fn a_name_that_resolves_again_is_forgotten() {
        let names = FailedNames::default();
        names.answered("late", &reply(2), at(5));
        names.answered("late", &reply(3), at(6));
        assert_eq!(told(&names), ["heddle_dns_failed{name=\"late\",answer=\"NXDOMAIN\"} 2"]);
        names.answered("late", &reply(0), at(7));
        assert!(told(&names).is_empty());
    }

    #[test]
    fn names_are_escaped_and_the_oldest_make_room() {
        let names = FailedNames::default();
        names.answered("a\"} 1\n<b>", &reply(3), at(1));
        assert_eq!(
            told(&names),
            ["heddle_dns_failed{name=\"a\\\"} 1\\n<b>\",answer=\"NXDOMAIN\"} 1"]
        );
        for number in 0..FAILED_NAMES + 3 {
            names.answered(&format!("n{number}"), &reply(3), at(2));
        }
        assert_eq!(told(&names).len(), FAILED_NAMES);
        names.answered("cut", &[0, 0], at(3));
        names.answered("", &reply(3), at(3));
        assert_eq!(told(&names).len(), FAILED_NAMES);
    }
}
