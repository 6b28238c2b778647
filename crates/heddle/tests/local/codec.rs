//! What HTTP/1 can do, from a raw client through two sidecars to the servers that Node, Python and
//! nginx bring: the codec's rules hold with programs nobody here wrote. The client's cases are in
//! `codec/client.js`, what the servers do in the files beside it.

mod bodies;
mod connections;
mod heads;

use std::fs;

use serde_json::Value;

use crate::{
    host::{Finished, Machine, Mesh, Running},
    tools::installed,
};

/// A server that is its own service.
#[derive(Debug, Clone, Copy)]
enum Server {
    Node,
    Python,
    /// Python in its oldest manner.
    ByClose,
    Nginx,
}

impl Server {
    fn service(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python",
            Self::ByClose => "byclose",
            Self::Nginx => "nginx",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python | Self::ByClose => "python3",
            Self::Nginx => "nginx",
        }
    }

    /// Its file's name and text.
    fn file(self) -> (&'static str, &'static str) {
        match self {
            Self::Node => ("node.js", include_str!("codec/node.js")),
            Self::Python => ("python.py", include_str!("codec/python.py")),
            Self::ByClose => ("byclose.py", include_str!("codec/byclose.py")),
            Self::Nginx => ("nginx.conf", include_str!("codec/nginx.conf")),
        }
    }

    /// Starts it in the mesh and waits until it is ready.
    fn start(self, machine: &Machine, mesh: &Mesh<'_>) -> Running {
        let (name, text) = self.file();
        let path = machine.dir.join(name);
        fs::write(&path, text.replace("DIR", machine.dir.to_str().unwrap())).unwrap();
        let path = path.to_str().unwrap();
        let command = match self {
            Self::Nginx => vec!["/usr/sbin/nginx", "-c", path],
            _ => vec![self.program(), path],
        };
        let words = [&["--port", "http:80", "--"], &command[..]].concat();
        mesh.start_ready(self.service(), &words)
    }
}

/// A mesh with these servers; `None`, and said so, where a program is missing.
fn mesh_with<'m>(
    machine: &'m Machine,
    name: &str,
    servers: &[Server],
) -> Option<(Mesh<'m>, Vec<Running>)> {
    // The client is Node's.
    let mut programs = servers.iter().map(|server| server.program()).chain(["node"]);
    if !programs.all(installed) {
        return None;
    }
    let www = machine.dir.join("www");
    fs::create_dir_all(&www).unwrap();
    fs::write(www.join("page.txt"), "the page").unwrap();
    fs::write(www.join("too-large.txt"), "too large for nginx").unwrap();
    // Bytes are compared here, without those that a trace adds.
    let mesh = machine.up_by(name, |mut command| {
        command.args(["--trace-to", "none"]);
        command
    });
    let running = servers.iter().map(|server| server.start(machine, &mesh)).collect();
    Some((mesh, running))
}

/// What became of the client's cases.
#[derive(Debug)]
struct Outcomes(Value);

impl Outcomes {
    /// Runs the client with these cases.
    fn by(machine: &Machine, mesh: &Mesh<'_>, cases: &[&str]) -> Self {
        let path = machine.dir.join("client.js");
        fs::write(&path, include_str!("codec/client.js")).unwrap();
        let Finished { code, stdout, stderr } =
            mesh.client(&[&["node", path.to_str().unwrap()], cases].concat());
        assert_eq!(code, 0, "{stderr}");
        Self(serde_json::from_str(&stdout).unwrap())
    }

    /// All that a case received.
    fn came(&self, case: &str) -> &str {
        self.text(case, "came")
    }

    /// How its connection ended: `open`, `closed`, or the error's name.
    fn how(&self, case: &str) -> &str {
        self.text(case, "how")
    }

    fn text(&self, case: &str, field: &str) -> &str {
        self.0[case][field].as_str().unwrap()
    }

    /// Asserts that a case received these, in this order.
    fn in_order(&self, case: &str, parts: &[&str]) {
        let (text, mut from) = (self.came(case), 0);
        for part in parts {
            let found = text[from..].find(part);
            from += found.unwrap_or_else(|| panic!("{case}: no `{part}` in {text:?}")) + part.len();
        }
    }
}

/// What stands between `before` and the next `after`, wherever that occurs.
fn between<'t>(text: &'t str, before: &str, after: &str) -> Vec<&'t str> {
    let parts = text.split(before).skip(1);
    parts.filter_map(|part| part.split_once(after).map(|(found, _)| found)).collect()
}
