//! Where the application listens: found by reading the kernel's tables, never by connecting.
//!
//! Thread 0 scans, publishes the result for inbound dialling and reports it to the control plane,
//! which makes the endpoints ready. The workers only read [`Listening`].

pub(crate) mod scan;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hashbrown::HashMap;
use heddle_model::Addresses;

/// Where only the workload itself can call.
pub(crate) const LOOPBACK: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Ports in LISTEN in this network namespace with the address to dial for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    own: Addresses,
    ports: HashMap<u16, IpAddr>,
}

impl Listening {
    /// Nothing known yet.
    #[must_use]
    pub fn unknown(own: Addresses) -> Self {
        Self { own, ports: HashMap::new() }
    }

    /// The best address of each port among `sockets`: the workload's own IPv4, its IPv6, then
    /// 127.0.0.1, then `::1`. A wildcard listener counts as listening on the workload's address.
    #[must_use]
    pub fn of(sockets: &[SocketAddr], own: Addresses) -> Self {
        let mut found = Self::unknown(own);
        for socket in sockets {
            let Some(address) = found.dial_address(socket.ip()) else { continue };
            let rank = found.rank(address);
            let best = found.ports.get(&socket.port()).copied();
            if best.is_none_or(|best| rank < found.rank(best)) {
                found.ports.insert(socket.port(), address);
            }
        }
        found
    }

    /// Is nothing listening that others could reach?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Is something listening on `port`?
    #[must_use]
    pub fn has(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }

    /// Addresses to dial for `port`, best first: where it was last seen listening, then the rest,
    /// since an application may have moved since the last scan. Loopback refusals cost microseconds.
    /// Without `loopback` the workload's own addresses only: what listens on the loopback and is not
    /// declared (a debugger, a database for tests) is meant for nobody else. A `caller` whose address is kept is let in
    /// by its own address family where it may be, whatever the other was seen to take.
    pub fn candidates(
        &self,
        port: u16,
        loopback: bool,
        caller: Option<IpAddr>,
    ) -> impl Iterator<Item = SocketAddr> + use<> {
        let own = self.own;
        let seen = self.ports.get(&port).copied();
        let kept = caller.filter(|_| seen.is_none_or(|address| own.contains(address)));
        let first = kept.and_then(|caller| own.of_family(caller)).or(seen);
        let second = seen.filter(|_| first != seen);
        let rest = self.order().filter(move |one| Some(*one) != first && Some(*one) != second);
        first
            .into_iter()
            .chain(second)
            .chain(rest)
            .filter(move |address| loopback || own.contains(*address))
            .map(move |address| SocketAddr::new(address, port))
    }

    fn order(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.own.iter().chain(LOOPBACK)
    }

    fn rank(&self, address: IpAddr) -> usize {
        self.order().position(|one| one == address).unwrap_or(usize::MAX)
    }

    /// The address that reaches a listener bound to `bound`; `None` if inbound traffic may not.
    fn dial_address(&self, bound: IpAddr) -> Option<IpAddr> {
        let address = match bound.to_canonical() {
            // `[::]` takes IPv4 too, unless it was told not to.
            IpAddr::V6(ip) if ip.is_unspecified() => {
                self.own.of_family(IpAddr::V6(ip)).unwrap_or_else(|| self.own.first())
            }
            ip if ip.is_unspecified() => self.own.of_family(ip)?,
            ip => ip,
        };
        self.order().any(|one| one == address).then_some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Ipv4Addr = Ipv4Addr::new(240, 241, 0, 10);
    const V6: Ipv6Addr = Ipv6Addr::new(0xfd68, 0, 0, 1, 0, 0, 0, 10);
    const OWN: Addresses = Addresses::Both(V4, V6);

    fn first(sockets: &[&str], port: u16) -> IpAddr {
        let sockets: Vec<SocketAddr> = sockets.iter().map(|text| text.parse().unwrap()).collect();
        Listening::of(&sockets, OWN).candidates(port, true, None).next().unwrap().ip()
    }

    #[test]
    fn the_workloads_own_address_is_dialled_before_loopback() {
        assert_eq!(first(&["127.0.0.1:80", "0.0.0.0:80"], 80), IpAddr::V4(V4));
        assert_eq!(first(&["240.241.0.10:80", "[::]:80"], 80), IpAddr::V4(V4));
        assert_eq!(first(&["[::]:80"], 80), IpAddr::V6(V6));
        assert_eq!(first(&["[::1]:80", "127.0.0.1:80"], 80), IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(first(&["[::1]:80"], 80), IpAddr::V6(Ipv6Addr::LOCALHOST));
    }

    #[test]
    fn a_listener_on_a_foreign_address_does_not_count() {
        let sockets = ["10.0.0.1:80".parse().unwrap(), "127.0.0.2:81".parse().unwrap()];
        let listening = Listening::of(&sockets, OWN);
        assert!(!listening.has(80));
        assert!(!listening.has(81));
    }

    #[test]
    fn every_address_is_a_candidate_for_an_unseen_port() {
        let candidates: Vec<_> = Listening::unknown(OWN).candidates(9000, true, None).collect();
        assert_eq!(candidates[0], SocketAddr::new(IpAddr::V4(V4), 9000));
        assert_eq!(candidates.len(), 4);
    }

    #[test]
    fn a_caller_who_is_to_be_seen_is_let_in_by_its_own_family() {
        let sockets =
            ["240.241.0.10:80", "[::]:80", "127.0.0.1:81"].map(|one| one.parse().unwrap());
        let listening = Listening::of(&sockets, OWN);
        let first = |port, caller: &str| {
            let mut all = listening.candidates(port, true, Some(caller.parse().unwrap()));
            assert_eq!(all.by_ref().count(), 4, "each once");
            listening.candidates(port, true, Some(caller.parse().unwrap())).next().unwrap().ip()
        };
        assert_eq!(first(80, "fd00::7"), IpAddr::V6(V6));
        assert_eq!(first(80, "10.0.0.7"), IpAddr::V4(V4));
        assert_eq!(first(82, "fd00::7"), IpAddr::V6(V6), "where nothing was seen yet");
        assert_eq!(first(81, "fd00::7"), LOOPBACK[0], "no other address takes it");
    }

    #[test]
    fn what_nobody_declared_is_not_looked_for_on_the_loopback() {
        let sockets = ["127.0.0.1:9229".parse().unwrap(), "[::1]:9229".parse().unwrap()];
        let listening = Listening::of(&sockets, OWN);
        let candidates: Vec<_> =
            listening.candidates(9229, false, None).map(|one| one.ip()).collect();
        assert_eq!(candidates, [IpAddr::V4(V4), IpAddr::V6(V6)]);
    }

    #[test]
    fn a_workload_of_one_family_is_dialled_in_that_family_or_on_loopback() {
        let own = Addresses::V6(V6);
        let sockets = ["0.0.0.0:80".parse().unwrap(), "[::]:81".parse().unwrap()];
        let listening = Listening::of(&sockets, own);
        assert!(!listening.has(80), "no address of that family");
        let candidates: Vec<_> =
            listening.candidates(81, true, None).map(|address| address.ip()).collect();
        assert_eq!(candidates, [V6.into(), LOOPBACK[0], LOOPBACK[1]]);
    }
}
