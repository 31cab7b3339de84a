//! What a client is told about the world: mirrors, trust, proxies and bounds.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct Config {
    /// URLs of mirrors of Docker Hub (`https://mirror.example`), asked before it, in this order. They are
    /// asked without credentials.
    pub mirrors: Vec<String>,
    /// Registries (`host`, `host:port`) and networks (`10.0.0.0/8`) whose certificates are not verified, and
    /// that may speak plain HTTP. Loopback addresses are always among them.
    pub insecure: Vec<String>,
    /// Directories with a folder for each registry (`host:port`), in which `*.crt` are authorities to trust,
    /// `*.cert` and `*.key` pairs the client's own certificate (`certs.d`). Earlier ones win.
    pub certs: Vec<PathBuf>,
    /// Proxies on the way.
    pub proxy: Proxy,
    /// What the client calls itself.
    pub user_agent: String,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Config {
    /// Docker's defaults: no mirrors, certificates of `/etc/ponton/certs.d` and `/etc/docker/certs.d`, the
    /// proxies of the environment.
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            insecure: Vec::new(),
            certs: vec!["/etc/ponton/certs.d".into(), "/etc/docker/certs.d".into()],
            proxy: Proxy::Environment,
            user_agent: concat!("ponton/", env!("CARGO_PKG_VERSION")).to_owned(),
            limits: Limits::default(),
        }
    }
}

/// Which proxies lie on the way to registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    /// Those of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, in capitals or not.
    #[default]
    Environment,
    /// None.
    Direct,
    /// These; empty strings for none.
    These {
        /// URL of the proxy for `http://`.
        http: String,
        /// URL of the proxy for `https://`.
        https: String,
        /// Hosts, domains and networks that are reached directly, separated by commas.
        no_proxy: String,
    },
}

/// Bounds of time and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// To a connection, TLS included.
    pub connect: Duration,
    /// In which nothing comes and nothing can be sent.
    pub idle: Duration,
    /// In which a registry acknowledges a whole upload: it may hash and copy it first.
    pub commit: Duration,
    /// In which an answer that is no blob is there whole.
    pub answer: Duration,
    /// How often a request is tried, and how often in a row a transfer may be cut without progress.
    pub attempts: u32,
    /// The first pause between two attempts; each further one is twice as long.
    pub backoff: Duration,
    /// The longest pause, also of those that a registry asks for by `Retry-After`: above it, its refusal stands.
    pub backoff_max: Duration,
    /// Redirects that are followed in a row.
    pub redirects: u32,
    /// Bytes of a manifest.
    pub manifest: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            idle: Duration::from_secs(60),
            commit: Duration::from_secs(600),
            answer: Duration::from_secs(180),
            attempts: 5,
            backoff: Duration::from_millis(250),
            backoff_max: Duration::from_secs(60),
            redirects: 10,
            manifest: 4 << 20,
        }
    }
}

/// Ends transfers from outside: given to a [`crate::Repository`], whatever it waits for ends with
/// [`crate::Error::Cancelled`] once [`Cancel::cancel`] is called on any clone.
#[derive(Clone, Debug)]
pub struct Cancel(watch::Sender<bool>);

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl Cancel {
    /// Nothing is cancelled yet.
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Cancels, for good.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Whether it is cancelled.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is cancelled.
    pub async fn cancelled(&self) {
        // The sender is ours: the wait cannot end in its being gone.
        let _ = self.0.subscribe().wait_for(|cancelled| *cancelled).await;
    }
}
