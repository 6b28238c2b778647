//! Uploads that are answered before they have ended, by servers and clients that people have.

use crate::{
    as_both_users,
    host::{Machine, wait_until},
    tools::{installed, nginx_conf},
};

as_both_users!(
    an_upload_that_node_answers_first_arrives_whole,
    a_refusal_by_nginx_reaches_a_client_that_sends_all_before_it_reads,
);

const UPLOAD: usize = 64 << 20;

/// Sends all of an upload to a URL's host before it reads a byte of the answer, as Java's and Python's
/// clients do, and prints the status.
const UPLOADS: &str = "
import http.client, sys
one = http.client.HTTPConnection(sys.argv[1])
one.request('POST', '/', body=b'x' * int(sys.argv[2]))
print(one.getresponse().status, end='')
";

/// Answers at once and reads then, and tells how much of uploads has come.
const ANSWERS_FIRST: &str = "
let bytes = 0;
require('http').createServer((request, response) => {
  if (request.method === 'GET') return response.end(String(bytes));
  response.end('taken');
  request.on('data', (piece) => { bytes += piece.length; });
}).listen(80);
";

fn upload(mesh: &crate::host::Mesh<'_>, service: &str) -> String {
    let ended = mesh.client(&["python3", "-c", UPLOADS, service, &UPLOAD.to_string()]);
    format!("{}{}", ended.stdout, ended.stderr)
}

fn an_upload_that_node_answers_first_arrives_whole(machine: &Machine) {
    if !installed("node") {
        return;
    }
    let mesh = machine.up("answersfirst");
    let words = ["--port", "http:80", "--", "node", "-e", ANSWERS_FIRST];
    let _server = mesh.start_ready("store", &words);
    assert_eq!(upload(&mesh, "store"), "200");
    wait_until("all of it has come", || {
        (mesh.get("http://store/").stdout == UPLOAD.to_string()).then_some(())
    });
}

fn a_refusal_by_nginx_reaches_a_client_that_sends_all_before_it_reads(machine: &Machine) {
    if !installed("nginx") {
        return;
    }
    let mesh = machine.up("refuses");
    let conf = nginx_conf(machine, "client_max_body_size 1m;", "proxy_pass http://127.0.0.1:1;");
    let words = ["--port", "http:80", "--", "/usr/sbin/nginx", "-c", &conf];
    let _server = mesh.start_ready("small", &words);
    assert_eq!(upload(&mesh, "small"), "413");
}
