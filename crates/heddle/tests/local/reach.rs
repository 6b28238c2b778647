//! Who reaches what of a workload, and as whom; and what either end sees of the other's end.

use std::{
    io::{ErrorKind, Read as _},
    net::TcpListener,
    process::Command,
    thread,
};

use crate::{
    as_both_users,
    host::{Machine, Running, User, skip},
};

as_both_users!(
    what_is_on_the_loopback_and_not_declared_is_the_workloads_own,
    a_program_on_the_loopback_can_tell_callers_from_itself,
    a_silent_client_of_a_port_where_nobody_listens_is_reset,
    a_reset_of_a_program_is_a_reset_on_the_host,
    there_is_no_way_to_ipv6_addresses_where_the_host_has_none,
);

/// Answers each connection with the address it comes from.
const TELLS_CALLERS: &str = "
import socket, sys
listener = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((sys.argv[1], int(sys.argv[2])))
listener.listen()
while True:
    one, peer = listener.accept()
    one.sendall(peer[0].encode())
    one.close()
";

/// Prints what comes from HOST PORT, or the name of the error.
const ASKS: &str = "
import socket, sys
try:
    one = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
    said = one.recv(100).decode() or 'end'
except OSError as error:
    said = type(error).__name__
print(said, end='')
";

fn server<'m>(
    mesh: &'m crate::host::Mesh<'m>,
    service: &str,
    address: &str,
    flags: &[&str],
) -> Running {
    let words = [flags, &["--", "python3", "-c", TELLS_CALLERS, address, "7777"]].concat();
    mesh.start_ready(service, &words)
}

fn asks(mesh: &crate::host::Mesh<'_>, host: &str, port: &str) -> String {
    mesh.client(&["python3", "-c", ASKS, host, port]).stdout.trim().to_owned()
}

/// A workload's IPv4 address.
fn address_of(mesh: &crate::host::Mesh<'_>, service: &str) -> String {
    mesh.workloads(service)[0]["workload"]["ipv4"].as_str().unwrap().to_owned()
}

fn what_is_on_the_loopback_and_not_declared_is_the_workloads_own(machine: &Machine) {
    let mesh = machine.up("private");
    // A server that declares another port, with a listener beside it that is nobody's business.
    let both = "import subprocess, sys
subprocess.Popen([sys.executable, '-c', sys.argv[1], '127.0.0.1', '9229'])
exec(sys.argv[2])";
    let page = "from http.server import *; HTTPServer(('127.0.0.1', 80), SimpleHTTPRequestHandler).serve_forever()";
    let words = ["--port", "80", "--", "python3", "-c", both, TELLS_CALLERS, page];
    let _server = mesh.start_ready("app", &words);
    let address = address_of(&mesh, "app");
    assert_eq!(mesh.get(&format!("http://{address}/")).code, 0, "what is declared is reached");
    assert_eq!(asks(&mesh, &address, "9229"), "ConnectionResetError");
    for port in ["15000", "15053", "15001", "15006"] {
        assert_eq!(asks(&mesh, &address, port), "ConnectionResetError", "{port}");
        let got = mesh.get(&format!("http://{address}:{port}/config_dump"));
        assert!(!got.stdout.contains("workload"), "{port}: {}", got.stdout);
    }
    let metrics = mesh.get(&format!("http://{address}:15090/stats/prometheus"));
    assert!(metrics.stdout.contains("istio_requests_total"), "{}", metrics.stdout);
    assert_eq!(mesh.get(&format!("http://{address}:15021/healthz/ready")).code, 0);
}

fn a_program_on_the_loopback_can_tell_callers_from_itself(machine: &Machine) {
    let mesh = machine.up("callers");
    let _v4 = server(&mesh, "four", "127.0.0.1", &["--port", "tcp:7777"]);
    assert_eq!(asks(&mesh, "four", "7777"), "127.0.0.6");
    let _v6 = server(&mesh, "six", "::1", &["--port", "tcp:7777"]);
    assert_eq!(asks(&mesh, "six", "7777"), "::6");
}

fn a_silent_client_of_a_port_where_nobody_listens_is_reset(machine: &Machine) {
    let mesh = machine.up("nobody");
    let _server = mesh.serve("web", &[]);
    // At the workload's own sidecar, and at the client's; an answer would be `end` after a long time.
    for host in [address_of(&mesh, "web").as_str(), "web"] {
        assert_eq!(asks(&mesh, host, "9999"), "ConnectionResetError", "{host}");
    }
}

fn a_reset_of_a_program_is_a_reset_on_the_host(machine: &Machine) {
    let mesh = machine.up("resets");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let saw = thread::spawn(move || {
        let mut ends = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 5]).unwrap();
            ends.push(stream.read(&mut [0]).map_err(|error| error.kind()));
        }
        ends
    });
    let program = "
import socket, struct, sys, time
for linger in (True, False):
    one = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
    one.sendall(b'hello')
    # A reset may overtake what was sent before it, on any network.
    time.sleep(0.5)
    if linger:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    one.close()
";
    let words = ["--service", "c", "--host-port", &port, "--", "python3", "-c", program, &port];
    let ran = mesh.run("run", &words);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(saw.join().unwrap(), [Err(ErrorKind::ConnectionReset), Ok(0)]);
}

fn there_is_no_way_to_ipv6_addresses_where_the_host_has_none(machine: &Machine) {
    if machine.user == User::Ordinary {
        return skip("a network without IPv6 is root's to make");
    }
    let mesh = machine.up_by("nosix", |command| {
        let mut alone = Command::new("unshare");
        alone.args(["-n", "--"]).arg(command.get_program()).args(command.get_args());
        let kept = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        alone.envs(kept).current_dir(&machine.dir);
        alone
    });
    let _server = mesh.serve("web", &[]);
    // As on such a host, so that programs go on with the next address of a name.
    assert_eq!(asks(&mesh, "2001:db8::1", "80"), "OSError");
    let got = mesh.client(&["curl", "-6", "-sS", "--max-time", "20", "http://web/"]);
    assert_eq!((got.code, got.stdout.as_str()), (0, "web"), "{}", got.stderr);
}
