//! Inodes, directories and the superblock, as the kernel reads them.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::FileType;

use super::tree::{Content, Id, Node, ROOT, Tree, Xattr};
use super::write_error;
use crate::header::Sparse;
use crate::{Error, Result};

/// Bytes of a block.
const BLOCK: u64 = 512;
const BLOCK_BITS: u32 = BLOCK.trailing_zeros();
/// Inodes are numbered by their place, in units of this many bytes.
const SLOT: u64 = 32;
/// Bytes of an inode (`struct erofs_inode_extended`).
const INODE: u64 = 64;
/// Bytes of a directory's entry, without its name (`struct erofs_dirent`).
const ENTRY: usize = 12;
/// Bytes before the extended attributes of an inode (`struct erofs_xattr_ibody_header`).
const XATTRS: usize = 12;
const SUPERBLOCK: u64 = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// `EROFS_FEATURE_INCOMPAT_CHUNKED_FILE`.
const CHUNKED_FILES: u32 = 4;
/// `EROFS_INODE_FLAT_PLAIN`, `_FLAT_INLINE` and `_CHUNK_BASED`: where an inode's data are.
const PLAIN: u16 = 0;
const INLINE: u16 = 2;
const CHUNKED: u16 = 4;
/// The address of what is nowhere: a hole.
const NOWHERE: u32 = u32::MAX;

/// Where the next contents may be, behind contents of this size.
pub(super) fn after(at: u64, size: u64) -> Result<u64> {
    let end = at.checked_add(size).and_then(|end| end.checked_next_multiple_of(BLOCK));
    end.filter(|end| end >> BLOCK_BITS < u64::from(NOWHERE)).ok_or_else(too_large)
}

fn too_large() -> Error {
    write_error(io::Error::from(io::ErrorKind::FileTooLarge))
}

/// How a sparse file is cut: equal chunks, of which those without data are holes.
pub(super) struct Chunks {
    bits: u32,
    /// Number of chunks.
    count: u64,
    /// Those with data, ascending.
    used: Vec<u64>,
}

impl Chunks {
    /// None if the file is too large for the format.
    pub(super) fn of(map: &Sparse) -> Option<Self> {
        // More chunks cost more of the image, fewer waste addresses.
        let most = 1024 + 8 * map.data.len() as u64;
        let bits = (12..BLOCK_BITS + 32).find(|bits| map.size.div_ceil(1 << bits) <= most)?;
        let mut used: Vec<u64> = Vec::new();
        for (start, length) in map.data.iter().filter(|(_, length)| *length > 0) {
            let first = used.last().map_or(start >> bits, |last| (last + 1).max(start >> bits));
            used.extend(first..=(start + length - 1) >> bits);
        }
        Some(Self { bits, count: map.size.div_ceil(1 << bits), used })
    }

    /// Bytes of all that are no holes.
    pub(super) fn total(&self) -> u64 {
        (self.used.len() as u64) << self.bits
    }

    /// Where a piece of the file goes: places behind the first chunk's beginning, and lengths.
    pub(super) fn places(&self, start: u64, length: u64) -> impl Iterator<Item = (u64, u64)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = start + done;
            let inside = at & ((1 << self.bits) - 1);
            let piece = (length - done).min((1 << self.bits) - inside);
            done += piece;
            let index = self.index(at >> self.bits)?;
            (piece > 0).then_some(((index << self.bits) + inside, piece))
        })
    }

    fn index(&self, chunk: u64) -> Option<u64> {
        self.used.binary_search(&chunk).ok().map(|index| index as u64)
    }

    /// The address of each chunk.
    fn addresses(&self, at: u64) -> impl Iterator<Item = u32> {
        let address = move |index| ((at + (index << self.bits)) >> BLOCK_BITS) as u32;
        (0..self.count).map(move |chunk| self.index(chunk).map_or(NOWHERE, address))
    }

    /// `struct erofs_inode_chunk_info`.
    fn format(&self) -> u32 {
        self.bits - BLOCK_BITS
    }
}

/// Writes what stands behind the contents, which end at byte `end`, and the superblock.
pub(super) fn write(tree: &Tree, file: &File, end: u64) -> Result<()> {
    let mut layout = Layout::new(tree, end >> BLOCK_BITS)?;
    let mut output = Output::new(file, end)?;
    for &id in &layout.order {
        if layout.blocks[id as usize] != NOWHERE {
            output.bytes(&layout.data(tree, id))?;
            output.fill_to(BLOCK)?;
        }
    }
    let inodes = output.position;
    for &id in &layout.order {
        output.zeros(inodes + layout.places[id as usize] - output.position)?;
        layout.inode(tree, id, &mut output)?;
    }
    output.fill_to(super::HEAD)?;
    layout.first_inode = inodes;
    let length = output.finish()?;
    file.write_all_at(&layout.superblock(length)?, SUPERBLOCK).map_err(write_error)
}

/// Where everything goes.
struct Layout {
    /// Inodes that have a name, as they are written.
    order: Vec<Id>,
    /// Of each inode, the bytes before it in the table of inodes.
    places: Vec<u64>,
    /// Of each inode, the number of its links.
    links: Vec<u32>,
    /// Of each inode, the block that its directory or symbolic link begins at.
    blocks: Vec<u32>,
    /// The byte at which the table of inodes begins.
    first_inode: u64,
}

impl Layout {
    fn new(tree: &Tree, first_block: u64) -> Result<Self> {
        let mut layout = Self {
            order: Vec::new(),
            places: vec![0; tree.len()],
            links: vec![0; tree.len()],
            blocks: vec![NOWHERE; tree.len()],
            first_inode: 0,
        };
        layout.visit(tree);
        layout.place(tree, first_block)?;
        Ok(layout)
    }

    /// Finds what has a name, the inodes of a directory together, and counts links.
    fn visit(&mut self, tree: &Tree) {
        self.order.push(ROOT);
        self.links[ROOT as usize] = 2;
        let mut next = 0;
        while let Some(&directory) = self.order.get(next) {
            next += 1;
            for (_, id) in tree.children(directory) {
                let links = &mut self.links[id as usize];
                if *links == 0 {
                    self.order.push(id);
                }
                if matches!(tree.node(id).content, Content::Directory { .. }) {
                    *links = 2;
                    self.links[directory as usize] += 1;
                } else {
                    *links += 1;
                }
            }
        }
    }

    /// Places the inodes. What is short stands behind its inode, in the same block.
    fn place(&mut self, tree: &Tree, mut block: u64) -> Result<()> {
        // The first place is left free: an inode's number is not 0.
        let mut at = INODE;
        for index in 0..self.order.len() {
            let id = self.order[index];
            let node = tree.node(id);
            let head = INODE + xattrs_size(node);
            let tail = match &node.content {
                Content::Directory { .. } => directory_size(&entries(tree, id)),
                Content::Symlink(target) => target.len() as u64,
                _ => 0,
            };
            let is_inline = head + tail <= BLOCK;
            let behind = match &node.content {
                Content::Sparse { map, .. } => Chunks::of(map).map_or(0, |chunks| 4 * chunks.count),
                _ if is_inline => tail,
                _ => 0,
            };
            let whole = if is_inline && tail > 0 { head + tail } else { INODE };
            if at % BLOCK + whole > BLOCK {
                at = at.next_multiple_of(BLOCK);
            }
            self.places[id as usize] = at;
            at = (at + head + behind).next_multiple_of(SLOT);
            if !is_inline {
                self.blocks[id as usize] = address(block)?;
                block += tail.div_ceil(BLOCK);
            }
        }
        // All addresses have to fit.
        address(block + at.div_ceil(BLOCK) + super::HEAD / BLOCK).map(drop)
    }

    fn number(&self, id: Id) -> u64 {
        self.places[id as usize] / SLOT
    }

    /// What a directory or a symbolic link contains.
    fn data(&self, tree: &Tree, id: Id) -> Vec<u8> {
        match &tree.node(id).content {
            Content::Symlink(target) => target.to_vec(),
            Content::Directory { .. } => self.directory(tree, &entries(tree, id)),
            _ => Vec::new(),
        }
    }

    /// Each block has its entries, and then their names.
    fn directory(&self, tree: &Tree, entries: &[(&[u8], Id)]) -> Vec<u8> {
        let mut data = Vec::new();
        for block in blocks(entries) {
            data.resize(data.len().next_multiple_of(BLOCK as usize), 0);
            let mut name_at = block.len() * ENTRY;
            for (name, id) in block {
                data.extend(self.number(*id).to_le_bytes());
                data.extend((name_at as u16).to_le_bytes());
                data.extend([file_type(tree.node(*id).mode), 0]);
                name_at += name.len();
            }
            for (name, _) in block {
                data.extend_from_slice(name);
            }
        }
        data
    }

    fn inode(&self, tree: &Tree, id: Id, output: &mut Output<'_>) -> Result<()> {
        let node = tree.node(id);
        let block = self.blocks[id as usize];
        let is_inline = block == NOWHERE;
        let (layout, size, place, behind) = match &node.content {
            Content::File { size, at } => (PLAIN, *size, (at >> BLOCK_BITS) as u32, Vec::new()),
            Content::Special(number) => (PLAIN, 0, *number, Vec::new()),
            Content::Sparse { map, at } => match Chunks::of(map) {
                Some(chunks) => {
                    let addresses = chunks.addresses(*at).flat_map(u32::to_le_bytes).collect();
                    (CHUNKED, map.size, chunks.format(), addresses)
                }
                None => return Err(too_large()),
            },
            Content::Directory { .. } | Content::Symlink(_) => {
                let data = self.data(tree, id);
                let size = data.len() as u64;
                if is_inline { (INLINE, size, 0, data) } else { (PLAIN, size, block, Vec::new()) }
            }
        };
        let mut bytes = Vec::with_capacity(INODE as usize);
        bytes.extend((1 | layout << 1).to_le_bytes());
        bytes.extend(xattrs_count(node).to_le_bytes());
        bytes.extend(node.mode.to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(size.to_le_bytes());
        bytes.extend(place.to_le_bytes());
        bytes.extend((self.number(id) as u32).to_le_bytes());
        bytes.extend(node.uid.to_le_bytes());
        bytes.extend(node.gid.to_le_bytes());
        bytes.extend(node.mtime.seconds.to_le_bytes());
        bytes.extend(node.mtime.nanoseconds.to_le_bytes());
        bytes.extend(self.links[id as usize].to_le_bytes());
        bytes.resize(INODE as usize, 0);
        push_xattrs(node, &mut bytes);
        output.bytes(&bytes)?;
        output.bytes(&behind)
    }

    /// `struct erofs_super_block`, for a file of this length.
    fn superblock(&self, length: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend([BLOCK_BITS as u8, 0]);
        bytes.extend((self.number(ROOT) as u16).to_le_bytes());
        bytes.extend((self.order.len() as u64).to_le_bytes());
        bytes.extend([0; 12]);
        bytes.extend(address(length >> BLOCK_BITS)?.to_le_bytes());
        bytes.extend(address(self.first_inode >> BLOCK_BITS)?.to_le_bytes());
        bytes.resize(80, 0);
        bytes.extend(CHUNKED_FILES.to_le_bytes());
        bytes.resize(128, 0);
        Ok(bytes)
    }
}

fn address(block: u64) -> Result<u32> {
    u32::try_from(block).ok().filter(|block| *block != NOWHERE).ok_or_else(too_large)
}

/// A directory's entries in their order, which is that of the names' bytes.
fn entries(tree: &Tree, id: Id) -> Vec<(&[u8], Id)> {
    let mut entries: Vec<(&[u8], Id)> = tree.children(id).collect();
    entries.push((b".", id));
    entries.push((b"..", tree.parent(id)));
    entries.sort_unstable();
    entries
}

/// The entries of each block.
fn blocks<'a, 'b>(entries: &'a [(&'b [u8], Id)]) -> impl Iterator<Item = &'a [(&'b [u8], Id)]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut size = 0;
        let fits = |(name, _): &&(&[u8], Id)| {
            size += ENTRY + name.len();
            size as u64 <= BLOCK
        };
        let (block, behind) = rest.split_at(rest.iter().take_while(fits).count());
        rest = behind;
        (!block.is_empty()).then_some(block)
    })
}

fn directory_size(entries: &[(&[u8], Id)]) -> u64 {
    let of_block = |block: &[(&[u8], Id)]| block.iter().map(|(name, _)| ENTRY + name.len()).sum::<usize>();
    blocks(entries).fold(0_u64, |size, block| size.next_multiple_of(BLOCK) + of_block(block) as u64)
}

/// `FT_*` of the directory's entries.
fn file_type(mode: u16) -> u8 {
    match FileType::from_raw_mode(mode.into()) {
        FileType::RegularFile => 1,
        FileType::Directory => 2,
        FileType::CharacterDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Fifo => 5,
        FileType::Symlink => 7,
        _ => 0,
    }
}

fn xattrs_size(node: &Node) -> u64 {
    if node.xattrs.is_empty() {
        return 0;
    }
    XATTRS as u64 + node.xattrs.iter().map(Xattr::size).sum::<usize>() as u64
}

/// The count stands for the size: the head is one, each four bytes more another.
fn xattrs_count(node: &Node) -> u16 {
    xattrs_size(node).checked_sub(XATTRS as u64).map_or(0, |size| (size / 4 + 1) as u16)
}

fn push_xattrs(node: &Node, bytes: &mut Vec<u8>) {
    if node.xattrs.is_empty() {
        return;
    }
    bytes.extend([0; XATTRS]);
    for xattr in &node.xattrs {
        let end = bytes.len() + xattr.size();
        bytes.extend([xattr.name.len() as u8, xattr.prefix]);
        bytes.extend((xattr.value.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&xattr.name);
        bytes.extend_from_slice(&xattr.value);
        bytes.resize(end, 0);
    }
}

/// A file that is written from some byte on.
struct Output<'a> {
    file: BufWriter<&'a File>,
    position: u64,
}

impl<'a> Output<'a> {
    fn new(mut file: &'a File, position: u64) -> Result<Self> {
        file.seek(SeekFrom::Start(position)).map_err(write_error)?;
        Ok(Self { file: BufWriter::with_capacity(1 << 18, file), position })
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.position += bytes.len() as u64;
        self.file.write_all(bytes).map_err(write_error)
    }

    fn zeros(&mut self, count: u64) -> Result<()> {
        self.position += count;
        io::copy(&mut io::Read::take(io::repeat(0), count), &mut self.file).map(drop).map_err(write_error)
    }

    fn fill_to(&mut self, unit: u64) -> Result<()> {
        self.zeros(self.position.next_multiple_of(unit) - self.position)
    }

    /// The position that was reached.
    fn finish(mut self) -> Result<u64> {
        self.file.flush().map_err(write_error)?;
        Ok(self.position)
    }
}
