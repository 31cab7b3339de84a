//! `ponton daemon`: opens the engine, listens, and ends gracefully.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use futures_util::future::join_all;
use ponton_engine::{Engine, EngineConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::{Config, FLAGS};

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    #[error("the daemon must be run by root")]
    Privilege,
    #[error("{operation} {path}: {source}")]
    File { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("another daemon answers on {0}")]
    Occupied(PathBuf),
    #[error("listen on {address} for metrics: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{operation}: {source}")]
    System { operation: &'static str, source: io::Error },
    #[error(transparent)]
    Engine(#[from] ponton_engine::Error),
}

/// Runs the daemon until it is told to end.
pub(crate) fn main(words: &[String]) -> ExitCode {
    match run(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nowhere else to say it.
            let _ = writeln!(io::stderr(), "ponton daemon: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<(), Error> {
    let Some(config) = Config::read(words)? else {
        let mut flags = FLAGS.concat();
        flags.sort_by_key(|flag| flag.long);
        let help = ponton_cli::flag::help(&flags, 100);
        let text = format!("Usage:  ponton daemon [OPTIONS]\n\nRun the engine\n\nOptions:\n{help}");
        return io::stdout()
            .write_all(text.as_bytes())
            .map_err(|source| Error::System { operation: "write", source });
    };
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Privilege);
    }
    if config.new_session {
        rustix::process::setsid()
            .map_err(|source| Error::System { operation: "setsid", source: source.into() })?;
    }
    tracing_subscriber::fmt()
        .with_max_level(config.log_level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    ponton_sys::allocator::give_back();
    raise_descriptor_limit();
    rustix::process::umask(rustix::fs::Mode::from_bits_retain(0o022));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::System { operation: "start the runtime", source })?;
    runtime.block_on(serve(config))
}

/// A container costs the daemon a few descriptors; the soft limit of most systems is far too low.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit of descriptors stays as it is: {error}");
    }
}

async fn serve(config: Config) -> Result<(), Error> {
    for directory in [&config.data_root, &config.exec_root] {
        private_directory(directory)?;
    }
    let engine = Engine::open(engine_config(&config)?).await?;
    let mut listeners = Vec::new();
    for path in &config.sockets {
        listeners.push(listen(path, config.group).await?);
    }
    let metrics = match config.metrics {
        Some(address) => Some(listen_for_metrics(address).await?),
        None => None,
    };
    let pidfile = config.pidfile.map(PidFile::write).transpose()?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(stop_on_signal(stop)?);
    announce(&config.sockets);
    let shutdown = || {
        let mut stopped = stopped.clone();
        async move {
            // The sender is never dropped before it has sent.
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    };
    let served =
        listeners.into_iter().map(|listener| ponton_server::serve(listener, engine.clone(), shutdown()));
    let measured = async {
        if let Some(listener) = metrics {
            ponton_server::serve_metrics(listener, engine.clone(), shutdown()).await;
        }
    };
    futures_util::future::join(join_all(served), measured).await;
    engine.shutdown().await;
    for path in &config.sockets {
        // A socket that nobody listens on is replaced by the next daemon anyway.
        let _ = std::fs::remove_file(path);
    }
    drop(pidfile);
    Ok(())
}

fn engine_config(config: &Config) -> Result<EngineConfig, Error> {
    let images = &config.images;
    let mut registries = ponton_registry::Config {
        mirrors: images.mirrors.clone(),
        insecure: images.insecure.clone(),
        proxy: images.proxy.clone(),
        ..ponton_registry::Config::default()
    };
    if let Some(attempts) = images.attempts {
        registries.limits.attempts = attempts;
    }
    let disk = rustix::fs::statvfs(&config.data_root).map_err(|errno| Error::File {
        operation: "measure",
        path: config.data_root.clone(),
        source: errno.into(),
    })?;
    let disk_bytes = disk.f_blocks.saturating_mul(disk.f_frsize);
    let engine = EngineConfig::new(&config.data_root, &config.exec_root, &config.runtime_binary);
    Ok(EngineConfig {
        bridge: config.bridge.clone(),
        bridge_address: config.bridge_address,
        mtu: config.mtu,
        labels: config.labels.clone(),
        registries,
        max_concurrent_downloads: images.downloads,
        max_concurrent_uploads: images.uploads,
        layer_bytes_max: images.layer_bytes_max,
        storage_driver: images.storage_driver.clone(),
        log: config.log.clone(),
        budget: images.budget.map(|budget| budget.on(disk_bytes)),
        experimental: config.containers.experimental,
        defaults: config.containers.defaults.clone(),
        cdi_spec_dirs: config
            .containers
            .cdi_spec_dirs
            .clone()
            .unwrap_or_else(|| engine.cdi_spec_dirs.clone()),
        ..engine
    })
}

/// Makes a directory that is root's alone, or closes one that is there.
fn private_directory(path: &Path) -> Result<(), Error> {
    let error = |operation| move |source| Error::File { operation, path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(error("create"))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(error("chmod"))
}

/// Listens on a unix socket, in place of one that nobody answers on.
/// By the umask nobody else may write to it, and so connect, before its group is set.
async fn listen(path: &Path, group: Option<u32>) -> Result<UnixListener, Error> {
    let error = |operation| move |source| Error::File { operation, path: path.to_owned(), source };
    if path.exists() {
        if UnixStream::connect(path).await.is_ok() {
            return Err(Error::Occupied(path.to_owned()));
        }
        std::fs::remove_file(path).map_err(error("remove"))?;
    }
    let listener = UnixListener::bind(path).map_err(error("listen on"))?;
    std::os::unix::fs::chown(path, None, group).map_err(error("give to the group"))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(error("chmod"))?;
    Ok(listener)
}

async fn listen_for_metrics(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

fn announce(sockets: &[PathBuf]) {
    let hosts: Vec<String> = sockets.iter().map(|path| format!("unix://{}", path.display())).collect();
    // A daemon without a standard output serves all the same.
    let _ =
        writeln!(io::stdout(), "ponton daemon {} listens on {}", env!("CARGO_PKG_VERSION"), hosts.join(" "));
}

/// Tells `stop` of SIGTERM and SIGINT. SIGHUP, which means "reload" elsewhere, changes nothing.
fn stop_on_signal(stop: watch::Sender<bool>) -> Result<impl Future<Output = ()>, Error> {
    let catch = |kind| signal(kind).map_err(|source| Error::System { operation: "catch signals", source });
    let (mut terminate, mut interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    let mut hangup = catch(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => tracing::warn!("reloading the configuration is not implemented"),
            }
        }
        tracing::info!("stopping; containers go on running");
        stop.send_replace(true);
    })
}

/// The file of `--pidfile`, removed when the daemon ends.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: PathBuf) -> Result<Self, Error> {
        match std::fs::write(&path, std::process::id().to_string()) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(Error::File { operation: "write", path, source }),
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // The next daemon writes its own over it.
        let _ = std::fs::remove_file(&self.0);
    }
}
