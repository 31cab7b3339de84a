//! Names of images as users write them, with Docker's normalisation.
//!
//! `busybox` means `docker.io/library/busybox:latest`; [`Reference::familiar`] goes back.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;

/// The registry that a name without one means.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag that a name without tag and digest means.
pub const DEFAULT_TAG: &str = "latest";
const OFFICIAL_PREFIX: &str = "library/";
const NAME_MAX: usize = 255;

/// Why a string is not a reference. The texts are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The string does not follow the grammar.
    #[error("invalid reference format")]
    Format(String),
    /// A repository's name has capitals.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// The name could be taken for an image's id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// The name is longer than 255 characters.
    #[error("repository name must not be more than {NAME_MAX} characters")]
    TooLong(String),
}

/// A normalised name of an image: registry, repository, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses a name, and gives it the tag `latest` if it has neither tag nor digest.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut reference = Self::parse_exact(text)?;
        if reference.tag.is_none() && reference.digest.is_none() {
            reference.tag = Some(DEFAULT_TAG.to_owned());
        }
        Ok(reference)
    }

    /// Parses a name, and leaves it without tag and digest if it has none.
    pub fn parse_exact(text: &str) -> Result<Self, ParseError> {
        let format_error = || ParseError::Format(text.to_owned());
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ParseError::LooksLikeId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| format_error())?)),
            None => (text, None),
        };
        let (registry, remainder) = split_registry(rest);
        let (path, tag) = match remainder.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remainder, None),
        };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ParseError::Uppercase(official(registry, path)));
        }
        let valid = is_registry(registry) && path.split('/').all(is_path_component) && tag.is_none_or(is_tag);
        if !valid {
            return Err(format_error());
        }
        let repository = official(registry, path);
        if registry.len() + 1 + repository.len() > NAME_MAX {
            return Err(ParseError::TooLong(text.to_owned()));
        }
        Ok(Self { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }

    /// The registry's host, with its port if it has one (`docker.io`).
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry (`library/busybox`).
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest or index that is meant.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The full name without tag and digest (`docker.io/library/busybox`).
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The short name without tag and digest (`busybox`).
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        match self.repository.strip_prefix(OFFICIAL_PREFIX) {
            Some(name) if !name.contains('/') => name.to_owned(),
            // Shortened, `docker.io/quay.io/app` would be an image of another registry.
            _ if split_registry(&self.repository) != (DEFAULT_REGISTRY, &self.repository) => self.name(),
            _ => self.repository.clone(),
        }
    }

    /// The name as Docker shows it (`busybox:latest`).
    pub fn familiar(&self) -> String {
        self.with_tag_and_digest(self.familiar_name())
    }

    /// The same repository with this tag, and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ParseError> {
        if !is_tag(tag) {
            return Err(ParseError::Format(tag.to_owned()));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with this digest, and no tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    fn with_tag_and_digest(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

/// The full path in the registry.
fn official(registry: &str, path: &str) -> String {
    let is_official = registry == DEFAULT_REGISTRY && !path.contains('/');
    if is_official { format!("{OFFICIAL_PREFIX}{path}") } else { path.to_owned() }
}

impl FromStr for Reference {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_tag_and_digest(self.name()))
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_exact(&text).map_err(serde::de::Error::custom)
    }
}

/// Splits off the registry, by Docker's rule: the first component is one if it has a dot, a port or
/// capitals, or is `localhost`.
fn split_registry(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some(("index.docker.io", rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, text),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_valid = match address {
        Some(address) => !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    host_valid && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower-case letters and digits, with single `.`, `_`, `__` or any number of `-` between them.
fn is_path_component(text: &str) -> bool {
    let is_alphanumeric = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    is_alphanumeric(first)
        && is_alphanumeric(last)
        && bytes.split(|&byte| is_alphanumeric(byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-')
        })
}

fn is_tag(text: &str) -> bool {
    text.len() <= 128
        && text.bytes().enumerate().all(|(at, byte)| {
            byte.is_ascii_alphanumeric() || byte == b'_' || (at > 0 && matches!(byte, b'.' | b'-'))
        })
        && !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_as_docker_does() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest = format!("sha256:{hex}");
        for (given, full, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("me/app", "docker.io/me/app:latest", "me/app:latest"),
            ("docker.io/quay.io/app", "docker.io/quay.io/app:latest", "docker.io/quay.io/app:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t", "localhost:5000/a/b:t"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("quay.io/a__b/c--d.e", "quay.io/a__b/c--d.e:latest", "quay.io/a__b/c--d.e:latest"),
            ("Uploads/app", "Uploads/app:latest", "Uploads/app:latest"),
        ] {
            let reference = Reference::parse(given).unwrap();
            assert_eq!(reference.to_string(), full, "{given}");
            assert_eq!(reference.familiar(), familiar, "{given}");
            assert_eq!(Reference::parse(full).unwrap(), reference);
        }
        let by_digest = Reference::parse(&format!("busybox@{digest}")).unwrap();
        assert_eq!((by_digest.tag(), by_digest.familiar()), (None, format!("busybox@{digest}")));
        assert!(matches!(Reference::parse(hex), Err(ParseError::LooksLikeId(_))));
    }

    #[test]
    fn refuses_what_is_no_name() {
        for text in [
            "",
            ":tag",
            "a:",
            "a//b",
            "/a",
            "a/",
            "a_-b",
            "a..b",
            "-a",
            "a@sha256:00",
            "a b",
            "a:-t",
            "a.b:x/c",
            "../a",
            "a___b",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            Reference::parse("Busybox").unwrap_err().to_string(),
            "invalid reference format: repository name (library/Busybox) must be lowercase"
        );
        assert!(matches!(Reference::parse(&"a".repeat(256)), Err(ParseError::TooLong(_))));
    }
}
