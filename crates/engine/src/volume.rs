//! Local volumes: directories below `<data-root>/volumes`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use ponton_api::filters::Filters;
use ponton_api::volume::{CreateRequest, ListResponse, PruneResponse, UsageData, Volume};
use ponton_store::VolumeRecord;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

/// What is kept of a volume beside its name.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    labels: Option<BTreeMap<String, String>>,
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
            let used = self.volume_user(&record.name).is_some();
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
        if !matches!(request.driver.as_str(), "" | "local" | "default") {
            let driver = request.driver;
            return Err(Error::not_found(format!(
                "create {}: error looking up volume plugin {driver}: plugin \"{driver}\" not found",
                request.name
            )));
        }
        if request.driver_opts.as_ref().is_some_and(|options| !options.is_empty()) {
            return Err(Error::not_implemented("options of the local volume driver are not implemented"));
        }
        let (name, anonymous) = match request.name.as_str() {
            "" => (crate::id::generate()?, true),
            name => (crate::container::check_volume_name(name)?.to_owned(), false),
        };
        let new = self.make_volume(&name, anonymous, request.labels)?;
        if new {
            let attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
            self.events.emit("volume", "create", &name, attributes, Timestamp::now());
        }
        self.volume_inspect(&name).await
    }

    /// Removes a volume that no container uses.
    pub async fn volume_remove(self: &Arc<Self>, name: &str, force: bool) -> Result<()> {
        if self.store.volumes().get(name)?.is_none() {
            return if force { Ok(()) } else { Err(no_such_volume(name)) };
        }
        if let Some(user) = self.volume_user(name) {
            return Err(Error::conflict(format!("remove {name}: volume is in use - [{user}]")));
        }
        self.drop_volume(name)
    }

    /// Removes volumes that no container uses: anonymous ones, and with the filter `all` the named.
    pub async fn volume_prune(self: &Arc<Self>, filters: Filters) -> Result<PruneResponse> {
        let all = filters.boolean("all", false).map_err(|error| Error::invalid(error.to_string()))?;
        let mut deleted = Vec::new();
        let mut space_reclaimed = 0;
        for record in self.store.volumes().list()? {
            let labels = parse(&record).labels.unwrap_or_default();
            if (record.anonymous || all)
                && self.volume_user(&record.name).is_none()
                && filters.matches_labels("label", &labels)
            {
                let path = self.volume_data(&record.name);
                space_reclaimed += blocking(move || Ok(size(&path))).await?;
                self.drop_volume(&record.name)?;
                deleted.push(record.name);
            }
        }
        self.tell_pruned("volume", space_reclaimed);
        Ok(PruneResponse { volumes_deleted: (!deleted.is_empty()).then_some(deleted), space_reclaimed })
    }

    /// The volumes with their sizes, and how many containers use each.
    pub(crate) async fn volume_usage(self: &Arc<Self>) -> Result<Vec<Volume>> {
        let engine = Arc::clone(self);
        blocking(move || {
            let describe = |record: VolumeRecord| {
                let size = size(&engine.volume_data(&record.name)) as i64;
                let ref_count = engine.volume_users(&record.name).count() as i64;
                let usage_data = Some(UsageData { ref_count, size });
                Volume { usage_data, ..engine.describe_volume(record) }
            };
            Ok(engine.store.volumes().list()?.into_iter().map(describe).collect())
        })
        .await
    }

    /// `<data-root>/volumes/<name>/_data`
    pub(crate) fn volume_data(&self, name: &str) -> PathBuf {
        self.config().data_root.join("volumes").join(name).join("_data")
    }

    /// Makes a volume unless it is there; says whether it is new.
    pub(crate) fn make_volume(
        &self,
        name: &str,
        anonymous: bool,
        labels: Option<BTreeMap<String, String>>,
    ) -> Result<bool> {
        let path = self.volume_data(name);
        let failed = |error| Error::failed(format!("make volume {}", path.display()), error);
        let parent = path.parent().unwrap_or(&path);
        crate::shim::make_private(parent)?;
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let record = serde_json::to_string(&Record { labels })
            .map_err(|error| Error::failed("print a volume's record", error))?;
        let created_at = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let record =
            VolumeRecord { name: name.to_owned(), driver: "local".into(), created_at, anonymous, record };
        Ok(self.store.volumes().insert(&record)?)
    }

    /// Removes a volume that was made for the container `owner` and that no other uses.
    pub(crate) fn remove_volume_if_anonymous(&self, name: &str, owner: &str) -> Result<()> {
        let anonymous = self.store.volumes().get(name)?.is_some_and(|record| record.anonymous);
        let is_shared = self.volume_users(name).any(|user| user != owner);
        if anonymous && !is_shared { self.drop_volume(name) } else { Ok(()) }
    }

    /// Removes directories that a killed daemon left of volumes which it was making or removing.
    pub(crate) fn recover_volumes(&self) -> Result<()> {
        let known: BTreeSet<String> =
            self.store.volumes().list()?.into_iter().map(|record| record.name).collect();
        let directory = self.config().data_root.join("volumes");
        let entries = std::fs::read_dir(&directory)
            .map_err(|error| Error::failed(format!("list {}", directory.display()), error))?;
        for entry in entries.flatten() {
            if !entry.file_name().to_str().is_some_and(|name| known.contains(name)) {
                self.discard(&entry.path());
            }
        }
        Ok(())
    }

    fn drop_volume(&self, name: &str) -> Result<()> {
        self.store.volumes().remove(name)?;
        self.discard(&self.config().data_root.join("volumes").join(name));
        let attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
        self.events.emit("volume", "destroy", name, attributes, Timestamp::now());
        Ok(())
    }

    /// A container that uses a volume.
    fn volume_user(&self, name: &str) -> Option<String> {
        self.volume_users(name).next()
    }

    fn volume_users(&self, name: &str) -> impl Iterator<Item = String> {
        let uses = |container: &Arc<crate::container::Container>| {
            container
                .view()
                .settings
                .mounts
                .iter()
                .any(|mount| mount.r#type == "volume" && mount.name == name)
        };
        let users: Vec<_> =
            self.all().iter().filter(|container| uses(container)).map(|c| c.id.clone()).collect();
        users.into_iter()
    }

    fn describe_volume(&self, record: VolumeRecord) -> Volume {
        let created = Timestamp::from_nanosecond(i128::from(record.created_at)).ok();
        Volume {
            created_at: created.map(|time| format!("{time:.0}")),
            driver: record.driver.clone(),
            labels: parse(&record).labels,
            mountpoint: self.volume_data(&record.name).display().to_string(),
            name: record.name,
            options: None,
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
