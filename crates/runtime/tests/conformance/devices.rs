//! config-linux.md, "Devices" and "Default Devices".

use serde_json::{Value, json};

use crate::{Statement, inside, refused};

const DEVICES: &str = "config-linux.md Devices";

fn with_device(spec: &mut Value, device: Value) {
    spec["linux"]["devices"] = json!([device]);
    spec["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
}

pub(crate) const ALL: &[Statement] = &[
    Statement {
        part: DEVICES,
        says: "a character device, with mode and owner",
        check: || {
            let text = inside("stat -c %t:%T:%a:%u:%g:%F /dev/made", |spec| {
                with_device(
                    spec,
                    json!({
                        "path": "/dev/made", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4,
                    }),
                );
            });
            assert_eq!(text, "1:5:640:3:4:character special file");
        },
    },
    Statement {
        part: DEVICES,
        says: "a block device",
        check: || {
            let text = inside("stat -c %t:%T:%F /dev/made", |spec| {
                with_device(spec, json!({"path": "/dev/made", "type": "b", "major": 7, "minor": 0}));
            });
            assert_eq!(text, "7:0:block special file");
        },
    },
    Statement {
        part: DEVICES,
        says: "a fifo",
        check: || {
            let text = inside("stat -c %F /dev/made", |spec| {
                with_device(spec, json!({"path": "/dev/made", "type": "p"}));
            });
            assert_eq!(text, "fifo");
        },
    },
    Statement {
        part: DEVICES,
        says: "u stands for an unbuffered character device",
        check: || {
            let text = inside("stat -c %F /dev/made", |spec| {
                with_device(spec, json!({"path": "/dev/made", "type": "u", "major": 1, "minor": 3}));
            });
            assert_eq!(text, "character special file");
        },
    },
    Statement {
        part: DEVICES,
        says: "a device may be anywhere",
        check: || {
            let text = inside("stat -c %t:%T /srv/deep/made", |spec| {
                spec["root"]["readonly"] = json!(false);
                with_device(spec, json!({"path": "/srv/deep/made", "type": "c", "major": 1, "minor": 3}));
            });
            assert_eq!(text, "1:3");
        },
    },
    Statement {
        part: DEVICES,
        says: "another file at the path is an error",
        check: || {
            refused("/etc/passwd", |spec| {
                with_device(spec, json!({"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3}));
            });
        },
    },
    Statement {
        part: DEVICES,
        says: "the same device at the path is none",
        check: || {
            inside("test -c /dev/null", |spec| {
                with_device(spec, json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3}));
            });
        },
    },
    Statement {
        part: DEVICES,
        says: "type, major and minor are required",
        check: || {
            refused("linux.devices[0].type", |spec| {
                with_device(spec, json!({"path": "/dev/x", "major": 1, "minor": 1}));
            });
            refused("linux.devices[0]", |spec| with_device(spec, json!({"path": "/dev/x", "type": "z"})));
            refused("linux.devices[0].path", |spec| {
                with_device(spec, json!({"type": "c", "major": 1, "minor": 1}));
            });
        },
    },
    Statement {
        part: "config-linux.md Default Devices",
        says: "null, zero, full, random, urandom, tty",
        check: || {
            let script =
                "for name in null zero full random urandom tty; do stat -c %t:%T:%a /dev/$name; done";
            let expected = "1:3:666\n1:5:666\n1:7:666\n1:8:666\n1:9:666\n5:0:666";
            assert_eq!(inside(script, |_| {}), expected);
        },
    },
    Statement {
        part: "config-linux.md Default Devices",
        says: "ptmx is that of the container's /dev/pts",
        check: || {
            assert_eq!(inside("readlink /dev/ptmx", |_| {}), "pts/ptmx");
        },
    },
];
