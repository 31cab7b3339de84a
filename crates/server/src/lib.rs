//! The Docker Engine API over HTTP: requests in, calls of the [`Engine`], answers out.
//!
//! ```text
//! listener ─► connection ─► router ─► route::<noun> ─► Engine
//!                 │            │            │
//!                 │            │            ├─► answer   an HTTP answer (JSON, text, streams)
//!                 │            │            ├─► hijack   the connection itself goes to the engine
//!                 │            │            └─► websocket   it carries messages from and to the engine
//!                 │            └─ version, parameters, query
//!                 └─ HTTP/1.1, timeouts, graceful end
//! ```
//!
//! All routes are in the tables of `route`; all errors become statuses in `error`; all that
//! differs between versions of the API is in `adapt`. No rule about containers lives here.
//!
//! *Invariant*: a request's memory is bounded (JSON bodies by a limit, others by streaming), and is
//! freed when its client goes away: hyper drops the handler's future when the connection ends.

mod adapt;
mod answer;
mod body;
mod call;
mod connection;
mod download;
mod error;
mod hijack;
mod json_array;
mod json_lines;
mod metrics;
mod query;
mod route;
mod router;
mod shutdown;
mod tls;
mod websocket;

pub use metrics::serve_metrics;

use std::sync::Arc;
use std::time::Duration;

use ponton_engine::Engine;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tracing::warn;

use crate::connection::Service;
use crate::shutdown::Shutdown;

/// How long requests may still run after the shutdown began; streams end at once.
const GRACE: Duration = Duration::from_secs(5);

/// Serves the API until `shutdown` resolves; then lets running requests end, for five seconds at most.
///
/// The listener is dropped as soon as the shutdown begins. Connections that the engine took over
/// (attach, exec) are not ours any more and go on.
pub async fn serve(listener: UnixListener, engine: Arc<Engine>, shutdown: impl Future<Output = ()> + Send) {
    let (begin_shutdown, begun) = Shutdown::new();
    let service = Arc::new(Service::new(engine, begun));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection::serve(stream, service.clone()));
                }
                Err(error) => {
                    // Out of descriptors, most likely: those that are open have to end first.
                    warn!(%error, "accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    begin_shutdown.begin();
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        warn!("some requests did not end in time and were cut off");
    }
}
