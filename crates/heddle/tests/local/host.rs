//! A machine for tests: meshes in folders of their own, commands as root or as an ordinary user.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use heddle_runtime::{clock, process, signal::Signal};
// What is looked for is returned.
pub(crate) use heddle_testkit::wait::wait_for as wait_until;
use serde_json::Value;

/// `nobody`: an ordinary user on every machine.
const ORDINARY: u32 = 65534;

static MADE: AtomicUsize = AtomicUsize::new(0);

/// Who runs the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// uid 0.
    Root,
    /// Somebody else.
    Ordinary,
}

impl User {
    /// Can this user be played here? Says so loudly if not.
    pub(crate) fn is_possible(self) -> bool {
        let root = process::effective_ids().0 == 0;
        let possible = match self {
            Self::Root => root,
            Self::Ordinary => {
                !root || as_ordinary(env!("CARGO_BIN_EXE_heddle"), &["version"]).is_some()
            }
        };
        if !possible {
            skip(&format!("this machine or user cannot run it as {self:?}"));
        }
        possible
    }
}

/// Says that the test of this thread is skipped, where the harness does not swallow it.
pub(crate) fn skip(why: &str) {
    let test = std::thread::current();
    let line = format!("SKIPPED {}: {why}\n", test.name().unwrap_or("a test"));
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

fn as_ordinary(program: &str, words: &[&str]) -> Option<()> {
    let mut command = ordinary_command(program);
    let ran = command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.ok().filter(ExitStatus::success).map(drop)
}

fn ordinary_command(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    let id = ORDINARY.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--", program]);
    command
}

/// Signals that tests send, and by which a shell's jobs may be started to be ignored.
const SENT: [(Signal, &str); 3] =
    [(Signal::HANGUP, "HUP"), (Signal::INTERRUPT, "INT"), (Signal::QUIT, "QUIT")];

/// The command, which takes a signal for what it is also where this test was started with `nohup`, or by a
/// script in the background: what is ignored at the start is inherited, and heddle heeds that.
fn heeding_signals(command: Command) -> Command {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    let is_ignored = |signal: Signal| ignored & (1 << (signal.number() - 1)) != 0;
    let names: Vec<_> = SENT.iter().filter(|one| is_ignored(one.0)).map(|one| one.1).collect();
    if names.is_empty() {
        return command;
    }
    let mut wrapped = Command::new("env");
    let restored = format!("--default-signal={}", names.join(","));
    wrapped.arg(restored).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    wrapped.stdin(Stdio::null());
    wrapped
}

/// A folder with everything one user's meshes need.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) user: User,
    pub(crate) dir: PathBuf,
}

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A command under way; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// A mesh with the `heddle up` that holds it.
#[derive(Debug)]
pub(crate) struct Mesh<'a> {
    machine: &'a Machine,
    pub(crate) name: String,
    pub(crate) up: Running,
}

impl Machine {
    pub(crate) fn new(user: User) -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!("/tmp/hd-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        if user == User::Ordinary && process::effective_ids().0 == 0 {
            chown(&dir, Some(ORDINARY), Some(ORDINARY)).unwrap();
        }
        Self { user, dir }
    }

    /// `heddle` as this machine's user.
    pub(crate) fn heddle(&self, words: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_heddle");
        let switch = self.user == User::Ordinary && process::effective_ids().0 == 0;
        let mut command = if switch { ordinary_command(program) } else { Command::new(program) };
        command
            .args(words)
            .current_dir(&self.dir)
            .env("HEDDLE_RUNTIME_DIR", self.dir.join("run"))
            .env("HOME", &self.dir)
            .env_remove("XDG_STATE_HOME")
            .stdin(Stdio::null());
        command
    }

    /// Starts a command with its output in files.
    pub(crate) fn start(&self, command: Command) -> Running {
        let mut command = heeding_signals(command);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let [stdout, stderr] =
            ["out", "err"].map(|end| self.dir.join(format!("output-{number}.{end}")));
        let child = command
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Running { child, stdout, stderr }
    }

    /// A number to tell this test's processes from those of tests beside it.
    pub(crate) fn unlike_any_other(&self) -> u32 {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        std::process::id() * 1000 + u32::try_from(number % 1000).unwrap()
    }

    /// Runs `heddle` with these words to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Finished {
        self.start(self.heddle(words)).finish()
    }

    /// Starts a mesh and waits until it is up.
    pub(crate) fn up(&self, name: &str) -> Mesh<'_> {
        self.up_by(name, |command| command)
    }

    /// Where the mesh of this name keeps what outlives it.
    pub(crate) fn state_of(&self, name: &str) -> PathBuf {
        self.dir.join(format!("state-{name}"))
    }

    /// As [`Self::up`], with the command changed before it is started.
    pub(crate) fn up_by(&self, name: &str, change: impl Fn(Command) -> Command) -> Mesh<'_> {
        let state = self.state_of(name);
        let words =
            ["up", "--mesh", name, "--output", "json", "--state-dir", state.to_str().unwrap()];
        let up = self.start(change(self.heddle(&words)));
        let mut mesh = Mesh { machine: self, name: name.to_owned(), up };
        wait_until("the mesh is up", || {
            assert!(mesh.up.is_running(), "{}", mesh.up.said());
            serde_json::from_str::<Value>(&mesh.up.printed()).ok()
        });
        mesh
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.dir.display());
        } else {
            drop(fs::remove_dir_all(&self.dir));
        }
    }
}

impl Mesh<'_> {
    /// The run-time folder.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.machine.dir.join("run").join(&self.name)
    }

    /// `heddle COMMAND --mesh NAME WORDS…` to its end.
    pub(crate) fn run(&self, command: &str, words: &[&str]) -> Finished {
        self.machine.run(&self.words(command, words))
    }

    /// Starts `heddle run --mesh NAME --service SERVICE WORDS…`.
    pub(crate) fn start(&self, service: &str, words: &[&str]) -> Running {
        let words = [&["--service", service], words].concat();
        self.machine.start(self.machine.heddle(&self.words("run", &words)))
    }

    /// Starts a web server that answers with its service's name, and waits until it is ready.
    pub(crate) fn serve(&self, service: &str, flags: &[&str]) -> Running {
        self.serve_at(service, "0.0.0.0", flags)
    }

    /// As [`Self::serve`], listening on one address.
    pub(crate) fn serve_at(&self, service: &str, address: &str, flags: &[&str]) -> Running {
        let page = self.machine.dir.join(format!("page-{service}"));
        fs::create_dir_all(&page).unwrap();
        fs::write(page.join("index.html"), service).unwrap();
        let page = page.to_str().unwrap();
        let server = ["--", "python3", "-m", "http.server", "80", "--bind", address, "-d", page];
        self.start_ready(service, &[&["--port", "80"], flags, &server[..]].concat())
    }

    /// As [`Self::start`], and waits until all its ports are ready.
    pub(crate) fn start_ready(&self, service: &str, words: &[&str]) -> Running {
        let mut running = self.start(service, words);
        wait_until("the server is ready", || {
            assert!(running.is_running(), "{}", running.said());
            self.workloads(service).iter().any(is_ready).then_some(())
        });
        running
    }

    /// Runs a client in the mesh to its end.
    pub(crate) fn client(&self, command: &[&str]) -> Finished {
        let words = [&["--service", "client", "--"], command].concat();
        self.run("run", &words)
    }

    /// What curl gets from a URL, within bounds.
    pub(crate) fn get(&self, url: &str) -> Finished {
        self.client(&["curl", "-sS", "--max-time", "20", url])
    }

    /// The control plane's view of a service's workloads.
    pub(crate) fn workloads(&self, service: &str) -> Vec<Value> {
        // What cannot be told just now, as when control has died, is not nothing.
        let all = wait_until("the control plane tells its workloads", || {
            let told = self.run("get", &["workloads", "-o", "json"]);
            serde_json::from_str::<Vec<Value>>(&told.stdout).ok()
        });
        all.into_iter().filter(|view| view["workload"]["service"]["name"] == service).collect()
    }

    /// The holder's own words.
    pub(crate) fn info(&self) -> Value {
        let told = self.run("status", &["-o", "json"]);
        let status: Value = serde_json::from_str(&told.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", told.stdout, told.stderr));
        status["info"].clone()
    }

    /// Process id of a part.
    pub(crate) fn pid(&self, part: &str) -> u32 {
        u32::try_from(self.info()["pids"][part].as_u64().unwrap()).unwrap()
    }

    fn words<'w>(&'w self, command: &'w str, words: &[&'w str]) -> Vec<&'w str> {
        [&[command, "--mesh", &self.name], words].concat()
    }
}

/// Are all ports of a workload ready?
fn is_ready(view: &Value) -> bool {
    let ports = view["workload"]["ports"].as_object();
    ports.is_some_and(|ports| ports.values().all(|port| port["state"] == "ready"))
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal.send(self.child.id()).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Standard output so far.
    pub(crate) fn printed(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap()
    }

    /// Standard error so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    /// Waits for the end.
    pub(crate) fn finish(mut self) -> Finished {
        let status = wait_until("a command has ended", || self.child.try_wait().unwrap());
        Finished { code: process::exit_code(status), stdout: self.printed(), stderr: self.said() }
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(self, signal: Signal) -> Finished {
        self.signal(signal);
        self.finish()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_running() {
            // In order if possible, so that a failing test leaves no processes.
            self.signal(Signal::TERMINATE);
            let deadline = clock::now() + Duration::from_secs(10);
            wait_until("it has ended", || {
                (!self.is_running() || clock::now() > deadline).then_some(())
            });
            drop((self.child.kill(), self.child.wait()));
        }
    }
}

/// Processes whose command line holds `text`.
pub(crate) fn processes_with(text: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let command = fs::read(Path::new("/proc").join(entry.file_name()).join("cmdline"));
        let command = command.unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if pid != std::process::id() && command.contains(text) {
            found.push(pid);
        }
    }
    found
}
