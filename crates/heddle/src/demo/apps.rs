//! The demo's applications: a restaurant-review site of eight services and a load generator. One service
//! speaks gRPC, and of another one copy is broken.
//!
//! They are ordinary programs that know nothing of a mesh: no file below this one imports a
//! `heddle-*` crate (`cargo xtask tidy` proves it). Some of the services exist in Python and
//! JavaScript too and run as those where the interpreter is installed; `redis-server` takes the
//! store's place where it is installed.

mod args;
mod counts;
mod grpc;
mod http;
mod kv;
mod load;
mod page;
mod service;

pub(crate) use args::AppArgs;
pub(crate) use load::{RATE_MAX, RATE_MIN};

/// `reviews` and `ratings` for Node.
pub(crate) const NODE_APP: &str = include_str!("apps/app.js");
/// `reviews` and `photos` for Python 3.
pub(crate) const PYTHON_APP: &str = include_str!("apps/app.py");

/// Runs one application until it is killed.
///
/// # Errors
/// A port or a socket that cannot be bound.
pub(crate) fn run(args: &AppArgs) -> std::io::Result<()> {
    match args.role.as_str() {
        "loadgen" => load::run(args),
        "store" => kv::run(args),
        "tables" => service::run_tables(args),
        _ => service::run(args),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::PYTHON_APP;

    /// A kernel without IPv6, and a server that says what it listens on instead of serving.
    const WITHOUT_IPV6: &str = "
import os, socket, socketserver
class Socket(socket.socket):
    def __init__(self, family=socket.AF_INET, *rest):
        if family == socket.AF_INET6:
            raise OSError(97, 'Address family not supported by protocol')
        super().__init__(family, *rest)
socket.socket = Socket
# In one piece: another thread says its own.
socketserver.BaseServer.serve_forever = lambda self: os.write(1, self.address_family.name.encode() + b'\\n')
";

    #[test]
    fn the_python_services_run_on_a_kernel_without_ipv6() {
        let counts = std::env::temp_dir().join(format!("hd-python-{}", std::process::id()));
        let script = format!("{WITHOUT_IPV6}{PYTHON_APP}");
        let mut command = Command::new("python3");
        command.args(["-c", &script, "photos", "v1", "0"]).arg(&counts);
        let Ok(ran) = command.output() else {
            println!("SKIPPED: python3 is not installed");
            return;
        };
        drop(std::fs::remove_file(&counts));
        let (said, failed) =
            (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(said.lines().any(|line| line == "AF_INET"), "{said}{failed}");
    }
}
