//! The search of registries, version 1 of Docker's API.

use std::sync::Arc;

use hyper::{Method, Uri};
use serde::{Deserialize, Serialize};

use crate::access::{Access, Query};
use crate::client::{Client, registry_of};
use crate::credentials::Credentials;
use crate::error::{Error, Result};
use crate::repository::ask;

/// The server of Docker Hub's search.
const DOCKER_INDEX: &str = "index.docker.io";
const LIMIT: u32 = 25;
const LIMIT_MAX: u32 = 100;
const ANSWER_MAX: u64 = 4 << 20;

/// What is searched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Words.
    pub term: String,
    /// How many results at most; 1 to 100, 25 if none is given.
    pub limit: Option<u32>,
    /// Only official images, or only others.
    pub is_official: Option<bool>,
    /// Only images that were built automatically, or only others.
    pub is_automated: Option<bool>,
    /// Only images with as many stars.
    pub stars: Option<u64>,
}

/// A repository that was found, as Docker's API shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchResult {
    /// Number of stars.
    pub star_count: u64,
    /// Whether it is one of Docker's own.
    pub is_official: bool,
    /// Name.
    pub name: String,
    /// Whether it was built automatically.
    pub is_automated: bool,
    /// One line.
    pub description: String,
}

impl Search {
    fn wants(&self, result: &SearchResult) -> bool {
        self.is_official.is_none_or(|wanted| result.is_official == wanted)
            && self.is_automated.is_none_or(|wanted| result.is_automated == wanted)
            && self.stars.is_none_or(|least| result.star_count >= least)
    }
}

impl Client {
    /// Searches a registry's repositories (`GET /v1/search`), as Docker's daemon does.
    pub async fn search(
        &self,
        registry: &str,
        credentials: &Credentials,
        search: &Search,
    ) -> Result<Vec<SearchResult>> {
        #[derive(Deserialize)]
        struct Results {
            results: Option<Vec<SearchResult>>,
        }
        let limit = search.limit.filter(|limit| *limit != 0).unwrap_or(LIMIT);
        if limit > LIMIT_MAX {
            let reason = format!("invalid limit {limit}: it must be from 1 to {LIMIT_MAX}");
            return Err(Error::Config { what: "search".to_owned(), reason });
        }
        let registry = registry_of(registry);
        let host = if registry == "docker.io" { DOCKER_INDEX } else { registry };
        let access = Arc::new(Access::new(credentials.clone(), Vec::new()));
        let session = self.shared.session(self.shared.endpoint(host), access);
        let mut query = Query(String::new());
        query.add("q", &search.term);
        query.add("n", &limit.to_string());
        let url: Uri = session.url(&format!("/v1/search?{}", query.0)).await?;
        let what = format!("search of {registry}");
        let mut answer = session.persist(&ask(&session, &what, Method::GET, url)).await?;
        let bytes = answer.whole(&what, ANSWER_MAX, session.transport.limits.answer).await?;
        let results: Results = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Answer { what, reason: error.to_string() })?;
        let mut results = results.results.unwrap_or_default();
        results.retain(|result| search.wants(result));
        Ok(results)
    }
}
