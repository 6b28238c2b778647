//! The running demo as the bed of a bench: started unattended, ended by itself, its JSON read.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::command::{program, root};

/// A demo in a mesh of its own.
#[derive(Debug)]
pub(super) struct Demo {
    binary: PathBuf,
    mesh: String,
    front: SocketAddr,
    child: Child,
}

impl Demo {
    /// Starts the demo for `seconds` and returns when every edge works.
    pub(super) fn start(
        binary: &Path,
        mesh: &str,
        seconds: u64,
        rate: u64,
        config: Option<&Path>,
    ) -> Result<Self, String> {
        // The port is free now; the demo takes it within milliseconds.
        let front = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let front = front.map_err(|e| e.to_string())?;
        let mut command = program(&binary.to_string_lossy(), &["demo", "--mesh", mesh]);
        command.args(["--output", "json", "--for", &format!("{seconds}s"), "--trace-to", "none"]);
        command.args(["--rate", &rate.to_string(), "--publish", &front.to_string()]);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|e| format!("heddle demo: {e}"))?;
        let stderr = child.stderr.take().ok_or("no stderr")?;
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let up = lines.by_ref().any(|line| {
            let up = line.contains("the demo runs");
            said.push(line);
            up
        });
        if !up {
            drop(child.wait());
            return Err(format!("the demo did not start:\n{}", said.join("\n")));
        }
        // Nobody may be left writing into a full pipe.
        thread::spawn(move || lines.for_each(drop));
        Ok(Self { binary: binary.to_owned(), mesh: mesh.to_owned(), front, child })
    }

    /// `heddle WORDS --mesh …`, for the caller to run.
    pub(super) fn heddle(&self, words: &[&str]) -> Command {
        let mut command = program(&self.binary.to_string_lossy(), &words[..1]);
        command.args(["--mesh", &self.mesh]).args(&words[1..]).current_dir(root());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `heddle WORDS` and returns what it printed.
    ///
    /// # Errors
    /// What it said where it did not succeed.
    pub(super) fn call(&self, words: &[&str]) -> Result<String, String> {
        let output =
            self.heddle(words).output().map_err(|e| format!("heddle {}: {e}", words[0]))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("heddle {}: {}", words[0], String::from_utf8_lossy(&output.stderr)))
    }

    /// The mesh's own state.
    pub(super) fn status(&self) -> Result<Value, String> {
        let text = self.call(&["status", "--output", "json"])?;
        serde_json::from_str(&text).map_err(|e| format!("heddle status: {e}"))
    }

    /// The whole answer of `GET path` with one extra header, from the published application.
    pub(super) fn get(&self, path: &str, header: &str) -> Result<String, String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.front)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: front\r\n{header}\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().map_err(|e| format!("GET {path}: {e}"))
    }

    /// Waits for the demo's own end: its JSON and whether it called itself a success.
    pub(super) fn finish(mut self) -> Result<(Value, bool), String> {
        let mut text = String::new();
        let stdout = self.child.stdout.take().ok_or("no stdout")?;
        BufReader::new(stdout).read_to_string(&mut text).map_err(|e| e.to_string())?;
        let status = self.child.wait().map_err(|e| e.to_string())?;
        let report =
            serde_json::from_str(&text).map_err(|e| format!("the demo's JSON: {e}: {text}"))?;
        Ok((report, status.success()))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // In order, so that nothing is left: the demo ends its mesh on SIGTERM.
            drop(Command::new("kill").arg(self.child.id().to_string()).status());
            drop(self.child.wait());
        }
    }
}

/// A kept-alive connection to the published application, for as long as nobody closes it.
#[derive(Debug)]
pub(super) struct HeldConnection(BufReader<TcpStream>);

impl HeldConnection {
    /// Opens it.
    pub(super) fn open(demo: &Demo) -> Result<Self, String> {
        let open = || -> std::io::Result<TcpStream> {
            let stream = TcpStream::connect(demo.front)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            Ok(stream)
        };
        open().map(|stream| Self(BufReader::new(stream))).map_err(|e| e.to_string())
    }

    /// One request and its whole answer.
    ///
    /// # Errors
    /// A connection that was closed or reset, or an answer that is no success.
    pub(super) fn call(&mut self, path: &str) -> Result<Vec<u8>, String> {
        let broke = |error: std::io::Error| format!("GET {path}: {error}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: front\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).map_err(broke)?;
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).map_err(broke)? == 0 {
                return Err(format!("GET {path}: the connection was closed"));
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_ascii_lowercase());
        }
        let length = head.iter().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.and_then(|text| text.trim().parse::<usize>().ok());
        let success = head.first().is_some_and(|line| line.contains(" 200 "));
        let (true, Some(length)) = (success, length) else {
            return Err(format!("GET {path}: {}", head.join(" | ")));
        };
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).map_err(broke)?;
        Ok(body)
    }
}

/// The first number under this key, wherever it stands.
pub(super) fn find_number(value: &Value, key: &str) -> Option<u64> {
    let Value::Object(map) = value else { return None };
    let here = map.get(key).and_then(Value::as_u64);
    here.or_else(|| map.values().find_map(|inner| find_number(inner, key)))
}
