//! Two workloads, one request through two sidecars: names, addresses, metrics, rules.

use crate::{
    as_both_users,
    host::{Machine, wait_until},
};

as_both_users!(
    a_service_answers_under_all_of_its_names,
    a_server_is_reached_wherever_it_listens,
    a_request_is_counted_on_both_sides,
    a_rule_is_in_force_when_apply_returns,
    no_spelling_of_a_path_gets_around_a_rule,
    an_unknown_name_does_not_exist,
);

fn a_service_answers_under_all_of_its_names(machine: &Machine) {
    let mesh = machine.up("names");
    let server = mesh.serve("reviews", &[]);
    for name in
        ["reviews", "reviews.default", "reviews.default.svc", "reviews.default.svc.cluster.local"]
    {
        let got = mesh.get(&format!("http://{name}/"));
        assert_eq!((got.code, got.stdout.as_str()), (0, "reviews"), "{name}: {}", got.stderr);
    }
    for family in ["-4", "-6"] {
        let got = mesh.client(&["curl", family, "-sS", "--max-time", "20", "http://reviews/"]);
        assert_eq!((got.code, got.stdout.as_str()), (0, "reviews"), "{family}: {}", got.stderr);
    }
    // From another namespace the short name is another service's.
    let words = ["--service", "c", "-n", "other", "--", "curl", "-sS", "http://reviews.default/"];
    let got = mesh.run("run", &words);
    assert_eq!((got.code, got.stdout.as_str()), (0, "reviews"), "{}", got.stderr);
    drop(server);
}

fn a_server_is_reached_wherever_it_listens(machine: &Machine) {
    let mesh = machine.up("listen");
    for (service, address) in [("four", "127.0.0.1"), ("six", "::1"), ("any", "::")] {
        let _server = mesh.serve_at(service, address, &[]);
        let got = mesh.get(&format!("http://{service}/"));
        assert_eq!((got.code, got.stdout.as_str()), (0, service), "{address}: {}", got.stderr);
    }
}

fn a_request_is_counted_on_both_sides(machine: &Machine) {
    let mesh = machine.up("metrics");
    let _server = mesh.serve("reviews", &["--version", "v1"]);
    // The client asks, then reads its own sidecar's figures; a sidecar writes them at once.
    let script = "curl -sS http://reviews/ && curl -sS http://127.0.0.1:15090/stats/prometheus";
    let client = mesh.client(&["sh", "-c", script]);
    assert_eq!(client.code, 0, "{}", client.stderr);
    let server_ip = mesh.workloads("reviews")[0]["workload"]["ipv4"].as_str().unwrap().to_owned();
    let server = mesh.get(&format!("http://{server_ip}:15090/stats/prometheus"));
    for (text, reporter) in [(&client.stdout, "source"), (&server.stdout, "destination")] {
        let counted = text.lines().find(|line| {
            line.starts_with("istio_requests_total{")
                && line.contains(&format!("reporter=\"{reporter}\""))
                && line.contains("destination_service=\"reviews.default.svc.cluster.local\"")
                && line.contains("response_code=\"200\"")
        });
        assert!(counted.is_some_and(|line| line.ends_with(" 1")), "{reporter}: {text}");
    }
}

fn a_rule_is_in_force_when_apply_returns(machine: &Machine) {
    let mesh = machine.up("rules");
    let _server = mesh.serve("reviews", &[]);
    assert_eq!(mesh.get("http://reviews/").code, 0);
    let rule = machine.dir.join("rule.yaml");
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\nspec:\n  hosts: [reviews]\n  http:\n  - fault: {abort: {httpStatus: 418, percentage: {value: 100}}}\n    route: [{destination: {host: reviews}}]\n";
    std::fs::write(&rule, text).unwrap();
    let file = rule.to_str().unwrap();
    let applied = mesh.run("apply", &["-f", file]);
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    assert!(
        applied.stdout.contains("VirtualService/default/reviews created"),
        "{}",
        applied.stdout
    );
    let status = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://reviews/"];
    assert_eq!(mesh.client(&status).stdout, "418");
    assert!(mesh.run("get", &["vs", "reviews", "-o", "yaml"]).stdout.contains("418"));

    std::fs::write(&rule, text.replace("httpStatus: 418", "httpStatus: 42")).unwrap();
    let refused = mesh.run("apply", &["-f", file]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains(&format!("{file}:")), "{}", refused.stderr);
    assert_eq!(mesh.client(&status).stdout, "418", "what was in force stays");

    let deleted = mesh.run("delete", &["vs", "reviews"]);
    assert_eq!(deleted.code, 0, "{}", deleted.stderr);
    assert_eq!(mesh.client(&status).stdout, "200");
    assert_eq!(mesh.run("delete", &["vs", "reviews"]).code, 1, "it is gone");
}

fn no_spelling_of_a_path_gets_around_a_rule(machine: &Machine) {
    let mesh = machine.up("spelling");
    let _server = mesh.serve("reviews", &[]);
    let rule = machine.dir.join("rule.yaml");
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\nspec:\n  hosts: [reviews]\n  http:\n  - match: [{uri: {exact: /admin}}]\n    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}\n    route: [{destination: {host: reviews}}]\n  - route: [{destination: {host: reviews}}]\n";
    std::fs::write(&rule, text).unwrap();
    let applied = mesh.run("apply", &["-f", rule.to_str().unwrap()]);
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    let curl = ["curl", "-s", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}"];
    let status =
        |path: &str| mesh.client(&[&curl[..], &[&format!("http://reviews{path}")]].concat()).stdout;
    for path in ["/admin", "/a/../admin", "/%61dmin?q", "/./%2e/admin"] {
        assert_eq!(status(path), "418", "{path}");
    }
    assert_eq!(status("/admin/../index.html"), "200", "the server gets what the rule saw");
}

fn an_unknown_name_does_not_exist(machine: &Machine) {
    let mesh = machine.up("unknown");
    let got = mesh.get("http://nobody.default.svc.cluster.local/");
    assert_eq!(got.code, 6, "curl cannot resolve it: {}", got.stderr);
    wait_until("clients leave no workload behind", || {
        mesh.workloads("client").is_empty().then_some(())
    });
}
