use ponton_api::auth::{AuthConfig, AuthResponse};
use ponton_api::base64;
use ponton_api::image::SearchResult;

use crate::request::Request;
use crate::{Client, Error};

impl Request<'_> {
    /// Gives the daemon the caller's credentials for the registry (`X-Registry-Auth`).
    pub(crate) fn registry_auth(self, auth: &AuthConfig) -> Self {
        // A record of strings always serialises.
        let json = serde_json::to_vec(auth).unwrap_or_default();
        self.header("x-registry-auth", base64::encode_url(&json))
    }
}

impl Client {
    /// Asks a registry whether it takes these credentials; it may answer with a token that replaces them.
    pub async fn registry_login(&self, auth: &AuthConfig) -> Result<AuthResponse, Error> {
        self.post("/auth").json(auth).fetch().await
    }

    /// Searches a registry. `limit` 0 is the registry's own; `filters` is JSON or empty.
    pub async fn image_search(
        &self,
        term: &str,
        limit: i64,
        filters: &str,
        auth: &AuthConfig,
    ) -> Result<Vec<SearchResult>, Error> {
        self.get("/images/search")
            .maybe("filters", (!filters.is_empty()).then_some(filters))
            .maybe("limit", (limit > 0).then(|| limit.to_string()))
            .query("term", term)
            .registry_auth(auth)
            .fetch()
            .await
    }
}
