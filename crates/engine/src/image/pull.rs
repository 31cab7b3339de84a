//! Images from registries.

use std::collections::HashMap;
use std::sync::Arc;

use ponton_api::auth::AuthConfig;
use ponton_api::stream::JsonMessage;
use ponton_image::{Cancel, LayerStatus, PullOptions, PullProgress, Remote};
use ponton_oci::digest::Digest;
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;
use tokio::runtime::Handle;

use super::progress::Messages;
use super::registry::{credentials, host, refused, refused_image};
use super::{now, parse_platform, progress};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::request::{PullRequest, Stream};
use crate::stream;

/// Ends a transfer in whatever it is doing, when it is dropped: nobody listens any more.
#[derive(Default)]
pub(super) struct Cancelling(pub(super) Cancel);

impl Drop for Cancelling {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// One pull under way.
struct Pull {
    engine: Arc<Engine>,
    /// Without tag and digest where all tags are meant.
    reference: Reference,
    platform: Option<Platform>,
    remote: Arc<dyn Remote>,
    cancel: Cancel,
    messages: Messages,
}

impl Engine {
    /// Pulls an image, or all tags of a repository; progress as it comes. What fails before there is
    /// any is an error at once. The pull ends when the stream is dropped.
    pub async fn image_pull(self: &Arc<Self>, request: PullRequest) -> Result<Stream<JsonMessage>> {
        let reference = pulled(&request.image, &request.tag)?;
        let platform = parse_platform(request.platform.as_deref())?;
        let auth = chosen(&request, reference.registry());
        let cancelling = Cancelling::default();
        let repository =
            self.registries.repository(&reference, credentials(&auth)).with_cancel(cancelling.0.clone());
        let tags = match (reference.tag(), reference.digest()) {
            (None, None) => Some(repository.tags().await.map_err(|error| refused(error, &reference))?),
            _ => None,
        };
        let (messages, receiver) = Messages::channel();
        let blocking = repository.blocking(Handle::current());
        let pull = Pull {
            engine: Arc::clone(self),
            remote: Arc::new(blocking),
            reference,
            platform,
            cancel: cancelling.0.clone(),
            messages,
        };
        tokio::task::spawn_blocking(move || {
            let done = match tags {
                Some(tags) => pull.all(&tags),
                None => {
                    pull.one(&pull.reference).map(|is_new| pull.tell_end(is_new, &pull.reference.familiar()))
                }
            };
            if let Err(error) = done {
                pull.messages.tell(Err(error));
            }
        });
        stream::begun(stream::with_guard(stream::from_channel(receiver), cancelling)).await
    }
}

impl Pull {
    fn all(&self, tags: &[String]) -> Result<()> {
        let mut is_new = false;
        for tag in tags {
            let reference = self
                .reference
                .with_tag(tag)
                .map_err(|error| Error::invalid(format!("tag {tag:?} of the registry: {error}")))?;
            is_new |= self.one(&reference)?;
        }
        self.tell_end(is_new, &self.reference.familiar_name());
        Ok(())
    }

    /// Pulls what one name means; says whether it is new.
    fn one(&self, reference: &Reference) -> Result<bool> {
        let wanted = match reference.digest() {
            Some(digest) => digest.to_string(),
            None => reference.tag().unwrap_or_default().to_owned(),
        };
        let options = PullOptions { platform: self.platform.clone(), all_platforms: false };
        let mut told = HashMap::<String, LayerStatus>::new();
        let mut tell = |news: PullProgress| match news {
            PullProgress::Resolved(_) => {
                self.messages
                    .tell(Ok(progress::text(&wanted, format!("Pulling from {}", reference.repository()))));
            }
            PullProgress::Layer { id, status } => {
                if told.insert(id.clone(), status) != Some(status) {
                    self.messages.tell_layer(layer_message(id, status));
                }
            }
        };
        let pulled = self
            .engine
            .images
            .pull(&self.remote, reference, &options, now(), &self.cancel, &mut tell)
            .map_err(|error| refused_image(error, reference))?;
        if let Some(other) = &pulled.other_platform {
            let warning = format!(
                "WARNING: image with reference {} was found but does not match the platform of this host: \
                 {other}",
                reference.familiar()
            );
            self.messages.tell(Ok(progress::text("", warning)));
        }
        self.messages.tell(Ok(progress::text("", format!("Digest: {}", pulled.digest))));
        self.engine.image_event("pull", &reference.familiar(), &reference.familiar_name());
        self.engine.look_at_budget();
        Ok(pulled.is_new)
    }

    fn tell_end(&self, is_new: bool, name: &str) {
        let status = if is_new { "Downloaded newer image for" } else { "Image is up to date for" };
        self.messages.tell(Ok(progress::text("", format!("Status: {status} {name}"))));
    }
}

fn layer_message(id: String, status: LayerStatus) -> JsonMessage {
    match status {
        LayerStatus::Pending => progress::status(id, "Pulling fs layer"),
        LayerStatus::AlreadyExists => progress::status(id, "Already exists"),
        LayerStatus::Waiting => progress::status(id, "Waiting"),
        LayerStatus::Downloading { current, total } => progress::bytes(id, "Downloading", current, total),
        LayerStatus::DownloadComplete => progress::status(id, "Download complete"),
        LayerStatus::Extracting { current, total } => progress::bytes(id, "Extracting", current, total),
        LayerStatus::PullComplete => progress::status(id, "Pull complete"),
    }
}

/// What is pulled: the image's name with the tag or digest that is given beside it.
fn pulled(image: &str, tag: &str) -> Result<Reference> {
    let invalid = |error: ponton_oci::reference::ParseError| Error::invalid(error.to_string());
    let name = Reference::parse_exact(image.strip_suffix(':').unwrap_or(image)).map_err(invalid)?;
    match tag {
        "" => Ok(name),
        digest if digest.contains(':') => {
            let digest: Digest = digest.parse().map_err(|error| Error::invalid(format!("{error}")))?;
            Ok(name.with_digest(digest))
        }
        tag => name.with_tag(tag).map_err(invalid),
    }
}

/// The credentials that a client sent for this registry, or else those for all of them by name.
fn chosen(request: &PullRequest, registry: &str) -> AuthConfig {
    if request.auth != AuthConfig::default() {
        return request.auth.clone();
    }
    let found = request.auths.iter().find(|(server, _)| host(server) == registry);
    found.map(|(_, auth)| auth.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tags_are_joined() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (image, tag, expected) in [
            ("busybox", "1", "busybox:1".to_owned()),
            ("busybox", "", "busybox".to_owned()),
            ("busybox:1:", "", "busybox:1".to_owned()),
            ("localhost:5000/a:1", "2", "localhost:5000/a:2".to_owned()),
            ("busybox", &digest, format!("busybox@{digest}")),
        ] {
            assert_eq!(pulled(image, tag).unwrap().familiar(), expected);
        }
        assert!(pulled("busybox", "no tag").is_err());
        assert!(pulled("UPPER", "1").is_err());
    }

    #[test]
    fn layers_are_told_as_dockerd_does() {
        let json = |status| serde_json::to_string(&layer_message("abc".into(), status)).unwrap();
        assert_eq!(
            json(LayerStatus::Pending),
            r#"{"status":"Pulling fs layer","progressDetail":{},"id":"abc"}"#
        );
        assert!(json(LayerStatus::Downloading { current: 5, total: 10 }).starts_with(
            r#"{"status":"Downloading","progressDetail":{"current":5,"total":10},"progress":"["#
        ));
    }
}
