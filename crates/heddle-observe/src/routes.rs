//! From a request to its answer: the table at the head of `observe_api` in code.

mod own;

use std::{cell::RefCell, net::SocketAddr};

use heddle_model::ServiceName;
use heddle_runtime::clock;
use heddle_wire::percent::decode;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    header::{self, HeaderValue},
};
use serde::Serialize;

use crate::{
    answers::{TimeRange, View, answered},
    assets,
    config::ObserveConfig,
    elsewhere::ElsewhereError,
    hosts, limits, prometheus, scrape,
    tap::served,
    targets,
    traces::asked::Asked,
};

/// An answer's body: ours, or a sidecar's metrics on their way through.
pub(crate) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// A refusal with its reason.
#[derive(Debug)]
struct Refused(StatusCode, String);

impl From<ElsewhereError> for Refused {
    fn from(error: ElsewhereError) -> Self {
        Self(StatusCode::BAD_GATEWAY, error.to_string())
    }
}

/// Digits by which a trace can be told from others.
const TRACE_DIGITS_MIN: usize = 8;

/// Nothing but this origin's own files may run or be loaded in the page, and nobody may frame it.
const SECURITY_HEADERS: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// Pages of the dashboard by the first part of their path, as `ui/src/pages.tsx` has them.
const PAGES: [&str; 5] = ["service", "rules", "refusals", "traces", "live"];

/// Answers a kubelet, and nobody's question about the mesh.
pub(crate) fn health<B>(request: &Request<B>, view: &RefCell<View>) -> Response<Body> {
    let (status, text) = match request.uri().path() {
        "/healthz/ready" if view.borrow().roster.is_known() => (StatusCode::OK, "ready\n"),
        "/healthz/ready" => {
            (StatusCode::SERVICE_UNAVAILABLE, "the control plane has not said yet who there is\n")
        }
        _ => (StatusCode::NOT_FOUND, "there is /healthz/ready\n"),
    };
    let mut response = Response::new(full(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

/// Answers one request.
pub(crate) async fn answer<B>(
    request: Request<B>,
    view: &RefCell<View>,
    config: &ObserveConfig,
) -> Response<Body>
where
    B: hyper::body::Body<Error: std::error::Error + Send + Sync + 'static>,
{
    let (head, body) = request.into_parts();
    let request = Request::from_parts(head, ());
    let is_query = call_of_prometheus(&request);
    let answered = match is_query {
        true => as_prometheus(&request, body, view, config).await,
        false => route(&request, view, config).await,
    };
    let mut response = match answered {
        Ok(response) => response,
        Err(Refused(status, reason)) => {
            let mut response = match is_query {
                true => prometheus_refusal(status, &reason),
                false => json(&serde_json::json!({ "error": reason })),
            };
            *response.status_mut() = status;
            if status == StatusCode::METHOD_NOT_ALLOWED {
                let allowed = if is_query { "GET, POST" } else { "GET" };
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            response
        }
    };
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn route<B>(
    request: &Request<B>,
    view: &RefCell<View>,
    config: &ObserveConfig,
) -> Result<Response<Body>, Refused> {
    if request.method() != Method::GET {
        return Err(Refused(
            StatusCode::METHOD_NOT_ALLOWED,
            "the dashboard only answers GET".to_owned(),
        ));
    }
    let host = checked_host(request, config)?;
    let uri = request.uri();
    let path: Vec<&str> = uri.path().trim_start_matches('/').split('/').collect();
    match path[..] {
        ["api", "v1", "graph"] => {
            Ok(json(&answered(view, asked(uri.query(), 10)?, View::graph).await?))
        }
        ["api", "v1", "services"] => {
            Ok(json(&answered(view, asked(uri.query(), 10)?, View::services).await?))
        }
        ["api", "v1", "services", namespace, name] => {
            page(view, &service(namespace, name)?, asked(uri.query(), 300)?).await
        }
        ["api", "v1", "rules"] => {
            Ok(json(&answered(view, asked(uri.query(), 10)?, View::rules).await?))
        }
        ["api", "v1", "refusals"] => {
            Ok(json(&answered(view, asked(uri.query(), 300)?, View::refusals_page).await?))
        }
        ["metrics"] => Ok(metrics(&view.borrow())),
        ["api", "v1", "ejections"] => Ok(json(&view.borrow().ejections())),
        ["api", "v1", "tls-failures"] => Ok(json(&view.borrow().tls_failures())),
        ["api", "v1", "traces"] => {
            let asked = Asked::read(uri.query().unwrap_or_default(), clock::unix_now());
            let asked = asked.map_err(|reason| Refused(StatusCode::BAD_REQUEST, reason))?;
            Ok(json(&view.borrow().traces.borrow_mut().list(&asked)))
        }
        ["api", "v1", "traces", id] => trace(&view.borrow(), id),
        ["api", "v1", "prometheus", "targets"] => {
            Ok(json(&targets::targets(&view.borrow().roster, &config.mesh, &host)))
        }
        ["api", "v1", "tap"] => {
            own_page(request, "live calls")?;
            let readers = view.borrow().tap_readers.clone();
            let begun =
                served::begin(config.run_dir.as_deref(), &readers, uri.query().unwrap_or(""));
            let begun = begun.map_err(|(status, reason)| Refused(status, reason))?;
            Ok(begun.map(|lines| lines.map_err(|never| match never {}).boxed_unsync()))
        }
        ["-", "healthy" | "ready"] => Ok(Response::new(full(Bytes::from_static(b"Heddle is healthy.\n")))),
        ["api", ..] => Err(not_found(
            "no such call; there are /api/v1/graph, /api/v1/services, /api/v1/rules, /api/v1/refusals, \
             /api/v1/ejections, /api/v1/tls-failures, /api/v1/traces, /api/v1/tap, \
             /api/v1/prometheus/targets, and of Prometheus' own /api/v1/query, /api/v1/query_range, \
             /api/v1/series, /api/v1/labels, /api/v1/label/NAME/values, /api/v1/metadata and /api/v1/status/buildinfo"
                .to_owned(),
        )),
        ["sidecars", workload, "stats", "prometheus"] => {
            let address = address(&view.borrow(), workload)?;
            let accept = request.headers().get(header::ACCEPT);
            pass_through(address, accept.and_then(|accept| accept.to_str().ok())).await
        }
        [page, ..] if PAGES.contains(&page) => Ok(moved(uri)),
        _ => asset(uri.path()).or_else(|refused| nowhere(request, uri.path(), refused)),
    }
}

/// Is it one of the calls that Prometheus answers?
fn call_of_prometheus<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    path.strip_prefix("/api/v1/")
        .is_some_and(|call| prometheus::is_call(&call.split('/').collect::<Vec<_>>()))
}

/// What Prometheus answers to both GET and the form of POST.
async fn as_prometheus<B>(
    request: &Request<()>,
    body: B,
    view: &RefCell<View>,
    config: &ObserveConfig,
) -> Result<Response<Body>, Refused>
where
    B: hyper::body::Body<Error: std::error::Error + Send + Sync + 'static>,
{
    let posted = match *request.method() {
        Method::GET => Vec::new(),
        Method::POST => form(body).await?,
        _ => {
            let reason = "queries are asked by GET, or by POST as a form".to_owned();
            return Err(Refused(StatusCode::METHOD_NOT_ALLOWED, reason));
        }
    };
    checked_host(request, config)?;
    own_page(request, "queries")?;
    let path = request.uri().path().strip_prefix("/api/v1/").unwrap_or_default();
    let path: Vec<&str> = path.split('/').collect();
    let query = request.uri().query().unwrap_or_default();
    let (status, answer) = prometheus::answer(view, &path, query, &posted).await;
    Ok(written(status, answer))
}

/// A refusal as those who ask Prometheus read it.
fn prometheus_refusal(status: StatusCode, reason: &str) -> Response<Body> {
    let kind = match status {
        StatusCode::REQUEST_TIMEOUT => "timeout",
        _ => "bad_data",
    };
    written(status, prometheus::refusal(kind, reason))
}

/// A form that was posted, within its size and its time.
async fn form<B>(body: B) -> Result<Vec<u8>, Refused>
where
    B: hyper::body::Body<Error: std::error::Error + Send + Sync + 'static>,
{
    let body = http_body_util::Limited::new(body, limits::FORM_BYTES_MAX);
    match clock::within(limits::FORM_TIMEOUT, body.collect()).await {
        Some(Ok(whole)) => Ok(whole.to_bytes().to_vec()),
        Some(Err(error)) if !error.is::<http_body_util::LengthLimitError>() => {
            Err(Refused(StatusCode::BAD_REQUEST, format!("the form was not read: {error}")))
        }
        Some(Err(_)) => {
            let reason = format!("a form has at most {} bytes", limits::FORM_BYTES_MAX);
            Err(Refused(StatusCode::PAYLOAD_TOO_LARGE, reason))
        }
        None => {
            let reason = "the form did not come to its end in time".to_owned();
            Err(Refused(StatusCode::REQUEST_TIMEOUT, reason))
        }
    }
}

/// The Host, if the dashboard may be called so.
fn checked_host<B>(request: &Request<B>, config: &ObserveConfig) -> Result<String, Refused> {
    let header = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let host = header.unwrap_or_default();
    if hosts::allowed(host, &config.allowed_hosts) {
        return Ok(host.to_owned());
    }
    Err(Refused(
        StatusCode::MISDIRECTED_REQUEST,
        format!(
            "the dashboard does not answer to the name `{host}`; use its IP address or localhost"
        ),
    ))
}

/// A page of another site can read nothing here, and yet hold all places of those who look: browsers tell of it.
fn own_page<B>(request: &Request<B>, what: &str) -> Result<(), Refused> {
    let site = request.headers().get("sec-fetch-site");
    if site.is_some_and(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site")) {
        let reason = format!("{what} are not for pages of other sites");
        return Err(Refused(StatusCode::FORBIDDEN, reason));
    }
    Ok(())
}

/// The period of a query; unknown parameters are refused, so that a typing error is no silent default.
fn asked(query: Option<&str>, window: u64) -> Result<TimeRange, Refused> {
    let mut asked = TimeRange { window, end: None };
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number = value.parse::<u64>();
        match (name, number) {
            ("window", Ok(seconds)) if (1..=limits::WINDOW_MAX).contains(&seconds) => {
                asked.window = seconds;
            }
            ("end", Ok(at)) => asked.end = Some(at),
            ("window", _) => {
                let reason =
                    format!("window is 1 to {} seconds, not `{value}`", limits::WINDOW_MAX);
                return Err(Refused(StatusCode::BAD_REQUEST, reason));
            }
            ("end", _) => {
                let reason = format!("end is a Unix time in whole seconds, not `{value}`");
                return Err(Refused(StatusCode::BAD_REQUEST, reason));
            }
            _ => {
                let reason = format!("unknown parameter `{name}`; there are window and end");
                return Err(Refused(StatusCode::BAD_REQUEST, reason));
            }
        }
    }
    Ok(asked)
}

/// The page of a service.
async fn page(
    view: &RefCell<View>,
    service: &ServiceName,
    asked: TimeRange,
) -> Result<Response<Body>, Refused> {
    match answered(view, asked, |view, asked| view.page(service, asked)).await? {
        Some(page) => Ok(json(&page)),
        None => Err(not_found(format!(
            "no service {} in namespace {}; GET /api/v1/services lists all",
            service.name, service.namespace
        ))),
    }
}

/// One trace by its id.
fn trace(view: &View, id: &str) -> Result<Response<Body>, Refused> {
    let bad = |reason: String| Refused(StatusCode::BAD_REQUEST, reason);
    let is_id = (TRACE_DIGITS_MIN..=32).contains(&id.len());
    if !is_id || !id.bytes().all(|one| one.is_ascii_hexdigit()) {
        return Err(bad(format!(
            "the id of a trace is 32 hexadecimal digits; the first {TRACE_DIGITS_MIN} or more of them do, too"
        )));
    }
    let traces = &mut *view.traces.borrow_mut();
    let found = match traces.called(id)[..] {
        [one] => traces.one(one),
        [_, _, ..] => return Err(bad(format!("several traces begin with {id}: give more digits"))),
        [] => None,
    };
    found.map(|trace| json(&trace)).ok_or_else(|| {
        not_found(format!(
            "no trace {id}: it was not recorded, or has made room for others; GET /api/v1/traces lists those there are"
        ))
    })
}

fn service(namespace: &str, name: &str) -> Result<ServiceName, Refused> {
    let malformed =
        || Refused(StatusCode::BAD_REQUEST, "the path is not well percent-encoded".to_owned());
    let namespace = decode(namespace).ok_or_else(malformed)?;
    let name = decode(name).ok_or_else(malformed)?;
    Ok(ServiceName { namespace: if namespace == "-" { String::new() } else { namespace }, name })
}

fn address(view: &View, workload: &str) -> Result<SocketAddr, Refused> {
    let member = view.roster.members.get(workload).filter(|member| member.present);
    let member = member.ok_or_else(|| {
        not_found(format!("no workload {workload}; GET /api/v1/prometheus/targets lists all"))
    })?;
    Ok(SocketAddr::from((member.address, scrape::MERGED_PORT)))
}

/// A sidecar's metrics as they come.
async fn pass_through(
    address: SocketAddr,
    accept: Option<&str>,
) -> Result<Response<Body>, Refused> {
    let asked = scrape::open(address, accept.unwrap_or("*/*"));
    let opened = clock::within(limits::SCRAPE_TIMEOUT, asked).await;
    let sidecar = match opened {
        Some(Ok(response)) => response,
        Some(Err(error)) => {
            let reason = format!("the sidecar at {address} gave no metrics: {error}");
            return Err(Refused(StatusCode::BAD_GATEWAY, reason));
        }
        None => {
            let reason = format!("the sidecar at {address} gave no metrics in time");
            return Err(Refused(StatusCode::GATEWAY_TIMEOUT, reason));
        }
    };
    let (head, body) = sidecar.into_parts();
    let mut response = Response::new(body.boxed_unsync());
    let kind = head.headers.get(header::CONTENT_TYPE).cloned();
    let kind = kind.unwrap_or_else(|| HeaderValue::from_static("text/plain; version=0.0.4"));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

fn asset(path: &str) -> Result<Response<Body>, Refused> {
    let asset = assets::find(path)
        .ok_or_else(|| not_found(format!("no file {path}; the dashboard is at /")))?;
    let mut response = Response::new(full(Bytes::from_static(asset.body)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    let kept = if asset.immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
    Ok(response)
}

/// To the same page of the dashboard: where one is in it stands behind the `#`, which a browser keeps to itself.
fn moved(uri: &hyper::Uri) -> Response<Body> {
    let place = uri.path_and_query().map_or("/", |place| place.as_str());
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(place) = HeaderValue::from_str(&format!("/#{place}")) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

/// For a person who asks for what is not there, a page with ways on; for a program the refusal.
fn nowhere<B>(
    request: &Request<B>,
    path: &str,
    refused: Refused,
) -> Result<Response<Body>, Refused> {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if !accept.is_some_and(|accept| accept.contains("text/html")) {
        return Err(refused);
    }
    let path = path.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let links: String =
        PAGES.iter().filter(|page| **page != "service").fold(String::new(), |links, page| {
            links + &format!("<li><a href=\"/#/{page}\">{page}</a></li>")
        });
    let text = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>No such page · Heddle</title>\
         <main><h1>There is no such page</h1><p><code>{path}</code> leads nowhere. There are:</p>\
         <ul><li><a href=\"/\">graph</a></li>{links}\
         <li>a service: <code>/#/service/NAMESPACE/NAME</code></li>\
         <li>the numbers as JSON: <a href=\"/api/v1/graph\">/api/v1/graph</a></li></ul></main></html>"
    );
    let mut response = Response::new(full(Bytes::from(text)));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    Ok(response)
}

fn json(value: &impl Serialize) -> Response<Body> {
    let (status, body) = match serde_json::to_vec(value) {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => {
            tracing::error!(%error, "an answer is no JSON");
            (StatusCode::INTERNAL_SERVER_ERROR, b"{}".to_vec())
        }
    };
    written(status, body)
}

/// JSON that is written already.
fn written(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The observer's own metrics.
fn metrics(view: &View) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(own::text(view))));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn full(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

fn not_found(reason: String) -> Refused {
    Refused(StatusCode::NOT_FOUND, reason)
}

#[cfg(test)]
#[path = "routes/tests.rs"]
mod tests;
