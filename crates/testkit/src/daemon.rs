//! A Ponton daemon of a test's own.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Api, Namespace, image, wait};

/// What a command printed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Exit code; 128+n when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Asserts exit code 0 and gives the standard output without the line end.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout.trim_end().to_owned()
    }
}

/// Runs a command to its end, with `input` on its standard input; killed when it must have hung: after ten minutes.
pub fn run(command: &mut Command, input: &[u8]) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("a piped stdin");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // The program may end without reading its input.
        let _ = stdin.write_all(&input);
    });
    let pid = Pid::from_child(&child);
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if ended.recv_timeout(Duration::from_secs(600)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let output = child.wait_with_output().expect("wait");
    drop(done);
    watchdog.join().expect("watchdog");
    writer.join().expect("writer");
    Ran {
        code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Where `make build` put the binaries.
pub fn binaries() -> PathBuf {
    if let Some(dir) = std::env::var_os("PONTON_BIN_DIR") {
        return PathBuf::from(dir);
    }
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let dir = image::project().join("target").join(triple).join("release");
    assert!(dir.join("ponton").exists(), "{} has no binaries: run `make build` first", dir.display());
    dir
}

/// A daemon in a network namespace and directories of its own.
pub struct Daemon {
    dir: TempDir,
    namespace: Arc<Namespace>,
    child: Option<Child>,
    flags: Vec<String>,
    mounts: Option<String>,
}

impl Daemon {
    /// Starts a daemon that has the image `busybox:latest`.
    pub fn start() -> Self {
        let daemon = Self::start_empty(&[]);
        daemon
            .ponton(&[
                "image",
                "import",
                "--change",
                "CMD [\"sh\"]",
                &image::busybox().to_string_lossy(),
                "busybox:latest",
            ])
            .ok();
        daemon
    }

    /// Starts a daemon with an empty store and more flags.
    pub fn start_empty(flags: &[&str]) -> Self {
        Self::start_in(Namespace::new(), flags, None)
    }

    /// Starts a daemon in a network namespace that is there already; `mounts` is a shell script that runs before it, in
    /// a mount namespace of the daemon's own. `$DATA` is its data root.
    pub fn start_in(namespace: Arc<Namespace>, flags: &[&str], mounts: Option<&str>) -> Self {
        let dir = tempfile::Builder::new().prefix("ponton-test-").tempdir().expect("a temporary directory");
        let mut flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        if !flags.iter().any(|flag| flag == "--disk-budget") {
            // How full the disk of the tests is shall not matter.
            flags.extend(["--disk-budget".to_owned(), "off".to_owned()]);
        }
        let mut daemon = Self { dir, namespace, child: None, flags, mounts: mounts.map(str::to_owned) };
        daemon.spawn();
        daemon
    }

    /// Starts a daemon whose data root is a tmpfs of `size`, seen by the daemon's mount namespace alone.
    pub fn start_in_small_disk(size: &str) -> Self {
        let script = format!("mkdir -p \"$DATA\" && mount -t tmpfs -o size={size} none \"$DATA\"");
        Self::start_in(Namespace::new(), &[], Some(&script))
    }

    /// A command that sees what the daemon has mounted.
    pub fn in_mounts(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.pid())).arg("--").arg(program);
        command
    }

    /// Starts the daemon's process, and waits for its first answer.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.spawn_unready();
        let api = self.api();
        wait::until("the daemon's first answer", || {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                panic!("the daemon ended with {status}: {}", self.log());
            }
            api.try_request("GET", "/_ping", None).ok().filter(|answer| answer.status == 200)
        });
    }

    /// Starts the daemon's process and measures the time to its first answer.
    pub fn time_to_first_answer(&mut self) -> Duration {
        let begin = Instant::now();
        self.spawn_unready();
        let api = self.api();
        while api.try_request("GET", "/_ping", None).is_err() {
            assert!(begin.elapsed() < wait::PATIENCE, "the daemon does not answer: {}", self.log());
            std::thread::sleep(Duration::from_micros(200));
        }
        begin.elapsed()
    }

    /// Starts the daemon's process and waits for nothing.
    pub fn spawn_unready(&mut self) {
        let log =
            File::options().create(true).append(true).open(self.path("daemon.log")).expect("daemon.log");
        let ponton = binaries().join("ponton");
        let mut command = match &self.mounts {
            None => self.in_namespace(&ponton),
            Some(script) => {
                let mut command = self.in_namespace(Path::new("unshare"));
                let script = format!("{script} && exec \"$0\" \"$@\"");
                command.args(["--mount", "--", "sh", "-c", &script]).arg(&ponton);
                command.env("DATA", self.path("data"));
                command
            }
        };
        let child = command
            .arg("daemon")
            .args(["-H", &self.host(), "--data-root", &self.text("data"), "--exec-root", &self.text("run")])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("clone of daemon.log"))
            .stderr(log)
            .spawn()
            .expect("spawn the daemon");
        self.child = Some(child);
    }

    /// A command that runs in the daemon's network namespace. It keeps the process id that it gets.
    pub fn in_namespace(&self, program: &Path) -> Command {
        self.namespace.command(program)
    }

    /// Kills the daemon with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill the daemon");
            child.wait().expect("wait for the daemon");
        }
    }

    /// Stops the daemon with SIGTERM and gives its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        kill_process(Pid::from_child(&child), Signal::TERM).expect("SIGTERM to the daemon");
        wait::until("the daemon's end", || child.try_wait().expect("wait")).code()
    }

    /// Kills the daemon and starts the next one on the same state.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running daemon").id()
    }

    /// A file in the test's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// `unix://…`, for clients.
    pub fn host(&self) -> String {
        format!("unix://{}", self.text("run/ponton.sock"))
    }

    /// The API.
    pub fn api(&self) -> Api {
        Api::new(&self.path("run/ponton.sock"))
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// Runs our own command line.
    #[track_caller]
    pub fn ponton(&self, args: &[&str]) -> Ran {
        run(&mut self.client("ponton", args), b"")
    }

    /// Runs the docker command line.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> Ran {
        run(&mut self.client("docker", args), b"")
    }

    /// A command of `ponton`, or of another client on the path, that speaks to this daemon.
    pub fn client(&self, program: &str, args: &[&str]) -> Command {
        let path = if program == "ponton" { binaries().join("ponton") } else { PathBuf::from(program) };
        let mut command = self.in_namespace(&path);
        command.args(args).env("DOCKER_HOST", self.host()).env("PONTON_HOST", self.host());
        command.env("HOME", self.dir.path()).env_remove("DOCKER_CONTEXT");
        command
    }

    /// Processes of this daemon: itself, its shims, and their containers' first processes.
    pub fn processes(&self) -> Vec<u32> {
        crate::leak::processes_naming(&self.dir.path().to_string_lossy())
    }

    /// Process id that lives in the daemon's network namespace as long as the test.
    pub fn namespace_pid(&self) -> u32 {
        self.namespace.pid()
    }

    /// The network namespace, for what is to run beside the daemon.
    pub fn namespace(&self) -> Arc<Namespace> {
        self.namespace.clone()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}", self.log());
        }
        if self.child.is_none() && self.path("run").exists() {
            self.spawn_unready();
            let begin = Instant::now();
            while self.api().try_request("GET", "/_ping", None).is_err() && begin.elapsed() < wait::PATIENCE {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if let Ok(list) = self.api().try_request("GET", "/containers/json?all=1", None) {
            for container in list.json().as_array().into_iter().flatten() {
                let id = container["Id"].as_str().unwrap_or_default();
                let _ = self.api().try_request("DELETE", &format!("/containers/{id}?force=1&v=1"), None);
            }
        }
        let _ = self.stop();
        for pid in self.processes() {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}
