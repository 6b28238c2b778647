//! Which addresses outside the mesh belong to one name, by the answers that passed through this
//! sidecar's DNS.
//!
//! A program that gets several addresses for a name tries the next one where the first refuses. Behind
//! a sidecar every connect succeeds, so that it never would; the sidecar does it instead (`dial`), with
//! what is kept here. It resolves nothing and knows no service of the mesh.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hashbrown::HashMap;
use hickory_proto::{op::Message, rr::RData};

use crate::limits::{OUTSIDE_ADDRESSES_PER_NAME, OUTSIDE_NAMES_KEPT};

/// Names and their addresses. Written when an answer passes, read when a connection was refused.
#[derive(Debug, Default)]
pub struct OutsideNames(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    by_name: HashMap<Arc<str>, Named>,
    /// The name an address was last an answer for.
    by_address: HashMap<IpAddr, Arc<str>>,
    /// Answers so far: what was noted longest ago goes first.
    noted: u64,
}

/// The addresses of one name, each family in the order of its last answer.
#[derive(Debug, Default)]
struct Named {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    noted: u64,
}

impl OutsideNames {
    /// Notes the addresses in a resolver's reply to a question about `name` (in lower case).
    pub fn note(&self, name: &str, reply: &[u8]) {
        let Ok(reply) = Message::from_vec(reply) else { return };
        let addresses = reply.answers.iter().filter_map(|record| match &record.data {
            RData::A(ip) => Some(IpAddr::V4(ip.0)),
            RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
            _ => None,
        });
        let (v4, v6): (Vec<_>, Vec<_>) = addresses.partition(IpAddr::is_ipv4);
        if !v4.is_empty() || !v6.is_empty() {
            self.lock().note(name, v4, v6);
        }
    }

    /// Notes what `name` leads to, in the order in which it is to be tried.
    pub(crate) fn know(&self, name: &str, addresses: &[IpAddr]) {
        let (v4, v6) = addresses.iter().copied().partition(IpAddr::is_ipv4);
        self.lock().note(name, v4, v6);
    }

    /// The other addresses of the name that `ip` was last an answer for: those of its family first, as
    /// the answer had them.
    pub(crate) fn others(&self, ip: IpAddr) -> Vec<IpAddr> {
        let names = self.lock();
        let Some(named) = names.by_address.get(&ip).and_then(|name| names.by_name.get(name)) else {
            return Vec::new();
        };
        let (same, other) =
            if ip.is_ipv4() { (&named.v4, &named.v6) } else { (&named.v6, &named.v4) };
        same.iter().chain(other).copied().filter(|one| *one != ip).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        // A panic while it was held can at worst have left an address without its name.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    fn note(&mut self, name: &str, v4: Vec<IpAddr>, v6: Vec<IpAddr>) {
        if !self.by_name.contains_key(name) && self.by_name.len() >= OUTSIDE_NAMES_KEPT {
            self.forget_oldest();
        }
        self.noted += 1;
        let name: Arc<str> = name.into();
        let named = self.by_name.entry(Arc::clone(&name)).or_default();
        named.noted = self.noted;
        // One question is about one family; the other one's answer stays.
        for (known, mut new) in [(&mut named.v4, v4), (&mut named.v6, v6)] {
            if new.is_empty() {
                continue;
            }
            new.truncate(OUTSIDE_ADDRESSES_PER_NAME);
            for ip in known.drain(..) {
                if self.by_address.get(&ip).is_some_and(|of| *of == name) {
                    self.by_address.remove(&ip);
                }
            }
            self.by_address.extend(new.iter().map(|ip| (*ip, Arc::clone(&name))));
            *known = new;
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.by_name.iter().min_by_key(|(_, named)| named.noted);
        let Some(name) = oldest.map(|(name, _)| Arc::clone(name)) else { return };
        self.by_name.remove(&name);
        self.by_address.retain(|_, of| *of != name);
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::OpCode,
        rr::{
            Name, Record,
            rdata::{A, AAAA},
        },
    };

    use super::*;

    fn reply(name: &str, addresses: &[&str]) -> Vec<u8> {
        let mut message = Message::response(1, OpCode::Query);
        let name = Name::from_ascii(name).unwrap();
        message.add_answers(addresses.iter().map(|text| {
            let data = match text.parse().unwrap() {
                IpAddr::V4(ip) => RData::A(A(ip)),
                IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
            };
            Record::from_rdata(name.clone(), 5, data)
        }));
        message.to_vec().unwrap()
    }

    fn others(names: &OutsideNames, ip: &str) -> Vec<String> {
        names.others(ip.parse().unwrap()).iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn the_others_are_those_of_the_last_answer_of_both_families() {
        let names = OutsideNames::default();
        names.note("a.example", &reply("a.example.", &["192.0.2.1", "192.0.2.2", "192.0.2.3"]));
        names.note("a.example", &reply("a.example.", &["2001:db8::1"]));
        assert_eq!(others(&names, "192.0.2.2"), ["192.0.2.1", "192.0.2.3", "2001:db8::1"]);
        assert_eq!(others(&names, "2001:db8::1"), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        names.note("a.example", &reply("a.example.", &["192.0.2.3", "192.0.2.9"]));
        assert_eq!(others(&names, "192.0.2.9"), ["192.0.2.3", "2001:db8::1"]);
        assert!(others(&names, "192.0.2.1").is_empty(), "no address of it any more");
        assert!(others(&names, "198.51.100.1").is_empty());
        names.note("a.example", b"no message");
        assert_eq!(others(&names, "192.0.2.9").len(), 2);
    }

    #[test]
    fn of_too_many_names_those_noted_longest_ago_are_forgotten() {
        let names = OutsideNames::default();
        for index in 0..OUTSIDE_NAMES_KEPT + 3 {
            let [high, low] = u16::try_from(index).unwrap().to_be_bytes();
            let (one, two) = (format!("10.{high}.{low}.1"), format!("10.{high}.{low}.2"));
            names.note(&format!("n{index}"), &reply("n.", &[&one, &two]));
        }
        let inner = names.lock();
        assert_eq!(inner.by_name.len(), OUTSIDE_NAMES_KEPT);
        assert_eq!(inner.by_address.len(), 2 * OUTSIDE_NAMES_KEPT);
        drop(inner);
        assert!(others(&names, "10.0.2.1").is_empty());
        assert_eq!(others(&names, "10.0.3.1"), ["10.0.3.2"]);
    }
}
