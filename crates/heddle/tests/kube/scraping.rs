//! The application's own metrics come with the sidecar's.

use std::process::Command;

use heddle_testkit::wait::wait_until;

use crate::{
    apps::server,
    cluster::{in_mesh, told},
};

#[test]
fn a_pod_that_was_scraped_is_scraped_at_its_sidecar_which_shows_both() {
    let Some(namespace) = in_mesh("scraping") else { return };
    let serve = "mkdir -p /tmp/www; echo 'my_metric{a=\"b\"} 7' > /tmp/www/mine; httpd -p 8080 -h /tmp/www; \
        trap 'exit 0' TERM; while :; do sleep 60 & wait $!; done";
    let web = server("web-v1", "web", "v1").running(serve).yaml().replace(
        "    metadata: {labels",
        "    metadata: {annotations: {prometheus.io/scrape: \"true\", prometheus.io/port: \"8080\", prometheus.io/path: /mine}, labels",
    );
    namespace.apply(&web);
    namespace.rolled_out("deployment/web-v1");
    // As a scraper that goes by annotations does.
    let annotation = |name: &str| {
        let path = format!("jsonpath={{.items[0].metadata.annotations.prometheus\\.io/{name}}}");
        namespace.asked(&["get", "pods", "-l", "app=web", "-o", &path])
    };
    let (port, path) = (annotation("port"), annotation("path"));
    let url = format!("http://{}:{port}{path}", namespace.address("app=web"));
    let page = || {
        let output = Command::new("curl").args(["-sf", "--max-time", "9", &url]).output().unwrap();
        assert!(output.status.success(), "{url}: {}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    wait_until("the application's metrics are there", || page().contains("my_metric{a=\"b\"} 7\n"));
    assert!(page().contains("istio_build{"), "{}", page());
    namespace.run("deployment/web-v1", "killall httpd");
    wait_until("it is counted that they are not", || {
        let page = page();
        assert!(page.contains("istio_build{"), "{page}");
        page.contains("heddle_app_scrapes_total{result=\"unreachable\"}")
            && !page.contains("my_metric")
    });
}
