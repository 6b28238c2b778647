//! The application's probes, asked on the kubelet's behalf: injection has sent them here (`/app-health/…` on 15020),
//! since a connection of the kubelet's own would be captured, and refused where only the mesh may call.
//!
//! Asked is the application on the workload's own address, else on the loopback, as inbound calls reach it. Each question
//! is a connection of its own, within its probe's time and reading little of the answer.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use heddle_model::discovery::ClientTls;
use heddle_runtime::{
    clock, net,
    task::spawn_contained,
    tls::{Asks, Origin},
    transport::Transport,
};
use heddle_wire::local::app_probes::{AppProbe, Ask, HttpGet, Scheme};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;

use super::page::{Page, TEXT, whole};
use crate::Shared;

mod grpc;

/// Longest a probe may ask for, seconds.
const TIMEOUT_SECONDS_MAX: u32 = 300;
/// Bytes of an answer's body that are read; the kubelet reads as many.
const BODY_MAX: usize = 10 * 1024;

/// Asks what the probe asks; the answer's status is the application's, or says why there is none.
pub(super) async fn answer(shared: &Shared, probe: &AppProbe) -> Response<Page> {
    let seconds = probe.timeout_seconds.clamp(1, TIMEOUT_SECONDS_MAX);
    let asked = clock::within(Duration::from_secs(seconds.into()), ask(shared, &probe.ask)).await;
    let (status, text) = match asked {
        Some(Ok(status)) => (status, "the application answered\n".to_owned()),
        Some(Err(reason)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        None => (StatusCode::GATEWAY_TIMEOUT, format!("no answer within {seconds} s\n")),
    };
    whole(status, TEXT, text)
}

async fn ask(shared: &Shared, ask: &Ask) -> Result<StatusCode, String> {
    let port = match ask {
        Ask::HttpGet(get) => get.port,
        Ask::TcpSocket(socket) => socket.port,
        Ask::Grpc(grpc) => grpc.port,
    };
    let (stream, address) = connect(shared, port).await?;
    match ask {
        Ask::HttpGet(get) => http(stream, address, get).await,
        Ask::TcpSocket(_) => Ok(StatusCode::OK),
        Ask::Grpc(grpc) => {
            grpc::check(stream, address, &grpc.service).await.map(|()| StatusCode::OK)
        }
    }
}

/// Connects where the application listens.
async fn connect(shared: &Shared, port: u16) -> Result<(Transport, SocketAddr), String> {
    let own = shared.config.addresses.iter();
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let mut refused: Option<io::Error> = None;
    for ip in own.chain(loopback) {
        let address = SocketAddr::new(ip, port);
        let connected = if ip.is_loopback() {
            net::connect_tcp_as_caller(address, shared.mark()).await
        } else {
            net::connect_tcp(address, shared.mark()).await
        };
        match connected {
            Ok(stream) => return Ok((stream.into(), address)),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    let reason = refused.map(|error| error.to_string()).unwrap_or_default();
    Err(format!("nothing listens on port {port}: {reason}"))
}

async fn http(stream: Transport, address: SocketAddr, get: &HttpGet) -> Result<StatusCode, String> {
    let (status, body) = send(stream, address, get, request(address, get)?).await?;
    // So that the application can end its answer; what is in it means nothing.
    let _body = Limited::new(body, BODY_MAX).collect().await;
    Ok(status)
}

/// Gets a page of the application's, with further fields in the request.
pub(super) async fn fetch<const N: usize>(
    shared: &Shared,
    get: &HttpGet,
    fields: [(HeaderName, HeaderValue); N],
) -> Result<(StatusCode, Incoming), String> {
    let (stream, address) = connect(shared, get.port).await?;
    let mut request = request(address, get)?;
    request.headers_mut().extend(fields);
    send(stream, address, get, request).await
}

async fn send(
    stream: Transport,
    address: SocketAddr,
    get: &HttpGet,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Incoming), String> {
    let stream = match get.scheme {
        Scheme::Http => stream,
        Scheme::Https => with_tls(stream, address, get).await?,
    };
    let conversation = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = conversation.map_err(|error| error.to_string())?;
    // It ends with the sender and the body.
    spawn_contained("probe connection", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a probe's connection ended early");
        }
    });
    let answered = sender.send_request(request).await;
    let (head, body) = answered.map_err(|error| no_answer(&error))?.into_parts();
    Ok((head.status, body))
}

fn no_answer(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("no answer: {error}: {source}"),
        None => format!("no answer: {error}"),
    }
}

fn request(address: SocketAddr, get: &HttpGet) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::get(get.path.as_str())
        .body(Empty::new())
        .map_err(|error| format!("`{}` is no path: {error}", get.path))?;
    let fields = request.headers_mut();
    for header in &get.http_headers {
        let name = HeaderName::try_from(header.name.as_str());
        let value = HeaderValue::try_from(header.value.as_str());
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(format!("`{}` is no field of a request", header.name));
        };
        fields.append(name, value);
    }
    let host = HeaderValue::try_from(address.to_string())
        .map_err(|error| format!("{address} is no host: {error}"))?;
    let usual = [
        (HOST, host),
        (USER_AGENT, HeaderValue::from_static("kube-probe/heddle")),
        (ACCEPT, HeaderValue::from_static("*/*")),
        (CONNECTION, HeaderValue::from_static("close")),
    ];
    for (name, value) in usual {
        fields.entry(name).or_insert(value);
    }
    Ok(request)
}

/// The certificate is not verified: the kubelet does not either.
async fn with_tls(
    stream: Transport,
    address: SocketAddr,
    get: &HttpGet,
) -> Result<Transport, String> {
    let host = get.http_headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
    let name = host.and_then(|host| host.value.split(':').next()).filter(|name| !name.is_empty());
    let server_name = name.map_or_else(|| address.ip().to_string(), str::to_owned);
    let settings = ClientTls { unverified: true, server_name, ..ClientTls::default() };
    let limit = Duration::from_secs(TIMEOUT_SECONDS_MAX.into());
    let begun = Origin::new(settings).begin(stream, Asks::Nothing, limit).await;
    begun.map_err(|error| error.to_string())
}
