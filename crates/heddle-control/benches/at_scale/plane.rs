//! The control plane: the built command as a process on a processor of its own.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use heddle_runtime::clock;
use heddle_testkit::folder::Folder;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Ticks of the kernel's clock in a second, as all Linux has them.
const TICKS: f64 = 100.0;
/// How often is looked whether it is ready.
const LOOK: Duration = Duration::from_millis(200);

/// It.
#[derive(Debug)]
pub(crate) struct Plane {
    process: Child,
    _folder: Folder,
}

impl Plane {
    /// Starts it before this API server.
    pub(crate) fn start(binary: &Path, api: SocketAddr) -> Self {
        let folder = Folder::new("at-scale");
        let config = folder.path().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: bench\nclusters:\n- name: bench\n  cluster: {{server: \"http://{api}\"}}\ncontexts:\n- name: bench\n  context: {{cluster: bench, user: bench}}\nusers:\n- name: bench\n  user: {{}}\n"
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(binary).args(["control", "--kubernetes", "--kubeconfig"]);
        command
            .arg(config)
            .env("HEDDLE_LOG", "error")
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        Self { process: command.spawn().unwrap(), _folder: folder }
    }

    /// Waits until it has read everything.
    pub(crate) async fn ready(&self) {
        while !is_ready().await {
            clock::sleep(LOOK).await;
        }
    }

    /// Its resident memory now and at most so far, MB.
    pub(crate) fn memory(&self) -> [f64; 2] {
        let status = self.proc("status");
        ["VmRSS:", "VmHWM:"].map(|key| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
            (kib / 102.4).round() / 10.0
        })
    }

    /// Processor time it has had.
    pub(crate) fn processor_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        let after = stat.rsplit(')').next().unwrap();
        let ticks: Vec<&str> = after.split_whitespace().collect();
        let [user, system]: [f64; 2] = [11, 12].map(|at: usize| ticks[at].parse().unwrap());
        (user + system) / TICKS
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.process.id())).unwrap()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn is_ready() -> bool {
    let Ok(mut stream) = TcpStream::connect("127.0.0.1:15014").await else { return false };
    let mut answer = String::new();
    let request = b"GET /healthz/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.is_ok()
        && stream.read_to_string(&mut answer).await.is_ok()
        && answer.starts_with("HTTP/1.1 200")
}
