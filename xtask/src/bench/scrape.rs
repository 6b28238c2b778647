//! `cargo xtask bench scrape`: what one scrape costs a sidecar that is at its limit of label sets: time of
//! the thread that makes the text, time of the threads that carry requests, and memory while it lasts.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Child};

use serde_json::{Value, json};

use super::{
    heddle,
    mesh::{Mesh, PATIENCE},
    options::Options,
    process::wait_for,
    statistics::quantile,
};
use crate::command::exists;

/// For the list of benches.
pub(super) const ABOUT: &str =
    "Thread time and memory that a scrape costs a sidecar with all of its 2,000 label sets.";
/// Scrapes unless told otherwise.
const SCRAPES: u64 = 10;
/// Label sets: as many as a sidecar has.
const SETS: u64 = 2_000;
/// The sidecar's own pieces: what its thread makes at a time.
const PIECE_BYTES: f64 = 32.0 * 1024.0;
/// Services that answer with any status; each gives as many label sets as there are.
const SERVICES: [&str; 3] = ["one", "two", "three"];
const SERVER: &str = include_str!("scrape/server.py");
const CLIENT: &str = include_str!("scrape/client.py");

/// One scrape.
#[derive(Debug)]
struct Scrape {
    /// As its reader saw it.
    seen: Value,
    /// CPU time by thread's name, ms.
    threads: BTreeMap<String, f64>,
    /// Most resident memory above what there was before, MB.
    grown_mb: f64,
}

/// Runs the bench.
pub(super) fn run(options: &Options) -> Result<(), String> {
    if !exists("python3") {
        return Err("this bench needs python3 on the PATH".to_owned());
    }
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => heddle::build()?,
    };
    let bed = Bed::make(&binary, options.rounds.unwrap_or(SCRAPES))?;
    let scrapes = (0..bed.scrapes).map(|n| bed.scrape(n)).collect::<Result<Vec<_>, _>>();
    drop(bed);
    let report = report(&scrapes?);
    match options.json {
        true => println!("{report:#}"),
        false => println!("{}", table(&report)),
    }
    Ok(())
}

/// A mesh with servers, and a client whose sidecar is scraped.
struct Bed {
    mesh: Mesh,
    programs: Vec<Child>,
    scrapes: u64,
    /// The client's sidecar in `/proc`.
    sidecar: PathBuf,
}

impl Bed {
    fn make(binary: &std::path::Path, scrapes: u64) -> Result<Self, String> {
        let mesh = Mesh::start(binary, "bench-scrape")?;
        let mut bed = Self { mesh, programs: Vec::new(), scrapes, sidecar: PathBuf::new() };
        bed.mesh.write("server.py", SERVER)?;
        bed.mesh.write("client.py", CLIENT)?;
        let server = bed.mesh.path("server.py");
        for service in SERVICES {
            let words =
                ["run", "--service", service, "--port", "http:80", "--", "python3", &server];
            bed.start(service, &words, "ready")?;
        }
        let (client, folder) = (bed.mesh.path("client.py"), bed.mesh.path(""));
        let (scrapes, sets) = (scrapes.to_string(), SETS.to_string());
        let words = ["run", "--service", "scraped", "--", "python3", &client, &folder];
        let words = [&words[..], &[&scrapes, &sets], &SERVICES].concat();
        bed.start("scraped", &words, "filled")?;
        bed.sidecar = bed.find_sidecar("scraped")?;
        Ok(bed)
    }

    /// Starts a program; returns when it has said `word`.
    fn start(&mut self, name: &str, words: &[&str], word: &str) -> Result<(), String> {
        self.programs.push(self.mesh.start_as(name, self.mesh.heddle(words))?);
        wait_for(name, PATIENCE, || self.mesh.output(&format!("{name}.out")).contains(word))
    }

    fn find_sidecar(&self, service: &str) -> Result<PathBuf, String> {
        let workloads: Value =
            serde_json::from_str(&self.mesh.call(&["get", "workloads", "-o", "json"])?)
                .map_err(|e| format!("heddle get workloads: {e}"))?;
        let mut all = workloads.as_array().into_iter().flatten().map(|view| &view["workload"]);
        let workload = all.find(|workload| workload["service"]["name"] == service);
        let id = workload.and_then(|workload| workload["id"].as_str());
        let id = id.ok_or_else(|| format!("no workload of {service}"))?;
        let record = format!("run/bench-scrape/workloads/{id}/proxy.pid");
        let told: Value = serde_json::from_str(&self.mesh.output(&record))
            .map_err(|e| format!("{record}: {e}"))?;
        Ok(PathBuf::from(format!("/proc/{}", told["pid"])))
    }

    fn scrape(&self, number: u64) -> Result<Scrape, String> {
        // From here on the greatest resident set is counted anew.
        write(&self.sidecar.join("clear_refs"), "5")?;
        let (before, memory) = (self.threads()?, self.memory("VmRSS:")?);
        self.mesh.write(&format!("scrape-{number}"), "")?;
        let told = || {
            let output = self.mesh.output("scraped.out");
            let line = output.lines().nth(number as usize + 1)?;
            serde_json::from_str::<Value>(line).ok()
        };
        wait_for("a scrape", PATIENCE, || told().is_some())?;
        let (after, peak) = (self.threads()?, self.memory("VmHWM:")?);
        let spent = |(name, time): (String, f64)| {
            let spent = time - before.get(&name).copied().unwrap_or(0.0);
            (name, spent)
        };
        Ok(Scrape {
            seen: told().unwrap_or_default(),
            threads: after.into_iter().map(spent).collect(),
            grown_mb: (peak - memory).max(0.0),
        })
    }

    /// CPU time so far of each of the sidecar's threads, ms.
    fn threads(&self) -> Result<BTreeMap<String, f64>, String> {
        let tasks = self.sidecar.join("task");
        let tasks = fs::read_dir(&tasks).map_err(|e| format!("{}: {e}", tasks.display()))?;
        let one = |task: PathBuf| {
            let name = read(&task.join("comm"))?.trim().to_owned();
            let path = task.join("schedstat");
            let text = read(&path)?;
            let nanoseconds = text.split_whitespace().next().and_then(|n| n.parse::<f64>().ok());
            let time = nanoseconds.ok_or_else(|| format!("{}: no time", path.display()))?;
            Ok((name, time / 1e6))
        };
        tasks.flatten().map(|task| one(task.path())).collect()
    }

    /// A line of the sidecar's memory, MB.
    fn memory(&self, name: &str) -> Result<f64, String> {
        let path = self.sidecar.join("status");
        let text = read(&path)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kb = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok());
        kb.map(|kb| kb / 1024.0).ok_or_else(|| format!("{}: no {name}", path.display()))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.mesh.end();
        for program in &mut self.programs {
            drop(program.wait());
        }
    }
}

fn report(scrapes: &[Scrape]) -> Value {
    let seen = |field: &str| {
        let all = scrapes.iter().filter_map(|scrape| scrape.seen[field].as_f64());
        all.collect::<Vec<_>>()
    };
    let of = |names: fn(&str) -> bool| {
        let sum = |scrape: &Scrape| {
            scrape.threads.iter().filter(|(name, _)| names(name)).map(|(_, time)| time).sum()
        };
        scrapes.iter().map(sum).collect::<Vec<f64>>()
    };
    let (made, carry) = (of(|name| name == "admin"), of(|name| name.starts_with("worker")));
    let pieces = quantile(&seen("bytes"), 0.5) / PIECE_BYTES;
    let grown: Vec<f64> = scrapes.iter().map(|scrape| scrape.grown_mb).collect();
    json!({
        "bench": "scrape", "scrapes": scrapes.len(), "label_sets": quantile(&seen("sets"), 0.5),
        "mb": quantile(&seen("bytes"), 0.5) / 1e6, "ms": quantile(&seen("ms"), 0.5),
        "metrics_thread_ms": quantile(&made, 0.5),
        "metrics_thread_ms_at_a_time": quantile(&made, 0.5) / pieces,
        "longest_gap_ms": quantile(&seen("longest_gap_ms"), 1.0),
        "worker_threads_ms": quantile(&carry, 1.0), "memory_mb": quantile(&grown, 1.0),
    })
}

fn table(report: &Value) -> String {
    let rows = [
        ("label sets", "label_sets", ""),
        ("text", "mb", " MB"),
        ("time until it is read", "ms", " ms"),
        ("the metrics thread's own time", "metrics_thread_ms", " ms"),
        ("of it at a time (a piece of 32 KiB)", "metrics_thread_ms_at_a_time", " ms"),
        ("longest gap its reader saw", "longest_gap_ms", " ms"),
        ("time of the threads that carry requests, most", "worker_threads_ms", " ms"),
        ("memory above that of before, most", "memory_mb", " MB"),
    ];
    let line = |(about, field, unit): (&str, &str, &str)| {
        let value = report[field].as_f64().unwrap_or_default();
        format!("{about:46} {value:10.2}{unit}")
    };
    rows.map(line).join("\n")
}

fn read(path: &std::path::Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn write(path: &std::path::Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
