//! A file of several programs that are started together: its structure, with the place of every value, so that
//! whoever starts them can say what is wrong with one as exactly as is said here of a misspelt field.
//!
//! What the values mean is not decided here: ports, labels and durations are flags of `heddle run` as well, and are
//! read by the same code.

use std::collections::BTreeMap;

use super::{
    node::{self, Node, Value},
    report::{ParseError, Report},
    schema::{Field, Kind, NAME, Object, check, join, optional, required, settle},
    value,
};
use crate::name::check_label;

/// Most programs in one file.
pub const PROGRAMS_MAX: usize = 100;
/// Most entries of one list or mapping of a program.
const ENTRIES_MAX: usize = 256;

/// A text with its place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placed {
    /// The text.
    pub text: String,
    /// 1-based line.
    pub line: usize,
    /// Field path, e.g. `services.web.ports[0]`.
    pub field: String,
}

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramCommand {
    /// One text, still to be divided into words.
    Line(Placed),
    /// Words; at least one.
    Words(Vec<Placed>),
}

/// One entry below `services`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    /// Its key, a DNS label, at its place.
    pub name: Placed,
    /// What is run; `None`: the service is declared only.
    pub command: Option<ProgramCommand>,
    /// Single values by field: `service`, `namespace`, `version`, `locality`, `directory`, `protocol`, `ready`,
    /// `ready-timeout`, `restart`, `stop-timeout`, `memory-limit`.
    pub single: BTreeMap<&'static str, Placed>,
    /// Lists by field: `ports`, `publish`, `host-ports`, `depends-on`.
    pub lists: BTreeMap<&'static str, Vec<Placed>>,
    /// Environment variables.
    pub environment: BTreeMap<String, Placed>,
    /// Labels.
    pub labels: BTreeMap<String, Placed>,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProgramsFile {
    /// Name of the mesh.
    pub mesh: Option<Placed>,
    /// Folder of rules.
    pub rules: Option<Placed>,
    /// File of the access log, or `-`.
    pub access_log: Option<Placed>,
    /// In the order of the file.
    pub programs: Vec<Program>,
}

static FILE: Object = Object {
    fields: &[
        optional("mesh", Kind::Word(label)),
        optional("rules", NAME),
        named("access-log", "access_log", NAME),
        required("services", Kind::Map { key: label, of: &Kind::Object(&PROGRAM) }),
    ],
    rules: &[|node, path, report| {
        let Some(services) = node.get("services") else { return };
        let count = services.entries().len();
        if count == 0 || count > PROGRAMS_MAX {
            let reason = format!("{count} services: 1 to {PROGRAMS_MAX} can be in one file");
            report.at(services, &join(path, "services"), reason);
        }
    }],
};

const WORD: Kind = Kind::Word(value::not_empty);
const WORDS: Kind = Kind::List { of: &WORD, least: 0 };
/// What is empty means something in a command and in the environment.
const ANY_WORD: Kind = Kind::Word(value::any);

/// Fields with one value, by which [`Program::single`] has them.
const SINGLE: [&str; 11] = [
    "service",
    "namespace",
    "version",
    "locality",
    "directory",
    "protocol",
    "ready",
    "ready-timeout",
    "restart",
    "stop-timeout",
    "memory-limit",
];
/// Fields with several, by which [`Program::lists`] has them.
const LISTS: [&str; 4] = ["ports", "publish", "host-ports", "depends-on"];

static PROGRAM: Object = Object {
    fields: &[
        optional("command", Kind::Either(&NAME, &Kind::List { of: &ANY_WORD, least: 1 }))
            .even_if_empty(),
        optional("service", Kind::Word(label)),
        optional("namespace", Kind::Word(label)),
        optional("version", WORD),
        optional("locality", WORD),
        named("directory", "dir", WORD),
        named("environment", "env", Kind::Map { key: variable, of: &ANY_WORD }),
        optional("labels", Kind::Map { key: value::not_empty, of: &ANY_WORD }),
        optional("ports", WORDS),
        optional("protocol", WORD),
        optional("publish", WORDS),
        named("host-ports", "host_ports", WORDS),
        named("depends-on", "depends_on", WORDS),
        optional("ready", WORD),
        named("ready-timeout", "ready_timeout", WORD),
        optional("restart", Kind::Choice(&["never", "on-failure", "always"])),
        named("stop-timeout", "stop_timeout", WORD),
        named("memory-limit", "memory_limit", WORD),
        named("app-metrics", "app_metrics", WORD),
    ],
    rules: &[says_something],
};

const fn named(name: &'static str, alias: &'static str, kind: Kind) -> Field {
    optional(name, kind).or_named(alias)
}

fn label(text: &str) -> Result<(), String> {
    check_label(text).map_err(|error| error.to_string())
}

/// The name of an environment variable.
fn variable(text: &str) -> Result<(), String> {
    if !text.is_empty() && !text.contains(['=', '\0']) {
        return Ok(());
    }
    Err("this cannot be the name of a variable: it must not be empty nor hold `=`".to_owned())
}

fn says_something(node: &Node, path: &str, report: &mut Report<'_>) {
    if !node.has("command") && node.items_of("ports").is_empty() {
        report.at(
            node,
            path,
            "neither `command` nor `ports`: nothing to run and nothing to declare",
        );
    }
    for entry in node.entries() {
        let count = entry.value.items().len().max(entry.value.entries().len());
        if count > ENTRIES_MAX {
            let reason = format!("{count} entries are more than {ENTRIES_MAX}");
            report.error(entry.line, &join(path, &entry.key), reason);
        }
    }
}

/// Reads a file of programs.
///
/// # Errors
/// Everything that is wrong with its structure, each with line and field.
pub fn read(file: &str, text: &str) -> Result<ProgramsFile, Vec<ParseError>> {
    let (documents, flaws) = node::read(text);
    let mut report = Report::new(file);
    for flaw in flaws {
        report.error(flaw.line, "", flaw.reason);
    }
    let mut documents = documents.into_iter();
    let Some(first) = documents.next() else {
        if report.count() == 0 {
            report.error(1, "", "the file says nothing: it needs `services`");
        }
        return Err(report.into_errors());
    };
    if let Some(other) = documents.next() {
        let reason = "a second document: rules belong into files of a folder that `rules` names";
        report.at(&other.root, "", reason);
    }
    let kind = Kind::Object(&FILE);
    let mut root = first.root;
    settle(&mut root, &kind);
    if let Some(services) = root_programs(&mut root) {
        services.iter_mut().for_each(|entry| settle(&mut entry.value, &Kind::Object(&PROGRAM)));
    }
    check(&root, &kind, "", &mut report);
    if report.count() > 0 {
        return Err(report.into_errors());
    }
    let programs = root.get("services").map_or(&[][..], Node::entries).iter().map(program);
    let single = |field: &str| root.get(field).map(|node| placed(node, field));
    Ok(ProgramsFile {
        mesh: single("mesh"),
        rules: single("rules"),
        access_log: single("access-log"),
        programs: programs.collect(),
    })
}

fn root_programs(root: &mut Node) -> Option<&mut Vec<node::Entry>> {
    let Value::Map(entries) = &mut root.value else { return None };
    let services = entries.iter_mut().find(|entry| entry.key == "services")?;
    match &mut services.value.value {
        Value::Map(programs) => Some(programs),
        _ => None,
    }
}

fn placed(node: &Node, field: &str) -> Placed {
    Placed { text: node.written().to_owned(), line: node.line, field: field.to_owned() }
}

fn items(node: &Node, field: &str) -> Vec<Placed> {
    let item = |(at, node): (usize, &Node)| placed(node, &format!("{field}[{at}]"));
    node.items().iter().enumerate().map(item).collect()
}

fn program(entry: &node::Entry) -> Program {
    let node = &entry.value;
    let path = join("services", &entry.key);
    let at = |field: &'static str| Some((node.get(field)?, join(&path, field)));
    let map = |field: &'static str| -> BTreeMap<String, Placed> {
        let Some((map, path)) = at(field) else { return BTreeMap::new() };
        let text = |entry: &node::Entry| {
            (entry.key.clone(), placed(&entry.value, &join(&path, &entry.key)))
        };
        map.entries().iter().map(text).collect()
    };
    let command = at("command").map(|(node, path)| match &node.value {
        Value::List(_) => ProgramCommand::Words(items(node, &path)),
        _ => ProgramCommand::Line(placed(node, &path)),
    });
    let single = SINGLE.into_iter().filter_map(|field| {
        let (node, path) = at(field).filter(|(node, _)| node.value != Value::Null)?;
        Some((field, placed(node, &path)))
    });
    let lists = LISTS.into_iter().filter_map(|field| {
        let (node, path) = at(field)?;
        Some((field, items(node, &path)))
    });
    Program {
        name: Placed { text: entry.key.clone(), line: entry.line, field: path.clone() },
        command,
        single: single.collect(),
        lists: lists.collect(),
        environment: map("environment"),
        labels: map("labels"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
mesh: shop
rules: rules
services:
  web:
    command: [python3, -m, http.server, 8000]
    dir: web
    env: {DEBUG: yes, EMPTY: \"\"}
    ports: [http:8000, 9000]
    publish: [8080:8000]
    depends_on: [api]
    ready: /health
  api:
    command: node api.js
    ports: [8000]
    restart: on-failure
  later:
    ports: [80]
";

    fn errors(text: &str) -> Vec<String> {
        let errors = read("mesh.yaml", text).unwrap_err();
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_value_has_its_place() {
        let file = read("mesh.yaml", FILE).unwrap();
        assert_eq!(file.mesh.unwrap().text, "shop");
        let names: Vec<&str> = file.programs.iter().map(|one| one.name.text.as_str()).collect();
        assert_eq!(names, ["web", "api", "later"]);
        let web = &file.programs[0];
        let port = &web.lists["ports"][0];
        let place = (port.text.as_str(), port.line, port.field.as_str());
        assert_eq!(place, ("http:8000", 8, "services.web.ports[0]"));
        assert_eq!(web.single["directory"].text, "web");
        assert_eq!(web.environment["DEBUG"].text, "yes", "as it is written");
        assert_eq!(web.environment["EMPTY"].text, "");
        assert_eq!(web.lists["depends-on"][0].text, "api");
        let Some(ProgramCommand::Words(words)) = &web.command else { panic!("{web:?}") };
        assert_eq!(words[3].text, "8000");
        assert!(matches!(&file.programs[1].command, Some(ProgramCommand::Line(_))));
        assert_eq!(file.programs[2].command, None);
    }

    #[test]
    fn what_is_wrong_is_told_with_line_and_field() {
        for (text, says) in [
            ("", "mesh.yaml:1: the file says nothing"),
            ("services: {}\n", "mesh.yaml:1: services: 0 services"),
            ("mesh: a\n", "services: this field is required"),
            ("services: {web: {comand: x}}\n", "services.web.comand: unknown field"),
            ("services:\n  Web: {command: x}\n", "mesh.yaml:2: services.Web: "),
            ("services:\n  web: {}\n", "nothing to run and nothing to declare"),
            ("services:\n  web:\n    command: []\n", "mesh.yaml:3: services.web.command: "),
            ("services:\n  web:\n    command: \"\"\n", "mesh.yaml:3: services.web.command: "),
            (
                "services:\n  web:\n    command: x\n    restart: often\n",
                "mesh.yaml:4: services.web.restart: ",
            ),
            (
                "services:\n  web:\n    command: x\n    ports: 80\n",
                "mesh.yaml:4: services.web.ports: ",
            ),
            ("services:\n  web:\n    command: x\n    env: [A=b]\n", "services.web.environment: "),
            ("services:\n  web:\n    command: x\n---\nkind: Fault\n", "a second document"),
            ("services: [\n", "mesh.yaml:"),
        ] {
            let said = errors(text);
            assert!(said.iter().any(|one| one.contains(says)), "{text}: {said:?}");
        }
    }

    #[test]
    fn more_than_can_be_held_is_refused() {
        let many: String =
            (0..=PROGRAMS_MAX).map(|n| format!("  p{n}: {{ports: [80]}}\n")).collect();
        assert!(errors(&format!("services:\n{many}"))[0].contains("1 to 100"));
        let ports = vec!["80"; ENTRIES_MAX + 1].join(", ");
        assert!(errors(&format!("services: {{a: {{ports: [{ports}]}}}}\n"))[0].contains("entries"));
    }
}
