//! Host addresses that let the host in: bound here, in the host's network, and inherited by the
//! workload's sidecar, also by the next one should it die; connections meanwhile wait in the queue.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use heddle_wire::local::holder_api::Publish;

/// Most published ports of one workload.
const PUBLISHED_MAX: usize = 64;

/// Binds every address, or says which one cannot be and what to do.
///
/// # Errors
/// One line for the user.
pub(crate) fn bind(publish: &[Publish]) -> Result<Vec<TcpListener>, String> {
    if publish.len() > PUBLISHED_MAX {
        return Err(format!("{} ports to publish are more than {PUBLISHED_MAX}", publish.len()));
    }
    publish.iter().map(|publish| bind_one(publish.host, "--publish")).collect()
}

/// Binds one listening socket on the host.
///
/// # Errors
/// One line for the user that names the `flag` to change.
pub(crate) fn bind_one(host: SocketAddr, flag: &str) -> Result<TcpListener, String> {
    let bound = TcpListener::bind(host).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has it: use another port, or 0 for a free one"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 are root's: use a higher one",
            io::ErrorKind::AddrNotAvailable => "this host has no such address",
            _ => "use another address or port",
        };
        format!("cannot listen on {host} ({flag}): {error}; {advice}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_refused_by_name() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = taken.local_addr().unwrap();
        let refusal = bind(&[Publish { host, port: 80 }]).unwrap_err();
        assert!(refusal.contains(&host.to_string()) && refusal.contains("--publish"), "{refusal}");
        let free = Publish { host: "127.0.0.1:0".parse().unwrap(), port: 80 };
        assert_eq!(bind(&[free]).unwrap().len(), 1);
    }
}
