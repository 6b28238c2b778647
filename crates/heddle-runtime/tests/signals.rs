//! Signals come with their origin, and a child does not inherit that they are blocked.
//!
//! Without the usual harness: its threads would get the signals the old way.

use std::{
    env,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    process::{Command, ExitCode, Stdio},
};

use heddle_runtime::{
    process,
    signal::{Received, Signal, Signals},
    spawn::SpawnOptions,
    task,
};
use rustix::pty::{self, OpenptFlags};

/// A name and a function that says whether the test could run.
type Test = (&'static str, fn() -> bool);

const ROLE: &str = "HEDDLE_TEST_ROLE";

fn main() -> ExitCode {
    match env::var(ROLE).as_deref() {
        Ok("receive") => receive(),
        Ok(other) => panic!("no role {other}"),
        Err(_) => {
            let tests: [Test; 2] = [
                ("a_signal_names_its_sender_and_children_can_be_signalled", from_a_process),
                ("ctrl_c_on_a_terminal_is_told_as_such", from_a_terminal),
            ];
            say(&format!("\nrunning {} tests", tests.len()));
            let mut skipped = 0;
            for (name, test) in tests {
                let ran = test();
                skipped += usize::from(!ran);
                say(&format!("test {name} ... {}", if ran { "ok" } else { "ignored" }));
            }
            let passed = tests.len() - skipped;
            say(&format!(
                "\ntest result: ok. {passed} passed; 0 failed; {skipped} ignored; 0 measured; \
                 0 filtered out\n"
            ));
        }
    }
    ExitCode::SUCCESS
}

fn say(line: &str) {
    let mut out = io::stdout();
    out.write_all(line.as_bytes()).expect("stdout takes a line");
    out.write_all(b"\n").expect("stdout takes a line");
    out.flush().expect("stdout takes a line");
}

/// Tells of one SIGINT or SIGTERM, then how a child ended that sent SIGTERM to itself.
fn receive() {
    let received = task::run_local(async {
        let mut signals =
            Signals::redirect(&[Signal::INTERRUPT, Signal::TERMINATE]).expect("redirects");
        say("ready");
        signals.next().await.expect("a signal")
    });
    let Received { signal, from_terminal, sender } = received.expect("a runtime");
    say(&format!("{} {from_terminal} {sender}", signal.number()));
    let mut command = Command::new("sh");
    command.args(["-c", "kill -TERM $$; exit 0"]).stdin(Stdio::null());
    let mut child = SpawnOptions::new().spawn(command).expect("starts");
    say(&process::exit_code(child.wait().expect("waits")).to_string());
}

/// Lines of a child's output, up to one that is as said; then the two after it.
fn two_lines_after_ready(output: impl Read, then: impl FnOnce()) -> [String; 2] {
    let mut lines = BufReader::new(output).lines();
    let mut next = || {
        let line = lines.next().expect("more output").expect("reads");
        // A terminal echoes what is typed and ends its lines with a carriage return.
        line.trim().trim_start_matches("^C").to_owned()
    };
    while next() != "ready" {}
    then();
    [next(), next()]
}

fn from_a_process() -> bool {
    let mut child = Command::new(process::own_program())
        .env(ROLE, "receive")
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let told = two_lines_after_ready(child.stdout.take().expect("piped"), || {
        Signal::TERMINATE.send(child.id()).expect("sends");
    });
    let term = libc::SIGTERM;
    let sender = std::process::id();
    assert_eq!(told, [format!("{term} false {sender}"), (128 + term).to_string()]);
    assert!(child.wait().expect("waits").success());
    true
}

/// With setsid(1), which makes its standard input the terminal that signals come from.
fn from_a_terminal() -> bool {
    let (mut keyboard, screen) = terminal().expect("a terminal");
    let child = Command::new("setsid")
        .arg("--ctty")
        .arg(env::current_exe().expect("a path"))
        .env(ROLE, "receive")
        .stdin(screen.try_clone().expect("a second handle"))
        .stdout(screen)
        .spawn();
    let Ok(mut child) = child else {
        let line = b"SKIPPED ctrl_c_on_a_terminal_is_told_as_such: setsid(1) is not there\n";
        io::stderr().write_all(line).expect("stderr takes a line");
        return false;
    };
    let told = two_lines_after_ready(keyboard.try_clone().expect("a second handle"), || {
        keyboard.write_all(b"\x03").expect("types");
    });
    let term = libc::SIGTERM;
    assert_eq!(told, [format!("{} true 0", libc::SIGINT), (128 + term).to_string()]);
    // The keyboard is still there: a terminal that goes hangs up on whoever runs in it.
    let ended = child.wait().expect("waits");
    assert!(ended.success(), "{ended}");
    drop(keyboard);
    true
}

/// A terminal's two ends: what a person types and reads, and what a program sees.
fn terminal() -> io::Result<(File, File)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let keyboard = pty::openpt(flags)?;
    pty::grantpt(&keyboard)?;
    pty::unlockpt(&keyboard)?;
    let screen = pty::ioctl_tiocgptpeer(&keyboard, flags)?;
    Ok((keyboard.into(), screen.into()))
}
