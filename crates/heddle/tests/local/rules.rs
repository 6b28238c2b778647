//! What rules do with requests besides choosing where they go, seen by curl, Node and Python. A mesh is dear
//! to start, so that one carries all of it.

use std::fs;

use crate::{
    as_both_users,
    host::{Machine, Mesh},
    tools::{CurlCase, by_curl, installed},
};

as_both_users!(rules_answer_change_limit_and_repeat_what_real_clients_send);

/// Answers with what it was asked and how often; `/flaky…` fails twice first, `/slow` takes long.
const SHOP: &str = "
import collections, http.server, time
counts = collections.Counter()
class App(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def answer(self):
        self.rfile.read(int(self.headers.get('content-length') or 0))
        counts[self.path] += 1
        if self.path == '/slow':
            time.sleep(20)
        flaky = self.path.startswith('/flaky') and counts[self.path] < 3
        body = f'{counts[self.path]} {self.requestline}\\n{self.headers}'.encode()
        self.send_response(503 if flaky else 200)
        self.send_header('content-length', str(len(body)))
        self.send_header('x-own', 'shop')
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = do_PUT = do_OPTIONS = answer
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(('', 80), App).serve_forever()
";

const RULES: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: team, namespace: default}
spec:
  http:
  - match: [{uri: {prefix: /team/a}}]
    rewrite: {uri: /a}
    route: [{destination: {host: shop}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec:
  hosts: [shop]
  http:
  - match: [{uri: {prefix: /old/}}]
    redirect: {uri: /new, scheme: https, port: 8443, redirectCode: 302}
  - match: [{uri: {exact: /teapot}}]
    directResponse: {status: 418, body: {string: short and stout}}
  - match: [{uri: {prefix: /v1}}]
    rewrite: {uri: /v2, authority: inner.example}
    route: [{destination: {host: shop}}]
  - match: [{uri: {prefix: /by/}}]
    rewrite: {uriRegexRewrite: {match: "^/by/([^/]+)/(.*)$", rewrite: '/\2/\1'}}
    route: [{destination: {host: shop}}]
  - match: [{uri: {prefix: /fields}}]
    headers:
      request: {set: {x-set: rule}, add: {x-add: more}, remove: [user-agent]}
      response: {set: {x-own: rule}, remove: [server]}
    route: [{destination: {host: shop}}]
  - match: [{uri: {prefix: /slow}}]
    timeout: 1s
    route: [{destination: {host: shop}}]
  - match: [{uri: {prefix: /flaky}}]
    retries: {attempts: 3, retryOn: 5xx, backoff: 10ms}
    route: [{destination: {host: shop}}]
  - match: [{uri: {prefix: /cors}}]
    corsPolicy:
      allowOrigins: [{exact: "https://page.example"}]
      allowMethods: [GET, PUT]
      maxAge: 1h
    route: [{destination: {host: shop}}]
  - match: [{uri: {prefix: /team}}]
    delegate: {name: team}
  - match: [{uri: {prefix: /gone}}]
    delegate: {name: nobody}
  - route: [{destination: {host: shop}}]
"#;

const CASES: &[CurlCase] = &[
    ("http://shop/old/a?q=1", &["302 Found", "location: https://shop:8443/new?q=1"], &["GET "]),
    ("http://shop/teapot", &["418 I'm a Teapot", "short and stout"], &["GET ", "x-heddle-refusal"]),
    (
        "http://shop/v1/x?q=1",
        &[
            "GET /v2/x?q=1 HTTP",
            "Host: inner.example",
            "x-envoy-original-path: /v1/x?q=1",
            "x-envoy-original-host: shop",
        ],
        &["\nHost: shop"],
    ),
    ("http://shop/by/a/b?q", &["GET /b/a?q HTTP"], &[]),
    (
        "-H 'X-Set: client' http://shop/fields",
        &["x-set: rule", "x-add: more", "x-own: rule"],
        &["client", "curl/", "x-own: shop", "Server:"],
    ),
    ("http://shop/slow", &["504 Gateway Timeout", "x-heddle-refusal: timeout; hop=outbound@"], &[]),
    (
        "http://shop/flaky",
        &["HTTP/1.1 200 OK", "3 GET /flaky HTTP", "x-envoy-attempt-count: 3"],
        &[],
    ),
    (
        "-X PUT -d body http://shop/flaky-put",
        &["200 OK", "3 PUT /flaky-put", "Content-Length: 4"],
        &[],
    ),
    ("-d body http://shop/flaky-post", &["503 Service Unavailable", "1 POST /flaky-post"], &[]),
    (
        "-X OPTIONS -H 'Origin: https://page.example' -H 'Access-Control-Request-Method: PUT' http://shop/cors",
        &["200 OK", "access-control-allow-methods: GET,PUT", "access-control-max-age: 3600"],
        &["OPTIONS /cors"],
    ),
    (
        "-H 'Origin: https://page.example' http://shop/cors",
        &["access-control-allow-origin: https://page.example", "GET /cors"],
        &[],
    ),
    ("-H 'Origin: https://evil.example' http://shop/cors", &["GET /cors"], &["access-control"]),
    ("http://shop/team/a/b", &["GET /a/b HTTP"], &[]),
    ("http://shop/team/other", &["GET /team/other HTTP"], &["x-envoy-original-path"]),
    ("http://shop/gone", &["503 ", "there is no delegate `VirtualService/default/nobody`"], &[]),
    ("http://shop/plain", &["200 OK", "GET /plain HTTP", "Host: shop"], &["x-envoy-"]),
];

/// Follows a redirect by hand and sends a body, as programs do that keep their connections.
const NODE: &str = "
const http = require('http');
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const ask = (options, body) => new Promise((done, failed) => {
  const request = http.request({ host: 'shop', agent, ...options }, (response) => {
    let text = '';
    response.on('data', (piece) => { text += piece; });
    response.on('end', () => done(response.statusCode + ' ' + (response.headers.location || text.split('\\n')[0])));
  });
  request.on('error', failed);
  request.end(body);
});
(async () => {
  console.log(await ask({ path: '/old/a' }));
  console.log(await ask({ path: '/teapot', method: 'POST' }, 'x'.repeat(100000)));
  console.log(await ask({ path: '/v1/y' }));
  console.log(await ask({ path: '/slow' }));
  console.log(await ask({ path: '/plain/node' }));
  process.exit(0);
})();
";

fn rules_answer_change_limit_and_repeat_what_real_clients_send(machine: &Machine) {
    let mesh = machine.up("rules");
    let words = ["--port", "http:80", "--", "python3", "-c", SHOP];
    let _shop = mesh.start_ready("shop", &words);
    let file = mesh.run_dir().join("shop.yaml");
    fs::write(&file, RULES).unwrap();
    // The missing delegate is said, and refuses its share.
    let applied = mesh.run("apply", &["-f", file.to_str().unwrap()]);
    let said = format!("{}{}", applied.stdout, applied.stderr);
    assert_eq!(applied.code, 0, "{said}");
    assert!(said.contains("there is no delegate"), "{said}");
    assert!(!said.contains("not enforced"), "{said}");
    by_curl(&mesh, CASES);
    if installed("node") {
        let ended = mesh.client(&["node", "-e", NODE]);
        let expected = "302 https://shop:8443/new\n418 short and stout\n200 1 GET /v2/y HTTP/1.1\n504 heddle: ";
        assert!(ended.stdout.starts_with(expected), "{}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.ends_with("\n200 1 GET /plain/node HTTP/1.1\n"), "{}", ended.stdout);
    }
    metrics_tell_it(&mesh);
}

/// Answers of the sidecar's own count under their status, without a flag; a limit under its flag.
fn metrics_tell_it(mesh: &Mesh<'_>) {
    let script = "curl -s http://shop/teapot; curl -s http://shop/slow; curl -s http://127.0.0.1:15090/stats/prometheus";
    let client = mesh.client(&["sh", "-c", script]);
    for (status, flag) in [("418", "-"), ("504", "UT")] {
        let counted = client.stdout.lines().any(|line| {
            line.starts_with("istio_requests_total{")
                && line.contains(&format!("response_code=\"{status}\""))
                && line.contains(&format!("response_flags=\"{flag}\""))
                && line.contains("destination_service=\"shop.default.svc.cluster.local\"")
        });
        assert!(counted, "{status} {flag}: {}", client.stdout);
    }
}
