//! The command line on a real mesh as people's hands expect it: kubectl's ways of `get` and `delete`, a mesh that is
//! named before the subcommand or by a variable, errors as JSON, logs, and why a mesh has ended.

use std::{
    fs,
    io::Write as _,
    process::{Child, Command, Stdio},
};

use heddle_runtime::signal::Signal;
use serde_json::Value;

use crate::{
    as_both_users,
    host::{Machine, Mesh, wait_until},
};

as_both_users!(
    rules_are_shown_and_deleted_by_kind_name_and_label,
    what_is_watched_is_told_when_it_changes_and_when_it_goes,
    a_mesh_is_named_before_the_subcommand_or_by_a_variable,
    errors_are_json_where_json_is_asked_for,
    logs_are_found_by_name_and_followed,
    the_dashboard_keeps_its_port,
    restarts_and_the_end_of_a_mesh_are_told_with_their_reasons,
    a_graph_is_counted_anew_after_a_change_of_the_rules,
    top_takes_keys_on_a_terminal_and_says_why_its_mesh_has_ended,
);

const RULES: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, labels: {team: shop}}
spec:
  hosts: [web, web.default]
  http: [{route: [{destination: {host: web}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: other}
spec:
  hosts: [other]
  http: [{route: [{destination: {host: web, subset: none}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, labels: {team: shop}}
spec: {host: web}
";

fn apply(machine: &Machine, mesh: &Mesh<'_>, text: &str) -> String {
    let file = machine.dir.join("hands.yaml");
    fs::write(&file, text).unwrap();
    let applied = mesh.run("apply", &["-f", file.to_str().unwrap()]);
    assert_eq!(applied.code, 0, "{}{}", applied.stdout, applied.stderr);
    applied.stdout
}

fn rules_are_shown_and_deleted_by_kind_name_and_label(machine: &Machine) {
    let mesh = machine.up("shown");
    let _web = mesh.serve("web", &[]);
    let said = apply(machine, &mesh, RULES);
    let warning = said.lines().find(|line| line.starts_with("warning: ")).unwrap();
    assert!(warning.contains("none"), "a subset that is absent refuses calls: {said}");
    assert!(!said.contains("warning: hands.yaml:8"), "{said}");
    let again = apply(machine, &mesh, RULES);
    assert!(again.contains("VirtualService/default/web unchanged"), "{again}");
    assert!(again.trim_end().ends_with(": unchanged"), "{again}");
    let get = |words: &[&str]| {
        let shown = mesh.run("get", words);
        assert_eq!(shown.code, 0, "{words:?}: {}", shown.stderr);
        shown.stdout
    };
    let table = get(&["vs", "web"]);
    let all = get(&["vs"]);
    assert!(all.lines().any(|line| line.starts_with("warning: VirtualService/default/other: ")));
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["KIND", "NAMESPACE", "NAME", "HOSTS", "STATE", "AGE"]);
    assert_eq!(rows[1][..5], ["VirtualService", "default", "web", "web,web.default", "Programmed"]);
    assert!(rows[1][5].ends_with('s'), "{table}");
    assert!(get(&["vs", "-o", "wide"]).contains("team=shop"));
    assert_eq!(
        get(&["vs,dr", "-o", "name"]),
        "virtualservice/other\nvirtualservice/web\ndestinationrule/web\n"
    );
    assert_eq!(
        get(&["vs/web", "dr/web", "-o", "name"]),
        "virtualservice/web\ndestinationrule/web\n"
    );
    assert_eq!(
        get(&["vs", "web", "other", "-A", "-o", "name"].map(|w| if w == "-A" {
            "-ndefault"
        } else {
            w
        })),
        "virtualservice/other\nvirtualservice/web\n"
    );
    assert_eq!(get(&["all", "-l", "team=shop", "-o", "name"]).lines().count(), 2);
    let yaml = get(&["services", "web", "-o", "yaml"]);
    assert!(yaml.starts_with("service:\n") && yaml.contains("\nworkloads:\n- web-"), "{yaml}");
    let missing = mesh.run("get", &["vs", "web", "nope"]);
    assert!(missing.code == 1 && missing.stdout.contains("web,web.default"), "{}", missing.stdout);
    assert!(missing.stderr.contains("no VirtualService `nope`"), "{}", missing.stderr);
    let delete = |words: &[&str]| mesh.run("delete", words);
    let gone = delete(&["vs,dr", "-l", "team=shop"]);
    assert!(
        gone.code == 0 && gone.stdout.matches(" deleted").count() == 2,
        "{}{}",
        gone.stdout,
        gone.stderr
    );
    assert_eq!(get(&["-o", "name"]), "virtualservice/other\n");
    assert_eq!(delete(&["all", "--all"]).code, 0);
    let nothing = delete(&["vs", "--all"]);
    assert!(
        nothing.code == 0 && nothing.stdout.contains("nothing to delete"),
        "{}",
        nothing.stdout
    );
    assert!(delete(&["vs/web"]).stderr.contains("there is no VirtualService/default/web"));
}

fn what_is_watched_is_told_when_it_changes_and_when_it_goes(machine: &Machine) {
    let mesh = machine.up("watched");
    let words = ["--mesh", "watched", "get", "vs", "-w", "-o", "json"];
    let watching = machine.start(machine.heddle(&words));
    let one = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http: [{route: [{destination: {host: web}}]}]\n";
    apply(machine, &mesh, one);
    let line = wait_until("the new rule is told", || {
        let line = watching.printed().lines().next().map(str::to_owned);
        line.filter(|line| line.ends_with('}'))
    });
    let told: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(told["key"]["name"], "web");
    assert_eq!(mesh.run("delete", &["vs", "web"]).code, 0);
    wait_until("its end is told", || {
        watching.said().contains("VirtualService/default/web is gone").then_some(())
    });
    assert_eq!(mesh.run("down", &[]).code, 0);
    assert_eq!(watching.finish().code, 1, "it ends with the mesh");
}

fn a_mesh_is_named_before_the_subcommand_or_by_a_variable(machine: &Machine) {
    let (_one, _two) = (machine.up("first"), machine.up("second"));
    let named = |command: &mut Command| {
        let told = command.output().unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        let status: Value = serde_json::from_slice(&told.stdout).unwrap();
        status["info"]["mesh"].as_str().unwrap().to_owned()
    };
    let status = ["status", "-o", "json"];
    assert_eq!(
        named(&mut machine.heddle(&[&["--mesh", "second"], &status[..]].concat())),
        "second"
    );
    assert_eq!(named(machine.heddle(&status).env("HEDDLE_MESH", "first")), "first");
    let flag = ["status", "--mesh", "second", "-o", "json"];
    assert_eq!(named(machine.heddle(&flag).env("HEDDLE_MESH", "first")), "second");
}

fn errors_are_json_where_json_is_asked_for(machine: &Machine) {
    let mesh = machine.up("errors");
    let file = machine.dir.join("bad.yaml");
    fs::write(&file, "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [a]\n  http: [{rout: []}]\n").unwrap();
    let errors = |words: &[&str], code: i32| -> Value {
        let failed = mesh.run(words[0], &words[1..]);
        assert_eq!((failed.code, failed.stdout.as_str()), (code, ""), "{words:?}");
        let line = failed.stderr.lines().last().unwrap_or_default();
        let told: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        told["errors"][0].clone()
    };
    let bad = errors(&["apply", "-f", file.to_str().unwrap(), "-o", "json"], 1);
    assert_eq!((bad["line"].as_u64(), bad["field"].as_str()), (Some(6), Some("spec.http[0].rout")));
    assert!(bad["file"].as_str().unwrap().ends_with("bad.yaml"), "{bad}");
    assert!(bad["reason"].as_str().unwrap().contains("did you mean `route`"), "{bad}");
    let absent = errors(&["get", "vs/none", "--output=json"].map(|word| word), 1);
    assert!(
        absent["line"].is_null() && absent["reason"].as_str().unwrap().contains("`none`"),
        "{absent}"
    );
    let usage = errors(&["get", "elephants", "-ojson"], 2);
    assert!(usage["reason"].as_str().unwrap().contains("`elephants` is no kind"), "{usage}");
    assert!(
        errors(&["top", "--nonsense", "-o", "json"], 2)["reason"]
            .as_str()
            .unwrap()
            .contains("--nonsense")
    );
}

fn logs_are_found_by_name_and_followed(machine: &Machine) {
    let mesh = machine.up("logs");
    let _web = mesh.serve("web", &[]);
    let names = mesh.run("logs", &[]).stdout;
    for part in ["control", "observe", "holder", "web-"] {
        assert!(names.contains(part), "{part}: {names}");
    }
    let sidecar = mesh.run("logs", &["web"]);
    assert!(sidecar.stdout.contains("ready"), "{}", sidecar.stdout);
    assert!(sidecar.stderr.contains("where `heddle run` was started"), "{}", sidecar.stderr);
    assert_eq!(mesh.run("logs", &["control", "--tail", "1"]).stdout.lines().count(), 1);
    let wrong = mesh.run("logs", &["contrl"]);
    assert!(
        wrong.code == 1 && wrong.stderr.contains("did you mean `control`?"),
        "{}",
        wrong.stderr
    );
    let words = ["logs", "--mesh", "logs", "control", "holder", "-f"];
    let following = machine.start(machine.heddle(&words));
    apply(machine, &mesh, RULES);
    wait_until("what is written meanwhile is shown with its name", || {
        let printed = following.printed();
        let line = printed.lines().find(|line| line.contains("rules changed"))?;
        line.starts_with("control | ").then_some(())
    });
    assert_eq!(mesh.run("down", &[]).code, 0);
    let ended = following.finish();
    assert!(ended.code == 0 && ended.stderr.contains("has ended"), "{}", ended.stderr);
}

fn the_dashboard_keeps_its_port(machine: &Machine) {
    let mesh = machine.up("bookmark");
    let first = mesh.run("dashboard", &[]).stdout;
    assert_eq!(mesh.run("down", &[]).code, 0);
    wait_until("the mesh has gone", || (!mesh.run_dir().exists()).then_some(()));
    drop(mesh);
    let mesh = machine.up("bookmark");
    assert_eq!(mesh.run("dashboard", &[]).stdout, first);
    // A browser that is asked for is started with the address.
    let opened = machine.dir.join("opened");
    let browser = machine.dir.join("browser");
    fs::write(&browser, format!("#!/bin/sh\necho \"$1\" > {}\n", opened.display())).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&browser, mode).unwrap();
    let words = ["dashboard", "--mesh", "bookmark", "--open"];
    let mut open = machine.heddle(&words);
    assert!(open.env("BROWSER", &browser).output().unwrap().status.success());
    wait_until("the browser was started", || {
        let url = fs::read_to_string(&opened).unwrap_or_default();
        (url == first).then_some(())
    });
    // Where there is none, the address is told; what makes this another user is all that is on the path.
    let bin = machine.dir.join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink("/usr/bin/setpriv", bin.join("setpriv")).unwrap();
    let mut none = machine.heddle(&words);
    let told = none.env("BROWSER", "/nonexistent").env("PATH", &bin).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stderr).contains("no browser can be started"));
}

fn restarts_and_the_end_of_a_mesh_are_told_with_their_reasons(machine: &Machine) {
    let mesh = machine.up("reasons");
    let web = mesh.serve("web", &[]);
    Signal::KILL.send(mesh.pid("observe")).unwrap();
    wait_until("`up` tells of the restart", || {
        let said = mesh.up.said();
        said.contains("observe, started again once; last").then_some(())
    });
    let status = mesh.run("status", &[]).stdout;
    let line = status.lines().find(|line| line.contains("observe ")).unwrap();
    assert!(line.contains("started again once") && line.contains("signal: 9"), "{status}");
    let info = mesh.info();
    let restarts = &info["restarts"][0];
    assert!(restarts["since"].as_u64().unwrap() > 0 && restarts["reason"].as_str().is_some());
    assert_eq!(mesh.run("down", &[]).code, 0);
    let run = web.finish();
    assert!(
        run.stderr.contains("mesh `reasons` has ended: `heddle down` was called"),
        "{}",
        run.stderr
    );
    let mut up = mesh.up;
    wait_until("`up` has ended", || (!up.is_running()).then_some(()));
    assert!(
        up.said().contains("mesh `reasons` has ended: `heddle down` was called"),
        "{}",
        up.said()
    );
}

fn a_graph_is_counted_anew_after_a_change_of_the_rules(machine: &Machine) {
    let mesh = machine.up("anew");
    let _web = mesh.serve("web", &[]);
    let window = |words: &[&str]| -> f64 {
        let shown = mesh.run("graph", &[&["-o", "json"], words].concat());
        let graph: Value = serde_json::from_str(&shown.stdout).unwrap_or_default();
        graph["window"].as_f64().unwrap_or(0.0)
    };
    wait_until("the dashboard answers", || (window(&[]) > 29.0).then_some(()));
    apply(machine, &mesh, RULES);
    assert!(window(&["--window", "5m"]) < 60.0, "what was before the change is left out");
    assert!(window(&["--window", "5m", "--across-changes"]) > 299.0);
    let told = mesh.run("graph", &[]);
    assert!(told.stderr.contains("the rules have changed since"), "{}", told.stderr);
    let refused = mesh.run("graph", &["--window", "0"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
}

/// A command on a terminal of 80 columns (util-linux's `script`), with what it draws in a file.
struct OnTerminal {
    child: Child,
    drawn: std::path::PathBuf,
}

impl OnTerminal {
    fn start(machine: &Machine, command: &Command, name: &str) -> Self {
        let drawn = machine.dir.join(format!("drawn-{name}"));
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<String> =
            words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let line = format!("stty cols 80 rows 24; exec {}", words.join(" "));
        let mut script = Command::new("script");
        script.args(["-qefc", &line]).arg(&drawn).current_dir(&machine.dir);
        script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        script.env("SHELL", "/bin/sh").stdin(Stdio::piped()).stdout(Stdio::null());
        Self { child: script.spawn().unwrap(), drawn }
    }

    fn drawn(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.drawn).unwrap_or_default()).into_owned()
    }

    fn press(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Exit code, once it has ended.
    fn finish(mut self) -> (i32, String) {
        let status = wait_until("it has ended", || self.child.try_wait().unwrap());
        (status.code().unwrap(), self.drawn())
    }
}

fn top_takes_keys_on_a_terminal_and_says_why_its_mesh_has_ended(machine: &Machine) {
    let mesh = machine.up("keys");
    let _web = mesh.serve("web", &["--version", "v1"]);
    let _api = mesh.serve("api", &[]);
    wait_until("both are known", || {
        let shown = mesh.run("top", &["--once"]).stdout;
        (shown.contains("web") && shown.contains("api")).then_some(())
    });
    let words = ["top", "--mesh", "keys", "--interval", "100ms"];
    let mut top = OnTerminal::start(machine, &machine.heddle(&words), "first");
    wait_until("the table of 80 columns is drawn", || {
        let drawn = top.drawn();
        let head = drawn.lines().find(|line| line.contains("SERVICE"))?;
        (head.contains("SIDE") && !head.contains("4XX/S")).then_some(())
    });
    top.press("?");
    wait_until("the keys are shown", || top.drawn().contains("order by name").then_some(()));
    top.press("?/ap\r");
    wait_until("the filter is told", || top.drawn().contains("filter: ap  ").then_some(()));
    top.press("q");
    let (code, drawn) = top.finish();
    assert_eq!(code, 0, "{drawn}");
    let left = drawn.rsplit("\u{1b}[?1049l").next().unwrap_or_default();
    assert!(left.contains("api") && !left.contains("web"), "the table is left standing: {left}");
    let top = OnTerminal::start(machine, &machine.heddle(&words), "second");
    wait_until("it draws", || top.drawn().contains("SERVICE").then_some(()));
    assert_eq!(mesh.run("down", &[]).code, 0);
    let (code, drawn) = top.finish();
    assert_eq!(code, 1, "{drawn}");
    assert!(drawn.contains("mesh `keys` has ended: `heddle down` was called"), "{drawn}");
}
