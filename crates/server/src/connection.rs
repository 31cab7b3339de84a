//! One client's connection: HTTP/1.1 until it ends, or until a request takes the connection over.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ponton_engine::Engine;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tracing::debug;

use crate::answer::{self, Answer, Body};
use crate::body::RequestBody;
use crate::call::Call;
use crate::error::Error;
use crate::hijack::Hijack;
use crate::router::{self, Routed};
use crate::shutdown::Shutdown;
use crate::websocket::WebSocket;

/// How long a client may take to send the head of a request, the wait before it included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);

/// What all connections share.
pub(crate) struct Service {
    engine: Arc<Engine>,
    shutdown: Shutdown,
}

impl Service {
    pub(crate) fn new(engine: Arc<Engine>, shutdown: Shutdown) -> Self {
        Self { engine, shutdown }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let body = RequestBody::new(body, &head.headers, self.shutdown.clone());
        let is_cut = body.is_cut();
        let routed = match router::route(&head.method, head.uri.path()) {
            Ok(routed) => routed,
            Err(error) => return Answer::Http(error.response(None)),
        };
        let Routed { version, handler, ends_with_client, name } = routed;
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let call = Call::new(self.engine.clone(), self.shutdown.clone(), version, name, head, body);
        // What changes something is carried through even if its client goes away meanwhile: only a whole
        // change leaves nothing behind. hyper drops the future of this function with the connection.
        let outcome = if method.is_safe() || ends_with_client {
            handler(call).await
        } else {
            tokio::spawn(handler(call)).await.unwrap_or_else(|error| Err(Error::internal(error.to_string())))
        };
        match outcome {
            Ok(answer) => answer,
            Err(mut error) => {
                // Whatever followed from a half request, it is not the daemon's fault.
                if is_cut.load(Ordering::Relaxed) && error.status == StatusCode::INTERNAL_SERVER_ERROR {
                    error.status = StatusCode::BAD_REQUEST;
                }
                error.log(&method, &path);
                Answer::Http(error.response(Some(&method)))
            }
        }
    }
}

/// What takes a connection over.
enum Taken {
    Raw(Hijack),
    WebSocket(WebSocket),
}

/// Serves a connection until it ends.
///
/// A handler that takes the connection over never answers through hyper: it sends a [`Hijack`] here
/// instead, the connection is taken apart while that request is still open, and the rest is between
/// the client and the engine. (hyper's own upgrade can't be used: Docker's clients also hijack
/// without asking for an upgrade, with an answer of 200.)
pub(crate) async fn serve(stream: UnixStream, service: Arc<Service>) {
    let (hijacks, mut hijacked) = mpsc::channel::<Taken>(1);
    let shutdown = service.shutdown.clone();
    let daemon_end = shutdown.clone();
    let handle = service_fn(move |request| {
        let (service, hijacks) = (service.clone(), hijacks.clone());
        async move {
            match service.answer(request).await {
                Answer::Http(mut response) => {
                    answer::add_common_headers(response.headers_mut(), service.engine.config().experimental);
                    Ok::<Response<Body>, Infallible>(response)
                }
                Answer::Hijack(hijack) => {
                    let _ = hijacks.send(Taken::Raw(hijack)).await;
                    std::future::pending().await
                }
                Answer::WebSocket(socket) => {
                    let _ = hijacks.send(Taken::WebSocket(socket)).await;
                    std::future::pending().await
                }
            }
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), handle);
    let mut shutdown = pin!(shutdown.begun());
    let mut ending = false;
    loop {
        tokio::select! {
            biased;
            Some(taken) = hijacked.recv() => {
                let parts = connection.into_parts();
                let (stream, early) = (parts.io.into_inner(), parts.read_buf);
                match taken {
                    Taken::Raw(hijack) => hijack.take_over(stream, early).await,
                    Taken::WebSocket(socket) => tokio::select! {
                        () = socket.take_over(stream, early) => {}
                        () = daemon_end.begun() => {}
                    },
                }
                return;
            }
            ended = &mut connection => {
                if let Err(error) = ended {
                    debug!(%error, "connection ended");
                }
                return;
            }
            () = &mut shutdown, if !ending => {
                ending = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    }
}
