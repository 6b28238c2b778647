//! gRPC glue: the delta stream and the report call, for both sides. Written by hand instead of
//! generated, so that there is no build script and every limit is in sight.
//!
//! It opens no socket. The server side is a [`router`] to be served on accepted connections, the
//! client side an [`endpoint`] to be connected by a connector of the caller's.

use std::{future::Future, sync::Arc, time::Duration};

use tokio_stream::Stream;
pub use tonic::codegen::tokio_stream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body as GrpcBody,
    client::Grpc as ClientGrpc,
    codegen::{Body, BoxFuture, StdError, http},
    server::{Grpc as ServerGrpc, StreamingService, UnaryService},
    transport::{Channel, Endpoint, Server, server::Router},
};
use tonic_prost::ProstCodec;

use super::{
    proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, ReportRequest, ReportResponse},
    served::{Call, Served},
};

/// Path of the delta stream: Envoy's, so that known tools can read it.
pub const STREAM_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// Path of the report call.
pub const REPORT_PATH: &str = "/heddle.discovery.v1alpha1.Status/Report";
/// Largest message either way, bytes: a mesh-wide resubscription names many resources at once.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Streams one proxy may have open at once: one for discovery, a few reports.
pub const STREAMS_MAX: u32 = 16;
/// Largest list of gRPC metadata, bytes.
pub const METADATA_BYTES_MAX: u32 = 16 * 1024;
/// Bytes in flight to one side that it has not read yet.
pub const WINDOW_BYTES: u32 = 1024 * 1024;
/// A peer that is silent for so long is asked for a sign of life…
pub const PING_AFTER: Duration = Duration::from_secs(10);
/// …and given up if it gives none within this time.
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What the control plane implements.
pub trait Discovery: Send + Sync + 'static {
    /// Responses of one stream.
    type Responses: Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send + 'static;

    /// A proxy has opened its stream.
    fn stream(
        &self,
        requests: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> impl Future<Output = Result<Self::Responses, Status>> + Send;

    /// A proxy reports where its application listens.
    fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> impl Future<Output = Result<ReportResponse, Status>> + Send;
}

/// A server of both calls, with every limit set. To be served with `serve_with_incoming_shutdown`,
/// e.g. on a [`tokio_stream::wrappers::UnixListenerStream`].
pub fn router<T: Discovery>(service: Arc<T>) -> Router {
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_max_header_list_size(METADATA_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(STREAMS_MAX as usize))
        .http2_max_local_error_reset_streams(Some(STREAMS_MAX as usize))
        .http2_keepalive_interval(Some(PING_AFTER))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_service(Served::<T, StreamCall>::new(Arc::clone(&service)))
        .add_service(Served::<T, ReportCall>::new(service))
}

/// How to connect, with every limit set; `connect_with_connector` takes it from here. The authority
/// is a fixed name: the connector decides where the bytes go.
#[must_use]
pub fn endpoint() -> Endpoint {
    Endpoint::from_static("http://discovery.heddle.internal")
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_max_header_list_size(METADATA_BYTES_MAX)
        .http2_max_local_error_reset_streams(STREAMS_MAX as usize)
        .http2_keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// The proxy's side.
#[derive(Debug, Clone)]
pub struct DiscoveryClient {
    grpc: ClientGrpc<Channel>,
}

impl DiscoveryClient {
    /// A client on an [`endpoint`] that has been connected.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        let grpc = ClientGrpc::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self { grpc }
    }

    /// Opens the stream. Requests are taken from `requests` for as long as it lasts; ending it ends
    /// the stream.
    ///
    /// # Errors
    /// The control plane cannot be reached, or refuses.
    pub async fn stream(
        &mut self,
        requests: impl Stream<Item = DeltaDiscoveryRequest> + Send + 'static,
    ) -> Result<Streaming<DeltaDiscoveryResponse>, Status> {
        self.ready().await?;
        let path = http::uri::PathAndQuery::from_static(STREAM_PATH);
        let codec: ProstCodec<DeltaDiscoveryRequest, DeltaDiscoveryResponse> = ProstCodec::new();
        self.grpc.streaming(Request::new(requests), path, codec).await.map(Response::into_inner)
    }

    /// Reports where the application listens.
    ///
    /// # Errors
    /// The control plane cannot be reached, or refuses.
    pub async fn report(&mut self, report: ReportRequest) -> Result<ReportResponse, Status> {
        self.ready().await?;
        let path = http::uri::PathAndQuery::from_static(REPORT_PATH);
        let codec: ProstCodec<ReportRequest, ReportResponse> = ProstCodec::new();
        self.grpc.unary(Request::new(report), path, codec).await.map(Response::into_inner)
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.grpc
            .ready()
            .await
            .map_err(|error| Status::unavailable(format!("discovery is not reachable: {error}")))
    }
}

/// The call at [`STREAM_PATH`].
enum StreamCall {}

impl<T: Discovery> Call<T> for StreamCall {
    const SERVICE: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
    const PATH: &'static str = STREAM_PATH;

    async fn answer<B>(
        server: Served<T, Self>,
        request: http::Request<B>,
    ) -> http::Response<GrpcBody>
    where
        B: Body + Send + 'static,
        B::Error: Into<StdError> + Send,
    {
        limited().streaming(server, request).await
    }
}

impl<T: Discovery> StreamingService<DeltaDiscoveryRequest> for Served<T, StreamCall> {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = T::Responses;
    type Future = BoxFuture<Response<T::Responses>, Status>;

    fn call(&mut self, requests: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let service = Arc::clone(&self.service);
        Box::pin(async move { service.stream(requests).await.map(Response::new) })
    }
}

/// The call at [`REPORT_PATH`].
enum ReportCall {}

impl<T: Discovery> Call<T> for ReportCall {
    const SERVICE: &'static str = "heddle.discovery.v1alpha1.Status";
    const PATH: &'static str = REPORT_PATH;

    async fn answer<B>(
        server: Served<T, Self>,
        request: http::Request<B>,
    ) -> http::Response<GrpcBody>
    where
        B: Body + Send + 'static,
        B::Error: Into<StdError> + Send,
    {
        limited().unary(server, request).await
    }
}

impl<T: Discovery> UnaryService<ReportRequest> for Served<T, ReportCall> {
    type Response = ReportResponse;
    type Future = BoxFuture<Response<ReportResponse>, Status>;

    fn call(&mut self, request: Request<ReportRequest>) -> Self::Future {
        let service = Arc::clone(&self.service);
        Box::pin(async move { service.report(request).await.map(Response::new) })
    }
}

/// What reads and writes messages, none larger than there may be.
pub(super) fn limited<In, Out>() -> ServerGrpc<ProstCodec<Out, In>>
where
    In: prost::Message + Default + Send + 'static,
    Out: prost::Message + Send + 'static,
{
    ServerGrpc::new(ProstCodec::new())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}
