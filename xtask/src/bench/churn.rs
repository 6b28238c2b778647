//! `cargo xtask bench churn`: constant load while every second a rule changes, control is killed
//! at 20 s and started at 30 s, and new workloads join; then the runs of `restarts`. It must cost no
//! request and no connection.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    demo::{Demo, HeldConnection, find_number},
    heddle,
    options::Options,
    process::wait_for,
    restarts,
};
use crate::time::{now, pause};

/// Seconds of churn unless told otherwise.
const SECONDS: u64 = 60;
/// Runs with restarts, and the seconds of each, unless told otherwise.
const RUNS: (u64, u64) = (10, 30);
/// Calls per second of the demo's load.
const RATE: u64 = 40;
/// Seconds the demo outlives the churn, so that its last edits carry traffic.
const TAIL_SECONDS: u64 = 10;
/// Control is away between these seconds.
const CONTROL_AWAY: std::ops::Range<u64> = 20..30;
/// A new workload joins, and a destination never called before is called, at these seconds.
const JOINS: [u64; 2] = [10, 40];

/// What happened.
#[derive(Debug, Default)]
struct Record {
    edits: u64,
    refused_as_they_should: u64,
    while_control_was_away: u64,
    problems: Vec<String>,
    joined: Vec<Child>,
}

/// Runs the bench; an error where a request failed or an edit was not live.
pub(super) fn run(options: &Options) -> Result<(), String> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => heddle::build()?,
    };
    if options.runs.is_none() {
        run_demo(&binary, options)?;
    }
    let (runs, seconds) = (options.runs.unwrap_or(RUNS.0), options.seconds.unwrap_or(RUNS.1));
    let mut clean = true;
    for run in 1..=runs {
        let outcome = restarts::run(&binary, seconds)?;
        clean &= outcome.is_clean();
        if options.json {
            println!(
                "{:#}",
                json!({ "bench": "churn, restarts", "run": run, "result": outcome.json() })
            );
        } else {
            println!("run {run} of {runs}: {}", outcome.json());
        }
    }
    if clean { Ok(()) } else { Err("restarts cost something".to_owned()) }
}

fn run_demo(binary: &Path, options: &Options) -> Result<(), String> {
    let seconds = options.seconds.unwrap_or(SECONDS);
    let dir = std::env::temp_dir().join(format!("heddle-bench-churn-{}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let demo = Demo::start(binary, "bench-churn", seconds + TAIL_SECONDS, RATE, None)?;
    let held = HeldConnection::open(&demo)?;
    let mut churn = Churn { demo: &demo, held, dir: dir.clone(), record: Record::default() };
    let start = now();
    for second in 0..seconds {
        let at = start + Duration::from_secs(second);
        pause(at.saturating_duration_since(now()));
        churn.second(second);
    }
    let mut record = churn.record;
    for child in &mut record.joined {
        drop(Command::new("kill").arg(child.id().to_string()).status());
        drop(child.wait());
    }
    let (report, success) = demo.finish()?;
    drop(fs::remove_dir_all(&dir));
    conclude(&record, &report, success, options.json)
}

fn conclude(record: &Record, report: &Value, success: bool, as_json: bool) -> Result<(), String> {
    let result = json!({
        "bench": "churn", "failed": report["failed"], "captured_both_sides": report["captured_both_sides"],
        "edits": record.edits, "invalid_edits_refused": record.refused_as_they_should,
        "edits_while_control_was_away": record.while_control_was_away,
        "problems": record.problems, "edges": report["edges"],
    });
    if as_json {
        println!("{result:#}");
    } else {
        println!(
            "failed {}, captured on both sides {}, edits {}, invalid edits refused {}, problems {:?}",
            result["failed"],
            result["captured_both_sides"],
            result["edits"],
            result["invalid_edits_refused"],
            record.problems
        );
    }
    if success && record.problems.is_empty() {
        Ok(())
    } else {
        Err("churn cost something".to_owned())
    }
}

struct Churn<'a> {
    demo: &'a Demo,
    held: HeldConnection,
    dir: PathBuf,
    record: Record,
}

impl Churn<'_> {
    fn second(&mut self, second: u64) {
        if second == CONTROL_AWAY.start {
            self.note("killing control", self.kill_control());
        }
        if second == CONTROL_AWAY.end {
            self.note("starting control", self.start_control());
        }
        let outcome = self.call_on_held_connection();
        self.note("the connection held open", outcome);
        if CONTROL_AWAY.contains(&second) {
            self.record.while_control_was_away += 1;
            return;
        }
        if JOINS.contains(&second) {
            self.join(second);
        }
        let outcome = match second % 4 {
            0 => self.weights(second),
            1 => self.header_route(second),
            2 => self.subset(second),
            _ => self.invalid(),
        };
        self.note(&format!("{second} s"), outcome);
    }

    /// Keeps the holder from restarting control and kills it with SIGKILL.
    fn kill_control(&self) -> Result<(), String> {
        self.demo.call(&["supervise", "control", "--restart", "false"])?;
        let status = self.demo.status()?;
        let pid =
            find_number(&status, "control").ok_or("heddle status names no control process")?;
        let kill = Command::new("kill").args(["-9", &pid.to_string()]).status();
        kill.map_err(|e| e.to_string()).map(drop)
    }

    /// Edits count from when it answers.
    fn start_control(&self) -> Result<(), String> {
        self.demo.call(&["supervise", "control", "--restart", "true"])?;
        wait_for("control plane", Duration::from_secs(10), || {
            self.demo.call(&["get", "services"]).is_ok()
        })
    }

    /// One more request on the connection that is there from the first second to the last.
    fn call_on_held_connection(&mut self) -> Result<(), String> {
        self.held.call("/restaurants/1").map(drop)
    }

    fn note(&mut self, what: &str, outcome: Result<(), String>) {
        if let Err(problem) = outcome {
            self.record.problems.push(format!("{what}: {problem}"));
        }
    }

    fn apply(&mut self, text: &str) -> Result<(), String> {
        let file = self.dir.join("churn.yaml");
        fs::write(&file, text).map_err(|e| e.to_string())?;
        self.demo.call(&["apply", "-f", &file.to_string_lossy()])?;
        self.record.edits += 1;
        Ok(())
    }

    /// All weight to one version: after it, every call must be answered by that version.
    fn weights(&mut self, second: u64) -> Result<(), String> {
        let (version, other) = if second % 8 < 4 { ("v1", "v2") } else { ("v2", "v1") };
        let rule = format!(
            "    - route:\n        - destination: {{ host: reviews, subset: {version} }}\n          weight: 100\n        \
             - destination: {{ host: reviews, subset: {other} }}\n          weight: 0\n"
        );
        let subsets = subsets(&["v1", "v2", "v3"]);
        self.apply(&format!("{subsets}---\n{}", virtual_service(&rule)))?;
        self.answered_by(version, "end-user: anybody")
    }

    /// After it, a call with that header must be answered by that version.
    fn header_route(&mut self, second: u64) -> Result<(), String> {
        let version = ["v1", "v2", "v3"][second as usize / 4 % 3];
        let user = format!("churn-{second}");
        let rule = format!(
            "    - match:\n        - headers: {{ end-user: {{ exact: {user} }} }}\n      route:\n        \
             - destination: {{ host: reviews, subset: {version} }}\n    - route:\n        - destination: {{ host: reviews }}\n"
        );
        let subsets = subsets(&["v1", "v2", "v3"]);
        self.apply(&format!("{subsets}---\n{}", virtual_service(&rule)))?;
        self.answered_by(version, &format!("end-user: {user}"))
    }

    fn answered_by(&self, version: &str, header: &str) -> Result<(), String> {
        let answer = self.demo.get("/restaurants/1", header)?;
        if answer.contains(&format!("\"version\":\"{version}\"")) {
            return Ok(());
        }
        Err(format!("a call with `{header}` was not answered by {version}: {answer}"))
    }

    /// A subset with its route is added, then both are removed.
    fn subset(&mut self, second: u64) -> Result<(), String> {
        if second % 8 < 4 {
            let rule = "    - route:\n        - destination: { host: reviews, subset: extra }\n";
            let extra = subsets(&["v1", "v2", "v3", "extra"])
                .replace("{ version: extra }", "{ app: reviews, version: v3 }");
            self.apply(&format!("{extra}---\n{}", virtual_service(rule)))?;
            return self.answered_by("v3", "end-user: anybody");
        }
        let rule = "    - route:\n        - destination: { host: reviews, subset: v2 }\n";
        self.apply(&format!("{}---\n{}", virtual_service(rule), subsets(&["v1", "v2", "v3"])))?;
        self.answered_by("v2", "end-user: anybody")
    }

    fn invalid(&mut self) -> Result<(), String> {
        let text = virtual_service(
            "    - route:\n        - destination: { host: reviews }\n          weight: -1\n",
        );
        match self.apply(&text) {
            Ok(()) => Err("an invalid file was accepted".to_owned()),
            Err(said) if said.contains("churn.yaml:") && said.contains("weight") => {
                self.record.refused_as_they_should += 1;
                Ok(())
            }
            Err(said) => Err(format!("an invalid file was refused for another reason: {said}")),
        }
    }

    /// A service nobody has called joins, and another new workload calls it.
    fn join(&mut self, second: u64) {
        let service = format!("late-{second}");
        let binary = self.demo.heddle(&["run"]).get_program().to_string_lossy().into_owned();
        let counts = self.dir.join(format!("{service}.sock"));
        let serve = [
            "run",
            "--service",
            &service,
            "--port",
            "80",
            "--",
            &binary,
            "app",
            "photos",
            "--counts",
            &counts.to_string_lossy(),
        ];
        match self.demo.heddle(&serve).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => self.record.joined.push(child),
            Err(error) => self.record.problems.push(format!("{service}: {error}")),
        }
        // curl retries only until the name is known: the service starts at the same time.
        let url = format!("http://{service}/photos/1");
        let call = [
            "run",
            "--service",
            &format!("caller-{second}"),
            "--",
            "curl",
            "-sSf",
            "--retry",
            "20",
            "--retry-delay",
            "1",
            "--retry-all-errors",
            "--max-time",
            "10",
            &url,
        ];
        self.note(&format!("call of {service}"), self.demo.call(&call).map(drop));
    }
}

fn virtual_service(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: churn\nspec:\n  \
         hosts: [reviews]\n  http:\n{http}"
    )
}

fn subsets(names: &[&str]) -> String {
    let list: String = names
        .iter()
        .map(|name| format!("    - name: {name}\n      labels: {{ version: {name} }}\n"))
        .collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: churn\nspec:\n  \
         host: reviews\n  subsets:\n{list}"
    )
}
