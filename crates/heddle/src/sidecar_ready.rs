//! `heddle sidecar-ready`: holds the kubelet, which starts a pod's next container once this has ended.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use heddle_runtime::{clock, task};
use heddle_wire::local::proxy_config::PORT_HEALTH;

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
            let last = match ask() {
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

/// The health port's answer, its head and its text.
fn ask() -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_HEALTH));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WAIT)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    stream
        .write_all(b"GET /healthz/ready HTTP/1.1\r\nhost: sidecar\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
