//! What a control plane is told, by one that writes it down.

use std::{cell::RefCell, rc::Rc};

use heddle_runtime::task::{run_local, spawn_contained};
use heddle_testkit::folder::Folder;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
};

use super::*;
use crate::mesh::{MeshPaths, RunRoot};

/// A control plane that is asked and, where it `answers`, agrees.
struct Control {
    _folder: Folder,
    membership: Membership,
    asked: Rc<RefCell<Vec<String>>>,
}

fn control(answers: bool) -> Control {
    let folder = Folder::new("membership");
    let paths: MeshPaths = RunRoot::at(folder.path()).mesh("m").unwrap();
    std::fs::create_dir(paths.run_dir()).unwrap();
    let listener = UnixListener::bind(paths.run_dir().join("control.sock")).unwrap();
    let asked = Rc::new(RefCell::new(Vec::new()));
    let written = Rc::clone(&asked);
    spawn_contained("control", async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let length = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            written.borrow_mut().push(head.lines().next().unwrap_or_default().to_owned());
            if answers {
                let body = r#"{"generation":1,"acknowledged":1,"pending":[]}"#;
                let answer =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            open.push(stream);
        }
    });
    Control { _folder: folder, membership: Membership::new(ControlClient::new(&paths)), asked }
}

fn id(name: &str) -> WorkloadId {
    WorkloadId(name.to_owned())
}

#[test]
fn a_withdrawal_is_repeated_to_a_control_plane_that_adopts() {
    run_local(async {
        let control = control(true);
        control.membership.adopt(Vec::new, || vec![id("web-1")]).await;
        assert_eq!(
            *control.asked.borrow(),
            ["POST /v1/adopt HTTP/1.1", "POST /v1/workloads/web-1/withdraw HTTP/1.1"]
        );
    })
    .unwrap();
}

#[test]
fn a_leave_waits_about_a_second_for_a_control_plane_that_hangs() {
    run_local(async {
        let control = control(false);
        let limit = LEAVE_WAIT + Duration::from_secs(2);
        assert_eq!(clock::within(limit, control.membership.leave(&id("web-1"))).await, Some(()));
        assert_eq!(control.asked.borrow().len(), 1);
    })
    .unwrap();
}

#[test]
fn at_the_end_of_the_mesh_nobody_is_told_who_leaves() {
    run_local(async {
        let control = control(true);
        control.membership.close();
        control.membership.leave(&id("web-1")).await;
        assert_eq!(*control.asked.borrow(), [""; 0]);
    })
    .unwrap();
}
