//! A sidecar with a memory limit under an attack: it refuses, and it does not die.

use heddle_runtime::signal::Signal;

use crate::{as_both_users, host::Machine};

as_both_users!(a_sidecar_near_its_memory_limit_refuses_calls_and_serves_again_afterwards);

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
