//! What the kubelet runs in a sidecar's container: `heddle sidecar-ready`, which holds it, since a pod's next container
//! is started once this has ended, and `heddle sidecar-drain`, when the pod is to end.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use heddle_runtime::{clock, task};
use heddle_wire::local::proxy_config::{PORT_ADMIN, PORT_HEALTH};

use crate::{
    cli::pods::SidecarReadyArgs,
    failure::{Doing as _, Failure},
};

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// Limit of one.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// `heddle sidecar-ready`.
///
/// # Errors
/// A refusal with the last answer, when the time is over.
pub(crate) fn wait(args: &SidecarReadyArgs) -> Result<(), Failure> {
    let waited = task::run_local(async {
        let deadline = clock::now() + args.timeout;
        loop {
            let last = match ask(PORT_HEALTH, "GET /healthz/ready") {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") => return Ok(()),
                Ok(answer) => answer.lines().last().unwrap_or_default().to_owned(),
                Err(error) => error.to_string(),
            };
            if clock::now() >= deadline {
                let limit = args.timeout.as_secs_f64();
                return Err(Failure::refused(format!(
                    "the sidecar is not ready after {limit} s: {last}"
                )));
            }
            clock::sleep(PAUSE).await;
        }
    });
    waited.doing(|| "start the async runtime".to_owned())?
}

/// `heddle sidecar-drain`: callers of the pod are told to ask elsewhere, while it goes on answering.
///
/// # Errors
/// A refusal, where the sidecar does not take it: then it tells them when it ends itself.
pub(crate) fn drain() -> Result<(), Failure> {
    let answer = ask(PORT_ADMIN, "POST /drain").doing(|| "tell the sidecar".to_owned())?;
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(());
    }
    let first = answer.lines().next().unwrap_or_default();
    Err(Failure::refused(format!("the sidecar does not drain: {first}")))
}

/// A port's answer, its head and its text.
fn ask(port: u16, what: &str) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WAIT)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    let request = format!("{what} HTTP/1.1\r\nhost: sidecar\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
