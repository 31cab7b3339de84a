//! Debian's docker-registry, for tests that push and pull.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::daemon::{Ran, run};
use crate::{Namespace, wait};

/// Who may use a [locked](Registry::locked) registry.
pub const USER: &str = "user";
/// The password of [`USER`].
pub const PASSWORD: &str = "secret";
/// bcrypt of [`PASSWORD`], the only kind of hash that the registry takes.
const HASH: &str = "$2b$04$5Ea2uAietOG0az/JStVqiOnxgUEGqTZozh3mMpWZUl6nG8f/N9Q/K";

/// A docker-registry whose files are in a folder. It ends when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    address: SocketAddr,
}

impl Process {
    /// Starts `program` (which is docker-registry, in whichever namespace) on an address; port 0 is any. `more` are lines
    /// of its configuration that come below `http:`.
    pub fn start(mut program: Command, folder: &Path, address: &str, more: &str) -> Self {
        let config = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: true}}, level: info}}\n\
             storage: {{filesystem: {{rootdirectory: {}/data}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: {address}\n{more}",
            folder.display()
        );
        fs::write(folder.join("config.yml"), config).expect("config.yml");
        let log = folder.join("log");
        let output = File::create(&log).expect("log");
        let child = program
            .args(["serve", "config.yml"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("clone of the log"))
            .stderr(output)
            .spawn()
            .expect("docker-registry: run scripts/install-deps.sh test");
        let mut process = Self { child, log, address: SocketAddr::from(([0, 0, 0, 0], 0)) };
        process.address = wait::until("the registry to listen", || {
            let ended = process.child.try_wait().expect("wait");
            let text = process.log();
            assert!(ended.is_none(), "the registry ended: {text}");
            text.split("listening on ").nth(1)?.split_once(['"', ','])?.0.parse().ok()
        });
        process
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the registry's log\n{}", self.log());
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A registry on loopback in a network namespace of a test, where no port is anybody else's.
pub struct Registry {
    /// Ends before its files go.
    process: Process,
    dir: TempDir,
    namespace: Arc<Namespace>,
    address: &'static str,
    is_locked: bool,
}

impl Registry {
    /// One that speaks HTTP, and serves everybody.
    pub fn open(namespace: &Arc<Namespace>) -> Self {
        Self::start(namespace, "127.0.0.1:5000", "", false)
    }

    /// One that speaks HTTPS with a certificate that it has made itself, and serves [`USER`] alone.
    pub fn locked(namespace: &Arc<Namespace>) -> Self {
        Self::start(
            namespace,
            "127.0.0.1:5443",
            "  tls: {certificate: server.pem, key: key.pem}\nauth: {htpasswd: {realm: test, path: users}}\n",
            true,
        )
    }

    fn start(namespace: &Arc<Namespace>, address: &'static str, more: &str, is_locked: bool) -> Self {
        let dir =
            tempfile::Builder::new().prefix("ponton-registry-").tempdir().expect("a temporary directory");
        fs::write(dir.path().join("users"), format!("{USER}:{HASH}\n")).expect("users");
        certify(dir.path());
        let process = Process::start(namespace.command("docker-registry"), dir.path(), address, more);
        Self { dir, process, namespace: namespace.clone(), address, is_locked }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> &'static str {
        self.address
    }

    /// The certificate of a [locked](Self::locked) one.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("server.pem")
    }

    /// The reference of an image in this registry.
    pub fn reference(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// Runs skopeo in the registry's namespace. It trusts the registry, and has its password.
    #[track_caller]
    pub fn skopeo(&self, args: &[&str]) -> Ran {
        let mut command = self.namespace.command("skopeo");
        command.arg("--insecure-policy").args(args);
        let sides: &[&str] = if args.first() == Some(&"copy") { &["--src-", "--dest-"] } else { &["--"] };
        for side in sides {
            command.arg(format!("{side}tls-verify=false"));
            if self.is_locked {
                command.arg(format!("{side}creds={USER}:{PASSWORD}"));
            }
        }
        run(command.env("HOME", self.dir.path()).env("XDG_RUNTIME_DIR", self.dir.path()), b"")
    }

    /// The manifest of an image as it is stored, and so its digest's bytes.
    #[track_caller]
    pub fn manifest(&self, image: &str) -> Vec<u8> {
        self.skopeo(&["inspect", "--raw", &format!("docker://{}", self.reference(image))]).stdout.into_bytes()
    }

    /// `sha256:…` of an image's manifest.
    #[track_caller]
    pub fn digest(&self, image: &str) -> String {
        let manifest = self.manifest(image);
        assert!(!manifest.is_empty(), "{image} is not there");
        format!("sha256:{}", crate::tar::sha256(&manifest))
    }
}

/// A key, and a certificate for loopback that it has signed itself.
fn certify(dir: &Path) {
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "9",
    ]);
    openssl.args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]);
    run(openssl.args(["-keyout", "key.pem", "-out", "server.pem"]).current_dir(dir), b"").ok();
}
