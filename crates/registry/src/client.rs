//! The client: what all repositories share.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::Method;
use hyper::header::HeaderValue;
use ponton_oci::reference::Reference;

use crate::access::Access;
use crate::config::Config;
use crate::connect::Connector;
use crate::credentials::Credentials;
use crate::endpoint::{Endpoint, Session};
use crate::error::{Error, Result};
use crate::repository::Repository;
use crate::transport::{Ask, Payload, Transport};
use crate::trust::{Insecure, Trust};

/// Tokens that are remembered while nobody uses them.
const ACCESSES_MAX: usize = 256;

/// A client of registries. Clones share connections and tokens; one is enough for a program.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

/// What became of a login.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct LoginStatus {
    /// What the registry wants to get instead of the password from now on, if it gave such a token.
    pub identity_token: Option<String>,
}

impl fmt::Debug for LoginStatus {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginStatus").field("has_identity_token", &self.identity_token.is_some()).finish()
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) transport: Arc<Transport>,
    insecure: Arc<Insecure>,
    mirrors: Vec<Arc<Endpoint>>,
    endpoints: Mutex<HashMap<String, Arc<Endpoint>>>,
    accesses: Mutex<HashMap<AccessKey, Arc<Access>>>,
}

/// Registry, who asks, and what for.
type AccessKey = (String, Credentials, Vec<String>);

impl Client {
    /// A client; nothing is connected yet.
    pub fn new(config: Config) -> Result<Self> {
        let user_agent = HeaderValue::try_from(&config.user_agent)
            .map_err(|error| Error::Config { what: "user agent".to_owned(), reason: error.to_string() })?;
        let insecure = Arc::new(Insecure::parse(&config.insecure)?);
        let trust = Arc::new(Trust::new(config.certs, insecure.clone()));
        let connector = Connector::new(trust, &config.proxy, config.limits.connect)?;
        let mirrors = config.mirrors.iter().map(|url| Endpoint::of_mirror(url).map(Arc::new));
        let shared = Shared {
            transport: Arc::new(Transport::new(connector, user_agent, config.limits)),
            insecure,
            mirrors: mirrors.collect::<Result<_>>()?,
            endpoints: Mutex::default(),
            accesses: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The repository of a name; its tag and digest don't matter. Nothing is asked yet.
    pub fn repository(&self, name: &Reference, credentials: Credentials) -> Repository {
        Repository::new(self.shared.clone(), name, credentials)
    }

    /// Asks a registry (`docker.io`, `host:port`) whether it accepts the credentials.
    pub async fn login(&self, registry: &str, credentials: &Credentials) -> Result<LoginStatus> {
        let registry = registry_of(registry);
        let access = Arc::new(Access::for_login(credentials.clone()));
        let session = self.shared.session(self.shared.endpoint(registry), access.clone());
        let limits = &self.shared.transport.limits;
        let what = format!("login to {registry}");
        let ask = Ask {
            what: &what,
            method: Method::GET,
            url: session.url("/v2/").await?,
            headers: Vec::new(),
            payload: Payload::None,
            wait: limits.idle,
            sent: Arc::default(),
        };
        session.persist(&ask).await?;
        Ok(LoginStatus { identity_token: access.identity_token().await })
    }
}

impl Shared {
    /// The servers that may have what is pulled from a registry, the registry itself last.
    pub(crate) fn for_pull(&self, registry: &str, path: &str, credentials: &Credentials) -> Vec<Session> {
        let mut sessions = self.mirrors(registry, path);
        sessions.push(self.for_registry(registry, path, credentials));
        sessions
    }

    /// The mirrors of a registry that work; they are asked without credentials.
    pub(crate) fn mirrors(&self, registry: &str, path: &str) -> Vec<Session> {
        let mirrors = match registry {
            "docker.io" => self.mirrors.as_slice(),
            _ => &[],
        };
        let usable = mirrors.iter().filter(|mirror| mirror.is_usable());
        let session = |mirror: &Arc<Endpoint>| {
            let scopes = vec![format!("repository:{path}:pull")];
            let access = self.access(mirror.name(), &Credentials::Anonymous, scopes);
            self.session(mirror.clone(), access)
        };
        usable.map(session).collect()
    }

    /// The server to pull from.
    pub(crate) fn for_registry(&self, registry: &str, path: &str, credentials: &Credentials) -> Session {
        let scopes = vec![format!("repository:{path}:pull")];
        let access = self.access(registry.to_owned(), credentials, scopes);
        self.session(self.endpoint(registry), access)
    }

    /// The server to push to; `from` is a repository that is read as well.
    pub(crate) fn for_push(
        &self,
        registry: &str,
        path: &str,
        from: Option<&str>,
        credentials: &Credentials,
    ) -> Session {
        let mut scopes = vec![format!("repository:{path}:pull,push")];
        scopes.extend(from.map(|from| format!("repository:{from}:pull")));
        let access = self.access(registry.to_owned(), credentials, scopes);
        self.session(self.endpoint(registry), access)
    }

    pub(crate) fn session(&self, endpoint: Arc<Endpoint>, access: Arc<Access>) -> Session {
        let (transport, insecure) = (self.transport.clone(), self.insecure.clone());
        Session { transport, insecure, endpoint, access }
    }

    pub(crate) fn endpoint(&self, registry: &str) -> Arc<Endpoint> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if endpoints.len() >= ACCESSES_MAX {
            endpoints.retain(|_, endpoint| Arc::strong_count(endpoint) > 1);
        }
        let new = || Arc::new(Endpoint::of_registry(registry));
        endpoints.entry(registry.to_owned()).or_insert_with(new).clone()
    }

    fn access(&self, server: String, credentials: &Credentials, scopes: Vec<String>) -> Arc<Access> {
        let mut accesses = self.accesses.lock().unwrap_or_else(PoisonError::into_inner);
        if accesses.len() >= ACCESSES_MAX {
            accesses.retain(|_, access| Arc::strong_count(access) > 1);
        }
        let access = Access::new(credentials.clone(), scopes.clone());
        accesses.entry((server, credentials.clone(), scopes)).or_insert_with(|| Arc::new(access)).clone()
    }
}

/// The registry that a user names at a login, in any of the ways that Docker accepts.
pub(crate) fn registry_of(server: &str) -> &str {
    let host = server.strip_prefix("https://").or(server.strip_prefix("http://")).unwrap_or(server);
    match host.split('/').next().unwrap_or_default() {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_registries() {
        for (server, registry) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("localhost:5000", "localhost:5000"),
            ("http://r.example/v2/", "r.example"),
        ] {
            assert_eq!(registry_of(server), registry, "{server}");
        }
    }

    #[test]
    fn credentials_that_nobody_uses_are_forgotten() {
        let client = Client::new(Config::default()).unwrap();
        for number in 0..2 * ACCESSES_MAX {
            client.shared.for_push(&format!("r{number}.example"), "a", None, &Credentials::Anonymous);
        }
        assert!(client.shared.accesses.lock().unwrap().len() <= ACCESSES_MAX);
        assert!(client.shared.endpoints.lock().unwrap().len() <= ACCESSES_MAX);
    }
}
