//! Files under `/proc/sys`, as the network namespace of the calling thread has them.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use ponton_sys::mount::Context;
use rustix::fs::{CWD, Mode, OFlags};

/// How many namespaces are set up through one instance of procfs.
///
/// procfs keeps the names that were looked up in each namespace side by side under one hash, so that with a thousand
/// namespaces a lookup compares a thousand names. They go when the instance does.
const NAMESPACES_EACH: u32 = 32;

/// An instance of procfs, made anew now and then.
#[derive(Debug, Default)]
pub(crate) struct Sysctls {
    root: Option<OwnedFd>,
    namespaces: u32,
}

impl Sysctls {
    /// For one more namespace.
    pub(crate) fn for_namespace(&mut self) -> &Self {
        if self.namespaces.is_multiple_of(NAMESPACES_EACH) {
            // Who may not mount one does with the host's.
            self.root = Context::new("proc").and_then(|context| context.mount(0)).ok();
        }
        self.namespaces = self.namespaces.wrapping_add(1);
        self
    }

    /// Writes a file; one of IPv6 only where the kernel has IPv6. Where it cannot be written, but says already what it
    /// shall, all is well.
    pub(crate) fn write(&self, file: &str, value: &str) -> io::Result<()> {
        let written = self.open(file, OFlags::WRONLY).and_then(|mut file| file.write_all(value.as_bytes()));
        let has_it = || {
            let mut text = String::new();
            let read = self.open(file, OFlags::RDONLY).and_then(|mut file| file.read_to_string(&mut text));
            read.is_ok() && text.trim() == value
        };
        match written {
            Err(_) if has_it() => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound && file.starts_with("net/ipv6") => Ok(()),
            other => other,
        }
    }

    fn open(&self, file: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC;
        let opened = match &self.root {
            Some(root) => rustix::fs::openat(root.as_fd(), format!("sys/{file}"), flags, Mode::empty()),
            None => rustix::fs::openat(CWD, format!("/proc/sys/{file}"), flags, Mode::empty()),
        };
        Ok(opened?.into())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ponton_sys::namespace::{self, Kinds};

    use super::*;

    const FILE: &str = "net/ipv4/ip_unprivileged_port_start";

    #[test]
    fn each_namespace_has_files_of_its_own() {
        let read = || fs::read_to_string(format!("/proc/sys/{FILE}")).unwrap();
        let before = read();
        // One more than an instance is for; one that is not the host's would be seen there.
        let set_up = move || {
            let mut sysctls = Sysctls::default();
            for number in 0..=NAMESPACES_EACH {
                namespace::unshare(Kinds::NETWORK).unwrap();
                let value = number.to_string();
                sysctls.for_namespace().write(FILE, &value).unwrap();
                assert_eq!(read().trim(), value);
            }
            assert_eq!(sysctls.write("net/ipv4/none", "1").unwrap_err().kind(), ErrorKind::NotFound);
            sysctls.write("net/ipv6/none", "1").unwrap();
        };
        std::thread::spawn(set_up).join().unwrap();
        assert_eq!(read(), before);
    }
}
