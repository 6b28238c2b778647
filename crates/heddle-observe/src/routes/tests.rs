//! Every call of the table, and what is refused.

use std::{net::Ipv4Addr, path::PathBuf};

use super::*;
use crate::{ControlSource, DashboardListener, grown::Grown, measure::Owner, roster::Member};

fn view() -> RefCell<View> {
    let mut view = View { mesh: "demo".to_owned(), ..View::default() };
    let member = Member {
        owner: Owner {
            id: "api-v1-1".to_owned(),
            service: ServiceName::new("api", "shop").unwrap(),
            version: "v1".to_owned(),
        },
        services: [ServiceName::new("api", "shop").unwrap()].into(),
        name: "api-v1".to_owned(),
        address: Ipv4Addr::LOCALHOST.into(),
        present: true,
        ran_before: false,
        scraped: true,
        ejected: Vec::new(),
        tls: Grown::default(),
        lost: Grown::default(),
        names: Vec::new(),
    };
    view.roster.members.insert("api-v1-1".to_owned(), member);
    RefCell::new(view)
}

async fn ask(method: &str, path: &str, host: Option<&str>) -> (StatusCode, String) {
    let config = {
        let nowhere = ControlSource::Socket(PathBuf::from("/nowhere"));
        ObserveConfig::new("demo", nowhere, DashboardListener::Inherited(-1))
    };
    let mut request = Request::builder().method(method).uri(path);
    if let Some(host) = host {
        request = request.header(header::HOST, host);
    }
    let response = answer(request.body(String::new()).unwrap(), &view(), &config).await;
    read(response).await
}

async fn read(response: Response<Body>) -> (StatusCode, String) {
    assert!(response.headers().contains_key("content-security-policy"));
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// As a browser asks.
async fn visit(path: &str) -> Response<Body> {
    let nowhere = ControlSource::Socket(PathBuf::from("/nowhere"));
    let config = ObserveConfig::new("demo", nowhere, DashboardListener::Inherited(-1));
    let request = Request::builder().uri(path).header(header::HOST, "localhost");
    let request = request.header(header::ACCEPT, "text/html,*/*").body(String::new()).unwrap();
    answer(request, &view(), &config).await
}

#[tokio::test]
async fn a_path_that_leads_nowhere_is_404_with_ways_on_and_never_markup() {
    let (status, page) = read(visit("/no/such?x=1").await).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(page.contains("<code>/no/such</code>") && page.contains("href=\"/#/rules\""), "{page}");
    let (status, page) = read(visit("/a&lt;script").await).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(page.contains("/a&amp;lt;script"), "{page}");
}

#[tokio::test]
async fn a_pages_path_leads_to_the_page() {
    for (path, place) in [
        ("/traces/4bf9?status=error", "/#/traces/4bf9?status=error"),
        ("/service/default/api", "/#/service/default/api"),
        ("/rules", "/#/rules"),
    ] {
        let response = visit(path).await;
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT, "{path}");
        assert_eq!(response.headers()[header::LOCATION], place);
    }
}

async fn get(path: &str) -> (StatusCode, serde_json::Value) {
    let (status, body) = ask("GET", path, Some("127.0.0.1:8080")).await;
    (status, serde_json::from_str(&body).unwrap_or(serde_json::Value::String(body)))
}

#[tokio::test]
async fn prometheus_is_sent_to_the_dashboards_own_address() {
    let (status, targets) = get("/api/v1/prometheus/targets").await;
    assert_eq!(status, StatusCode::OK);
    let expected = serde_json::json!([{
        "targets": ["127.0.0.1:8080"],
        "labels": {
            "__metrics_path__": "/sidecars/api-v1-1/stats/prometheus",
            "instance": "api-v1-1",
            "mesh": "demo",
            "namespace": "shop",
            "service": "api",
            "version": "v1",
            "workload": "api-v1",
        },
    }]);
    assert_eq!(targets, expected);
}

#[tokio::test]
async fn the_api_answers_json_and_the_rest_is_the_page() {
    let (_, graph) = get("/api/v1/graph?window=30").await;
    assert_eq!(
        (&graph["mesh"], &graph["nodes"][0]["service"]["name"]),
        (&"demo".into(), &"api".into())
    );
    let (_, services) = get("/api/v1/services").await;
    assert_eq!(services[0]["kind"], "client");
    let (_, rules) = get("/api/v1/rules?window=60").await;
    assert_eq!((&rules["known"], &rules["rules"]), (&false.into(), &serde_json::json!([])));
    let (_, refusals) = get("/api/v1/refusals?window=60").await;
    assert_eq!(refusals["names"], serde_json::json!([]));
    let (status, page) = get("/api/v1/services/shop/api?window=60").await;
    assert_eq!((status, &page["workloads"][0]["id"]), (StatusCode::OK, &"api-v1-1".into()));
    let (status, page) = get("/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.as_str().unwrap().to_ascii_lowercase().starts_with("<!doctype html>"));
}

#[tokio::test]
async fn what_is_malformed_or_absent_is_refused_with_a_reason() {
    for (path, status, word) in [
        ("/api/v1/graph?window=0", StatusCode::BAD_REQUEST, "window"),
        ("/api/v1/graph?window=999999999", StatusCode::BAD_REQUEST, "window"),
        ("/api/v1/graph?windw=10", StatusCode::BAD_REQUEST, "windw"),
        ("/api/v1/graph?end=x", StatusCode::BAD_REQUEST, "end"),
        ("/api/v1/services/shop/nobody", StatusCode::NOT_FOUND, "nobody"),
        ("/api/v1/services/shop/%zz", StatusCode::BAD_REQUEST, "percent"),
        ("/api/v1/services/shop/%e9", StatusCode::BAD_REQUEST, "percent"),
        ("/api/v1/tap", StatusCode::NOT_IMPLEMENTED, "heddle tap"),
        ("/api/v2/graph", StatusCode::NOT_FOUND, "no such call"),
        ("/sidecars/nobody/stats/prometheus", StatusCode::NOT_FOUND, "nobody"),
        ("/nothing.js", StatusCode::NOT_FOUND, "nothing.js"),
    ] {
        let (got, body) = get(path).await;
        assert_eq!(got, status, "{path}");
        assert!(body["error"].as_str().unwrap().contains(word), "{path}: {body}");
    }
}

#[tokio::test]
async fn who_asks_for_what_is_not_there_is_told_all_calls_there_are() {
    let (_, body) = get("/api/v1/such").await;
    let told = body["error"].as_str().unwrap();
    let calls: Vec<&str> =
        told.split([' ', ',']).filter(|word| word.starts_with("/api/")).collect();
    assert_eq!(calls.len(), 16, "{told}");
    for call in calls {
        let (_, body) = get(call).await;
        assert!(!body.to_string().contains("no such call"), "{call}");
    }
}

#[tokio::test]
async fn a_page_of_another_site_gets_no_live_calls() {
    let nowhere = ControlSource::Socket(PathBuf::from("/nowhere"));
    let config = ObserveConfig::new("demo", nowhere, DashboardListener::Inherited(-1));
    for (site, status) in [
        ("cross-site", StatusCode::FORBIDDEN),
        ("same-origin", StatusCode::NOT_IMPLEMENTED),
        ("none", StatusCode::NOT_IMPLEMENTED),
    ] {
        let request = Request::builder().uri("/api/v1/tap").header(header::HOST, "localhost");
        let request = request.header("sec-fetch-site", site).body(String::new()).unwrap();
        assert_eq!(answer(request, &view(), &config).await.status(), status, "{site}");
    }
}

#[tokio::test]
async fn a_query_is_asked_by_get_or_as_a_form_and_by_no_page_of_another_site() {
    let nowhere = ControlSource::Socket(PathBuf::from("/nowhere"));
    let config = ObserveConfig::new("demo", nowhere, DashboardListener::Inherited(-1));
    let ask = async |method: &str, path: &str, site: &str, body: String| {
        let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        let request = request.header("sec-fetch-site", site).body(body).unwrap();
        let (status, body) = read(answer(request, &view(), &config).await).await;
        (status, serde_json::from_str::<serde_json::Value>(&body).unwrap())
    };
    let none = String::new;
    let (_, got) = ask("GET", "/api/v1/query?query=1%2B1", "none", none()).await;
    assert_eq!(got["data"]["result"][1], "2");
    let (_, posted) = ask("POST", "/api/v1/query", "none", "query=1%2B1".to_owned()).await;
    assert_eq!(posted["data"]["result"][1], "2");
    let long = "a".repeat(limits::FORM_BYTES_MAX + 1);
    for (method, site, body, status) in [
        ("POST", "cross-site", none(), StatusCode::FORBIDDEN),
        ("POST", "none", long, StatusCode::PAYLOAD_TOO_LARGE),
        ("PUT", "none", none(), StatusCode::METHOD_NOT_ALLOWED),
        ("POST", "none", none(), StatusCode::BAD_REQUEST),
    ] {
        let (got, answer) = ask(method, "/api/v1/query", site, body).await;
        assert_eq!(got, status, "{method} {site}: {answer}");
        assert_eq!(
            (&answer["status"], &answer["errorType"]),
            (&"error".into(), &"bad_data".into())
        );
    }
    let request = |method: &str| {
        Request::builder().method(method).uri("/api/v1/query").header(header::HOST, "localhost")
    };
    let put = answer(request("PUT").body(none()).unwrap(), &view(), &config).await;
    assert_eq!(put.headers()[header::ALLOW], "GET, POST");
    let broken = answer(request("POST").body(Broken).unwrap(), &view(), &config).await;
    assert_eq!(broken.status(), StatusCode::BAD_REQUEST);
}

/// A body whose sender is gone.
struct Broken;

impl hyper::body::Body for Broken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(Some(Err(std::io::Error::other("gone"))))
    }
}

#[tokio::test]
async fn other_methods_and_other_names_are_refused() {
    let (status, _) = ask("POST", "/api/v1/graph", Some("localhost")).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    for host in [Some("attacker.example"), None] {
        let (status, _) = ask("GET", "/api/v1/graph", host).await;
        assert_eq!(status, StatusCode::MISDIRECTED_REQUEST, "{host:?}");
    }
}
