//! Between mesh and host: published ports, host ports, the host's loopback, addresses outside.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

use crate::{
    as_both_users,
    host::{Machine, skip, wait_until},
};

as_both_users!(
    a_published_port_lets_the_host_in,
    a_port_in_use_is_refused,
    the_hosts_loopback_is_reached_by_name_and_by_port,
    addresses_outside_are_reached_as_before,
    a_refused_connection_outside_is_refused_inside,
);

/// A program on the host that answers every connection with `text`.
fn host_server(text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    serve_host(listener, text);
    address
}

fn serve_host(listener: TcpListener, text: &'static str) {
    thread::spawn(move || {
        for mut stream in listener.incoming().filter_map(Result::ok) {
            let mut request = [0; 1024];
            if stream.read(&mut request).is_ok_and(|count| count > 0) {
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                    text.len()
                );
                drop(stream.write_all(answer.as_bytes()));
            }
        }
    });
}

fn a_published_port_lets_the_host_in(machine: &Machine) {
    let mesh = machine.up("publish");
    let server = mesh.serve("web", &["--publish", "0:80"]);
    let said = server.said();
    let address = said.trim().rsplit_once(" on ").expect("it says where").1.to_owned();
    let get = || {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = get();
    assert!(answer.starts_with("HTTP/1.") && answer.ends_with("web"), "{answer}");
    drop(server);
    assert!(TcpStream::connect(&address).is_err(), "it ends with the workload");
}

fn a_port_in_use_is_refused(machine: &Machine) {
    let mesh = machine.up("taken");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let publish = format!("{port}:80");
    let words = ["--service", "web", "--port", "80", "--publish", &publish, "--", "true"];
    let refused = mesh.run("run", &words);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains(&port.to_string()) && refused.stderr.contains("--publish"),
        "{}",
        refused.stderr
    );
    let dashboard = format!("127.0.0.1:{port}");
    let refused = machine.run(&["up", "--mesh", "other", "--dashboard", &dashboard]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("--dashboard"), "{}", refused.stderr);
    assert!(!machine.dir.join("run/other").exists(), "nothing is left of it");
}

fn the_hosts_loopback_is_reached_by_name_and_by_port(machine: &Machine) {
    let mesh = machine.up("loopback");
    let host = host_server("from the host");
    let got = mesh.get(&format!("http://host.heddle.internal:{}/", host.port()));
    assert_eq!((got.code, got.stdout.as_str()), (0, "from the host"), "{}", got.stderr);
    let port = host.port().to_string();
    let url = format!("http://127.0.0.1:{port}/");
    let words =
        ["--service", "c", "--host-port", &port, "--", "curl", "-sS", "--max-time", "20", &url];
    let got = mesh.run("run", &words);
    assert_eq!((got.code, got.stdout.as_str()), (0, "from the host"), "{}", got.stderr);
    assert_eq!(mesh.get(&url).code, 7, "without the flag 127.0.0.1 is the workload's own");
}

fn addresses_outside_are_reached_as_before(machine: &Machine) {
    // The host's own address on its network: for a workload as far outside as any other.
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    let Ok(address) = probe.connect("192.0.2.1:9").and_then(|()| probe.local_addr()) else {
        skip("this host has no address but its loopback");
        return;
    };
    let mesh = machine.up("outside");
    let listener = TcpListener::bind((address.ip(), 0)).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    serve_host(listener, "from outside");
    let got = mesh.get(&url);
    assert_eq!((got.code, got.stdout.as_str()), (0, "from outside"), "{}", got.stderr);
}

fn a_refused_connection_outside_is_refused_inside(machine: &Machine) {
    let mesh = machine.up("refused");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // An HTTP client on a port whose protocol nobody declared is told so in HTTP.
    let url = format!("http://host.heddle.internal:{closed}/");
    let got = mesh.client(&["curl", "-sS", "--max-time", "20", "-w", " %{http_code}", &url]);
    assert!(got.stdout.contains("Connection refused"), "{} {}", got.stdout, got.stderr);
    assert!(got.stdout.trim_end().ends_with("503"), "{}", got.stdout);
    wait_until("nothing stays behind", || mesh.workloads("client").is_empty().then_some(()));
}
