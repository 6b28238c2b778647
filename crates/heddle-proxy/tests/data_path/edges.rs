//! Costs that must stay small: what an idle connection holds.

use heddle_model::Protocol;

use crate::support::{Backend, Peer, Sidecar, TestService, get};

#[test]
fn many_idle_connections_are_served_when_they_speak() {
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::start();
    let address = sidecar.service(&TestService::speaking(Protocol::Http, &[backend.address]));
    let mut clients: Vec<_> = (0..300).map(|_| Peer::connect(address)).collect();
    for _ in 0..2 {
        for client in clients.iter_mut().rev() {
            assert_eq!(client.ask(&get("/")).1, "ok");
        }
    }
    // One at a time, so one upstream connection was enough.
    assert_eq!(backend.connections(), 1);
}
