//! The tree of an image while its tar is read.

use std::collections::HashSet;
use std::collections::btree_map::BTreeMap;

use rustix::fs::FileType;

use super::image::Chunks;
use crate::apply::{OPAQUE, WHITEOUT, WHITEOUT_META};
use crate::header::{Header, Kind, Sparse, Time};
use crate::tree::{MAX_DEPTH, components};
use crate::{Error, Result};

/// Which inode.
pub(super) type Id = u32;
pub(super) const ROOT: Id = 0;
/// Inodes that an image may have; each is held in memory.
const MAX_NODES: usize = 1 << 21;
/// Symbolic links that a way may lead through (path_resolution(7)).
const MAX_LINKS: usize = 40;
const MAX_NAME: usize = 255;
/// Bytes of a symbolic link: `PATH_MAX` with its null byte.
const MAX_LINK: usize = 4095;
/// Bytes of an inode's extended attributes: what their count has room for.
const MAX_XATTRS: usize = 4 * u16::MAX as usize;

pub(super) struct Node {
    /// Type and permissions.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) content: Content,
}

pub(super) enum Content {
    Directory {
        parent: Id,
        children: BTreeMap<Box<[u8]>, Id>,
    },
    /// Contents at this byte of the image.
    File {
        size: u64,
        at: u64,
    },
    /// Contents without their holes, once relocated with those that share a chunk with data.
    Sparse {
        map: Box<Sparse>,
        at: u64,
    },
    Symlink(Box<[u8]>),
    /// A device, by its number, or a named pipe.
    Special(u32),
}

/// An extended attribute: its name as the number of a prefix and the rest.
pub(super) struct Xattr {
    pub(super) prefix: u8,
    pub(super) name: Box<[u8]>,
    pub(super) value: Box<[u8]>,
}

impl Xattr {
    /// Bytes in the image: a head of four, name and value, filled to a multiple of four.
    pub(super) fn size(&self) -> usize {
        (4 + self.name.len() + self.value.len()).next_multiple_of(4)
    }
}

/// Prefixes of names; two are whole names.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (TRUSTED, b"trusted."),
    (6, b"security."),
];
const TRUSTED: u8 = 4;

pub(super) struct Tree {
    nodes: Vec<Node>,
    /// Files whose contents cannot stay in the tar.
    relocated: Vec<Id>,
    bytes: u64,
    /// Whiteouts made so far, to know when a directory takes the place of one.
    whiteouts: HashSet<(Id, Box<[u8]>)>,
    /// The directory that the last entry was made in, by its components.
    last: Option<(Vec<u8>, Id)>,
}

impl Tree {
    pub(super) fn new() -> Self {
        let content = Content::Directory { parent: ROOT, children: BTreeMap::new() };
        let mode = (FileType::Directory.as_raw_mode() | 0o755) as u16;
        let root = Node { mode, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new(), content };
        Self { nodes: vec![root], relocated: Vec::new(), bytes: 0, whiteouts: HashSet::new(), last: None }
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    pub(super) fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    /// Number of inodes, with those that no name leads to any more.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Bytes of the contents of files, and of what symbolic links say, as they came.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Names in a directory; nothing has none.
    pub(super) fn children(&self, id: Id) -> impl Iterator<Item = (&[u8], Id)> {
        let children = match &self.node(id).content {
            Content::Directory { children, .. } => Some(children),
            _ => None,
        };
        children.into_iter().flatten().map(|(name, id)| (&**name, *id))
    }

    /// Has a file's contents copied out of the tar.
    pub(super) fn relocate(&mut self, id: Id) {
        self.relocated.push(id);
    }

    pub(super) fn take_relocated(&mut self) -> Vec<Id> {
        std::mem::take(&mut self.relocated)
    }

    /// Adds an entry whose contents are at byte `at` of the image; gives a file that was made of it
    /// and has its contents there.
    pub(super) fn entry(&mut self, header: &Header, at: u64) -> Result<Option<Id>> {
        let components =
            components(&header.path).ok_or_else(|| Error::entry(&header.path, "leads out of the root"))?;
        if components.len() > MAX_DEPTH {
            return Err(Error::entry(&header.path, "nested too deeply"));
        }
        let Some((name, parents)) = components.split_last() else {
            if header.kind != Kind::Directory {
                return Err(Error::entry(&header.path, "the root is a directory"));
            }
            return self.describe(ROOT, header).map(|()| None);
        };
        let parent = self.enter(parents, header)?;
        if name.starts_with(WHITEOUT) {
            self.whiteout(parent, name, header)?;
            return Ok(None);
        }
        if name.len() > MAX_NAME {
            return Err(Error::entry(&header.path, "name too long"));
        }
        let existing = self.child(parent, name);
        match header.kind {
            Kind::Directory => self.directory(parent, name, existing, header).map(|()| None),
            Kind::HardLink => self.hard_link(parent, name, existing, header).map(|()| None),
            _ => {
                let content = content(header, at)?;
                let is_sparse = matches!(content, Content::Sparse { .. });
                self.remove(parent, name);
                let id = self.add(parent, name, content, header)?;
                self.describe(id, header)?;
                self.bytes = self.bytes.saturating_add(match &self.node(id).content {
                    Content::File { size, .. } => *size,
                    Content::Sparse { map, .. } => map.size,
                    Content::Symlink(target) => target.len() as u64,
                    _ => 0,
                });
                if is_sparse {
                    self.relocate(id);
                }
                Ok((header.kind == Kind::Regular && !is_sparse).then_some(id))
            }
        }
    }

    fn directory(&mut self, parent: Id, name: &[u8], existing: Option<Id>, header: &Header) -> Result<()> {
        let id = match existing {
            Some(id) if self.is_directory(id) => id,
            _ => {
                self.remove(parent, name);
                let content = Content::Directory { parent, children: BTreeMap::new() };
                self.add(parent, name, content, header)?
            }
        };
        self.describe(id, header)?;
        if !self.whiteouts.is_empty() && self.whiteouts.remove(&(parent, name.into())) {
            self.set_opaque(id);
        }
        Ok(())
    }

    fn hard_link(&mut self, parent: Id, name: &[u8], existing: Option<Id>, header: &Header) -> Result<()> {
        let target = components(&header.link)
            .ok_or_else(|| Error::entry(&header.path, "hard link leads out of the root"))?;
        let missing = || Error::entry(&header.path, "hard link to what does not exist");
        let (target_name, directory) = target.split_last().ok_or_else(missing)?;
        if existing.is_some() {
            // A link to itself must not remove what it links to.
            if target_name == &name && self.walk(directory, None) == Ok(parent) {
                return Ok(());
            }
            self.remove(parent, name);
        }
        let directory = self.walk(directory, None).map_err(|reason| Error::entry(&header.path, reason))?;
        let id = self.child(directory, target_name).ok_or_else(missing)?;
        if self.is_directory(id) {
            return Err(Error::entry(&header.path, "hard link to a directory"));
        }
        self.insert(parent, name, id);
        Ok(())
    }

    fn whiteout(&mut self, parent: Id, name: &[u8], header: &Header) -> Result<()> {
        if name == OPAQUE {
            self.set_opaque(parent);
            return Ok(());
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        let target = &name[WHITEOUT.len()..];
        if matches!(target, b"" | b"." | b"..") || target.len() > MAX_NAME {
            return Err(Error::entry(&header.path, "whiteout of no name"));
        }
        match self.child(parent, target) {
            // The layer itself has something there, which hides what is below; of a directory only
            // if it says so.
            Some(id) if self.is_directory(id) => self.set_opaque(id),
            Some(_) => {}
            None => {
                let id = self.add(parent, target, Content::Special(0), header)?;
                self.node_mut(id).mode = FileType::CharacterDevice.as_raw_mode() as u16;
                self.whiteouts.insert((parent, target.into()));
            }
        }
        Ok(())
    }

    /// The directory of an entry; it and those above it are made (0755) where they are missing.
    fn enter(&mut self, parents: &[&[u8]], header: &Header) -> Result<Id> {
        let path = parents.join(&b'/');
        if let Some((last, id)) = &self.last
            && *last == path
        {
            return Ok(*id);
        }
        let id = self
            .walk(parents, Some(header))
            .map_err(|reason| Error::entry(&path, format!("its directory: {reason}")))?;
        self.last = Some((path, id));
        Ok(id)
    }

    /// Walks to a directory, following symbolic links inside the root, and making what is missing
    /// if an entry needs it.
    fn walk(&mut self, way: &[&[u8]], entry: Option<&Header>) -> Result<Id, &'static str> {
        let mut rest: Vec<Box<[u8]>> = way.iter().rev().map(|name| Box::from(*name)).collect();
        let mut links = 0;
        let mut at = ROOT;
        while let Some(name) = rest.pop() {
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    at = self.parent(at);
                    continue;
                }
                _ => {}
            }
            let Some(child) = self.child(at, &name) else {
                let entry = entry.ok_or("what it leads to does not exist")?;
                if name.len() > MAX_NAME {
                    return Err("name too long");
                }
                let content = Content::Directory { parent: at, children: BTreeMap::new() };
                at = self.add(at, &name, content, entry).map_err(|_| "too many files")?;
                self.node_mut(at).mode = (FileType::Directory.as_raw_mode() | 0o755) as u16;
                continue;
            };
            match &self.node(child).content {
                Content::Directory { .. } => at = child,
                Content::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err("too many symbolic links");
                    }
                    if target.starts_with(b"/") {
                        at = ROOT;
                    }
                    rest.extend(target.split(|byte| *byte == b'/').rev().map(Box::from));
                }
                _ => return Err("not a directory"),
            }
        }
        Ok(at)
    }

    /// Adds an inode under a free name; its owner is root, its time the entry's.
    fn add(&mut self, parent: Id, name: &[u8], content: Content, header: &Header) -> Result<Id> {
        if self.nodes.len() >= MAX_NODES {
            return Err(Error::entry(&header.path, "the layer has too many files"));
        }
        let id = self.nodes.len() as Id;
        let node = Node { mode: 0, uid: 0, gid: 0, mtime: header.mtime, xattrs: Vec::new(), content };
        self.nodes.push(node);
        self.insert(parent, name, id);
        Ok(id)
    }

    fn insert(&mut self, parent: Id, name: &[u8], id: Id) {
        if let Content::Directory { children, .. } = &mut self.node_mut(parent).content {
            children.insert(name.into(), id);
        }
    }

    fn remove(&mut self, parent: Id, name: &[u8]) {
        if let Content::Directory { children, .. } = &mut self.node_mut(parent).content
            && children.remove(name).is_some()
        {
            self.last = None;
        }
    }

    fn child(&self, parent: Id, name: &[u8]) -> Option<Id> {
        match &self.node(parent).content {
            Content::Directory { children, .. } => children.get(name).copied(),
            _ => None,
        }
    }

    fn is_directory(&self, id: Id) -> bool {
        matches!(self.node(id).content, Content::Directory { .. })
    }

    pub(super) fn parent(&self, id: Id) -> Id {
        match self.node(id).content {
            Content::Directory { parent, .. } => parent,
            _ => ROOT,
        }
    }

    fn set_opaque(&mut self, id: Id) {
        let xattr = Xattr { prefix: TRUSTED, name: (*b"overlay.opaque").into(), value: (*b"y").into() };
        set(&mut self.node_mut(id).xattrs, xattr);
    }

    /// Gives an inode an entry's metadata.
    fn describe(&mut self, id: Id, header: &Header) -> Result<()> {
        let node = self.node_mut(id);
        let (r#type, mode) = match header.kind {
            Kind::Regular | Kind::HardLink => (FileType::RegularFile, header.mode),
            Kind::Directory => (FileType::Directory, header.mode),
            Kind::Symlink => (FileType::Symlink, 0o777),
            Kind::Char => (FileType::CharacterDevice, header.mode),
            Kind::Block => (FileType::BlockDevice, header.mode),
            Kind::Fifo => (FileType::Fifo, header.mode),
        };
        node.mode = (r#type.as_raw_mode() | mode & 0o7777) as u16;
        (node.uid, node.gid, node.mtime) = (header.uid, header.gid, header.mtime);
        for (name, value) in &header.xattrs {
            if let Some(xattr) = xattr(header.kind, name, value) {
                set(&mut node.xattrs, xattr);
            }
        }
        let size: usize = node.xattrs.iter().map(Xattr::size).sum();
        let is_too_long = |xattr: &Xattr| xattr.name.len() > 255 || xattr.value.len() > u16::MAX.into();
        if size > MAX_XATTRS || node.xattrs.iter().any(is_too_long) {
            return Err(Error::entry(&header.path, "extended attributes too large"));
        }
        Ok(())
    }
}

fn set(xattrs: &mut Vec<Xattr>, new: Xattr) {
    xattrs.retain(|old| old.prefix != new.prefix || old.name != new.name);
    xattrs.push(new);
}

/// What an attribute becomes; none if it is not the archive's to set, or of a kind that neither other
/// file systems would take.
fn xattr(kind: Kind, name: &[u8], value: &[u8]) -> Option<Xattr> {
    if name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") {
        return None;
    }
    let (prefix, text) = PREFIXES.into_iter().find(|(_, prefix)| name.starts_with(prefix))?;
    let rest = &name[text.len()..];
    let fits = match prefix {
        1 => matches!(kind, Kind::Regular | Kind::Directory) && !rest.is_empty(),
        2 => kind != Kind::Symlink && rest.is_empty() && is_acl(value),
        3 => kind == Kind::Directory && rest.is_empty() && is_acl(value),
        _ => !rest.is_empty(),
    };
    fits.then(|| Xattr { prefix, name: rest.into(), value: value.into() })
}

/// Version 2, and entries of eight bytes that begin with a known tag (posix_acl_xattr.h): the kernel
/// lets nobody at a file with others.
fn is_acl(value: &[u8]) -> bool {
    let Some((b"\x02\0\0\0", entries)) = value.split_at_checked(4) else { return false };
    let (entries, rest) = entries.as_chunks::<8>();
    rest.is_empty()
        && entries.iter().all(|entry| match entry {
            [1 | 4 | 16 | 32, 0, ..] => true,
            [2 | 8, 0, _, _, id @ ..] => *id != [0xff; 4],
            _ => false,
        })
}

/// What is in a file that is neither directory nor hard link.
fn content(header: &Header, at: u64) -> Result<Content> {
    match header.kind {
        Kind::Char | Kind::Block => {
            if header.major > 0xfff || header.minor > 0xf_ffff {
                return Err(Error::entry(&header.path, "device number out of range"));
            }
            let (major, minor) = (header.major, header.minor);
            Ok(Content::Special(minor & 0xff | major << 8 | (minor & !0xff) << 12))
        }
        Kind::Fifo => Ok(Content::Special(0)),
        Kind::Symlink if header.link.is_empty() || header.link.len() > MAX_LINK => {
            Err(Error::entry(&header.path, "symbolic link to no path"))
        }
        Kind::Symlink => Ok(Content::Symlink(header.link.as_slice().into())),
        _ => Ok(match &header.sparse {
            Some(map) if Chunks::of(map).is_none() => {
                return Err(Error::entry(&header.path, "sparse file too large"));
            }
            Some(map) => Content::Sparse { map: Box::new(map.clone()), at },
            None => Content::File { size: header.size, at },
        }),
    }
}
