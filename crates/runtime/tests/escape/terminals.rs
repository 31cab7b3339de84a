//! Terminals of an image that are something else (CVE-2025-52565).

use std::fs::{self, File};
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::fixture::Bundle;
use crate::{assert_untouched, outside};

/// A socket that a terminal is sent to.
struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    fn new(bundle: &Bundle) -> Self {
        let path = bundle.path().join("console");
        let _ = fs::remove_file(&path);
        Self { listener: UnixListener::bind(&path).unwrap(), path }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// The master that was sent.
    fn receive(&self) -> OwnedFd {
        self.listener.set_nonblocking(true).unwrap();
        let (stream, _) = self.listener.accept().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [0; 4096];
        let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
        recvmsg(&stream, &mut parts, &mut ancillary, RecvFlags::empty()).unwrap();
        let mut messages = ancillary.drain();
        let Some(RecvAncillaryMessage::ScmRights(mut fds)) = messages.next() else { panic!("no descriptor") };
        let master = fds.next().unwrap();
        rustix::io::ioctl_fionbio(&master, false).unwrap();
        master
    }

    /// What is written to it until nobody has it open any more.
    fn text(&self) -> String {
        let mut text = Vec::new();
        // The other side's end is an error.
        let _ = File::from(self.receive()).read_to_end(&mut text);
        String::from_utf8(text).unwrap().replace('\r', "")
    }
}

/// A device directory that is the image's own.
fn without_dev(spec: &mut Value) {
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    spec["root"]["readonly"] = json!(false);
}

#[test]
fn the_console_is_shown_inside_whatever_the_image_has_there() {
    for target in ["outside", "/etc/console", "../../../../../../../../../etc/console"] {
        let outside = outside();
        let bundle = Bundle::new(|spec| {
            without_dev(spec);
            spec["process"]["terminal"] = json!(true);
            spec["process"]["args"] = json!(["sh", "-c", "stat -L -c %F /dev/console; tty"]);
        });
        let link = match target {
            "outside" => outside.path().join("file"),
            inside => PathBuf::from(inside),
        };
        fs::write(bundle.root().join("etc/console"), "").unwrap();
        symlink(link, bundle.root().join("dev/console")).unwrap();
        let console = Console::new(&bundle);
        let create =
            ["create", "--console-socket", console.path(), "--bundle", bundle.path_text(), &bundle.id];
        let created = bundle.command(&create);
        assert_untouched(outside.path());
        // A link to what is not there, seen from inside, is a place for nothing.
        assert_eq!(created.status.success(), target != "outside", "{target}: {created:?}");
        if !created.status.success() {
            bundle.assert_nothing_left();
            continue;
        }
        assert!(bundle.command(&["start", &bundle.id]).status.success());
        let text = console.text();
        assert!(text.starts_with("character special file\n/dev/"), "{target}: {text}");
        assert_untouched(outside.path());
    }
}

#[test]
fn a_terminal_is_not_opened_from_what_is_no_devpts() {
    let bundle = Bundle::new(|spec| {
        without_dev(spec);
        spec["process"]["args"] = json!(["sleep", "1000"]);
    });
    fs::create_dir(bundle.root().join("dev/pts")).unwrap();
    let ptmx = bundle.root().join("dev/pts/ptmx");
    // Opening it would never end.
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &ptmx, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(bundle.create().status.success());
    assert!(bundle.command(&["start", &bundle.id]).status.success());
    let console = Console::new(&bundle);
    let exec = [
        "exec",
        "--tty",
        "--detach",
        "--console-socket",
        console.path(),
        &bundle.id,
        "sh",
        "-c",
        "test -t 0 && echo yes",
    ];
    let output = bundle.command(&exec);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(console.text(), "yes\n");
}
