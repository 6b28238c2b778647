//! What is made is gone afterwards: descriptors, processes, links, namespaces.

use std::fs;

use heddle_runtime::{
    capability::Privileges,
    netlink::{Netlink, NetlinkError},
    ns::{Mode, Namespaces},
    process, task,
};

use crate::world::{Channel, World, as_both_users, workload_net};

as_both_users!(workloads_leave_nothing_behind, many, "links" => links);
as_both_users!(a_refused_workload_leaves_nothing_behind, refused, "links" => links);
as_both_users!(a_mesh_leaves_nothing_behind, mesh);

/// Tells on each line how many links of workloads the hub has.
fn links(mut channel: Channel) {
    let mut netlink = Netlink::open().expect("opens");
    while channel.hear() == "count" {
        let count = (0..=99)
            .filter(|number| exists(&mut netlink, &format!("w{number}")).expect("asks"))
            .count();
        channel.say(count.to_string());
    }
}

fn exists(netlink: &mut Netlink, link: &str) -> Result<bool, NetlinkError> {
    match netlink.link_index(link) {
        Ok(_) => Ok(true),
        Err(error) if error.source.raw_os_error() == Some(libc::ENODEV) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Open descriptors and children of this process, zombies included.
fn owned() -> (usize, usize) {
    let fds = fs::read_dir("/proc/self/fd").expect("looks").count();
    let own = std::process::id().to_string();
    let is_child = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        after_name.split_ascii_whitespace().nth(1) == Some(&own)
    };
    let children = fs::read_dir("/proc")
        .expect("looks")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter(|name| name.parse::<u32>().is_ok() && is_child(name))
        .count();
    (fds, children)
}

fn many(world: &World) {
    let mut hub = world.inside(world.hub.namespaces(), Privileges::Unchanged, "links");
    let mut count = || {
        hub.channel.say("count");
        hub.channel.hear().parse::<usize>().expect("a number")
    };
    assert_eq!(count(), 0);
    let workloads: Vec<_> = (10..20).map(|number| world.workload(number)).collect();
    assert_eq!(count(), 10);
    drop(workloads);
    // The kernel takes a namespace down some time after its last descriptor; with it goes the link.
    let mut passes = 0;
    while count() > 0 {
        passes += 1;
        assert!(passes < 100_000, "the namespaces do not end");
        std::thread::yield_now();
    }

    let before = owned();
    for number in 20..25 {
        let workload = world.workload(number);
        task::run_local(world.hub.delete_workload(format!("w{number}")))
            .expect("a runtime")
            .expect("deletes");
        assert_eq!(count(), 0);
        task::run_local(world.hub.delete_workload(format!("w{number}")))
            .expect("a runtime")
            .expect("deleting what is gone is no error");
        drop(workload);
    }
    assert_eq!(owned(), before);
}

fn refused(world: &World) {
    let mut hub = world.inside(world.hub.namespaces(), Privileges::Unchanged, "links");
    let kept = world.workload(10);
    let before = owned();
    // Its link's name is taken, and its addresses' bridge does not exist.
    let mut other_bridge = workload_net(11);
    other_bridge.bridge = "nobridge".to_owned();
    for wrong in [workload_net(10), other_bridge] {
        let error = task::run_local(world.hub.create_workload(wrong))
            .expect("a runtime")
            .expect_err("refused");
        let text = error.to_string();
        assert!(text.contains("w10") || text.contains("nobridge"), "{text}");
    }
    assert_eq!(owned(), before);
    hub.channel.say("count");
    assert_eq!(hub.channel.hear(), "1");
    drop(kept);
}

fn mesh(world: &World) {
    let before = owned();
    for _ in 0..5 {
        let namespaces = Namespaces::create(Mode::of_caller()).expect("makes");
        let net = namespaces.net_id().expect("knows");
        assert_eq!(process::in_netns(net, &[]).expect("looks"), [0; 0]);
        drop(namespaces);
    }
    let workload = world.workload(10);
    let net = workload.net_id().expect("knows");
    // The process that made it has ended; only the descriptor holds it.
    assert_eq!(process::in_netns(net, &[]).expect("looks"), [0; 0]);
    drop(workload);
    assert_eq!(owned(), before);
}
