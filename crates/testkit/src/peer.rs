//! Debian's dockerd, for tests that compare.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::daemon::{Ran, run};
use crate::{Api, Namespace, image, wait};

/// dockerd in a network namespace and directories of its own.
pub struct Peer {
    dir: TempDir,
    namespace: Arc<Namespace>,
    flags: &'static [&'static str],
    child: Child,
}

impl Peer {
    /// Starts dockerd with the image `busybox:latest`. `None` when it is not installed.
    pub fn dockerd() -> Option<Self> {
        Self::start(Namespace::new(), &[])
    }

    /// Starts dockerd in a namespace that others use too: it has no network for containers of its own.
    pub fn dockerd_in(namespace: Arc<Namespace>) -> Option<Self> {
        Self::start(namespace, &["--bridge=none", "--iptables=false", "--ip-forward=false"])
    }

    fn start(namespace: Arc<Namespace>, flags: &'static [&'static str]) -> Option<Self> {
        let found = Command::new("dockerd").arg("--version").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("ponton-peer-").tempdir().expect("a temporary directory");
        let child = spawn(dir.path(), &namespace, flags);
        let peer = Self { dir, namespace, flags, child };
        wait::until("dockerd's first answer", || peer.api().try_request("GET", "/_ping", None).ok());
        peer.docker(&[
            "import",
            "--change",
            "CMD [\"sh\"]",
            &image::busybox().to_string_lossy(),
            "busybox:latest",
        ])
        .ok();
        Some(peer)
    }

    /// Stops dockerd with SIGTERM.
    pub fn stop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        wait::until("dockerd's end", || self.child.try_wait().expect("wait"));
    }

    /// Starts dockerd again and measures the time to its first answer.
    pub fn time_to_first_answer(&mut self) -> Duration {
        let begin = Instant::now();
        self.child = spawn(self.dir.path(), &self.namespace, self.flags);
        while self.api().try_request("GET", "/_ping", None).is_err() {
            assert!(begin.elapsed() < wait::PATIENCE, "dockerd does not answer");
            std::thread::sleep(Duration::from_micros(200));
        }
        begin.elapsed()
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// The API.
    pub fn api(&self) -> Api {
        Api::new(&self.socket())
    }

    /// `unix://…`, for clients.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Process id of dockerd.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The directory of its files, which the command lines of all of its processes name.
    pub fn dir(&self) -> String {
        self.dir.path().to_string_lossy().into_owned()
    }

    /// A docker command that speaks to dockerd.
    pub fn client(&self, program: &str, args: &[&str]) -> Command {
        let mut command = self.namespace.command(program);
        command
            .args(args)
            .env("DOCKER_HOST", self.host())
            .env("HOME", self.dir.path())
            .env_remove("DOCKER_CONTEXT");
        command
    }

    /// Runs the docker command line.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> Ran {
        run(&mut self.client("docker", args), b"")
    }
}

/// Starts the process of dockerd on this directory.
fn spawn(dir: &Path, namespace: &Namespace, flags: &[&str]) -> Child {
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let log = File::options().create(true).append(true).open(path("dockerd.log")).expect("dockerd.log");
    namespace
        .command("dockerd")
        .args(["-H", &format!("unix://{}", path("docker.sock"))])
        .args(flags)
        .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "-p", &path("pid")])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("clone of dockerd.log"))
        .stderr(log)
        .spawn()
        .expect("spawn dockerd")
}

impl Drop for Peer {
    fn drop(&mut self) {
        let ids = self.docker(&["ps", "-aq"]).stdout;
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            self.docker(&[&["rm", "-f"], ids.as_slice()].concat());
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let begin = Instant::now();
        while self.child.try_wait().ok().flatten().is_none() && begin.elapsed() < wait::PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for line in std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().rev() {
            if let Some(target) = line.split(' ').nth(4).filter(|t| t.starts_with(&self.dir())) {
                let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
            }
        }
    }
}
