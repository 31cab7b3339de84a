//! One connection to one shim: requests find their answers by id, events go to one queue.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ponton_runtime::shim::client::{Client, Error as ShimError};
use ponton_runtime::shim::protocol::{self, Body, Failure, FailureKind, FdRole, Reply, Request};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

/// Descriptors that came with an answer.
pub(crate) type Descriptors = Vec<(FdRole, OwnedFd)>;

type Answer = Result<(Reply, Descriptors), Failure>;

/// What a shim tells without being asked.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Something happened in a container.
    Event(protocol::Event),
    /// The shim with this number is gone.
    Lost(u32),
}

/// A shim that runs.
pub(crate) struct Shim {
    number: u32,
    client: Client,
    /// A dup of the client's socket, to wait for.
    ready: AsyncFd<OwnedFd>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    next_id: AtomicU64,
    /// Whose turn it is to send. A shim that is behind takes little at a time: without a queue some who
    /// wait would be overtaken for ever.
    turn: tokio::sync::Mutex<()>,
    /// How many more containers it takes.
    free: AtomicU32,
    lost: AtomicBool,
}

impl Shim {
    /// Takes over a connected client; events go to `notices` from now on.
    pub(crate) fn adopt(
        number: u32,
        client: Client,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> Result<Arc<Self>, ShimError> {
        client.set_nonblocking(true)?;
        let path = client.path().to_owned();
        let ready = client
            .as_fd()
            .try_clone_to_owned()
            .and_then(|fd| crate::poll::register(fd, Interest::READABLE | Interest::WRITABLE))
            .map_err(|source| ShimError::Io { operation: "poll", path, source })?;
        let shim = Arc::new(Self {
            number,
            client,
            ready,
            waiting: Mutex::default(),
            next_id: AtomicU64::new(1),
            turn: tokio::sync::Mutex::new(()),
            free: AtomicU32::new(0),
            lost: AtomicBool::new(false),
        });
        tokio::spawn(Arc::clone(&shim).listen(notices));
        Ok(shim)
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub(crate) fn free(&self) -> u32 {
        if self.is_lost() { 0 } else { self.free.load(Ordering::Acquire) }
    }

    pub(crate) fn set_free(&self, free: u32) {
        self.free.store(free, Ordering::Release);
    }

    /// Takes a place for one more container; false when there is none.
    pub(crate) fn take_place(&self) -> bool {
        let take = |free: u32| free.checked_sub(1);
        !self.is_lost() && self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    /// Gives a place back.
    pub(crate) fn give_place(&self) {
        self.free.fetch_add(1, Ordering::AcqRel);
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn call(
        &self,
        request: &Request,
        fds: &[(FdRole, BorrowedFd<'_>)],
    ) -> Result<(Reply, Descriptors), Failure> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting().insert(id, answer);
        if let Err(error) = self.send(id, request, fds).await {
            self.waiting().remove(&id);
            return Err(error);
        }
        if self.is_lost() {
            // The listener may have ended before the request was entered.
            self.waiting().remove(&id);
        }
        answered.await.unwrap_or_else(|_| Err(self.gone()))
    }

    async fn send(
        &self,
        id: u64,
        request: &Request,
        fds: &[(FdRole, BorrowedFd<'_>)],
    ) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        loop {
            match self.client.send(id, request, fds) {
                Ok(()) => return Ok(()),
                Err(ShimError::Io { source, .. }) if source.kind() == ErrorKind::WouldBlock => {
                    let mut guard = self.ready.writable().await.map_err(|error| internal(&error))?;
                    guard.clear_ready();
                }
                Err(ShimError::Refused(failure)) => return Err(failure),
                Err(error) => {
                    if let ShimError::Io { source, .. } = &error
                        && matches!(source.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
                    {
                        // The listener is told soon.
                        self.lost.store(true, Ordering::Release);
                    }
                    return Err(internal(&error));
                }
            }
        }
    }

    async fn listen(self: Arc<Self>, notices: mpsc::UnboundedSender<Notice>) {
        loop {
            match self.client.try_recv() {
                Ok(Some(received)) => match received.message.body {
                    Body::Reply { id, reply } => self.answer(id, Ok((reply, received.fds))),
                    Body::Error { id, error } => self.answer(id, Err(error)),
                    Body::Event { event } => {
                        // Without an engine that listens there is nothing to do with it.
                        let _ = notices.send(Notice::Event(event));
                    }
                },
                Ok(None) => match self.ready.readable().await {
                    Ok(mut guard) => guard.clear_ready(),
                    Err(error) => {
                        tracing::error!(%error, shim = self.number, "poll shim");
                        break;
                    }
                },
                Err(ShimError::Closed { .. }) => break,
                Err(error) => {
                    tracing::error!(error = crate::error::chain(&error), shim = self.number, "shim");
                    break;
                }
            }
        }
        self.lost.store(true, Ordering::Release);
        self.waiting().clear();
        let _ = notices.send(Notice::Lost(self.number));
    }

    fn answer(&self, id: u64, answer: Answer) {
        if let Some(waiting) = self.waiting().remove(&id) {
            // Who asked may have gone; what came with the answer is closed then.
            let _ = waiting.send(answer);
        }
    }

    fn gone(&self) -> Failure {
        Failure { kind: FailureKind::Internal, step: None, message: format!("shim {} is gone", self.number) }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn internal(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure { kind: FailureKind::Internal, step: None, message: crate::error::chain(error) }
}
