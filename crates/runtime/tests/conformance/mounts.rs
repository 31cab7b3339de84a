//! config.md, "Mounts".

use std::fs;

use serde_json::{Value, json};

use crate::fixture::{Bundle, mount, stderr, stdout};
use crate::{Statement, inside, refused, skip};

const MOUNTS: &str = "config.md Mounts";
const OPTIONS: &str = "config.md Linux mount options";

/// The options that a mount at /srv has, as mountinfo shows them.
fn options_of(r#type: &str, source: &str, options: &[&str]) -> String {
    let (r#type, source) = (r#type.to_owned(), source.to_owned());
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    let line = inside("grep ' /srv ' /proc/self/mountinfo", move |spec| {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        mount(spec, "/srv", &r#type, &source, &options);
    });
    line.split(' ').nth(5).unwrap().to_owned() + " " + line.rsplit(' ').next().unwrap()
}

fn has(options: &[&str], shown: &str) {
    for (r#type, source) in [("tmpfs", "tmpfs"), ("bind", "/usr")] {
        let mut options = options.to_vec();
        if r#type == "bind" {
            options.insert(0, "bind");
        }
        let found = options_of(r#type, source, &options);
        let words: Vec<&str> = found.split([' ', ',']).collect();
        assert!(words.contains(&shown), "{options:?} of {type}: {shown} is not in {found}", r#type = r#type);
    }
}

fn has_not(options: &[&str], shown: &str) {
    let found = options_of("tmpfs", "tmpfs", options);
    assert!(!found.split([' ', ',']).any(|word| word == shown), "{options:?}: {shown} is in {found}");
}

/// A host directory with a tmpfs below it, mounted by the container: what recursive options are for.
fn recursively(option: &str, shown: &str) {
    let script = "grep -E ' /srv(/sub)? ' /proc/self/mountinfo | cut -d' ' -f6";
    let bundle = Bundle::script(script);
    let directory = bundle.path().join("tree");
    fs::create_dir_all(directory.join("sub")).unwrap();
    let mut spec = bundle.spec();
    mount(&mut spec, "/srv", "bind", directory.to_str().unwrap(), &["rbind", option]);
    bundle.write_spec(&spec);
    // In a mount namespace of its own, so that the host's table stays as it is.
    let run = bundle.prepare(&["run", "--bundle", bundle.path_text(), &bundle.id]);
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs \"$0/sub\" && exec \"$@\""]).arg(&directory);
    command.arg(run.get_program()).args(run.get_args());
    let output = bundle.finish(&mut command);
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 2, "{text}");
    for line in text.lines() {
        assert!(line.split(',').any(|word| word == shown), "{option}: {text}");
    }
}

pub(crate) const ALL: &[Statement] = &[
    Statement {
        part: MOUNTS,
        says: "they are made in the listed order",
        check: || {
            let text = inside("ls /srv/a; test ! -e /srv/b", |spec| {
                mount(spec, "/srv", "tmpfs", "first", &[]);
                mount(spec, "/srv/b", "tmpfs", "second", &[]);
                mount(spec, "/srv", "tmpfs", "third", &[]);
                mount(spec, "/srv/a/c", "tmpfs", "fourth", &[]);
            });
            assert_eq!(text, "c");
        },
    },
    Statement {
        part: MOUNTS,
        says: "destination may be relative, from the root",
        check: || {
            inside("grep -q ' /srv/relative ' /proc/self/mountinfo", |spec| {
                mount(spec, "srv/relative", "tmpfs", "tmpfs", &[]);
            });
        },
    },
    Statement {
        part: MOUNTS,
        says: "a destination is made where it is missing",
        check: || {
            let text = inside("cat /srv/a/b/file; grep -q ' /srv/c/d ' /proc/self/mountinfo", |spec| {
                spec["root"]["readonly"] = json!(true);
                mount(spec, "/srv/a/b/file", "bind", "/proc/version", &["bind"]);
                mount(spec, "/srv/c/d", "tmpfs", "tmpfs", &[]);
            });
            assert!(text.starts_with("Linux version"), "{text}");
        },
    },
    Statement {
        part: MOUNTS,
        says: "destination is required",
        check: || {
            refused("mounts[7].destination", |spec| {
                spec["mounts"].as_array_mut().unwrap().push(json!({"type": "tmpfs", "source": "tmpfs"}));
            });
        },
    },
    Statement {
        part: MOUNTS,
        says: "a relative source of a bind mount is from the bundle",
        check: || {
            let bundle = Bundle::script("cat /srv/file");
            let mut spec = bundle.spec();
            mount(&mut spec, "/srv/file", "bind", "of-the-bundle", &["bind"]);
            bundle.write_spec(&spec);
            fs::write(bundle.path().join("of-the-bundle"), "content").unwrap();
            assert_eq!(stdout(&bundle.run()), "content");
        },
    },
    Statement {
        part: MOUNTS,
        says: "a bind mount shows the host's files, and writes to them",
        check: || {
            let bundle = Bundle::script("cat /srv/file; echo inside > /srv/file");
            fs::write(bundle.path().join("file"), "outside\n").unwrap();
            let mut spec = bundle.spec();
            mount(&mut spec, "/srv", "bind", bundle.path_text(), &["bind", "rw"]);
            bundle.write_spec(&spec);
            assert_eq!(stdout(&bundle.run()), "outside\n");
            assert_eq!(fs::read_to_string(bundle.path().join("file")).unwrap(), "inside\n");
        },
    },
    Statement {
        part: MOUNTS,
        says: "bind is by option or by type",
        check: || {
            for (r#type, options) in
                [("bind", &[][..]), ("none", &["bind"]), ("", &["rbind"]), ("bind", &["rbind"])]
            {
                inside("test -d /srv/bin", move |spec| mount(spec, "/srv", r#type, "/usr", options));
            }
        },
    },
    Statement {
        part: MOUNTS,
        says: "a source that is not there is an error",
        check: || {
            refused("/nosuch", |spec| mount(spec, "/srv", "bind", "/nosuch", &["bind"]));
        },
    },
    Statement {
        part: MOUNTS,
        says: "an unknown file system is an error",
        check: || {
            refused("nosuchfs", |spec| mount(spec, "/srv", "nosuchfs", "x", &[]));
        },
    },
    Statement {
        part: MOUNTS,
        says: "an unknown option is an error",
        check: || {
            refused("nosuchoption", |spec| mount(spec, "/srv", "tmpfs", "tmpfs", &["nosuchoption"]));
        },
    },
    Statement {
        part: MOUNTS,
        says: "options of the file system are its own",
        check: || {
            let text = inside("stat -c %a:%u:%g /srv; df -k /srv | tail -1 | awk '{print $2}'", |spec| {
                mount(spec, "/srv", "tmpfs", "tmpfs", &["mode=711", "size=64k", "uid=5", "gid=6"]);
            });
            assert!(text.starts_with("711:5:6"), "{text}");
        },
    },
    Statement { part: OPTIONS, says: "ro", check: || has(&["ro"], "ro") },
    Statement { part: OPTIONS, says: "rw", check: || has(&["ro", "rw"], "rw") },
    Statement { part: OPTIONS, says: "nosuid", check: || has(&["nosuid"], "nosuid") },
    Statement { part: OPTIONS, says: "suid", check: || has_not(&["nosuid", "suid"], "nosuid") },
    Statement { part: OPTIONS, says: "nodev", check: || has(&["nodev"], "nodev") },
    Statement { part: OPTIONS, says: "dev", check: || has_not(&["nodev", "dev"], "nodev") },
    Statement { part: OPTIONS, says: "noexec", check: || has(&["noexec"], "noexec") },
    Statement { part: OPTIONS, says: "exec", check: || has_not(&["noexec", "exec"], "noexec") },
    Statement { part: OPTIONS, says: "noatime", check: || has(&["noatime"], "noatime") },
    Statement { part: OPTIONS, says: "relatime", check: || has(&["noatime", "relatime"], "relatime") },
    Statement {
        part: OPTIONS,
        says: "atime, norelatime",
        check: || {
            has_not(&["noatime", "atime"], "noatime");
            has_not(&["norelatime"], "noatime");
        },
    },
    Statement {
        part: OPTIONS,
        says: "strictatime",
        check: || {
            has_not(&["strictatime"], "relatime");
            has_not(&["strictatime"], "noatime");
        },
    },
    Statement {
        part: OPTIONS,
        says: "nodiratime, diratime",
        check: || {
            has(&["nodiratime"], "nodiratime");
            has_not(&["nodiratime", "diratime"], "nodiratime");
        },
    },
    Statement { part: OPTIONS, says: "nosymfollow", check: || has(&["nosymfollow"], "nosymfollow") },
    Statement {
        part: OPTIONS,
        says: "defaults, sync, async, silent, loud, mand, nomand, iversion, noiversion, acl",
        check: || {
            for option in ["defaults", "sync", "async", "dirsync", "silent", "loud", "nomand", "noiversion"] {
                inside("grep -q ' /srv ' /proc/self/mountinfo", move |spec| {
                    mount(spec, "/srv", "tmpfs", "tmpfs", &[option]);
                });
            }
        },
    },
    Statement { part: OPTIONS, says: "rro", check: || recursively("rro", "ro") },
    Statement { part: OPTIONS, says: "rnosuid", check: || recursively("rnosuid", "nosuid") },
    Statement { part: OPTIONS, says: "rnodev", check: || recursively("rnodev", "nodev") },
    Statement { part: OPTIONS, says: "rnoexec", check: || recursively("rnoexec", "noexec") },
    Statement { part: OPTIONS, says: "rnoatime", check: || recursively("rnoatime", "noatime") },
    Statement { part: OPTIONS, says: "rnosymfollow", check: || recursively("rnosymfollow", "nosymfollow") },
    Statement {
        part: OPTIONS,
        says: "private, slave, shared, unbindable",
        check: || {
            for (option, shown) in [("private", ""), ("shared", "shared:"), ("unbindable", "unbindable")] {
                let line = inside("grep ' /srv ' /proc/self/mountinfo", move |spec| {
                    mount(spec, "/srv", "tmpfs", "tmpfs", &[option]);
                });
                let tags = line.split(" - ").next().unwrap();
                assert!(tags.contains(shown), "{option}: {line}");
                assert!(
                    option != "private" || !(tags.contains("shared:") || tags.contains("master:")),
                    "{line}"
                );
            }
        },
    },
    Statement {
        part: OPTIONS,
        says: "tmpcopyup: what is below is copied up",
        check: || {
            let bundle = Bundle::script("cat /etc/passwd | wc -l; stat -f -c %T /etc; stat -c %a /etc/mode");
            let mut spec = bundle.spec();
            mount(&mut spec, "/etc", "tmpfs", "tmpfs", &["tmpcopyup"]);
            bundle.write_spec(&spec);
            let file = bundle.root().join("etc/mode");
            fs::write(&file, "").unwrap();
            fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o641)).unwrap();
            assert_eq!(stdout(&bundle.run()), "2\ntmpfs\n641\n");
        },
    },
    Statement {
        part: OPTIONS,
        says: "uidMappings and gidMappings: the mount is id-mapped",
        check: || {
            let bundle = Bundle::script("stat -c %u:%g /srv/file");
            let tree = bundle.path().join("tree");
            fs::create_dir(&tree).unwrap();
            fs::write(tree.join("file"), "").unwrap();
            std::os::unix::fs::chown(tree.join("file"), Some(100), Some(200)).unwrap();
            let mut spec = bundle.spec();
            mount(&mut spec, "/srv", "bind", tree.to_str().unwrap(), &["bind", "idmap"]);
            let last = spec["mounts"].as_array_mut().unwrap().last_mut().unwrap();
            last["uidMappings"] = json!([{"containerID": 100, "hostID": 1100, "size": 1}]);
            last["gidMappings"] = json!([{"containerID": 200, "hostID": 1200, "size": 1}]);
            bundle.write_spec(&spec);
            let output = bundle.run();
            if stderr(&output).contains("Invalid argument") {
                skip("the file system of the temporary directory cannot be id-mapped");
            }
            assert_eq!(stdout(&output), "1100:1200\n");
        },
    },
    Statement {
        part: OPTIONS,
        says: "uidMappings without gidMappings is an error",
        check: || {
            refused("mounts[7]", |spec| {
                mount(spec, "/srv", "bind", "/usr", &["bind"]);
                spec["mounts"][7]["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
            });
        },
    },
    Statement {
        part: "config-linux.md Default file systems",
        says: "/proc, /sys, /dev/pts and /dev/shm are what they are called",
        check: || {
            let script = "for name in proc sys dev/pts dev/shm dev/mqueue; do stat -f -c %T /$name; done";
            let text = inside(script, |_| {});
            let kinds: Vec<&str> = text.lines().collect();
            assert_eq!(kinds.len(), 5, "{text}");
            assert_eq!([kinds[0], kinds[1], kinds[2], kinds[3]], ["proc", "sysfs", "devpts", "tmpfs"]);
        },
    },
    Statement {
        part: MOUNTS,
        says: "null stands for an empty list of options",
        check: || {
            inside("grep -q ' /srv ' /proc/self/mountinfo", |spec: &mut Value| {
                mount(spec, "/srv", "tmpfs", "tmpfs", &[]);
                spec["mounts"][7]["options"] = Value::Null;
            });
        },
    },
];
