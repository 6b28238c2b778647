//! What a machine refuses is told with its remedy, and a mark is not for everybody.

use std::{fs, net::UdpSocket};

use heddle_runtime::{
    capability::{Capability, CapabilitySet, Privileges},
    net,
    ns::Mode,
    preflight,
};

use crate::world::{Channel, MARK, SIDECAR, World, as_both_users};

as_both_users!(this_machine_can_run_a_mesh, able);
as_both_users!(a_namespace_limit_is_named, limited, "limited" => below_limit);
as_both_users!(only_a_sidecar_may_mark, marking, "mark" => mark);

fn able(_world: &World) {
    preflight::check().expect("it can");
}

fn limited(world: &World) {
    if Mode::of_caller() == Mode::Root {
        // Root's own limit is the machine's: not to be changed by a test.
        return;
    }
    world.inside(world.hub.namespaces(), Privileges::All, "limited").succeed();
}

/// Limits the user namespace it is in.
fn below_limit(_channel: Channel) {
    fs::write("/proc/sys/user/max_user_namespaces", "0").expect("may, in its own namespace");
    let missing = preflight::check().expect_err("none is left");
    let text = missing.to_string();
    assert!(text.contains("user.max_user_namespaces is 0"), "{text}");
    assert!(text.starts_with("cannot make a user namespace"), "{text}");
}

fn marking(world: &World) {
    let workload = world.workload(10);
    let none = Privileges::Only(CapabilitySet::NONE);
    let but_net = [Capability::NetAdmin, Capability::NetRaw];
    for (privileges, expected) in [
        (SIDECAR, "may"),
        (none, "may not"),
        (Privileges::AllBut(CapabilitySet::of(&but_net)), "may not"),
    ] {
        let mut inside = world.inside(&workload, privileges, "mark");
        assert_eq!(inside.channel.hear(), expected, "{privileges:?}");
    }
}

fn mark(channel: Channel) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let may = match net::set_mark(&socket, MARK) {
        Ok(()) => "may",
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => "may not",
        Err(error) => panic!("{error}"),
    };
    channel.say(may);
}
