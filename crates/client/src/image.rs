use std::io;

use bytes::Bytes;
use futures_util::Stream;
use ponton_api::auth::AuthConfig;
use ponton_api::explore::Exploration;
use ponton_api::image::{DeleteResponseItem, HistoryItem, IdResponse, Inspect, PruneResponse, Summary};
use ponton_api::stream::JsonMessage;

use crate::request::segment;
use crate::{Client, Error, JsonStream, Response};

impl Client {
    /// Lists images; with what their indexes name if `manifests`. `filters` is JSON or empty.
    pub async fn image_list(&self, all: bool, manifests: bool, filters: &str) -> Result<Vec<Summary>, Error> {
        self.get("/images/json")
            .flag("all", all)
            .maybe("filters", some(filters))
            .flag("manifests", manifests)
            .fetch()
            .await
    }

    /// All about an image.
    pub async fn image_inspect(&self, name: &str) -> Result<Inspect, Error> {
        self.get(format!("/images/{}/json", segment(name))).fetch().await
    }

    /// All about an image, as the daemon wrote it. `platform` is JSON or empty.
    pub async fn image_inspect_raw(&self, name: &str, platform: &str) -> Result<Bytes, Error> {
        self.get(format!("/images/{}/json", segment(name)))
            .maybe("platform", some(platform))
            .send()
            .await?
            .bytes()
            .await
    }

    /// How an image came to be. `platform` is JSON or empty.
    pub async fn image_history(&self, name: &str, platform: &str) -> Result<Vec<HistoryItem>, Error> {
        self.get(format!("/images/{}/history", segment(name))).maybe("platform", some(platform)).fetch().await
    }

    /// Gives an image another name.
    pub async fn image_tag(&self, name: &str, repository: &str, tag: &str) -> Result<(), Error> {
        self.post(format!("/images/{}/tag", segment(name)))
            .query("repo", repository)
            .query("tag", tag)
            .done()
            .await
    }

    /// Removes a name of an image, and the image with its last name; only these platforms of it (each as JSON), if
    /// there are some.
    pub async fn image_remove(
        &self,
        name: &str,
        force: bool,
        no_prune: bool,
        platforms: &[String],
    ) -> Result<Vec<DeleteResponseItem>, Error> {
        self.delete(format!("/images/{}", segment(name)))
            .flag("force", force)
            .flag("noprune", no_prune)
            .maybe("platforms", (!platforms.is_empty()).then(|| format!("[{}]", platforms.join(","))))
            .fetch()
            .await
    }

    /// Pulls what `tag` (or a digest) names of a repository, or all of its tags if that is empty.
    pub async fn image_pull(
        &self,
        name: &str,
        tag: &str,
        platform: &str,
        auth: &AuthConfig,
    ) -> Result<JsonStream<JsonMessage>, Error> {
        Ok(self
            .post("/images/create")
            .query("fromImage", name)
            .maybe("platform", some(platform))
            .maybe("tag", some(tag))
            .registry_auth(auth)
            .send()
            .await?
            .json_stream())
    }

    /// Pushes a tag of a repository, or all of its tags if that is empty. `platform` is JSON or empty.
    pub async fn image_push(
        &self,
        name: &str,
        tag: &str,
        platform: &str,
        auth: &AuthConfig,
    ) -> Result<JsonStream<JsonMessage>, Error> {
        Ok(self
            .post(format!("/images/{}/push", segment(name)))
            .maybe("platform", some(platform))
            .maybe("tag", some(tag))
            .registry_auth(auth)
            .send()
            .await?
            .json_stream())
    }

    /// Makes an image from the tar of a root file system: `tar`, or what is at the URL `source`.
    pub async fn image_import(
        &self,
        query: &[(&str, String)],
        tar: Option<impl Stream<Item = io::Result<Bytes>> + Send + 'static>,
    ) -> Result<JsonStream<JsonMessage>, Error> {
        let mut request = self.post("/images/create");
        for (name, value) in query {
            request = request.query(name, value);
        }
        if let Some(tar) = tar {
            request = request.tar(tar);
        }
        Ok(request.send().await?.json_stream())
    }

    /// Loads the images of an archive. `platform` is JSON or empty.
    pub async fn image_load(
        &self,
        quiet: bool,
        platform: &str,
        tar: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<JsonStream<JsonMessage>, Error> {
        let request = self.post("/images/load").maybe("platform", some(platform));
        let request = if quiet { request.query("quiet", "1") } else { request.query("quiet", "0") };
        Ok(request.tar(tar).send().await?.json_stream())
    }

    /// Images as an archive. `platform` is JSON or empty; other formats than `docker-archive` are Ponton's.
    pub async fn image_save(
        &self,
        names: &[String],
        platform: &str,
        format: &str,
    ) -> Result<Response, Error> {
        let request = match format {
            "docker-archive" => self.get("/images/get"),
            other => self.get("/ponton/images/get").query("format", other),
        };
        let mut request = request.maybe("platform", some(platform));
        for name in names {
            request = request.query("names", name);
        }
        request.send().await
    }

    /// What is in an image and what of it is wasted; with all files if `files`.
    pub async fn image_explore(&self, name: &str, files: bool) -> Result<Exploration, Error> {
        self.get(format!("/ponton/images/{}/explore", segment(name))).flag("files", files).fetch().await
    }

    /// Makes an image with fewer layers; those of the image `from` stay as they are.
    pub async fn image_squash(
        &self,
        name: &str,
        from: &str,
        repository: &str,
        tag: &str,
    ) -> Result<IdResponse, Error> {
        self.post(format!("/ponton/images/{}/squash", segment(name)))
            .maybe("from", some(from))
            .maybe("repo", some(repository))
            .maybe("tag", some(tag))
            .fetch()
            .await
    }

    /// Verifies all that is stored; the last message has a `CheckReport` as its `aux`.
    pub async fn image_check(&self, repair: bool) -> Result<JsonStream<JsonMessage>, Error> {
        Ok(self.post("/ponton/images/check").flag("repair", repair).send().await?.json_stream())
    }

    /// Removes unused images.
    pub async fn image_prune(&self, filters: &str) -> Result<PruneResponse, Error> {
        self.post("/images/prune").maybe("filters", some(filters)).fetch().await
    }
}

/// A parameter that is left out if it is empty.
fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::mpsc;

    use futures_util::{StreamExt, stream};
    use tempfile::TempDir;

    use super::*;

    /// Imports more than a socket holds from a daemon that reads a few bytes and then does this, just
    /// before the client writes more.
    async fn imported(then: fn(UnixStream)) -> Error {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let (go, told) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 16]).unwrap();
            told.recv().unwrap();
            then(stream);
            done.send(()).unwrap();
        });
        let chunk = || Ok(Bytes::from(vec![0; 64 << 10]));
        let second = async move {
            // The first is written now.
            tokio::task::yield_now().await;
            // This blocks the connection's task where it is about to write.
            go.send(()).unwrap();
            is_done.recv().unwrap();
            chunk()
        };
        let tar = stream::once(async move { chunk() })
            .chain(stream::once(second))
            .chain(stream::repeat_with(chunk).take(1000));
        let client = Client::new(format!("unix://{}", path.display()).parse().unwrap(), Some("1.53".into()));
        let error = client.image_import(&[], Some(tar)).await.map(drop).unwrap_err();
        daemon.join().unwrap();
        error
    }

    fn answer(mut stream: &UnixStream) {
        let answer = "HTTP/1.1 500 Oops\r\nContent-Length: 22\r\n\r\n{\"message\":\"no space\"}";
        stream.write_all(answer.as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn an_answer_is_read_though_the_request_is_not_taken() {
        let error = imported(|stream| answer(&stream)).await;
        assert_eq!(error.to_string(), "Error response from daemon: no space");
        let error = imported(|stream| {
            stream.shutdown(Shutdown::Read).unwrap();
            std::thread::spawn(move || answer(&stream));
        })
        .await;
        assert_eq!(error.to_string(), "Error response from daemon: no space");
    }

    #[tokio::test]
    async fn a_connection_that_breaks_without_an_answer_is_an_error() {
        let error = imported(drop).await;
        assert!(error.to_string().starts_with("error during connect: /v1.53/images/create: "), "{error}");
    }
}
