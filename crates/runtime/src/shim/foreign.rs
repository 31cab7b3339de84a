//! Containers of another OCI runtime: runc, crun, or what else the daemon's configuration names.
//!
//! The runtime is called by its command line (runtime.md, "Operations", as runc has it): it makes the first
//! process and goes, and the process becomes a child of the shim, which reaps what is left by those who
//! went. All else (streams, logs, clients, the control group) is as with containers of our own.
//!
//! ```text
//!   bundle/config.json    the spec, with the namespace of the network and the user's ids filled in
//!   bundle/rootfs         the root file system, mounted as long as the container runs
//!   bundle/pid  log.json  what the runtime tells
//! ```

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ponton_oci::runtime::{Namespace, NamespaceType, Process, Root as SpecRoot, Spec};
use ponton_sys::path::Root;
use ponton_sys::process::{self, CStrings};
use ponton_sys::{mount, overlay, pidfd, socket};
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::apply::Started;
use crate::child;
use crate::open::finish_identity;
use crate::plan::{ProcessPlan, RootMount};
use crate::shim::protocol::{Failure, FailureKind};

/// How long a call of a runtime may take.
const CALL_MAX: Duration = Duration::from_secs(60);
/// The longest log of a call that is read, in bytes.
const LOG_MAX: u64 = 64 << 10;

/// The runtime of a container, as its shim keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// The runtime's program: a path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// Arguments before all others.
    #[serde(default)]
    pub args: Vec<String>,
    /// Where the runtime keeps its state.
    pub state: PathBuf,
    /// The container's bundle.
    pub bundle: PathBuf,
}

/// A container that another runtime is to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForeignStart {
    /// The runtime.
    pub runtime: Foreign,
    /// The spec.
    pub spec: Box<Spec>,
    /// Its root file system.
    pub rootfs: Vec<RootMount>,
}

/// What a process starts with: three streams, or a terminal that the runtime makes and sends.
pub(crate) enum Streams<'a> {
    Pipes([BorrowedFd<'a>; 3]),
    Terminal,
}

impl ForeignStart {
    /// Makes and starts the container; with a terminal its master side comes too. On failure nothing of it
    /// is left.
    pub(crate) fn start(
        mut self,
        id: &str,
        plan: &ProcessPlan,
        netns: Option<BorrowedFd<'_>>,
        streams: &Streams<'_>,
    ) -> Result<(Started, Option<OwnedFd>), Failure> {
        let runtime = self.runtime.clone();
        runtime.clear(id);
        let started = self.try_start(id, plan, netns, streams);
        if started.is_err() {
            runtime.clear(id);
        }
        started
    }

    fn try_start(
        &mut self,
        id: &str,
        plan: &ProcessPlan,
        netns: Option<BorrowedFd<'_>>,
        streams: &Streams<'_>,
    ) -> Result<(Started, Option<OwnedFd>), Failure> {
        let runtime = &self.runtime;
        let rootfs = runtime.bundle.join("rootfs");
        let make = |path: &Path| {
            let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(path);
            made.map_err(|error| internal("create", path, &error))
        };
        make(&rootfs)?;
        make(&runtime.state)?;
        let root = mount_root(&self.rootfs, &rootfs)?;
        self.spec.root = Some(SpecRoot {
            path: rootfs.display().to_string(),
            readonly: self.spec.root.as_ref().is_some_and(|root| root.readonly),
        });
        if let Some(netns) = netns {
            let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
            let namespaces = &mut self.spec.linux.get_or_insert_default().namespaces;
            namespaces.retain(|namespace| namespace.r#type != NamespaceType::Network);
            namespaces.push(Namespace { r#type: NamespaceType::Network, path: Some(path) });
        }
        if let Some(linux) = &mut self.spec.linux {
            // Else it would be taken as a path below the shim's own group.
            linux.cgroups_path = format!("/{}", linux.cgroups_path.trim_start_matches('/'));
        }
        if let Some(process) = &mut self.spec.process {
            identify(process, plan, &root)?;
        }
        let config = runtime.bundle.join("config.json");
        write_json(&config, &self.spec)?;
        let bundle = runtime.bundle.as_os_str().to_string_lossy().into_owned();
        let started = runtime.make(&["create", "--bundle", &bundle], &[id], streams)?;
        runtime.call("start", &["start", id])?;
        Ok(started)
    }
}

impl Foreign {
    /// Runs a further process in a container.
    pub(crate) fn exec(
        &self,
        id: &str,
        first: u32,
        process: &Process,
        plan: &ProcessPlan,
        streams: &Streams<'_>,
    ) -> Result<(Started, Option<OwnedFd>), Failure> {
        let path = PathBuf::from(format!("/proc/{first}/root"));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|errno| internal("open", &path, &errno.into()))?;
        let mut process = process.clone();
        identify(&mut process, plan, &Root::from_fd(root))?;
        let file = self.bundle.join("process.json");
        write_json(&file, &process)?;
        let file_name = file.display().to_string();
        let started = self.make(&["exec", "--detach", "--process", &file_name], &[id], streams);
        let _ = fs::remove_file(&file);
        started
    }

    /// Deletes what there is of a container, and its bundle.
    pub(crate) fn clear(&self, id: &str) {
        if !self.bundle.exists() {
            return;
        }
        if let Err(failure) = self.call("delete", &["delete", "--force", id]) {
            eprintln!("shim: container {id}: {failure}");
        }
        let rootfs = self.bundle.join("rootfs");
        // One that is not mounted is only a directory.
        let _ = rustix::mount::unmount(&rootfs, UnmountFlags::DETACH);
        // Never into a root file system that could not be unmounted.
        let removed = fs::remove_dir(&rootfs).and_then(|()| fs::remove_dir_all(&self.bundle));
        if let Err(error) = removed {
            eprintln!("shim: remove {}: {error}", self.bundle.display());
        }
    }

    /// A command of the runtime that makes a process.
    fn make(
        &self,
        before: &[&str],
        after: &[&str],
        streams: &Streams<'_>,
    ) -> Result<(Started, Option<OwnedFd>), Failure> {
        let pid_file = self.bundle.join("pid");
        // One of a former process must not be taken for its.
        let _ = fs::remove_file(&pid_file);
        let pid_name = pid_file.display().to_string();
        let mut args = before.to_vec();
        args.extend(["--pid-file", &pid_name]);
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| internal("open", Path::new("/dev/null"), &errno.into()))?;
        let (stdio, console) = match streams {
            Streams::Pipes(stdio) => (*stdio, None),
            Streams::Terminal => ([null.as_fd(); 3], Some(Console::new(&self.bundle)?)),
        };
        let socket = console.as_ref().map(|console| console.path.display().to_string());
        if let Some(socket) = &socket {
            if before.first() == Some(&"exec") {
                args.push("--tty");
            }
            args.extend(["--console-socket", socket]);
        }
        args.extend(after);
        self.run(before.first().copied().unwrap_or_default(), &args, stdio)?;
        let text = fs::read_to_string(&pid_file).map_err(|error| internal("read", &pid_file, &error))?;
        let pid = text.trim().parse().map_err(|_| {
            internal("read", &pid_file, &io::Error::new(io::ErrorKind::InvalidData, "no process id"))
        })?;
        let master = console.map(Console::receive).transpose()?;
        let pidfd = pidfd::open(pid)
            .map_err(|error| internal("open the process of", &self.bundle, &io::Error::other(error)))?;
        Ok((Started { pid, pidfd }, master))
    }

    /// A command that only says whether it succeeded.
    fn call(&self, what: &str, args: &[&str]) -> Result<(), Failure> {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| internal("open", Path::new("/dev/null"), &errno.into()))?;
        self.run(what, args, [null.as_fd(); 3])
    }

    fn run(&self, what: &str, args: &[&str], stdio: [BorrowedFd<'_>; 3]) -> Result<(), Failure> {
        let log = self.bundle.join("log.json");
        let _ = fs::remove_file(&log);
        let (state, log_name) = (self.state.display().to_string(), log.display().to_string());
        let mut all: Vec<&str> = self.args.iter().map(String::as_str).collect();
        all.extend(["--root", &state, "--log", &log_name, "--log-format", "json"]);
        all.extend(args);
        let program = find_program(&self.program);
        let code = spawn(&program, &all, stdio).map_err(|error| internal("run", &program, &error))?;
        if code == Some(0) {
            return Ok(());
        }
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let said = last_error(&log).unwrap_or_else(|| match code {
            Some(code) => format!("it ended with exit code {code}"),
            None => format!("it was killed: not done within {} s", CALL_MAX.as_secs()),
        });
        Err(Failure { kind: kind_of(&said), step: None, message: format!("{name} {what}: {said}") })
    }
}

/// What a runtime's error means for the exit code.
fn kind_of(said: &str) -> FailureKind {
    let is_of_program =
        said.contains("exec: ") || said.contains("exec failed") || said.contains("executable");
    let is_not_found = said.contains("not found in $PATH") || said.contains("no such file or directory");
    if is_of_program && is_not_found {
        FailureKind::CommandNotFound
    } else if is_of_program && said.to_lowercase().contains("permission denied") {
        FailureKind::CommandNotExecutable
    } else {
        FailureKind::StartFailed
    }
}

/// The last error in a runtime's log.
fn last_error(path: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(default)]
        level: String,
        msg: String,
    }
    use io::Read as _;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(LOG_MAX).read_to_string(&mut text).ok()?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let mut errors = lines.filter(|line| matches!(line.level.as_str(), "error" | "fatal" | "panic" | ""));
    errors.next_back().map(|line| line.msg)
}

/// Fills in whom the user's name means in the container, and `HOME`.
fn identify(process: &mut Process, plan: &ProcessPlan, root: &Root) -> Result<(), Failure> {
    let identity = finish_identity(plan, root)?;
    process.user.uid = identity.uid;
    process.user.gid = identity.gid;
    process.user.additional_gids = identity.additional_gids;
    process.user.username = String::new();
    process.env =
        identity.env.strings().iter().map(|variable| variable.to_string_lossy().into_owned()).collect();
    Ok(())
}

fn mount_root(mounts: &[RootMount], target: &Path) -> Result<Root, Failure> {
    let failed = |error: ponton_sys::Error| internal("mount", target, &io::Error::other(error));
    let [root] = mounts else {
        return Err(Failure {
            kind: FailureKind::Invalid,
            step: None,
            message: "a root file system of several mounts: not implemented for other runtimes".to_owned(),
        });
    };
    let mounted = if root.r#type == "bind" {
        let source = CString::new(root.source.as_bytes())
            .map_err(|error| internal("mount", target, &io::Error::other(error)))?;
        mount::clone_tree(rustix::fs::CWD, &source, true).map_err(failed)?
    } else {
        overlay::mount(&root.source, &root.options, 0).map_err(failed)?
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::open(target, flags, Mode::empty())
        .map_err(|errno| internal("open", target, &errno.into()))?;
    mount::attach(&mounted, &place).map_err(failed)?;
    Ok(Root::from_fd(mounted))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let json =
        serde_json::to_vec(value).map_err(|error| internal("write", path, &io::Error::other(error)))?;
    let file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(&json)).map_err(|error| internal("write", path, &error))
}

/// Where the runtime sends the master side of a terminal that it has made.
struct Console {
    /// By the descriptor of its directory: a socket's path may have 107 bytes only.
    path: PathBuf,
    listener: OwnedFd,
    _directory: OwnedFd,
}

impl Console {
    fn new(bundle: &Path) -> Result<Self, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(bundle, flags, Mode::empty())
            .map_err(|errno| internal("open", bundle, &errno.into()))?;
        let path = format!("/proc/{}/fd/{}/console.sock", std::process::id(), directory.as_raw_fd());
        let path = PathBuf::from(path);
        let _ = fs::remove_file(&path);
        let listen = || -> io::Result<OwnedFd> {
            let listener = rustix::net::socket_with(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                None,
            )?;
            rustix::net::bind(&listener, &SocketAddrUnix::new(&path)?)?;
            rustix::net::listen(&listener, 1)?;
            Ok(listener)
        };
        let listener = listen().map_err(|error| internal("listen on", &path, &error))?;
        Ok(Self { path, listener, _directory: directory })
    }

    /// What the runtime has sent; it is gone already.
    fn receive(self) -> Result<OwnedFd, Failure> {
        let receive = || -> io::Result<OwnedFd> {
            let connection = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC)?;
            let mut name = [0; 4096];
            let (_, fds) = socket::recv_with_fds(&connection, &mut name)?;
            fds.into_iter().next().ok_or_else(|| io::Error::other("no terminal came"))
        };
        let received = receive().map_err(|error| internal("take the terminal from", &self.path, &error));
        let _ = fs::remove_file(&self.path);
        received
    }
}

/// The file of a program that is named without a directory.
fn find_program(program: &Path) -> PathBuf {
    if program.as_os_str().as_bytes().contains(&b'/') {
        return program.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| program.to_owned())
}

/// Runs a program to its end: its exit code, none where it was not done in time.
fn spawn(program: &Path, args: &[&str], stdio: [BorrowedFd<'_>; 3]) -> io::Result<Option<i32>> {
    let path = CString::new(program.as_os_str().as_bytes())?;
    let mut words = vec![path.clone()];
    for arg in args {
        words.push(CString::new(*arg)?);
    }
    let mut env = BTreeMap::from([(
        "PATH".into(),
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
    )]);
    env.extend(std::env::vars_os());
    let mut variables = Vec::new();
    for (name, value) in env {
        variables.push(CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())?);
    }
    let (words, variables) = (CStrings::new(words), CStrings::new(variables));
    child::run(CALL_MAX, || {
        let prepare = || -> Result<(), ponton_sys::Error> {
            process::set_stdio(stdio)?;
            process::reset_signals()?;
            process::close_all_but(3, &[])
        };
        if prepare().is_ok() {
            let _ = process::execve(&path, &words, &variables);
        }
    })
}

fn internal(attempted: &str, path: &Path, error: &io::Error) -> Failure {
    let message = format!("{attempted} {}: {error}", path.display());
    Failure { kind: FailureKind::Internal, step: None, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_runtimes_have_exit_codes() {
        for (said, kind) in [
            (
                "unable to start container process: exec: \"nosuch\": executable file not found in $PATH",
                FailureKind::CommandNotFound,
            ),
            (
                "unable to start container process: exec: \"/nosuch\": stat /nosuch: no such file or directory",
                FailureKind::CommandNotFound,
            ),
            (
                "executable file `nosuch` not found in $PATH: No such file or directory",
                FailureKind::CommandNotFound,
            ),
            (
                "unable to start container process: exec: \"/tmp\": permission denied",
                FailureKind::CommandNotExecutable,
            ),
            ("rootfs_linux.go:75: mounting: no such file or directory", FailureKind::StartFailed),
        ] {
            assert_eq!(kind_of(said), kind, "{said}");
        }
    }

    #[test]
    fn the_last_error_of_a_log_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.json");
        fs::write(
            &path,
            "{\"level\":\"warning\",\"msg\":\"w\"}\nno json\n{\"level\":\"error\",\"msg\":\"e\"}\n",
        )
        .unwrap();
        assert_eq!(last_error(&path).as_deref(), Some("e"));
        assert_eq!(last_error(Path::new("/nosuch")), None);
    }

    #[test]
    fn programs_end_with_their_codes() {
        let null = fs::File::options().read(true).write(true).open("/dev/null").unwrap();
        let stdio = [null.as_fd(); 3];
        assert_eq!(spawn(Path::new("/bin/sh"), &["-c", "exit 7"], stdio).unwrap(), Some(7));
        assert_eq!(spawn(Path::new("/nosuch"), &[], stdio).unwrap(), Some(127));
        assert_eq!(find_program(Path::new("sh")).file_name().unwrap(), "sh");
    }
}
