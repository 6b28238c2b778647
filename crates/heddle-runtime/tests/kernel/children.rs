//! Children start where and as they should, and end when they should.

use std::{fs, net::TcpListener, os::unix::process::CommandExt, process::Command, time::Duration};

use heddle_runtime::{
    capability::{Capability, CapabilitySet, Privileges},
    ns::{Mode, NsId, Step},
    process::{self, Pidfd},
    signal::Signal,
    spawn::{SpawnError, SpawnOptions},
    task,
};

use heddle_testkit::folder::Folder;

use crate::world::{Channel, SIDECAR, World, as_both_users};

/// Long enough for a process to die.
const PATIENCE: Duration = Duration::from_secs(30);

as_both_users!(a_sidecar_has_one_capability, sidecar, "report" => report);
as_both_users!(an_application_cannot_change_the_rules, application, "report" => report);
as_both_users!(a_child_keeps_its_user_and_can_bind_port_80, plain_user, "report" => report);
as_both_users!(failures_name_their_step, failures);
as_both_users!(killing_a_namespace_leaves_nothing_in_it, killing, "report" => report);
as_both_users!(a_child_dies_with_its_parent, orphan, "parent" => parent);

/// Tells where it is and what it may do, then waits.
fn report(mut channel: Channel) {
    let net = NsId::current_net().expect("knows");
    channel.say(net.inode.to_string());
    let status = fs::read_to_string("/proc/self/status").expect("reads");
    for name in ["Uid:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:"] {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        channel.say(line.trim());
    }
    let bound = TcpListener::bind("127.0.0.1:80").map(drop);
    channel.say(bound.map_or_else(|error| error.to_string(), |()| "bound".to_owned()));
    let _end = channel.hear();
}

struct ChildReport {
    net: u64,
    uid: String,
    effective: u64,
    bounding: u64,
    ambient: u64,
    no_new_privs: bool,
    port_80: String,
}

fn hear_report(channel: &mut Channel) -> ChildReport {
    let net = channel.hear().parse().expect("a number");
    let uid = channel.hear();
    let mut bits = || u64::from_str_radix(&channel.hear(), 16).expect("a capability set");
    let (effective, bounding, ambient) = (bits(), bits(), bits());
    let no_new_privs = channel.hear() == "1";
    ChildReport { net, uid, effective, bounding, ambient, no_new_privs, port_80: channel.hear() }
}

const NET_ADMIN: u64 = 1 << Capability::NetAdmin as u64;

fn sidecar(world: &World) {
    let workload = world.workload(10);
    let mut inside = world.inside(&workload, SIDECAR, "report");
    let told = hear_report(&mut inside.channel);
    assert_eq!(told.net, workload.net_id().expect("knows").inode);
    assert_eq!(told.effective, NET_ADMIN);
    assert_eq!(told.bounding & !NET_ADMIN, 0);
    if Mode::of_caller() == Mode::Rootless {
        assert_eq!(told.ambient, NET_ADMIN);
    }
}

fn application(world: &World) {
    let workload = world.workload(10);
    let mut options = SpawnOptions::new();
    options.namespaces(&workload).expect("descriptors");
    match Mode::of_caller() {
        Mode::Root => {
            let net_admin = CapabilitySet::of(&[Capability::NetAdmin]);
            options.privileges(Privileges::AllBut(net_admin));
        }
        Mode::Rootless => {
            options.privileges(Privileges::Only(CapabilitySet::NONE)).no_new_privs();
        }
    }
    let mut inside = world.start(options, "report").expect("starts");
    let told = hear_report(&mut inside.channel);
    match Mode::of_caller() {
        Mode::Root => {
            assert_eq!(told.effective & NET_ADMIN, 0);
            assert_ne!(told.effective & (1 << Capability::SysAdmin as u64), 0);
            assert!(!told.no_new_privs);
        }
        Mode::Rootless => {
            assert_eq!((told.effective, told.bounding, told.ambient), (0, 0, 0));
            assert!(told.no_new_privs);
        }
    }
    assert_eq!(told.port_80, "bound");
}

fn plain_user(world: &World) {
    let workload = world.workload(10);
    let mut inside = world.inside(&workload, Privileges::Unchanged, "report");
    let told = hear_report(&mut inside.channel);
    let (uid, _) = process::effective_ids();
    assert_eq!(told.uid.split_whitespace().next(), Some(&*uid.to_string()));
    assert_eq!(told.port_80, "bound");
    let host = NsId::current_net().expect("knows");
    assert_ne!(told.net, host.inode);
}

fn failures(world: &World) {
    let namespaces = world.hub.namespaces();
    let mut options = SpawnOptions::new();
    options.namespaces(namespaces).expect("descriptors");
    let absent = options.spawn(Command::new("/nonexistent/program")).expect_err("absent");
    assert!(matches!(absent, SpawnError::Exec { .. }), "{absent}");
    assert_eq!(absent.exit_code(), 127);
    assert!(absent.to_string().contains("/nonexistent/program"), "{absent}");

    let folder = Folder::new("not-executable");
    let file = folder.join("file");
    fs::write(&file, "text").expect("writes");
    let refused = SpawnOptions::new().spawn(Command::new(file)).expect_err("no program");
    assert_eq!(refused.exit_code(), 126);

    let mut plan = heddle_runtime::mount::MountPlan::new();
    plan.bind(&folder.join("absent"), &folder.join("file")).expect("a path");
    let mut options = SpawnOptions::new();
    options.namespaces(namespaces).expect("descriptors").mounts(plan);
    match options.spawn(Command::new("true")).expect_err("nothing to mount") {
        SpawnError::Setup { step: Step::Mount, source } => {
            assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
        }
        other => panic!("{other}"),
    }
}

fn killing(world: &World) {
    let (workload, neighbour) = (world.workload(10), world.workload(11));
    let mut spared = world.inside(&workload, Privileges::Unchanged, "report");
    hear_report(&mut spared.channel);
    let mut beside = world.inside(&neighbour, Privileges::Unchanged, "report");
    hear_report(&mut beside.channel);
    let mut options = SpawnOptions::new();
    options.namespaces(&workload).expect("descriptors");
    let mut command = Command::new("sh");
    // Children in sessions of their own that ignore SIGTERM, and their children.
    let script =
        "trap '' TERM; for n in 1 2 3; do setsid sh -c 'trap \"\" TERM; sleep 1000' & done; wait";
    command.args(["-c", script]).process_group(0);
    let mut shell = options.spawn(command).expect("starts");

    let net = workload.net_id().expect("knows");
    let except = [spared.child.id()];
    // Seven: the shell, three shells, three sleeps. They appear in their own time.
    let mut passes = 0;
    while process::in_netns(net, &except).expect("looks").len() < 7 {
        passes += 1;
        assert!(passes < 1_000_000, "the shell starts its children");
        std::thread::yield_now();
    }
    let ended = process::end_netns_blocking(net, &except).expect("ends them");
    assert!(ended >= 7, "{ended}");
    assert_eq!(process::in_netns(net, &[]).expect("looks"), except);
    assert_eq!(process::exit_code(shell.wait().expect("waits")), 128 + 9);
    assert!(spared.child.try_wait().expect("asks").is_none());
    assert!(beside.child.try_wait().expect("asks").is_none());

    let ended = task::run_local(process::end_netns(net, &[])).expect("a runtime");
    assert_eq!(ended.expect("ends it"), 1);
    assert_eq!(process::in_netns(net, &[]).expect("looks"), [0; 0]);
    assert!(beside.child.try_wait().expect("asks").is_none());
}

/// Starts a child that is to die with it.
fn parent(mut channel: Channel) {
    let mut options = SpawnOptions::new();
    options.die_with_parent(Signal::KILL);
    let mut command = Command::new("sleep");
    command.arg("1000");
    let mut child = options.spawn(command).expect("starts");
    channel.say(child.id().to_string());
    let _never = channel.hear();
    child.wait().expect("waits");
}

fn orphan(world: &World) {
    let mut parent = world.start(SpawnOptions::new(), "parent").expect("starts");
    let pid: u32 = parent.channel.hear().parse().expect("a number");
    let grandchild = Pidfd::open(pid).expect("runs");
    assert!(!grandchild.wait_ended(Duration::ZERO).expect("polls"));
    parent.child.kill().expect("kills");
    assert!(grandchild.wait_ended(PATIENCE).expect("polls"), "it outlived its parent");
}
