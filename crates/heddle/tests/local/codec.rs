//! What HTTP/1 can do, from a raw client through two sidecars to the servers that Node and Python
//! bring: the codec's rules hold with programs nobody here wrote.

use serde_json::Value;

use crate::{
    as_both_users,
    host::{Machine, wait_until},
    tools::installed,
};

as_both_users!(what_http_can_do_works_with_servers_as_they_come);

/// The programs, each named for what it is.
const SCRIPTS: [(&str, &str); 3] = [
    ("server.js", include_str!("codec/server.js")),
    ("client.js", include_str!("codec/client.js")),
    ("byclose.py", include_str!("codec/byclose.py")),
];

fn what_http_can_do_works_with_servers_as_they_come(machine: &Machine) {
    if !installed("node") || !installed("python3") {
        return;
    }
    for (name, text) in SCRIPTS {
        std::fs::write(machine.dir.join(name), text).unwrap();
    }
    let at = |name: &str| machine.dir.join(name).to_str().unwrap().to_owned();
    let mesh = machine.up("codec");
    let _node = mesh.start("codec", &["--port", "http:80", "--", "node", &at("server.js")]);
    let _python = mesh.start("byclose", &["--port", "http:80", "--", "python3", &at("byclose.py")]);
    for service in ["codec", "byclose"] {
        wait_until("the server is ready", || {
            let views = mesh.workloads(service);
            views.iter().any(|view| view.to_string().contains("\"ready\"")).then_some(())
        });
    }
    let client = mesh.client(&["node", &at("client.js")]);
    assert_eq!(client.code, 0, "{}", client.stderr);
    let results: Value = serde_json::from_str(&client.stdout).unwrap();
    let came = |name: &str| results[name]["came"].as_str().unwrap().to_owned();
    let how = |name: &str| results[name]["how"].as_str().unwrap().to_owned();
    let in_order = |name: &str, parts: &[&str]| {
        let (text, mut from) = (came(name), 0);
        for part in parts {
            let found = text[from..].find(part);
            from += found.unwrap_or_else(|| panic!("{name}: no `{part}` in {text:?}")) + part.len();
        }
    };
    in_order("interim", &["HTTP/1.1 103 ", "/a.css", "HTTP/1.1 103 ", "/b.css", "HTTP/1.1 200 OK"]);
    in_order("expect", &["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK", "/post 5"]);
    let statuses = ["HTTP/1.1 200 OK", "HTTP/1.1 204 ", "HTTP/1.1 304 ", "HTTP/1.1 200 OK"];
    in_order("bodiless", &statuses);
    assert!(!came("bodiless").contains("/page"), "an answer to HEAD has no body");
    in_order("old", &[" 200 OK", "/old 0"]);
    assert_eq!(how("old"), "closed");
    in_order("oldKept", &["keep-alive", "/one 0", "/two 0"]);
    assert_eq!(how("oldKept"), "closed");
    in_order("pipelined", &["/a 0", "/b 2", "/c 0"]);
    in_order("trailers", &["abc here", "0\r\n", "x-sum: 42\r\n\r\n"]);
    in_order("halfClosed", &["/half 0"]);
    in_order("early", &["HTTP/1.1 413 ", "too much"]);
    in_order("upgrade", &["HTTP/1.1 101 ", "over and out"]);
    in_order("cut", &["HTTP/1.1 200 OK", "half"]);
    assert_ne!(how("cut"), "open", "a truncated answer ends with its connection");
    in_order("byClose", &[" 200 OK", "until the close"]);
    assert_eq!(how("byClose"), "closed");
}
