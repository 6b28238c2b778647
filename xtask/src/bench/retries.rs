//! `cargo xtask bench retries`: a chain of three services of which the last always fails, each called under
//! `attempts: 3, retryOn: 5xx`, at 500 requests a second: how often each is asked per request, where services
//! pass `x-request-id` on and where they pass nothing on. Without a mesh that knows better it is 4, 16 and 64.

use std::{path::Path, process::Child, time::Duration};

use serde_json::{Value, json};

use super::{
    heddle,
    mesh::{Mesh, PATIENCE},
    options::Options,
    process::wait_for,
};

/// What the bench does, for `--help`.
pub(super) const ABOUT: &str = "A chain of three services, the last of which always fails, under retries at each hop and 500 requests a second: how often each is asked per request.";
/// Seconds of load unless told otherwise.
const SECONDS: u64 = 20;
/// Requests a second.
const RATE: u64 = 500;
const SERVICES: [&str; 3] = ["a", "b", "c"];
/// Most that each may be asked per request: where ids are passed on, and where nothing is.
const MOST: [f64; 2] = [1.25, 2.0];

/// A service: asks the next one (`-`: none, so it fails) and answers with its status; keeps count in a file.
const SERVICE: &str = "
import http.client, http.server, sys, threading, time
following, forwards, counts = sys.argv[1], sys.argv[2] == 'true', sys.argv[3]
asked, lock, kept = 0, threading.Lock(), threading.local()
def report():
    while True:
        time.sleep(0.2)
        with open(counts, 'w') as file:
            file.write(str(asked))
threading.Thread(target=report, daemon=True).start()
def ask(fields):
    for _ in range(2):
        try:
            if getattr(kept, 'connection', None) is None:
                kept.connection = http.client.HTTPConnection(following, 80, timeout=30)
            kept.connection.request('GET', '/', headers=fields)
            answer = kept.connection.getresponse()
            answer.read()
            return answer.status
        except (http.client.HTTPException, OSError):
            kept.connection = None
    return 500
class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        global asked
        with lock:
            asked += 1
        id = self.headers.get('x-request-id')
        fields = {'x-request-id': id} if forwards and id else {}
        status = 503 if following == '-' else ask(fields)
        self.send_response(status)
        self.send_header('content-length', '0')
        self.end_headers()
    def log_message(self, *words):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True
Server(('', 80), Service).serve_forever()
";

/// So many requests at this rate, by fifty clients; prints how many were sent.
const LOAD: &str = "
import http.client, sys, threading, time
rate, seconds, clients = int(sys.argv[1]), int(sys.argv[2]), 50
sent, lock = 0, threading.Lock()
def client(first):
    global sent
    connection, begun = http.client.HTTPConnection('a', 80, timeout=30), time.time()
    for turn in range(first, rate * seconds, clients):
        time.sleep(max(0, begun + turn / rate - time.time()))
        with lock:
            sent += 1
        try:
            connection.request('GET', '/')
            connection.getresponse().read()
        except (http.client.HTTPException, OSError):
            connection.close()
all = [threading.Thread(target=client, args=(first,)) for first in range(clients)]
begun = time.time()
[one.start() for one in all]
[one.join() for one in all]
print(sent, time.time() - begun)
";

/// Runs the bench; an error where a service was asked more often than it may be.
pub(super) fn run(options: &Options) -> Result<(), String> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => heddle::build()?,
    };
    let seconds = options.seconds.unwrap_or(SECONDS);
    let mut results = Vec::new();
    let mut holds = true;
    for (forwards, most) in [true, false].into_iter().zip(MOST) {
        let (sent, took, asked) = chain(&binary, forwards, seconds)?;
        let per_request = asked.map(|asked| asked / sent);
        holds &= per_request.iter().all(|times| *times <= most);
        if !options.json {
            let [a, b, c] = per_request;
            println!(
                "ids passed on: {forwards:5}  offered {:.0}/s  asked per request: a {a:.3}, b {b:.3}, c {c:.3}  (at most {most})",
                sent / took
            );
        }
        results.push(json!({
            "forwards_request_ids": forwards, "offered": sent, "seconds": took,
            "asked_per_request": per_request, "at_most": most,
        }));
    }
    if options.json {
        println!("{:#}", json!({ "bench": "retries", "chains": Value::Array(results) }));
    }
    if holds { Ok(()) } else { Err("a service was asked more often than it may be".to_owned()) }
}

/// Requests sent, seconds they took, and how often each service was asked.
fn chain(binary: &Path, forwards: bool, seconds: u64) -> Result<(f64, f64, [f64; 3]), String> {
    let mesh = Mesh::start(binary, if forwards { "bench-retries-ids" } else { "bench-retries" })?;
    let mut running: Vec<Child> = Vec::new();
    for (at, service) in SERVICES.into_iter().enumerate() {
        let following = SERVICES.get(at + 1).copied().unwrap_or("-");
        let counts = mesh.path(&format!("counts-{service}"));
        let forwards = if forwards { "true" } else { "false" };
        let words = ["run", "--service", service, "--port", "80", "--protocol", "http", "--"];
        let program = ["python3", "-c", SERVICE, following, forwards, &counts];
        let command = mesh.heddle(&[&words[..], &program[..]].concat());
        running.push(mesh.start_as(service, command)?);
    }
    wait_for("the services", PATIENCE, || {
        let ready = mesh.call(&["get", "workloads"]).unwrap_or_default();
        SERVICES.iter().all(|one| ready.contains(one))
            && !ready.contains("pending")
            && ready.lines().count() > SERVICES.len()
    })?;
    let rules: Vec<String> = SERVICES.iter().map(|service| rule(service)).collect();
    mesh.write("rules.yaml", &rules.join("---\n"))?;
    mesh.call(&["apply", "-f", &mesh.path("rules.yaml")])?;
    let (rate, time) = (RATE.to_string(), seconds.to_string());
    let load = ["run", "--service", "load", "--", "python3", "-c", LOAD, &rate, &time];
    let printed = mesh.call(&load)?;
    // The files are written five times a second.
    crate::time::pause(Duration::from_millis(600));
    let asked = SERVICES.map(|service| number(&mesh.output(&format!("counts-{service}"))));
    let mut words = printed.split_whitespace();
    let (sent, took) = (words.next().map(number), words.next().map(number));
    for child in &mut running {
        drop(child.kill());
        drop(child.wait());
    }
    let (sent, took) = sent.zip(took).ok_or_else(|| format!("the load printed `{printed}`"))?;
    Ok((sent, took, asked))
}

fn number(text: &str) -> f64 {
    text.trim().parse().unwrap_or(f64::NAN)
}

fn rule(service: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {service}}}\nspec:\n  hosts: [{service}]\n  http:\n  - retries: {{attempts: 3, retryOn: 5xx}}\n    route: [{{destination: {{host: {service}}}}}]\n"
    )
}
