//! Images from archives, and archives of images.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use ponton_api::stream::JsonMessage;
use ponton_image::{Format, ImportOptions, LoadOptions, Progress, SaveOptions};
use ponton_oci::platform::Platform;
use tokio::sync::mpsc;

use super::{now, parse_platform, progress, target};
use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::request::{ArchiveFormat, ByteSource, ImportRequest, LoadRequest, SaveRequest, Stream};
use crate::stream;

impl Engine {
    /// Makes an image of a root file system tar; answers its id.
    pub async fn image_import(self: &Arc<Self>, request: ImportRequest, body: ByteSource) -> Result<String> {
        let options = ImportOptions {
            reference: target(request.reference.as_deref())?,
            changes: request.changes,
            message: request.message,
            platform: parse_platform(request.platform.as_deref())?,
            created: Timestamp::now().to_string(),
        };
        let mut reader = stream::reader(body);
        let images = self.images.clone();
        let id = blocking(move || Ok(images.import(&mut reader, &options)?)).await?.to_string();
        self.image_event("import", &id, &id);
        self.look_at_budget();
        Ok(id)
    }

    /// Loads images from a docker-archive or oci-archive; progress as it comes.
    pub async fn image_load(
        self: &Arc<Self>,
        request: LoadRequest,
        body: ByteSource,
    ) -> Result<Stream<JsonMessage>> {
        let options = LoadOptions { platforms: parse_platforms(&request.platforms)?, now: now() };
        let (sender, receiver) = mpsc::channel(64);
        let mut reader = stream::reader(body);
        let engine = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let mut tell = |progress: Progress| {
                if let Some(message) = engine.load_message(progress, request.quiet) {
                    // A client that has gone sends no more either, which ends the load.
                    let _ = sender.blocking_send(Ok(message));
                }
            };
            let loaded = engine.images.load(&mut reader, &options, &mut tell);
            if let Err(error) = loaded {
                let _ = sender.blocking_send(Err(error.into()));
            }
        });
        stream::begun(stream::from_channel(receiver)).await
    }

    fn load_message(&self, progress: Progress, quiet: bool) -> Option<JsonMessage> {
        match progress {
            Progress::Layer { .. } if quiet => None,
            Progress::Layer { id, current, total } => {
                Some(progress::bytes(id, "Loading layer", current, total))
            }
            Progress::Loaded(image) => {
                let id = image.id.to_string();
                self.image_event("load", &id, &id);
                self.look_at_budget();
                let text = match image.references.as_slice() {
                    [] => format!("Loaded image ID: {id}\n"),
                    names => {
                        names.iter().map(|name| format!("Loaded image: {}\n", name.familiar())).collect()
                    }
                };
                Some(JsonMessage { stream: text, ..JsonMessage::default() })
            }
        }
    }

    /// Images as one tar.
    pub async fn image_save(self: &Arc<Self>, request: SaveRequest) -> Result<Stream<Bytes>> {
        let options = SaveOptions {
            platforms: parse_platforms(&request.platforms)?,
            format: match request.format {
                ArchiveFormat::Docker => Format::Docker,
                ArchiveFormat::Oci => Format::Oci,
            },
        };
        // What is not there is answered before the stream begins.
        let (images, names, wanted) = (self.images.clone(), request.names.clone(), options.clone());
        let ids = blocking(move || Ok(images.saved_images(&names, &wanted)?)).await?;
        let engine = Arc::clone(self);
        Ok(stream::written(move |writer| {
            engine.images.save(&request.names, &options, writer)?;
            for id in ids {
                let id = id.to_string();
                engine.image_event("save", &id, &id);
            }
            Ok(())
        }))
    }
}

fn parse_platforms(platforms: &[String]) -> Result<Vec<Platform>> {
    platforms.iter().filter_map(|text| parse_platform(Some(text)).transpose()).collect()
}
