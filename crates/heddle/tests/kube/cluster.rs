//! The cluster under test, through its `kubectl`, and the mesh in it, installed once by the real command.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use heddle_testkit::wait::wait_for;

/// The image that `cargo xtask kube load` puts into the cluster.
const HEDDLE_IMAGE: &str = "heddle.dev/heddle:dev";
/// Flags of `heddle install` for it.
pub(crate) const IMAGE_FLAGS: [&str; 4] = ["--image", HEDDLE_IMAGE, "--image-pull-policy", "Never"];
/// The mesh's own namespace.
pub(crate) const SYSTEM: &str = "heddle-system";
/// How long a rollout may take, as `kubectl` writes it. The node has two cores for everything.
const PATIENCE: &str = "--timeout=120s";

/// Installs once for all tests of this process; what was said is kept, for each test to fail with.
static INSTALLED: LazyLock<Result<(), String>> = LazyLock::new(|| {
    let output = heddle(&[&["install"], &IMAGE_FLAGS[..]].concat());
    if output.status.success() { Ok(()) } else { Err(told(&output)) }
});

/// Is there a cluster to test in?
pub(crate) fn is_there() -> bool {
    let there = std::env::var_os("HEDDLE_KUBE").is_some();
    if !there {
        eprintln!("SKIPPED: there is no cluster; run `cargo xtask kube test`");
    }
    there
}

/// A namespace of a test's own, in a cluster with the mesh; `None` where there is no cluster.
pub(crate) fn in_mesh(test: &str) -> Option<Namespace> {
    in_namespace(test, "heddle.dev/inject: \"true\"")
}

/// The same with another label.
pub(crate) fn in_namespace(test: &str, label: &str) -> Option<Namespace> {
    if !is_there() {
        return None;
    }
    install();
    Some(Namespace::new(test, label))
}

/// The mesh is there after this.
pub(crate) fn install() {
    if let Err(said) = &*INSTALLED {
        panic!("heddle install: {said}\n{}", logs(SYSTEM, "deployment/heddle-control"));
    }
}

/// The built command.
pub(crate) fn heddle(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heddle")).args(arguments).output().unwrap()
}

/// `kubectl` with these arguments.
pub(crate) fn kubectl(arguments: &[&str]) -> Output {
    Command::new("kubectl").args(arguments).output().unwrap()
}

/// Ends a component of the cluster as a crash would, and starts it again.
pub(crate) fn restart(component: &str) {
    let [xtask, name] = ["HEDDLE_XTASK", "HEDDLE_KUBE"].map(|key| std::env::var(key).unwrap());
    let arguments = ["kube", "--name", &name, "restart", component];
    let output = Command::new(xtask).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
}

/// What `kubectl` answers.
pub(crate) fn asked(arguments: &[&str]) -> String {
    let output = kubectl(arguments);
    assert!(output.status.success(), "kubectl {}: {}", arguments.join(" "), told(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Everything a command said.
pub(crate) fn told(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{}{}", output.status, out, err)
}

/// What all containers of a pod, or of one of a Deployment's pods, have logged last.
pub(crate) fn logs(namespace: &str, of: &str) -> String {
    let output =
        kubectl(&["logs", "-n", namespace, of, "--all-containers", "--prefix", "--tail=20"]);
    told(&output)
}

/// The metrics of the sidecars of a namespace's pods with a label.
pub(crate) fn metrics_of(namespace: &str, selector: &str) -> String {
    let lines = "jsonpath={range .items[*]}{.status.podIP}{\"\\n\"}{end}";
    let addresses = asked(&["get", "pods", "-n", namespace, "-l", selector, "-o", lines]);
    let page = |address: &str| {
        let url = format!("http://{address}:15090/stats/prometheus");
        let output = Command::new("curl").args(["-sf", "--max-time", "5", &url]).output().unwrap();
        assert!(output.status.success(), "{url}: {}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    addresses.lines().map(page).collect()
}

/// A namespace that goes when its test ends.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    fn new(test: &str, label: &str) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}-{number}-{test}", std::process::id());
        let namespace = Self { name };
        namespace.apply_as_is(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {}\n  labels: {{{label}}}\n",
            namespace.name
        ));
        // Pods are refused before it is there.
        wait_for("the namespace has its account", || {
            let found = kubectl(&["get", "serviceaccount", "default", "-n", &namespace.name]);
            found.status.success().then_some(())
        });
        namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Puts objects in force in it.
    pub(crate) fn apply(&self, yaml: &str) {
        self.apply_as_is(yaml);
    }

    fn apply_as_is(&self, yaml: &str) {
        let mut command = Command::new("kubectl");
        command.args(["apply", "--server-side", "-n", &self.name, "-f", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}\n{yaml}", told(&output));
    }

    /// What `kubectl` answers about it.
    pub(crate) fn asked(&self, arguments: &[&str]) -> String {
        asked(&[&["-n", &self.name], arguments].concat())
    }

    /// `kubectl` about it, whatever comes of it.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Output {
        kubectl(&[&["-n", &self.name], arguments].concat())
    }

    /// Waits until all pods of a Deployment or StatefulSet are ready.
    pub(crate) fn rolled_out(&self, what: &str) {
        let output = self.kubectl(&["rollout", "status", what, PATIENCE]);
        assert!(output.status.success(), "{}\n{}", told(&output), self.picture());
    }

    /// Waits until a condition of an object holds.
    pub(crate) fn comes_to_be(&self, condition: &str, what: &str) {
        let output = self.kubectl(&["wait", &format!("--for={condition}"), what, PATIENCE]);
        assert!(output.status.success(), "{}\n{}", told(&output), self.picture());
    }

    /// Waits until the containers of all pods with a label run, ready or not.
    pub(crate) fn runs(&self, label: &str) {
        let phases = ["get", "pods", "-l", label, "-o", "jsonpath={.items[*].status.phase}"];
        wait_for("the pods run", || {
            let said = self.asked(&phases);
            (!said.is_empty() && said.split(' ').all(|phase| phase == "Running")).then_some(())
        });
    }

    /// Runs a shell's script in a container of the application.
    pub(crate) fn run(&self, what: &str, script: &str) -> String {
        self.asked(&["exec", what, "-c", "app", "--", "sh", "-c", script])
    }

    /// The address of the first pod with a label.
    pub(crate) fn address(&self, selector: &str) -> String {
        self.asked(&["get", "pods", "-l", selector, "-o", "jsonpath={.items[0].status.podIP}"])
    }

    /// A field of an object, as `kubectl` writes its path.
    pub(crate) fn field(&self, what: &str, path: &str) -> String {
        self.asked(&["get", what, "-o", &format!("jsonpath={{{path}}}")])
    }

    /// The metrics of a pod's sidecar, as a scraper gets them.
    pub(crate) fn metrics(&self, selector: &str) -> String {
        metrics_of(&self.name, selector)
    }

    /// For a test that fails: its pods, what happened to them, and what sidecars and control plane said.
    pub(crate) fn picture(&self) -> String {
        let pods = told(&self.kubectl(&["get", "pods", "-o", "wide"]));
        let events = told(&self.kubectl(&["get", "events", "--sort-by=.lastTimestamp"]));
        let names = self.kubectl(&["get", "pods", "-o", "name"]);
        let names = String::from_utf8_lossy(&names.stdout).into_owned();
        let said: String = names.lines().map(|pod| logs(&self.name, pod)).collect();
        format!("{pods}\n{events}\n{said}\n{}", logs(SYSTEM, "deployment/heddle-control"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(kubectl(&["delete", "namespace", &self.name, "--wait=false"]));
    }
}

/// The sum of all samples of a counter that carry all of these labels.
pub(crate) fn count(metrics: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let wanted: Vec<_> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    let of_counter = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let fitting = of_counter.filter(|line| wanted.iter().all(|label| line.contains(label)));
    fitting.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn counters_are_summed_by_their_labels() {
    let page =
        "# HELP x y\nx_total{a=\"1\",b=\"2\"} 3\nx_total{a=\"1\",b=\"3\"} 4\nx_totals{a=\"1\"} 9\n";
    assert!((count(page, "x_total", &[("a", "1")]) - 7.0).abs() < f64::EPSILON);
    assert!((count(page, "x_total", &[("a", "1"), ("b", "3")]) - 4.0).abs() < f64::EPSILON);
}
