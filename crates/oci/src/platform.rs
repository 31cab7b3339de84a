//! What an image runs on: `linux/arm64/v8`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A platform (image-spec image-index.md, "platform").
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// CPU architecture, in Go's names (`amd64`).
    pub architecture: String,
    /// Operating system, in Go's names (`linux`).
    pub os: String,
    /// Version of the operating system.
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Features that the operating system must have.
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Variant of the CPU (`v8`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Why a string is not a platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is an invalid platform: use os/architecture or os/architecture/variant")]
pub struct ParseError(pub String);

impl Platform {
    /// The platform that this program was built for.
    pub fn host() -> Self {
        let (architecture, variant) = normalise(std::env::consts::ARCH, "");
        Self { architecture, os: "linux".to_owned(), variant, ..Self::default() }
    }

    /// Whether an image for `image` runs on a machine of this platform. An empty variant fits all.
    pub fn runs(&self, image: &Self) -> bool {
        let (architecture, variant) = normalise(&image.architecture, &image.variant);
        self.os == image.os
            && self.architecture == architecture
            && (variant.is_empty() || self.variant.is_empty() || self.variant == variant)
    }
}

/// Go's name of an architecture; the variants that mean the default become empty.
fn normalise(architecture: &str, variant: &str) -> (String, String) {
    let architecture = match architecture.to_ascii_lowercase().as_str() {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        "x86" | "i386" | "i686" => "386".to_owned(),
        "armhf" => "arm".to_owned(),
        "powerpc64" => "ppc64le".to_owned(),
        other => other.to_owned(),
    };
    let variant = match (architecture.as_str(), variant.to_ascii_lowercase().as_str()) {
        ("arm64", "8" | "v8") | ("amd64", "v1") => String::new(),
        (_, variant) => variant.to_owned(),
    };
    (architecture, variant)
}

impl FromStr for Platform {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parts: Vec<&str> = text.split('/').collect();
        let is_valid = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        let (os, architecture, variant) = match parts.as_slice() {
            _ if !parts.iter().all(is_valid) => return Err(ParseError(text.to_owned())),
            [os, architecture] => (*os, *architecture, ""),
            [os, architecture, variant] => (*os, *architecture, *variant),
            ["linux"] => return Ok(Self::host()),
            [architecture] => ("linux", *architecture, ""),
            _ => return Err(ParseError(text.to_owned())),
        };
        let (architecture, variant) = normalise(architecture, variant);
        Ok(Self { architecture, os: os.to_ascii_lowercase(), variant, ..Self::default() })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_matches() {
        let arm: Platform = "linux/arm64/v8".parse().unwrap();
        assert_eq!(arm.to_string(), "linux/arm64");
        assert_eq!("linux/aarch64".parse::<Platform>().unwrap(), arm);
        assert_eq!("linux/arm/v7".parse::<Platform>().unwrap().to_string(), "linux/arm/v7");
        assert!(!arm.runs(&"linux/amd64".parse().unwrap()));
        for text in ["", "/", "linux/", "a/b/c/d", "linux/am d64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
