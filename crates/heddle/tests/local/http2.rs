//! HTTP/2 and gRPC between programs that people have: what they see is what they would see without a mesh,
//! and each call is counted and balanced as one.

use std::{fs, process::Command};

use heddle_runtime::process;
use serde_json::Value;

use crate::{
    as_both_users,
    host::{Machine, Mesh, Running, skip, wait_until},
    tools::{host_get, installed},
};

as_both_users!(
    grpcio_calls_and_streams_through_the_mesh_declared_or_not,
    calls_over_one_connection_are_shared_among_the_replicas,
    node_and_curl_speak_http_2_to_each_other_and_to_what_speaks_less,
    calls_to_a_server_whose_host_vanishes_end_and_others_go_elsewhere,
);

/// Debian's own interpreter, for which it packages grpcio.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// A service of gRPC without generated code: messages are the bytes they are.
pub(crate) const SERVER: &str = "
import grpc, os, sys
from concurrent import futures
NAME = sys.argv[1]
def hello(request, context):
    if request == b'bad':
        context.set_trailing_metadata((('x-why', 'asked'),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, 'as you wish')
    context.set_trailing_metadata((('x-by', NAME),))
    return b'hello ' + request
def count(request, context):
    for n in range(int(request)):
        yield b'%d' % n
def total(requests, context):
    return b'%d' % sum(int(one) for one in requests)
def chat(requests, context):
    for one in requests:
        yield one.upper()
handlers = grpc.method_handlers_generic_handler('shop.Greeter', {
    'Hello': grpc.unary_unary_rpc_method_handler(hello),
    'Count': grpc.unary_stream_rpc_method_handler(count),
    'Total': grpc.stream_unary_rpc_method_handler(total),
    'Chat': grpc.stream_stream_rpc_method_handler(chat),
})
server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((handlers,))
server.add_insecure_port('0.0.0.0:50051')
server.start()
server.wait_for_termination()
";

/// Makes every kind of call and prints what came of it.
const CLIENT: &str = "
import grpc, queue, sys
channel = grpc.insecure_channel(sys.argv[1])
grpc.channel_ready_future(channel).result(timeout=20)
unary = channel.unary_unary('/shop.Greeter/Hello')
reply, call = unary.with_call(b'you', timeout=20)
print(reply.decode(), dict(call.trailing_metadata())['x-by'])
print(len(list(channel.unary_stream('/shop.Greeter/Count')(b'1000', timeout=20))))
print(channel.stream_unary('/shop.Greeter/Total')(iter([b'1'] * 100), timeout=20).decode())
asked = queue.Queue()
chat = channel.stream_stream('/shop.Greeter/Chat')(iter(asked.get, None), timeout=20)
for word in [b'one', b'two']:
    asked.put(word)
    print(next(chat).decode())
asked.put(None)
print(list(chat))
for method, request in [('Hello', b'bad'), ('Nothing', b'')]:
    try:
        channel.unary_unary('/shop.Greeter/' + method)(request, timeout=20)
    except grpc.RpcError as error:
        print(error.code().name, error.details(), dict(error.trailing_metadata()).get('x-why'))
try:
    channel.unary_stream('/shop.Greeter/Count')(b'1000000000', timeout=0.5).__next__()
    list(channel.unary_stream('/shop.Greeter/Count')(b'1000000000', timeout=0.5))
except grpc.RpcError as error:
    print(error.code().name)
";

const CALLED: &str = "hello you v1\n1000\n100\nONE\nTWO\n[]\n\
    FAILED_PRECONDITION as you wish asked\nUNIMPLEMENTED Method not found! None\nDEADLINE_EXCEEDED\n";

/// Calls many times over one connection, and prints who answered how often.
const CALLS: &str = "
import collections, grpc, sys
channel = grpc.insecure_channel(sys.argv[1])
unary = channel.unary_unary('/shop.Greeter/Hello')
by = collections.Counter()
for _ in range(5000):
    _, call = unary.with_call(b'you', timeout=20)
    by[dict(call.trailing_metadata())['x-by']] += 1
    if min(by['v1'], by['v2']) > 20:
        break
print(by['v1'], by['v2'])
";

pub(crate) fn has_grpcio() -> bool {
    let found = Command::new(PYTHON).args(["-c", "import grpc"]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        skip("python3-grpcio is not installed");
    }
    found
}

fn grpc_server<'m>(mesh: &Mesh<'m>, port: &str, version: &str) -> Running {
    let words = ["--version", version, "--port", port, "--", PYTHON, "-c", SERVER, version];
    mesh.start_ready("greeter", &words)
}

fn grpcio_calls_and_streams_through_the_mesh_declared_or_not(machine: &Machine) {
    if !has_grpcio() {
        return;
    }
    for (name, port) in [("grpcdeclared", "grpc:50051"), ("grpcfound", "50051")] {
        let mesh = machine.up(name);
        let _server = grpc_server(&mesh, port, "v1");
        let called = mesh.client(&[PYTHON, "-c", CLIENT, "greeter:50051"]);
        assert_eq!(called.stdout, CALLED, "{port}: {}", called.stderr);
        let workload = mesh.workloads("greeter").remove(0);
        let id = workload["workload"]["id"].as_str().unwrap().to_owned();
        let dashboard = mesh.info()["dashboard"].as_str().unwrap().to_owned();
        let url = format!("http://{dashboard}/sidecars/{id}/stats/prometheus");
        let counted = |status: &str| {
            let labels = format!(
                "request_protocol=\"grpc\",response_code=\"200\",grpc_response_status=\"{status}\""
            );
            wait_until("the server's sidecar has counted it", || {
                let metrics = host_get(&url);
                let mut lines =
                    metrics.lines().filter(|line| line.starts_with("istio_requests_total"));
                lines.find(|line| line.contains(&labels)).map(str::to_owned)
            })
        };
        for status in ["0", "9", "12"] {
            counted(status);
        }
    }
}

fn calls_over_one_connection_are_shared_among_the_replicas(machine: &Machine) {
    if !has_grpcio() {
        return;
    }
    let mesh = machine.up("grpcshared");
    let _servers = ["v1", "v2"].map(|version| grpc_server(&mesh, "grpc:50051", version));
    wait_until("both are ready", || (mesh.workloads("greeter").len() == 2).then_some(()));
    let called = mesh.client(&[PYTHON, "-c", CALLS, "greeter:50051"]);
    let shares: Vec<f64> =
        called.stdout.split_whitespace().map(|text| text.parse().unwrap()).collect();
    // By connection one of them would have all; which of two is faster on a busy machine, and by how much, nobody
    // knows.
    assert_eq!(shares.len(), 2, "{}{}", called.stdout, called.stderr);
    assert!(shares.iter().all(|share| *share > 20.0), "{shares:?}");
}

/// Serves HTTP/2 without TLS, and tells what it was asked.
const NODE_SERVER: &str = "
const http2 = require('http2');
http2.createServer((request, response) => {
  response.setHeader('x-version', request.httpVersion);
  let bytes = 0;
  request.on('data', (piece) => { bytes += piece.length; });
  request.on('end', () => response.end(request.method + ' ' + request.url + ' ' + bytes));
}).listen(80);
";

/// Asks with HTTP/2 for a path of a host, with a body of so many bytes, and prints the answer.
const NODE_CLIENT: &str = "
const http2 = require('http2');
const [host, path, bytes] = process.argv.slice(1);
const session = http2.connect('http://' + host);
const request = session.request({ ':path': path, ':method': 'POST' });
request.on('response', (headers) => process.stdout.write(headers[':status'] + ' '));
request.setEncoding('utf8');
request.on('data', (piece) => process.stdout.write(piece));
request.on('end', () => session.close());
request.end(Buffer.alloc(Number(bytes)));
";

fn node_and_curl_speak_http_2_to_each_other_and_to_what_speaks_less(machine: &Machine) {
    if !installed("node") {
        return;
    }
    let mesh = machine.up("versions");
    let node = ["--port", "http2:80", "--", "node", "-e", NODE_SERVER];
    let _node = mesh.start_ready("modern", &node);
    let _python = mesh.serve("plain", &[]);
    const UPLOAD: &str = "20000000";
    let asked = mesh.client(&["node", "-e", NODE_CLIENT, "modern", "/a?b=c", UPLOAD]);
    assert_eq!(asked.stdout, format!("200 POST /a?b=c {UPLOAD}"), "{}", asked.stderr);
    for version in ["--http2-prior-knowledge", "--http1.1"] {
        let get = |url: &str| mesh.client(&["curl", "-sS", "-m", "20", version, url]).stdout;
        assert_eq!(get("http://modern/x"), "GET /x 0", "{version}");
        assert_eq!(get("http://plain/"), "plain", "{version}");
    }
    let told: Value = serde_json::from_str(&mesh.run("graph", &["-o", "json"]).stdout).unwrap();
    assert!(told.is_object() || told.is_array(), "{told}");
}

/// Calls until twenty in a row were answered by both servers; makes twenty calls at once when a file is there, and
/// twenty more when those are over; prints how each ended.
const TWICE: &str = "
import collections, grpc, os, sys, time
channel = grpc.insecure_channel(sys.argv[1])
unary = channel.unary_unary('/shop.Greeter/Hello')
def one():
    return dict(unary.with_call(b'x', timeout=20)[1].trailing_metadata())['x-by']
# A server that has not begun to listen yet is passed over for a while.
while len({one() for n in range(20)}) < 2:
    time.sleep(0.1)
print('warm', flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.02)
for batch in range(2):
    calls = [unary.future(b'x', timeout=100) for n in range(20)]
    ends = collections.Counter(call.code().name for call in calls)
    print(' '.join(f'{name}={count}' for name, count in sorted(ends.items())), flush=True)
";

/// Takes the network from a workload, as if its host were gone: nothing comes back from it, not even a reset.
fn vanish(running: &Running) {
    let pid = running.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let program = children.split_whitespace().next().unwrap();
    let down = ["--target", program, "--net", "ip", "link", "set", "eth0", "down"];
    assert!(Command::new("nsenter").args(down).status().unwrap().success());
}

fn calls_to_a_server_whose_host_vanishes_end_and_others_go_elsewhere(machine: &Machine) {
    if !has_grpcio() || !installed("ip") || !installed("nsenter") {
        return;
    }
    if process::effective_ids().0 != 0 {
        return skip("only root may take a network away");
    }
    let mesh = machine.up("vanishes");
    let servers = ["v1", "v2"].map(|version| grpc_server(&mesh, "grpc:50051", version));
    wait_until("both are ready", || (mesh.workloads("greeter").len() == 2).then_some(()));
    let now = machine.dir.join("now");
    let words = ["--", PYTHON, "-c", TWICE, "greeter:50051", now.to_str().unwrap()];
    let client = mesh.start("me", &words);
    wait_until("there are connections", || client.printed().contains("warm").then_some(()));
    vanish(&servers[0]);
    fs::write(&now, "").unwrap();
    let ended = client.finish();
    let lines: Vec<_> = ended.stdout.lines().collect();
    // The kernel would have let them wait until their deadline.
    let (first, second) = (lines[1], lines[2]);
    let told = first.starts_with("OK=") && first.contains(" UNAVAILABLE=");
    assert!(told && !first.contains("DEADLINE"), "{first}");
    assert_eq!(second, "OK=20", "{}", ended.stderr);
}
