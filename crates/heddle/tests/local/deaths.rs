//! Any part killed with SIGKILL: what goes on, what ends, what is left.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    process::Command,
    time::UNIX_EPOCH,
};

use heddle_runtime::{clock, signal::Signal};
use serde_json::Value;

use crate::{
    as_both_users,
    host::{Machine, Mesh, processes_with, wait_until},
};

as_both_users!(
    a_killed_sidecar_comes_back_and_the_program_does_not_notice,
    no_connection_is_refused_while_a_killed_sidecar_comes_back,
    a_killed_control_plane_comes_back_with_its_members,
    a_killed_dashboard_comes_back_at_its_address_with_its_history,
    a_part_that_hangs_is_told_of_and_comes_back,
    a_holder_that_hangs_is_told_of,
    an_address_freed_before_control_is_killed_is_not_given_away_after_it,
    a_run_begun_without_a_control_plane_waits_for_it,
    a_killed_run_takes_its_program_along,
    a_killed_holder_ends_everything_and_the_next_start_clears_up,
    the_next_start_ends_programs_that_outlived_everything,
    the_mesh_outlives_up_until_the_last_run_has_gone,
    garbage_on_the_holders_socket_is_refused,
);

fn get(mesh: &Mesh<'_>, service: &str) -> String {
    mesh.get(&format!("http://{service}/")).stdout
}

/// The sidecar of a service's only workload, by its record.
pub(crate) fn sidecar(mesh: &Mesh<'_>, service: &str) -> Option<u32> {
    let id = mesh.workloads(service).first()?["workload"]["id"].as_str()?.to_owned();
    let record = mesh.run_dir().join("workloads").join(id).join("proxy.pid");
    let record: Value = serde_json::from_slice(&std::fs::read(record).ok()?).ok()?;
    u32::try_from(record["pid"].as_u64()?).ok()
}

fn a_killed_sidecar_comes_back_and_the_program_does_not_notice(machine: &Machine) {
    let mesh = machine.up("sidecar");
    let mut server = mesh.serve("web", &[]);
    assert_eq!(get(&mesh, "web"), "web");
    let killed = sidecar(&mesh, "web").unwrap();
    Signal::KILL.send(killed).unwrap();
    wait_until("another sidecar answers", || {
        (sidecar(&mesh, "web") != Some(killed) && get(&mesh, "web") == "web").then_some(())
    });
    assert!(server.is_running());
    assert_eq!(server.end(Signal::TERMINATE).code, 143);
}

/// Connects again and again until a file is there, and tells how often it was refused.
const CALLER: &str = r"
import os, socket, sys
address, refused = socket.gethostbyname('web'), 0
while not os.path.exists(sys.argv[1]):
    try:
        with socket.create_connection((address, 80), timeout=20) as stream:
            stream.sendall(b'GET / HTTP/1.0\r\n\r\n')
            while stream.recv(4096): print('.', end='', flush=True)
    except ConnectionRefusedError: refused += 1
    except (ConnectionResetError, BrokenPipeError): pass
print('\nrefused', refused)
";

fn no_connection_is_refused_while_a_killed_sidecar_comes_back(machine: &Machine) {
    let mesh = machine.up("backlog");
    let _server = mesh.serve("web", &[]);
    let stop = machine.dir.join("stop");
    let words = ["--", "python3", "-c", CALLER, stop.to_str().unwrap()];
    let mut caller = mesh.start("caller", &words);
    let mut calls_succeed = || {
        let before = caller.printed().len();
        wait_until("calls succeed", || {
            assert!(caller.is_running(), "{}", caller.said());
            (caller.printed().len() > before + 5).then_some(())
        });
    };
    // Twice: what the first one listened on outlives the second too.
    for _ in 0..2 {
        calls_succeed();
        let killed = sidecar(&mesh, "caller").unwrap();
        Signal::KILL.send(killed).unwrap();
        // In between there is none.
        wait_until("another sidecar runs", || {
            sidecar(&mesh, "caller").filter(|pid| *pid != killed)
        });
    }
    calls_succeed();
    std::fs::write(stop, "").unwrap();
    let ended = caller.finish();
    assert!(ended.stdout.ends_with("\nrefused 0\n"), "{}{}", ended.stdout, ended.stderr);
}

fn a_killed_control_plane_comes_back_with_its_members(machine: &Machine) {
    let mesh = machine.up("control");
    let _server = mesh.serve("web", &[]);
    let before = mesh.workloads("web");
    let killed = mesh.pid("control");
    Signal::KILL.send(killed).unwrap();
    wait_until("another control plane runs", || {
        let pid = mesh.pid("control");
        (pid != 0 && pid != killed).then_some(())
    });
    let id = |views: &[Value]| {
        views.first().map(|view| (view["workload"]["id"].clone(), view["workload"]["ipv4"].clone()))
    };
    wait_until("the member is ready there", || {
        let views = mesh.workloads("web");
        let port = &views.first()?["workload"]["ports"]["80"]["state"];
        (id(&views) == id(&before) && port == "ready").then_some(())
    });
    assert_eq!(get(&mesh, "web"), "web");
}

fn a_killed_dashboard_comes_back_at_its_address_with_its_history(machine: &Machine) {
    let mesh = machine.up("dashboard");
    let _server = mesh.serve("web", &[]);
    let address = mesh.run("dashboard", &[]).stdout;
    let address = address.trim().trim_start_matches("http://").to_owned();
    let graph = || {
        let mut stream = TcpStream::connect(&address).ok()?;
        write!(
            stream,
            "GET /api/v1/graph?window=600 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.contains("\"nodes\"").then_some(answer)
    };
    // What a sidecar has counted before it was first looked at is its past.
    wait_until("the server is looked at", || graph()?.contains("\"scraped\":1").then_some(()));
    assert_eq!(get(&mesh, "web"), "web");
    let calls = |graph: &str| graph.contains("\"edges\":[{");
    wait_until("the call is counted", || calls(&graph()?).then_some(()));
    let counted = clock::unix_now();
    let history = machine.state_of("dashboard").join("history.redb");
    wait_until("it is kept", || {
        let written = history.metadata().ok()?.modified().ok()?;
        (written.duration_since(UNIX_EPOCH).ok()? > counted).then_some(())
    });
    let killed = mesh.pid("observe");
    Signal::KILL.send(killed).unwrap();
    wait_until("another one answers, and knows of the call", || {
        (calls(&graph()?) && mesh.pid("observe") != killed).then_some(())
    });
}

fn a_part_that_hangs_is_told_of_and_comes_back(machine: &Machine) {
    let mesh = machine.up("stopped");
    let mut server = mesh.serve("web", &[]);
    let part = |name: &str| match name {
        "web" => sidecar(&mesh, "web").unwrap_or(0),
        part => mesh.pid(part),
    };
    let names = ["web", "observe", "control"];
    let stopped = names.map(part);
    for pid in stopped {
        Signal::STOP.send(pid).unwrap();
    }
    // Neither waits for ever; what each says depends on when the stopped one is killed.
    let hangs = |text: &str| text.contains("hangs: ") || text.contains("is started again");
    let refused = mesh.run("get", &[]);
    assert!(refused.code == 1 && hangs(&refused.stderr), "{}", refused.stderr);
    assert_eq!(mesh.run("status", &[]).code, 0);
    wait_until("others run", || {
        let all = names.iter().zip(&stopped).all(|(name, old)| ![0, *old].contains(&part(name)));
        (all && get(&mesh, "web") == "web").then_some(())
    });
    assert!(server.is_running());
    let info = mesh.info();
    let id = mesh.workloads("web")[0]["workload"]["id"].as_str().unwrap().to_owned();
    for part in ["control".to_owned(), "observe".to_owned(), format!("sidecar of {id}")] {
        let again = info["restarts"].as_array().unwrap().iter().find(|one| one["part"] == part);
        let again = again.unwrap_or_else(|| panic!("{part}: {info}"));
        assert_eq!((&again["count"], &again["unanswered"]), (&1.into(), &1.into()), "{part}");
    }
    let text = mesh.run("status", &[]).stdout;
    assert!(text.contains("started again once, killed once because it did not answer"), "{text}");
}

fn a_holder_that_hangs_is_told_of(machine: &Machine) {
    let mesh = machine.up("stuck");
    let holder = mesh.pid("holder");
    Signal::STOP.send(holder).unwrap();
    let run = mesh.start("c", &["--", "true"]);
    let status = mesh.run("status", &[]);
    let ended = run.finish();
    Signal::CONTINUE.send(holder).unwrap();
    for ended in [status, ended] {
        let advice = format!("`kill -CONT {holder}` continues it");
        assert!(ended.code == 1 && ended.stderr.contains(&advice), "{}", ended.stderr);
    }
    assert_eq!(mesh.client(&["true"]).code, 0, "it goes on where it was");
}

fn an_address_freed_before_control_is_killed_is_not_given_away_after_it(machine: &Machine) {
    let mesh = machine.up("resting");
    let own = "import socket as s;u=s.socket(s.AF_INET,s.SOCK_DGRAM);u.connect(('240.241.0.1',9));print(u.getsockname()[0])";
    let address = || {
        let ended = mesh.client(&["python3", "-c", own]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended.stdout
    };
    let mut seen = std::collections::BTreeSet::from([address()]);
    for _ in 0..3 {
        let killed = mesh.pid("control");
        Signal::KILL.send(killed).unwrap();
        let next = address();
        assert!(seen.insert(next.clone()), "{next} was another's a moment ago");
        wait_until("another control plane is known", || {
            (![0, killed].contains(&mesh.pid("control"))).then_some(())
        });
    }
}

fn a_run_begun_without_a_control_plane_waits_for_it(machine: &Machine) {
    let mesh = machine.up("waiting");
    assert_eq!(mesh.run("supervise", &["control", "--restart", "false"]).code, 0);
    Signal::KILL.send(mesh.pid("control")).unwrap();
    wait_until("it is gone", || (mesh.pid("control") == 0).then_some(()));
    let refused = mesh.run("get", &[]);
    assert!(refused.code == 1 && refused.stderr.contains("not running"), "{}", refused.stderr);
    let mut waiting = mesh.start("c", &["--", "echo", "at last"]);
    wait_until("it says that it waits", || waiting.said().contains("waiting").then_some(()));
    assert!(waiting.is_running());
    // One that is given up while it waits leaves nothing.
    let given_up = mesh.start("c", &["--", "echo", "never"]);
    wait_until("it says that it waits", || given_up.said().contains("waiting").then_some(()));
    assert_eq!(given_up.end(Signal::INTERRUPT).code, 130);
    assert_eq!(mesh.run("supervise", &["control", "--restart", "true"]).code, 0);
    let ended = waiting.finish();
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "at last\n"), "{}", ended.stderr);
}

fn a_killed_run_takes_its_program_along(machine: &Machine) {
    let mesh = machine.up("killedrun");
    let seconds = machine.unlike_any_other();
    let run = mesh.start("c", &["--", "sleep", &seconds.to_string()]);
    let program = format!("sleep {seconds}");
    let is_program = |pid: &u32| *pid != run.pid();
    wait_until("the program runs", || {
        processes_with(&program).iter().any(is_program).then_some(())
    });
    Signal::KILL.send(run.pid()).unwrap();
    assert_eq!(run.finish().code, 137);
    wait_until("the program has ended", || processes_with(&program).is_empty().then_some(()));
    wait_until("the workload has gone", || {
        let left = std::fs::read_dir(mesh.run_dir().join("workloads")).unwrap().count();
        (mesh.workloads("c").is_empty() && left == 0).then_some(())
    });
}

fn a_killed_holder_ends_everything_and_the_next_start_clears_up(machine: &Machine) {
    let mesh = machine.up("holder");
    let run = mesh.serve("web", &[]);
    let marks = [mesh.run_dir().display().to_string(), "--mesh holder".to_owned()];
    Signal::KILL.send(mesh.pid("holder")).unwrap();
    let ended = run.finish();
    assert!(ended.code != 0 && ended.stderr.contains("has ended"), "{}", ended.stderr);
    let up = mesh.up.finish();
    assert!(up.code == 1 && up.stderr.contains("has ended"), "{}", up.stderr);
    wait_until("no process is left", || {
        let dir = machine.dir.display().to_string();
        let ours = |pid: &u32| {
            std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|text| String::from_utf8_lossy(&text).contains(&dir))
        };
        let left = marks.iter().flat_map(|mark| processes_with(mark)).filter(ours).count();
        (left == 0).then_some(())
    });
    let again = machine.up("holder");
    assert!(again.up.said().contains("clearing"), "{}", again.up.said());
    let _server = again.serve("web", &[]);
    assert_eq!(get(&again, "web"), "web");
}

fn the_next_start_ends_programs_that_outlived_everything(machine: &Machine) {
    let mesh = machine.up("all");
    let seconds = machine.unlike_any_other().to_string();
    let neighbour = machine.up("neighbour");
    let beside = machine.unlike_any_other().to_string();
    let mut neighbours_run = neighbour.start("c", &["--", "sleep", &beside]);
    let run = mesh.start("c", &["--", "sleep", &seconds]);
    let program = format!("sleep {seconds}");
    let started =
        |program: &str, run: u32| processes_with(program).into_iter().find(|pid| *pid != run);
    let pid = wait_until("the program runs", || started(&program, run.pid()));
    wait_until("the neighbour's runs", || {
        started(&format!("sleep {beside}"), neighbours_run.pid())
    });
    let holder = mesh.pid("holder");
    // Stopped, it can end nothing any more; then everybody who knows of the program is killed.
    assert!(Command::new("kill").args(["-STOP", &holder.to_string()]).status().unwrap().success());
    for pid in [run.pid(), mesh.up.pid(), holder] {
        Signal::KILL.send(pid).unwrap();
    }
    wait_until("the holder is gone", || {
        (!std::path::Path::new(&format!("/proc/{holder}/fd/0")).exists()).then_some(())
    });
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "the program outlived them");
    let again = machine.up("all");
    assert!(again.up.said().contains("clearing"), "{}", again.up.said());
    assert_eq!(processes_with(&program), [0; 0]);
    assert!(neighbours_run.is_running() && !processes_with(&format!("sleep {beside}")).is_empty());
}

fn the_mesh_outlives_up_until_the_last_run_has_gone(machine: &Machine) {
    let mut mesh = machine.up("orphan");
    let server = mesh.serve("web", &[]);
    Signal::KILL.send(mesh.up.pid()).unwrap();
    wait_until("up is gone", || (!mesh.up.is_running()).then_some(()));
    assert_eq!(get(&mesh, "web"), "web");
    assert_eq!(server.end(Signal::TERMINATE).code, 143);
    let lock = mesh.run_dir().with_extension("lock");
    wait_until("the mesh has ended by itself", || {
        (!lock.exists() && !mesh.run_dir().exists()).then_some(())
    });
}

fn garbage_on_the_holders_socket_is_refused(machine: &Machine) {
    let mesh = machine.up("garbage");
    let socket = mesh.run_dir().with_extension("sock");
    let frame =
        |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat();
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 4096],
        vec![0, 0],
        frame(b"not JSON"),
        frame(b"\"no_such_request\""),
        frame(b"\"withdraw\""),
        frame(b"\"leave\""),
        frame(b"{\"connect\":{\"id\":1,\"to\":\"nowhere\"}}"),
        frame(b"{\"supervise\":{\"part\":\"everything\",\"restart\":true}}"),
        frame(&[b'['; 100_000]),
    ] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(&bytes).unwrap();
    }
    assert_eq!(mesh.info()["mesh"], "garbage");
    assert!(mesh.pid("control") != 0);
}
