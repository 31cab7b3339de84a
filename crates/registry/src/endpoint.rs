//! The servers that a registry's name stands for, and requests to them with what they want to be shown.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::Uri;
use hyper::header;
use hyper::http::uri::Scheme;

use crate::access::Access;
use crate::challenge;
use crate::error::{Error, Kind, Result, refusal};
use crate::redirect::{follow, is_same_origin};
use crate::transport::{Answer, Ask, Transport};
use crate::tries::Tries;
use crate::trust::Insecure;

/// The server behind the name `docker.io`.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// For how long a mirror that fails is not asked any more.
const SHUNNED: Duration = Duration::from_secs(300);
/// How often a refused client shows something new in one request: a first token, then one that is not old.
const ANSWERS_TO_REFUSALS: u32 = 2;

/// One server: a registry or a mirror.
#[derive(Debug)]
pub(crate) struct Endpoint {
    authority: String,
    pub(crate) is_mirror: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` until it is known what an insecure registry speaks.
    scheme: Option<Scheme>,
    shunned: Option<Instant>,
}

impl Endpoint {
    /// The server of a registry (`docker.io`, `host:port`).
    pub(crate) fn of_registry(registry: &str) -> Self {
        let authority = if registry == "docker.io" { DOCKER_HUB } else { registry };
        Self::new(authority, None, false)
    }

    /// A mirror by its URL.
    pub(crate) fn of_mirror(url: &str) -> Result<Self> {
        let what = || format!("mirror {url:?}");
        let refused = |reason: &str| Error::Config { what: what(), reason: reason.to_owned() };
        let parsed: Uri = url.parse().map_err(|_| refused("is no URL"))?;
        let (Some(scheme), Some(authority)) = (parsed.scheme(), parsed.authority()) else {
            return Err(refused("is no URL: write https://host"));
        };
        if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS {
            return Err(refused("is neither http nor https"));
        }
        if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() || authority.as_str().contains('@')
        {
            return Err(refused("has more than scheme, host and port"));
        }
        Ok(Self::new(authority.as_str(), Some(scheme.clone()), true))
    }

    fn new(authority: &str, scheme: Option<Scheme>, is_mirror: bool) -> Self {
        let state = Mutex::new(State { scheme, shunned: None });
        Self { authority: authority.to_owned(), is_mirror, state }
    }

    /// Scheme, where it is given, and host.
    pub(crate) fn name(&self) -> String {
        let scheme = self.state().scheme.clone().filter(|_| self.is_mirror);
        scheme.map_or_else(String::new, |scheme| format!("{scheme}://")) + &self.authority
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may be asked now.
    pub(crate) fn is_usable(&self) -> bool {
        self.state().shunned.is_none_or(|until| Instant::now() >= until)
    }

    /// Takes note of an error: a mirror that is broken is left alone for some time.
    pub(crate) fn note(&self, error: &Error) {
        if self.is_mirror && matches!(error.kind(), Kind::Unavailable | Kind::Untrusted) {
            tracing::warn!(mirror = self.authority, %error, "mirror is not asked for some time");
            self.state().shunned = Instant::now().checked_add(SHUNNED);
        }
    }

    /// What a registry speaks may change; what a mirror speaks is configured.
    fn forget_scheme(&self) {
        if !self.is_mirror {
            self.state().scheme = None;
        }
    }

    fn url(&self, scheme: &Scheme, path: &str) -> Result<Uri> {
        let url = format!("{scheme}://{}{path}", self.authority);
        let reason =
            || Error::Config { what: self.authority.clone(), reason: "is no name of a server".to_owned() };
        url.parse().map_err(|_| reason())
    }

    /// Finds out whether it speaks TLS. Only insecure registries may do without.
    async fn scheme(&self, transport: &Transport, insecure: &Insecure) -> Result<Scheme> {
        let known = self.state().scheme.clone();
        if let Some(scheme) = known {
            return Ok(scheme);
        }
        let url = self.url(&Scheme::HTTPS, "/")?;
        let scheme = match insecure.contains(&url).await {
            false => Scheme::HTTPS,
            true => match transport.speaks_tls(&url).await {
                Ok(true) => Scheme::HTTPS,
                Ok(false) => Scheme::HTTP,
                // Nobody listens at the port of HTTPS; that of HTTP is another.
                Err(Error::Connect { .. }) if url.port().is_none() => Scheme::HTTP,
                Err(error) => return Err(error),
            },
        };
        self.state().scheme = Some(scheme.clone());
        Ok(scheme)
    }
}

/// One server, with what it is shown.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) transport: Arc<Transport>,
    pub(crate) insecure: Arc<Insecure>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) access: Arc<Access>,
}

impl Session {
    /// The URL of a path with its query.
    pub(crate) async fn url(&self, path: &str) -> Result<Uri> {
        let mut tries = Tries::new(&self.transport.limits);
        let scheme = loop {
            match self.endpoint.scheme(&self.transport, &self.insecure).await {
                Ok(scheme) => break scheme,
                Err(error) => tries.pause(error).await?,
            }
        };
        self.endpoint.url(&scheme, path)
    }

    /// Sends a request once, and again with what is shown where that is refused. Any status but success
    /// is an error.
    pub(crate) async fn send(&self, ask: &Ask<'_>) -> Result<Answer> {
        let ours = is_same_origin(&ask.url, &self.url("/").await?);
        let mut answers = 0;
        loop {
            let shown = match ours {
                true => self.access.authorization(&self.transport, &ask.url).await?,
                false => None,
            };
            let sent = follow(&self.transport, ask, shown.as_ref()).await;
            let mut answer = sent.inspect_err(|error| {
                if matches!(error, Error::Connect { .. } | Error::Lost { .. }) {
                    self.endpoint.forget_scheme();
                }
            })?;
            if answer.status.is_success() {
                return Ok(answer);
            }
            let refusal = refusal(ask.what, &mut answer).await;
            let may_show = ours && is_same_origin(&answer.url, &ask.url) && answers < ANSWERS_TO_REFUSALS;
            if answer.status.as_u16() != 401 || !may_show {
                return Err(refusal);
            }
            let headers = answer.headers.get_all(header::WWW_AUTHENTICATE);
            let challenges: Vec<_> =
                headers.iter().filter_map(|h| h.to_str().ok()).flat_map(challenge::parse).collect();
            self.access.answer(&self.transport, &ask.url, &challenges, shown.as_ref(), refusal).await?;
            answers += 1;
        }
    }

    /// Sends a request that may be repeated until it succeeds or can't.
    pub(crate) async fn persist(&self, ask: &Ask<'_>) -> Result<Answer> {
        let mut tries = Tries::new(&self.transport.limits);
        loop {
            match self.send(ask).await {
                Ok(answer) => return Ok(answer),
                Err(error) => tries.pause(error).await?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_hosts() {
        for url in ["https://m.example", "http://m.example:5000/", "https://[::1]:5000"] {
            Endpoint::of_mirror(url).unwrap();
        }
        for url in ["", "m.example", "ftp://m", "https://m/path", "https://a:b@m", "https://m/?x", "https://"]
        {
            assert!(matches!(Endpoint::of_mirror(url), Err(Error::Config { .. })), "{url}");
        }
    }

    #[test]
    fn broken_mirrors_are_left_alone_and_registries_never() {
        let lost = Error::Lost { what: String::new(), reason: String::new() };
        let missing = Error::NotFound { what: String::new(), message: String::new() };
        let mirror = Endpoint::of_mirror("https://m.example").unwrap();
        mirror.note(&missing);
        assert!(mirror.is_usable());
        mirror.note(&lost);
        assert!(!mirror.is_usable());
        let registry = Endpoint::of_registry("docker.io");
        registry.note(&lost);
        assert!(registry.is_usable());
        assert_eq!(registry.url(&Scheme::HTTPS, "/v2/").unwrap(), "https://registry-1.docker.io/v2/");
    }
}
