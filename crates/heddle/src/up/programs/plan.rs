//! From a file of programs to what is started: every value is read by the code that reads the flags of `heddle run`,
//! and what only makes sense together is checked before anything is touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use heddle_model::{
    Locality,
    name::DEFAULT_NAMESPACE,
    yaml::{
        did_you_mean,
        programs::{self, Placed, Program, ProgramCommand},
    },
};
use heddle_wire::local::control_api::Problem;

use super::{line, order};
use crate::{
    cli::{MeshFlag, RunArgs, values},
    control_client::problem_line,
    failure::Failure,
    mesh::END_GRACE,
    rules::{self, files},
    run::{program, request},
    up::access_log::HERE,
};

/// The label by which a program's workload is found again.
pub(super) const PROGRAM_LABEL: &str = "heddle.dev/program";
/// How long a program may take to be ready, unless the file says otherwise.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time to end after SIGTERM, unless the file says otherwise: that of a mesh, and a second for callers to hear of it.
const STOP_TIMEOUT: Duration = END_GRACE.saturating_add(Duration::from_secs(1));

/// What a file asks for.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Name of the mesh.
    pub(crate) mesh: Option<String>,
    /// Folder of rules, absolute.
    pub(crate) rules: Option<PathBuf>,
    /// File of the access log, or `-`.
    pub(crate) access_log: Option<PathBuf>,
    /// Programs and declared services, in the order of the file.
    pub(crate) programs: Vec<Planned>,
}

/// One entry of the file.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) name: String,
    /// As for `heddle run`; without a command the service is declared only.
    pub(crate) args: RunArgs,
    /// Flags of `heddle run`, as they were written.
    pub(crate) flags: Vec<String>,
    pub(crate) directory: PathBuf,
    pub(crate) environment: BTreeMap<String, String>,
    /// By their place in [`Plan::programs`].
    pub(crate) depends_on: Vec<usize>,
    pub(crate) ready: Ready,
    pub(crate) ready_timeout: Duration,
    pub(crate) restart: Restart,
    pub(crate) stop_timeout: Duration,
}

/// When those that depend on a program may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ready {
    /// It runs.
    Started,
    /// All its ports listen.
    Listening,
    /// It has ended well.
    Ended,
    /// Its ports listen, and a GET of this path on this port is answered with 2xx or 3xx.
    Http { port: u16, path: String },
}

/// Whether a program that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    Never,
    OnFailure,
    Always,
}

/// Collects what is wrong, each with its place.
struct Reader<'a> {
    file: &'a str,
    /// Folder the file's paths are relative to.
    base: &'a Path,
    problems: Vec<Problem>,
}

/// Reads a file of programs.
///
/// # Errors
/// Everything that is wrong with it, each with file, line and field; nothing was started.
pub(crate) fn read(path: &Path) -> Result<Plan, Failure> {
    if path.is_dir() {
        return Err(Failure::refused(format!(
            "{} is a folder: name the file of programs in it, e.g. {}/mesh.yaml",
            path.display(),
            path.display()
        )));
    }
    let source = files::read(&[path.to_owned()])?
        .pop()
        .ok_or_else(|| Failure::refused(format!("{} cannot be read", path.display())))?;
    let base = folder_of(path);
    let base = std::path::absolute(base)
        .map_err(|error| Failure::refused(format!("cannot find {}: {error}", base.display())))?;
    of_text(&source.file, &source.text, &base)
}

/// The folder of a file; of standard input, and of a bare name, this one.
fn folder_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new("."))
}

fn of_text(file: &str, text: &str, base: &Path) -> Result<Plan, Failure> {
    let read = programs::read(file, text)
        .map_err(|errors| refused(errors.into_iter().map(rules::problem).collect()))?;
    let mut reader = Reader { file, base, problems: Vec::new() };
    let mesh = reader.value(read.mesh.as_ref(), values::label);
    let rules = read.rules.as_ref().and_then(|placed| reader.folder(placed));
    let access_log = read.access_log.as_ref().map(|placed| match placed.text.as_str() {
        HERE => PathBuf::from(HERE),
        file => base.join(file),
    });
    let names: Vec<&str> = read.programs.iter().map(|one| one.name.text.as_str()).collect();
    let programs: Vec<Option<Planned>> =
        read.programs.iter().map(|one| reader.program(one, &read.programs, &names)).collect();
    reader.check_published(&read.programs);
    if reader.problems.is_empty() {
        let programs: Vec<Planned> = programs.into_iter().flatten().collect();
        let edges: Vec<&[usize]> = programs.iter().map(|one| &*one.depends_on).collect();
        match order::circle(&edges) {
            None => return Ok(Plan { mesh, rules, access_log, programs }),
            Some(circle) => reader.circle(&circle, &read.programs),
        }
    }
    Err(refused(reader.problems))
}

fn refused(mut problems: Vec<Problem>) -> Failure {
    problems.sort_by_key(|problem| problem.line);
    let lines: Vec<String> = problems.iter().map(problem_line).collect();
    Failure::of_problems(format!("refused, nothing was started:\n{}", lines.join("\n")), problems)
}

impl Reader<'_> {
    fn wrong(&mut self, at: &Placed, reason: impl Into<String>) {
        self.problems.push(Problem {
            file: Some(self.file.to_owned()),
            line: Some(at.line),
            field: Some(at.field.clone()),
            reason: reason.into(),
        });
    }

    fn value<T>(
        &mut self,
        placed: Option<&Placed>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let placed = placed?;
        parse(&placed.text).map_err(|reason| self.wrong(placed, reason)).ok()
    }

    fn values<T>(
        &mut self,
        program: &Program,
        field: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let all = program.lists.get(field).map_or(&[][..], Vec::as_slice);
        all.iter().filter_map(|placed| self.value(Some(placed), &parse)).collect()
    }

    /// A folder, relative to the file.
    fn folder(&mut self, placed: &Placed) -> Option<PathBuf> {
        let path = self.base.join(&placed.text);
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Some(path),
            Ok(_) => self.wrong(placed, format!("{} is no folder", path.display())),
            Err(error) => self.wrong(placed, format!("{}: {error}", path.display())),
        }
        None
    }

    fn program(&mut self, program: &Program, all: &[Program], names: &[&str]) -> Option<Planned> {
        let before = self.problems.len();
        let args = self.args(program);
        let directory = match program.single.get("directory") {
            Some(placed) => self.folder(placed).unwrap_or_default(),
            None => self.base.to_owned(),
        };
        let duration = |reader: &mut Self, field: &str, usual| {
            reader.value(program.single.get(field), values::duration).unwrap_or(usual)
        };
        let ready_timeout = duration(self, "ready-timeout", READY_TIMEOUT);
        let stop_timeout = duration(self, "stop-timeout", STOP_TIMEOUT);
        let restart = match program.single.get("restart").map(|placed| placed.text.as_str()) {
            Some("always") => Restart::Always,
            Some("on-failure") => Restart::OnFailure,
            _ => Restart::Never,
        };
        let ready = self.ready(program, &args, restart);
        let depends_on = self.depends_on(program, all, names);
        if let Some(word) = args.command.first()
            && self.problems.len() == before
        {
            self.check_command(program, word, &directory);
        }
        if self.problems.len() == before
            && let Err(failure) = request::resolve(&args)
        {
            self.wrong(&program.name, failure.message.replace("--", ""));
        }
        let flags = flags(program, &args);
        let texts = program.environment.iter();
        let environment = texts.map(|(name, placed)| (name.clone(), placed.text.clone())).collect();
        (self.problems.len() == before).then(|| Planned {
            name: program.name.text.clone(),
            args,
            flags,
            directory,
            environment,
            depends_on,
            ready,
            ready_timeout,
            restart,
            stop_timeout,
        })
    }

    /// What would be given to `heddle run`.
    fn args(&mut self, program: &Program) -> RunArgs {
        let single = |field: &str| program.single.get(field);
        let label = |reader: &mut Self, field: &str| reader.value(single(field), values::label);
        let mut labels = Vec::new();
        for (key, placed) in &program.labels {
            let text = format!("{key}={}", placed.text);
            labels.extend(self.value(Some(&Placed { text, ..placed.clone() }), values::label_flag));
        }
        let protocol = self.value(single("protocol"), values::protocol);
        if let (Some(_), Some(placed), true) =
            (protocol, single("protocol"), !program.lists.contains_key("ports"))
        {
            self.wrong(placed, "there are no `ports` that could speak it");
        }
        RunArgs {
            service: label(self, "service").unwrap_or_else(|| program.name.text.clone()),
            namespace: label(self, "namespace").unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
            version: self.value(single("version"), values::label_value).unwrap_or_default(),
            locality: self.value(single("locality"), Locality::parse),
            label: labels,
            port: self.values(program, "ports", values::port_flag),
            protocol,
            publish: self.values(program, "publish", values::publish),
            ready_port: None,
            host_port: self.values(program, "host-ports", values::port),
            memory_limit: self.value(single("memory-limit"), values::memory),
            app_metrics: self.value(single("app-metrics"), values::app_metrics),
            mesh: MeshFlag::default(),
            command: self.command(program),
        }
    }

    fn command(&mut self, program: &Program) -> Vec<OsString> {
        let words: Vec<String> = match &program.command {
            None => return Vec::new(),
            Some(ProgramCommand::Words(words)) => {
                words.iter().map(|placed| placed.text.clone()).collect()
            }
            Some(ProgramCommand::Line(placed)) => {
                self.value(Some(placed), line::words).unwrap_or_default()
            }
        };
        words.into_iter().map(OsString::from).collect()
    }

    /// A misspelt program is told before anything starts.
    fn check_command(&mut self, program: &Program, word: &OsString, directory: &Path) {
        let place = match &program.command {
            Some(ProgramCommand::Words(words)) => words.first(),
            Some(ProgramCommand::Line(placed)) => Some(placed),
            None => None,
        };
        let Some(place) = place else { return };
        let name = word.to_string_lossy();
        if name.contains('/') {
            let path = directory.join(&*name);
            match fs::metadata(&path) {
                Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => {}
                Ok(_) => {
                    self.wrong(place, format!("{} is not executable (chmod +x)", path.display()));
                }
                Err(error) => self.wrong(place, format!("{}: {error}", path.display())),
            }
        } else if !program.environment.contains_key("PATH")
            && let Err(failure) = program::find(word)
        {
            self.wrong(place, failure.message);
        }
    }

    fn ready(&mut self, program: &Program, args: &RunArgs, restart: Restart) -> Ready {
        let usual = if args.port.is_empty() { Ready::Started } else { Ready::Listening };
        let Some(placed) = program.single.get("ready") else { return usual };
        let ready = match placed.text.as_str() {
            "started" => Ready::Started,
            "listening" if args.port.is_empty() => {
                self.wrong(
                    placed,
                    "there are no `ports` to listen on: declare them, or use `started`",
                );
                usual
            }
            "listening" => Ready::Listening,
            "ended" => Ready::Ended,
            path => match http_ready(path, args) {
                Ok(ready) => ready,
                Err(reason) => {
                    self.wrong(placed, reason);
                    usual
                }
            },
        };
        if ready == Ready::Ended && restart == Restart::Always {
            self.wrong(
                placed,
                "`restart: always` never lets it have ended: use on-failure or never",
            );
        }
        ready
    }

    fn depends_on(&mut self, program: &Program, all: &[Program], names: &[&str]) -> Vec<usize> {
        let mut found = BTreeSet::new();
        for placed in program.lists.get("depends-on").map_or(&[][..], Vec::as_slice) {
            match names.iter().position(|name| *name == placed.text) {
                Some(at) if all[at].command.is_none() => self.wrong(
                    placed,
                    format!("`{}` has no command: nothing of it could be waited for", placed.text),
                ),
                Some(at) => {
                    found.insert(at);
                }
                None => {
                    let meant = did_you_mean(&placed.text, names)
                        .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                    self.wrong(
                        placed,
                        format!("no entry of `services` is `{}`{meant}", placed.text),
                    );
                }
            }
        }
        if program.command.is_none()
            && let Some(placed) = program.lists.get("depends-on").and_then(|all| all.first())
        {
            self.wrong(placed, "there is no command that could wait for anything");
        }
        found.into_iter().collect()
    }

    /// One address of the host leads to one program.
    fn check_published(&mut self, all: &[Program]) {
        let mut taken: BTreeMap<(std::net::SocketAddr, u16), String> = BTreeMap::new();
        for program in all {
            for placed in program.lists.get("publish").map_or(&[][..], Vec::as_slice) {
                let Ok(publish) = values::publish(&placed.text) else { continue };
                // Of a range, or of any port, the first free one is taken.
                if publish.host.port() == 0 || publish.host_port_max != publish.host.port() {
                    continue;
                }
                let name = program.name.text.clone();
                if let Some(other) = taken.insert((publish.host, publish.host_port_max), name) {
                    self.wrong(placed, format!("`{other}` is published on {} too", publish.host));
                }
            }
        }
    }

    fn circle(&mut self, circle: &[usize], all: &[Program]) {
        let Some(first) = circle.first().and_then(|at| all.get(*at)) else { return };
        let names: Vec<&str> =
            circle.iter().chain(circle.first()).map(|at| all[*at].name.text.as_str()).collect();
        let place = first.lists.get("depends-on").and_then(|list| list.first());
        let reason = format!("the programs wait for each other: {}", names.join(" -> "));
        self.wrong(place.unwrap_or(&first.name), reason);
    }
}

/// `[:PORT]/PATH`; without a port the first one that is declared.
fn http_ready(text: &str, args: &RunArgs) -> Result<Ready, String> {
    let wrong = || {
        format!(
            "`{text}` is nothing to wait for: use `started`, `listening`, `ended`, or a path such as /health or :8080/health"
        )
    };
    let slash = text.find('/').ok_or_else(wrong)?;
    let (port, path) = text.split_at(slash);
    let declared = || args.port.iter().map(|port| port.number);
    let port = match port.strip_prefix(':') {
        Some(number) => number.parse::<u16>().map_err(|_| wrong())?,
        None if port.is_empty() => declared().next().unwrap_or(0),
        None => return Err(wrong()),
    };
    if !declared().any(|number| number == port) {
        return Err("the path is asked for on a port: declare it in `ports`".to_owned());
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("`{path}` is no path of a URL: letters, digits and %XX"));
    }
    Ok(Ready::Http { port, path: path.to_owned() })
}

/// The flags of `heddle run`, in the words of the file.
fn flags(program: &Program, args: &RunArgs) -> Vec<String> {
    let mut flags = vec![
        format!("--service={}", args.service),
        format!("--namespace={}", args.namespace),
        format!("--label={PROGRAM_LABEL}={}", program.name.text),
    ];
    for (field, flag) in [
        ("version", "--version"),
        ("locality", "--locality"),
        ("protocol", "--protocol"),
        ("memory-limit", "--memory-limit"),
    ] {
        flags.extend(program.single.get(field).map(|placed| format!("{flag}={}", placed.text)));
    }
    for (field, flag) in
        [("ports", "--port"), ("publish", "--publish"), ("host-ports", "--host-port")]
    {
        let all = program.lists.get(field).into_iter().flatten();
        flags.extend(all.map(|placed| format!("{flag}={}", placed.text)));
    }
    let labels = program.labels.iter();
    flags.extend(labels.map(|(key, placed)| format!("--label={key}={}", placed.text)));
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, String> {
        of_text("mesh.yaml", text, Path::new("/")).map_err(|failure| failure.message)
    }

    #[test]
    fn values_are_those_of_run() {
        let plan = plan(
            "mesh: shop\nservices:\n  web:\n    command: sh -c 'exit 0'\n    directory: tmp\n    version: v2\n    ports: [http:8000]\n    publish: ['0:8000']\n    labels: {tier: gold}\n    ready: /health\n    depends-on: [job]\n    stop-timeout: 1s\n  job:\n    command: [sh]\n    ready: ended\n  later: {ports: [80], service: other}\n",
        )
        .unwrap();
        let [web, job, later] = &plan.programs[..] else { panic!("{plan:?}") };
        assert_eq!(plan.mesh.as_deref(), Some("shop"));
        assert_eq!(web.args.command, ["sh", "-c", "exit 0"]);
        assert_eq!(web.directory, Path::new("/tmp"));
        assert_eq!(web.ready, Ready::Http { port: 8000, path: "/health".to_owned() });
        assert_eq!(
            (web.depends_on.as_slice(), web.stop_timeout),
            (&[1][..], Duration::from_secs(1))
        );
        for flag in [
            "--service=web",
            "--version=v2",
            "--port=http:8000",
            "--label=tier=gold",
            "--label=heddle.dev/program=web",
        ] {
            assert!(web.flags.iter().any(|own| own == flag), "{flag}: {:?}", web.flags);
        }
        assert_eq!((&job.ready, job.restart), (&Ready::Ended, Restart::Never));
        assert!(later.args.command.is_empty() && later.args.service == "other");
    }

    #[test]
    fn a_bare_name_is_a_file_of_this_folder() {
        let folder = |path: &'static str| folder_of(Path::new(path));
        assert_eq!([folder("mesh.yaml"), folder("-")], [Path::new("."); 2]);
        assert_eq!([folder("a/mesh.yaml"), folder("/mesh.yaml")], [Path::new("a"), Path::new("/")]);
    }

    #[test]
    fn what_is_wrong_is_told_with_line_and_field_and_what_would_be_right() {
        for (entry, says) in [
            (
                "ports: [70000]\n    command: sh",
                "mesh.yaml:3: services.a.ports[0]: `70000` is no port",
            ),
            (
                "command: sh\n    ports: [8000:80]",
                "mesh.yaml:4: services.a.ports[0]: `8000` is no port name",
            ),
            ("command: no-such-program-here x", "mesh.yaml:3: services.a.command: cannot run"),
            ("command: ./nothing", "mesh.yaml:3: services.a.command: /./nothing: No such file"),
            ("command: a | b", "mesh.yaml:3: services.a.command: `|` needs a shell"),
            (
                "command: sh\n    directory: nowhere",
                "mesh.yaml:4: services.a.directory: /nowhere: No such file",
            ),
            ("command: sh\n    depends-on: [b]", "mesh.yaml:4: services.a.depends-on[0]: no entry"),
            ("command: sh\n    depends-on: [a]", "the programs wait for each other: a -> a"),
            ("command: sh\n    ready: /health", "declare it in `ports`"),
            ("command: sh\n    ready: soon", "`soon` is nothing to wait for"),
            ("command: sh\n    ready: listening", "no `ports` to listen on"),
            ("command: sh\n    ready: ended\n    restart: always", "never lets it have ended"),
            ("command: sh\n    publish: [8080:80]", "add port 80"),
            ("command: sh\n    labels: {app: x}", "services.a.labels.app: "),
            ("command: sh\n    protocol: http", "no `ports` that could speak it"),
            (
                "command: sh\n    stop-timeout: soon",
                "services.a.stop-timeout: `soon` is no duration",
            ),
            ("ports: [80]\n    depends-on: [a]", "no command"),
        ] {
            let said = plan(&format!("services:\n  a:\n    {entry}\n")).unwrap_err();
            assert!(said.contains(says), "{entry}:\n{said}");
        }
    }

    #[test]
    fn programs_that_wait_for_each_other_are_named_and_so_are_two_on_one_port() {
        let entry = |name: &str, more: &str| format!("  {name}: {{command: sh, {more}}}\n");
        let text = ["a", "b", "c"].map(|name| {
            let next = match name {
                "a" => "b",
                "b" => "c",
                _ => "a",
            };
            entry(name, &format!("depends-on: [{next}]"))
        });
        let said = plan(&format!("services:\n{}", text.concat())).unwrap_err();
        assert!(said.contains("mesh.yaml:2: services.a.depends-on[0]: the programs wait for each other: a -> b -> c -> a"), "{said}");
        let published = ["a", "b"].map(|name| entry(name, "ports: [80], publish: ['8080:80']"));
        let said = plan(&format!("services:\n{}", published.concat())).unwrap_err();
        assert!(
            said.contains("mesh.yaml:3") && said.contains("`a` is published on 127.0.0.1:8080"),
            "{said}"
        );
    }
}
