//! `cp` of a tree out of a container, beside tar itself, and `diff` on a large image.

use std::path::Path;
use std::process::Command;

use ponton_testkit::image;

use super::{Engine, Row, Table, alternate, median, quiet, timed};

/// How often a tree is copied by each.
const TIMES: usize = 3;
/// As many of the large image's directories, of 1,501 entries each, as the tree has.
const DIRECTORIES: usize = 16;

pub(super) fn run(ours: &Engine, theirs: &Engine, rows: &mut Table) {
    let cache = image::project().join(".cache/images");
    let big = cache.join("big.tar").to_string_lossy().into_owned();
    let directory =
        tempfile::Builder::new().prefix("ponton-bench-").tempdir_in(&cache).expect("a temporary directory");
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let (source, archive, out) = (path("source"), path("tree.tar"), path("out"));
    let names = (1..=DIRECTORIES).map(|n| format!("./usr/d{n}")).collect::<Vec<_>>().join(" ");
    let script = format!("mkdir \"$1\" && tar -xf \"$0\" -C \"$1\" {names} && tar -C \"$1\" -cf \"$2\" usr");
    shell(&script, &[&big, &source, &archive]);
    for engine in [ours, theirs] {
        timed((engine.client)(&["import", &archive, "tree:1"]));
        timed((engine.client)(&["create", "--name", "tree", "tree:1", "true"]));
        timed((engine.client)(&["import", &big, "big:1"]));
        timed((engine.client)(&["create", "--name", "big", "big:1", "true"]));
        timed((engine.client)(&["cp", &format!("{source}/usr/d1"), "big:/copied"]));
        quiet(engine);
    }
    let (ponton, dockerd) = alternate(10, ours, theirs, &["diff", "big"]);
    let what = "diff of a container on an image of 75,000 entries";
    rows.push(&Row { what, unit: "ms", ponton, dockerd, aim: "<= 50 ms" });
    let [mut tar, mut mine, mut peer] = [const { Vec::new() }; 3];
    for _ in 0..TIMES {
        tar.push(emptied(&out, || {
            shell("mkdir \"$1\" && tar -C \"$0/usr\" -cf - . | tar -C \"$1\" -xf -", &[&source, &out])
        }));
        for (engine, taken) in [(ours, &mut mine), (theirs, &mut peer)] {
            taken.push(emptied(&out, || timed((engine.client)(&["cp", "tree:/usr", &out]))));
        }
    }
    let (tar, ponton, dockerd) = (median(tar) / 1e3, median(mine) / 1e3, median(peer) / 1e3);
    rows.push(&Row {
        what: "cp of 24,000 files out of a container",
        unit: "s",
        ponton,
        dockerd,
        aim: "1.3x tar",
    });
    rows.notes.push(format!(
        "cp: `tar -c | tar -x` of the same tree takes {tar:.3} s, and Ponton {:.2} times as long.",
        ponton / tar
    ));
    for engine in [ours, theirs] {
        timed((engine.client)(&["rm", "tree", "big"]));
        timed((engine.client)(&["rmi", "tree:1", "big:1"]));
        quiet(engine);
    }
}

/// Milliseconds of work that makes a tree, which is removed again; all are written before the next begins.
fn emptied(out: &str, work: impl FnOnce() -> f64) -> f64 {
    let elapsed = work();
    assert!(Path::new(out).is_dir(), "{out} was not made");
    std::fs::remove_dir_all(out).expect("remove the copy");
    let _ = Command::new("sync").status();
    elapsed
}

fn shell(script: &str, arguments: &[&str]) -> f64 {
    let mut command = Command::new("sh");
    command.args(["-c", script]).args(arguments);
    timed(command)
}
