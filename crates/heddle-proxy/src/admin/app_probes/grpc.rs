//! gRPC's health service, asked once.

use std::{future::poll_fn, net::SocketAddr};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, client};
use heddle_runtime::{task::spawn_contained, transport::Transport};
use http::{HeaderMap, Request};
use prost::Message;

/// Bytes of an answer that are read: one number.
const ANSWER_MAX: usize = 1024;
/// A message's flag and length.
const PREFIX_BYTES: usize = 5;
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Does the server say that the service serves?
///
/// # Errors
/// What it says instead.
pub(super) async fn check(
    stream: Transport,
    address: SocketAddr,
    service: &str,
) -> Result<(), String> {
    let failed = |error: h2::Error| format!("no gRPC: {error}");
    let (mut client, connection) = client::handshake(stream).await.map_err(failed)?;
    // It ends with the client and the answer.
    spawn_contained("probe connection", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a probe's connection ended early");
        }
    });
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|error| error.to_string())?;
    poll_fn(|context| client.poll_ready(context)).await.map_err(failed)?;
    let (response, mut body) = client.send_request(request, false).map_err(failed)?;
    body.send_data(question(service), true).map_err(failed)?;
    let (head, mut answer) = response.await.map_err(failed)?.into_parts();
    if head.status != 200 {
        return Err(format!("no gRPC: status {}", head.status));
    }
    refused(&head.headers)?;
    let message = read(&mut answer).await?;
    if let Some(trailers) = answer.trailers().await.map_err(failed)? {
        refused(&trailers)?;
    }
    let message = message.get(PREFIX_BYTES..).unwrap_or_default();
    let response = CheckResponse::decode(message).map_err(|error| error.to_string())?;
    match response.status {
        SERVING => Ok(()),
        status => Err(format!("the health service says {status}, not SERVING (1)")),
    }
}

fn question(service: &str) -> Bytes {
    let message = CheckRequest { service: service.to_owned() }.encode_to_vec();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(&message);
    framed.freeze()
}

async fn read(answer: &mut RecvStream) -> Result<Vec<u8>, String> {
    let mut message = Vec::new();
    while let Some(data) = answer.data().await {
        let data = data.map_err(|error| format!("no gRPC: {error}"))?;
        if message.len() + data.len() > ANSWER_MAX {
            return Err(format!("an answer of more than {ANSWER_MAX} bytes"));
        }
        message.extend_from_slice(&data);
        let released = answer.flow_control().release_capacity(data.len());
        released.map_err(|error| format!("no gRPC: {error}"))?;
    }
    Ok(message)
}

/// A call's own status, in its head or behind its messages.
fn refused(fields: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some(code) => {
            let message = text("grpc-message").unwrap_or_default();
            Err(format!("the health service refuses with gRPC status {code} {message}"))
        }
    }
}
