//! The files of an image as one of its layers leaves them, as a tree.

use std::collections::{BTreeMap, HashSet};

use ponton_api::explore::{File, FileChange, Layer};

/// Deeper paths are shown with their last components in one: the tree is walked by recursion.
const MAX_DEPTH: usize = 256;
const TYPE_MASK: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;

/// What the compared layers did to a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Mark {
    #[default]
    Unmodified,
    Added,
    Modified,
    Removed,
}

/// What a layer's archive says of a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) link: String,
}

#[derive(Debug, Default)]
struct Node {
    mark: Mark,
    attributes: Attributes,
    children: BTreeMap<String, Node>,
}

/// All files up to one layer.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Node,
}

/// What of a tree is shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) hidden: Vec<Mark>,
    /// Part of a path, in any case; empty for all.
    pub(super) text: String,
    /// Directories whose contents are not shown, by path.
    pub(super) collapsed: HashSet<String>,
}

/// One path as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) path: String,
    pub(super) name: String,
    /// `│   ├── `.
    pub(super) branch: String,
    pub(super) mark: Mark,
    /// With the size of all that is in it.
    pub(super) attributes: Attributes,
    pub(super) is_directory: bool,
    pub(super) is_collapsed: bool,
}

impl Tree {
    /// The files that `layers` leave; what those from the `compared`th on did is marked, and what they
    /// removed is there still.
    pub(super) fn new(layers: &[Layer], compared: usize) -> Self {
        let mut tree = Self::default();
        for (index, layer) in layers.iter().enumerate() {
            for file in layer.files.iter().flatten() {
                tree.apply(file, index >= compared);
            }
        }
        tree
    }

    fn apply(&mut self, file: &File, is_marked: bool) {
        let parts: Vec<&str> = file.path.splitn(MAX_DEPTH, '/').filter(|part| !part.is_empty()).collect();
        let Some((name, parents)) = parts.split_last() else { return };
        let mut directory = &mut self.root;
        for part in parents {
            directory = directory.children.entry((*part).to_owned()).or_insert_with(|| Node {
                attributes: Attributes { mode: DIRECTORY, ..Attributes::default() },
                ..Node::default()
            });
        }
        if file.change == FileChange::Removed {
            let is_new = directory.children.get(*name).is_some_and(|node| node.mark == Mark::Added);
            match directory.children.get_mut(*name) {
                Some(node) if is_marked && !is_new => node.remove(),
                _ => {
                    directory.children.remove(*name);
                }
            }
            return;
        }
        let existed = directory.children.contains_key(*name);
        let node = directory.children.entry((*name).to_owned()).or_default();
        node.mark = match (is_marked, node.mark) {
            (false, _) => Mark::Unmodified,
            (true, Mark::Added) => Mark::Added,
            (true, Mark::Unmodified) if !existed || file.change == FileChange::Added => Mark::Added,
            (true, _) => Mark::Modified,
        };
        node.attributes = Attributes {
            mode: file.mode,
            uid: file.uid,
            gid: file.gid,
            size: file.size,
            link: file.link.clone(),
        };
        if !node.is_directory() {
            node.children.clear();
        }
    }

    /// What the filter leaves, in the order of a file manager.
    pub(super) fn lines(&self, filter: &Filter) -> Vec<Line> {
        let filter = Filter { text: filter.text.to_lowercase(), ..filter.clone() };
        let mut lines = Vec::new();
        self.root.collect(&filter, "", "", false, &mut lines);
        lines
    }

    /// The paths of all directories.
    pub(super) fn directories(&self) -> HashSet<String> {
        let mut found = HashSet::new();
        self.root.directories("", &mut found);
        found
    }
}

impl Node {
    fn is_directory(&self) -> bool {
        self.attributes.mode & TYPE_MASK == DIRECTORY || !self.children.is_empty()
    }

    fn remove(&mut self) {
        self.mark = Mark::Removed;
        self.children.values_mut().for_each(Self::remove);
    }

    /// Adds the lines of what is in this directory; the bytes in it, and whether anything in it is marked.
    fn collect(
        &self,
        filter: &Filter,
        path: &str,
        branch: &str,
        is_folded: bool,
        lines: &mut Vec<Line>,
    ) -> (u64, bool) {
        let (mut bytes, mut is_marked, mut last) = (0, false, None);
        for (name, node) in &self.children {
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let is_directory = node.is_directory();
            let is_collapsed = is_directory && filter.collapsed.contains(&path);
            let at = lines.len();
            lines.push(Line {
                name: name.clone(),
                branch: format!("{branch}├── "),
                mark: node.mark,
                attributes: node.attributes.clone(),
                is_directory,
                is_collapsed,
                path,
            });
            let path = lines[at].path.clone();
            let below = format!("{branch}│   ");
            let folded = is_folded || is_collapsed;
            let (inner, changed) = node.collect(filter, &path, &below, folded, lines);
            bytes += node.attributes.size + inner;
            is_marked |= changed || node.mark != Mark::Unmodified;
            let line = &mut lines[at];
            line.attributes.size += inner;
            if line.mark == Mark::Unmodified && changed {
                line.mark = Mark::Modified;
            }
            let is_wanted = !filter.hidden.contains(&line.mark)
                && (filter.text.is_empty() || path.to_lowercase().contains(&filter.text));
            let has_shown = lines.len() > at + 1;
            if is_folded || !is_wanted && !has_shown {
                lines.truncate(at);
            } else {
                last = Some(at);
            }
        }
        if let Some(last) = last {
            close_branch(&mut lines[last..], branch.len());
        }
        (bytes, is_marked)
    }

    fn directories(&self, path: &str, found: &mut HashSet<String>) {
        for (name, node) in self.children.iter().filter(|(_, node)| node.is_directory()) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            node.directories(&path, found);
            found.insert(path);
        }
    }
}

/// Ends the line of branches from the last entry of a directory on: `└── `, and blanks below it.
fn close_branch(lines: &mut [Line], at: usize) {
    for (index, line) in lines.iter_mut().enumerate() {
        let old = if index == 0 { "├── " } else { "│   " };
        if line.branch[at..].starts_with(old) {
            let new = if index == 0 { "└── " } else { "    " };
            line.branch.replace_range(at..at + old.len(), new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, change: FileChange, mode: u32, size: u64) -> File {
        File { path: path.to_owned(), change, mode, size, ..File::default() }
    }

    fn layers() -> Vec<Layer> {
        let layer = |files| Layer { files: Some(files), ..Layer::default() };
        vec![
            layer(vec![
                file("bin", FileChange::Added, 0o040_755, 0),
                file("bin/sh", FileChange::Added, 0o100_755, 100),
                file("etc", FileChange::Added, 0o040_755, 0),
                file("etc/passwd", FileChange::Added, 0o100_644, 20),
                file("etc/ssl", FileChange::Added, 0o040_755, 0),
                file("etc/ssl/key", FileChange::Added, 0o100_600, 5),
            ]),
            layer(vec![
                file("etc/passwd", FileChange::Changed, 0o100_644, 30),
                file("etc/ssl", FileChange::Removed, 0, 0),
                file("tmp/x", FileChange::Added, 0o100_644, 1),
            ]),
            layer(vec![file("tmp/x", FileChange::Removed, 0, 0)]),
        ]
    }

    fn shown(tree: &Tree, filter: &Filter) -> Vec<String> {
        let letter = |mark| match mark {
            Mark::Unmodified => ' ',
            Mark::Added => 'A',
            Mark::Modified => 'M',
            Mark::Removed => 'R',
        };
        let line = |line: &Line| {
            format!("{} {}{} {}", letter(line.mark), line.branch, line.name, line.attributes.size)
        };
        tree.lines(filter).iter().map(line).collect()
    }

    #[test]
    fn a_layers_changes_are_marked() {
        let layers = layers();
        let tree = Tree::new(&layers[..2], 1);
        assert_eq!(
            shown(&tree, &Filter::default()),
            [
                "  ├── bin 100",
                "  │   └── sh 100",
                "M ├── etc 35",
                "M │   ├── passwd 30",
                "R │   └── ssl 5",
                "R │       └── key 5",
                "M └── tmp 1",
                "A     └── x 1",
            ]
        );
        let all = shown(&Tree::new(&layers, 2), &Filter::default());
        assert_eq!(all[4..], ["R └── tmp 1".replace('R', "M"), "R     └── x 1".to_owned()]);
        // What came and went between is not there.
        assert!(!shown(&Tree::new(&layers, 1), &Filter::default()).iter().any(|line| line.contains('x')));
    }

    #[test]
    fn filters_keep_the_way_to_what_they_show() {
        let tree = Tree::new(&layers()[..2], 1);
        let filter = Filter { text: "PASS".to_owned(), ..Filter::default() };
        assert_eq!(shown(&tree, &filter), ["M └── etc 35", "M     └── passwd 30"]);
        let filter = Filter { hidden: vec![Mark::Unmodified, Mark::Removed], ..Filter::default() };
        assert_eq!(
            shown(&tree, &filter),
            ["M ├── etc 35", "M │   └── passwd 30", "M └── tmp 1", "A     └── x 1"]
        );
        let filter = Filter { collapsed: tree.directories(), ..Filter::default() };
        assert_eq!(shown(&tree, &filter), ["  ├── bin 100", "M ├── etc 35", "M └── tmp 1"]);
    }

    #[test]
    fn deep_paths_do_no_harm() {
        let path = "d/".repeat(100_000);
        let layer = Layer { files: Some(vec![file(&path, FileChange::Added, 0, 1)]), ..Layer::default() };
        assert_eq!(Tree::new(&[layer], 0).lines(&Filter::default()).len(), MAX_DEPTH);
    }
}
