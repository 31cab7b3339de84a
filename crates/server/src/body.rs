//! The body of a request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{EXPECT, HeaderMap};
use tokio::runtime::Handle;

use crate::shutdown::Shutdown;

/// How long, and how much, a client may send of what nobody wants any more.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_BYTES: u64 = 16 << 30;

/// A body that is received to its end, even if it is dropped before: many clients read no answer until
/// they have sent their whole request, and a connection that is closed with unread bytes breaks under
/// them before they know what was wrong.
pub(crate) struct RequestBody {
    /// Until it has ended.
    incoming: Option<Incoming>,
    /// The client sends nothing until it is asked to (`Expect: 100-continue`), which reading does.
    waits: bool,
    /// It did not come to its end.
    is_cut: Arc<AtomicBool>,
    shutdown: Shutdown,
    runtime: Handle,
}

impl RequestBody {
    /// The body under `headers`. It must be made, though not dropped, within the runtime.
    pub(crate) fn new(incoming: Incoming, headers: &HeaderMap, shutdown: Shutdown) -> Self {
        let incoming = Some(incoming).filter(|body| !body.is_end_stream());
        let (waits, is_cut) = (headers.contains_key(EXPECT), Arc::default());
        Self { incoming, waits, is_cut, shutdown, runtime: Handle::current() }
    }

    /// Tells, now or later, whether the client went, or sent nonsense, before the end.
    pub(crate) fn is_cut(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_cut)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits = false;
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(incoming).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.incoming = None;
        }
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.is_cut.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let rest = self.incoming.take().filter(|rest| !rest.is_end_stream() && !self.waits);
        if let Some(rest) = rest {
            let shutdown = self.shutdown.clone();
            self.runtime.spawn(async move {
                tokio::select! {
                    () = discard(rest) => {}
                    () = tokio::time::sleep(LINGER) => {}
                    () = shutdown.begun() => {}
                }
            });
        }
    }
}

async fn discard(mut rest: Incoming) {
    let mut left = LINGER_BYTES;
    while let Some(Ok(frame)) = rest.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        match left.checked_sub(length) {
            Some(less) => left = less,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::Full;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    /// The client's end of a connection on which every request is answered without being read.
    fn answered_at_once() -> UnixStream {
        let (client, server) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            let (_begin, shutdown) = Shutdown::new();
            let refuse = service_fn(|request: Request<Incoming>| {
                let (head, body) = request.into_parts();
                drop(RequestBody::new(body, &head.headers, shutdown.clone()));
                async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"answer")))) }
            });
            http1::Builder::new().serve_connection(TokioIo::new(server), refuse).await
        });
        client
    }

    async fn read_answer(client: &mut UnixStream) -> String {
        let mut answer = Vec::new();
        while !answer.ends_with(b"answer") {
            assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0, "the answer is not whole");
        }
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn a_client_may_send_all_before_it_reads() {
        let mut client = answered_at_once();
        let body = vec![7; 8 << 20];
        // Each on the connection of the one before.
        for _ in 0..2 {
            let head = format!("POST / HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n", body.len());
            client.write_all(head.as_bytes()).await.unwrap();
            client.write_all(&body).await.unwrap();
            assert!(read_answer(&mut client).await.starts_with("HTTP/1.1 200"));
        }
    }

    #[tokio::test]
    async fn a_client_that_waits_is_not_asked_to_send() {
        let mut client = answered_at_once();
        let head = "POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        assert!(read_answer(&mut client).await.starts_with("HTTP/1.1 200"));
    }
}
