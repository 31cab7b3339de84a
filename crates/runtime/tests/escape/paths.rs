//! Paths of the image that lead elsewhere, or change while they are used (CVE-2021-30465,
//! CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2024-45310, CVE-2025-31133).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::{Bundle, mount, stdout, without_namespace};
use crate::{assert_untouched, outside};

/// Runs `true` in an image that `prepare` was given together with a directory of the host.
fn hostile(
    prepare: impl FnOnce(&Path, &Path),
    change: impl FnOnce(&mut Value, &Path),
) -> (Output, Bundle, TempDir) {
    let outside = outside();
    let bundle = Bundle::new(|spec| {
        spec["root"]["readonly"] = json!(false);
        spec["process"]["args"] = json!(["true"]);
        change(spec, outside.path());
    });
    prepare(&bundle.root(), outside.path());
    (bundle.run(), bundle, outside)
}

/// Puts a link in the place of a directory of the image.
fn link(root: &Path, name: &str, target: &Path) {
    let _ = fs::remove_dir(root.join(name));
    symlink(target, root.join(name)).unwrap();
}

#[test]
fn an_image_whose_dev_is_a_link_gets_its_devices_inside() {
    let without_tmpfs = |spec: &mut Value, _: &Path| {
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    };
    for target in ["absolute", "../../../../../../.."] {
        let prepare = |root: &Path, outside: &Path| {
            let path = match target {
                "absolute" => outside.to_owned(),
                up => Path::new(up).join(outside.strip_prefix("/").unwrap()),
            };
            link(root, "dev", &path);
        };
        let (output, bundle, outside) = hostile(prepare, without_tmpfs);
        assert!(output.status.success(), "{output:?}");
        assert_untouched(outside.path());
        assert!(bundle.root().join(outside.path().strip_prefix("/").unwrap()).join("null").exists());
    }
}

#[test]
fn an_image_whose_proc_or_sys_is_a_link_is_refused() {
    for name in ["proc", "sys"] {
        for target in ["outside", "tmp"] {
            let prepare = |root: &Path, outside: &Path| {
                link(root, name, if target == "tmp" { Path::new("tmp") } else { outside });
            };
            let (output, _bundle, outside) = hostile(prepare, |_, _| {});
            assert_eq!(output.status.code(), Some(125), "{output:?}");
            assert_untouched(outside.path());
        }
    }
}

#[test]
fn mount_targets_stay_inside() {
    let targets =
        ["/srv/link/new", "/srv/up/new", "/../../../../../../../..OUTSIDE/new", "/srv/link/new/deep/er"];
    for target in targets {
        let prepare = |root: &Path, outside: &Path| {
            symlink(outside, root.join("srv/link")).unwrap();
            let up = format!("../../../../../../../..{}", outside.display());
            symlink(up, root.join("srv/up")).unwrap();
        };
        let change = |spec: &mut Value, outside: &Path| {
            let target = target.replace("OUTSIDE", outside.to_str().unwrap());
            let file = outside.join("file").display().to_string();
            mount(spec, &target, "bind", &file, &["bind"]);
            mount(spec, &format!("{target}.tmpfs"), "tmpfs", "tmpfs", &[]);
            spec["linux"]["devices"] =
                json!([{"path": format!("{target}.device"), "type": "c", "major": 1, "minor": 3}]);
            spec["process"]["cwd"] = json!(format!("{target}.cwd"));
        };
        let (output, _bundle, outside) = hostile(prepare, change);
        assert!(output.status.success(), "{target}: {output:?}");
        assert_untouched(outside.path());
    }
}

#[test]
fn mount_targets_do_not_go_through_magic_links() {
    let change = |spec: &mut Value, outside: &Path| {
        without_namespace(spec, "pid");
        let target = format!("/proc/{}/root{}/made", std::process::id(), outside.display());
        mount(spec, &target, "tmpfs", "tmpfs", &[]);
    };
    let (output, _bundle, outside) = hostile(|_, _| {}, change);
    assert!(!output.status.success());
    assert_untouched(outside.path());
}

#[test]
fn a_mount_target_that_is_swapped_meanwhile_stays_inside() {
    let outside = outside();
    let bundle = Bundle::new(|spec| {
        spec["process"]["args"] = json!(["true"]);
        for number in 0..20 {
            mount(spec, &format!("/srv/swapped/{number}/deep"), "tmpfs", "tmpfs", &["size=4k"]);
        }
    });
    let srv = bundle.root().join("srv");
    fs::create_dir(srv.join("swapped")).unwrap();
    symlink(outside.path(), srv.join("link")).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (one, other) = (srv.join("swapped"), srv.join("link"));
            while !is_over.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for _ in 0..25 {
            // Whether it starts is up to who swaps; where it mounts is not.
            bundle.run();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_untouched(outside.path());
}

#[test]
fn masks_are_not_made_of_what_the_image_has() {
    // CVE-2025-31133: the image's own /dev/null as the source of a mask.
    let bundle = Bundle::new(|spec| {
        let dev = PathBuf::from(spec["root"]["path"].as_str().unwrap()).join("srv");
        symlink("/etc/other", dev.join("null")).unwrap();
        spec["root"]["readonly"] = json!(false);
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        mount(spec, "/dev", "bind", dev.to_str().unwrap(), &["bind"]);
        spec["linux"]["maskedPaths"] = json!(["/etc/secret", "/tmp", "/proc/keys"]);
        let script = "cat /etc/secret /proc/keys; ls /tmp; touch /tmp/x; stat -c %t:%T /etc/secret";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    for name in ["etc/secret", "etc/other", "tmp/secret"] {
        fs::write(bundle.root().join(name), name).unwrap();
    }
    assert_eq!(stdout(&bundle.run()), "1:3\n");
    assert_eq!(fs::read_to_string(bundle.root().join("etc/other")).unwrap(), "etc/other");
}

#[test]
fn the_passwd_file_is_read_inside_and_only_if_it_is_a_file() {
    let outside = outside();
    fs::write(outside.path().join("file"), "evil:x:0:0::/:/bin/sh\n").unwrap();
    let bundle = Bundle::new(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    let passwd = bundle.root().join("etc/passwd");
    assert!(bundle.create().status.success());
    assert!(bundle.command(&["start", &bundle.id]).status.success());
    let user = |name: &str| bundle.command(&["exec", "--user", name, &bundle.id, "id", "-u"]);
    fs::remove_file(&passwd).unwrap();
    symlink(outside.path().join("file"), &passwd).unwrap();
    let output = user("evil");
    assert!(!output.status.success(), "{output:?}");
    // One that never ends, and one that never begins.
    fs::remove_file(&passwd).unwrap();
    symlink("/dev/zero", &passwd).unwrap();
    assert!(!user("evil").status.success());
    fs::remove_file(&passwd).unwrap();
    rustix::fs::mknodat(CWD, &passwd, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert!(!user("evil").status.success());
    assert_eq!(stdout(&user("77")), "77\n");
}
