//! Volumes: directories below `<data-root>/volumes`, and file systems that are mounted there.
//!
//! ```text
//!   volumes/<name>/_data      what containers see
//!                  filling    a copy of the image's content on its way; worth nothing
//!                  filled     the whole copy, moved to _data name by name; a kill is made up for
//!                  replacing  the same, after what is in _data is gone
//! ```
//!
//! Who uses a volume is never counted: it follows from the containers' records, and what is being made in
//! this moment keeps a [`Hold`].

mod fill;
mod frozen;
mod local;
mod transfer;
mod using;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use ponton_api::container::StringMap;
use ponton_api::filters::Filters;
use ponton_api::volume::{CreateRequest, ListResponse, PruneResponse, UsageData, Volume};
use ponton_store::VolumeRecord;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, chain};

pub(crate) use using::{Hold, Temporary, Using, Volumes};

/// The label by which clients know a volume that nobody named.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// What is kept of a volume beside its name.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    labels: Option<StringMap>,
    options: Option<StringMap>,
}

/// What a request says of a volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// Empty for one that is to be made up.
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) options: Option<StringMap>,
    pub(crate) labels: Option<StringMap>,
}

impl Engine {
    /// The volumes.
    pub async fn volume_list(self: &Arc<Self>, filters: Filters) -> Result<ListResponse> {
        filters
            .check_known(&["dangling", "driver", "label", "name"])
            .map_err(|error| Error::invalid(error.to_string()))?;
        let dangling = match filters.contains("dangling") {
            true => {
                Some(filters.boolean("dangling", true).map_err(|error| Error::invalid(error.to_string()))?)
            }
            false => None,
        };
        let mut volumes = Vec::new();
        for record in self.store.volumes().list()? {
            let used = !self.volume_users(&record.name).is_empty();
            let volume = self.describe_volume(record);
            let labels = volume.labels.clone().unwrap_or_default();
            if dangling.is_none_or(|dangling| dangling != used)
                && filters.matches("driver", |driver| driver == volume.driver)
                && filters.matches("name", |name| volume.name.contains(name))
                && filters.matches_labels("label", &labels)
            {
                volumes.push(volume);
            }
        }
        Ok(ListResponse { volumes, warnings: None })
    }

    /// All about one volume.
    pub async fn volume_inspect(self: &Arc<Self>, name: &str) -> Result<Volume> {
        match self.store.volumes().get(name)? {
            Some(record) => Ok(self.describe_volume(record)),
            None => Err(no_such_volume(name)),
        }
    }

    /// Makes a volume, or answers the one that is there.
    pub async fn volume_create(self: &Arc<Self>, request: CreateRequest) -> Result<Volume> {
        let anonymous = request.name.is_empty();
        let CreateRequest { name, driver, driver_opts: options, labels, cluster_volume_spec } = request;
        if cluster_volume_spec.is_some() {
            return Err(Error::not_implemented(
                "ClusterVolumeSpec: volumes of a cluster are not implemented",
            ));
        }
        let mut asked = Asked { name, driver, options, labels };
        self.check_volume(&asked)?;
        if anonymous {
            asked.name = crate::id::generate()?;
        }
        self.make_volume(&asked, anonymous)?;
        let name = asked.name;
        self.volume_inspect(&name).await
    }

    /// Removes a volume that no container uses.
    pub async fn volume_remove(self: &Arc<Self>, name: &str, force: bool) -> Result<()> {
        if self.store.volumes().get(name)?.is_none() {
            return if force { Ok(()) } else { Err(no_such_volume(name)) };
        }
        let (engine, name) = (Arc::clone(self), name.to_owned());
        blocking(move || engine.drop_volume(&name, None)).await
    }

    /// Removes volumes that no container uses: anonymous ones, and with the filter `all` the named.
    pub async fn volume_prune(self: &Arc<Self>, filters: Filters) -> Result<PruneResponse> {
        filters
            .check_known(&["all", "label", "label!"])
            .map_err(|error| Error::invalid(error.to_string()))?;
        let all = filters.boolean("all", false).map_err(|error| Error::invalid(error.to_string()))?;
        let mut deleted = Vec::new();
        let mut space_reclaimed = 0;
        for record in self.store.volumes().list()? {
            let labels = parse(&record).labels.unwrap_or_default();
            let is_kept = filters.contains("label!") && filters.matches_labels("label!", &labels);
            if !(record.anonymous || all)
                || is_kept
                || !filters.matches_labels("label", &labels)
                || !self.volume_users(&record.name).is_empty()
            {
                continue;
            }
            let (engine, name) = (Arc::clone(self), record.name.clone());
            let dropped = blocking(move || {
                let bytes = size(&engine.volume_data(&name));
                engine.drop_volume(&name, None).map(|()| bytes)
            });
            match dropped.await {
                Ok(bytes) => {
                    space_reclaimed += bytes;
                    deleted.push(record.name);
                }
                // A container took it in this moment.
                Err(error) => tracing::warn!(error = chain(&error), volume = record.name, "prune"),
            }
        }
        self.tell_pruned("volume", space_reclaimed);
        Ok(PruneResponse { volumes_deleted: Some(deleted), space_reclaimed })
    }

    /// The volumes with their sizes, and how many containers use each.
    pub(crate) async fn volume_usage(self: &Arc<Self>) -> Result<Vec<Volume>> {
        let engine = Arc::clone(self);
        blocking(move || {
            let describe = |record: VolumeRecord| {
                let size = size(&engine.volume_data(&record.name)) as i64;
                let ref_count = engine.volume_users(&record.name).len() as i64;
                let usage_data = Some(UsageData { ref_count, size });
                Volume { usage_data, ..engine.describe_volume(record) }
            };
            Ok(engine.store.volumes().list()?.into_iter().map(describe).collect())
        })
        .await
    }

    /// `<data-root>/volumes/<name>/_data`
    pub(crate) fn volume_data(&self, name: &str) -> PathBuf {
        self.volume_directory(name).join("_data")
    }

    fn volume_directory(&self, name: &str) -> PathBuf {
        self.config().data_root.join("volumes").join(name)
    }

    /// Whether a volume can be had: it is there, or can be made as the request wants it.
    pub(crate) fn check_volume(&self, asked: &Asked) -> Result<()> {
        let Asked { name, driver, options, .. } = asked;
        if !matches!(driver.as_str(), "" | "local" | "default") {
            return Err(Error::not_found(format!(
                "create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found"
            )));
        }
        if !name.is_empty() {
            local::check_name(name)?;
            if self.store.volumes().get(name)?.is_some() {
                return Ok(());
            }
        }
        options.as_ref().map_or(Ok(()), |options| local::check_options(name, options))
    }

    /// Makes a volume, which was checked, unless it is there.
    pub(crate) fn make_volume(&self, asked: &Asked, anonymous: bool) -> Result<()> {
        let path = self.volume_data(&asked.name);
        let failed = |error| Error::failed(format!("make volume {}", path.display()), error);
        if self.store.volumes().get(&asked.name)?.is_some() {
            return Ok(());
        }
        // Against a removal that has taken the record and not yet the directory.
        let hold = self.volumes.hold(&asked.name);
        let _turn = hold.turn();
        if self.store.volumes().get(&asked.name)?.is_some() {
            return Ok(());
        }
        crate::shim::make_private(&self.volume_directory(&asked.name))?;
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let mut labels = asked.labels.clone();
        if anonymous {
            labels.get_or_insert_default().insert(ANONYMOUS.to_owned(), String::new());
        }
        let record = Record { labels, options: asked.options.clone() };
        let record = serde_json::to_string(&record)
            .map_err(|error| Error::failed("print a volume's record", error))?;
        let now = Timestamp::now();
        let record = VolumeRecord {
            name: asked.name.clone(),
            driver: "local".into(),
            created_at: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
            anonymous,
            record,
        };
        if self.store.volumes().insert(&record)? {
            self.volume_event("create", &asked.name, &[]);
        }
        Ok(())
    }

    /// Tells the event stream of a volume.
    pub(crate) fn volume_event(&self, action: &str, name: &str, more: &[(&str, &str)]) {
        let mut attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self.events.emit("volume", action, name, attributes, Timestamp::now());
    }

    /// Removes a volume that was made for the container `owner` and that no other uses.
    pub(crate) fn remove_volume_if_anonymous(&self, name: &str, owner: &str) -> Result<()> {
        let anonymous = self.store.volumes().get(name)?.is_some_and(|record| record.anonymous);
        let is_shared = self.volume_users(name).iter().any(|user| user != owner);
        if anonymous && !is_shared { self.drop_volume(name, Some(owner)) } else { Ok(()) }
    }

    /// Brings volumes to what the records say: removes those that were half made or half removed when a
    /// daemon was killed, finishes copies, and unmounts what no container uses.
    pub(crate) fn recover_volumes(&self) -> Result<()> {
        let known: BTreeSet<String> =
            self.store.volumes().list()?.into_iter().map(|record| record.name).collect();
        let directory = self.config().data_root.join("volumes");
        let entries = std::fs::read_dir(&directory)
            .map_err(|error| Error::failed(format!("list {}", directory.display()), error))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let recovered = match name.to_str().filter(|name| known.contains(*name)) {
                Some(name) => self.recover_volume(name),
                None => self.discard_volume(&entry.path()),
            };
            if let Err(error) = recovered {
                tracing::warn!(error = chain(&error), volume = %name.display(), "recover volume");
            }
        }
        Ok(())
    }

    fn recover_volume(&self, name: &str) -> Result<()> {
        let hold = self.volumes.hold(name);
        let data = self.volume_data(name);
        if !hold.is_mounted() {
            local::unmount(&data)?;
        }
        fill::recover(&self.volume_directory(name))
    }

    /// Removes a volume unless somebody other than `owner` uses it.
    fn drop_volume(&self, name: &str, owner: Option<&str>) -> Result<()> {
        let is_removed = self.volumes.unless_held(name, || {
            let users: Vec<_> =
                self.volume_users(name).into_iter().filter(|user| Some(user.as_str()) != owner).collect();
            if !users.is_empty() {
                let users = users.join(", ");
                return Err(Error::conflict(format!("remove {name}: volume is in use - [{users}]")));
            }
            Ok(self.store.volumes().remove(name)?)
        });
        let Some(is_removed) = is_removed else {
            return Err(Error::conflict(format!("remove {name}: volume is in use")));
        };
        if !is_removed? {
            return Ok(());
        }
        let hold = self.volumes.hold(name);
        let _turn = hold.turn();
        // Another request may have made it anew meanwhile.
        if self.store.volumes().get(name)?.is_none() {
            self.discard_volume(&self.volume_directory(name))?;
        }
        self.volume_event("destroy", name, &[]);
        Ok(())
    }

    /// Removes a volume's directory. What is mounted in it is not its own, and must not be emptied.
    fn discard_volume(&self, directory: &std::path::Path) -> Result<()> {
        local::unmount(&directory.join("_data"))?;
        self.discard(directory);
        Ok(())
    }

    /// The containers that use a volume, running or not.
    pub(crate) fn volume_users(&self, name: &str) -> Vec<String> {
        let uses = |container: &&Arc<crate::container::Container>| {
            let view = container.view();
            let mut points = view.settings.mounts.iter().map(|point| &point.shown);
            points.any(|mount| mount.r#type == "volume" && mount.name == name)
        };
        self.all().iter().filter(uses).map(|container| container.id.clone()).collect()
    }

    /// The options of a volume, if it has any.
    fn volume_options(&self, name: &str) -> Result<StringMap> {
        match self.store.volumes().get(name)? {
            Some(record) => Ok(parse(&record).options.unwrap_or_default()),
            None => Err(no_such_volume(name)),
        }
    }

    fn describe_volume(&self, record: VolumeRecord) -> Volume {
        let created = Timestamp::from_nanosecond(i128::from(record.created_at)).ok();
        let kept = parse(&record);
        Volume {
            created_at: created.map(|time| format!("{time:.0}")),
            driver: record.driver.clone(),
            labels: kept.labels,
            mountpoint: self.volume_data(&record.name).display().to_string(),
            name: record.name,
            options: kept.options,
            scope: "local".into(),
            usage_data: None,
        }
    }
}

fn parse(record: &VolumeRecord) -> Record {
    serde_json::from_str(&record.record).unwrap_or_default()
}

fn no_such_volume(name: &str) -> Error {
    Error::not_found(format!("get {name}: no such volume"))
}

/// Bytes of the files below a directory; what cannot be read is left out.
fn size(path: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?, entry)))
        .map(|(metadata, entry)| if metadata.is_dir() { size(&entry.path()) } else { metadata.len() })
        .sum()
}
