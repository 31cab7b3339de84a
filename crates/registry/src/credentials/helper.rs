//! Credential helpers: programs `docker-credential-<name>` that are given a word and some input, and answer in
//! JSON (docker-credential-helpers, "Development").

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::{Credentials, error};
use crate::error::{Error, Result, printable};

/// Bytes of a helper's answer that are read.
const ANSWER_MAX: u64 = 1 << 20;
/// The name of a user whose secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// What helpers say when they have nothing.
const NOTHING: [&str; 2] = ["credentials not found in native keychain", "no credentials server URL"];

/// A program that keeps credentials.
#[derive(Debug)]
pub(super) struct Helper {
    program: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stored {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

impl Helper {
    pub(super) fn new(name: &str) -> Result<Self> {
        // It is looked up in PATH, and nowhere else.
        match name.contains('/') {
            true => Err(error(format!("credential helper {name:?}"), "is no name of a program")),
            false => Ok(Self { program: format!("docker-credential-{name}") }),
        }
    }

    /// A helper by its path.
    #[cfg(test)]
    pub(super) fn at(program: &std::path::Path) -> Self {
        Self { program: program.display().to_string() }
    }

    pub(super) fn get(&self, server: &str) -> Result<Credentials> {
        let Some(answer) = self.run("get", server.as_bytes())? else { return Ok(Credentials::Anonymous) };
        let stored: Stored =
            serde_json::from_slice(&answer).map_err(|failure| self.failed("get", failure))?;
        Ok(match stored.username.as_str() {
            "" if stored.secret.is_empty() => Credentials::Anonymous,
            TOKEN_USER => Credentials::IdentityToken(stored.secret),
            _ => Credentials::Basic { username: stored.username, password: stored.secret },
        })
    }

    pub(super) fn store(&self, server: &str, credentials: &Credentials) -> Result<()> {
        let (username, secret) = match credentials {
            Credentials::Basic { username, password } => (username.as_str(), password),
            Credentials::IdentityToken(token) => (TOKEN_USER, token),
            Credentials::Anonymous | Credentials::RegistryToken(_) => {
                return Err(self.failed("store", "only passwords and identity tokens are kept"));
            }
        };
        let stored =
            Stored { server_url: server.to_owned(), username: username.to_owned(), secret: secret.clone() };
        let input = serde_json::to_vec(&stored).map_err(|failure| self.failed("store", failure))?;
        self.run("store", &input).map(drop)
    }

    pub(super) fn erase(&self, server: &str) -> Result<()> {
        self.run("erase", server.as_bytes()).map(drop)
    }

    /// The servers that it has credentials for.
    pub(super) fn list(&self) -> Result<Vec<String>> {
        let Some(answer) = self.run("list", b"")? else { return Ok(Vec::new()) };
        let names: BTreeMap<String, String> =
            serde_json::from_slice(&answer).map_err(|failure| self.failed("list", failure))?;
        Ok(names.into_keys().collect())
    }

    fn failed(&self, word: &str, reason: impl std::fmt::Display) -> Error {
        error(format!("{} {word}", self.program), reason)
    }

    /// Runs the helper; `None` if it has nothing.
    fn run(&self, word: &str, input: &[u8]) -> Result<Option<Vec<u8>>> {
        let run = || -> io::Result<_> {
            let mut child =
                Command::new(&self.program).arg(word).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            // A helper that doesn't read its input says on its output why, or needs none.
            let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
            let mut answer = Vec::new();
            if let Some(stdout) = child.stdout.take() {
                stdout.take(ANSWER_MAX).read_to_end(&mut answer)?;
            }
            Ok((child.wait()?, answer))
        };
        let (status, answer) = run().map_err(|failure| self.failed(word, failure))?;
        if status.success() {
            return Ok(Some(answer));
        }
        let said = String::from_utf8_lossy(&answer);
        let said = said.trim();
        match NOTHING.contains(&said) {
            true => Ok(None),
            false => Err(self.failed(word, format!("{status}: {}", printable(said)))),
        }
    }
}
