//! The certificate service beside discovery: a sidecar sends a request for a certificate (PKCS #10) with the token
//! of its pod, and gets the certificate with those behind it. By hand like the rest of [`super::transport`].

use std::{future::Future, sync::Arc};

use tonic::{
    Request, Response, Status,
    body::Body as GrpcBody,
    client::Grpc as ClientGrpc,
    codegen::{Body, BoxFuture, StdError, http},
    metadata::{Ascii, MetadataValue, errors::InvalidMetadataValue},
    server::UnaryService,
    transport::{Channel, server::Router},
};
use tonic_prost::ProstCodec;

use super::{
    served::{Call, Served},
    transport::{self, Discovery, limited},
};

/// Path of the call.
pub const ISSUE_PATH: &str = "/heddle.ca.v1.CertificateService/Issue";
/// The metadata that carries the token: `Bearer TOKEN`.
pub const AUTHORIZATION: &str = "authorization";
/// Whom a token must be meant for.
pub const TOKEN_AUDIENCE: &str = "heddle-ca";
/// Largest request for a certificate, bytes: one with the largest key that anybody uses has a fifth of that.
pub const CSR_BYTES_MAX: usize = 8 * 1024;
/// Largest token, bytes: what fits in the metadata beside the rest.
pub const TOKEN_BYTES_MAX: usize = 12 * 1024;

/// A request for a certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IssueRequest {
    /// PKCS #10, DER. Only its key counts: who asks is what the token says.
    #[prost(bytes = "vec", tag = "1")]
    pub csr: Vec<u8>,
}

/// A certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IssueResponse {
    /// The certificate, then those that lead from it towards a root, each DER.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub chain: Vec<Vec<u8>>,
    /// Whom the mesh believes, each DER.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub roots: Vec<Vec<u8>>,
    /// The certificate is good from here on, seconds of Unix time…
    #[prost(uint64, tag = "3")]
    pub not_before: u64,
    /// …until here.
    #[prost(uint64, tag = "4")]
    pub not_after: u64,
    /// What the clock of who issued it says, seconds of Unix time.
    #[prost(uint64, tag = "5")]
    pub issued_at: u64,
    /// Whose it is: the id that the discovery server knows its holder by.
    #[prost(string, tag = "6")]
    pub workload: String,
}

/// What the control plane implements.
pub trait Certificates: Send + Sync + 'static {
    /// A sidecar asks for a certificate.
    fn issue(
        &self,
        request: Request<IssueRequest>,
    ) -> impl Future<Output = Result<IssueResponse, Status>> + Send;
}

/// A server of discovery and certificates, with every limit set.
pub fn router<D: Discovery, C: Certificates>(discovery: Arc<D>, certificates: Arc<C>) -> Router {
    transport::router(discovery).add_service(Served::<C, IssueCall>::new(certificates))
}

/// The sidecar's side.
#[derive(Debug, Clone)]
pub struct CertificateClient {
    grpc: ClientGrpc<Channel>,
}

impl CertificateClient {
    /// A client on a [`transport::endpoint`] that has been connected.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        let max = transport::MESSAGE_BYTES_MAX;
        let grpc = ClientGrpc::new(channel).max_decoding_message_size(max);
        Self { grpc }
    }

    /// Asks for a certificate with a pod's token.
    ///
    /// # Errors
    /// The control plane cannot be reached or refuses, or the token is none.
    pub async fn issue(
        &mut self,
        request: IssueRequest,
        token: &str,
    ) -> Result<IssueResponse, Status> {
        let mut request = Request::new(request);
        let bearer = bearer(token)
            .map_err(|_| Status::invalid_argument("the token holds what no token can hold"))?;
        request.metadata_mut().insert(AUTHORIZATION, bearer);
        self.grpc.ready().await.map_err(|error| {
            Status::unavailable(format!("the control plane is not reachable: {error}"))
        })?;
        let path = http::uri::PathAndQuery::from_static(ISSUE_PATH);
        let codec: ProstCodec<IssueRequest, IssueResponse> = ProstCodec::new();
        self.grpc.unary(request, path, codec).await.map(Response::into_inner)
    }
}

/// The metadata's value; nothing that logs metadata is to show it.
fn bearer(token: &str) -> Result<MetadataValue<Ascii>, InvalidMetadataValue> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse()?;
    value.set_sensitive(true);
    Ok(value)
}

/// The token in a request's metadata.
///
/// # Errors
/// What a request must have.
pub fn token<T>(request: &Request<T>) -> Result<&str, Status> {
    let missing = || {
        Status::unauthenticated(
            "a certificate needs the pod's token in `authorization: Bearer TOKEN`: mount one for the audience `heddle-ca`",
        )
    };
    let value = request.metadata().get(AUTHORIZATION).ok_or_else(missing)?;
    let value = value.to_str().map_err(|_| missing())?;
    let token = value.strip_prefix("Bearer ").map(str::trim).ok_or_else(missing)?;
    match token.len() {
        0 => Err(missing()),
        len if len > TOKEN_BYTES_MAX => {
            Err(Status::invalid_argument(format!("a token has at most {TOKEN_BYTES_MAX} bytes")))
        }
        _ => Ok(token),
    }
}

/// The call at [`ISSUE_PATH`].
enum IssueCall {}

impl<T: Certificates> Call<T> for IssueCall {
    const SERVICE: &'static str = "heddle.ca.v1.CertificateService";
    const PATH: &'static str = ISSUE_PATH;

    async fn answer<B>(
        server: Served<T, Self>,
        request: http::Request<B>,
    ) -> http::Response<GrpcBody>
    where
        B: Body + Send + 'static,
        B::Error: Into<StdError> + Send,
    {
        // Anybody may call this: no more is read than a request for a certificate can have.
        let mut grpc = limited().max_decoding_message_size(2 * CSR_BYTES_MAX);
        grpc.unary(server, request).await
    }
}

impl<T: Certificates> UnaryService<IssueRequest> for Served<T, IssueCall> {
    type Response = IssueResponse;
    type Future = BoxFuture<Response<IssueResponse>, Status>;

    fn call(&mut self, request: Request<IssueRequest>) -> Self::Future {
        let service = Arc::clone(&self.service);
        Box::pin(async move { service.issue(request).await.map(Response::new) })
    }
}
