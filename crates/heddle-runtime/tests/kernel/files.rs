//! A workload's own mount namespace: files covered, sockets masked, nothing of it outside.

use std::{
    fs, io,
    os::unix::{
        fs::symlink,
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

use heddle_runtime::{
    capability::{CapabilitySet, Privileges},
    mount::MountPlan,
    spawn::SpawnOptions,
};

use heddle_testkit::folder::Folder;

use crate::world::{Channel, World, as_both_users};

as_both_users!(files_are_covered_even_dangling_links, covering, "look" => look);
as_both_users!(resolver_files_of_the_host_are_covered, resolver, "cat" => cat);

fn covering(world: &World) {
    let folder = Folder::new("mounts");
    let at = |name: &str| folder.join(name);
    fs::write(at("ours"), "ours").expect("writes");
    fs::write(at("plain"), "theirs").expect("writes");
    fs::write(at("aim"), "theirs").expect("writes");
    symlink("aim", at("link")).expect("links");
    symlink("nowhere", at("dangling")).expect("links");
    fs::create_dir(at("run")).expect("makes");
    let _in_folder = UnixListener::bind(at("run/socket")).expect("binds");
    let _alone = UnixListener::bind(at("socket")).expect("binds");

    let mut plan = MountPlan::new();
    for target in ["plain", "link", "dangling"] {
        plan.bind(&at("ours"), &at(target)).expect("a path");
    }
    for target in ["run", "socket", "absent"] {
        plan.mask(&at(target)).expect("a path");
    }
    let mut options = SpawnOptions::new();
    options.namespaces(&world.workload(10)).expect("descriptors");
    options.privileges(Privileges::Only(CapabilitySet::NONE)).mounts(plan);
    let inside = world.start(options, "look").expect("starts");
    inside.channel.say(folder.path().to_str().expect("text"));
    inside.succeed();

    assert_eq!(fs::read_to_string(at("plain")).expect("reads"), "theirs");
    assert_eq!(fs::read_to_string(at("link")).expect("reads"), "theirs");
    assert!(!at("dangling").exists());
    UnixStream::connect(at("run/socket")).expect("connects");
    UnixStream::connect(at("socket")).expect("connects");
}

fn look(mut channel: Channel) {
    let folder = channel.hear();
    let at = |name: &str| Path::new(&folder).join(name);
    for target in ["plain", "link", "dangling"] {
        assert_eq!(fs::read_to_string(at(target)).expect("reads"), "ours", "{target}");
        let error = fs::write(at(target), "x").expect_err("read-only");
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{target}");
    }
    assert_eq!(fs::read_to_string(at("aim")).expect("reads"), "theirs");
    assert_eq!(fs::read_dir(at("run")).expect("a folder").count(), 0);
    let error = UnixStream::connect(at("socket")).expect_err("masked");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

fn resolver(world: &World) {
    let folder = Folder::new("etc");
    for name in ["resolv.conf", "nsswitch.conf", "hosts"] {
        fs::write(folder.join(name), format!("# heddle's {name}\n")).expect("writes");
    }
    let before = fs::read("/etc/resolv.conf").unwrap_or_default();
    let (plan, missing) = MountPlan::for_workload(folder.path()).expect("a plan");
    let mut options = SpawnOptions::new();
    options.namespaces(&world.workload(10)).expect("descriptors");
    options.mounts(plan);
    let mut inside = world.start(options, "cat").expect("starts");
    for name in ["resolv.conf", "nsswitch.conf", "hosts"] {
        let path = Path::new("/etc").join(name);
        if !missing.contains(&path) {
            inside.channel.say(path.to_str().expect("text"));
            assert_eq!(inside.channel.hear(), format!("# heddle's {name}"));
        }
    }
    inside.channel.say("");
    assert_eq!(fs::read("/etc/resolv.conf").unwrap_or_default(), before);
}

/// Tells the first line of each file it is asked for.
fn cat(mut channel: Channel) {
    loop {
        let path = channel.hear();
        if path.is_empty() {
            return;
        }
        let text = fs::read_to_string(path).expect("reads");
        channel.say(text.lines().next().unwrap_or_default());
    }
}
