//! Archives and layouts that others write and read.

use super::*;

#[test]
fn a_layout_in_a_directory_goes_out_and_in() {
    let lab = Lab::new();
    let id = lab.import("base:1", &tar(&[("f", Kind::Regular, &"x".repeat(3_000_000))]));
    let layout = lab.directory.path().join("layout");
    let names = ["base:1".to_owned()];
    lab.images.save_directory(&names, &SaveOptions::default(), &layout).unwrap();
    assert!(layout.join("oci-layout").exists());
    assert!(matches!(
        lab.images.save_directory(&names, &SaveOptions::default(), &layout),
        Err(Error::Invalid(_))
    ));
    let other = Lab::new();
    let loaded = other.images.load_directory(&layout, &LoadOptions::default(), &mut |_| {}).unwrap();
    assert_eq!((&loaded[0].id, loaded[0].references[0].familiar().as_str()), (&id, "base:1"));
    let missing = lab.directory.path().join("missing");
    assert!(matches!(
        lab.images.load_directory(&missing, &LoadOptions::default(), &mut |_| {}),
        Err(Error::Io { .. })
    ));
    let unknown = ["unknown".to_owned()];
    let elsewhere = lab.directory.path().join("elsewhere");
    assert!(matches!(
        lab.images.save_directory(&unknown, &SaveOptions::default(), &elsewhere),
        Err(Error::NotFound(_))
    ));
}

/// A program that exchanges images with us; its output.
fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    output.stdout
}

/// An image with what makes tars differ: owners, links, devices, attributes, several layers.
fn rich(lab: &Lab) -> Image {
    let mut writer = Writer::new(Vec::new());
    let directory =
        Header { path: b"d/".to_vec(), kind: Kind::Directory, mode: 0o1777, uid: 7, ..Header::default() };
    writer.header(&directory).unwrap();
    let file = Header {
        path: b"d/\xc3\xa4".to_vec(),
        mode: 0o4755,
        xattrs: vec![(b"user.a".to_vec(), b"b".to_vec())],
        ..Header::default()
    };
    writer.file(&file, b"contents").unwrap();
    let link = |path: &str, kind, link: &str| Header {
        path: path.as_bytes().to_vec(),
        kind,
        link: link.as_bytes().to_vec(),
        ..Header::default()
    };
    writer.header(&link("hard", Kind::HardLink, "d/\u{e4}")).unwrap();
    writer.header(&link("soft", Kind::Symlink, "d")).unwrap();
    let lower = writer.finish().unwrap();
    let upper = tar(&[("d/.wh.\u{e4}", Kind::Regular, ""), ("new", Kind::Regular, "n")]);
    lab.load(&docker_archive(&[lower, upper], "rich:1")).unwrap();
    lab.images.get("rich:1").unwrap()
}

#[test]
fn skopeo_reads_what_we_save_and_we_what_it_writes() {
    let lab = Lab::new();
    let image = rich(&lab);
    let path = |name: &str| lab.directory.path().join(name).to_str().unwrap().to_owned();
    for (format, kind) in [(Format::Docker, "docker-archive"), (Format::Oci, "oci-archive")] {
        let saved = path(&format!("{kind}.tar"));
        let mut file = std::fs::File::create(&saved).unwrap();
        let options = SaveOptions { format, ..SaveOptions::default() };
        lab.images.save(&["rich:1".to_owned()], &options, &mut file).unwrap();
        let source = format!("{kind}:{saved}");
        let config = run("skopeo", &["--insecure-policy", "inspect", "--raw", "--config", &source]);
        assert_eq!(config, image.raw, "{kind}");
        for target in ["docker-archive", "oci-archive"] {
            let copied = path(&format!("{kind}-{target}.tar"));
            let name = if target == "docker-archive" { ":rich:1" } else { ":docker.io/library/rich:1" };
            let to = format!("{target}:{copied}{name}");
            run("skopeo", &["--insecure-policy", "copy", "-q", &source, &to]);
            let other = Lab::new();
            other.load(&std::fs::read(&copied).unwrap()).unwrap();
            let found = other.images.get("rich:1").unwrap();
            assert_eq!(found.chain, image.chain, "{kind} {target}");
            // From one form to the other, skopeo writes a configuration of its own.
            if kind == target {
                assert_eq!((found.id, found.raw), (image.id.clone(), image.raw.clone()), "{kind}");
            }
        }
        let layout = path(&format!("{kind}.layout"));
        run("skopeo", &["--insecure-policy", "copy", "-q", &source, &format!("oci:{layout}:rich:1")]);
        let other = Lab::new();
        other.images.load_directory(Path::new(&layout), &LoadOptions::default(), &mut |_| {}).unwrap();
        let found = other.images.get("rich:1").unwrap();
        assert_eq!((found.chain, found.id == image.id), (image.chain.clone(), format == Format::Oci));
    }
}

#[test]
fn podman_loads_what_we_save_and_we_what_it_saves() {
    let lab = Lab::new();
    let image = rich(&lab);
    lab.import("plain:2", &tar(&[("f", Kind::Regular, "x")]));
    let path = |name: &str| lab.directory.path().join(name).to_str().unwrap().to_owned();
    let (root, runroot) = (path("podman"), path("podman-run"));
    let podman = |arguments: &[&str]| {
        let storage = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
        let all: Vec<&str> = storage.into_iter().chain(arguments.iter().copied()).collect();
        String::from_utf8(run("podman", &all)).unwrap().trim().to_owned()
    };
    let saved = path("saved.tar");
    std::fs::write(&saved, lab.save(&["rich:1", "plain:2"])).unwrap();
    podman(&["load", "-q", "-i", &saved]);
    for name in ["rich:1", "plain:2"] {
        let id = podman(&["image", "inspect", "--format", "{{.Id}}", name]);
        assert_eq!(id, lab.images.get(name).unwrap().id.hex());
    }
    for format in ["docker-archive", "oci-archive"] {
        let saved = path(&format!("{format}.tar"));
        podman(&["save", "-q", "--format", format, "-o", &saved, "rich:1"]);
        let other = Lab::new();
        other.load(&std::fs::read(&saved).unwrap()).unwrap();
        let found = other.images.get("localhost/rich:1").unwrap();
        assert_eq!(found.chain, image.chain, "{format}");
        // An OCI archive of a docker image has a configuration that podman wrote.
        assert_eq!(found.id == image.id, format == "docker-archive");
    }
    let saved = path("several.tar");
    podman(&["save", "-q", "-m", "-o", &saved, "rich:1", "plain:2"]);
    let other = Lab::new();
    assert_eq!(other.load(&std::fs::read(&saved).unwrap()).unwrap().len(), 2);
    assert_eq!(other.images.get("localhost/plain:2").unwrap().id, lab.images.get("plain:2").unwrap().id);
}

#[test]
fn names_and_platforms_choose_what_is_saved() {
    let lab = Lab::new();
    let id = lab.import("base:1", &tar(&[("f", Kind::Regular, "1")]));
    lab.import("base:2", &tar(&[("f", Kind::Regular, "2")]));
    lab.import("base-other:1", &tar(&[("f", Kind::Regular, "3")]));
    let loaded = Lab::new().load(&lab.save(&["base"])).unwrap();
    let names: Vec<String> =
        loaded.iter().flat_map(|image| &image.references).map(Reference::familiar).collect();
    assert_eq!(names, ["base:1", "base:2"]);
    assert_eq!(Lab::new().load(&lab.save(&[id.hex()])).unwrap()[0].references, []);
    let other: Platform = "linux/s390x".parse().unwrap();
    let options = SaveOptions { platforms: vec![other.clone()], ..SaveOptions::default() };
    assert!(matches!(
        lab.images.save(&["base:1".to_owned()], &options, &mut Vec::new()),
        Err(Error::NoPlatform { .. })
    ));
    // An image for another platform is loaded if that is asked for, or if there is nothing else.
    let import = ImportOptions {
        reference: Some(Reference::parse("far:1").unwrap()),
        platform: Some(other.clone()),
        created: CREATED.to_owned(),
        ..ImportOptions::default()
    };
    lab.images.import(&mut &tar(&[("f", Kind::Regular, "4")])[..], &import).unwrap();
    let oci = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut out = Vec::new();
        let options = SaveOptions { format: Format::Oci, ..SaveOptions::default() };
        lab.images.save(&names, &options, &mut out).unwrap();
        out
    };
    let load = |archive: &[u8], platforms: &[Platform]| {
        let options = LoadOptions { platforms: platforms.to_vec(), now: 0 };
        let loaded = Lab::new().images.load(&mut &archive[..], &options, &mut |_| {});
        let names = |image: LoadedImage| image.references[0].familiar();
        loaded.map(|loaded| loaded.into_iter().map(names).collect::<Vec<_>>())
    };
    let both = oci(&["base:1", "far:1"]);
    assert_eq!(load(&both, &[]).unwrap(), ["base:1"]);
    assert_eq!(load(&both, std::slice::from_ref(&other)).unwrap(), ["far:1"]);
    assert_eq!(load(&oci(&["far:1"]), &[]).unwrap(), ["far:1"]);
    assert!(matches!(load(&both, &["linux/riscv64".parse().unwrap()]), Err(Error::Invalid(_))));
    let docker = lab.save(&["base:1", "far:1"]);
    assert_eq!(load(&docker, &[other]).unwrap(), ["far:1"]);
}

#[test]
fn a_layer_that_is_here_is_not_unpacked_again() {
    let lab = Lab::new();
    lab.import("base:1", &tar(&[("f", Kind::Regular, "1")]));
    let archive = lab.save(&["base:1"]);
    let mut unpacked = 0;
    let mut count = |progress| unpacked += usize::from(matches!(progress, Progress::Layer { .. }));
    lab.images.load(&mut &archive[..], &LoadOptions::default(), &mut count).unwrap();
    assert_eq!((unpacked, lab.directories()), (0, 1));
    // What is here does not excuse what is wrong in the archive.
    let mut corrupt = archive;
    let place = corrupt.windows(5).position(|window| window == b"ustar").unwrap();
    let file = corrupt[place + 2000..].iter().position(|byte| *byte == b'1').unwrap();
    corrupt[place + 2000 + file] = b'2';
    assert!(lab.load(&corrupt).is_err());
}
