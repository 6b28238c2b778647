//! Who takes part in the demo: nine services in twelve workloads, a load generator, and which
//! program plays each part on this machine. Nothing is started here.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::apps::{NODE_APP, PYTHON_APP};

/// Who calls whom, in the order of a call's way through the site.
pub(super) const EDGES: [(&str, &str); 8] = [
    ("loadgen", "frontend"),
    ("frontend", "restaurants"),
    ("frontend", "reviews"),
    ("frontend", "photos"),
    ("frontend", "tables"),
    ("frontend", "specials"),
    ("reviews", "ratings"),
    ("restaurants", "store"),
];

/// The demo's folder in the mesh's run-time folder.
pub(super) const DIR: &str = "demo";
/// The socket with the longest name in it, that of a member that tells its counts.
pub(super) const LONGEST_SOCKET: &str = "restaurants-v1.sock";

/// The load generator's service.
pub(super) const LOAD: &str = "loadgen";
/// The service the host may call.
pub(super) const FRONT: &str = "frontend";

/// The port it serves.
pub(super) const FRONT_PORT: u16 = 80;

/// The version of a service that fails whatever it is asked, so that a circuit breaker takes it out.
pub(super) const BROKEN: (&str, &str) = ("specials", "v2");
/// The rule that asks for that.
pub(super) const RULES: &str = include_str!("rules.yaml");

/// What plays a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    /// The example application in this binary.
    Example,
    /// The example application in JavaScript.
    Node,
    /// The example application in Python.
    Python,
    /// `redis-server` as it comes.
    Redis,
}

impl Program {
    /// What the demo says it runs.
    pub(super) fn shown(self) -> &'static str {
        match self {
            Self::Example => "Rust (in this binary)",
            Self::Node => "JavaScript (node)",
            Self::Python => "Python (python3)",
            Self::Redis => "redis-server",
        }
    }

    fn executable(self) -> Option<&'static str> {
        match self {
            Self::Example => None,
            Self::Node => Some("node"),
            Self::Python => Some("python3"),
            Self::Redis => Some("redis-server"),
        }
    }
}

/// One workload of the demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Service, which is the application's role too.
    pub(super) service: &'static str,
    /// Version.
    pub(super) version: &'static str,
    /// `--port` of `heddle run`; `None` for a client.
    pub(super) port: Option<&'static str>,
    /// What plays it.
    pub(super) program: Program,
}

impl Member {
    /// `reviews-v2`: unique in the demo, used for file names.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.service, self.version)
    }

    /// The socket on which it tells what it counted; `redis-server` has none.
    pub(super) fn counts(&self, dir: &Path) -> Option<PathBuf> {
        (self.program != Program::Redis).then(|| dir.join(format!("{}.sock", self.name())))
    }

    /// The command that plays the part. `dir` holds the scripts, `heddle` is this binary.
    pub(super) fn command(&self, dir: &Path, heddle: &Path, load: &Load) -> Vec<OsString> {
        let number = self.port.map_or("0", |port| port.rsplit(':').next().unwrap_or(port));
        let counts = dir.join(format!("{}.sock", self.name())).into_os_string();
        let script = |interpreter: &str, file: &str| -> Vec<OsString> {
            let head = [interpreter.into(), dir.join(file).into()];
            let words = [self.service, self.version, number].map(OsString::from);
            head.into_iter().chain(words).chain([counts.clone()]).collect()
        };
        match self.program {
            Program::Node => script("node", "app.js"),
            Program::Python => script("python3", "app.py"),
            // It listens on its loopback only, as Redis does by default: the mesh reaches it there, from an
            // address that a Redis without a password refuses unless it is told not to.
            Program::Redis => [
                "redis-server",
                "--port",
                number,
                "--bind",
                "127.0.0.1",
                "--protected-mode",
                "no",
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
            ]
            .map(OsString::from)
            .into_iter()
            .chain([dir.into()])
            .collect(),
            Program::Example => {
                let mut words: Vec<OsString> = vec![heddle.into()];
                words.extend(["app", self.service, "--version", self.version].map(OsString::from));
                words.extend(["--port".into(), number.into(), "--counts".into(), counts]);
                if self.service == LOAD {
                    words.extend(["--rate".into(), load.rate.to_string().into()]);
                    words.extend(["--seconds".into(), load.seconds.to_string().into()]);
                }
                words
            }
        }
    }
}

/// How much load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// Calls per second.
    pub(super) rate: f64,
    /// Seconds after which it stops by itself.
    pub(super) seconds: u64,
}

/// The demo's members in the order they are started; the load generator last.
pub(super) fn members() -> Vec<Member> {
    let usable = |program: Program| {
        if program.executable().is_some_and(runs) { program } else { Program::Example }
    };
    let (node, python, redis) =
        (usable(Program::Node), usable(Program::Python), usable(Program::Redis));
    let member = |service, version, port, program| Member { service, version, port, program };
    let example = Program::Example;
    vec![
        // The slow starters first. The store declares nothing: what it speaks shows in its bytes.
        member("ratings", "v1", Some("http:80"), node),
        member("photos", "v1", Some("80"), python),
        member("reviews", "v2", Some("http:80"), node),
        member("reviews", "v3", Some("http:80"), python),
        member("store", "v1", Some("6379"), redis),
        member("reviews", "v1", Some("http:80"), example),
        member("restaurants", "v1", Some("80"), example),
        member("tables", "v1", Some("grpc:50051"), example),
        member("specials", "v1", Some("http:80"), example),
        member("specials", "v2", Some("http:80"), example),
        member("frontend", "v1", Some("http:80"), example),
        member(LOAD, "v1", None, example),
    ]
}

/// Is the program there, and does it run? (A version switcher's stub may be there and not run.)
fn runs(executable: &str) -> bool {
    let mut command = Command::new(executable);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Writes the scripts that interpreters run.
pub(super) fn write_scripts(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("app.js"), NODE_APP)?;
    fs::write(dir.join("app.py"), PYTHON_APP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_of_an_edge_has_a_member() {
        let members = members();
        assert!(members.iter().any(|member| (member.service, member.version) == BROKEN));
        for service in EDGES.iter().flat_map(|(from, to)| [from, to]) {
            assert!(members.iter().any(|member| member.service == *service), "{service}");
        }
        assert_eq!(members.last().map(|member| member.service), Some(LOAD));
    }

    #[test]
    fn in_a_cluster_the_demo_has_the_same_members() {
        let mut here: Vec<_> =
            members().iter().map(|member| (member.service, member.version)).collect();
        let there = crate::install::demo::MEMBERS;
        let mut there: Vec<_> = there.iter().map(|(role, version, _)| (*role, *version)).collect();
        here.sort_unstable();
        there.sort_unstable();
        assert_eq!(here, there);
    }

    #[test]
    fn the_rules_are_for_a_service_of_the_demo() {
        let parsed = heddle_model::yaml::parse("rules.yaml", RULES, "default").unwrap();
        assert_eq!(parsed.resources.len(), 1);
        assert_eq!(parsed.resources[0].key.name, BROKEN.0);
    }

    #[test]
    fn no_socket_has_a_longer_name_than_the_one_that_is_checked() {
        let lengths = members().into_iter().map(|member| format!("{}.sock", member.name()).len());
        assert_eq!(lengths.max(), Some(LONGEST_SOCKET.len()));
    }

    #[test]
    fn a_program_that_is_not_there_does_not_run() {
        assert!(!runs("heddle-no-such-program"));
    }
}
