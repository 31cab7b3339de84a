//! One tar header: USTAR, with the old GNU and the PAX extensions.
//!
//! `pax(1)` and tar's manual, "Basic Tar Format", describe the 512 bytes.

/// Bytes in a header, and the unit that contents are padded to.
pub const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// A file with contents.
    #[default]
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link to [`Header::link`].
    Symlink,
    /// Another name of the entry [`Header::link`].
    HardLink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// Time of last modification since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds, below 10^9.
    pub nanoseconds: u32,
}

/// An entry's metadata, extensions already merged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// Name as the archive gives it.
    pub path: Vec<u8>,
    /// Type.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last modification.
    pub mtime: Time,
    /// Bytes of contents that follow in the archive.
    pub size: u64,
    /// Target of a symbolic or hard link.
    pub link: Vec<u8>,
    /// Device number of a device, major part.
    pub major: u32,
    /// Device number of a device, minor part.
    pub minor: u32,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the contents go in a file with holes.
    pub sparse: Option<Sparse>,
}

/// Map of a sparse file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sparse {
    /// The file's size with its holes.
    pub size: u64,
    /// Data as (offset, length), ascending.
    pub data: Vec<(u64, u64)>,
}

/// One header as it stands in the archive.
pub(crate) struct Raw<'a>(pub &'a [u8; BLOCK]);

const NAME: (usize, usize) = (0, 100);
const MODE: (usize, usize) = (100, 8);
const UID: (usize, usize) = (108, 8);
const GID: (usize, usize) = (116, 8);
const SIZE: (usize, usize) = (124, 12);
const MTIME: (usize, usize) = (136, 12);
const CHECKSUM: (usize, usize) = (148, 8);
const TYPE: usize = 156;
const LINK: (usize, usize) = (157, 100);
const MAGIC: (usize, usize) = (257, 8);
const MAJOR: (usize, usize) = (329, 8);
const MINOR: (usize, usize) = (337, 8);
const PREFIX: (usize, usize) = (345, 155);

impl<'a> Raw<'a> {
    fn field(&self, (offset, length): (usize, usize)) -> &'a [u8] {
        &self.0[offset..offset + length]
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// The sum of the bytes with the checksum's own field as spaces; some old programs summed
    /// signed bytes.
    pub(crate) fn checksum_matches(&self) -> bool {
        let mut unsigned = 0i64;
        let mut signed = 0i64;
        for (position, byte) in self.0.iter().enumerate() {
            let inside = position >= CHECKSUM.0 && position < CHECKSUM.0 + CHECKSUM.1;
            let byte = if inside { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte as i8);
        }
        number(self.field(CHECKSUM)).is_some_and(|sum| sum == unsigned || sum == signed)
    }

    pub(crate) fn type_flag(&self) -> u8 {
        self.0[TYPE]
    }

    fn is_gnu(&self) -> bool {
        self.field(MAGIC) == b"ustar  \0"
    }

    /// The name, with USTAR's prefix.
    pub(crate) fn path(&self) -> Vec<u8> {
        let name = text(self.field(NAME));
        let prefix = text(self.field(PREFIX));
        if self.is_gnu() || !self.field(MAGIC).starts_with(b"ustar\0") || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(crate) fn link(&self) -> Vec<u8> {
        text(self.field(LINK)).to_vec()
    }

    pub(crate) fn mode(&self) -> Option<i64> {
        number(self.field(MODE))
    }

    pub(crate) fn uid(&self) -> Option<i64> {
        number(self.field(UID))
    }

    pub(crate) fn gid(&self) -> Option<i64> {
        number(self.field(GID))
    }

    pub(crate) fn size(&self) -> Option<i64> {
        number(self.field(SIZE))
    }

    pub(crate) fn mtime(&self) -> Option<i64> {
        number(self.field(MTIME))
    }

    pub(crate) fn major(&self) -> Option<i64> {
        number(self.field(MAJOR))
    }

    pub(crate) fn minor(&self) -> Option<i64> {
        number(self.field(MINOR))
    }

    /// Old GNU sparse format: four pairs, whether more blocks of pairs follow, and the real size.
    pub(crate) fn gnu_sparse(&self) -> (&'a [u8], bool, Option<i64>) {
        (&self.0[386..482], self.0[482] != 0, number(&self.0[483..495]))
    }
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits between spaces and NULs, or in base 256 when the first bit is set.
/// Empty is 0.
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (position, byte) in field.iter().enumerate() {
            let byte = if position == 0 && !negative { byte & 0x7f } else { *byte };
            value = value.checked_mul(256)? | i128::from(byte);
            i64::try_from(value).ok()?;
        }
        return i64::try_from(value).ok();
    }
    let digits = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    let mut value: i64 = 0;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value = value.checked_mul(8)?.checked_add(i64::from(digit))?;
    }
    Some(value)
}

/// A header of the plain USTAR kind under construction.
pub(crate) struct Block(pub [u8; BLOCK]);

impl Block {
    /// Fills all fields; what does not fit is cut off, for a PAX header has carried it.
    pub(crate) fn new(header: &Header, flag: u8) -> Self {
        let mut block = Self([0; BLOCK]);
        block.put(NAME, &header.path);
        block.put_number(MODE, u64::from(header.mode));
        block.put_number(UID, u64::from(header.uid));
        block.put_number(GID, u64::from(header.gid));
        block.put_number(SIZE, header.size);
        block.put_number(MTIME, u64::try_from(header.mtime.seconds).unwrap_or(0));
        block.0[TYPE] = flag;
        block.put(LINK, &header.link);
        block.put((MAGIC.0, MAGIC.1), b"ustar\x0000");
        block.put_number(MAJOR, u64::from(header.major));
        block.put_number(MINOR, u64::from(header.minor));
        block.0[CHECKSUM.0..CHECKSUM.0 + CHECKSUM.1].fill(b' ');
        let sum: u32 = block.0.iter().map(|byte| u32::from(*byte)).sum();
        block.put(CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
        block
    }

    fn put(&mut self, (offset, length): (usize, usize), value: &[u8]) {
        let length = length.min(value.len());
        self.0[offset..offset + length].copy_from_slice(&value[..length]);
    }

    fn put_number(&mut self, field: (usize, usize), value: u64) {
        let digits = field.1 - 1;
        let value = if fits_octal(value, field.1) { value } else { 0 };
        self.put(field, format!("{value:0digits$o}").as_bytes());
    }

    /// Whether a header needs PAX records for what this format cannot say.
    pub(crate) fn pax_records(header: &Header) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut records = Vec::new();
        let mut record = |key: &str, value: Vec<u8>| records.push((key.as_bytes().to_vec(), value));
        if header.path.len() > NAME.1 || !header.path.is_ascii() {
            record("path", header.path.clone());
        }
        if header.link.len() > LINK.1 || !header.link.is_ascii() {
            record("linkpath", header.link.clone());
        }
        if !fits_octal(header.size, SIZE.1) {
            record("size", header.size.to_string().into_bytes());
        }
        for (key, id) in [("uid", header.uid), ("gid", header.gid)] {
            if !fits_octal(u64::from(id), UID.1) {
                record(key, id.to_string().into_bytes());
            }
        }
        let seconds = header.mtime.seconds;
        let fits = u64::try_from(seconds).is_ok_and(|seconds| fits_octal(seconds, MTIME.1));
        if !fits || header.mtime.nanoseconds != 0 {
            record("mtime", pax_time(header.mtime).into_bytes());
        }
        for (key, value) in &header.xattrs {
            records.push(([b"SCHILY.xattr.", key.as_slice()].concat(), value.clone()));
        }
        records
    }
}

fn fits_octal(value: u64, length: usize) -> bool {
    value < 1 << (3 * (length - 1))
}

/// `-1.5 s` is seconds = -2 and nanoseconds = 500,000,000, and is written `-1.5`.
fn pax_time(time: Time) -> String {
    let (sign, seconds, nanoseconds) = if time.seconds < 0 && time.nanoseconds > 0 {
        ("-", -(time.seconds + 1), 1_000_000_000 - time.nanoseconds)
    } else if time.seconds < 0 {
        ("-", -time.seconds, 0)
    } else {
        ("", time.seconds, time.nanoseconds)
    };
    if nanoseconds == 0 {
        return format!("{sign}{seconds}");
    }
    let fraction = format!("{nanoseconds:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}

/// A time as PAX writes it: decimal seconds with an optional fraction.
pub(crate) fn parse_pax_time(text: &str) -> Option<Time> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let seconds: i64 = whole.parse().ok().filter(|seconds| *seconds >= 0)?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds: 0 },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_octal_and_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(b"\x80\0\0\0\xff\xff\xff\xff"), Some(0xffff_ffff));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        let mut huge = [0xff; 12];
        huge[0] = 0x80;
        assert_eq!(number(&huge), None);
    }

    #[test]
    fn pax_times_survive_a_round_trip() {
        for (seconds, nanoseconds) in
            [(0, 0), (5, 1), (1_700_000_000, 123_456_789), (-1, 0), (-2, 500_000_000)]
        {
            let time = Time { seconds, nanoseconds };
            assert_eq!(parse_pax_time(&pax_time(time)), Some(time), "{seconds} {nanoseconds}");
        }
        assert_eq!(parse_pax_time("1.x"), None);
        assert_eq!(parse_pax_time("--1"), None);
    }
}
