//! An exploration as text, and as the JSON that dive writes.

use std::fmt::Write as _;

use ponton_api::explore::{Exploration, File, FileChange};
use ponton_api::unit::human_size;
use serde_json::{Value, json};

/// Efficiency and what is wasted, as dive's CI mode prints them.
pub(super) fn analysis(image: &Exploration) -> String {
    let mut text = format!(
        "  efficiency: {:.4} %\n  wastedBytes: {} bytes ({})\n  userWastedPercent: {:.4} %\n\
         Inefficient Files:\nCount  Wasted Space  File Path\n",
        image.efficiency * 100.0,
        image.wasted_bytes,
        human_size(image.wasted_bytes as i64),
        image.user_wasted * 100.0
    );
    if image.wasted.is_empty() {
        text.push_str("None\n");
    }
    for wasted in &image.wasted {
        let size = human_size(wasted.size as i64);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:>5}  {size:>12}  /{}", wasted.count, harmless(&wasted.path));
    }
    text
}

/// The layers, for what is no terminal.
pub(super) fn layers(image: &Exploration) -> String {
    let mut text = "    SIZE  COMMAND\n".to_owned();
    for layer in &image.layers {
        let command: Vec<&str> = layer.command.split_whitespace().collect();
        let size = human_size(layer.size as i64);
        let _ = writeln!(text, "{size:>8}  {}", harmless(&command.join(" ")));
    }
    text
}

/// What an image says, without what a terminal would take for a command.
fn harmless(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// The members of `dive --json`.
pub(super) fn document(image: &Exploration) -> Value {
    let layers = image.layers.iter().enumerate().map(|(index, layer)| {
        let files: Vec<Value> = layer.files.iter().flatten().map(file).collect();
        json!({
            "index": index,
            "id": layer.digest.split_once(':').map_or("", |(_, hex)| hex),
            "digestId": layer.digest,
            "sizeBytes": layer.size,
            "command": layer.command,
            "fileList": files,
        })
    });
    let wasted = image.wasted.iter().map(|wasted| {
        json!({ "count": wasted.count, "sizeBytes": wasted.size, "file": format!("/{}", wasted.path) })
    });
    json!({
        "layer": layers.collect::<Vec<_>>(),
        "image": {
            "sizeBytes": image.size,
            "inefficientBytes": image.wasted_bytes,
            "efficiencyScore": image.efficiency,
            "fileReference": wasted.collect::<Vec<_>>(),
        },
    })
}

/// A file with tar's type and Go's mode; what is removed has the name of a whiteout.
fn file(file: &File) -> Value {
    let (kind, go_type): (u8, u32) = match file.mode & 0o170_000 {
        0o040_000 => (b'5', 1 << 31),
        0o120_000 => (b'2', 1 << 27),
        0o020_000 => (b'3', 1 << 26 | 1 << 21),
        0o060_000 => (b'4', 1 << 26),
        0o010_000 => (b'6', 1 << 25),
        _ if !file.link.is_empty() => (b'1', 0),
        _ => (b'0', 0),
    };
    let path = match (file.change, file.path.rsplit_once('/')) {
        (FileChange::Removed, Some((directory, name))) => format!("{directory}/.wh.{name}"),
        (FileChange::Removed, None) => format!(".wh.{}", file.path),
        _ => file.path.clone(),
    };
    json!({
        "path": path,
        "typeFlag": kind,
        "linkName": file.link,
        "size": file.size,
        "fileMode": file.mode & 0o777 | go_type,
        "uid": file.uid,
        "gid": file.gid,
        "isDir": kind == b'5',
    })
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::image;
    use super::*;

    #[test]
    fn the_analysis_is_worded_as_by_dive() {
        assert_eq!(
            analysis(&image()),
            "  efficiency: 85.0000 %\n  wastedBytes: 500 bytes (500B)\n  userWastedPercent: 25.0000 %\n\
             Inefficient Files:\nCount  Wasted Space  File Path\n    2          500B  /etc/passwd\n"
        );
        assert!(analysis(&Exploration::default()).ends_with("File Path\nNone\n"));
        assert_eq!(
            layers(&image()),
            "    SIZE  COMMAND\n   1.2kB  ADD rootfs\n    300B  RUN \u{fffd}[31mevil\n"
        );
    }

    #[test]
    fn the_document_has_dives_members() {
        let document = document(&image());
        assert_eq!(document["image"]["efficiencyScore"], 0.85);
        assert_eq!(document["image"]["fileReference"][0]["file"], "/etc/passwd");
        let files = document["layer"][0]["fileList"].as_array().unwrap();
        assert_eq!(files[0]["fileMode"], 0o755_u32 | 1 << 31);
        assert_eq!(files[1]["typeFlag"], b'0');
        assert_eq!(document["layer"][1]["fileList"][1]["path"], "bin/.wh.sh");
    }
}
