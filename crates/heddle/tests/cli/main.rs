//! What can be typed wrongly, and what is said then: no mesh is needed or touched.
#![expect(
    clippy::unwrap_used,
    reason = "a test says best what it expected by failing there; skips are told"
)]

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

mod chart;

/// A folder of meshes that is empty, so that no mesh of the machine's user is seen.
struct NoMeshes(PathBuf);

impl NoMeshes {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("heddle-cli-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn heddle(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_heddle"))
            .args(words)
            .env("HEDDLE_RUNTIME_DIR", self.0.join("run"))
            // Nor is there a cluster.
            .env("KUBECONFIG", self.0.join("kubeconfig"))
            .output()
            .unwrap()
    }

    /// Exit code and standard error of a command that must not print to standard output.
    fn refused(&self, line: &str) -> (i32, String) {
        let output = self.heddle(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{line}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked"), "{line}: {said}");
        (output.status.code().unwrap(), said)
    }
}

impl Drop for NoMeshes {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Flags of what is started, and of what is asked, with a part of what is said about them.
const STARTING: [(&str, &str); 31] = [
    ("run --servce web -- true", "--service"),
    ("run --service web", "<CMD>"),
    ("run --service web curl x", "-- <CMD>"),
    ("run --service Web -- true", "a-z, 0-9"),
    ("run --service web_1 -- true", "a-z, 0-9"),
    ("run --service web --namespace a.b -- true", "--namespace"),
    ("run --service web --port 0 -- true", "1 to 65535"),
    ("run --service web --port 70000 -- true", "1 to 65535"),
    ("run --service web --port 15006 -- true", "15000 to 15090"),
    ("run --service web --host-port 15000 -- true", "15000 to 15090"),
    ("run --service web --port a_b:80 -- true", "[NAME:]NUMBER"),
    ("run --service web --port 80 --protocol htp -- true", "http, http2"),
    ("run --service web --protocol http -- true", "--port"),
    ("run --service web --port 80 --port 80 -- true", "--port 80 is given twice"),
    ("run --service web --port redis:80 --protocol http -- true", "--protocol says http"),
    ("run --service web --publish 8080 -- true", "[ADDR:]HOSTPORT:PORT"),
    ("run --service web --publish 8080:80 -- true", "add --port 80"),
    ("run --service web --label tier -- true", "KEY=VALUE"),
    ("run --service web --label app=x -- true", "--service"),
    ("run --service web --version a/b -- true", "label value"),
    ("up --mesh My_Mesh", "a-z, 0-9"),
    ("up --dashboard 8080", "ADDR:PORT"),
    ("up --colour blue", "--colour"),
    ("explain --from a", "--to"),
    ("explain --from a --to b:x", "HOST:PORT"),
    ("explain --from a --to http://b/", "HOST:PORT"),
    ("explain --from a --to b:80 --path x", "begins with a slash"),
    ("explain --from a --to b:80 --header end-user=jason", "'end-user: jason'"),
    ("explain --from a --to b:80 --method G(T", "no method"),
    ("why a;b", "x-request-id"),
    ("describe", "<SERVICE>"),
];
const ASKING: [(&str, &str); 39] = [
    ("apply", "--filename"),
    ("apply -f x.yaml --timeout soon", "500ms"),
    ("get elephants", "virtualservice"),
    ("get all x", "get KIND NAME"),
    ("delete", "-f FILE"),
    ("delete vs", "heddle delete vs <NAME>"),
    ("delete vs a --all", "either names"),
    ("delete vs a -A", "--selector"),
    ("delete --all", "<WHAT>"),
    ("delete rules.yaml", "heddle delete -f rules.yaml"),
    ("up mesh.yaml", "heddle up -f mesh.yaml"),
    ("up --quiet", "--filename"),
    ("top --sort colour", "latency"),
    ("graph --window 0", "`0` is too short"),
    ("traces --limit 501", "--limit"),
    ("traces --status 9xx", "--status"),
    ("tap --status 6xx", "--status"),
    ("logs --tail some", "--tail"),
    ("--mesh My_Mesh status", "a-z, 0-9"),
    ("delete workloads x", "no kind of rule"),
    ("get vs/a b", "`b` has no kind"),
    ("get vs a -A", "one namespace"),
    ("get vs -l a=b=c", "KEY=VALUE"),
    ("delete deployments x", "`deployments` is no kind"),
    ("top --output yaml", "text, json"),
    ("top --interval 0", "100 ms or more"),
    ("demo --rate nan", "0.1 to 2000"),
    ("wait --generation minus", "--generation"),
    ("top --mesh shop --context kind", "--context"),
    ("apply -f a.yaml --mesh shop --kubernetes", "--kubernetes"),
    ("status --mesh shop --revision canary", "--revision"),
    ("get -n shop -A", "--all-namespaces"),
    ("dashboard --port 0", "--port"),
    ("install --image a!b", "no name of an image"),
    ("install --cpu lots", "no quantity"),
    ("install --trust-domain A_b", "no domain"),
    ("install --replicas 0", "1..=100"),
    ("install --print --dry-run", "--dry-run"),
    ("unknown", "unrecognized subcommand"),
];

#[test]
fn wrong_flags_exit_with_2_and_name_what_would_be_right() {
    let machine = NoMeshes::new("flags");
    for (line, says) in STARTING.into_iter().chain(ASKING) {
        let (code, said) = machine.refused(line);
        assert_eq!(code, 2, "{line}: {said}");
        assert!(said.contains(says), "{line} should say `{says}`:\n{said}");
    }
}

#[test]
fn without_a_mesh_every_command_says_how_to_start_one() {
    let machine = NoMeshes::new("none");
    for line in [
        "run --service web -- true",
        "get",
        "delete vs reviews",
        "wait",
        "status",
        "proxy-status",
        "dashboard",
        "down",
        "top --once",
        "graph",
    ] {
        let (code, said) = machine.refused(line);
        assert_eq!(code, 1, "{line}: {said}");
        assert!(said.contains("heddle up"), "{line}: {said}");
        let (code, said) = machine.refused(&line.replacen(' ', " --mesh shop ", 1));
        if line.contains(' ') {
            assert_eq!(code, 1, "{line}: {said}");
            assert!(said.contains("heddle up --mesh shop"), "{line}: {said}");
        }
    }
}

#[test]
fn what_is_meant_is_told_where_there_is_neither_a_mesh_nor_a_cluster() {
    let machine = NoMeshes::new("neither");
    let (code, said) = machine.refused("top --once");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no mesh is running on this machine"), "{said}");
    assert!(said.contains("--kubeconfig and --context"), "{said}");
    let (code, said) = machine.refused("status --kubernetes");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("cannot be read (No such file or directory"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn the_current_context_is_meant_where_no_mesh_runs_and_that_is_told() {
    let machine = NoMeshes::new("context");
    std::fs::write(
        machine.0.join("kubeconfig"),
        "apiVersion: v1
kind: Config
current-context: far
clusters: [{name: far, cluster: {server: 'http://127.0.0.1:1'}}]
users: [{name: me, user: {token: x}}]
contexts: [{name: far, context: {cluster: far, user: me}}]
",
    )
    .unwrap();
    let (code, said) = machine.refused("get");
    assert_eq!(code, 1, "{said}");
    let mut lines = said.lines();
    let first = "heddle: no mesh is running on this machine: this is the cluster of context `far`";
    assert_eq!(lines.next(), Some(first));
    let second = lines.next().unwrap();
    assert!(
        second.contains("API server at http://127.0.0.1:1/ (context `far`) cannot be reached"),
        "{said}"
    );
    assert_eq!(lines.next(), None);
    let (_, said) = machine.refused("get --mesh shop");
    assert!(!said.contains("far"), "{said}");
}

#[test]
fn a_command_that_cannot_be_run_is_refused_as_a_shell_does() {
    let machine = NoMeshes::new("program");
    let (code, said) = machine.refused("run --service web -- no-such-program --flag");
    assert_eq!(code, 127, "{said}");
    assert!(said.contains("no-such-program"), "{said}");
    let (code, said) = machine.refused("run --service web -- /etc/passwd");
    assert_eq!(code, 126, "{said}");
    assert!(said.contains("not executable"), "{said}");
}

#[test]
fn manifests_are_printed_without_a_cluster_and_a_missing_kubeconfig_is_named() {
    let machine = NoMeshes::new("install");
    let printed = machine.heddle(&["install", "--print", "--image", "registry.example/heddle:1"]);
    assert!(printed.status.success(), "{printed:?}");
    let text = String::from_utf8(printed.stdout).unwrap();
    for part in
        ["kind: Namespace", "image: \"registry.example/heddle:1\"", "name: faults.heddle.dev"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let fewer = machine.heddle(&["install", "--print", "--skip-crds"]);
    let fewer = String::from_utf8(fewer.stdout).unwrap();
    assert!(fewer.contains("faults.heddle.dev") && !fewer.contains("virtualservices.networking"));
    for line in ["install --kubeconfig /nonexistent", "uninstall --kubeconfig /nonexistent"] {
        let (code, said) = machine.refused(line);
        assert_eq!(code, 1, "{line}: {said}");
        assert!(said.contains("/nonexistent"), "{line}: {said}");
    }
}

#[test]
fn files_that_cannot_be_applied_are_named() {
    let machine = NoMeshes::new("files");
    let (code, said) = machine.refused("apply -f /nonexistent.yaml");
    assert_eq!((code, said.contains("/nonexistent.yaml")), (1, true), "{said}");
    let empty = machine.0.join("empty");
    std::fs::create_dir_all(&empty).unwrap();
    let (code, said) = machine.refused(&format!("apply -f {}", empty.display()));
    assert_eq!((code, said.contains("holds no .yaml")), (1, true), "{said}");
    let binary = machine.0.join("binary.yaml");
    std::fs::write(&binary, [0x61, 0xff]).unwrap();
    let (code, said) = machine.refused(&format!("apply -f {}", binary.display()));
    assert_eq!((code, said.contains("no UTF-8 text (at byte 1)")), (1, true), "{said}");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let machine = NoMeshes::new("help");
    for (line, says) in [
        ("--help", "heddle [OPTIONS] <COMMAND>"),
        ("run --help", "--publish"),
        ("help apply", "--dry-run"),
        ("--version", env!("CARGO_PKG_VERSION")),
        ("version", env!("CARGO_PKG_VERSION")),
        ("version -o json", "\"version\""),
    ] {
        let output = machine.heddle(&line.split_whitespace().collect::<Vec<_>>());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{line}");
        assert!(said.contains(says), "{line}: {said}");
    }
    let help = String::from_utf8(machine.heddle(&["--help"]).stdout).unwrap();
    for hidden in ["holder", "netns-op", "  proxy ", "  app "] {
        assert!(!help.contains(hidden), "{hidden} is nobody's to type:\n{help}");
    }
}

#[test]
fn the_parts_of_a_mesh_refuse_to_be_started_by_hand() {
    let machine = NoMeshes::new("parts");
    for line in [
        "netns-op",
        "proxy --config /nonexistent.json",
        "holder --mesh x --state-dir /nonexistent --dashboard 127.0.0.1:0",
    ] {
        let (code, said) = machine.refused(line);
        assert_eq!(code, 1, "{line}: {said}");
    }
}

#[test]
fn a_sidecar_in_a_pod_names_all_that_its_environment_lacks_or_has_wrong() {
    let output = Command::new(env!("CARGO_BIN_EXE_heddle"))
        .args(["proxy", "--kubernetes"])
        .env("POD_NAMESPACE", "shop")
        .env("POD_IPS", "10.1.2")
        .env("HEDDLE_POD_INFO", "/nonexistent")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for problem in ["`POD_NAME` is not set", "`POD_IPS` is `10.1.2`", "/nonexistent/labels: "] {
        assert!(said.contains(problem), "{problem}: {said}");
    }
    assert!(!said.contains("POD_NAMESPACE"), "{said}");
}

#[test]
fn a_folder_of_meshes_that_is_not_ours_is_refused() {
    let machine = NoMeshes::new("owner");
    std::fs::write(machine.0.join("run"), "a file").unwrap();
    let (code, said) = machine.refused("status");
    assert_eq!((code, said.contains("must be a folder")), (1, true), "{said}");
}

#[test]
fn a_pods_rules_are_printed_without_being_written() {
    let machine = NoMeshes::new("init");
    let output = machine.heddle(&[
        "init",
        "--dry-run",
        "--proxy-uid",
        "1337",
        "--exclude-inbound-ports=8443",
        "--include-outbound-ranges=10.0.0.0/8",
        "--include-outbound-ports=443",
        "--no-dns",
    ]);
    let rules = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{rules}");
    for line in [
        "meta skuid 1337 return",
        "meta l4proto tcp th dport 443 redirect to :15001",
        "meta l4proto tcp ip daddr 10.0.0.0/8 redirect to :15001",
        "iifname != \"lo\" meta l4proto tcp th dport != { 8443, 15020, 15021, 15090 } redirect to :15006",
    ] {
        assert!(rules.contains(line), "{line}\n{rules}");
    }
    assert!(!rules.contains("15053"), "{rules}");
    let output = machine.heddle(&["init", "--dry-run", "--mode", "tproxy", "--pod-ips=10.0.0.1"]);
    let rules = String::from_utf8(output.stdout).unwrap();
    for line in [
        "ip saddr != 127.0.0.0/8 ip daddr 127.0.0.7/32 meta l4proto tcp dnat ip to 10.0.0.1",
        "# ip -4 rule add fwmark 0x539 lookup 133 priority 133",
    ] {
        assert!(rules.contains(line) && !rules.contains("ip6 saddr"), "{line}\n{rules}");
    }
    for (line, says) in [
        ("init --mode tproxy --pod-ips 10.0.0.1,10.0.0.2 --dry-run", "one address of each family"),
        ("init --mode tproxy --pod-ips web --dry-run", "`web` is no IP address"),
        ("init --exclude-outbound-ports=* --dry-run", "--exclude-outbound-ports: `*`"),
        ("init --include-inbound-ports=http --dry-run", "1 to 65535"),
        ("init --exclude-outbound-ranges=10.0.0.0/40 --dry-run", "`10.0.0.0/40` is no network"),
    ] {
        let (code, said) = machine.refused(line);
        assert!(code == 2 && said.contains(says), "{line}: {said}");
    }
}

/// A namespace as a pod's: of an ordinary user, with an address and nothing else.
#[test]
fn init_writes_the_rules_of_a_pod_and_proves_them_again_and_again() {
    let script = "ip link set lo up && ip address add 10.9.8.7/32 dev lo && \
                  \"$HEDDLE\" init --proxy-uid 4242 --proxy-gid 4242 && \
                  \"$HEDDLE\" init --proxy-uid 4242 --proxy-gid 4242";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", script])
        .env("HEDDLE", env!("CARGO_BIN_EXE_heddle"))
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skip(&format!("unshare: {error}")),
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("ip: not found") || said.contains("unshare: unshare failed") {
        return skip(&said);
    }
    assert!(output.status.success(), "{said}");
    for target in ["10.9.8.7:9", "10.9.8.7:53"] {
        let line = format!("proven: a call to {target} goes to the sidecar");
        assert_eq!(said.matches(&line).count(), 2, "{said}");
    }
}

/// Says so where the harness does not swallow it.
fn skip(why: &str) {
    let line =
        format!("SKIPPED init_writes_the_rules_of_a_pod_and_proves_them_again_and_again: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

const DEPLOYMENT: &str = "\
# A comment.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        image: web:1
";
const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web} # as written
spec: {ports: [{port: 80}]}
";

#[test]
fn inject_adds_the_sidecar_to_workloads_and_leaves_the_rest() {
    let machine = NoMeshes::new("inject");
    let file = machine.0.join("all.yaml");
    std::fs::write(&file, format!("{DEPLOYMENT}---\n{SERVICE}")).unwrap();
    let file = file.to_str().unwrap();
    let output = machine.heddle(&["inject", "-f", file]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with(&format!("\n---\n{SERVICE}")), "{text}");
    assert!(text.starts_with("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n"), "{text}");
    for part in [
        "      - name: heddle-init\n",
        "      - name: heddle-proxy\n",
        "        restartPolicy: Always\n",
        "service.istio.io/canonical-name: web\n",
        "        - name: HEDDLE_WORKLOAD_NAME\n          value: web\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // What came out goes in again and comes out the same.
    let again = machine.0.join("again.yaml");
    std::fs::write(&again, &text).unwrap();
    let output = machine.heddle(&["inject", "-f", again.to_str().unwrap()]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
    let output = machine.heddle(&["inject", "-f", file, "-o", "json"]);
    let list = String::from_utf8(output.stdout).unwrap();
    assert!(list.contains("\"kind\": \"List\"") && list.contains("\"heddle-proxy\""), "{list}");
}

#[test]
fn inject_names_file_line_and_object_of_what_it_refuses() {
    let machine = NoMeshes::new("inject-refused");
    let file = machine.0.join("bad.yaml");
    let annotations = "      annotations: {sidecar.istio.io/proxyCPU: lots}\n";
    let bad = DEPLOYMENT.replace("      labels: {app: web}\n", annotations);
    std::fs::write(&file, format!("{SERVICE}---\n{bad}")).unwrap();
    let (code, said) = machine.refused(&format!("inject -f {}", file.display()));
    let expected = format!(
        "{}:7: Deployment default/web: annotation sidecar.istio.io/proxyCPU: `lots` is no quantity",
        file.display()
    );
    assert!(code == 1 && said.contains(&expected), "{said}");
    let settings = machine.0.join("settings.yaml");
    std::fs::write(&settings, "imgae: x\n").unwrap();
    let line = format!("inject -f {} --settings {}", file.display(), settings.display());
    let (code, said) = machine.refused(&line);
    assert!(code == 1 && said.contains("unknown field `imgae`"), "{said}");
}

#[test]
fn completions_are_scripts_that_bash_reads_and_that_name_no_internal_command() {
    let machine = NoMeshes::new("completion");
    let script = machine.heddle(&["completion", "bash"]).stdout;
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(&script).unwrap();
    assert!(bash.wait().unwrap().success());
    for shell in ["bash", "zsh", "fish"] {
        let script = machine.heddle(&["completion", shell]).stdout;
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("proxy-status") && !script.contains("netns-op"), "{shell}");
    }
}

#[test]
fn an_example_of_the_binary_is_the_file_of_that_name() {
    let machine = NoMeshes::new("example");
    let printed = machine.heddle(&["example", "reviews-canary-1-percent"]).stdout;
    let file = include_str!("../../../../examples/reviews-canary-1-percent.yaml");
    assert_eq!(String::from_utf8(printed).unwrap().trim_end(), file.trim_end());
    let (code, said) = machine.refused("example reviews-cannary");
    assert!(code == 1 && said.contains("reviews-canary-1-percent"), "{said}");
}
