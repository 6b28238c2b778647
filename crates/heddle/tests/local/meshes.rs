//! Meshes beside each other, and a machine as it was after the last has gone.

use std::process::Command;

use heddle_runtime::signal::Signal;

use crate::{
    as_both_users,
    host::{Machine, wait_until},
};

as_both_users!(
    two_meshes_do_not_touch_each_other,
    a_mesh_leaves_nothing_behind,
    programs_have_seconds_to_end_with_their_mesh_and_are_told_once,
    workloads_that_come_and_go_leave_no_descriptor_and_no_process,
    descriptors_of_the_starter_end_with_the_starter,
    parts_can_be_told_to_end,
    a_mesh_started_with_nohup_outlives_its_terminal,
    rules_and_addresses_outlive_a_restart,
    a_store_that_cannot_be_opened_is_refused,
    an_unwatched_folder_is_refused,
    a_file_that_is_not_in_force_is_told_of_where_people_look,
);

fn two_meshes_do_not_touch_each_other(machine: &Machine) {
    let (one, two) = (machine.up("one"), machine.up("two"));
    let _server = one.serve("web", &[]);
    assert_eq!(one.get("http://web/").stdout, "web");
    assert_ne!(two.get("http://web/").code, 0, "the other mesh has no such service");
    let ambiguous = machine.run(&["status"]);
    assert!(ambiguous.code == 1 && ambiguous.stderr.contains("one, two"), "{}", ambiguous.stderr);
    let taken = machine.run(&["up", "--mesh", "one"]);
    assert!(taken.code == 1 && taken.stderr.contains("running already"), "{}", taken.stderr);
    // One is killed and cleared away by its next start; the other never notices.
    Signal::KILL.send(two.pid("holder")).unwrap();
    assert_eq!(two.up.finish().code, 1);
    let two = machine.up("two");
    assert_eq!(one.get("http://web/").stdout, "web");
    assert_eq!(two.run("down", &[]).code, 0);
    assert_eq!(one.get("http://web/").stdout, "web");
}

fn a_mesh_leaves_nothing_behind(machine: &Machine) {
    let mesh = machine.up("clean");
    let server = mesh.serve("web", &[]);
    assert_eq!(mesh.get("http://web/").stdout, "web");
    let run_dir = mesh.run_dir();
    let pids = ["holder", "control", "observe"].map(|part| mesh.pid(part));
    let up = mesh.up.end(Signal::INTERRUPT);
    assert_eq!(up.code, 0, "{}", up.stderr);
    let ended = server.finish();
    assert!(ended.stderr.contains("has ended"), "{}", ended.stderr);
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} is gone");
    }
    let left: Vec<_> = std::fs::read_dir(run_dir.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

fn programs_have_seconds_to_end_with_their_mesh_and_are_told_once(machine: &Machine) {
    let mesh = machine.up("grace");
    let script = "import signal,time\n\
        signal.signal(signal.SIGTERM,lambda n,_:print('told',flush=True))\n\
        print('ready',flush=True)\n\
        signal.pause()\n\
        end=time.monotonic()+2.5\n\
        while time.monotonic()<end:time.sleep(0.05)\n\
        exit(4)\n";
    let program = mesh.start("slow", &["--", "python3", "-c", script]);
    wait_until("the program runs", || program.printed().contains("ready").then_some(()));
    assert_eq!(mesh.run("down", &[]).code, 0);
    let ended = program.finish();
    assert_eq!((ended.code, ended.stdout.as_str()), (4, "ready\ntold\n"), "{}", ended.stderr);
}

fn workloads_that_come_and_go_leave_no_descriptor_and_no_process(machine: &Machine) {
    let mesh = machine.up("comeandgo");
    let parts = ["holder", "control", "observe"].map(|part| mesh.pid(part));
    let open = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let children = || {
        let path = format!("/proc/{0}/task/{0}/children", parts[0]);
        std::fs::read_to_string(path).unwrap_or_default().split_whitespace().count()
    };
    let figures = || {
        let [holder, control, observe] = parts.map(open);
        [holder, control, observe, children()]
    };
    // What stays is there: the dashboard has started, and the first workload has made the rest.
    wait_until("the dashboard answers", || {
        (mesh.run("graph", &["-o", "json"]).code == 0).then_some(())
    });
    assert_eq!(mesh.client(&["true"]).code, 0);
    let before = figures();
    // More of them than calls and scrapes that may have been under way just then.
    for _ in 0..8 {
        assert_eq!(mesh.client(&["true"]).code, 0);
    }
    // These come and go too, so each figure is looked at by itself.
    let mut least = figures();
    wait_until("no figure has grown", || {
        least = std::array::from_fn(|at| least[at].min(figures()[at]));
        least.iter().zip(&before).all(|(now, before)| now <= before).then_some(())
    });
}

fn descriptors_of_the_starter_end_with_the_starter(machine: &Machine) {
    let mesh = machine
        .up_by("stray", |command| through_a_shell(machine, "exec 9>stray; exec \"$@\"", &command));
    let _server = mesh.serve("web", &[]);
    let holds_it = |pid: u32| {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        open.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.ends_with("stray")))
    };
    assert!(holds_it(mesh.up.pid()), "the test is about something");
    for part in ["holder", "control", "observe"] {
        assert!(!holds_it(mesh.pid(part)), "{part}");
    }
}

fn parts_can_be_told_to_end(machine: &Machine) {
    const TERMINATE: u64 = 1 << 14;
    let mesh = machine.up("told");
    for part in ["control", "observe"] {
        // One that inherited a blocked SIGTERM would have to be killed at the end, seconds later.
        let status = std::fs::read_to_string(format!("/proc/{}/status", mesh.pid(part))).unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        assert_eq!(u64::from_str_radix(blocked.trim(), 16).unwrap() & TERMINATE, 0, "{part}");
    }
}

fn a_mesh_started_with_nohup_outlives_its_terminal(machine: &Machine) {
    let mut mesh = machine
        .up_by("nohup", |command| through_a_shell(machine, "trap '' HUP; exec \"$@\"", &command));
    mesh.up.signal(Signal::HANGUP);
    let web = mesh.serve("web", &[]);
    assert_eq!(mesh.get("http://web/").stdout, "web");
    assert!(mesh.up.is_running());
    drop(web);
    let plain = machine.up("plain");
    assert_eq!(plain.up.end(Signal::HANGUP).code, 0, "without nohup it ends");
}

/// A shell that does something before it becomes the command.
fn through_a_shell(machine: &Machine, script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]);
    shell.arg(command.get_program()).args(command.get_args()).current_dir(&machine.dir);
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

fn rules_and_addresses_outlive_a_restart(machine: &Machine) {
    let mesh = machine.up("state");
    let server = mesh.serve("web", &[]);
    let vip = |mesh: &crate::host::Mesh<'_>| mesh.run("get", &["services", "web"]).stdout;
    let before = vip(&mesh);
    let rule = machine.dir.join("subsets.yaml");
    let text = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec: {host: web, subsets: [{name: v1, labels: {version: v1}}]}\n";
    std::fs::write(&rule, text).unwrap();
    assert_eq!(mesh.run("apply", &["-f", rule.to_str().unwrap()]).code, 0);
    assert_eq!(mesh.run("down", &[]).code, 0);
    drop(server);
    wait_until("the mesh has gone", || (!mesh.run_dir().exists()).then_some(()));
    drop(mesh);
    let mesh = machine.up("state");
    let _server = mesh.serve("web", &[]);
    assert_eq!(vip(&mesh), before);
    assert!(mesh.run("get", &["dr"]).stdout.contains("web"));
}

fn a_store_that_cannot_be_opened_is_refused(machine: &Machine) {
    let mesh = machine.up("first");
    let state = machine.dir.join("state-first");
    let file = machine.dir.join("file");
    std::fs::write(&file, "no folder").unwrap();
    for state in [state, file] {
        let state = state.to_str().unwrap();
        let refused = machine.run(&["up", "--mesh", "second", "--state-dir", state]);
        assert_eq!(refused.code, 1, "{state}");
        assert!(refused.stderr.contains(state), "{}", refused.stderr);
        assert!(!machine.dir.join("run/second").exists(), "nothing is left of it");
    }
    drop(mesh);
}

fn an_unwatched_folder_is_refused(machine: &Machine) {
    let refused = machine.run(&["up", "--config", "/no/such/folder"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("--config"), "{}", refused.stderr);
}

fn a_file_that_is_not_in_force_is_told_of_where_people_look(machine: &Machine) {
    let folder = machine.dir.join("rules");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("web.yaml");
    std::fs::write(&file, "kind: Nonsense\n").unwrap();
    let mesh = machine.up_by("folder", |mut command| {
        command.args(["--config", "rules"]);
        command
    });
    let told = wait_until("`up` names the file", || {
        let said = mesh.up.said();
        said.contains("not in force").then_some(said)
    });
    assert!(told.contains("rules/web.yaml:1: kind: `Nonsense` is no kind of the mesh"), "{told}");
    let rules = mesh.run("get", &[]).stdout;
    assert!(rules.starts_with("no rules\nproblem: ") && rules.contains("web.yaml:1:"), "{rules}");
    let text = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec: {host: web}\n";
    std::fs::write(&file, text).unwrap();
    wait_until("`up` says that it is well again", || {
        mesh.up.said().contains("all rules of the folder are in force").then_some(())
    });
    assert!(!mesh.run("get", &[]).stdout.contains("problem"));
}
