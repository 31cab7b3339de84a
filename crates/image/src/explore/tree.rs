//! The files of layers, and the score that dive gives them.
//!
//! The score compares what each path needs at the least with what it takes. For each path, over all
//! layers that have it as a leaf (a file, or a directory with nothing in that layer): the sum of its
//! sizes, and the smallest of them. The efficiency is the sum of the smallest by the sum of all; a
//! path in at least two layers wastes all that it takes. A whiteout counts as an occurrence of what
//! it deletes: with 0 bytes for a file, with the bytes of everything in it for a directory.
//!
//! dive's own corners are kept, for equal numbers: a directory without an entry of its own counts as
//! a file where it is deleted; opaque directories are not looked at; and a whiteout of what is not
//! there ends the look at its layer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use ponton_api::explore::Wasted;
use ponton_archive::header::Kind;

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh..";

/// What an entry says of a path; nothing for directories that only lead to others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) kind: Option<Kind>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) link: Vec<u8>,
}

/// Files by key: their path with a zero for each slash, so that what is in a directory follows it.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree(BTreeMap<Vec<u8>, Info>);

pub(super) fn key(components: &[&[u8]]) -> Vec<u8> {
    components.join(&0)
}

pub(super) fn path(key: &[u8]) -> String {
    let path: Vec<u8> = key.iter().map(|byte| if *byte == 0 { b'/' } else { *byte }).collect();
    String::from_utf8_lossy(&path).into_owned()
}

/// What a whiteout deletes; none if the key is no whiteout's.
pub(super) fn whiteout(key: &[u8]) -> Option<Vec<u8>> {
    let start = key.iter().rposition(|byte| *byte == 0).map_or(0, |slash| slash + 1);
    let name = key[start..].strip_prefix(WHITEOUT)?;
    Some([&key[..start], name].concat())
}

impl Tree {
    /// Adds an entry, and the directories that lead to it.
    pub(super) fn add(&mut self, components: &[&[u8]], info: Info) {
        for end in 1..components.len() {
            self.0.entry(key(&components[..end])).or_default();
        }
        if components.last().is_some_and(|name| !name.starts_with(WHITEOUT_META)) {
            self.0.insert(key(components), info);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, &Info)> {
        self.0.iter()
    }

    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.0.contains_key(key)
    }

    /// Everything below a directory; with an empty key, everything.
    fn below<'a>(&'a self, directory: &'a [u8]) -> impl Iterator<Item = (&'a Vec<u8>, &'a Info)> {
        self.0
            .range::<[u8], _>((Bound::Excluded(directory), Bound::Unbounded))
            .take_while(move |(key, _)| is_below(key, directory))
    }

    /// The keys directly below a directory.
    pub(super) fn children(&self, directory: &[u8]) -> Vec<Vec<u8>> {
        let start = if directory.is_empty() { 0 } else { directory.len() + 1 };
        let is_child = |key: &&Vec<u8>| !key[start..].contains(&0);
        self.below(directory).map(|(key, _)| key).filter(is_child).cloned().collect()
    }

    /// Bytes of a file, or of everything in a directory.
    pub(super) fn size(&self, key: &[u8]) -> u64 {
        let own = self.0.get(key).map_or(0, |info| info.size);
        own + self.below(key).map(|(_, info)| info.size).sum::<u64>()
    }

    fn remove(&mut self, key: &[u8]) {
        let keys: Vec<Vec<u8>> = self.below(key).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.0.remove(&key);
        }
        self.0.remove(key);
    }

    /// Puts another tree on top.
    pub(super) fn stack(&mut self, upper: &Self) {
        for (key, info) in &upper.0 {
            match whiteout(key) {
                Some(deleted) => self.remove(&deleted),
                None => drop(self.0.insert(key.clone(), info.clone())),
            }
        }
    }

    /// Removes what an opaque directory of `upper` hides.
    pub(super) fn remove_hidden(&mut self, directory: &[u8], upper: &Self) {
        for child in self.children(directory) {
            if !upper.has(&child) {
                self.remove(&child);
            }
        }
    }
}

fn is_below(key: &[u8], directory: &[u8]) -> bool {
    directory.is_empty() || key.strip_prefix(directory).is_some_and(|rest| rest.first() == Some(&0))
}

/// The score under way.
#[derive(Default)]
pub(super) struct Efficiency {
    paths: HashMap<Vec<u8>, Occurrences>,
    /// The layers so far, as dive stacks them; none before the first.
    stacked: Option<Tree>,
}

struct Occurrences {
    count: u64,
    sum: u64,
    least: u64,
}

impl Efficiency {
    /// Counts one more layer.
    pub(super) fn add(&mut self, layer: &Tree) {
        // The lowest layer's whiteouts stay in dive's stack as files.
        let mut stacked = self.stacked.take().unwrap_or_else(|| layer.clone());
        let mut keys = layer.0.iter().peekable();
        while let Some((key, info)) = keys.next() {
            let is_leaf = keys.peek().is_none_or(|(next, _)| !is_below(next, key));
            if !is_leaf {
                continue;
            }
            let deleted = whiteout(key);
            let size = match &deleted {
                None => info.size,
                Some(deleted) => match stacked.0.get(deleted) {
                    None => break,
                    Some(below) if below.kind == Some(Kind::Directory) => stacked.size(deleted),
                    Some(_) => 0,
                },
            };
            let path = deleted.unwrap_or_else(|| key.clone());
            let path = self.paths.entry(path).or_insert(Occurrences { count: 0, sum: 0, least: u64::MAX });
            path.count += 1;
            path.sum += size;
            path.least = path.least.min(size);
        }
        stacked.stack(layer);
        self.stacked = Some(stacked);
    }

    /// The score between 0 and 1, and the paths that waste, the worst first.
    pub(super) fn finish(self) -> (f64, Vec<Wasted>) {
        let least: u64 = self.paths.values().map(|path| path.least).sum();
        let all: u64 = self.paths.values().map(|path| path.sum).sum();
        let score = if all == 0 { 1.0 } else { least as f64 / all as f64 };
        let mut wasted: Vec<Wasted> = self
            .paths
            .iter()
            .filter(|(_, found)| found.count > 1)
            .map(|(key, found)| Wasted { path: path(key), count: found.count, size: found.sum })
            .collect();
        wasted.sort_by(|one, other| (Reverse(one.size), &one.path).cmp(&(Reverse(other.size), &other.path)));
        (score, wasted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name:size`, a directory without a size.
    fn tree(entries: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for entry in entries {
            let (path, size) = entry.split_once(':').unwrap_or((entry, ""));
            let components: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
            let kind = if size.is_empty() { Kind::Directory } else { Kind::Regular };
            let info = Info { kind: Some(kind), size: size.parse().unwrap_or(0), ..Info::default() };
            tree.add(&components, info);
        }
        tree
    }

    fn score(layers: &[&[&str]]) -> (f64, Vec<(String, u64, u64)>) {
        let mut efficiency = Efficiency::default();
        for layer in layers {
            efficiency.add(&tree(layer));
        }
        let (score, wasted) = efficiency.finish();
        (score, wasted.into_iter().map(|path| (path.path, path.count, path.size)).collect())
    }

    /// The cases of dive's own tests of its score.
    #[test]
    fn scores_are_those_of_dive() {
        let (found, wasted) = score(&[
            &["etc/nginx/nginx.conf:2000", "etc/nginx/public:3000"],
            &["etc/nginx/nginx.conf:5000", "etc/athing:10000"],
            &["etc/.wh.nginx:0"],
        ]);
        // The deleted directory has no entry of its own, and counts as a file.
        assert!((found - 15000.0 / 20000.0).abs() < 1e-12, "{found}");
        assert_eq!(wasted, [("etc/nginx/nginx.conf".to_owned(), 2, 7000)]);
        let (found, wasted) = score(&[&["etc/nginx/nginx.conf:0", "etc/nginx/public:0"]]);
        assert_eq!((found, wasted.len()), (1.0, 0));
        let (found, wasted) = score(&[&["a:10", "b:20"], &["c:5"]]);
        assert_eq!((found, wasted.len()), (1.0, 0));
    }

    #[test]
    fn deleted_files_and_directories() {
        let (found, wasted) = score(&[&["d", "d/f:100", "d/g:50", "x:10"], &[".wh.x:0", ".wh.d:0"]]);
        // d is a leaf in the upper layer alone: one occurrence of 150 bytes.
        assert!((found - 300.0 / 310.0).abs() < 1e-12, "{found}");
        assert_eq!(wasted, [("x".to_owned(), 2, 10)]);
    }

    #[test]
    fn a_whiteout_of_nothing_ends_the_look_at_its_layer() {
        let (found, wasted) = score(&[&["a:10", "z:10"], &[".wh.none:0", "z:10"]]);
        assert_eq!((found, wasted.len()), (1.0, 0));
        let (found, wasted) = score(&[&["a:10", "z:10"], &["a:5", ".wh.none:0", "z:10"]]);
        // '.' comes before letters.
        assert_eq!((found, wasted.len()), (1.0, 0));
        let (_, wasted) = score(&[&["-a:10", "z:10"], &["-a:5", ".wh.none:0", "z:10"]]);
        assert_eq!(wasted, [("-a".to_owned(), 2, 15)]);
    }

    #[test]
    fn trees_know_what_is_in_a_directory() {
        let tree = tree(&["a/b/c:1", "a/b-x:2", "a/b/d/e:3", "ab:4"]);
        assert_eq!(tree.size(b"a\0b"), 4);
        assert_eq!(tree.size(b"a"), 6);
        assert_eq!(tree.children(b"a"), [b"a\0b".to_vec(), b"a\0b-x".to_vec()]);
        assert_eq!(tree.children(b""), [b"a".to_vec(), b"ab".to_vec()]);
        assert_eq!(path(b"a\0b"), "a/b");
        assert_eq!(whiteout(b"a\0.wh.b"), Some(b"a\0b".to_vec()));
        assert_eq!(whiteout(b"a\0b"), None);
    }
}
