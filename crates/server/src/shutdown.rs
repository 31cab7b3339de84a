//! The daemon's end, as what it concerns sees it.

use tokio::sync::watch;

/// Knows whether the shutdown has begun.
#[derive(Clone)]
pub(crate) struct Shutdown(watch::Receiver<bool>);

/// Begins the shutdown.
pub(crate) struct BeginShutdown(watch::Sender<bool>);

impl Shutdown {
    pub(crate) fn new() -> (BeginShutdown, Self) {
        let (sender, receiver) = watch::channel(false);
        (BeginShutdown(sender), Self(receiver))
    }

    /// Resolves when the shutdown begins, at once if it did already.
    pub(crate) async fn begun(mut self) {
        // An error means that the sender is gone: that is an end, too.
        let _ = self.0.wait_for(|begun| *begun).await;
    }
}

impl BeginShutdown {
    pub(crate) fn begin(&self) {
        self.0.send_replace(true);
    }
}
