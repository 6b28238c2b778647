//! Heddle in a bench: the release binary, and one sidecar as deployed – with its control plane,
//! three endpoints and one matching rule – in the bench's namespaces.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    namespaces::{FAR, FAR_ADDRESSES, NEAR, NEAR_ADDRESS, VIP, inside},
    process::{Guarded, wait_for},
};
use crate::command::{program, root, run};

/// Builds the binary as users build it.
pub(super) fn build() -> Result<PathBuf, String> {
    run(&mut program("cargo", &["build", "--release", "--locked", "--quiet", "-p", "heddle"]))?;
    Ok(root().join("target/release/heddle"))
}

/// What is spoken on both sides of the measured proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

impl Wire {
    /// As a port is declared.
    fn protocol(self) -> &'static str {
        match self {
            Self::Http1 => "http",
            Self::Http2 => "http2",
        }
    }
}

/// The rule file of benches that need no other.
pub(super) const ONE_RULE: &str = include_str!("../../../bench/peers/heddle.yaml");

/// A control plane that knows one service `echo` with three endpoints.
#[derive(Debug)]
pub(super) struct Control {
    dir: PathBuf,
    wire: Wire,
    _process: Guarded,
}

impl Control {
    /// Starts it in `dir` and applies the matching rule.
    pub(super) fn start(
        binary: &Path,
        dir: &Path,
        wire: Wire,
        rules: &str,
    ) -> Result<Self, String> {
        let control = Self::of(binary, dir, wire, &FAR_ADDRESSES)?;
        control.post(
            "/v1/apply",
            &json!({ "files": [{ "file": "heddle.yaml", "text": rules }], "namespace": "default",
                     "dry_run": false, "force": false, "wait_ms": 0 }),
        )?;
        Ok(control)
    }

    /// Starts it in `dir` without a rule; the service has an endpoint at each of these addresses.
    pub(super) fn of(
        binary: &Path,
        dir: &Path,
        wire: Wire,
        addresses: &[&str],
    ) -> Result<Self, String> {
        drop(fs::remove_dir_all(dir));
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let state = dir.join("state");
        let mut command = program(&binary.to_string_lossy(), &["control", "--mesh", "bench"]);
        command.arg("--run-dir").arg(dir).arg("--state-dir").arg(state);
        command.env("HEDDLE_LOG", "error");
        let process = Guarded::start(&mut command)?;
        let control = Self { dir: dir.to_owned(), wire, _process: process };
        let socket = control.socket();
        wait_for("control plane", Duration::from_secs(10), || {
            UnixStream::connect(&socket).is_ok()
        })?;
        let members =
            addresses.iter().enumerate().map(|(index, address)| member(index, address, wire));
        let members: Vec<Value> = members.chain([client()]).collect();
        control.post("/v1/adopt", &Value::Array(members))?;
        Ok(control)
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    fn post(&self, path: &str, body: &Value) -> Result<String, String> {
        let text = body.to_string();
        let call = format!(
            "POST {path} HTTP/1.1\r\nHost: control\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        );
        let mut stream = UnixStream::connect(self.socket()).map_err(|e| e.to_string())?;
        stream.write_all(call.as_bytes()).map_err(|e| e.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|e| e.to_string())?;
        if answer.starts_with("HTTP/1.1 200") {
            Ok(answer)
        } else {
            Err(format!("{path}: {answer}"))
        }
    }

    /// Starts the client's sidecar (`outbound`) or the first endpoint's, one worker on core 0.
    pub(super) fn sidecar(&self, binary: &Path, outbound: bool) -> Result<Guarded, String> {
        let path = self.configure(binary, outbound, 1)?;
        let arguments =
            ["-c", "0", &binary.to_string_lossy(), "proxy", "--config", &path.to_string_lossy()];
        let mut command = inside(if outbound { NEAR } else { FAR }, "taskset", &arguments);
        Guarded::start(command.env("HEDDLE_LOG", "error"))
    }

    /// Starts the client's sidecar where this process stands.
    pub(super) fn sidecar_here(&self, binary: &Path, workers: usize) -> Result<Guarded, String> {
        let path = self.configure(binary, true, workers)?;
        let arguments = ["proxy", "--config", &path.to_string_lossy()];
        let mut command = program(&binary.to_string_lossy(), &arguments);
        Guarded::start(command.env("HEDDLE_LOG", "error"))
    }

    /// Writes a sidecar's configuration.
    fn configure(&self, binary: &Path, outbound: bool, workers: usize) -> Result<PathBuf, String> {
        let member = if outbound { client() } else { member(0, FAR_ADDRESSES[0], self.wire) };
        let workload = &member["joined"]["workload"];
        let state = self.dir.join(if outbound { "client" } else { "server" });
        fs::create_dir_all(&state).map_err(|e| e.to_string())?;
        let ports = if outbound { json!({}) } else { json!({ "80": self.wire.protocol() }) };
        let mut config = json!({
            "mesh": "bench", "workload": workload["id"], "name": workload["name"],
            "namespace": "default", "service": workload["service"]["name"], "version": "v1",
            "labels": workload["labels"], "ports": ports, "workers": workers, "state_dir": state,
            "ready_fd": null,
        });
        let mut local = json!({
            "discovery_socket": self.dir.join("discovery.sock"), "holder_socket": null,
            "mark": 0x539, "published": {}, "host_ports": [],
        });
        let (v4, v6) = (json!(["240.240.0.0", 16]), json!(["fd68:6564:646c::", 64]));
        let gateway = json!(["240.240.0.1", "fd68:6564:646c::1"]);
        if knows(binary, "surroundings")? {
            local["ranges"] = json!({ "v4": v4, "v6": v6, "host_gateway": gateway });
            config["addresses"] = json!({ "v4": workload["ipv4"], "v6": workload["ipv6"] });
            config["surroundings"] = json!({ "local": local });
        } else {
            local["ipv4"] = workload["ipv4"].clone();
            local["ipv6"] = workload["ipv6"].clone();
            local["vip_range_v4"] = v4;
            local["vip_range_v6"] = v6;
            local["host_gateway"] = gateway;
            merge(&mut config, local);
        }
        let path = self.dir.join("proxy.json");
        fs::write(&path, config.to_string()).map_err(|e| e.to_string())?;
        Ok(path)
    }
}

/// Does this binary know a field of that name? An older one is measured beside a newer one, and each
/// is to get the configuration it reads.
fn knows(binary: &Path, field: &str) -> Result<bool, String> {
    let bytes = fs::read(binary).map_err(|e| format!("{}: {e}", binary.display()))?;
    Ok(bytes.windows(field.len()).any(|window| window == field.as_bytes()))
}

/// Adds the fields of `more` to `object`.
fn merge(object: &mut Value, more: Value) {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
}

/// The endpoint with this index.
fn member(index: usize, address: &str, wire: Wire) -> Value {
    let labels = json!({ "app": "echo", "version": "v1" });
    let id = format!("echo-v1-{index}");
    joined(&id, "echo", (address, 21 + index), &labels, Some(wire))
}

/// The client the load belongs to.
fn client() -> Value {
    let labels = json!({ "app": "load", "version": "v1" });
    joined("load-v1-0", "load", (NEAR_ADDRESS, 11), &labels, None)
}

/// A member as the holder would hand it to a restarted control plane.
fn joined(
    id: &str,
    service: &str,
    (ipv4, low): (&str, usize),
    labels: &Value,
    serves: Option<Wire>,
) -> Value {
    let name = json!({ "namespace": "default", "name": service });
    let protocol = serves.unwrap_or(Wire::Http1).protocol();
    let serves = serves.is_some();
    let port = json!({ "number": 80, "name": protocol, "protocol": protocol });
    let ports = if serves {
        json!({ "80": { "number": 80, "name": protocol, "protocol": protocol, "state": "ready" } })
    } else {
        json!({})
    };
    let known = json!({ "name": name, "vip_v4": VIP, "vip_v6": "fd68:6564:646c::a", "ports": { "80": port } });
    json!({
        "request": { "service": service, "namespace": "default", "version": "v1", "labels": {},
                     "ports": if serves { vec![port] } else { Vec::new() } },
        "joined": {
            "workload": {
                "id": id, "name": format!("{service}-v1"), "namespace": "default", "service": name,
                "version": "v1", "labels": labels, "ipv4": ipv4,
                "ipv6": format!("fd68:6564:646c:1::{low:x}"), "ports": ports,
            },
            "service": if serves { known } else { Value::Null },
        },
    })
}
