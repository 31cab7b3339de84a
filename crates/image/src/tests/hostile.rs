//! Archives that mean harm: one error, and nothing stays.

use super::*;

/// An archive from names and contents.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, data) in files {
        writer.file(&Header { path: name.as_bytes().to_vec(), ..Header::default() }, data).unwrap();
    }
    writer.finish().unwrap()
}

fn refused(lab: &Lab, archive: &[u8], why: &str) {
    let error = lab.load(archive).unwrap_err();
    let text = format!("{error:?} {error}");
    assert!(text.contains(why), "{why}: {text}");
    assert!(lab.images.summaries().unwrap().is_empty());
    assert_eq!(lab.directories(), 0);
}

fn blob(data: &[u8]) -> (String, String) {
    let digest = ponton_oci::Digest::sha256_of(data);
    (format!("blobs/sha256/{}", digest.hex()), digest.to_string())
}

fn descriptor(kind: &str, data: &[u8]) -> serde_json::Value {
    serde_json::json!({"mediaType": kind, "digest": blob(data).1, "size": data.len()})
}

fn index(manifests: &[serde_json::Value]) -> Vec<u8> {
    serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string().into_bytes()
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[test]
fn names_and_links_lead_nowhere_outside() {
    let lab = Lab::new();
    refused(&lab, &archive(&[("../manifest.json", b"[]")]), "invalid name");
    let outside = br#"[{"Config":"../../etc/passwd","RepoTags":["a:1"],"Layers":[]}]"#;
    refused(&lab, &archive(&[("manifest.json", outside)]), "no file");
    for links in [
        &[("manifest.json", Kind::Symlink, "/etc/hostname")][..],
        &[("manifest.json", Kind::Symlink, "../../../etc/hostname")],
        &[("manifest.json", Kind::HardLink, "index.json"), ("index.json", Kind::Symlink, "manifest.json")],
    ] {
        refused(&lab, &tar(links), "no image archive");
    }
    let config = br#"{"rootfs":{"type":"layers","diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000000"]}}"#;
    let manifest = br#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l/layer.tar"]}]"#;
    let mut writer = Writer::new(Vec::new());
    for (name, data) in [("c.json", &config[..]), ("manifest.json", manifest)] {
        writer.file(&Header { path: name.as_bytes().to_vec(), ..Header::default() }, data).unwrap();
    }
    let link = Header {
        path: b"l/layer.tar".to_vec(),
        kind: Kind::Symlink,
        link: b"../../../../etc/passwd".to_vec(),
        ..Header::default()
    };
    writer.header(&link).unwrap();
    refused(&lab, &writer.finish().unwrap(), "no layer");
}

#[test]
fn indexes_in_indexes_end() {
    let lab = Lab::new();
    let mut inner = index(&[]);
    let mut blobs = Vec::new();
    for _ in 0..8 {
        blobs.push(inner.clone());
        // Twice the same, at every level.
        inner = index(&[descriptor(INDEX, &inner), descriptor(INDEX, &inner)]);
    }
    let names: Vec<String> = blobs.iter().map(|data| blob(data).0).collect();
    let mut files: Vec<(&str, &[u8])> =
        names.iter().map(String::as_str).zip(blobs.iter().map(Vec::as_slice)).collect();
    files.push(("index.json", &inner));
    refused(&lab, &archive(&files), "too many levels");

    let many: Vec<serde_json::Value> =
        (0..20_000u32).map(|number| descriptor(MANIFEST, &number.to_le_bytes())).collect();
    refused(&lab, &archive(&[("index.json", &index(&many))]), "too many manifests");
    let outside =
        serde_json::json!({"mediaType": MANIFEST, "digest": "sha256:../../../etc/passwd", "size": 1});
    refused(&lab, &archive(&[("index.json", &index(&[outside]))]), "index.json");
}

#[test]
fn counts_and_sizes_have_bounds() {
    let lab = Lab::new();
    let image = r#"{"Config":"c.json","Layers":[]}"#;
    let many = format!("[{}]", vec![image; 10_001].join(","));
    refused(&lab, &archive(&[("manifest.json", many.as_bytes())]), "too many images");
    let names = vec!["\"a:1\""; 10_001].join(",");
    let many = format!(r#"[{{"Config":"c.json","RepoTags":[{names}],"Layers":[]}}]"#);
    refused(&lab, &archive(&[("manifest.json", many.as_bytes())]), "too many images");
    refused(&lab, &archive(&[("big", &vec![b'x'; 9 << 20])]), "neither layer nor document");
    let large = vec![b'x'; 8 << 20];
    let names: Vec<String> = (0..9).map(|number| number.to_string()).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), large.as_slice())).collect();
    refused(&lab, &archive(&files), "too many documents");
    let deep = "[".repeat(100_000);
    refused(&lab, &archive(&[("manifest.json", deep.as_bytes())]), "manifest.json");

    let layers: Vec<Vec<u8>> = vec![tar(&[("f", Kind::Regular, "1")]); 501];
    refused(&lab, &docker_archive(&layers, "a:1"), "can be stacked");
    let limits = Limits { layer_bytes: 1 << 19, ..Limits::default() };
    let small = Lab { images: lab.images.clone().with_limits(limits), ..lab };
    let bomb = tar(&[("f", Kind::Regular, &"0".repeat(1 << 20))]);
    refused(&small, &docker_archive(&[bomb], "a:1"), "more bytes than its size allows");
}

/// Bytes changed, left out and doubled anywhere: an image or an error, and no leftovers.
#[test]
fn damaged_archives_leave_nothing() {
    let lab = Lab::new();
    let layers = [tar(&[("f", Kind::Regular, "1")]), tar(&[("d/.wh.f", Kind::Regular, "")])];
    let good = docker_archive(&layers, "a:1");
    let mut state = 7u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut refused = 0;
    for _ in 0..150 {
        let mut archive = good.clone();
        for _ in 0..=next(3) {
            let place = next(archive.len());
            match next(4) {
                0 => archive[place] = next(256) as u8,
                1 => archive.truncate(place.max(1)),
                2 => drop(archive.drain(place..(place + 512).min(archive.len()))),
                _ => archive[place] ^= 1 << next(8),
            }
            if archive.is_empty() {
                break;
            }
        }
        match lab.load(&archive) {
            Err(_) => refused += 1,
            Ok(loaded) => {
                for image in loaded {
                    lab.images.remove(image.id.hex(), true, &|_| Vec::new()).unwrap();
                }
            }
        }
        assert!(lab.images.summaries().unwrap().is_empty());
        assert_eq!(lab.directories(), 0);
    }
    assert!(refused > 50, "{refused}");
}
