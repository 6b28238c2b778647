//! The hard half of `cargo xtask bench churn`: constant calls of GET and POST by a Python and a Node
//! client, on kept and on new connections, while replicas (Python and Node too) are replaced one
//! after the other, a rule changes twice a second and control is killed every ten. It must cost no
//! client anything, and no POST may be seen twice.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    demo::find_number,
    mesh::{Mesh, PATIENCE},
    process::wait_for,
};
use crate::{
    command::exists,
    time::{now, pause},
};

const MESH: &str = "bench-restarts";
/// Calls a second of both clients together.
const RATE: u64 = 300;
/// Replicas of each service, but for the moment of a replacement.
const REPLICAS: usize = 3;
/// Time between two edits.
const EDIT_EVERY: Duration = Duration::from_millis(500);
/// Time between two kills of control.
const KILL_EVERY: Duration = Duration::from_secs(10);
/// From a replica's first word until the one it replaces is told to end: its port is seen by then.
const OVERLAP: Duration = Duration::from_secs(1);
/// Errors that are printed; all are counted.
const SHOWN_MAX: usize = 20;

/// A service, the program of its replicas and of the client that goes with it.
const KINDS: [(&str, &str, &str, &str); 2] = [
    ("orders", "python3", include_str!("restarts/server.py"), include_str!("restarts/load.py")),
    ("stock", "node", include_str!("restarts/server.js"), include_str!("restarts/load.js")),
];

/// One run's result.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Calls made.
    pub(super) calls: u64,
    /// What clients saw fail.
    pub(super) errors: Vec<Value>,
    /// POSTs that reached an application more than once.
    pub(super) repeated: usize,
    replaced: u64,
    edits: u64,
    edits_without_control: u64,
    kills: u64,
}

impl Outcome {
    /// As one JSON object.
    pub(super) fn json(&self) -> Value {
        json!({
            "calls": self.calls, "errors": self.errors.len(), "repeated_posts": self.repeated,
            "replicas_replaced": self.replaced, "edits": self.edits,
            "edits_without_control": self.edits_without_control, "kills_of_control": self.kills,
            "first_errors": self.errors.iter().take(SHOWN_MAX).collect::<Vec<_>>(),
        })
    }

    /// Did it cost nothing?
    pub(super) fn is_clean(&self) -> bool {
        self.calls > 0 && self.errors.is_empty() && self.repeated == 0
    }
}

/// A mesh with replicas, and what goes on in it.
struct Bed {
    mesh: Mesh,
    /// Of each service, the oldest first.
    replicas: BTreeMap<&'static str, Vec<Child>>,
    started: usize,
}

/// One run of so many seconds.
pub(super) fn run(binary: &Path, seconds: u64) -> Result<Outcome, String> {
    for (_, needed, ..) in KINDS {
        if !exists(needed) {
            return Err(format!("this bench needs {needed} on the PATH"));
        }
    }
    let mut bed = Bed::make(binary)?;
    for (service, ..) in KINDS {
        for _ in 0..REPLICAS {
            bed.add(service)?;
        }
    }
    pause(OVERLAP);
    let clients = bed.start_clients(seconds)?;
    let mut outcome = bed.disturb(Duration::from_secs(seconds))?;
    for (name, mut client) in clients {
        wait_for(&format!("the end of the {name} client"), PATIENCE, || {
            client.try_wait().is_ok_and(|ended| ended.is_some())
        })?;
        let told = bed.mesh.output(&format!("client-{name}.out"));
        let told: Value =
            serde_json::from_str(&told).map_err(|e| format!("{name}: {e}: {told}"))?;
        outcome.calls += told["calls"].as_u64().unwrap_or(0);
        outcome.errors.extend(told["errors"].as_array().into_iter().flatten().cloned());
    }
    outcome.repeated = bed.repeated();
    Ok(outcome)
}

impl Bed {
    fn make(binary: &Path) -> Result<Self, String> {
        let mesh = Mesh::start(binary, MESH)?;
        for (service, _, server, load) in KINDS {
            for (name, text) in [(service.to_owned(), server), (format!("{service}-load"), load)] {
                mesh.write(&name, text)?;
            }
        }
        Ok(Self { mesh, replicas: BTreeMap::new(), started: 0 })
    }

    /// Starts a replica; returns when it says that it listens.
    fn add(&mut self, service: &'static str) -> Result<(), String> {
        let name = self.begin(service)?;
        wait_for(&name, PATIENCE, || self.mesh.output(&format!("{name}.out")).contains("ready"))
    }

    fn begin(&mut self, service: &'static str) -> Result<String, String> {
        self.started += 1;
        let name = format!("{service}-{}", self.started);
        let (_, program, ..) = KINDS[usize::from(service != KINDS[0].0)];
        let (script, notes) = (self.mesh.path(service), self.mesh.path(&format!("{name}.posts")));
        let words = ["run", "--service", service, "--port", "http:80", "--"];
        let mut command = self.mesh.heddle(&words);
        command.args([program, &script, "80", &notes]);
        let child = self.mesh.start_as(&name, command)?;
        self.replicas.entry(service).or_default().push(child);
        Ok(name)
    }

    fn start_clients(&self, seconds: u64) -> Result<Vec<(&'static str, Child)>, String> {
        let rate = (RATE / KINDS.len() as u64).to_string();
        let one = |(service, program, ..): (&str, &'static str, &str, &str)| {
            let script = self.mesh.path(&format!("{service}-load"));
            let name = format!("client-{program}");
            let mut command =
                self.mesh.heddle(&["run", "--service", &name, "--", program, &script]);
            command.args([&seconds.to_string(), &rate]).args(KINDS.map(|(service, ..)| service));
            Ok((program, self.mesh.start_as(&name, command)?))
        };
        KINDS.into_iter().map(one).collect()
    }

    /// Edits, kills and replaces for so long.
    fn disturb(&mut self, length: Duration) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        let begin = now();
        let (mut edit_at, mut kill_at) = (Duration::ZERO, KILL_EVERY / 2);
        let mut services = KINDS.map(|(service, ..)| service).into_iter().cycle();
        let mut replacing: Option<Replacement> = None;
        loop {
            let at = now().saturating_duration_since(begin);
            if at >= length {
                return Ok(outcome);
            }
            if at >= edit_at {
                edit_at += EDIT_EVERY;
                match self.edit(outcome.edits + outcome.edits_without_control) {
                    true => outcome.edits += 1,
                    false => outcome.edits_without_control += 1,
                }
            }
            if at >= kill_at {
                kill_at += KILL_EVERY;
                outcome.kills += u64::from(self.kill_control());
            }
            replacing = match replacing {
                None => services.next().map(|service| self.replace(service)).transpose()?,
                Some(replacement) => self.go_on(replacement, at)?,
            };
            outcome.replaced += u64::from(replacing.is_none());
            pause(Duration::from_millis(20));
        }
    }

    fn replace(&mut self, service: &'static str) -> Result<Replacement, String> {
        let name = self.begin(service)?;
        Ok(Replacement { service, name, ready_at: None, told: false })
    }

    /// `None` once the old one has ended.
    fn go_on(
        &mut self,
        mut replacement: Replacement,
        at: Duration,
    ) -> Result<Option<Replacement>, String> {
        if !self.mesh.output(&format!("{}.out", replacement.name)).contains("ready") {
            return Ok(Some(replacement));
        }
        let ready_at = *replacement.ready_at.get_or_insert(at);
        let all = self.replicas.entry(replacement.service).or_default();
        let Some(oldest) = all.first_mut() else { return Ok(None) };
        if at.saturating_sub(ready_at) >= OVERLAP && !replacement.told {
            replacement.told = true;
            signal(oldest, "-TERM")?;
        }
        if replacement.told && oldest.try_wait().is_ok_and(|ended| ended.is_some()) {
            drop(all.remove(0));
            return Ok(None);
        }
        Ok(Some(replacement))
    }

    /// A rule that changes nothing for these calls; `false`: there was no control plane to take it.
    fn edit(&self, number: u64) -> bool {
        let (service, file) = (KINDS[number as usize % 2].0, self.mesh.dir.join("edit.yaml"));
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{ name: {service} }}\nspec:\n  \
             hosts: [{service}]\n  http:\n    - match: [{{ headers: {{ x-edit: {{ exact: e{number} }} }} }}]\n      \
             route: [{{ destination: {{ host: {service} }} }}]\n    - route: [{{ destination: {{ host: {service} }} }}]\n"
        );
        let written = fs::write(&file, text).is_ok();
        written
            && self.mesh.call(&["apply", "--timeout", "0s", "-f", &file.to_string_lossy()]).is_ok()
    }

    fn kill_control(&self) -> bool {
        let status = self.mesh.call(&["status", "--output", "json"]).unwrap_or_default();
        let status: Value = serde_json::from_str(&status).unwrap_or_default();
        let pid = find_number(&status, "control").filter(|pid| *pid != 0);
        let kill = |pid: u64| Command::new("kill").args(["-9", &pid.to_string()]).status();
        pid.is_some_and(|pid| kill(pid).is_ok_and(|status| status.success()))
    }

    /// Ids that were noted more than once, by whichever replicas.
    fn repeated(&self) -> usize {
        let files =
            fs::read_dir(&self.mesh.dir).into_iter().flatten().flatten().map(|file| file.path());
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for file in files.filter(|file| file.extension().is_some_and(|end| end == "posts")) {
            for id in fs::read_to_string(file).unwrap_or_default().lines() {
                *seen.entry(id.to_owned()).or_default() += 1;
            }
        }
        seen.values().filter(|count| **count > 1).count()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.mesh.end();
        for child in self.replicas.values_mut().flatten() {
            drop(child.wait());
        }
    }
}

/// A replica on its way in, and the oldest of its service on its way out.
struct Replacement {
    service: &'static str,
    name: String,
    ready_at: Option<Duration>,
    told: bool,
}

fn signal(child: &Child, signal: &str) -> Result<(), String> {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
    sent.map(drop).map_err(|e| e.to_string())
}
