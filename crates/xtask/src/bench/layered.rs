//! The large image in layers, as OCI directories with gzip and with zstd: what the peers of a benchmark pull.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ponton_testkit::tar::sha256;
use serde_json::{Value, json};

use super::timed;

/// Layers of the image.
pub(super) const LAYERS: usize = 5;
const BLOCK: usize = 512;

/// The directories of the image with gzip layers and with zstd layers, made of `big.tar` unless they are there.
pub(super) fn directories(cache: &Path) -> [PathBuf; 2] {
    let [gzip, zstd] = ["layered-gzip", "layered-zstd"].map(|name| cache.join(name));
    if !zstd.join("index.json").exists() {
        eprintln!("bench: making an image of {LAYERS} layers");
        let directory = tempfile::Builder::new().prefix("layers-").tempdir_in(cache).expect("a directory");
        let layers = split(&cache.join("big.tar"), directory.path());
        let gzipped = compressed(&layers, &["gzip", "-6", "-n"]);
        let zstded = compressed(&layers, &["zstd", "-3", "-q"]);
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        write(&gzip, &diff_ids, &gzipped, "application/vnd.oci.image.layer.v1.tar+gzip");
        write(&zstd, &diff_ids, &zstded, "application/vnd.oci.image.layer.v1.tar+zstd");
    }
    [gzip, zstd]
}

/// The compressed layers of such a directory.
pub(super) fn blobs(directory: &Path) -> Vec<PathBuf> {
    let read = |path: PathBuf| -> Value {
        serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
    };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        directory.join("blobs").join(digest.replace(':', "/"))
    };
    let manifest = read(blob(&read(directory.join("index.json"))["manifests"][0]));
    manifest["layers"].as_array().expect("layers").iter().map(blob).collect()
}

/// Cuts a tar into layers, in runs of entries, whatever comes before them: the tars of directories come first in each
/// part of the tree.
fn split(tar: &Path, directory: &Path) -> Vec<PathBuf> {
    let bytes = fs::read(tar).expect("big.tar: run scripts/make-images.sh big");
    let paths: Vec<PathBuf> = (0..LAYERS).map(|n| directory.join(format!("{n}.tar"))).collect();
    let mut outputs: Vec<_> =
        paths.iter().map(|path| BufWriter::new(File::create(path).expect("create"))).collect();
    let mut at = 0;
    while at + BLOCK <= bytes.len() && bytes[at] != 0 {
        let header = &bytes[at..at + BLOCK];
        let size = std::str::from_utf8(&header[124..135]).expect("a size in octal digits");
        let size = usize::from_str_radix(size.trim(), 8).expect("a size in octal digits");
        let end = at + BLOCK + size.next_multiple_of(BLOCK);
        outputs[at * LAYERS / bytes.len()].write_all(&bytes[at..end]).expect("write");
        at = end;
    }
    for mut output in outputs {
        output.write_all(&[0; 2 * BLOCK]).and_then(|()| output.flush()).expect("write");
    }
    paths
}

/// Compresses files, two at a time.
fn compressed(layers: &[PathBuf], program: &[&str]) -> Vec<PathBuf> {
    let name = |layer: &PathBuf| layer.with_extension(program[0]);
    for pair in layers.chunks(2) {
        let children: Vec<_> = pair
            .iter()
            .map(|layer| {
                let mut command = Command::new(program[0]);
                command.args(&program[1..]).arg("-c").stdin(Stdio::null());
                command.arg(layer).stdout(File::create(name(layer)).expect("create")).spawn().expect("spawn")
            })
            .collect();
        for mut child in children {
            assert!(child.wait().expect("wait").success(), "{program:?}");
        }
    }
    layers.iter().map(name).collect()
}

fn digest(path: &Path) -> String {
    format!("sha256:{}", sha256(&fs::read(path).expect("a layer")))
}

/// An OCI directory, whose index comes last.
fn write(directory: &Path, diff_ids: &[String], layers: &[PathBuf], layer_type: &str) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("mkdir");
    let put = |bytes: &[u8], media_type: &str| {
        let digest = sha256(bytes);
        fs::write(blobs.join(&digest), bytes).expect("write");
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let layers: Vec<Value> =
        layers.iter().map(|layer| put(&fs::read(layer).expect("a layer"), layer_type)).collect();
    let config = json!({"architecture": architecture(), "os": "linux", "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
    let manifest = put(manifest.to_string().as_bytes(), kind);
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(directory.join("index.json"), index.to_string()).expect("write");
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Seconds that decompressing the layers takes at least, on all processors: one layer on each at a time.
pub(super) fn decompressed(blobs: &[PathBuf]) -> f64 {
    let begin = std::time::Instant::now();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                while let Some(blob) = blobs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let input = File::open(blob).expect("a blob");
                    let mut decoder = flate2::read::MultiGzDecoder::new(input);
                    let mut buffer = vec![0; 512 << 10];
                    while std::io::Read::read(&mut decoder, &mut buffer).expect("gzip") > 0 {}
                }
            });
        }
    });
    begin.elapsed().as_secs_f64()
}

/// Seconds that writing a file takes, until the disk has it.
pub(super) fn written(file: &Path, copy: &Path) -> f64 {
    let mut command = Command::new("dd");
    command.arg(format!("if={}", file.display())).arg(format!("of={}", copy.display()));
    let seconds = timed({
        command.args(["bs=1M", "conv=fsync", "status=none"]);
        command
    });
    fs::remove_file(copy).expect("remove");
    seconds / 1e3
}
