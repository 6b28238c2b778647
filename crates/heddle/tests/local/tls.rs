//! TLS that sidecars begin, and the application's own by name, with Python's `ssl` and curl at the ends. A mesh is
//! dear to start, so that one carries all of it.

use std::{fs, net::TcpListener, process::Command};

use heddle_testkit::{folder::Folder, tls::Authority};

use crate::{
    as_both_users,
    host::{Finished, Machine, Mesh, Running, wait_until},
    tools::installed,
};

as_both_users!(
    a_sidecar_begins_tls_and_shows_what_it_is_told_to,
    the_applications_own_tls_goes_by_name,
);

/// Answers over TLS with its name; with a fifth argument only to whom that vouches for.
const SERVER: &str = "
import http.server, ssl, sys
port, cert, key, name = int(sys.argv[1]), *sys.argv[2:5]
class App(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = name.encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
if len(sys.argv) > 5:
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(sys.argv[5])
server = http.server.ThreadingHTTPServer(('', port), App)
server.handle_error = lambda *words: None
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
";

/// Certificates in a folder that everybody can read.
struct Files {
    folder: Folder,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let (folder, authority) = (Folder::new("local-tls"), Authority::new("shop"));
        fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        fs::write(folder.join("other.pem"), Authority::new("other").pem()).unwrap();
        Self { folder, authority }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// What a server of this name is started with.
    fn server(&self, port: &str, name: &str, for_names: &[&str]) -> Vec<String> {
        let (cert, key) = self.authority.vouch(for_names).write(&self.folder, name);
        let own = [cert.to_str().unwrap(), key.to_str().unwrap(), name];
        ["python3", "-c", SERVER, port].iter().chain(&own).map(|word| (*word).to_owned()).collect()
    }
}

fn serve(mesh: &Mesh<'_>, service: &str, port: &str, command: &[String]) -> Running {
    let words = ["--port", port, "--"].into_iter().chain(command.iter().map(String::as_str));
    mesh.start_ready(service, &words.collect::<Vec<_>>())
}

fn apply(machine: &Machine, mesh: &Mesh<'_>, text: &str) -> Finished {
    let file = machine.dir.join("rules.yaml");
    fs::write(&file, text).unwrap();
    mesh.run("apply", &["-f", file.to_str().unwrap()])
}

fn tls_of(host: &str, tls: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {host}}}\nspec:\n  host: {host}\n  trafficPolicy:\n    tls: {tls}\n"
    )
}

fn a_sidecar_begins_tls_and_shows_what_it_is_told_to(machine: &Machine) {
    if !installed("python3") || !installed("curl") {
        return;
    }
    let (files, mesh) = (Files::new(), machine.up("origin"));
    let full = |name: &str| format!("{name}.default.svc.cluster.local");
    let secure = files.server("8443", "secure", &[&full("secure")]);
    let _secure = serve(&mesh, "secure", "http:8443", &secure);
    let mut strict = files.server("8443", "strict", &[&full("strict")]);
    strict.push(files.path("ca.pem"));
    let _strict = serve(&mesh, "strict", "http:8443", &strict);
    let _own = files.authority.vouch(&["client"]).write(&files.folder, "own");
    let get = |name: &str| mesh.client(&["curl", "-sSi", "--max-time", "20", name]).stdout;
    let applied = |text: &str| {
        let applied = apply(machine, &mesh, text);
        assert_eq!(applied.code, 0, "{} {}", applied.stdout, applied.stderr);
    };
    let (ca, other) = (files.path("ca.pem"), files.path("other.pem"));

    applied(&tls_of("secure", &format!("{{mode: SIMPLE, caCertificates: {ca}}}")));
    let said = get("http://secure:8443/");
    assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("secure"), "{said}");

    applied(&tls_of("secure", &format!("{{mode: SIMPLE, caCertificates: {other}}}")));
    let said = get("http://secure:8443/");
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    assert!(said.contains("x-heddle-refusal: tls-failed; hop=outbound@"), "{said}");
    assert!(said.contains("unknown issuer"), "{said}");

    applied(&tls_of("secure", &format!("{{mode: SIMPLE, caCertificates: {ca}, sni: else.where}}")));
    let said = get("http://secure:8443/");
    assert!(said.contains("tls-failed") && said.contains("for another name"), "{said}");

    let absent = tls_of("secure", "{mode: SIMPLE, caCertificates: /nowhere/ca.pem}");
    let refused = apply(machine, &mesh, &absent);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    let place = "rules.yaml:7: spec.trafficPolicy.tls.caCertificates";
    assert!(refused.stderr.contains(place), "{}", refused.stderr);
    assert!(refused.stderr.contains("/nowhere/ca.pem: No such file"), "{}", refused.stderr);

    let own = |name: &str| files.path(name);
    let mutual = format!(
        "{{mode: MUTUAL, caCertificates: {ca}, clientCertificate: {}, privateKey: {}}}",
        own("own.pem"),
        own("own-key.pem")
    );
    applied(&tls_of("strict", &mutual));
    let said = get("http://strict:8443/");
    assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("strict"), "{said}");
    let shown = mesh.run("get", &["dr", "strict", "-o", "yaml"]).stdout;
    assert!(shown.contains("own-key.pem") && !shown.contains("PRIVATE KEY"), "{shown}");
    applied(&tls_of("strict", &format!("{{mode: SIMPLE, caCertificates: {ca}}}")));
    let said = get("http://strict:8443/");
    assert!(said.starts_with("HTTP/1.1 503 "), "without a certificate: {said}");
    what_leaves_the_mesh_is_tls(machine, &mesh, &files);
}

/// Istio's egress case: an application calls HTTP on 80, and what leaves its sidecar is TLS on another port.
fn what_leaves_the_mesh_is_tls(machine: &Machine, mesh: &Mesh<'_>, files: &Files) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let words = files.server(&free, "egress", &["secure.example.com"]);
    let mut server = Command::new(&words[0]);
    server.args(&words[1..]);
    let _server = machine.start(server);
    let ca = files.path("ca.pem");
    let text = format!(
        r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: secure-outside}}
spec:
  hosts: [secure.example.com]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {free}}}]
  resolution: DNS
  endpoints: [{{address: host.heddle.internal}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: secure-outside}}
spec:
  host: secure.example.com
  trafficPolicy:
    portLevelSettings:
    - port: {{number: 80}}
      tls: {{mode: SIMPLE, caCertificates: {ca}}}
"#
    );
    let applied = apply(machine, mesh, &text);
    assert_eq!(applied.code, 0, "{} {}", applied.stdout, applied.stderr);
    let get = "curl -sSi --max-time 20 http://secure.example.com/";
    let script = format!("{get} && echo && curl -s http://127.0.0.1:15090/stats/prometheus");
    let told = wait_until("the host's server answers", || {
        let told = mesh.client(&["sh", "-c", &script]).stdout;
        told.starts_with("HTTP/1.1 200 ").then_some(told)
    });
    assert!(told.contains("\r\n\r\negress\n"), "{told}");
    let counted = told.lines().find(|line| {
        line.starts_with("istio_requests_total{")
            && line.contains("destination_service=\"secure.example.com\"")
            && line.contains("response_code=\"200\"")
    });
    assert!(counted.is_some(), "{told}");
    let shown = mesh.run("get", &["serviceentry", "secure-outside"]).stdout;
    assert!(shown.contains("Programmed"), "{shown}");
}

fn the_applications_own_tls_goes_by_name(machine: &Machine) {
    if !installed("python3") || !installed("curl") {
        return;
    }
    let (files, mesh) = (Files::new(), machine.up("by-name"));
    let ca = files.path("ca.pem");
    let names = ["*.example.com", "www.example.net"];
    let start =
        |name: &str, port: &str| serve(&mesh, name, port, &files.server("8443", name, &names));
    let _one = start("one", "tls:8443");
    let _two = start("two", "8443");
    let rules = |host: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}}}\nspec:\n  hosts: [{host}, '*.{host}.example.com', '{host}.example.com']\n  tls:\n  - match: [{{sniHosts: ['*.{host}.example.com']}}]\n    route: [{{destination: {{host: one}}}}]\n  - match: [{{sniHosts: ['{host}.example.com']}}]\n    route: [{{destination: {{host: two}}}}]\n---\n"
        )
    };
    let text = format!("{}{}", rules("one"), rules("two"));
    let applied = apply(machine, &mesh, &text);
    assert_eq!(applied.code, 0, "{} {}", applied.stdout, applied.stderr);
    let ask = |name: &str, at: &str, port: &str| {
        let to = format!("{name}:{port}:{at}:{port}");
        let url = format!("https://{name}:{port}/");
        format!("curl -sS --max-time 20 --cacert {ca} --connect-to {to} {url}")
    };
    for at in ["one", "two"] {
        let own = format!("{at}.example.com");
        for (name, answer) in [(own.as_str(), "two"), ("other.example.com", at)] {
            let got = mesh.client(&["sh", "-c", &ask(name, at, "8443")]);
            assert_eq!(got.stdout, answer, "{name} at {at}: {}", got.stderr);
        }
    }

    by_tls_route(machine, &mesh, &ask);

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let words = files.server(&free, "host", &names);
    let mut server = Command::new(&words[0]);
    server.args(&words[1..]);
    let _host = machine.start(server);
    let script = format!(
        "{} && echo && curl -sS http://127.0.0.1:15090/stats/prometheus",
        ask("www.example.net", "host.heddle.internal", &free)
    );
    let told = wait_until("the host's server answers", || {
        let told = mesh.client(&["sh", "-c", &script]).stdout;
        told.starts_with("host\n").then_some(told)
    });
    let counted = told.lines().find(|line| {
        line.starts_with("istio_tcp_connections_opened_total{")
            && line.contains("destination_service=\"www.example.net\"")
            && line.contains("destination_service_name=\"PassthroughCluster\"")
    });
    assert!(counted.is_some_and(|line| line.ends_with(" 1")), "{told}");
}

const TLS_ROUTE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: swap}
spec:
  parentRefs: [{kind: Service, group: "", name: one}]
  hostnames: ["*.one.example.com", Swap.example.com]
  rules: [{backendRefs: [{name: two, port: 8443}]}]
"#;

/// A route of the Gateway API takes the place of `tls` rules: names it has go where it says, others nowhere.
fn by_tls_route(machine: &Machine, mesh: &Mesh<'_>, ask: &dyn Fn(&str, &str, &str) -> String) {
    let applied = apply(machine, mesh, TLS_ROUTE);
    assert_eq!(applied.code, 0, "{} {}", applied.stdout, applied.stderr);
    for name in ["swap.example.com", "one.example.com"] {
        let got = mesh.client(&["sh", "-c", &ask(name, "one", "8443")]);
        let expected = if name.starts_with("swap") { "two" } else { "" };
        assert_eq!(got.stdout, expected, "{name}: {}", got.stderr);
        assert_eq!(got.code == 0, !expected.is_empty(), "{name}: {}", got.stderr);
    }
    let told = mesh.run("get", &["tlsroute", "swap", "-o", "yaml"]).stdout;
    assert!(told.contains("\"Accepted\"") && told.contains("\"ResolvedRefs\""), "{told}");
    let loser = mesh.run("get", &["virtualservice", "one"]).stdout;
    assert!(loser.contains("Conflicted"), "{loser}");
}
