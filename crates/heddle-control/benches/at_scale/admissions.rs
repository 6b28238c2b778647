//! Pods to be admitted, at a fixed rate whatever the answers take, on connections that the API server would keep.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use heddle_runtime::clock;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_local,
};
use tokio_rustls::client::TlsStream;

use crate::{
    client::Client,
    figures::{Figures, pause_until},
};

/// Connections that share the work.
const CONNECTIONS: u32 = 8;
/// Where the webhook listens.
const PORT: u16 = 15_017;

/// Sends so many at this rate; each time is from when it was due.
pub(crate) async fn run(client: &Arc<Client>, count: u32, a_second: u32) -> Figures {
    let figures = Rc::<RefCell<Figures>>::default();
    let begun = clock::now();
    let senders: Vec<_> = (0..CONNECTIONS)
        .map(|first| {
            let (client, figures) = (client.clone(), figures.clone());
            spawn_local(async move {
                let mut connection = client.connect(PORT, "http/1.1", None).await;
                let mut own = Figures::default();
                for number in (first..count).step_by(CONNECTIONS as usize) {
                    let due = begun + Duration::from_secs(1) * number / a_second;
                    pause_until(due).await;
                    review(&mut connection, number).await;
                    own.add(clock::now() - due);
                }
                figures.borrow_mut().join(own);
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    figures.take()
}

/// One review, and its answer to the end.
async fn review(connection: &mut TlsStream<TcpStream>, number: u32) {
    let body = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": format!("u-{number}"), "kind": {"version": "v1", "kind": "Pod"},
            "operation": "CREATE", "namespace": "load-00", "object": pod(number),
        },
    })
    .to_string();
    let head = format!(
        "POST /inject HTTP/1.1\r\nhost: heddle-control\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all((head + &body).as_bytes()).await.unwrap();
    let answer = read(connection).await;
    assert!(answer["response"]["patch"].is_string(), "{answer}");
}

async fn read(connection: &mut TlsStream<TcpStream>) -> Value {
    let mut bytes = Vec::new();
    loop {
        assert_ne!(connection.read_buf(&mut bytes).await.unwrap(), 0, "the webhook has closed");
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.unwrap().trim().parse().unwrap();
        while bytes.len() < end + 4 + length {
            assert_ne!(connection.read_buf(&mut bytes).await.unwrap(), 0, "it has closed");
        }
        return serde_json::from_slice(&bytes[end + 4..]).unwrap();
    }
}

fn pod(number: u32) -> Value {
    let environment: Vec<Value> = (0..20)
        .map(|i| json!({"name": format!("SETTING_{i}"), "value": "a value of some length"}))
        .collect();
    let probe = json!({"httpGet": {"path": "/healthz", "port": "http"}});
    json!({
        "metadata": {
            "generateName": format!("web-{number}-"), "namespace": "load-00",
            "labels": {"app": "web", "version": "v1", "pod-template-hash": "7d9c5b6f4"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-7d9c5b6f4", "controller": true}],
        },
        "spec": {"serviceAccountName": "web", "containers": [{
            "name": "app", "image": "registry.example/app:1", "env": environment,
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": probe, "livenessProbe": probe,
        }]},
    })
}
