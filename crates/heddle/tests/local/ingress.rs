//! Programs that take the calls of a port elsewhere than callers send them, as a Sidecar's `ingress` says.

use std::fs;

use heddle_runtime::signal::Signal;

use crate::{
    as_both_users,
    host::{Machine, wait_until},
};

as_both_users!(a_program_is_called_where_its_sidecar_resource_says);

/// `SERVER PLACE`: answers at a port of the loopback, or at a socket in the file system.
const SERVER: &str = "
import http.server, socket, socketserver, sys
place = sys.argv[1]
class App(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = ('at ' + place).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
class AtSocket(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
if place.startswith('/'):
    AtSocket(place, App).serve_forever()
else:
    http.server.ThreadingHTTPServer(('127.0.0.1', int(place)), App).serve_forever()
";

fn a_program_is_called_where_its_sidecar_resource_says(machine: &Machine) {
    let mesh = machine.up("ingress");
    let socket = mesh.run_dir().join("shop.sock");
    let socket = socket.to_str().unwrap();
    let rule = |place: &str| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: shop, namespace: default}}
spec:
  workloadSelector: {{labels: {{app: shop}}}}
  ingress:
  - port: {{number: 80, protocol: HTTP, name: http}}
    defaultEndpoint: {place}
"
        )
    };
    let file = mesh.run_dir().join("sidecar.yaml");
    let apply = |place: &str| {
        fs::write(&file, rule(place)).unwrap();
        let applied = mesh.run("apply", &["-f", file.to_str().unwrap()]);
        let said = format!("{}{}", applied.stdout, applied.stderr);
        assert!(applied.code == 0 && !said.contains("not enforced"), "{said}");
    };
    for (place, listens) in
        [("127.0.0.1:9000".to_owned(), "9000"), (format!("unix://{socket}"), socket)]
    {
        apply(&place);
        // Ready by where it really listens: nobody does at port 80.
        let words = ["--port", "80", "--", "python3", "-c", SERVER, listens];
        let server = mesh.start_ready("shop", &words);
        let answer = mesh.get("http://shop/");
        assert_eq!(answer.stdout, format!("at {listens}"), "{}", answer.stderr);
        server.end(Signal::TERMINATE);
        wait_until("it is gone", || mesh.workloads("shop").is_empty().then_some(()));
    }
}
