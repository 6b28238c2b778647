//! Which addresses outside the mesh have completed an HTTP response, so that dialling them before
//! the client speaks is waste. Bounded: those not called for longest are forgotten, which costs an
//! early dial and nothing else.

use std::{cell::RefCell, mem, net::SocketAddr};

use hashbrown::HashSet;

use crate::limits::HTTP_SEEN_KEPT;

/// Addresses in two halves: what is used moves to the younger one, and when that is full the older
/// one is dropped. No order to keep, no clock to read.
#[derive(Debug, Default)]
pub(crate) struct HttpSeen(RefCell<Halves>);

#[derive(Debug, Default)]
struct Halves {
    young: HashSet<SocketAddr>,
    old: HashSet<SocketAddr>,
}

impl HttpSeen {
    /// Has `address` completed an HTTP response, as far as is remembered?
    pub(crate) fn at(&self, address: SocketAddr) -> bool {
        let mut halves = self.0.borrow_mut();
        let seen = halves.young.contains(&address) || halves.old.contains(&address);
        if seen {
            halves.note(address);
        }
        seen
    }

    /// `address` has.
    pub(crate) fn note(&self, address: SocketAddr) {
        self.0.borrow_mut().note(address);
    }
}

impl Halves {
    fn note(&mut self, address: SocketAddr) {
        if self.young.contains(&address) {
            return;
        }
        if self.young.len() >= HTTP_SEEN_KEPT / 2 {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> SocketAddr {
        let [.., a, b] = u32::try_from(number).unwrap().to_be_bytes();
        SocketAddr::from(([198, 51, a, b], 443))
    }

    #[test]
    fn it_is_known_of_each_address_by_itself() {
        let seen = HttpSeen::default();
        seen.note(address(1));
        assert!(seen.at(address(1)));
        assert!(!seen.at(address(2)));
        assert!(!seen.at(SocketAddr::new(address(1).ip(), 80)));
    }

    #[test]
    fn what_is_called_stays_and_the_rest_is_forgotten_in_time() {
        let seen = HttpSeen::default();
        for number in 0..10 * HTTP_SEEN_KEPT {
            seen.note(address(number));
            assert!(seen.at(address(0)), "called all the while");
            let Halves { young, old } = &*seen.0.borrow();
            assert!(young.len() + old.len() <= HTTP_SEEN_KEPT);
        }
        assert!(!seen.at(address(1)));
        assert!(seen.at(address(10 * HTTP_SEEN_KEPT - 1)));
    }
}
