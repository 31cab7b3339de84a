//! The engine itself: what it is made of, how it is opened, and how things are found in it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::FutureExt;
use ponton_cgroup::Cgroup;
use ponton_image::{Images, Limits};
use ponton_network::{Network, NetworkConfig, Subnet};
use ponton_runtime::host::Host;
use ponton_snapshot::{Driver, Snapshots, Snapshotter, Trash};
use ponton_store::Store;
use tokio::sync::mpsc;

use crate::config::EngineConfig;
use crate::container::Container;
use crate::count::Counts;
use crate::error::{Error, ErrorKind, Result, chain};
use crate::event::Bus;
use crate::shim::Shims;
use crate::spec::{HostFacts, Support};

/// The engine: one for a data root.
pub struct Engine {
    config: EngineConfig,
    pub(crate) store: Store,
    pub(crate) snapshotter: Arc<dyn Snapshotter>,
    trash: Trash,
    pub(crate) images: Images,
    pub(crate) registries: ponton_registry::Client,
    pub(crate) network: Arc<Network>,
    pub(crate) shims: Arc<Shims>,
    pub(crate) events: Bus,
    pub(crate) volumes: crate::volume::Volumes,
    pub(crate) counts: Counts,
    pub(crate) sampler: crate::container::Sampler,
    /// Told when images came in.
    pub(crate) came_in: Arc<tokio::sync::Notify>,
    host: OnceLock<Host>,
    facts: OnceLock<HostFacts>,
    support: OnceLock<Support>,
    registry: Mutex<Registry>,
    /// Held during an unmount: the file systems of many containers are written back in turn.
    pub(crate) unmounting: tokio::sync::Mutex<()>,
    routing: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// The containers by what they are called.
#[derive(Default)]
struct Registry {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Names to ids; also of containers that are just being made.
    names: HashMap<String, String>,
}

/// What is mounted over in every container. Where an image has none of them they are made, which is none
/// of the container's changes.
const MOUNT_POINTS: [&str; 6] = ["/dev", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/sys"];

/// The first Linux that makes overlays of detached mounts.
const MAPPED_OVERLAYS: (u32, u32) = (6, 15);

impl Engine {
    /// Opens the engine on its data root, and takes up the containers that run.
    ///
    /// # Errors
    /// Unavailable if another daemon uses the data root.
    pub async fn open(config: EngineConfig) -> Result<Arc<Self>> {
        let (notices, noticed) = mpsc::unbounded_channel();
        let engine = Arc::new(Self::assemble(config, notices)?);
        let routed = Arc::downgrade(&engine);
        let routing = tokio::spawn(async move {
            let mut noticed = noticed;
            while let Some(notice) = noticed.recv().await {
                let Some(engine) = routed.upgrade() else { break };
                crate::container::route(&engine, notice);
            }
        });
        *engine.routing.lock().unwrap_or_else(PoisonError::into_inner) = Some(routing);
        engine.recover().await?;
        engine.shims.prepare();
        tokio::spawn(crate::budget::keep(Arc::downgrade(&engine)));
        Ok(engine)
    }

    fn assemble(config: EngineConfig, notices: mpsc::UnboundedSender<crate::shim::Notice>) -> Result<Self> {
        crate::shim::make_private(&config.exec_root)?;
        let store = Store::open(&config.data_root)?;
        for name in ["containers", "volumes", "snapshots"] {
            crate::shim::make_private(&config.data_root.join(name))?;
        }
        // Processes of a shim that dies become the daemon's, so that their exit codes are not lost.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| Error::failed("become a subreaper", error))?;
        let trash = Trash::open(&store.temporary())
            .map_err(|error| Error::failed(format!("open {}", store.temporary().display()), error))?;
        let driver = config.storage_driver.as_deref().map(str::parse::<Driver>).transpose()?;
        let snapshots = Snapshots::open(&config.data_root.join("snapshots/overlay"), driver, trash.clone())?
            .ignoring(&MOUNT_POINTS);
        let snapshotter: Arc<dyn Snapshotter> = Arc::new(snapshots);
        let images = Images::new(store.clone(), Arc::clone(&snapshotter)).with_limits(limits(&config));
        let registries = ponton_registry::Client::new(config.registries.clone())
            .map_err(|error| Error::invalid(chain(&error)))?;
        let mut network = NetworkConfig::new(config.data_root.join("network"));
        network.bridge.clone_from(&config.bridge);
        if let Some((address, prefix)) = config.bridge_address {
            network.pools = vec![Subnet::of(address, prefix)];
        }
        if config.mtu != 0 {
            network.mtu = config.mtu;
        }
        if let Some(remap) = &config.defaults.remap {
            let (major, minor) = HostFacts::probe().kernel;
            if (major, minor) < MAPPED_OVERLAYS {
                return Err(Error::invalid(format!(
                    "userns-remap needs Linux 6.15 or newer, for layers whose ids are mapped; this is {major}.{minor}"
                )));
            }
            network.ids = Some(remap.to_ids());
        }
        let shims = Arc::new(Shims::open(&config, notices)?);
        Ok(Self {
            store,
            snapshotter,
            trash,
            images,
            registries,
            network: Arc::new(Network::new(network)?),
            shims,
            events: Bus::new(),
            volumes: crate::volume::Volumes::default(),
            counts: Counts::default(),
            sampler: crate::container::Sampler::default(),
            came_in: Arc::default(),
            host: OnceLock::new(),
            facts: OnceLock::new(),
            support: OnceLock::new(),
            registry: Mutex::default(),
            unmounting: tokio::sync::Mutex::default(),
            routing: Mutex::default(),
            config,
        })
    }

    /// The settings.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Ends what the engine does; containers run on.
    pub async fn shutdown(&self) {
        let mut held = Vec::new();
        for container in self.all() {
            let shim = container
                .change(|task| {
                    async move {
                        task.end();
                        Ok(task.shim_number())
                    }
                    .boxed()
                })
                .await;
            held.extend(shim.ok().flatten());
        }
        self.shims.retire_idle(&held).await;
        let network = Arc::clone(&self.network);
        if let Err(error) = blocking(move || Ok(network.leave()?)).await {
            tracing::warn!(error = chain(&error), "leave the network of this host");
        }
        *self.registry() = Registry::default();
        if let Some(routing) = self.routing.lock().unwrap_or_else(PoisonError::into_inner).take() {
            routing.abort();
        }
    }

    /// The container with this full id, name, or beginning of its id.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Container>> {
        let registry = self.registry();
        let bare = name.strip_prefix('/').unwrap_or(name);
        let by_name = || registry.by_id.get(registry.names.get(bare)?);
        if let Some(container) = registry.by_id.get(name).or_else(by_name) {
            return Ok(Arc::clone(container));
        }
        if bare.is_empty() {
            return Err(Error::invalid(format!("invalid name or ID supplied: {name:?}")));
        }
        let mut begun = registry.by_id.range(bare.to_owned()..).take_while(|(id, _)| id.starts_with(bare));
        match (begun.next(), begun.next()) {
            (Some((_, container)), None) => Ok(Arc::clone(container)),
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("Multiple IDs found with provided prefix: {bare}")))
            }
            _ => Err(Error::no_such_container(name)),
        }
    }

    /// The container with this full id.
    pub(crate) fn by_id(&self, id: &str) -> Option<Arc<Container>> {
        self.registry().by_id.get(id).cloned()
    }

    /// All containers.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.registry().by_id.values().cloned().collect()
    }

    /// Takes a name for the container `id`.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<()> {
        match self.registry().names.entry(name.to_owned()) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(id.to_owned());
                Ok(())
            }
            std::collections::hash_map::Entry::Occupied(holder) => Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{}\". You have to \
                 remove (or rename) that container to be able to reuse that name.",
                holder.get()
            ))),
        }
    }

    /// Gives a name back that the container `id` has.
    pub(crate) fn release_name(&self, name: &str, id: &str) {
        let mut registry = self.registry();
        if registry.names.get(name).is_some_and(|holder| holder == id) {
            registry.names.remove(name);
        }
    }

    /// Enters a container under its id; its name was reserved.
    pub(crate) fn enter(&self, container: Arc<Container>) {
        self.registry().by_id.insert(container.id.clone(), container);
    }

    /// Forgets a container and its name.
    pub(crate) fn forget(&self, id: &str, name: &str) {
        self.registry().by_id.remove(id);
        self.release_name(name, id);
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the host can do; asked once, at the first need.
    pub(crate) fn host(&self) -> Result<&Host> {
        if let Some(host) = self.host.get() {
            return Ok(host);
        }
        let host = Host::probe().map_err(|error| Error::failed("probe the host", error))?;
        Ok(self.host.get_or_init(|| host))
    }

    /// What specs depend on; asked once, at the first need.
    pub(crate) fn facts(&self) -> &HostFacts {
        self.facts.get_or_init(HostFacts::probe)
    }

    /// Which limits the kernel can set; asked once, at the first need.
    pub(crate) fn support(&self) -> Result<&Support> {
        let layout = &self.host()?.cgroup;
        Ok(self.support.get_or_init(|| Support::probe(layout)))
    }

    /// A control group by its path.
    pub(crate) fn control_group(&self, path: &str) -> Result<Cgroup> {
        Ok(Cgroup::new(&self.host()?.cgroup, path))
    }

    /// `<data-root>/containers/<id>`
    pub(crate) fn container_directory(&self, id: &str) -> PathBuf {
        self.config.data_root.join("containers").join(id)
    }

    /// Removes a directory: it is gone at once, its space comes back soon.
    pub(crate) fn discard(&self, path: &Path) {
        self.trash.discard(path);
    }

    /// Bytes that a container's own file system holds; 0 when that cannot be told.
    pub(crate) async fn size_of(&self, id: &str) -> u64 {
        let (snapshotter, id) = (Arc::clone(&self.snapshotter), id.to_owned());
        blocking(move || Ok(snapshotter.usage(&id)?.bytes)).await.unwrap_or(0)
    }

    /// The id of the image that a name means, when there is one.
    pub(crate) fn images_by_name(&self, name: &str) -> Option<String> {
        self.store.images().resolve(name).ok().map(|id| id.to_string())
    }

    /// The size of an image, 0 when it is gone.
    pub(crate) fn image_size(&self, id: &str) -> i64 {
        let Ok(id) = id.parse() else { return 0 };
        match self.store.images().get(&id) {
            Ok(Some(image)) => image.size as i64,
            _ => 0,
        }
    }
}

/// Bounds of images: the defaults, but for what is configured.
fn limits(config: &EngineConfig) -> Limits {
    let defaults = Limits::default();
    Limits {
        layers_at_once: config.max_concurrent_downloads.unwrap_or(defaults.layers_at_once),
        uploads_at_once: config.max_concurrent_uploads.unwrap_or(defaults.uploads_at_once),
        layer_bytes: config.layer_bytes_max.unwrap_or(defaults.layer_bytes),
        ..defaults
    }
}

/// Does what may take long, or wait for the kernel, beside the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::failed("carry out a request", error)),
    }
}

macro_rules! from_kinds {
    ($error:ty: $($pattern:pat => $kind:ident),* $(,)?) => {
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                #[allow(unreachable_patterns, reason = "some enums have all of their variants named")]
                let kind = match &error {
                    $($pattern => ErrorKind::$kind,)*
                    _ => ErrorKind::Internal,
                };
                Self { kind, message: chain(&error), source: Some(Box::new(error)) }
            }
        }
    };
}

from_kinds!(ponton_store::Error:
    ponton_store::Error::Locked { .. } => Unavailable,
    ponton_store::Error::NameInUse { .. } => Conflict,
    ponton_store::Error::NotFound { .. } => NotFound,
    ponton_store::Error::Ambiguous { .. } => Invalid);
from_kinds!(ponton_network::Error:
    ponton_network::Error::Invalid(_) => Invalid,
    ponton_network::Error::NotFound(_) => NotFound,
    ponton_network::Error::NotImplemented(_) => NotImplemented,
    ponton_network::Error::AddressInUse(_) => Forbidden);
from_kinds!(ponton_runtime::plan::PlanError:
    ponton_runtime::plan::PlanError::Invalid { .. } => Invalid);
from_kinds!(ponton_snapshot::Error:
    ponton_snapshot::Error::SnapshotNotFound(_) => Internal);
from_kinds!(ponton_sys::Error:);
from_kinds!(ponton_cgroup::UpdateError:
    ponton_cgroup::UpdateError::Plan(_) => Invalid);

impl From<ponton_image::Error> for Error {
    fn from(error: ponton_image::Error) -> Self {
        let kind = match &error {
            ponton_image::Error::NotFound(_) | ponton_image::Error::NoPlatform { .. } => ErrorKind::NotFound,
            ponton_image::Error::Conflict(_) => ErrorKind::Conflict,
            ponton_image::Error::Invalid(_)
            | ponton_image::Error::Archive { .. }
            | ponton_image::Error::DigestMismatch { .. } => ErrorKind::Invalid,
            ponton_image::Error::NotImplemented(_) => ErrorKind::NotImplemented,
            ponton_image::Error::Cancelled => ErrorKind::Cancelled,
            _ => ErrorKind::Internal,
        };
        Self { kind, message: chain(&error), source: Some(Box::new(error)) }
    }
}
