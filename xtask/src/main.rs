//! Build tasks: `cargo xtask ci`, `cargo xtask tidy`, `cargo xtask deny`, `cargo xtask bench NAME`,
//! `cargo xtask kube`, `cargo xtask conformance`.
//!
//! Nothing here is part of the product; it has no dependency on the product's crates.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a task runner talks to a terminal")]

mod bench;
mod ci;
mod command;
mod deny;
mod kube;
mod python;
mod tidy;
mod time;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask TASK

  ci                         everything a change must pass; installs Debian packages it needs when root
  tidy                       crate arrows, floors inside crates, lengths, module docs, ARCHITECTURE.md
  deny                       licences, origin and number of the dependencies
  bench http1                CPU per request against a bare relay, HAProxy, nginx, Envoy, another heddle
  bench churn                load while rules change and control dies
  bench edits                from `apply` to the last acknowledgement
  bench [NAME] --help        the options of the benches
  kube up|down|status|test   a real Kubernetes of one node, and the tests that run in it
  kube --help                what else can be done with it
  conformance                the Gateway API's conformance suite, in such a cluster
  conformance --help         what it needs, and its options";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["ci"] => ci::check_all(),
        ["tidy"] => tidy::run(),
        ["deny"] => deny::run(),
        ["bench"] => bench::run("--help", &[]),
        ["bench", name, options @ ..] => bench::run(name, options),
        ["kube", words @ ..] => kube::run(words),
        ["conformance", words @ ..] => kube::run_suite(words),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => Err(format!("`{}` is no task\n\n{USAGE}", other.join(" "))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
