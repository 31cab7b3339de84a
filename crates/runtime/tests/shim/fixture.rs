//! A shim of one's own, with a root file system for its containers.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio as ProcessStdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ponton_oci::runtime::{Linux, Namespace, NamespaceType, Process, Root, Spec};
use ponton_runtime::host::Host;
use ponton_runtime::plan::{self, Plan, PlanInput, ProcessInput, ProcessPlan};
use ponton_runtime::shim::client::{Client, Error, Fds};
use ponton_runtime::shim::protocol::{
    Adopt, AttachSpec, Event, Exec, Exit, FdRole, LogFile, LogFormat, LogTarget, Reply, Request, Start,
    Status, Stdio,
};

/// Longer than anything takes on a slow machine that is busy with something else; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Shim {
    pub child: Child,
    pub client: Client,
    socket: PathBuf,
    directory: PathBuf,
    ends: Vec<(String, Option<String>, Exit)>,
}

/// What several shims of one test share.
pub struct Fixture {
    pub directory: tempfile::TempDir,
    host: Host,
    /// Control groups that containers were to have.
    groups: Mutex<BTreeSet<String>>,
}

/// What a shim that was killed left goes, too.
impl Drop for Fixture {
    fn drop(&mut self) {
        for group in self.groups.get_mut().unwrap().iter() {
            let group = ponton_cgroup::Cgroup::new(&self.host.cgroup, group);
            let deadline = Instant::now() + PATIENCE;
            // Processes that were killed may be on their way.
            while group.exists() && (group.kill_all().is_err() || group.remove().is_err()) {
                if Instant::now() > deadline {
                    eprintln!("the group {} stays", group.path());
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Fixture {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bin = directory.path().join("rootfs/bin");
        std::fs::create_dir_all(&bin).unwrap();
        for name in ["proc", "dev", "tmp"] {
            std::fs::create_dir(directory.path().join("rootfs").join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        let applets = "sh cat true false echo printf sleep kill dd yes head wc stty seq mkdir test tty";
        for name in applets.split(' ') {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
        Self { directory, host: Host::probe().unwrap(), groups: Mutex::default() }
    }

    pub fn shim(&self, name: &str) -> Shim {
        let directory = self.directory.path().to_owned();
        let socket = directory.join(format!("{name}.sock"));
        let child = Command::new(env!("CARGO_BIN_EXE_ponton-runtime"))
            .arg("shim")
            .arg("--socket")
            .arg(&socket)
            .arg("--state-dir")
            .arg(directory.join("containers"))
            .stdin(ProcessStdio::null())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        let client = loop {
            match Client::connect(&socket) {
                Ok(client) => break client,
                Err(error) => assert!(begin.elapsed() < PATIENCE, "the shim does not listen: {error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let mut shim = Shim { child, client, socket, directory, ends: Vec::new() };
        shim.bound();
        // A connection counts when it is accepted.
        shim.call(&Request::List);
        shim
    }

    pub fn plan(&self, id: &str, args: &[&str], terminal: bool) -> Plan {
        self.plan_with(id, process(args, terminal), &self.group(id))
    }

    /// Containers of tests that run at the same time have the same ids.
    fn group(&self, id: &str) -> String {
        let own = self.directory.path().file_name().unwrap().to_str().unwrap();
        format!("ponton/test{own}-{id}")
    }

    /// Waits until the control group of a container is gone, as long as a process that was killed may
    /// be on its way.
    pub fn wait_for_removal(&self, id: &str) {
        let group = ponton_cgroup::Cgroup::new(&self.host.cgroup, &self.group(id));
        let deadline = std::time::Instant::now() + PATIENCE;
        while group.exists() {
            assert!(std::time::Instant::now() < deadline, "the group of {id} stays");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// In a control group of this name.
    pub fn plan_in_group(&self, id: &str, args: &[&str], group: &str) -> Plan {
        self.plan_with(id, process(args, false), group)
    }

    fn plan_with(&self, id: &str, process: Process, group: &str) -> Plan {
        self.groups.lock().unwrap().insert(group.to_owned());
        let namespace = |r#type| Namespace { r#type, path: None };
        let kinds = [NamespaceType::Mount, NamespaceType::Pid, NamespaceType::Ipc, NamespaceType::Uts];
        let spec = Spec {
            oci_version: "1.2.0".into(),
            process: Some(process),
            root: Some(Root { path: self.rootfs(), readonly: false }),
            linux: Some(Linux {
                namespaces: kinds.map(namespace).to_vec(),
                cgroups_path: group.to_owned(),
                ..Linux::default()
            }),
            ..Spec::default()
        };
        plan::plan(&spec, &self.host, &PlanInput { id, ..PlanInput::default() }).unwrap()
    }

    pub fn process_plan(&self, args: &[&str], terminal: bool) -> ProcessPlan {
        plan::plan_process(&process(args, terminal), &self.host, &ProcessInput::default()).unwrap()
    }

    pub fn log(&self, id: &str) -> PathBuf {
        self.directory.path().join(format!("{id}.log"))
    }

    /// A log in the format of Docker's `json-file`.
    pub fn log_target(&self, id: &str) -> LogTarget {
        LogFile::new(self.log(id), LogFormat::Json { attrs: String::new() }).into()
    }

    pub fn unlimited_log(&self, id: &str) -> LogTarget {
        let format = LogFormat::Json { attrs: String::new() };
        LogFile { max_size_bytes: 0, ..LogFile::new(self.log(id), format) }.into()
    }

    fn rootfs(&self) -> String {
        self.directory.path().join("rootfs").to_str().unwrap().into()
    }

    pub fn exit_record(&self, id: &str, name: &str) -> Exit {
        let path = self.directory.path().join("containers").join(id).join(name);
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }
}

fn process(args: &[&str], terminal: bool) -> Process {
    Process {
        terminal,
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        ..Process::default()
    }
}

/// A started process.
pub struct Running {
    pub pid: u32,
    pub fds: Fds,
}

/// How a process is started.
#[derive(Default)]
pub struct Options<'a> {
    pub stdio: Stdio,
    pub log: Option<LogTarget>,
    pub attach: Vec<(AttachSpec, &'a UnixStream)>,
}

impl Shim {
    fn bound(&mut self) {
        rustix::net::sockopt::set_socket_timeout(
            &self.client,
            rustix::net::sockopt::Timeout::Recv,
            Some(PATIENCE),
        )
        .unwrap();
    }

    pub fn reconnect(&mut self) {
        self.client = Client::connect(&self.socket).unwrap();
        self.bound();
    }

    pub fn call(&mut self, request: &Request) -> Reply {
        self.client.call(request, &[]).unwrap().0
    }

    pub fn start(
        &mut self,
        fixture: &Fixture,
        id: &str,
        args: &[&str],
        options: Options<'_>,
    ) -> Result<Running, Error> {
        let plan = fixture.plan(id, args, options.stdio.terminal);
        let (specs, sockets): (Vec<_>, Vec<_>) = options.attach.into_iter().unzip();
        let fds: Vec<(FdRole, BorrowedFd<'_>)> =
            sockets.iter().map(|socket| (FdRole::Attach, socket.as_fd())).collect();
        let start = Start {
            container: id.into(),
            plan,
            stdio: options.stdio,
            log: options.log,
            attach: specs,
            foreign: None,
            restore: None,
        };
        started(self.client.call(&Request::Start(Box::new(start)), &fds))
    }

    pub fn exec(
        &mut self,
        fixture: &Fixture,
        id: &str,
        exec: &str,
        args: &[&str],
        options: Options<'_>,
    ) -> Result<Running, Error> {
        let process = fixture.process_plan(args, options.stdio.terminal);
        let (specs, sockets): (Vec<_>, Vec<_>) = options.attach.into_iter().unzip();
        let fds: Vec<(FdRole, BorrowedFd<'_>)> =
            sockets.iter().map(|socket| (FdRole::Attach, socket.as_fd())).collect();
        let exec = Exec {
            container: id.into(),
            exec: exec.into(),
            process,
            stdio: options.stdio,
            attach: specs,
            note: String::new(),
            foreign: None,
        };
        started(self.client.call(&Request::Exec(Box::new(exec)), &fds))
    }

    pub fn attach(&mut self, id: &str, spec: AttachSpec, socket: &UnixStream) -> Result<(), Error> {
        let request = Request::Attach { container: id.into(), exec: None, attach: spec };
        self.client.call(&request, &[(FdRole::Attach, socket.as_fd())]).map(drop)
    }

    pub fn adopt(&mut self, status: Status, fds: &[(FdRole, OwnedFd)]) {
        let (stdio, log) = (status.stdio.clone(), status.log.clone());
        let adopt = Request::Adopt(Box::new(Adopt { status, stdio, log }));
        let fds: Vec<_> = fds.iter().map(|(role, fd)| (*role, fd.as_fd())).collect();
        let (reply, _) = self.client.call(&adopt, &fds).unwrap();
        assert!(matches!(reply, Reply::Adopted));
    }

    /// The end of a container, waited for.
    pub fn exit_of(&mut self, id: &str) -> Exit {
        self.end_of(id, None)
    }

    /// The end of an exec or a container, waited for; other ends are kept.
    pub fn end_of(&mut self, id: &str, exec: Option<&str>) -> Exit {
        loop {
            let wanted = |end: &(String, Option<String>, Exit)| end.0 == id && end.1.as_deref() == exec;
            if let Some(at) = self.ends.iter().position(wanted) {
                return self.ends.remove(at).2;
            }
            if let Event::Exited { container, exec, exit } = self.client.next_event().unwrap() {
                self.ends.push((container, exec, exit));
            }
        }
    }

    pub fn forget(&mut self, id: &str) {
        self.call(&Request::Forget { container: id.into(), exec: None });
    }

    /// What its open descriptors are, without their numbers.
    pub fn open_files(&mut self) -> Vec<String> {
        // When this is answered, what went with earlier answers is closed.
        self.call(&Request::List);
        let directory = format!("/proc/{}/fd", self.child.id());
        let mut files: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .map(|target| target.to_str().unwrap().to_owned())
            .collect();
        files.sort();
        files
    }

    /// The memory that is its alone, in KiB: what it shares depends on who else runs.
    pub fn own_memory_kib(&self) -> u64 {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).unwrap();
        let line = rollup.lines().find(|line| line.starts_with("Pss_Anon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Ends it as the daemon does; it must be empty.
    pub fn retire(mut self) {
        self.call(&Request::Retire);
        let status = self.child.wait().unwrap();
        assert!(status.success());
        assert!(!self.socket.exists());
        assert!(self.directory.exists());
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn started(answer: Result<(Reply, Fds), Error>) -> Result<Running, Error> {
    match answer? {
        (Reply::Started { pid, .. }, fds) => Ok(Running { pid, fds }),
        (reply, _) => panic!("{reply:?}"),
    }
}

impl Running {
    pub fn roles(&self) -> Vec<FdRole> {
        self.fds.iter().map(|(role, _)| *role).collect()
    }

    pub fn kill(&self) {
        let (_, pidfd) = self.fds.iter().find(|(role, _)| *role == FdRole::Pidfd).unwrap();
        rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL).unwrap();
    }
}

/// The test's end and the shim's end of a client's connection.
pub fn client_pair() -> (UnixStream, UnixStream) {
    let (own, other) = UnixStream::pair().unwrap();
    own.set_read_timeout(Some(PATIENCE)).unwrap();
    other.set_nonblocking(true).unwrap();
    (own, other)
}

/// What comes until the end.
pub fn read_all(mut stream: &UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

/// Reads until what came contains `wanted`.
pub fn read_until(mut stream: &UnixStream, wanted: &str) -> String {
    let mut all = String::new();
    let mut buffer = [0; 4096];
    while !all.contains(wanted) {
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "ended before {wanted:?} came: {all:?}");
        all.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    all
}

/// Takes Docker's frames apart: standard output, standard error.
pub fn demultiplex(mut bytes: &[u8]) -> [String; 2] {
    let mut streams = [String::new(), String::new()];
    while let [stream @ (1 | 2), 0, 0, 0, a, b, c, d, rest @ ..] = bytes {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        streams[usize::from(*stream) - 1].push_str(std::str::from_utf8(&rest[..length]).unwrap());
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty());
    streams
}

/// Waits until a log file has a text.
pub fn wait_for_log(path: &Path, wanted: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !std::fs::read_to_string(path).is_ok_and(|log| log.contains(wanted)) {
        assert!(std::time::Instant::now() < deadline, "{wanted:?} does not come into {}", path.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The text of a log file's entries.
pub fn log_text(path: &Path) -> String {
    let log = std::fs::read_to_string(path).unwrap();
    let text =
        |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().to_owned();
    log.lines().map(text).collect()
}
