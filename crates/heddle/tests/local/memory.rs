//! A sidecar with a memory limit under an attack: it refuses, and it does not die.

use heddle_runtime::signal::Signal;

use crate::{
    as_both_users,
    deaths::sidecar,
    host::{Machine, wait_until},
};

as_both_users!(
    a_sidecar_near_its_memory_limit_refuses_calls_and_serves_again_afterwards,
    scrapes_of_all_label_sets_refuse_no_call_within_a_small_memory_limit,
    what_a_flood_took_is_given_back_soon_after_it,
);

/// Holds ever more unfinished heads open until a connection is refused, then lets go and calls until
/// a call succeeds. All of it is bounded.
const ATTACKER: &str = r"
import http.client, select, socket, sys, time
head = b'GET / HTTP/1.1\r\nHost: web\r\nX: ' + b'x' * 60000
held, refused, ends = [], False, select.poll()
while len(held) < 2000 and not refused:
    try:
        stream = socket.create_connection(('web', 80), timeout=5)
        held.append(stream)
        ends.register(stream, 0)
        stream.sendall(head)
    except ConnectionError: refused = True
    # A reset may come only after all was sent.
    refused = refused or any(what & select.POLLERR for _, what in ends.poll(0))
print('refused', refused)
for stream in held: stream.close()
end = time.monotonic() + 60
while time.monotonic() < end:
    try:
        call = http.client.HTTPConnection('web', 80, timeout=5)
        call.request('GET', '/')
        answer = call.getresponse()
        if answer.status == 200: break
        assert answer.status == 503, answer.status
        assert answer.headers['x-heddle-refusal'].startswith('memory-limit;'), answer.headers
    except ConnectionError: pass
    time.sleep(0.05)
print('then', answer.status)
metrics = http.client.HTTPConnection('127.0.0.1', 15090, timeout=5)
metrics.request('GET', '/stats/prometheus')
for line in metrics.getresponse().read().decode().splitlines():
    if line.startswith('heddle_refusals_total') and 'memory-limit' in line:
        print('counted', float(line.split()[-1]) > 0)
        break
";

fn a_sidecar_near_its_memory_limit_refuses_calls_and_serves_again_afterwards(machine: &Machine) {
    let mesh = machine.up("memory");
    let server = mesh.serve("web", &[]);
    let words = ["--memory-limit", "16Mi", "--", "python3", "-c", ATTACKER];
    let attacker = mesh.start("attacker", &words).finish();
    assert_eq!(attacker.code, 0, "{}{}", attacker.stdout, attacker.stderr);
    assert_eq!(attacker.stdout, "refused True\nthen 200\ncounted True\n", "{}", attacker.stderr);
    // Its neighbour has no limit and noticed nothing.
    assert_eq!(mesh.get("http://web/").stdout, "web");
    assert_eq!(server.end(Signal::TERMINATE).code, 143);
}

/// Answers with the status its path names.
const ANY_STATUS: &str = r"
import http.server
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *_): pass
    def do_GET(self):
        self.send_response_only(int(self.path[1:]), 'x')
        self.send_header('Content-Length', '0')
        self.end_headers()
http.server.ThreadingHTTPServer(('0.0.0.0', 80), Answer).serve_forever()
";

/// Fills the label sets of its own sidecar, then calls on while eight scrapers read nothing and another
/// one reads all. Statuses that have no body or mean something else are left out.
const SCRAPED: &str = r"
import http.client, socket, threading
statuses = [s for s in range(200, 1000) if s not in (204, 304)]
wrong = []
def call(web, status):
    web.request('GET', f'/{status}')
    answer = web.getresponse()
    answer.read()
    if answer.status != status: wrong.append((status, answer.status, answer.headers.get('x-heddle-refusal')))
webs = [http.client.HTTPConnection(name, 80, timeout=20) for name in ('one', 'two', 'three')]
for web in webs:
    for status in statuses: call(web, status)
silent = []
for _ in range(8):
    silent.append(socket.create_connection(('127.0.0.1', 15090)))
    silent[-1].sendall(b'GET /stats/prometheus HTTP/1.1\r\nHost: x\r\n\r\n')
sets = 0
def scrape():
    global sets
    metrics = http.client.HTTPConnection('127.0.0.1', 15090, timeout=30)
    metrics.request('GET', '/stats/prometheus')
    sets = metrics.getresponse().read().count(b'\nistio_requests_total{')
for _ in range(2):
    scraper = threading.Thread(target=scrape)
    scraper.start()
    while scraper.is_alive():
        for web in webs: call(web, 200)
    scraper.join()
print('sets', 2000 <= sets <= 2300, 'wrong', wrong[:3])
";

fn scrapes_of_all_label_sets_refuse_no_call_within_a_small_memory_limit(machine: &Machine) {
    let mesh = machine.up("scrapes");
    let serve = ["--port", "80", "--", "python3", "-c", ANY_STATUS];
    let _servers = ["one", "two", "three"].map(|service| mesh.start_ready(service, &serve));
    let words = ["--memory-limit", "64Mi", "--", "python3", "-c", SCRAPED];
    let scraped = mesh.start("scraped", &words).finish();
    assert_eq!(scraped.stdout, "sets True wrong []\n", "{}", scraped.stderr);
}

/// Holds long unfinished heads open at its own sidecar until a file is there; every third ends at once,
/// so that what is freed lies between what is held. Then it lives on, and so does its sidecar.
const FLOOD: &str = r"
import os, socket, sys, time
head = b'GET / HTTP/1.1\r\nHost: web\r\nX: ' + b'x' * 60000
held = []
for number in range(1500):
    stream = socket.create_connection(('web', 80))
    stream.sendall(head)
    if number % 3: held.append(stream)
print('held', flush=True)
while not os.path.exists(sys.argv[1]): time.sleep(0.05)
for stream in held: stream.close()
time.sleep(120)
";

fn what_a_flood_took_is_given_back_soon_after_it(machine: &Machine) {
    let mesh = machine.up("flood");
    let _server = mesh.serve("web", &[]);
    let let_go = machine.dir.join("let-go");
    let words = ["--", "python3", "-c", FLOOD, let_go.to_str().unwrap()];
    let flood = mesh.start("flood", &words);
    wait_until("the flood is there", || flood.printed().contains("held").then_some(()));
    let sidecar = sidecar(&mesh, "flood").unwrap();
    let during = own_kilobytes(sidecar);
    assert!(during > 40_000, "{during} kB for a thousand heads of 60 kB");
    std::fs::write(let_go, "").unwrap();
    wait_until("its memory is given back", || (own_kilobytes(sidecar) < during / 5).then_some(()));
    assert_eq!(flood.end(Signal::TERMINATE).code, 143);
}

/// Memory of a process that is no file's.
fn own_kilobytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
