//! The extract of the published definition.

use std::fs;
use std::path::Path;

/// One endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) method: String,
    /// `/containers/{id}/json`
    pub(super) path: String,
    pub(super) fields: Vec<Field>,
}

/// One thing that a request may say.
#[derive(Debug)]
pub(super) struct Field {
    /// `query`, `header` or `body`.
    pub(super) place: String,
    /// `HostConfig.Mounts[].Type`; `.` is a body as a whole.
    pub(super) name: String,
    pub(super) kind: String,
}

impl Endpoint {
    /// `GET /info`
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Whether a path, whose names are whatever, is of this endpoint.
    pub(super) fn fits(&self, path: &str) -> bool {
        let ours: Vec<&str> = self.path.split('/').collect();
        let theirs: Vec<&str> = path.split('/').collect();
        let images = self.path.starts_with("/images/{name}") || self.path.starts_with("/distribution/");
        // The names of images have slashes.
        let extra = theirs.len().saturating_sub(ours.len());
        if theirs.len() < ours.len() || extra > 0 && !images {
            return false;
        }
        let mut rest = theirs.as_slice();
        for part in ours {
            let take = if part.starts_with('{') { 1 + extra } else { 1 };
            let fits = part.starts_with('{') && !rest[0].is_empty() || part == rest[0];
            if !fits {
                return false;
            }
            rest = &rest[take..];
        }
        true
    }
}

impl Field {
    /// The last name: `Type`.
    pub(super) fn last(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name).trim_end_matches(['[', ']', '{', '}'])
    }
}

pub(super) fn read(path: &Path) -> Vec<Endpoint> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let words: Vec<&str> = line.trim().splitn(3, ' ').collect();
        let word = |index: usize| (*words.get(index).unwrap_or(&"")).to_owned();
        if line.starts_with("  ") {
            let field = Field { place: word(0), name: word(1), kind: word(2) };
            endpoints.last_mut().expect("an endpoint before its fields").fields.push(field);
        } else {
            endpoints.push(Endpoint { method: word(0), path: word(1), fields: Vec::new() });
        }
    }
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fit_their_endpoints() {
        let endpoint =
            |path: &str| Endpoint { method: "GET".to_owned(), path: path.to_owned(), fields: Vec::new() };
        assert!(endpoint("/containers/{id}/json").fits("/containers/{name}/json"));
        assert!(!endpoint("/containers/{id}/json").fits("/containers/json"));
        assert!(!endpoint("/containers/{id}").fits("/containers/x/json"));
        assert!(endpoint("/images/{name}/json").fits("/images/a/b/c:1/json"));
        assert!(!endpoint("/images/{name}/json").fits("/images/a/history"));
        assert!(endpoint("/info").fits("/info"));
    }
}
