//! What takes care of the disk: prune, the budget, and the check.

use std::time::Duration;

use ponton_oci::digest::ImageId;

use super::*;
use crate::tests::Lab;
use crate::transfer_tests::{Registry, host, layer};

fn nobody(_: &ImageId) -> Vec<User> {
    Vec::new()
}

fn all(_: &ImageSummary) -> bool {
    true
}

/// Two pulled images that share their base, and one that was made here.
fn lab() -> (Lab, Registry) {
    let (lab, registry) = (Lab::new(), Registry::default());
    let base = layer("a", &"base".repeat(100));
    for name in ["one", "two"] {
        registry.put_image(&format!("reg.test/{name}"), &[base.clone(), layer("b", name)], &host());
        lab.pull(&registry, &format!("reg.test/{name}")).unwrap();
    }
    lab.import("made", &layer("c", "made"));
    (lab, registry)
}

#[test]
fn disk_usage_counts_every_layer_once() {
    let (lab, _) = lab();
    let one = lab.images.get("reg.test/one").unwrap().id;
    let users = |id: &ImageId| {
        let user = User { container: "c1".to_owned(), running: false };
        if *id == one { vec![user] } else { Vec::new() }
    };
    let usage = lab.images.disk_usage(&users).unwrap();
    assert_eq!(usage.layers, 400 + 3 + 3 + 4);
    let of_one = usage.images.iter().find(|image| image.summary.id == one).unwrap();
    assert_eq!((of_one.shared, of_one.containers, of_one.summary.size), (400, 1, 403));
    let blobs: u64 = lab.store.content().list().unwrap().iter().map(|(_, size)| size).sum();
    assert_eq!(usage.blobs, blobs);
    assert!(usage.reclaimable >= 3 + 4 && usage.reclaimable < 400 + 403, "{}", usage.reclaimable);
}

#[test]
fn a_prune_removes_what_is_wanted_and_unused_with_all_names() {
    let (lab, _) = lab();
    let one = lab.images.get("reg.test/one").unwrap().id;
    let users = |id: &ImageId| {
        let user = User { container: "c1".to_owned(), running: false };
        if *id == one { vec![user] } else { Vec::new() }
    };
    let none = lab.images.prune(&|_| false, &users).unwrap();
    assert_eq!(none, Pruned::default());
    let pruned = lab.images.prune(&all, &users).unwrap();
    assert_eq!(pruned.removed.len(), 2);
    assert!(pruned.freed > 7, "blobs count, too");
    assert_eq!(lab.images.summaries().unwrap().len(), 1);
    assert_eq!(lab.read("reg.test/one", "b"), "one");
    lab.images.prune(&all, &nobody).unwrap();
    lab.assert_empty();
}

#[test]
fn the_budget_takes_what_was_unused_for_longest_and_can_be_had_again() {
    let (lab, registry) = lab();
    let second = 1_000_000_000;
    let names = ["reg.test/one", "reg.test/two"];
    let ids: Vec<ImageId> = names.iter().map(|name| lab.images.get(name).unwrap().id).collect();
    lab.images.used(&ids[0], 5 * second);
    lab.images.used(&ids[1], 3 * second);
    let unlimited = Budget { images_max: u64::MAX, free_min: 0, unused_min: Duration::from_secs(60) };
    let keep = |budget: &Budget, now: i64| lab.images.keep_budget(budget, &nobody, now).unwrap();
    assert_eq!(keep(&unlimited, 100 * second), Collected::default());
    // Used a moment ago.
    let nothing = Budget { images_max: 0, ..unlimited };
    let kept = keep(&nothing, 30 * second);
    assert!(kept.removed.is_empty() && kept.exceeded.images > 0);
    // A disk that others filled.
    let full = keep(&Budget { free_min: u64::MAX, ..unlimited }, 30 * second).exceeded;
    assert!(full.images == 0 && full.disk > 0, "{full:?}");
    // A byte too much: the one that was not used for longer goes, and no more.
    let usage = lab.images.disk_usage(&nobody).unwrap();
    let tight = Budget { images_max: usage.layers + usage.blobs - 1, ..unlimited };
    let collected = keep(&tight, 100 * second);
    assert_eq!(collected.removed.iter().map(|(id, _)| id).collect::<Vec<_>>(), [&ids[1]]);
    assert_eq!(collected.exceeded.bytes(), 0);
    // A name of the user's own, or a container, keeps the image.
    lab.tag("reg.test/one", "mine");
    assert!(keep(&nothing, 100 * second).removed.is_empty());
    lab.images.remove("mine", false, &nobody).unwrap();
    let in_use = |_: &ImageId| vec![User { container: "c1".to_owned(), running: false }];
    assert!(lab.images.keep_budget(&nothing, &in_use, 100 * second).unwrap().removed.is_empty());
    let collected = keep(&nothing, 100 * second);
    assert_eq!(collected.removed.len(), 1);
    assert!(collected.exceeded.images > 0, "what was made here stays");
    assert_eq!(lab.read("made", "c"), "made");
    // Pushed, it can be had again.
    lab.tag("made", "reg.test/made");
    lab.push(&registry, "reg.test/made").unwrap();
    lab.images.remove("made", false, &nobody).unwrap();
    keep(&nothing, i64::MAX);
    lab.assert_empty();
}

#[test]
fn a_sound_store_passes_the_check() {
    let (lab, _) = lab();
    let mut last = None;
    let report = lab.images.check(false, &mut |progress| last = Some(progress)).unwrap();
    assert_eq!(report.problems, []);
    assert_eq!((report.blobs, report.layers, report.images), (8, 4, 3));
    assert!(last.unwrap().current <= report.bytes);
}

fn objects(report: &Report) -> Vec<(&str, bool)> {
    report
        .problems
        .iter()
        .map(|problem| (problem.object.split(' ').next().unwrap(), problem.repaired))
        .collect()
}

#[test]
fn a_damaged_layer_is_restored_with_those_that_stand_on_it() {
    let (lab, _) = lab();
    let chain = lab.images.get("reg.test/one").unwrap().chain;
    std::fs::write(lab.tree(&chain[0]).join("a"), "evil").unwrap();
    assert_eq!(objects(&lab.images.check(false, &mut |_| {}).unwrap()), [("layer", false)]);
    // Not under a container.
    lab.images.snapshotter.prepare("c1", Some(&chain[1])).unwrap();
    let report = lab.images.check(true, &mut |_| {}).unwrap();
    assert_eq!(objects(&report), [("layer", false)]);
    assert!(report.problems[0].remedy.contains("a container stands on it"), "{report:?}");
    lab.images.snapshotter.remove("c1").unwrap();
    assert_eq!(objects(&lab.images.check(true, &mut |_| {}).unwrap()), [("layer", true)]);
    assert_eq!(lab.read("reg.test/one", "a"), "base".repeat(100));
    assert_eq!(lab.read("reg.test/two", "b"), "two");
    assert_eq!(lab.images.check(false, &mut |_| {}).unwrap().problems, []);
    // One that nobody can give again is named.
    let made = lab.images.get("made").unwrap().chain;
    std::fs::write(lab.tree(&made[0]).join("c"), "evil").unwrap();
    let report = lab.images.check(true, &mut |_| {}).unwrap();
    assert_eq!(objects(&report), [("layer", false)]);
    assert!(report.problems[0].remedy.contains("made:latest"), "{report:?}");
}

#[test]
fn damaged_blobs_are_named_and_a_pull_brings_them_back() {
    let (lab, registry) = lab();
    let damage = |digest: &ponton_oci::Digest| {
        std::fs::write(lab.store.content().path(digest), "evil").unwrap();
    };
    let image = lab.images.get("reg.test/one").unwrap();
    let layers = lab.store.images().get(&image.id).unwrap().unwrap().layers;
    let blob = lab.store.images().blobs_of(&layers[0].diff_id).unwrap()[0].digest.clone();
    let manifest = lab.images.summaries().unwrap().into_iter().find(|it| it.id == image.id).unwrap();
    damage(&blob);
    let report = lab.images.check(true, &mut |_| {}).unwrap();
    assert_eq!(objects(&report), [("blob", true)]);
    assert_eq!(lab.images.check(false, &mut |_| {}).unwrap().problems, []);

    damage(image.id.digest());
    damage(manifest.manifest.unwrap().digest());
    let report = lab.images.check(true, &mut |_| {}).unwrap();
    assert_eq!(objects(&report), [("blob", false), ("blob", false), ("image", false)]);
    lab.pull(&registry, "reg.test/one").unwrap();
    assert_eq!(lab.images.check(false, &mut |_| {}).unwrap().problems, []);
    assert_eq!(lab.images.get("reg.test/one").unwrap().id, image.id);

    std::fs::remove_file(lab.store.content().path(image.id.digest())).unwrap();
    assert_eq!(objects(&lab.images.check(true, &mut |_| {}).unwrap()), [("image", false)]);
    lab.images.remove("reg.test/one", false, &nobody).unwrap();
    assert_eq!(lab.images.check(false, &mut |_| {}).unwrap().problems, []);
}

#[test]
fn what_a_kill_left_is_found_and_removed() {
    let (lab, _) = lab();
    lab.store.content().put(b"orphan").unwrap();
    let unpacked = lab.images.unpack(&mut layer("x", "orphan").as_slice(), "x", &mut |_| {}).unwrap();
    let chain = ponton_oci::ChainId::from(unpacked.info.diff_id.digest().clone());
    let filled = ponton_snapshot::FilledLayer { writer: unpacked.writer, chain: chain.clone(), parent: None };
    lab.images.snapshotter.commit_layers(vec![filled]).unwrap();
    let report = lab.images.check(false, &mut |_| {}).unwrap();
    assert_eq!(objects(&report), [("blob", false), ("layer", false)]);
    // As long as somebody works with it, it is no leftover.
    let lease = lab.store.lease();
    lease.hold(chain.digest());
    assert_eq!(objects(&lab.images.check(true, &mut |_| {}).unwrap()), [("blob", true)]);
    drop(lease);
    assert_eq!(objects(&lab.images.check(true, &mut |_| {}).unwrap()), [("layer", true)]);
    assert_eq!(lab.images.check(false, &mut |_| {}).unwrap().problems, []);
}

#[test]
#[ignore = "measures: run it in release"]
fn a_thousand_images_are_listed_fast() {
    let lab = Lab::new();
    for number in 0..1000 {
        let config = format!(r#"{{"os":"linux","n":{number},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#);
        let name = Reference::parse(&format!("image{number}")).unwrap();
        lab.images.commit(crate::layer::Stack::default(), config.as_bytes(), 0, &[name], 0).unwrap();
    }
    let begin = std::time::Instant::now();
    assert_eq!(lab.images.summaries().unwrap().len(), 1000);
    println!("{:?}", begin.elapsed());
}
