//! The floors of each crate, the lowest first. A file may import from lower floors, and on its own
//! floor from files that do not import it back.
//!
//! An entry is a module's path; it covers the module's file and what is below it, unless a longer
//! entry covers that. The crate's root stands on top of all floors.

/// The floors of one crate.
pub(super) struct Floors {
    /// The crate.
    pub(super) of: &'static str,
    /// Name of each floor and its modules.
    pub(super) floors: &'static [(&'static str, &'static [&'static str])],
}

/// Every crate's floors.
pub(super) const FLOORS: [Floors; 11] = [
    Floors {
        of: "heddle-model",
        floors: &[
            ("wire form", &["wire"]),
            (
                "names",
                &["addresses", "field_name", "identity", "name", "pattern", "secret", "timestamp"],
            ),
            ("nouns", &["registry", "discovery", "resource"]),
            (
                "text",
                &[
                    "yaml/base64",
                    "yaml/node",
                    "yaml/emit",
                    "yaml/expression",
                    "yaml/hint",
                    "yaml/json",
                    "yaml/log_format",
                    "yaml/value",
                    "yaml/report",
                    "yaml/schema",
                    "yaml/word",
                ],
            ),
            (
                "kinds",
                &[
                    "yaml/destination_rule",
                    "yaml/fault",
                    "yaml/gateway_route",
                    "yaml/mesh_config",
                    "yaml/programs",
                    "yaml/service",
                    "yaml/service_entry",
                    "yaml/sidecar",
                    "yaml/status",
                    "yaml/telemetry",
                    "yaml/virtual_service",
                ],
            ),
            ("documents", &["yaml"]),
        ],
    },
    Floors {
        of: "heddle-compile",
        floors: &[
            ("leaves", &["carries", "client", "finding", "host", "matching", "ranges"]),
            ("names", &["named"]),
            ("facts", &["facts"]),
            ("rules", &["rules", "target", "by_host"]),
            ("the outside", &["callers", "egress", "entries", "telemetry"]),
            ("what a rule says", &["delegate", "fault", "policy", "traffic"]),
            ("routes", &["gateway"]),
            ("what a client gets", &["destination", "reference"]),
            ("findings", &["concerned", "findings", "outside_findings", "telemetry_findings"]),
        ],
    },
    Floors {
        of: "heddle-logic",
        floors: &[
            ("leaves", &["balance", "eject", "expression", "headers", "path", "retry", "sampling"]),
            ("routes", &["route", "sni"]),
            ("what a rule does", &["cors", "fault", "rewrite", "sticky"]),
            ("rules", &["rule"]),
        ],
    },
    Floors {
        of: "heddle-wire",
        floors: &[
            ("leaves", &["percent"]),
            (
                "bytes",
                &["client_hello", "gzip", "http1", "discovery", "local", "peer_extension", "trace"],
            ),
            ("detection", &["detect"]),
        ],
    },
    Floors {
        of: "heddle-runtime",
        floors: &[
            ("system calls", &["sys"]),
            (
                "leaves",
                &[
                    "clock",
                    "resolv",
                    "task",
                    "capability",
                    "figures",
                    "memory",
                    "signal",
                    "terminal",
                ],
            ),
            (
                "sockets",
                &[
                    "fdpass",
                    "kept",
                    "local_http",
                    "net",
                    "netlink",
                    "path_socket",
                    "sock_diag",
                    "splice",
                    "tls",
                    "transport",
                ],
            ),
            ("namespaces", &["ns", "mount", "redirect", "nft", "iptables", "proof", "process"]),
            ("children", &["spawn", "netns_op", "pulse"]),
            ("preflight", &["preflight"]),
        ],
    },
    Floors {
        of: "heddle-proxy",
        floors: &[
            (
                "leaves",
                &[
                    "breaker",
                    "buffers",
                    "capture",
                    "deadline",
                    "direction",
                    "limits",
                    "listening",
                    "memory",
                    "messages",
                    "one_hop",
                    "read_through",
                    "outside_names",
                    "path_template",
                    "ranges",
                    "recent",
                    "refusal",
                    "relay",
                    "request_id",
                    "resolved",
                    "tcp_fault",
                    "verdict",
                ],
            ),
            ("metrics", &["metrics", "paths", "series"]),
            (
                "snapshot",
                &[
                    "access_log",
                    "backlog",
                    "broker",
                    "facts",
                    "heartbeat",
                    "lookup",
                    "observers",
                    "shared",
                    "snapshot",
                    "spans",
                    "state",
                    "tap",
                ],
            ),
            ("upstream", &["pool", "streams", "upstream", "dial"]),
            ("worker", &["caller", "http_seen", "ports", "worker"]),
            ("record", &["record", "trace"]),
            (
                "http",
                &[
                    "compared", "foreign", "protocol", "outgoing", "frames", "reply", "http1",
                    "http2", "tee",
                ],
            ),
            ("forward", &["exchange", "forward", "mirror"]),
            ("sides", &["side", "outside", "outbound", "inbound"]),
            ("connection", &["call", "connection", "explain"]),
            ("accept", &["accept"]),
            (
                "sidecar",
                &[
                    "admin",
                    "broker/holder",
                    "discovery",
                    "dns",
                    "export",
                    "host_ports",
                    "listening/scan",
                    "probe",
                    "saved",
                    "sidecar",
                ],
            ),
        ],
    },
    Floors {
        of: "heddle-control",
        floors: &[
            (
                "leaves",
                &[
                    "ca",
                    "causes",
                    "credentials",
                    "documents",
                    "generations",
                    "injection",
                    "installation",
                    "kubernetes/objects",
                    "limits",
                    "revision",
                    "reach",
                    "signals",
                ],
            ),
            ("callers", &["caller"]),
            ("state", &["journal", "pool", "registry", "store", "error", "config", "verify"]),
            ("cluster", &["kubernetes/registry"]),
            ("rules", &["files", "rules", "session"]),
            ("mesh", &["population", "views", "mesh"]),
            ("control", &["control"]),
            ("faces", &["api", "secure", "server", "webhook"]),
            ("start", &["kubernetes", "start"]),
        ],
    },
    Floors {
        of: "heddle-observe",
        floors: &[
            (
                "leaves",
                &[
                    "assets",
                    "config",
                    "control",
                    "error",
                    "exposition",
                    "hosts",
                    "limits",
                    "quantile",
                    "source_url",
                    "traces/facts",
                    "traces/kept",
                    "traces/tree",
                    "tap",
                ],
            ),
            (
                "measured",
                &[
                    "measure",
                    "scrape",
                    "store/kept",
                    "store/spread",
                    "ejected",
                    "names",
                    "grown",
                    "ledger",
                    "kept_file",
                    "promql",
                ],
            ),
            ("connections", &["lifetime"]),
            ("kept", &["roster", "rulebook", "store", "elsewhere", "targets", "rates", "traces"]),
            ("answers", &["answers", "census", "last_scrape", "rounds", "prometheus"]),
            ("served", &["history", "routes", "server"]),
        ],
    },
    Floors {
        of: "heddle",
        floors: &[
            ("leaves", &["failure", "termination", "output", "demo/apps"]),
            (
                "mesh",
                &["mesh", "cli", "control_client", "holder_client", "logs", "parts", "holder/part"],
            ),
            ("either", &["cluster_mesh", "chosen", "sidecars"]),
            (
                "commands",
                &[
                    "example",
                    "dashboard",
                    "describe",
                    "explain",
                    "fault",
                    "generated",
                    "graph",
                    "traces",
                    "habits",
                    "init",
                    "inject",
                    "install",
                    "kubelet_hooks",
                    "log_files",
                    "naming",
                    "rules",
                    "run",
                    "split",
                    "status",
                    "tap",
                    "top",
                    "up",
                    "words",
                    "why",
                ],
            ),
            ("holder and demo", &["holder", "demo"]),
        ],
    },
    Floors {
        of: "heddle-testkit",
        floors: &[
            ("leaves", &["fixture", "folder", "resources", "tls", "wait"]),
            ("servers", &["backend", "control"]),
        ],
    },
    Floors {
        of: "xtask",
        floors: &[
            ("leaves", &["command", "time"]),
            ("tasks", &["bench", "deny", "kube", "tidy"]),
            ("packages", &["python"]),
            ("ci", &["ci"]),
        ],
    },
];

impl Floors {
    /// The floor of a module; the root's is above all.
    pub(super) fn place(&self, module: &[String]) -> Option<usize> {
        if module.is_empty() {
            return Some(self.floors.len());
        }
        let entries = self.floors.iter().enumerate().flat_map(|(at, (_, entries))| {
            entries.iter().map(move |entry| (at, *entry)).filter(|(_, e)| covers(e, module))
        });
        entries.max_by_key(|(_, entry)| entry.len()).map(|(at, _)| at)
    }

    /// A floor's name.
    pub(super) fn name(&self, at: usize) -> &'static str {
        self.floors.get(at).map_or("the root", |(name, _)| name)
    }

    /// All entries.
    pub(super) fn entries(&self) -> impl Iterator<Item = &'static str> {
        self.floors.iter().flat_map(|(_, entries)| entries.iter().copied())
    }
}

/// Does the entry name this module or one above it?
pub(super) fn covers(entry: &str, module: &[String]) -> bool {
    let mut parts = module.iter();
    entry.split('/').all(|part| parts.next().is_some_and(|own| own == part))
}
