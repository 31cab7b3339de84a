//! Network namespaces that daemons, registries and clients of one test share.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace with the loopback interface up. It goes with its last owner.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    /// Makes one.
    pub fn new() -> Arc<Self> {
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare --net");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("stdout"))
            .read_line(&mut line)
            .expect("read from the namespace's process");
        assert_eq!(line, "up\n", "a network namespace of its own");
        Arc::new(Self { holder })
    }

    /// Process id that lives in it as long as it does.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A command that runs in it. It keeps the process id that it gets.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid())).arg("--").arg(program);
        command
    }

    /// Runs work on a thread that lives in it; so do the threads that it starts.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid())).expect("the network namespace");
        std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
            work();
        });
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
