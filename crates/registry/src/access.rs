//! What is shown to a registry so that it does what it is asked for (OCI distribution leaves this open; Docker's
//! token specification is what registries follow).
//!
//! ```text
//! client                     registry            server of tokens (the challenge's realm)
//!   │── request ────────────────►│
//!   │◄─ 401, WWW-Authenticate ───│
//!   │── GET with name and password, or POST with identity token ──►│
//!   │◄─ token, for how long ───────────────────────────────────────│
//!   │── request, Bearer token ──►│
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::challenge::Challenge;
use crate::credentials::Credentials;
use crate::error::{Error, Result, refusal};
use crate::redirect::follow;
use crate::transport::{Ask, Payload, Transport};

/// Bytes of a token server's answer.
const TOKEN_ANSWER_MAX: u64 = 1 << 20;
/// A token is good for a minute if its server doesn't say otherwise.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// This long before its end a token is not used any more.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);
/// How a client names itself to servers of tokens.
const CLIENT_ID: &str = "ponton";

/// The right to do some things at one registry. Clones of a repository share it, so that a token is fetched
/// once for all transfers.
pub(crate) struct Access {
    credentials: Credentials,
    /// `repository:library/busybox:pull`
    scopes: Vec<String>,
    /// To ask for an identity token as well, at a login.
    offline: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shown: Option<HeaderValue>,
    /// When `shown` is to be renewed; `None` for never.
    until: Option<Instant>,
    /// What `shown` was an answer to.
    challenge: Option<Challenge>,
    identity_token: Option<String>,
}

impl fmt::Debug for Access {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({:?}, {:?})", self.credentials, self.scopes)
    }
}

/// What a server of tokens answers.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
    refresh_token: Option<String>,
}

impl Access {
    pub(crate) fn new(credentials: Credentials, scopes: Vec<String>) -> Self {
        Self { credentials, scopes, offline: false, state: Mutex::default() }
    }

    /// For a login: an identity token is asked for too.
    pub(crate) fn for_login(credentials: Credentials) -> Self {
        Self { offline: true, ..Self::new(credentials, Vec::new()) }
    }

    pub(crate) async fn identity_token(&self) -> Option<String> {
        self.state.lock().await.identity_token.clone()
    }

    /// What to show, renewed if its time is over.
    pub(crate) async fn authorization(
        &self,
        transport: &Transport,
        registry: &Uri,
    ) -> Result<Option<HeaderValue>> {
        if let Credentials::RegistryToken(token) = &self.credentials {
            return secret(format!("Bearer {token}"), registry).map(Some);
        }
        let mut state = self.state.lock().await;
        if state.until.is_some_and(|until| Instant::now() >= until)
            && let Some(challenge) = state.challenge.clone()
        {
            self.fetch_token(&mut state, transport, registry, &challenge).await?;
        }
        Ok(state.shown.clone())
    }

    /// What to show after a refusal; `used` is what was shown before. An error if there is nothing else.
    /// `refusal` is the registry's word on it.
    pub(crate) async fn answer(
        &self,
        transport: &Transport,
        registry: &Uri,
        challenges: &[Challenge],
        used: Option<&HeaderValue>,
        refusal: Error,
    ) -> Result<HeaderValue> {
        if matches!(self.credentials, Credentials::RegistryToken(_)) {
            return Err(refusal);
        }
        let mut state = self.state.lock().await;
        if let Some(shown) = &state.shown
            && Some(shown) != used
        {
            // Somebody else was refused as well, and has renewed it already.
            return Ok(shown.clone());
        }
        let by_scheme = |scheme| challenges.iter().find(|challenge| challenge.scheme == scheme);
        if let Some(challenge) = by_scheme("bearer") {
            return self.fetch_token(&mut state, transport, registry, challenge).await;
        }
        let basic = by_scheme("basic").and_then(|_| self.basic(registry).transpose()).transpose()?;
        match basic {
            Some(basic) if Some(&basic) != used => {
                *state = State { shown: Some(basic.clone()), ..State::default() };
                Ok(basic)
            }
            _ => Err(refusal),
        }
    }

    fn basic(&self, registry: &Uri) -> Result<Option<HeaderValue>> {
        let Credentials::Basic { username, password } = &self.credentials else { return Ok(None) };
        let encoded = BASE64_STANDARD.encode(format!("{username}:{password}"));
        secret(format!("Basic {encoded}"), registry).map(Some)
    }

    async fn fetch_token(
        &self,
        state: &mut State,
        transport: &Transport,
        registry: &Uri,
        challenge: &Challenge,
    ) -> Result<HeaderValue> {
        let begun = Instant::now();
        let answer = self.ask_for_token(transport, registry, challenge).await?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| nonsense(registry, "the server of tokens gave none"))?;
        let shown = secret(format!("Bearer {token}"), registry)?;
        let life = answer.expires_in.map_or(Some(TOKEN_LIFE), |life| Duration::try_from_secs_f64(life).ok());
        let life = life.unwrap_or_default().max(TOKEN_LIFE).saturating_sub(TOKEN_MARGIN);
        let identity_token = answer.refresh_token.or(state.identity_token.take());
        *state = State {
            shown: Some(shown.clone()),
            until: begun.checked_add(life),
            challenge: Some(challenge.clone()),
            identity_token,
        };
        Ok(shown)
    }

    async fn ask_for_token(
        &self,
        transport: &Transport,
        registry: &Uri,
        challenge: &Challenge,
    ) -> Result<TokenAnswer> {
        let realm = challenge.parameters.get("realm").map_or("", String::as_str);
        let url: Uri = realm.parse().map_err(|_| nonsense(registry, "its server of tokens has no URL"))?;
        let encrypted = url.scheme_str() == Some("https");
        let plain = url.scheme_str() == Some("http") && registry.scheme_str() == Some("http");
        let anonymous = self.credentials == Credentials::Anonymous;
        if !(encrypted || plain || (anonymous && url.scheme_str() == Some("http"))) {
            return Err(nonsense(registry, "its server of tokens is not reached by an encrypted connection"));
        }
        let what = format!("token for {}", registry.authority().map_or("", |a| a.as_str()));
        let mut answer = match &self.credentials {
            Credentials::IdentityToken(token) => {
                let form = self.form(challenge, token);
                let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
                let ask = Ask {
                    headers: vec![(header::CONTENT_TYPE, kind)],
                    payload: Payload::Bytes(form.into()),
                    ..ask(&what, Method::POST, url, transport)
                };
                follow(transport, &ask, None).await?
            }
            _ => {
                let url = self.with_query(&url, challenge);
                let url = url.ok_or_else(|| nonsense(registry, "its server of tokens has no URL"))?;
                let basic = self.basic(registry)?;
                follow(transport, &ask(&what, Method::GET, url, transport), basic.as_ref()).await?
            }
        };
        if !answer.status.is_success() {
            return Err(refusal(&what, &mut answer).await);
        }
        let bytes = answer.whole(&what, TOKEN_ANSWER_MAX, transport.limits.answer).await?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Answer { what, reason: error.to_string() })
    }

    /// The scopes that are needed, and those that the registry says are.
    fn scopes<'a>(&'a self, challenge: &'a Challenge) -> Vec<&'a str> {
        let asked = challenge.parameters.get("scope").map_or("", String::as_str);
        let mut scopes: Vec<_> = self.scopes.iter().map(String::as_str).collect();
        for scope in asked.split_ascii_whitespace() {
            if !scopes.iter().any(|known| covers(known, scope)) {
                scopes.push(scope);
            }
        }
        scopes
    }

    fn with_query(&self, realm: &Uri, challenge: &Challenge) -> Option<Uri> {
        let mut query = Query(realm.query().map_or_else(String::new, ToOwned::to_owned));
        if let Some(service) = challenge.parameters.get("service") {
            query.add("service", service);
        }
        for scope in self.scopes(challenge) {
            query.add("scope", scope);
        }
        if let Credentials::Basic { username, .. } = &self.credentials {
            query.add("account", username);
            query.add("client_id", CLIENT_ID);
            if self.offline {
                query.add("offline_token", "true");
            }
        }
        let origin = format!("{}://{}", realm.scheme_str()?, realm.authority()?);
        format!("{origin}{}?{}", realm.path(), query.0).parse().ok()
    }

    fn form(&self, challenge: &Challenge, identity_token: &str) -> String {
        let mut form = Query(String::new());
        form.add("grant_type", "refresh_token");
        form.add("refresh_token", identity_token);
        form.add("service", challenge.parameters.get("service").map_or("", String::as_str));
        form.add("scope", &self.scopes(challenge).join(" "));
        form.add("client_id", CLIENT_ID);
        form.0
    }
}

/// Whether a scope (`repository:name:pull,push`) allows all that another does.
fn covers(scope: &str, other: &str) -> bool {
    let split = |scope: &str| scope.rsplit_once(':').map(|(of, actions)| (of.to_owned(), actions.to_owned()));
    match (split(scope), split(other)) {
        (Some((of, actions)), Some((other, wanted))) => {
            of == other && wanted.split(',').all(|wanted| actions.split(',').any(|action| action == wanted))
        }
        _ => scope == other,
    }
}

fn ask<'a>(what: &'a str, method: Method, url: Uri, transport: &Transport) -> Ask<'a> {
    let wait = transport.limits.idle;
    Ask { what, method, url, headers: Vec::new(), payload: Payload::None, wait, sent: Arc::default() }
}

/// A header that no log shows.
fn secret(text: String, registry: &Uri) -> Result<HeaderValue> {
    let value = HeaderValue::try_from(text);
    let mut value =
        value.map_err(|_| nonsense(registry, "a token or name has characters that can't be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn nonsense(registry: &Uri, reason: &str) -> Error {
    let what = registry.authority().map_or("", |authority| authority.as_str()).to_owned();
    Error::Answer { what, reason: reason.to_owned() }
}

/// What stands for something else in a query (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Pairs of a URL's query.
pub(crate) struct Query(pub(crate) String);

impl Query {
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, RESERVED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(scope: &str) -> Challenge {
        let header = format!("Bearer realm=\"https://t/a?k=v\",service=\"s s\",scope=\"{scope}\"");
        crate::challenge::parse(&header).remove(0)
    }

    #[test]
    fn tokens_are_asked_for_with_all_scopes_once() {
        let access = Access::new(Credentials::Anonymous, vec!["repository:a/b:pull,push".into()]);
        let url = access.with_query(&"https://t/a?k=v".parse().unwrap(), &challenge("repository:a/b:pull"));
        let expected = "https://t/a?k=v&service=s%20s&scope=repository%3Aa%2Fb%3Apull%2Cpush";
        assert_eq!(url.unwrap().to_string(), expected);
        let further = challenge("repository:a/b:delete registry:catalog:*");
        assert_eq!(
            access.scopes(&further),
            ["repository:a/b:pull,push", "repository:a/b:delete", "registry:catalog:*"]
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let password = "hunter2".to_owned();
        let access = Access::new(Credentials::Basic { username: "u".into(), password }, Vec::new());
        let shown = access.basic(&"https://r/".parse().unwrap()).unwrap().unwrap();
        let debug = format!("{access:?} {shown:?}");
        assert!(!debug.contains("hunter2") && !debug.contains("dTpo"), "{debug}");
    }
}
