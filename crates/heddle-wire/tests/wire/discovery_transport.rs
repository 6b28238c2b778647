//! The gRPC glue, client and server joined by an in-memory connection.

use std::{io, sync::Arc};

use heddle_wire::discovery::{
    proto::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Listening, Node, ReportRequest,
        ReportResponse,
    },
    transport::{
        Discovery, DiscoveryClient, MESSAGE_BYTES_MAX, REPORT_PATH, endpoint, router,
        tokio_stream::{self, Stream, StreamExt},
    },
};
use hyper_util::rt::TokioIo;
use tonic::{
    Code, Request, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery,
    transport::Channel,
};
use tonic_prost::ProstCodec;

/// Answers every request with its nonce, type and the subscribed names as removed.
struct Echo;

impl Discovery for Echo {
    type Responses =
        std::pin::Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn stream(
        &self,
        requests: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Self::Responses, Status> {
        let answers = requests.into_inner().map(|request| {
            let request = request?;
            Ok(DeltaDiscoveryResponse {
                system_version_info: "7".to_owned(),
                type_url: request.type_url,
                nonce: request.node.map(|node| node.id).unwrap_or_default(),
                removed_resources: request.resource_names_subscribe,
                generation_end: true,
                ..DeltaDiscoveryResponse::default()
            })
        });
        Ok(Box::pin(answers))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<ReportResponse, Status> {
        match &request.get_ref().listening[..] {
            [] => Err(Status::invalid_argument("nothing listens")),
            _ => Ok(ReportResponse {}),
        }
    }
}

async fn connect() -> Channel {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let incoming = tokio_stream::once(Ok::<_, io::Error>(server));
    tokio::spawn(router(Arc::new(Echo)).serve_with_incoming(incoming));
    let mut client = Some(client);
    let connector = tower::service_fn(move |_| {
        let connection = client.take().ok_or_else(|| io::Error::other("connected once already"));
        async move { connection.map(TokioIo::new) }
    });
    endpoint().connect_with_connector(connector).await.expect("connects")
}

#[tokio::test]
async fn requests_and_responses_stream_both_ways() {
    let mut client = DiscoveryClient::new(connect().await);
    let request = |id: &str| DeltaDiscoveryRequest {
        node: Some(Node { id: id.to_owned(), cluster: String::new() }),
        type_url: "t".to_owned(),
        resource_names_subscribe: vec!["a".to_owned(), "b".to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    let requests = tokio_stream::iter([request("one"), request("two")]);
    let mut responses = client.stream(requests).await.unwrap();
    for nonce in ["one", "two"] {
        let response = responses.message().await.unwrap().unwrap();
        assert_eq!((&response.nonce[..], &response.system_version_info[..]), (nonce, "7"));
        assert_eq!(response.removed_resources, ["a", "b"]);
        assert!(response.generation_end);
    }
    assert_eq!(responses.message().await.unwrap(), None, "the stream ends with its requests");
}

#[tokio::test]
async fn a_report_is_answered_or_refused() {
    let mut client = DiscoveryClient::new(connect().await);
    let listening = vec![Listening { address: vec![127, 0, 0, 1], port: 80 }];
    let report = ReportRequest { workload: "w".to_owned(), listening };
    assert_eq!(client.report(report).await.unwrap(), ReportResponse {});
    let refusal = client.report(ReportRequest::default()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused() {
    let mut client = DiscoveryClient::new(connect().await);
    let workload = "w".repeat(MESSAGE_BYTES_MAX + 1);
    let report = ReportRequest { workload, listening: Vec::new() };
    assert!(client.report(report.clone()).await.is_err(), "our own client does not send it");
    let mut unlimited = Grpc::new(connect().await);
    unlimited.ready().await.unwrap();
    let codec: ProstCodec<ReportRequest, ReportResponse> = ProstCodec::new();
    let path = PathAndQuery::from_static(REPORT_PATH);
    let refusal = unlimited.unary(Request::new(report), path, codec).await.unwrap_err();
    assert_eq!(refusal.code(), Code::OutOfRange, "{refusal}");
}
