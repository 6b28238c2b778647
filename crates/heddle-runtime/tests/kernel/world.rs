//! A mesh's namespaces for one test, and this binary started again inside them.
//!
//! A test is a function of a [`World`] plus named roles. The harness runs the function; for each
//! role it starts, this binary runs the same test again, which then plays the role instead.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use heddle_runtime::{
    capability::{Capability, CapabilitySet, Privileges},
    net,
    netlink::Network,
    netns_op::{self, Hub, HubNet, WorkloadNet},
    ns::{Mode, Namespaces},
    process::{self, Pidfd},
    redirect::{Escape, RedirectRules},
    signal::Signal,
    spawn::{SpawnError, SpawnOptions},
    task,
};

/// The role to play; absent in the harness itself.
const ROLE: &str = "HEDDLE_TEST_ROLE";
/// The descriptor of the role's channel.
const CHANNEL: &str = "HEDDLE_TEST_FD";
/// The role of the test's own function, run as another user.
const WHOLE_TEST: &str = "whole test";
/// An ordinary user: `nobody` on every Linux.
const ORDINARY: u32 = 65534;

/// Longest a process of a test may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const MARK: u32 = 0x539;
pub(crate) const OUTBOUND: u16 = 15001;
pub(crate) const INBOUND: u16 = 15006;
pub(crate) const DNS: u16 = 15053;
pub(crate) const EXCLUDED: u16 = 15020;
pub(crate) const VIP_V4: Ipv4Addr = Ipv4Addr::new(240, 240, 0, 10);
pub(crate) const VIP_V6: Ipv6Addr = Ipv6Addr::new(0xfd68, 0x6564, 0x646c, 0, 0, 0, 0, 10);
pub(crate) const BRIDGE: &str = "heddle0";

/// What a sidecar may do.
pub(crate) const SIDECAR: Privileges = Privileges::Only(CapabilitySet::of(&[Capability::NetAdmin]));

/// A role's name and what it does.
type Role = (&'static str, fn(Channel));

/// What a test plays: its name as the harness knows it, its function, its roles.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) body: fn(&World),
    pub(crate) roles: &'static [Role],
}

/// Declares a test that runs as root and as an ordinary user.
macro_rules! as_both_users {
    ($name:ident, $body:ident $(, $role:literal => $play:ident)* $(,)?) => {
        mod $name {
            #[test]
            fn as_root() {
                let name = concat!(module_path!(), "::as_root");
                $crate::world::run_as_root(&$crate::world::Test {
                    name,
                    body: super::$body,
                    roles: &[$(($role, super::$play)),*],
                });
            }

            #[test]
            fn as_an_ordinary_user() {
                let name = concat!(module_path!(), "::as_an_ordinary_user");
                $crate::world::run_as_ordinary_user(&$crate::world::Test {
                    name,
                    body: super::$body,
                    roles: &[$(($role, super::$play)),*],
                });
            }
        }
    };
}
pub(crate) use as_both_users;

pub(crate) fn run_as_root(test: &Test) {
    if plays_a_role(test) {
        return;
    }
    if process::effective_ids().0 == 0 {
        run_apart(test, with_shared_mounts(again(test.name, WHOLE_TEST)));
    } else {
        skip(test, "it needs root");
    }
}

pub(crate) fn run_as_ordinary_user(test: &Test) {
    if plays_a_role(test) {
        assert_ne!(process::effective_ids().0, 0);
        return;
    }
    let mut command = again(test.name, WHOLE_TEST);
    if process::effective_ids().0 == 0 {
        command.uid(ORDINARY).gid(ORDINARY).current_dir("/");
    }
    run_apart(test, command);
}

/// Mounts travel between mount namespaces on most machines (systemd sets that), though not on all;
/// so that a mount which leaks is noticed everywhere, through unshare(1) where it is there.
fn with_shared_mounts(command: Command) -> Command {
    let available = Command::new("unshare").arg("--version").stdout(Stdio::null()).status();
    if !available.is_ok_and(|status| status.success()) {
        return command;
    }
    let mut wrapped = Command::new("unshare");
    wrapped
        .args(["--mount", "--propagation", "shared", "--"])
        .arg(env::current_exe().expect("this binary has a path"))
        .args(command.get_args())
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdout(Stdio::null());
    wrapped
}

/// In a process of its own, so that tests do not count each other's descriptors and children.
fn run_apart(test: &Test, command: Command) {
    let mut options = SpawnOptions::new();
    options.die_with_parent(Signal::KILL);
    let status = wait(&mut options.spawn(command).expect("this binary runs"));
    assert!(status.success(), "{} failed ({status}); see above", harness_name(test.name));
}

/// A process that hangs is ended, and fails.
fn wait(child: &mut Child) -> ExitStatus {
    let ended = Pidfd::open(child.id()).and_then(|process| process.wait_ended(PATIENCE));
    if !ended.expect("the child is ours") {
        child.kill().expect("the child is ours");
    }
    child.wait().expect("the child is ours")
}

/// Says so where the harness does not swallow it.
fn skip(test: &Test, why: &str) {
    let line = format!("SKIPPED {}: {why}\n", harness_name(test.name));
    io::stderr().write_all(line.as_bytes()).expect("stderr takes a line");
}

fn plays_a_role(test: &Test) -> bool {
    if env::var_os("HEDDLE_NETNS_OP_FD").is_some() {
        netns_op::serve().expect("the hub is there");
        return true;
    }
    let Ok(role) = env::var(ROLE) else { return false };
    if role == WHOLE_TEST {
        play_whole(test);
        return true;
    }
    let (_, play) = test.roles.iter().find(|(name, _)| *name == role).expect("a known role");
    let number = env::var(CHANNEL).expect("a channel").parse().expect("a number");
    let fd = net::inherited_fd(number).expect("the channel was inherited");
    play(Channel::new(UnixStream::from(fd)));
    true
}

fn play_whole(test: &Test) {
    let world = World::new(test.name);
    (test.body)(&world);
}

/// This binary, for the one test, in a role. What the harness prints in it is of no interest, but
/// what goes to stderr is.
fn again(name: &str, role: &str) -> Command {
    let mut command = Command::new(process::own_program());
    command.args(arguments(name)).env(ROLE, role).stdout(Stdio::null());
    command
}

fn arguments(name: &str) -> [&str; 4] {
    [harness_name(name), "--exact", "--nocapture", "--test-threads=1"]
}

/// Module paths start with the crate's name, the harness's test names do not.
fn harness_name(name: &str) -> &str {
    name.split_once("::").expect("a path").1
}

/// A mesh: its namespaces with the hub set up.
pub(crate) struct World {
    test: &'static str,
    pub(crate) hub: Hub,
}

impl World {
    fn new(test: &'static str) -> Self {
        let namespaces = Namespaces::create(Mode::of_caller()).expect("makes the namespaces");
        let arguments = arguments(test).map(Into::into).to_vec();
        let hub = Hub::new(namespaces, process::own_program(), arguments);
        let net = HubNet {
            bridge: BRIDGE.to_owned(),
            addresses: vec![
                Network::new(IpAddr::V4(address_v4(1)), 16),
                Network::new(IpAddr::V6(address_v6(1)), 64),
            ],
        };
        task::run_local(hub.set_up(net)).expect("a runtime").expect("sets the hub up");
        Self { test, hub }
    }

    /// A workload's namespace, linked and with its rules.
    pub(crate) fn workload(&self, number: u8) -> Namespaces {
        let workload = workload_net(number);
        task::run_local(self.hub.create_workload(workload))
            .expect("a runtime")
            .expect("makes the workload's namespace")
    }

    /// A role played inside namespaces.
    pub(crate) fn inside(
        &self,
        namespaces: &Namespaces,
        privileges: Privileges,
        role: &str,
    ) -> Inside {
        let mut options = SpawnOptions::new();
        options.namespaces(namespaces).expect("descriptors").privileges(privileges);
        self.start(options, role).expect("starts")
    }

    /// A role played with any options.
    pub(crate) fn start(
        &self,
        mut options: SpawnOptions,
        role: &str,
    ) -> Result<Inside, SpawnError> {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let number = options.inherit(OwnedFd::from(theirs));
        let mut command = again(self.test, role);
        command.env(CHANNEL, number.to_string());
        options.die_with_parent(Signal::KILL);
        let child = options.spawn(command)?;
        Ok(Inside { child, channel: Channel::new(ours) })
    }
}

pub(crate) fn address_v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(240, 241, 0, number)
}

pub(crate) fn address_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd68, 0x6564, 0x646c, 1, 0, 0, 0, u16::from(number))
}

pub(crate) fn workload_net(number: u8) -> WorkloadNet {
    WorkloadNet {
        link: format!("w{number}"),
        bridge: BRIDGE.to_owned(),
        addresses: vec![
            Network::new(IpAddr::V4(address_v4(number)), 16),
            Network::new(IpAddr::V6(address_v6(number)), 64),
        ],
        gateways: vec![IpAddr::V4(address_v4(1)), IpAddr::V6(address_v6(1))],
        routes: Vec::new(),
        rules: rules(),
    }
}

pub(crate) fn rules() -> RedirectRules {
    RedirectRules {
        inbound_excluded: vec![EXCLUDED, 15021, 15090],
        ..RedirectRules::all(Escape::Mark(MARK), [OUTBOUND, INBOUND, DNS])
    }
}

/// Lines between the test and a role.
pub(crate) struct Channel {
    reader: BufReader<UnixStream>,
}

impl Channel {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("sets");
        Self { reader: BufReader::new(stream) }
    }

    pub(crate) fn say(&self, line: impl AsRef<str>) {
        let line = format!("{}\n", line.as_ref());
        self.reader.get_ref().write_all(line.as_bytes()).expect("the other side listens");
    }

    /// The next line; empty at the end.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("the other side speaks");
        line.trim_end().to_owned()
    }
}

/// A running role. Dropping it kills it.
pub(crate) struct Inside {
    pub(crate) child: Child,
    pub(crate) channel: Channel,
}

impl Inside {
    /// Waits for its end, which must be a good one.
    pub(crate) fn succeed(mut self) {
        let status = wait(&mut self.child);
        assert!(status.success(), "the role failed ({status}); see above");
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
