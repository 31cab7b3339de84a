//! What is in an image, layer by layer, and what of it is wasted.

mod tree;

use std::io::BufRead;

use ponton_api::explore::{Exploration, File, FileChange, Layer};
use ponton_archive::header::{Header, Kind};
use ponton_archive::reader::Reader;
use ponton_oci::digest::ChainId;
use ponton_oci::image_config::{History, ImageConfig};
use ponton_oci::reference::Reference;

use self::tree::{Efficiency, Info, Tree};
use crate::layer::failed;
use crate::list::parse_config;
use crate::{Error, Images, Result, pipeline};

/// Entries that are looked at in an image, and components that one name may have: what has more is
/// an attack on our memory.
const MAX_ENTRIES: usize = 2_000_000;
const MAX_COMPONENTS: usize = 1024;

impl Images {
    /// Analyses an image. Without `files`, layers have no lists of files.
    ///
    /// Efficiency and wasted bytes are computed as dive computes them (`tree` says how).
    pub fn explore(&self, name: &str, files: bool) -> Result<Exploration> {
        let id = self.store.images().resolve(name)?;
        let record = self.store.images().get(&id)?.ok_or_else(|| Error::NotFound(name.to_owned()))?;
        let references = self.store.images().references_of(&id)?;
        let config: ImageConfig = parse_config(&id, &self.store.content().read(id.digest())?)?;
        let mut history = config.history.iter().filter(|step| !step.empty_layer);
        let mut efficiency = Efficiency::default();
        let mut below = Tree::default();
        let mut entries = 0;
        let mut layers = Vec::new();
        for record in &record.layers {
            let what = format!("layer {}", record.diff_id);
            let contents = self.read_layer(&record.chain_id, &what, &mut entries)?;
            efficiency.add(&contents.tree);
            layers.push(Layer {
                digest: record.diff_id.to_string(),
                files: files.then(|| changes(&below, &contents)),
                size: contents.size,
                ..described(history.next())
            });
            below.stack(&contents.tree);
            for directory in &contents.opaque {
                below.remove_hidden(directory, &contents.tree);
            }
        }
        let size = layers.iter().map(|layer| layer.size).sum();
        let user_size: u64 = layers.iter().skip(1).map(|layer| layer.size).sum();
        let (score, wasted) = efficiency.finish();
        let wasted_bytes = wasted.iter().map(|path| path.size).sum();
        let user_wasted = match (wasted_bytes, user_size) {
            (0, _) => 0.0,
            (_, 0) => 1.0,
            (wasted, all) => wasted as f64 / all as f64,
        };
        let tags = references.iter().filter(|name| name.tag().is_some()).map(Reference::familiar).collect();
        let (id, efficiency) = (id.to_string(), score);
        Ok(Exploration { id, tags, size, efficiency, wasted_bytes, user_wasted, layers, wasted })
    }

    /// Reads a layer's headers: alone where they can be read alone, else from its tar.
    fn read_layer(&self, chain: &ChainId, what: &str, entries: &mut usize) -> Result<Contents> {
        if let Some(outline) = self.snapshotter.outline(chain).map_err(failed(what))? {
            return Contents::read(outline, entries).map_err(failed(what));
        }
        let write = |output: &mut dyn std::io::Write| self.snapshotter.write_tar(chain, output);
        pipeline::run_written(write, |chunks| Contents::read(chunks, entries))
            .map(|(contents, _)| contents)
            .map_err(failed(what))
    }
}

/// What a layer's tar says.
#[derive(Default)]
struct Contents {
    tree: Tree,
    /// Bytes of all entries.
    size: u64,
    /// Directories that hide what is below them.
    opaque: Vec<Vec<u8>>,
}

impl Contents {
    fn read(tar: impl BufRead, entries: &mut usize) -> Result<Self, ponton_archive::Error> {
        let mut contents = Self::default();
        let mut reader = Reader::new(tar);
        while let Some(header) = reader.next_entry()? {
            *entries += 1;
            contents.add(&header, *entries)?;
        }
        Ok(contents)
    }

    fn add(&mut self, header: &Header, entries: usize) -> Result<(), ponton_archive::Error> {
        let refused = |reason: &str| ponton_archive::Error::Entry {
            path: String::from_utf8_lossy(&header.path).into_owned(),
            reason: reason.to_owned(),
        };
        let components =
            ponton_archive::components(&header.path).ok_or_else(|| refused("leads out of the root"))?;
        if components.len() > MAX_COMPONENTS {
            return Err(refused("nested too deeply"));
        }
        if entries > MAX_ENTRIES {
            return Err(refused("too many entries to look at"));
        }
        let Some((name, parents)) = components.split_last() else { return Ok(()) };
        let size = header.sparse.as_ref().map_or(header.size, |sparse| sparse.size);
        self.size += size;
        if *name == b".wh..wh..opq" {
            self.opaque.push(tree::key(parents));
        }
        let info = Info {
            kind: Some(header.kind),
            mode: header.mode,
            uid: header.uid,
            gid: header.gid,
            size,
            link: header.link.clone(),
        };
        self.tree.add(&components, info);
        Ok(())
    }
}

/// When and by which instruction a layer was made.
fn described(step: Option<&History>) -> Layer {
    let command = step.and_then(|step| step.created_by.as_deref()).unwrap_or("(missing)");
    let command = command.strip_prefix("/bin/sh -c ").unwrap_or(command).to_owned();
    let created = step.and_then(|step| step.created.clone()).unwrap_or_default();
    Layer { command, created, ..Layer::default() }
}

/// What a layer does to the files below it, by path.
fn changes(below: &Tree, layer: &Contents) -> Vec<File> {
    let mut files = Vec::new();
    let removed = |key: &[u8], size| File {
        path: tree::path(key),
        change: FileChange::Removed,
        size,
        ..File::default()
    };
    for (key, info) in layer.tree.iter() {
        if let Some(deleted) = tree::whiteout(key) {
            if below.has(&deleted) && !layer.tree.has(&deleted) {
                files.push(removed(&deleted, below.size(&deleted)));
            }
            continue;
        }
        let change = if below.has(key) { FileChange::Changed } else { FileChange::Added };
        files.push(File {
            path: tree::path(key),
            change,
            mode: info.mode | type_bits(info.kind),
            uid: info.uid,
            gid: info.gid,
            size: info.size,
            link: String::from_utf8_lossy(&info.link).into_owned(),
        });
    }
    for directory in &layer.opaque {
        let hidden = below.children(directory).into_iter().filter(|child| !layer.tree.has(child));
        files.extend(hidden.map(|child| removed(&child, below.size(&child))));
    }
    files.sort_by(|one, other| one.path.split('/').cmp(other.path.split('/')));
    files
}

/// `st_mode`'s part for a type; what has no entry of its own is a directory.
fn type_bits(kind: Option<Kind>) -> u32 {
    match kind {
        Some(Kind::Regular | Kind::HardLink) => 0o100_000,
        Some(Kind::Directory) | None => 0o040_000,
        Some(Kind::Symlink) => 0o120_000,
        Some(Kind::Char) => 0o020_000,
        Some(Kind::Block) => 0o060_000,
        Some(Kind::Fifo) => 0o010_000,
    }
}
