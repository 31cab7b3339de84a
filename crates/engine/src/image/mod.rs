//! Images, as the API shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use ponton_api::container::Config;
use ponton_api::filters::Filters;
use ponton_api::image::{DeleteResponseItem, HistoryItem, Inspect, Metadata, PruneResponse, RootFs, Summary};
use ponton_api::stream::{JsonMessage, ProgressDetail};
use ponton_image::{Image, ImportOptions, LoadOptions, Progress, Removed, SaveOptions, User};
use ponton_oci::digest::ImageId;
use ponton_oci::reference::Reference;
use tokio::sync::mpsc;

use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::request::{ByteSource, ImportRequest, Stream};
use crate::stream;

const FILTERS: &[&str] = &["before", "dangling", "label", "reference", "since", "until"];

impl Engine {
    /// Makes an image of a root file system tar; answers its id.
    pub async fn image_import(self: &Arc<Self>, request: ImportRequest, body: ByteSource) -> Result<String> {
        let reference = match request.reference.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => Some(parse_reference(name)?),
            None => None,
        };
        let platform = match request.platform.as_deref().filter(|platform| !platform.is_empty()) {
            Some(platform) => Some(platform.parse().map_err(|error| Error::invalid(format!("{error}")))?),
            None => None,
        };
        let options = ImportOptions {
            reference,
            changes: request.changes,
            message: request.message,
            platform,
            created: Timestamp::now().to_string(),
        };
        let mut reader = stream::reader(body);
        let images = self.images.clone();
        let name = options.reference.as_ref().map(ToString::to_string);
        let id = blocking(move || Ok(images.import(&mut reader, &options)?)).await?.to_string();
        self.image_event("import", &id, name.as_deref().unwrap_or(&id));
        Ok(id)
    }

    /// Loads images from a docker-archive or oci-archive; progress as it comes. `quiet` leaves the
    /// progress out.
    pub async fn image_load(self: &Arc<Self>, quiet: bool, body: ByteSource) -> Result<Stream<JsonMessage>> {
        let (sender, receiver) = mpsc::channel(64);
        let mut reader = stream::reader(body);
        let engine = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let mut tell = |progress: Progress| {
                if let Some(message) = engine.load_message(progress, quiet) {
                    // A load goes on without its client.
                    let _ = sender.blocking_send(Ok(message));
                }
            };
            let options = LoadOptions { now: now(), ..LoadOptions::default() };
            let loaded = engine.images.load(&mut reader, &options, &mut tell);
            if let Err(error) = loaded {
                let _ = sender.blocking_send(Err(error.into()));
            }
        });
        Ok(stream::from_channel(receiver))
    }

    fn load_message(&self, progress: Progress, quiet: bool) -> Option<JsonMessage> {
        match progress {
            Progress::Layer { .. } if quiet => None,
            Progress::Layer { id, current, total } => {
                let (current, total) = (current as i64, total as i64);
                Some(JsonMessage {
                    status: "Loading layer".into(),
                    id,
                    progress_detail: Some(ProgressDetail { current, total, ..ProgressDetail::default() }),
                    ..JsonMessage::default()
                })
            }
            Progress::Loaded(image) => {
                let id = image.id.to_string();
                let name = image.references.first().map_or_else(|| id.clone(), Reference::familiar);
                self.image_event("load", &id, &name);
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
    pub async fn image_save(self: &Arc<Self>, names: Vec<String>) -> Result<Stream<Bytes>> {
        for name in &names {
            // A name that is not there is answered before the stream begins.
            let (images, name) = (self.images.clone(), name.clone());
            blocking(move || Ok(images.get(&name)?)).await?;
        }
        let images = self.images.clone();
        Ok(stream::written(move |writer| Ok(images.save(&names, &SaveOptions::default(), writer)?)))
    }

    /// The images, newest first.
    pub async fn image_list(self: &Arc<Self>, _all: bool, filters: Filters) -> Result<Vec<Summary>> {
        filters.check_known(FILTERS).map_err(|error| Error::invalid(error.to_string()))?;
        let images = self.images.clone();
        let images = blocking(move || Ok(images.list()?)).await?;
        let created_of = |name: &str| -> Result<Option<i64>> {
            match filters.get(name).next() {
                Some(name) => Ok(Some(created(&self.images.get(name)?))),
                None => Ok(None),
            }
        };
        let (before, since) = (created_of("before")?, created_of("since")?);
        let until = match filters.get("until").next() {
            Some(text) => Some(crate::filter::time(text, Timestamp::now())?.as_second()),
            None => None,
        };
        let dangling = match filters.contains("dangling") {
            true => {
                Some(filters.boolean("dangling", true).map_err(|error| Error::invalid(error.to_string()))?)
            }
            false => None,
        };
        Ok(images
            .iter()
            .filter(|image| {
                before.is_none_or(|before| created(image) < before)
                    && since.is_none_or(|since| created(image) > since)
                    && until.is_none_or(|until| created(image) < until)
                    && dangling.is_none_or(|dangling| image.references.is_empty() == dangling)
                    && filters.matches_labels("label", &labels(image))
                    && filters.matches("reference", |wanted| {
                        image.references.iter().any(|name| reference_matches(&name.familiar(), wanted))
                    })
            })
            .map(summary)
            .collect())
    }

    /// All about one image.
    pub async fn image_inspect(self: &Arc<Self>, name: &str) -> Result<Inspect> {
        let (images, asked) = (self.images.clone(), name.to_owned());
        let image = blocking(move || Ok(images.get(&asked)?)).await?;
        let config = &image.config;
        let comment = config.history.last().and_then(|entry| entry.comment.clone()).unwrap_or_default();
        let tagged = self.store.images().tagged_at(&image.id)?;
        Ok(Inspect {
            id: image.id.to_string(),
            repo_tags: tags(&image),
            repo_digests: digests(&image),
            comment,
            created: image.created.clone().unwrap_or_default(),
            author: config.author.clone().unwrap_or_default(),
            config: api_config(&image),
            architecture: config.architecture.clone(),
            variant: config.variant.clone().unwrap_or_default(),
            os: config.os.clone(),
            size: image.size as i64,
            graph_driver: ponton_api::container::GraphDriver {
                data: None,
                name: self.snapshotter.name().to_owned(),
            },
            root_fs: RootFs {
                r#type: "layers".into(),
                layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
            },
            metadata: Metadata {
                last_tag_time: tagged
                    .and_then(|time| Timestamp::from_nanosecond(i128::from(time)).ok())
                    .map_or_else(|| ponton_api::ZERO_TIME.into(), |time| time.to_string()),
            },
            ..Inspect::default()
        })
    }

    /// How an image came to be.
    pub async fn image_history(self: &Arc<Self>, name: &str) -> Result<Vec<HistoryItem>> {
        let (images, name) = (self.images.clone(), name.to_owned());
        let history = blocking(move || Ok(images.history(&name)?)).await?;
        Ok(history
            .into_iter()
            .map(|item| HistoryItem {
                id: item.id.map_or_else(|| "<missing>".into(), |id| id.to_string()),
                created: item.created.as_deref().map_or(0, seconds),
                created_by: item.created_by,
                tags: match item.references.is_empty() {
                    true => None,
                    false => Some(item.references.iter().map(Reference::familiar).collect()),
                },
                size: item.size as i64,
                comment: item.comment,
            })
            .collect())
    }

    /// Gives an image another name.
    pub async fn image_tag(self: &Arc<Self>, name: &str, repository: &str, tag: &str) -> Result<()> {
        let target = match tag {
            "" => parse_reference(repository)?,
            tag => parse_reference(&format!("{repository}:{tag}"))?,
        };
        let (images, name) = (self.images.clone(), name.to_owned());
        let familiar = target.familiar();
        let id = blocking(move || {
            images.tag(&name, &target, now())?;
            Ok(images.get(&name)?.id)
        })
        .await?;
        self.image_event("tag", &id.to_string(), &familiar);
        Ok(())
    }

    /// Removes a name, and the image with its last name.
    pub async fn image_remove(
        self: &Arc<Self>,
        name: &str,
        force: bool,
        _no_prune: bool,
    ) -> Result<Vec<DeleteResponseItem>> {
        let (engine, name) = (Arc::clone(self), name.to_owned());
        blocking(move || {
            let id = engine.images.get(&name)?.id.to_string();
            let in_use = |id: &ImageId| engine.image_users(id);
            let removed = engine.images.remove(&name, force, &in_use)?;
            Ok(engine.tell_removed(&id, removed))
        })
        .await
    }

    /// Removes images that nothing uses: those without a name, or with `dangling=false` all.
    pub async fn image_prune(self: &Arc<Self>, filters: Filters) -> Result<PruneResponse> {
        filters
            .check_known(&["dangling", "label", "label!", "until"])
            .map_err(|error| Error::invalid(error.to_string()))?;
        let dangling =
            filters.boolean("dangling", true).map_err(|error| Error::invalid(error.to_string()))?;
        let until = match filters.get("until").next() {
            Some(text) => Some(crate::filter::time(text, Timestamp::now())?.as_second()),
            None => None,
        };
        let engine = Arc::clone(self);
        blocking(move || {
            let mut response = PruneResponse::default();
            for image in engine.images.list()? {
                let wanted = (!dangling || image.references.is_empty())
                    && engine.image_users(&image.id).is_empty()
                    && until.is_none_or(|until| created(&image) < until)
                    && filters.matches_labels("label", &labels(&image));
                if !wanted {
                    continue;
                }
                let id = image.id.to_string();
                let removed = engine.images.remove(&id, true, &|id| engine.image_users(id))?;
                response.space_reclaimed += image.size;
                response.images_deleted.get_or_insert_default().extend(engine.tell_removed(&id, removed));
            }
            Ok(response)
        })
        .await
    }

    /// The containers that use an image.
    fn image_users(&self, id: &ImageId) -> Vec<User> {
        let id = id.to_string();
        let users = self.all().into_iter().filter(|container| container.view().settings.image == id);
        users
            .map(|user| User { container: user.id.clone(), running: user.view().life.is_running() })
            .collect()
    }

    fn tell_removed(&self, id: &str, removed: Vec<Removed>) -> Vec<DeleteResponseItem> {
        removed
            .into_iter()
            .map(|removed| match removed {
                Removed::Untagged(name) => {
                    self.image_event("untag", id, id);
                    DeleteResponseItem { untagged: Some(name), deleted: None }
                }
                Removed::Deleted(digest) => {
                    if digest == id {
                        self.image_event("delete", id, id);
                    }
                    DeleteResponseItem { untagged: None, deleted: Some(digest) }
                }
            })
            .collect()
    }

    fn image_event(&self, action: &str, id: &str, name: &str) {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        self.events.emit("image", action, id, attributes, Timestamp::now());
    }
}

fn parse_reference(name: &str) -> Result<Reference> {
    name.parse().map_err(|error| Error::invalid(format!("{error}")))
}

/// Nanoseconds since the epoch.
fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

fn seconds(time: &str) -> i64 {
    time.parse::<Timestamp>().map_or(0, Timestamp::as_second)
}

fn created(image: &Image) -> i64 {
    image.created.as_deref().map_or(0, seconds)
}

fn labels(image: &Image) -> BTreeMap<String, String> {
    image.config.config.labels.clone()
}

fn tags(image: &Image) -> Vec<String> {
    image.references.iter().filter(|name| name.digest().is_none()).map(Reference::familiar).collect()
}

fn digests(image: &Image) -> Vec<String> {
    image.references.iter().filter(|name| name.digest().is_some()).map(Reference::familiar).collect()
}

fn summary(image: &Image) -> Summary {
    Summary {
        id: image.id.to_string(),
        repo_tags: tags(image),
        repo_digests: digests(image),
        created: created(image),
        size: image.size as i64,
        shared_size: -1,
        labels: Some(image.config.config.labels.clone()).filter(|labels| !labels.is_empty()),
        containers: -1,
        ..Summary::default()
    }
}

/// The image's configuration in the API's shape: the two share their names in JSON.
fn api_config(image: &Image) -> Config {
    serde_json::to_value(&image.config.config)
        .ok()
        .and_then(|value| serde_json::from_value(value).ok())
        .unwrap_or_default()
}

/// Docker's `reference` filter: a pattern of `*`, `?` and the name, with or without a tag.
fn reference_matches(name: &str, pattern: &str) -> bool {
    let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
    glob(pattern.as_bytes(), name.as_bytes()) || glob(pattern.as_bytes(), repository.as_bytes())
}

/// Whether `text` fits a pattern in which `*` stands for anything within one path part.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => {
            let stop = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            (0..=stop).any(|taken| glob(rest, &text[taken..]))
        }
        Some((b'?', rest)) => text.first().is_some_and(|byte| *byte != b'/') && glob(rest, &text[1..]),
        Some((byte, rest)) => text.first() == Some(byte) && glob(rest, &text[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_match_patterns() {
        for (pattern, expected) in [
            ("busybox", true),
            ("busybox:*", true),
            ("busy*", true),
            ("b?sybox:latest", true),
            ("box", false),
            ("*/*", false),
        ] {
            assert_eq!(reference_matches("busybox:latest", pattern), expected, "{pattern}");
        }
    }
}
