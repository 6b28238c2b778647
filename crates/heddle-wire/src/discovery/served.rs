//! Services of one call each, as tonic serves them. What a call takes, how large and in which way is the call's to
//! say ([`Call`]); what every one of them needs around that is here, once.

use std::{
    convert::Infallible,
    future::Future,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    Code, Status,
    body::Body as GrpcBody,
    codegen::{Body, BoxFuture, Service, StdError, http},
    server::NamedService,
};

/// A call, answered by a `T`.
pub(super) trait Call<T>: Sized + Send + Sync + 'static {
    /// The service it is a call of.
    const SERVICE: &'static str;
    /// Its path.
    const PATH: &'static str;

    /// Reads a request to that path and answers it.
    fn answer<B>(
        server: Served<T, Self>,
        request: http::Request<B>,
    ) -> impl Future<Output = http::Response<GrpcBody>> + Send
    where
        B: Body + Send + 'static,
        B::Error: Into<StdError> + Send;
}

/// Who answers one call.
pub(super) struct Served<T, C> {
    pub(super) service: Arc<T>,
    call: PhantomData<C>,
}

impl<T, C> Served<T, C> {
    pub(super) fn new(service: Arc<T>) -> Self {
        Self { service, call: PhantomData }
    }
}

impl<T, C> Clone for Served<T, C> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.service))
    }
}

impl<T, C: Call<T>> NamedService for Served<T, C> {
    const NAME: &'static str = C::SERVICE;
}

impl<T, C, B> Service<http::Request<B>> for Served<T, C>
where
    T: Send + Sync + 'static,
    C: Call<T>,
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send,
{
    type Response = http::Response<GrpcBody>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != C::PATH {
            let status = Status::new(Code::Unimplemented, "no such call");
            return Box::pin(async move { Ok(status.into_http()) });
        }
        let server = self.clone();
        Box::pin(async move { Ok(C::answer(server, request).await) })
    }
}
