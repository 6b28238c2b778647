//! The same commands as on one machine, against a cluster: through the kubeconfig and nothing else.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use heddle_testkit::wait::{wait_for, wait_until};
use serde_json::Value;

use crate::{
    apps::{calls, client, server, service},
    cluster::{Namespace, SYSTEM, asked, heddle, in_mesh, in_namespace, kubectl, told},
};

/// A server and a client, which has called it.
fn application(test: &str) -> Option<Namespace> {
    let namespace = in_mesh(test)?;
    namespace.apply(&(server("web-v1", "web", "v1").yaml() + &service("web") + &client().yaml()));
    namespace.rolled_out("deployment/web-v1");
    namespace.rolled_out("deployment/client");
    wait_until("the observer is ready", || {
        let ready = "jsonpath={.status.readyReplicas}";
        asked(&["get", "deployment/heddle-observe", "-n", SYSTEM, "-o", ready]) == "1"
    });
    Some(namespace)
}

/// What a command prints of the cluster's mesh.
fn said(arguments: &[&str]) -> String {
    let output = heddle(&[arguments, &["--kubernetes"]].concat());
    assert!(output.status.success(), "heddle {}: {}", arguments.join(" "), told(&output));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn document(arguments: &[&str]) -> Value {
    serde_json::from_str(&said(&[arguments, &["-o", "json"]].concat())).unwrap()
}

fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", told(output));
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A file that goes with its test.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{}-{name}.yaml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

#[test]
fn traces_of_calls_between_pods_are_kept_by_the_observer() {
    let Some(namespace) = application("traced") else { return };
    namespace.apply(
        "apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: all}
spec:
  tracing:
  - randomSamplingPercentage: 100
",
    );
    let service = format!("web.{}", namespace.name());
    wait_until("a trace has both sides of a call", || {
        namespace.run("deployment/client", &calls(1, "http://web/"));
        let found = document(&["traces", &service]);
        found["traces"].as_array().unwrap().iter().any(|one| one["span_count"] == 2)
    });
}

#[test]
fn top_and_graph_show_the_calls_between_pods() {
    let Some(namespace) = application("seen") else { return };
    let name = namespace.name();
    wait_until("top counts calls of both sides", || {
        namespace.run("deployment/client", &calls(20, "http://web/"));
        let rows = document(&["top", "-n", name]);
        let rows = rows.as_array().unwrap();
        assert!(rows.iter().all(|row| row["service"]["namespace"] == name), "{rows:?}");
        let web = rows.iter().find(|row| row["service"]["name"] == "web");
        let counted =
            |side: &str| web.is_some_and(|web| web[side]["per_second"].as_f64() > Some(0.0));
        counted("client") && counted("server")
    });
    assert!(said(&["top", "-n", name]).contains(&format!("web.{name}")));
    let graph = document(&["graph", "-n", name]);
    let edges = graph["edges"].as_array().unwrap();
    let is = |end: &Value, service: &str| end["name"] == service && end["namespace"] == name;
    let edge =
        edges.iter().filter(|one| is(&one["source"], "client") && is(&one["destination"], "web"));
    assert_eq!(edge.count(), 1, "{graph}");
    assert!(said(&["graph", "-n", name]).contains(&format!("-> web.{name}")));
}

#[test]
fn a_call_between_pods_is_explained_and_a_refusal_found_by_its_id() {
    let Some(namespace) = application("explained") else { return };
    let name = namespace.name();
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: web, namespace: {name}}}\nspec: {{hosts: [web], http: [{{match: [{{uri: {{prefix: /known}}}}], route: [{{destination: {{host: web}}}}]}}]}}\n"
    );
    let file = File::new("explained", &rule);
    said(&["apply", "-f", file.path()]);
    let caller = format!("client.{name}");
    let asked =
        |path: &str| document(&["explain", "--from", &caller, "--to", "web:80", "--path", path]);
    let known = asked("/known");
    let decided = format!("VirtualService/{name}/web#http[0]");
    assert_eq!(known["rule"]["rule"], decided, "{known}");
    assert_eq!(known["targets"][0]["endpoints"][0]["state"], "in use", "{known}");
    assert_eq!(known["live"], true, "{known}");
    assert_eq!(asked("/other")["refusal"]["code"], "no-route");
    namespace.run(
        "deployment/client",
        "wget -q -O - --header 'x-request-id: in-a-pod' http://web/other || true",
    );
    let found = document(&["why", "in-a-pod", "-n", name]);
    assert_eq!(found["refusals"][0]["code"], "no-route", "{found}");
    let described = said(&["describe", "web", "-n", name]);
    assert!(described.contains(&decided) && described.contains("web-v1"), "{described}");
}

#[test]
fn status_tells_who_leads_and_which_proxies_run_what_and_what_is_wrong_first() {
    let Some(namespace) = application("status") else { return };
    let name = namespace.name();
    let Some(bare) = in_namespace("bare", "a: b") else { return };
    bare.apply(&client().yaml());
    bare.rolled_out("deployment/client");
    asked(&["label", "namespace", bare.name(), "heddle.dev/inject=true"]);
    let text = wait_for("the pod without its sidecar is named", || {
        let text = said(&["status"]);
        text.contains(&format!("problem: pod {}/client-", bare.name())).then_some(text)
    });
    assert!(text.starts_with("problem: "), "{text}");
    assert!(text.contains("ready, heddle-control-") && text.contains(" leads\n"), "{text}");
    wait_until("both proxies run the newest rules", || {
        let proxies = document(&["proxy-status", "-n", name]);
        let proxies = proxies["proxies"].as_array().unwrap();
        proxies.len() == 2
            && proxies.iter().all(|one| one["state"] == "in force" && one["control"].is_string())
    });
    let workloads = said(&["get", "workloads", "-n", name]);
    assert_eq!(workloads.matches(" generation ").count(), 2, "{workloads}");
    let others = said(&["get", "workloads", "-n", bare.name()]);
    assert!(others.contains("no sidecar"), "{others}");
    said(&["wait"]);
}

#[test]
fn apply_returns_when_the_rule_is_in_force_and_a_bad_file_changes_nothing() {
    let Some(namespace) = application("apply") else { return };
    let name = namespace.name();
    let rule = |status: u16| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web}}
spec:
  hosts: [web]
  http:
  - fault: {{abort: {{percentage: {{value: 100}}, httpStatus: {status}}}}}
    route: [{{destination: {{host: web}}}}]
"
        )
    };
    let ask =
        || namespace.run("deployment/client", "timeout 10 wget -q -O - http://web/ 2>&1; true");
    // The proxy is asked by a rule only of what it has called.
    assert_eq!(ask(), "v1\n");
    let (good, bad) =
        (File::new("good", &rule(500)), File::new("bad", &(rule(501) + "---\n" + &rule(5000))));
    let key = format!("VirtualService/{name}/web");
    let text = said(&["apply", "-n", name, "-f", good.path(), "--dry-run"]);
    assert_eq!(text, format!("{key} created (dry run)\nnothing was changed\n"));
    assert_eq!(ask(), "v1\n");
    let text = said(&["apply", "-n", name, "-f", good.path()]);
    assert!(text.starts_with(&format!("{key} created\ngeneration ")), "{text}");
    assert!(ask().contains("HTTP/1.1 500"), "it is in force when `apply` returns");
    let text = said(&["apply", "-n", name, "-f", good.path()]);
    assert!(text.starts_with(&format!("{key} unchanged\n")), "{text}");
    let output = heddle(&["apply", "--kubernetes", "-n", name, "-f", bad.path()]);
    let wanted = format!("{}:16: spec.http[0].fault.abort.httpStatus: ", bad.path());
    assert!(refusal(&output).contains(&wanted), "{}", told(&output));
    assert!(ask().contains("HTTP/1.1 500"), "the rule before it stays in force");
    let shown = said(&["get", "vs", "web", "-n", name, "-o", "yaml"]);
    assert!(shown.contains("httpStatus: 500"), "{shown}");
    let text = said(&["delete", "vs", "web", "-n", name]);
    assert!(text.starts_with(&format!("{key} deleted\n")), "{text}");
    assert_eq!(ask(), "v1\n");
    let output = heddle(&["delete", "--kubernetes", "vs", "web", "-n", name]);
    assert!(refusal(&output).contains(&format!("there is no {key}")), "{}", told(&output));
}

#[test]
fn a_fault_and_a_split_are_made_and_cleared() {
    let Some(namespace) = application("hand") else { return };
    let name = namespace.name();
    let ask =
        || namespace.run("deployment/client", "timeout 10 wget -q -O - http://web/ 2>&1; true");
    assert_eq!(ask(), "v1\n");
    said(&["fault", "web", "--abort", "503", "-n", name]);
    assert!(ask().contains("HTTP/1.1 503"));
    assert!(said(&["fault", "-n", name]).contains("abort 503"));
    said(&["fault", "--clear", "-n", name]);
    assert_eq!(ask(), "v1\n");
    let text = said(&["split", "web", "v1=100", "-n", name]);
    assert!(text.contains(&format!("DestinationRule/{name}/heddle-split-web created")), "{text}");
    assert_eq!(ask(), "v1\n");
    let output = heddle(&["delete", "dr", "heddle-split-web", "--kubernetes", "-n", name]);
    assert!(
        refusal(&output).contains("--force"),
        "a route would be left dangling: {}",
        told(&output)
    );
    said(&["split", "web", "--clear", "-n", name]);
    assert_eq!(said(&["get", "-n", name]), "no rules\n");
}

/// A kubeconfig of somebody who has no right at all, in a file that goes with its test.
fn nobody(namespace: &Namespace) -> File {
    namespace.asked(&["create", "serviceaccount", "nobody"]);
    let token = namespace.asked(&["create", "token", "nobody"]);
    let file = File::new(namespace.name(), &asked(&["config", "view", "--raw", "--flatten"]));
    let own =
        |arguments: &[&str]| asked(&[&["--kubeconfig", file.path(), "config"], arguments].concat());
    let cluster = own(&["view", "-o", "jsonpath={.clusters[0].name}"]);
    own(&["set-credentials", "nobody", &format!("--token={}", token.trim())]);
    own(&["set-context", "nobody", &format!("--cluster={cluster}"), "--user=nobody"]);
    file
}

#[test]
fn who_may_not_is_told_which_right_is_missing() {
    let Some(namespace) = in_mesh("rights") else { return };
    let name = namespace.name();
    let file = nobody(&namespace);
    let top = || heddle(&["top", "--kubeconfig", file.path(), "--context", "nobody"]);
    let said = refusal(&top());
    assert!(
        said.contains("the user of context `nobody` may not list pods in namespace heddle-system"),
        "{said}"
    );
    let account = format!("--serviceaccount={name}:nobody");
    asked(&["create", "role", name, "-n", SYSTEM, "--verb=list", "--resource=pods"]);
    asked(&["create", "rolebinding", name, "-n", SYSTEM, &format!("--role={name}"), &account]);
    let said = refusal(&top());
    assert!(said.contains("may not create pods/portforward in namespace heddle-system"), "{said}");
    for what in ["rolebinding", "role"] {
        drop(kubectl(&["delete", what, name, "-n", SYSTEM]));
    }
}

#[test]
fn a_cluster_that_is_not_there_is_told_in_one_line() {
    let Some(namespace) = in_mesh("wrong") else { return };
    let said = refusal(&heddle(&["status", "--context", "nowhere"]));
    assert!(said.contains("has no context `nowhere`: it has "), "{said}");
    let text = asked(&["config", "view", "--raw", "--flatten"]);
    let server = asked(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let file = File::new(namespace.name(), &text.replace(&server, "https://127.0.0.1:1"));
    let said = refusal(&heddle(&["status", "--kubeconfig", file.path()]));
    assert!(
        said.contains("the API server at https://127.0.0.1:1")
            && said.contains("cannot be reached"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn the_dashboard_answers_on_a_port_of_this_machine_until_it_is_ended() {
    let Some(namespace) = application("dashboard") else { return };
    let mut child = Command::new(env!("CARGO_BIN_EXE_heddle"))
        .args(["dashboard", "--kubernetes"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    assert_eq!(url, "http://127.0.0.1:15040\n");
    let page = |path: &str| {
        let url = format!("{}{path}", url.trim());
        let output = Command::new("curl").args(["-sf", "--max-time", "20", &url]).output().unwrap();
        assert!(output.status.success(), "{url}: {}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(page("/").contains("<html"), "the page itself");
    wait_until("it knows the application", || page("/api/v1/services").contains(namespace.name()));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}
