//! What explore says of an image.

use ponton_api::explore::FileChange::{Added, Changed, Removed};

use super::*;

#[test]
fn layers_files_and_waste() {
    let lab = Lab::new();
    let lower = tar(&[
        ("d/", Kind::Directory, ""),
        ("d/a", Kind::Regular, "aaaa"),
        ("d/sub/", Kind::Directory, ""),
        ("d/sub/b", Kind::Regular, "bb"),
        ("gone", Kind::Regular, "12345"),
        ("kept", Kind::Regular, "k"),
    ]);
    let upper = tar(&[
        ("d/", Kind::Directory, ""),
        ("d/.wh..wh..opq", Kind::Regular, ""),
        ("d/a", Kind::Regular, "AAAAAA"),
        ("l", Kind::Symlink, "kept"),
        (".wh.gone", Kind::Regular, ""),
    ]);
    lab.load(&docker_archive(&[lower, upper], "a:1")).unwrap();
    let found = lab.images.explore("a:1", true).unwrap();
    assert_eq!((found.tags, found.size), (vec!["a:1".to_owned()], 12 + 6));
    assert_eq!(found.layers.iter().map(|layer| layer.size).collect::<Vec<_>>(), [12, 6]);
    assert_eq!(found.layers[0].command, "x");
    let files = |layer: usize| -> Vec<_> {
        let files = found.layers[layer].files.as_ref().unwrap();
        files.iter().map(|file| (file.path.as_str(), file.change, file.size)).collect()
    };
    assert!(files(0).iter().all(|(_, change, _)| *change == Added), "{:?}", files(0));
    let expected = [
        ("d", Changed, 0),
        ("d/a", Changed, 6),
        ("d/sub", Removed, 2),
        ("gone", Removed, 5),
        ("l", Added, 0),
    ];
    assert_eq!(files(1), expected);
    let link = &found.layers[1].files.as_ref().unwrap()[4];
    assert_eq!((link.mode, link.link.as_str()), (0o120_755, "kept"));
    // d/a: 4 and 6; gone: 5 and 0, as a file; the opaque directory is nothing to dive.
    let wasted: Vec<_> =
        found.wasted.iter().map(|path| (path.path.as_str(), path.count, path.size)).collect();
    assert_eq!(wasted, [("d/a", 2, 10), ("gone", 2, 5)]);
    assert_eq!(found.wasted_bytes, 15);
    assert!((found.efficiency - 7.0 / 18.0).abs() < 1e-12, "{}", found.efficiency);
    assert!((found.user_wasted - 15.0 / 6.0).abs() < 1e-12, "{}", found.user_wasted);
    assert!(lab.images.explore("a:1", false).unwrap().layers.iter().all(|layer| layer.files.is_none()));
    assert!(matches!(lab.images.explore("none", false), Err(Error::NotFound(_))));
}

#[test]
fn headers_alone_say_as_much_as_the_whole_tar() {
    let lab = Lab::new();
    let large = "x".repeat(700_000);
    let layer = tar(&[("a", Kind::Regular, "1"), ("a", Kind::Regular, &large), ("h", Kind::HardLink, "a")]);
    lab.load(&docker_archive(&[layer], "a:1")).unwrap();
    let chain = lab.images.get("a:1").unwrap().chain[0].clone();
    let with_recipe = lab.images.explore("a:1", true).unwrap();
    assert_eq!(with_recipe.size, 700_001);
    // The score is of the tree, where the second `a` took the place of the first.
    assert!((with_recipe.efficiency - 1.0).abs() < 1e-12);
    let outline = lab.images.snapshotter.outline(&chain).unwrap().unwrap();
    let mut reader = ponton_archive::reader::Reader::new(outline);
    let mut sizes = Vec::new();
    while let Some(header) = reader.next_entry().unwrap() {
        sizes.push(header.size);
    }
    assert_eq!(sizes, [1, 700_000, 0]);
}
