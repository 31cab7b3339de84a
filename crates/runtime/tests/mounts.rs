//! Mounts and devices, seen from inside. As root.
#![allow(clippy::unwrap_used, reason = "a test program")]

mod fixture;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use fixture::{Bundle, mount, stderr, stdout, with_host_programs};
use serde_json::json;

/// The line of the container's mount table for a mount with these options.
fn shown(r#type: &str, source: &str, options: &[&str]) -> String {
    let bundle = Bundle::new(|spec| {
        mount(spec, "/srv", r#type, source, options);
        spec["process"]["args"] = json!(["grep", " /srv ", "/proc/self/mountinfo"]);
    });
    let line = as_everywhere(&stdout(&bundle.run()));
    // Without the numbers, which are others each time.
    line.trim_end().splitn(5, ' ').nth(4).unwrap().to_owned()
}

/// Without the word that some kernels say of every tmpfs.
fn as_everywhere(table: &str) -> String {
    table.replace(",inode64", "")
}

#[test]
fn options_are_what_the_mount_table_shows() {
    let tmpfs = |options: &[&str]| {
        let line = shown("tmpfs", "tmpfs", options);
        let (own, of_file_system) = line.split_once(" - tmpfs tmpfs rw").unwrap();
        let words = |text: &str| text.trim_start_matches("/srv ").trim_start_matches(',').to_owned();
        (words(own), words(of_file_system))
    };
    let pair = |own: &str, of_file_system: &str| (own.to_owned(), of_file_system.to_owned());
    assert_eq!(tmpfs(&["size=1m", "defaults", "silent", "iversion"]), pair("rw,relatime", "size=1024k"));
    assert_eq!(tmpfs(&["sync", "dirsync", "lazytime"]), pair("rw,relatime", "sync,dirsync,lazytime"));
    assert_eq!(tmpfs(&["async", "nolazytime", "nomand"]), pair("rw,relatime", ""));
    assert_eq!(
        tmpfs(&["nosuid", "nodev", "noexec", "nosymfollow", "noatime", "nodiratime"]),
        pair("rw,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow", "")
    );
    assert_eq!(
        tmpfs(&["nosuid", "suid", "nodev", "dev", "noexec", "exec", "nodiratime", "diratime", "ro", "rw"]),
        pair("rw,relatime", "")
    );
    assert_eq!(tmpfs(&["strictatime"]), pair("rw", ""));
    assert_eq!(tmpfs(&["noatime", "norelatime", "nosymfollow", "symfollow"]), pair("rw,relatime", ""));
    assert_eq!(tmpfs(&["rro", "rnosuid", "rnoatime"]), pair("ro,nosuid,noatime", ""));
    assert_eq!(tmpfs(&["unbindable"]), pair("rw,relatime unbindable", ""));
}

#[test]
fn an_option_that_nobody_knows_is_the_file_systems() {
    let bundle = Bundle::new(|spec| mount(spec, "/srv", "tmpfs", "tmpfs", &["frobnicate=1"]));
    let output = bundle.run();
    assert!(stderr(&output).contains("frobnicate"), "{output:?}");
    assert!(!output.status.success());
}

/// A directory with a mount below it, in a mount namespace of its own; there `then` is run.
fn with_submount(directory: &Path, then: &mut Command) -> std::process::Output {
    fs::create_dir(directory.join("below")).unwrap();
    let script = format!("mount -t tmpfs below {}/below && exec \"$@\"", directory.display());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    command.arg(then.get_program()).args(then.get_args()).output().unwrap()
}

#[test]
fn recursive_attributes_reach_what_is_below() {
    for (options, expected) in [
        (vec!["rbind", "rro"], "ro,relatime ro,relatime"),
        (vec!["rbind", "ro"], "ro,relatime rw,relatime"),
        (vec!["rbind", "rro", "rw"], "rw,relatime ro,relatime"),
        (vec!["bind", "rro"], "ro,relatime"),
        (vec!["rbind", "rnosuid", "nodev"], "rw,nosuid,nodev,relatime rw,nosuid,relatime"),
    ] {
        let volume = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(|spec| {
            mount(spec, "/srv", "bind", volume.path().to_str().unwrap(), &options);
            spec["process"]["args"] = json!(["awk", "$5 ~ /^.srv/ { print $6 }", "/proc/self/mountinfo"]);
        });
        let mut run = bundle.prepare(&["run", "--bundle", bundle.path_text(), &bundle.id]);
        let output = with_submount(volume.path(), &mut run);
        let words: Vec<_> = stdout(&output).split_whitespace().map(String::from).collect();
        assert_eq!(words.join(" "), expected, "{options:?}");
    }
}

#[test]
fn a_tmpfs_begins_with_what_it_covers() {
    let bundle = Bundle::new(|spec| {
        mount(spec, "/srv", "tmpfs", "tmpfs", &["tmpcopyup", "ro"]);
        mount(spec, "/tmp", "tmpfs", "tmpfs", &[]);
        let script = "cd /srv; cat directory/file; readlink link; stat -c %a:%u:%Y directory/file fifo . /tmp
            touch x 2>/dev/null || echo ro";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    let srv = bundle.root().join("srv");
    fs::create_dir(srv.join("directory")).unwrap();
    fs::write(srv.join("directory/file"), "content\n").unwrap();
    symlink("/etc/shadow", srv.join("link")).unwrap();
    let prepare = "cd $0; chown 7 directory/file; chmod 4751 directory/file; mkfifo -m 622 fifo; chmod 2710 .
        touch -d @1000000000 directory/file fifo .; chmod 1733 ../tmp; touch -d @1000000000 ../tmp";
    assert!(Command::new("sh").args(["-c", prepare]).arg(&srv).status().unwrap().success());
    let text = stdout(&bundle.run());
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("content"));
    assert_eq!(lines.next(), Some("/etc/shadow"));
    assert_eq!(lines.next(), Some("4751:7:1000000000"));
    assert_eq!(lines.next(), Some("622:0:1000000000"));
    assert!(lines.next().unwrap().starts_with("2710:0:"), "{text}");
    assert!(lines.next().unwrap().starts_with("1733:0:"), "{text}");
    assert_eq!(lines.next(), Some("ro"));
}

#[test]
fn extended_attributes_are_copied_up() {
    // A file capability as the kernel keeps it (linux/capability.h, revision 2): CAP_NET_RAW, effective.
    let mut capability = [0; 20];
    capability[..6].copy_from_slice(&[1, 0, 0, 2, 0, 0x20]);
    let bundle = Bundle::new(|spec| {
        with_host_programs(spec);
        mount(spec, "/srv", "tmpfs", "tmpfs", &["tmpcopyup"]);
        let all = json!(["CAP_SYS_ADMIN"]);
        spec["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
        let script = "import os; print(os.getxattr('/srv/program', 'security.capability').hex(),
            os.getxattr('/srv/directory', 'trusted.name').decode(), os.stat('/srv/program').st_uid)";
        spec["process"]["args"] = json!(["/usr/bin/python3", "-c", script]);
    });
    let (program, directory) = (bundle.root().join("srv/program"), bundle.root().join("srv/directory"));
    fs::write(&program, "").unwrap();
    fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&program, Some(7), None).unwrap();
    let set = |path: &std::path::Path, name: &str, value: &[u8]| {
        rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set(&program, "security.capability", &capability);
    set(&directory, "trusted.name", b"value");
    let hex: String = capability.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(stdout(&bundle.run()), format!("{hex} value 7\n"));
}

#[test]
fn a_mount_can_be_changed_later() {
    let bundle = Bundle::new(|spec| {
        mount(spec, "/srv", "tmpfs", "tmpfs", &["size=1m"]);
        mount(spec, "/srv", "tmpfs", "tmpfs", &["remount", "size=2m", "nosuid"]);
        spec["process"]["args"] = json!(["grep", " /srv ", "/proc/mounts"]);
    });
    let table = as_everywhere(&stdout(&bundle.run()));
    assert_eq!(table, "tmpfs /srv tmpfs rw,nosuid,relatime,size=2048k 0 0\n");
}

#[test]
fn targets_are_made_and_found_behind_links_inside() {
    let volume = tempfile::tempdir().unwrap();
    let file = volume.path().join("file");
    fs::write(&file, "bound\n").unwrap();
    let bundle = Bundle::new(|spec| {
        spec["root"]["readonly"] = json!(true);
        mount(spec, "/srv/new/file", "bind", file.to_str().unwrap(), &["bind"]);
        mount(spec, "/srv/new/directory", "bind", volume.path().to_str().unwrap(), &["bind", "ro"]);
        mount(spec, "/link/x", "bind", file.to_str().unwrap(), &["bind"]);
        let script = "cat /srv/new/file /srv/new/directory/file /tmp/target/x; echo x > /etc/x || echo ro";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    symlink("/tmp/target", bundle.root().join("link")).unwrap();
    assert_eq!(stdout(&bundle.run()), "bound\nbound\nbound\nro\n");
}

#[test]
fn mounts_of_the_host_reach_a_root_that_is_a_slave_and_never_the_other_way() {
    let script = |propagation: &str, wait: &str| {
        let bundle = Bundle::new(|spec| {
            spec["linux"]["rootfsPropagation"] = json!(propagation);
            spec["process"]["args"] = json!(["sh", "-c", wait]);
        });
        let runtime = env!("CARGO_BIN_EXE_ponton-runtime");
        let script = format!(
            "set -e; cd {bundle}; mount --bind . .; mount --make-shared .; cd {bundle}
             {runtime} --root state create --bundle . x > out; {runtime} --root state start x
             mount -t tmpfs later rootfs/srv; touch rootfs/srv/seen; grep -c {bundle}/rootfs/ /proc/mounts
             touch rootfs/tmp/go; until grep -q end out; do sleep 0.01; done; cat out
             {runtime} --root state delete --force x",
            bundle = bundle.path_text(),
        );
        let output = Command::new("timeout")
            .args(["120", "unshare", "--mount", "--propagation", "private", "sh", "-c", &script])
            .output()
            .unwrap();
        stdout(&output)
    };
    let wait = "until test -e /tmp/go; do sleep 0.01; done; ls /srv; echo end";
    // Of all mounts below the bundle's root the host sees its own one only.
    assert_eq!(script("rslave", wait), "1\nseen\nend\n");
    assert_eq!(script("rshared", wait), "1\nseen\nend\n");
    assert_eq!(script("rprivate", wait), "1\nend\n");
}

#[test]
fn devices_are_made_as_they_are_described() {
    let bundle = Bundle::new(|spec| {
        spec["linux"]["devices"] = json!([
            {"path": "/dev/one", "type": "c", "major": 10, "minor": 229, "fileMode": 0o622, "uid": 3, "gid": 4},
            {"path": "/dev/deep/two", "type": "b", "major": 7, "minor": 300},
            {"path": "/dev/fifo", "type": "p", "fileMode": 0o777},
            {"path": "/dev/zero", "type": "c", "major": 1, "minor": 3},
        ]);
        let script = "stat -c %a:%u:%g:%t:%T /dev/one /dev/deep/two /dev/fifo /dev/zero
            for link in fd stdin stdout stderr ptmx; do readlink /dev/$link; done";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    let expected = "622:3:4:a:e5\n666:0:0:7:12c\n777:0:0:0:0\n666:0:0:1:3\n/proc/self/fd\n/proc/self/fd/0\n\
                    /proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";
    assert_eq!(stdout(&bundle.run()), expected);
}

#[test]
fn devices_that_make_no_sense_are_refused_by_name() {
    for (device, expected) in [
        (json!({"path": "dev/x", "type": "c", "major": 1, "minor": 3}), "linux.devices[0].path"),
        (json!({"path": "/", "type": "c", "major": 1, "minor": 3}), "linux.devices[0].path"),
        (json!({"path": "/dev/x", "type": "c", "major": -1, "minor": 3}), "linux.devices[0].major"),
        (json!({"path": "/dev/x", "type": "c", "major": 1, "minor": 1_048_576}), "linux.devices[0].minor"),
        (json!({"path": "/dev/x", "type": "a", "major": 1, "minor": 1}), "linux.devices[0].type"),
        (json!({"path": "/srv/x", "type": "c", "major": 1, "minor": 3}), "another file already"),
    ] {
        let bundle = Bundle::new(|spec| spec["linux"]["devices"] = json!([device]));
        fs::write(bundle.root().join("srv/x"), "").unwrap();
        let output = bundle.run();
        assert!(!output.status.success() && stderr(&output).contains(expected), "{device}: {output:?}");
    }
}

#[test]
fn without_pivot_root_nothing_of_the_host_is_left_either() {
    let bundle = Bundle::new(|spec| {
        let rights = json!(["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]);
        spec["process"]["capabilities"] =
            json!({"bounding": rights, "effective": rights, "permitted": rights});
        spec["root"]["readonly"] = json!(false);
        // The classic way out of a chroot.
        let script =
            "ls /..; chroot /srv /bin/sh -c 'cd ../../../../..; ls -d etc/passwd home' 2>&1; cd /; pwd";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    let output = bundle.command(&["run", "--no-pivot", "--bundle", bundle.path_text(), &bundle.id]);
    bundle.assert_nothing_left();
    let text = stdout(&output);
    assert!(text.starts_with("bin\ndev\netc\nproc\nsrv\nsys\ntmp\n"), "{text}");
    assert!(text.ends_with("/\n") && !text.contains("home\n"), "{text}");
}

#[test]
fn a_label_needs_selinux() {
    if Path::new("/sys/fs/selinux/enforce").exists() {
        return;
    }
    let bundle = Bundle::new(|spec| spec["linux"]["mountLabel"] = json!("system_u:object_r:x_t:s0"));
    let output = bundle.run();
    assert!(stderr(&output).contains("linux.mountLabel: SELinux is not enabled"), "{output:?}");
}
