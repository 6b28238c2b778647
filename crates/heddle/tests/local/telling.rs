//! What the sidecars of a real mesh write down about calls: access logs as a MeshConfig and Telemetries ask for
//! them, in force without a restart, and out of a hostile client's reach.

use serde_json::Value;

use crate::{
    as_both_users,
    host::{Machine, Mesh, wait_until},
};

as_both_users!(calls_are_logged_as_rules_say,);

/// Lines of a file, once there are so many.
fn lines(path: &std::path::Path, count: usize) -> Vec<String> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    wait_until("the lines are written", || (read().lines().count() >= count).then_some(()));
    let lines: Vec<String> = read().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

fn apply(mesh: &Mesh<'_>, folder: &std::path::Path, text: &str) {
    let file = folder.join("telling.yaml");
    std::fs::write(&file, text).unwrap();
    let applied = mesh.run("apply", &["-f", file.to_str().unwrap()]);
    assert_eq!(applied.code, 0, "{}{}", applied.stdout, applied.stderr);
}

fn calls_are_logged_as_rules_say(machine: &Machine) {
    let mesh = machine.up("telling");
    let _web = mesh.serve("web", &["--version", "v1"]);
    let folder = mesh.run_dir();
    let log = folder.join("access.log");
    mesh.get("http://web/before");

    let config = format!(
        "apiVersion: heddle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: mesh, namespace: istio-system}}\nspec:\n  accessLogFile: {}\n",
        log.display()
    );
    apply(&mesh, &folder, &config);
    mesh.client(&["curl", "-s", "-A", "a\" 200 \\forged", "http://web/logged?x=1"]);
    let both = lines(&log, 2);
    let outbound = "outbound|80||web.default.svc.cluster.local";
    assert!(both.iter().any(|line| line.contains(outbound)), "{both:?}");
    assert!(both.iter().any(|line| line.contains(" inbound|80|| ")), "{both:?}");
    for line in &both {
        assert!(line.contains("\"GET /logged?x=1 HTTP/1.1\" 404 - via_upstream"), "{line}");
        assert!(line.contains("\"a\\\" 200 \\\\forged\""), "{line}");
    }

    let json = folder.join("errors.json");
    let errors = format!(
        "{config}  accessLogEncoding: JSON\n  extensionProviders:\n  - name: errors\n    envoyFileAccessLog:\n      path: {}\n      logFormat: {{labels: {{code: \"%RESPONSE_CODE%\", path: \"%REQ(:PATH)%\", flags: \"%RESPONSE_FLAGS%\", rule: \"%ROUTE_NAME%\"}}}}\n---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: errors, namespace: istio-system}}\nspec:\n  accessLogging:\n  - match: {{mode: CLIENT}}\n    providers: [{{name: errors}}]\n    filter: {{expression: \"response.code >= 500\"}}\n  - match: {{mode: SERVER}}\n    disabled: true\n",
        json.display()
    );
    apply(&mesh, &folder, &errors);
    let made = mesh.run("fault", &["web", "--abort", "503", "--path", "/broken"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    mesh.get("http://web/fine");
    mesh.get("http://web/broken");
    let line: Value = serde_json::from_str(&lines(&json, 1)[0]).unwrap();
    assert_eq!(line["code"], 503);
    assert_eq!(line["path"], "/broken");
    assert_eq!(line["flags"], "FI");
    assert_eq!(line["rule"], "Fault/default/heddle-fault-web-abort");
    assert_eq!(lines(&log, 2).len(), 2, "nothing goes there any more");
}
