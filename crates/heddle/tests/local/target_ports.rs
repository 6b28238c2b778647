//! Service ports that lead to another port in each workload, and programs of one address family.

use std::fs;

use crate::{
    as_both_users,
    host::{Machine, Mesh, Running, wait_until},
};

as_both_users!(a_named_target_port_is_each_workloads_own_in_whichever_address_family);

/// `SERVER NAME PORT FAMILY`: answers with its name, on IPv4 or on IPv6 alone.
const SERVER: &str = "
import http.server, socket, sys
class App(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = sys.argv[1].encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if sys.argv[3] == '6' else socket.AF_INET
    def server_bind(self):
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = sys.argv[1], int(sys.argv[2])
Server(('::' if sys.argv[3] == '6' else '', int(sys.argv[2])), App).serve_forever()
";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{name: http, port: 80, targetPort: web}]}
";

fn server(mesh: &Mesh<'_>, version: &str, port: &str, family: &str) -> Running {
    let named = format!("web:{port}");
    let words = ["--version", version, "--port", &named, "--", "python3", "-c", SERVER, version];
    mesh.start_ready("shop", &[&words[..], &[port, family]].concat())
}

fn a_named_target_port_is_each_workloads_own_in_whichever_address_family(machine: &Machine) {
    let mesh = machine.up("target-ports");
    let file = mesh.run_dir().join("service.yaml");
    fs::write(&file, SERVICE).unwrap();
    let applied = mesh.run("apply", &["-f", file.to_str().unwrap()]);
    assert_eq!(applied.code, 0, "{}{}", applied.stdout, applied.stderr);
    let _four = server(&mesh, "v4", "8080", "4");
    let _six = server(&mesh, "v6", "9090", "6");
    for family in ["-4", "-6"] {
        for wanted in ["v4", "v6"] {
            wait_until("each of them answers, whatever the caller's address family", || {
                let asked = ["curl", "-s", family, "--max-time", "10", "http://shop/"];
                let answer = mesh.client(&asked);
                assert!(
                    ["v4", "v6"].contains(&answer.stdout.as_str()),
                    "{}{}",
                    answer.stdout,
                    answer.stderr
                );
                (answer.stdout == wanted).then_some(())
            });
        }
    }
}
