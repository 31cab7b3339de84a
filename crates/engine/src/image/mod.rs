//! Images, as the API shows them.

mod archive;
mod explore;
mod inspect;
mod list;
mod progress;
mod pull;
mod push;
mod registry;
mod remove;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use ponton_api::filters::Filters;
use ponton_image::{Image, ImageSummary, User};
use ponton_oci::digest::ImageId;
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};

impl Engine {
    /// The containers that use an image.
    pub(crate) fn image_users(&self, id: &ImageId) -> Vec<User> {
        let id = id.to_string();
        let uses = |container: &Arc<Container>| {
            let view = container.view();
            view.settings.image == id || view.settings.mounts.iter().any(|point| point.details.image == id)
        };
        let users = self.all().into_iter().filter(uses);
        users
            .map(|user| User { container: user.id.clone(), running: user.view().life.is_running() })
            .collect()
    }

    /// How many containers use each image.
    fn containers_by_image(&self) -> HashMap<String, i64> {
        let mut counts = HashMap::new();
        for container in self.all() {
            *counts.entry(container.view().settings.image.clone()).or_default() += 1;
        }
        counts
    }

    /// Tells the event stream of an image that is there.
    pub(crate) fn image_event(&self, action: &str, id: &str, name: &str) {
        let labels = self.images.get(id).map(|image| image.config.config.labels).unwrap_or_default();
        self.labelled_image_event(action, id, name, labels);
    }

    /// The same of one that may be gone.
    fn labelled_image_event(
        &self,
        action: &str,
        id: &str,
        name: &str,
        mut attributes: BTreeMap<String, String>,
    ) {
        attributes.insert("name".to_owned(), name.to_owned());
        self.events.emit("image", action, id, attributes, Timestamp::now());
    }
}

/// A name, with the tag `latest` if it has none.
pub(crate) fn parse_reference(name: &str) -> Result<Reference> {
    name.parse().map_err(|error| Error::invalid(format!("{error}")))
}

/// The name that an image is to get: `repo` with `tag`, or none at all.
pub(crate) fn target(reference: Option<&str>) -> Result<Option<Reference>> {
    reference.filter(|name| !name.is_empty()).map(parse_reference).transpose()
}

fn parse_platform(platform: Option<&str>) -> Result<Option<Platform>> {
    let platform = platform.filter(|platform| !platform.is_empty());
    platform.map(|text| text.parse().map_err(|error| Error::invalid(format!("{error}")))).transpose()
}

/// The platform that an image says it is for.
fn platform_of(image: &Image) -> Platform {
    let config = &image.config;
    Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        os_version: config.os_version.clone().unwrap_or_default(),
        os_features: Vec::new(),
        variant: config.variant.clone().unwrap_or_default(),
    }
}

/// Refuses an image that is not for the platform that was asked for.
fn check_platform(name: &str, image: &Image, wanted: Option<&str>) -> Result<()> {
    match parse_platform(wanted)? {
        Some(wanted) if !wanted.runs(&platform_of(image)) => Err(Error::not_found(format!(
            "image with reference {name} was found but does not provide the specified platform ({wanted})"
        ))),
        _ => Ok(()),
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

fn seconds(time: &str) -> i64 {
    time.parse::<Timestamp>().map_or(0, Timestamp::as_second)
}

/// Seconds since the epoch.
fn created(image: &ImageSummary) -> i64 {
    image.created_at.div_euclid(1_000_000_000)
}

fn tags(references: &[Reference]) -> Vec<String> {
    references.iter().filter(|name| name.digest().is_none()).map(Reference::familiar).collect()
}

fn digests(references: &[Reference]) -> Vec<String> {
    references.iter().filter(|name| name.digest().is_some()).map(Reference::familiar).collect()
}

/// Whether an image has no tag.
fn is_dangling(image: &ImageSummary) -> bool {
    image.references.iter().all(|name| name.digest().is_some())
}

/// The value of a filter that is true or false, if it is there.
fn truth(filters: &Filters, name: &str) -> Result<Option<bool>> {
    if !filters.contains(name) {
        return Ok(None);
    }
    filters.boolean(name, true).map(Some).map_err(|error| Error::invalid(error.to_string()))
}

/// The time of the filter `until`, in seconds since the epoch.
fn until(filters: &Filters) -> Result<Option<i64>> {
    let text = filters.get("until").next();
    text.map(|text| crate::filter::time(text, Timestamp::now()).map(Timestamp::as_second)).transpose()
}
