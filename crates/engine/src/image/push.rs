//! Images to registries.

use std::sync::Arc;

use ponton_api::image::PushResult;
use ponton_api::stream::{JsonMessage, ProgressDetail};
use ponton_image::{Cancel, PushOptions, PushProgress, PushStatus};
use ponton_oci::reference::Reference;
use ponton_registry::blocking;
use tokio::runtime::Handle;

use super::progress::Messages;
use super::pull::Cancelling;
use super::registry::{credentials, refused_image};
use super::{now, parse_platform, progress};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::request::{PushRequest, Stream};
use crate::stream;

/// One push under way.
struct Push {
    engine: Arc<Engine>,
    remote: blocking::Repository,
    options: PushOptions,
    cancel: Cancel,
    messages: Messages,
}

impl Engine {
    /// Pushes the image with a tag, or all tags of a name; progress as it comes. The push ends when
    /// the stream is dropped.
    pub async fn image_push(self: &Arc<Self>, request: PushRequest) -> Result<Stream<JsonMessage>> {
        let invalid = |error: ponton_oci::reference::ParseError| Error::invalid(error.to_string());
        let mut name = Reference::parse_exact(&request.image).map_err(invalid)?;
        if name.digest().is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        if !request.tag.is_empty() {
            name = name.with_tag(&request.tag).map_err(invalid)?;
        }
        let platform = parse_platform(request.platform.as_deref())?;
        let cancelling = Cancelling::default();
        let repository =
            self.registries.repository(&name, credentials(&request.auth)).with_cancel(cancelling.0.clone());
        let (messages, receiver) = Messages::channel();
        let push = Push {
            engine: Arc::clone(self),
            remote: repository.blocking(Handle::current()),
            options: PushOptions { platform },
            cancel: cancelling.0.clone(),
            messages,
        };
        tokio::task::spawn_blocking(move || {
            if let Err(error) = push.all(&name) {
                push.messages.tell(Err(error));
            }
        });
        stream::begun(stream::with_guard(stream::from_channel(receiver), cancelling)).await
    }
}

impl Push {
    fn all(&self, name: &Reference) -> Result<()> {
        self.messages
            .tell(Ok(progress::text("", format!("The push refers to repository [{}]", name.name()))));
        let wanted = |known: &Reference| {
            known.name() == name.name()
                && known.digest().is_none()
                && (name.tag().is_none() || known.tag() == name.tag())
        };
        let known = self.engine.store.images().references()?;
        let tagged: Vec<Reference> = known.into_keys().filter(wanted).collect();
        if tagged.is_empty() {
            return Err(Error::not_found(format!(
                "An image does not exist locally with the tag: {}",
                name.familiar_name()
            )));
        }
        for reference in tagged {
            self.one(&reference)?;
        }
        Ok(())
    }

    fn one(&self, reference: &Reference) -> Result<()> {
        let mut tell = |news: PushProgress| self.messages.tell_layer(layer_message(news));
        let pushed = self
            .engine
            .images
            .push(reference, &self.remote, &self.options, now(), &self.cancel, &mut tell)
            .map_err(|error| refused_image(error, reference))?;
        let tag = reference.tag().unwrap_or_default();
        let (digest, size) = (pushed.digest.to_string(), pushed.size as i64);
        self.messages.tell(Ok(progress::text("", format!("{tag}: digest: {digest} size: {size}"))));
        let result = PushResult { tag: tag.to_owned(), digest, size };
        self.messages.tell(Ok(JsonMessage {
            progress_detail: Some(ProgressDetail::default()),
            aux: serde_json::to_value(result).ok(),
            ..JsonMessage::default()
        }));
        self.engine.image_event("push", &reference.familiar(), &reference.familiar_name());
        Ok(())
    }
}

fn layer_message(news: PushProgress) -> JsonMessage {
    let id = news.id;
    match news.status {
        PushStatus::Preparing => progress::status(id, "Preparing"),
        PushStatus::Waiting => progress::status(id, "Waiting"),
        PushStatus::Exists => progress::status(id, "Layer already exists"),
        PushStatus::Mounted(from) => progress::status(id, format!("Mounted from {from}")),
        PushStatus::Pushing { current, total } => progress::bytes(id, "Pushing", current, total),
        PushStatus::Pushed => progress::status(id, "Pushed"),
    }
}
