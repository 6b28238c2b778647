//! `heddle tap` on a real mesh: what it is asked for, each call once, and nothing of a hostile client's that a
//! terminal obeys or that is secret.

use heddle_runtime::signal::Signal;
use serde_json::Value;

use crate::{
    as_both_users,
    host::{Machine, Mesh, Running, wait_until},
};

as_both_users!(live_calls_are_shown_as_they_are_asked_for,);

/// A tap that listens to so many sidecars.
fn tap(machine: &Machine, mesh: &Mesh<'_>, words: &[&str], sidecars: usize) -> Running {
    let words = [&["tap", "--mesh", mesh.name.as_str()], words].concat();
    let mut running = machine.start(machine.heddle(&words));
    let s = if sidecars == 1 { "" } else { "s" };
    let says = format!("listening to {sidecars} sidecar{s}");
    wait_until("it listens", || {
        assert!(running.is_running(), "{}", running.said());
        running.said().contains(&says).then_some(())
    });
    running
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs a client to its end, whose command begins once the tap listens to it.
fn client(machine: &Machine, mesh: &Mesh<'_>, tap: &Running, command: &[&str]) {
    let go = machine.dir.join(format!("go-{}", machine.unlike_any_other()));
    let script = format!("until [ -e {} ]; do sleep 0.05; done; exec \"$@\"", go.display());
    let client = mesh.start("client", &[&["--", "sh", "-c", &script, "sh"], command].concat());
    wait_until("the client is listened to", || {
        let said = tap.said();
        said.lines()
            .any(|line| line.contains("client-") && line.ends_with("is listened to, too"))
            .then_some(())
    });
    std::fs::write(&go, "").unwrap();
    let ended = client.finish();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

fn live_calls_are_shown_as_they_are_asked_for(machine: &Machine) {
    let mesh = machine.up("taps");
    let _web = mesh.serve("web", &["--version", "v1"]);
    let made = mesh.run("fault", &["web", "--abort", "503", "--path", "/broken"]);
    assert_eq!(made.code, 0, "{}", made.stderr);

    // Failures only, once each, with the rule; the client comes after the tap began.
    let json = tap(machine, &mesh, &["web", "--status", "5xx", "--max", "2", "-o", "json"], 1);
    let urls = ["http://web/fine", "http://web/broken", "http://web/broken"];
    client(machine, &mesh, &json, &[&["curl", "-s"][..], &urls].concat());
    let ended = json.finish();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let calls = objects(&ended.stdout);
    assert_eq!(calls.len(), 2, "{}", ended.stdout);
    for call in &calls {
        assert_eq!(call["status"], 503, "{call}");
        assert_eq!(call["path"], "/broken");
        assert_eq!(call["method"], "GET");
        assert_eq!(call["from"]["workload"], "client");
        assert_eq!(call["to"]["service"], "web.default.svc.cluster.local");
        let fault = &call["faults"][0];
        assert_eq!(fault["what"], "abort");
        assert_eq!(fault["rule"], "Fault/default/heddle-fault-web-abort");
    }
    assert!(ended.stderr.ends_with("heddle: 2 calls\n"), "{}", ended.stderr);

    // For people, with headers; whatever a client sends, nothing of it is obeyed and no secret is shown.
    let shows = ["--header", "user-agent", "--header", "authorization", "--max", "1"];
    let text = tap(machine, &mesh, &[&["--side", "client"][..], &shows].concat(), 1);
    let agent = "me\u{202e}\u{9b}2J\"</script>";
    let bearer = "Authorization: Bearer t0psecret";
    let curl = ["curl", "-s", "-A", agent, "-H", bearer, "http://web/broken?token=t0psecret&a=1"];
    client(machine, &mesh, &text, &curl);
    let shown = text.finish().stdout;
    assert!(shown.starts_with("TIME (UTC)"), "{shown}");
    for part in [
        "GET /broken?token=(hidden)&a=1",
        "> authorization: (hidden)",
        "> user-agent: me\\u{202e}\\u{9b}2J\"</script>",
        "fault: abort, by Fault/default/heddle-fault-web-abort",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let obeyed = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    assert!(!shown.contains("t0psecret") && !shown.contains(obeyed), "{shown:?}");

    sides_are_told_and_each_call_once(machine, &mesh);
    names_and_values_that_cannot_be_are_refused(&mesh);
    a_browser_is_told_the_same(machine, &mesh);
}

fn sides_are_told_and_each_call_once(machine: &Machine, mesh: &Mesh<'_>) {
    // Who is named has to be there.
    let _other = mesh.start("client", &["--", "sleep", "300"]);
    wait_until("it is there", || (!mesh.workloads("client").is_empty()).then_some(()));
    // Both sides are told which they are, and what both saw is told once where that is not asked for.
    for (words, sides) in [
        (&["--to", "web", "--side", "both", "--max", "2"][..], &["client", "server"][..]),
        (&["--from", "client", "--to", "web", "--path", "/index*"], &["server"]),
    ] {
        let looking = tap(machine, mesh, &[words, &["-o", "json"]].concat(), 2);
        client(machine, mesh, &looking, &["curl", "-s", "http://web/index.html"]);
        wait_until("as many calls are told", || {
            (looking.printed().lines().count() >= sides.len()).then_some(())
        });
        let ended = looking.end(Signal::INTERRUPT);
        let mut told: Vec<String> = objects(&ended.stdout)
            .iter()
            .map(|call| call["side"].as_str().unwrap().to_owned())
            .collect();
        told.sort_unstable();
        assert_eq!(told, sides, "{}", ended.stdout);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }
}

fn names_and_values_that_cannot_be_are_refused(mesh: &Mesh<'_>) {
    for (words, code, says) in [
        (&["wbe"][..], 1, "no service and no workload is called `wbe`: did you mean `web`?"),
        (&["--from", "nobody"], 1, "--from: no service and no workload is called `nobody`"),
        (&["--status", "6xx"], 2, "use e.g. 503, 5xx"),
        (&["--path", "reviews"], 2, "it begins with /"),
        (&["--slower-than", "fast"], 2, "use e.g. 500ms"),
        (&["--filter", "request.headers['cookie'] == 'a'"], 2, "holds a secret"),
        (&["--max", "0"], 2, "--max"),
        (&["web", "--to", "web"], 2, "cannot be used with"),
    ] {
        let refused = mesh.run("tap", words);
        assert_eq!(refused.code, code, "{words:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(says), "{words:?}: {}", refused.stderr);
    }
}

fn a_browser_is_told_the_same(machine: &Machine, mesh: &Mesh<'_>) {
    let dashboard = mesh.info()["dashboard"].as_str().unwrap().to_owned();
    let url = format!("http://{dashboard}/api/v1/tap?to=web&status=2xx");
    let mut command = std::process::Command::new("curl");
    command.args(["-sS", "-N", "--max-time", "60", &url]);
    let reader = machine.start(command);
    wait_until("it listens", || reader.printed().contains("listening to").then_some(()));
    wait_until("a call is told", || {
        mesh.get("http://web/index.html?password=t0psecret");
        reader.printed().contains("\"call\"").then_some(())
    });
    let printed = reader.printed();
    assert!(printed.contains("/index.html?password=(hidden)"), "{printed}");
    assert!(!printed.contains("t0psecret"), "{printed}");
    drop(reader);
    let mut command = std::process::Command::new("curl");
    command.args(["-sS", &format!("http://{dashboard}/api/v1/tap?status=6xx")]);
    let refused = machine.start(command).finish();
    assert!(refused.stdout.contains("status: `6xx` is no status"), "{}", refused.stdout);
    // Those who look are soon forgotten by the sidecars: places are free again.
    for _ in 0..3 {
        let ended = mesh.run("tap", &["web", "--for", "1s"]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }
}
