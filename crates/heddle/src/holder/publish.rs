//! Host addresses that let the host in: bound here, in the host's network, and inherited by the
//! workload's sidecar, also by the next one should it die; connections meanwhile wait in the queue.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use heddle_wire::local::holder_api::{JoinSpec, Publish};

/// Most published ports of one workload.
const PUBLISHED_MAX: usize = 64;

/// What a workload is reached at: what it publishes, and last, at a free port, where it is asked whether it is ready.
pub(crate) fn all(spec: &JoinSpec) -> Vec<Publish> {
    let host = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let ready = spec.ready_port.map(|port| Publish { host, host_port_max: 0, port });
    spec.publish.iter().cloned().chain(ready).collect()
}

/// Binds every address, or says which one cannot be and what to do.
///
/// # Errors
/// One line for the user.
pub(crate) fn bind(publish: &[Publish]) -> Result<Vec<TcpListener>, String> {
    if publish.len() > PUBLISHED_MAX {
        return Err(format!("{} ports to publish are more than {PUBLISHED_MAX}", publish.len()));
    }
    publish.iter().map(bind_first).collect()
}

/// Binds the first free one of the ports asked for.
fn bind_first(publish: &Publish) -> Result<TcpListener, String> {
    let (mut host, last) = (publish.host, publish.host_port_max);
    loop {
        match listen(host) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && host.port() < last => {
                host.set_port(host.port() + 1);
            }
            Err(error) if host != publish.host => {
                let first = publish.host;
                return Err(refusal(
                    &format!("{first} or the ports up to {last}"),
                    "--publish",
                    &error,
                ));
            }
            bound => return bound.map_err(|error| refusal(&host.to_string(), "--publish", &error)),
        }
    }
}

/// Binds a listening socket on the host: the first of these addresses that can be.
///
/// # Errors
/// One line for the user that names the `flag` to change; about the last address.
pub(crate) fn bind_any(hosts: &[SocketAddr], flag: &str) -> Result<TcpListener, String> {
    let mut refused = format!("no address to listen on was given ({flag})");
    for host in hosts {
        match listen(*host) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = refusal(&host.to_string(), flag, &error),
        }
    }
    Err(refused)
}

fn listen(host: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(host)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn refusal(host: &str, flag: &str, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "another program has it: use another port, or 0 for a free one",
        io::ErrorKind::PermissionDenied => "ports below 1024 are root's: use a higher one",
        io::ErrorKind::AddrNotAvailable => "this host has no such address",
        _ => "use another address or port",
    };
    format!("cannot listen on {host} ({flag}): {error}; {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: SocketAddr, host_port_max: u16) -> Publish {
        Publish { host, host_port_max, port: 80 }
    }

    #[test]
    fn a_taken_port_is_refused_by_name() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = taken.local_addr().unwrap();
        let refusal = bind(&[at(host, host.port())]).unwrap_err();
        assert!(refusal.contains(&host.to_string()) && refusal.contains("--publish"), "{refusal}");
        let free = at("127.0.0.1:0".parse().unwrap(), 0);
        assert_eq!(bind(&[free]).unwrap().len(), 1);
    }

    #[test]
    fn of_several_ports_the_first_free_one_is_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = taken.local_addr().unwrap();
        let bound = bind(&[at(host, u16::MAX)]).unwrap();
        assert!(bound[0].local_addr().unwrap().port() > host.port());
    }
}
