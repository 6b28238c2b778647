//! Programs that take the calls of a port elsewhere, as a Sidecar says: at another port of the loopback or of the workload's
//! address, or at a socket in the file system.

use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::Path,
};

use heddle_model::{Protocol, discovery::DefaultEndpoint};
use heddle_testkit::folder::Folder;

use crate::support::{Backend, Peer, Sidecar, get};

/// A port at which nobody listens: calls of it are taken elsewhere.
const CALLED: u16 = 9;

fn at(endpoint: DefaultEndpoint, protocol: Protocol) -> (Sidecar, Peer) {
    let sidecar = Sidecar::start().without_control();
    sidecar.own_port_at(CALLED, protocol, &[("client", 80)], Some(endpoint));
    let peer = Peer::connect(sidecar.inbound(CALLED));
    (sidecar, peer)
}

/// Each connection in a thread of its own.
fn serve(path: &Path, serve: impl Fn(&mut dyn ReadWrite) + Send + Sync + Copy + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || serve(&mut stream));
        }
    });
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn a_program_at_another_port_is_called_there_and_counted_as_the_port_called() {
    let backend = Backend::http(|_, _| "there".into());
    for endpoint in [DefaultEndpoint::Loopback, DefaultEndpoint::Own] {
        let (sidecar, mut peer) = at(endpoint(backend.address.port()), Protocol::Http);
        assert_eq!(peer.ask(&get("/")).1, "there");
        sidecar.settled();
        let labels = ["destination_service=\"client.default.svc.cluster.local\""];
        assert_eq!(sidecar.sum("istio_requests_total", &labels), 1.0);
    }
}

#[test]
fn a_program_at_a_socket_in_the_file_system_is_called_there_again_and_again() {
    let folder = Folder::new("ingress");
    let path = folder.join("app.sock");
    serve(&path, |stream| {
        let mut buffer = [0; 4096];
        // One request at a time.
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            assert!(buffer[..count].ends_with(b"\r\n\r\n"));
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nby socket";
            stream.write_all(answer).unwrap();
        }
    });
    let socket = DefaultEndpoint::Socket(path.to_str().unwrap().to_owned());
    let (sidecar, mut peer) = at(socket, Protocol::Http);
    for _ in 0..20 {
        assert_eq!(peer.ask(&get("/")).1, "by socket");
    }
    sidecar.settled();
    assert_eq!(sidecar.sum("istio_requests_total", &["response_code=\"200\""]), 20.0);
}

#[test]
fn bytes_go_to_a_socket_and_back_and_its_end_is_passed_on() {
    let folder = Folder::new("ingress-tcp");
    let path = folder.join("app.sock");
    serve(&path, |stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let socket = DefaultEndpoint::Socket(path.to_str().unwrap().to_owned());
    let (_sidecar, peer) = at(socket, Protocol::Tcp);
    let sent: Vec<u8> = (0..2_000_000_u32).map(|number| number as u8).collect();
    let mut stream = peer.stream;
    stream.write_all(&sent).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut came = Vec::new();
    stream.read_to_end(&mut came).unwrap();
    assert!(came == sent, "{} of {} bytes", came.len(), sent.len());
}

#[test]
fn a_socket_that_is_not_there_is_named() {
    let socket = DefaultEndpoint::Socket("/nowhere/app.sock".to_owned());
    let (_sidecar, mut peer) = at(socket, Protocol::Http);
    let (head, body) = peer.ask(&get("/"));
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("application-unreachable"));
    assert!(body.contains("unix:///nowhere/app.sock"), "{body}");
}
