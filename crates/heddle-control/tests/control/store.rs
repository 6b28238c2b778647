//! A store that is damaged, in use, or on a full disk.

use std::{fs, process::Command};

use heddle_control::{ControlConfig, ControlError, StoreError};
use heddle_wire::local::control_api::ApplyResponse;

use crate::{
    plane::{Folder, Plane, documents, split, subsets},
    proxy::Follower,
};

fn run(config: ControlConfig) -> Result<(), ControlError> {
    std::thread::spawn(move || heddle_control::run_until(config, std::future::ready(())))
        .join()
        .expect("no panic")
}

#[tokio::test]
async fn a_damaged_store_ends_the_start_with_its_path_and_a_way_out() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    plane.apply(&split("reviews", &[("v1", 1)])).await.unwrap();
    plane.stop();
    let path = folder.path("state/control.redb");
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    let error = run(folder.config()).unwrap_err();
    assert!(matches!(error, ControlError::Store(StoreError::Damaged { .. })), "{error}");
    let text = error.to_string();
    assert!(text.contains("control.redb") && text.contains("move it away"), "{text}");
    assert_eq!(
        fs::read(&path).unwrap().len(),
        good.len() / 2,
        "it is left for whoever wants to look"
    );
    fs::write(&path, &good).unwrap();
    let plane = Plane::start(&folder).await;
    assert_eq!(plane.states().await.len(), 2);
}

#[tokio::test]
async fn a_second_control_plane_is_refused_and_the_first_goes_on() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let error = run(folder.config()).unwrap_err();
    assert!(matches!(error, ControlError::Store(StoreError::InUse { .. })), "{error}");
    let config = ControlConfig { state_dir: folder.path("other"), ..folder.config() };
    let error = run(config).unwrap_err();
    assert!(matches!(error, ControlError::Socket { .. }), "{error}");
    assert!(error.to_string().contains("running process"), "{error}");
    plane.apply(&split("reviews", &[("v1", 1)])).await.unwrap();
}

#[tokio::test]
async fn impossible_folders_and_ranges_end_the_start_with_a_reason() {
    let folder = Folder::new();
    fs::write(folder.path("file"), "").unwrap();
    let config = ControlConfig { state_dir: folder.path("file/state"), ..folder.config() };
    let error = run(config).unwrap_err();
    assert!(matches!(error, ControlError::Store(StoreError::Io { .. })), "{error}");
    let config = ControlConfig { run_dir: folder.path("absent"), ..folder.config() };
    assert!(matches!(run(config).unwrap_err(), ControlError::Socket { .. }));
    let mut config = folder.config();
    config.ranges.vip_v4.1 = 30;
    let error = run(config).unwrap_err();
    assert!(error.to_string().contains("240.240.0.0/30"), "{error}");
}

/// A small file system of its own, or `None` where that is not allowed.
struct SmallDisk<'a>(&'a Folder);

impl<'a> SmallDisk<'a> {
    fn mount(folder: &'a Folder) -> Option<Self> {
        let state = folder.path("state");
        fs::create_dir(&state).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(&state)
            .output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path("state")).output());
    }
}

#[tokio::test]
async fn on_a_full_disk_an_apply_is_refused_and_the_mesh_runs_on() {
    let folder = Folder::new();
    let Some(_disk) = SmallDisk::mount(&folder) else {
        eprintln!("SKIPPED: a full disk needs the right to mount a tmpfs (run as root)");
        return;
    };
    let plane = Plane::start(&folder).await;
    let me = plane.join_http("reviews", "v1").await.workload.id;
    let mut proxy = Follower::start(&plane, &me, &["reviews"]).await;
    plane.apply(&split("reviews", &[("v1", 1)])).await.unwrap();
    let ballast = folder.path("state/ballast");
    fill(&ballast);
    // Small edits may still find room in pages that are there already; large ones do not.
    let large = format!("{}  # {}\n", split("reviews", &[("v1", 9)]), "x".repeat(900_000));
    let request = documents(&large);
    let refusal = plane.post::<ApplyResponse>("/v1/apply", &request).await.unwrap_err();
    assert_eq!(refusal.status, 507);
    assert!(
        refusal.text().contains("nothing was changed") && refusal.text().contains("control.redb"),
        "{}",
        refusal.text()
    );
    let status = plane.status().await;
    assert!(status.problems.iter().any(|p| p.reason.contains("control.redb")), "{status:?}");
    assert_eq!(proxy.held().weights("reviews"), [1], "nothing half-applied");
    // The mesh goes on: members come and go, and proxies hear of it.
    let other = plane.join_http("reviews", "v2").await.workload.id;
    proxy.until(|held| format!("{held:?}").contains(&other.0)).await;
    let late = plane.join_http("late", "").await;
    fs::remove_file(&ballast).unwrap();
    plane.until(|status| status.problems.iter().all(|p| !p.reason.contains("control.redb"))).await;
    let answer = plane.apply(&split("reviews", &[("v1", 2)])).await.unwrap();
    assert!(answer.acknowledgement.pending.is_empty());
    assert_eq!(proxy.held().weights("reviews"), [2]);
    assert!(plane.status().await.problems.is_empty(), "{:?}", plane.status().await);
    plane.stop();
    fill(&ballast);
    let plane = Plane::start(&folder).await;
    let proxy = Follower::start(&plane, &me, &["reviews"]).await;
    assert_eq!(proxy.held().weights("reviews"), [2], "a restart on a full disk keeps the rules");
    drop(plane.apply(&subsets("other", &[])).await);
    fs::remove_file(&ballast).unwrap();
    plane.leave(&late.workload.id).await;
    plane.stop();
    fs::remove_file(folder.path("run/members.json")).unwrap();
    let plane = Plane::start(&folder).await;
    plane.join_http("first", "").await;
    let again = plane.join_http("late", "").await;
    assert_eq!(again.service, late.service, "what could not be written then was written later");
}

/// Takes all the room there is.
fn fill(ballast: &std::path::Path) {
    use std::io::Write;
    let mut file = fs::File::create(ballast).unwrap();
    let block = [0x55_u8; 4096];
    while file.write_all(&block).is_ok() {}
}
