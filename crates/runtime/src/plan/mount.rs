//! Mounts: options in words to a source, attributes and propagation.

use std::path::PathBuf;

use ponton_sys::mount::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME,
};
use rustix::mount::MountPropagationFlags;
use serde::{Deserialize, Serialize};

use super::{IdMaps, PlanError};

/// A mount of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// What is mounted.
    pub source: Source,
    /// Where, in the container.
    pub target: String,
    /// How it differs from its source.
    #[serde(default, skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
    /// How mounts below it spread; private, with all below it, where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagation: Option<Propagation>,
    /// How the ids of its files are mapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_map: Option<IdMapPlan>,
    /// A tmpfs begins with a copy of what it covers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copy_up: bool,
}

/// A mount whose files' ids are mapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapPlan {
    /// The maps: an id in the file system, and what it is on this mount.
    pub maps: IdMaps,
    /// For all mounts below it too.
    pub recursive: bool,
}

impl MountPlan {
    /// A mount with nothing special.
    pub(super) fn new(source: Source, target: impl Into<String>) -> Self {
        let attributes = Attributes::default();
        Self { source, target: target.into(), attributes, propagation: None, id_map: None, copy_up: false }
    }
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A new instance of a file system.
    FileSystem {
        /// Its type, `tmpfs`.
        r#type: String,
        /// Its source, which most ignore.
        source: String,
        /// Its own options, `size=65536k`.
        options: Vec<String>,
    },
    /// A file or directory of the host.
    Bind {
        /// Its path on the host.
        path: PathBuf,
        /// With what is mounted below it.
        recursive: bool,
    },
    /// What is mounted there already, with these options of the file system and other attributes.
    Remount {
        /// Options of the file system; without any only attributes of the mount change.
        options: Vec<String>,
    },
}

/// Attributes of a mount as `MOUNT_ATTR_*` bits (mount_setattr(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attributes {
    /// Set on the mount.
    #[serde(skip_serializing_if = "is_zero")]
    pub set: u64,
    /// Cleared on the mount.
    #[serde(skip_serializing_if = "is_zero")]
    pub clear: u64,
    /// Set on the mount and all below it.
    #[serde(skip_serializing_if = "is_zero")]
    pub set_recursive: u64,
    /// Cleared on the mount and all below it.
    #[serde(skip_serializing_if = "is_zero")]
    pub clear_recursive: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(bits: &u64) -> bool {
    *bits == 0
}

/// How mounts made below a mount spread to its copies (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propagation {
    /// One of `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`.
    pub flag: u64,
    /// For all mounts below it too.
    pub recursive: bool,
}

/// One mount of a root file system, as a snapshotter tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootMount {
    /// The file system's type, `overlay`, or `bind`.
    pub r#type: String,
    /// Its source.
    pub source: String,
    /// Where below the root; none is the root.
    pub target: Option<String>,
    /// Its options, `lowerdir=…`, `ro`.
    pub options: Vec<String>,
}

impl Attributes {
    /// Read-only.
    pub const READ_ONLY: Self =
        Self { set: MOUNT_ATTR_RDONLY, clear: 0, set_recursive: 0, clear_recursive: 0 };

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the mount itself is read-only.
    pub fn is_read_only(&self) -> bool {
        (self.set | self.set_recursive) & MOUNT_ATTR_RDONLY != 0
    }

    fn add(&mut self, bits: u64, is_set: bool, recursive: bool) {
        let (set, clear) = if recursive {
            (&mut self.set_recursive, &mut self.clear_recursive)
        } else {
            (&mut self.set, &mut self.clear)
        };
        // The kinds of access time are one field of the mount, not flags.
        let field = if bits & MOUNT_ATTR__ATIME != 0 { MOUNT_ATTR__ATIME } else { bits };
        *set &= !field;
        *clear |= field;
        if is_set {
            *set |= bits;
            if field == bits {
                *clear &= !bits;
            }
        }
    }

    /// The words for them, as they are printed.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let parts = [("", self.set, self.clear), ("r", self.set_recursive, self.clear_recursive)];
        for (prefix, set, clear) in parts {
            for &(word, bits, is_set) in WORDS {
                let field = if bits & MOUNT_ATTR__ATIME == 0 { bits } else { MOUNT_ATTR__ATIME };
                if if is_set { set & field == bits } else { clear & !set & bits != 0 } {
                    words.push(format!("{prefix}{word}"));
                }
            }
        }
        words
    }
}

/// Words of mount(8), their bits, and whether they set them.
const WORDS: &[(&str, u64, bool)] = &[
    ("ro", MOUNT_ATTR_RDONLY, true),
    ("rw", MOUNT_ATTR_RDONLY, false),
    ("nosuid", MOUNT_ATTR_NOSUID, true),
    ("suid", MOUNT_ATTR_NOSUID, false),
    ("nodev", MOUNT_ATTR_NODEV, true),
    ("dev", MOUNT_ATTR_NODEV, false),
    ("noexec", MOUNT_ATTR_NOEXEC, true),
    ("exec", MOUNT_ATTR_NOEXEC, false),
    ("nosymfollow", MOUNT_ATTR_NOSYMFOLLOW, true),
    ("symfollow", MOUNT_ATTR_NOSYMFOLLOW, false),
    ("nodiratime", MOUNT_ATTR_NODIRATIME, true),
    ("diratime", MOUNT_ATTR_NODIRATIME, false),
    ("noatime", MOUNT_ATTR_NOATIME, true),
    ("strictatime", MOUNT_ATTR_STRICTATIME, true),
];

/// Further words for the kinds of access time; all of them stand for the kernel's default.
const RELATIME: [&str; 4] = ["relatime", "atime", "norelatime", "nostrictatime"];

const PROPAGATION: [(&str, MountPropagationFlags); 4] = [
    ("private", MountPropagationFlags::PRIVATE),
    ("slave", MountPropagationFlags::DOWNSTREAM),
    ("shared", MountPropagationFlags::SHARED),
    ("unbindable", MountPropagationFlags::UNBINDABLE),
];

impl Propagation {
    /// From its word, with `r` before it for recursive.
    pub fn from_word(word: &str) -> Option<Self> {
        let find = |name: &str| PROPAGATION.iter().find(|(known, _)| *known == name);
        let (name, recursive) = match word.strip_prefix('r') {
            Some(rest) if find(rest).is_some() => (rest, true),
            _ => (word, false),
        };
        find(name).map(|(_, flag)| Self { flag: u64::from(flag.bits()), recursive })
    }

    pub(super) fn word(self) -> String {
        let name = PROPAGATION.iter().find(|(_, flag)| u64::from(flag.bits()) == self.flag);
        format!("{}{}", if self.recursive { "r" } else { "" }, name.map_or("?", |(name, _)| name))
    }
}

/// The options that are more than a word for the file system, in order.
pub fn mount_options() -> Vec<String> {
    let propagation = PROPAGATION.iter().flat_map(|(word, _)| [(*word).to_owned(), format!("r{word}")]);
    let attributes = WORDS.iter().flat_map(|(word, ..)| [(*word).to_owned(), format!("r{word}")]);
    let times = RELATIME.iter().flat_map(|word| [(*word).to_owned(), format!("r{word}")]);
    let others = OTHERS.into_iter().map(String::from);
    let mut options: Vec<String> = attributes.chain(propagation).chain(times).chain(others).collect();
    options.sort();
    options
}

/// Words that are neither attributes nor propagation; some are carried out by the file system.
const OTHERS: [&str; 18] = [
    "async",
    "bind",
    "defaults",
    "dirsync",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noiversion",
    "nolazytime",
    "nomand",
    "rbind",
    "remount",
    "ridmap",
    "silent",
    "sync",
    "tmpcopyup",
];

/// What the options of a mount say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) attributes: Attributes,
    pub(super) propagation: Option<Propagation>,
    /// `bind` or `rbind`.
    pub(super) bind: Option<Recursive>,
    /// `idmap` or `ridmap`.
    pub(super) id_map: Option<Recursive>,
    /// `tmpcopyup`.
    pub(super) copy_up: bool,
    /// `remount`.
    pub(super) remount: bool,
    /// What is left for the file system.
    pub(super) data: Vec<String>,
}

/// `rbind` and `ridmap` are recursive, `bind` and `idmap` are not.
pub(super) type Recursive = bool;

/// Reads the options of a mount; `field` is where they stand, for the error.
pub(super) fn parse_options(options: &[String], field: &str) -> Result<Options, PlanError> {
    let mut parsed = Options::default();
    for option in options {
        parse_option(&mut parsed, option, field)?;
    }
    Ok(parsed)
}

fn parse_option(parsed: &mut Options, option: &str, field: &str) -> Result<(), PlanError> {
    let attribute = |name: &str| WORDS.iter().find(|(word, ..)| *word == name);
    match option {
        "bind" => parsed.bind = Some(parsed.bind.unwrap_or(false)),
        "rbind" => parsed.bind = Some(true),
        // What every new mount is; how much is logged; and what file systems decide by themselves
        // (kernel 6.1).
        "defaults" | "" | "silent" | "loud" | "iversion" | "noiversion" => {}
        "idmap" => parsed.id_map = Some(parsed.id_map.unwrap_or(false)),
        "ridmap" => parsed.id_map = Some(true),
        "tmpcopyup" => parsed.copy_up = true,
        "remount" => parsed.remount = true,
        _ if RELATIME.contains(&option) => add_relatime(&mut parsed.attributes, false),
        _ if option.strip_prefix('r').is_some_and(|word| RELATIME.contains(&word)) => {
            add_relatime(&mut parsed.attributes, true);
        }
        _ => {
            if let Some(&(_, bits, is_set)) = attribute(option) {
                parsed.attributes.add(bits, is_set, false);
            } else if let Some(propagation) = Propagation::from_word(option) {
                parsed.propagation = Some(propagation);
            } else if let Some(&(_, bits, is_set)) = option.strip_prefix('r').and_then(attribute) {
                parsed.attributes.add(bits, is_set, true);
            } else if option.contains('\0') {
                return Err(PlanError::invalid(field, "a mount option contains a null byte"));
            } else {
                parsed.data.push(option.to_owned());
            }
        }
    }
    Ok(())
}

fn add_relatime(attributes: &mut Attributes, recursive: bool) {
    attributes.add(MOUNT_ATTR__ATIME, false, recursive);
    attributes.add(MOUNT_ATTR_RELATIME, true, recursive);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// config.md, "Linux mount options": all of them, and those that are the file system's business.
    const ALL: &str = "async,atime,bind,defaults,dev,diratime,dirsync,exec,iversion,lazytime,loud,nodev,\
        noatime,nodiratime,noexec,noiversion,nolazytime,norelatime,nostrictatime,nosuid,nosymfollow,\
        private,ratime,rbind,rdev,rdiratime,relatime,remount,rexec,rnoatime,rnodiratime,rnodev,rnoexec,\
        rnorelatime,rnostrictatime,rnosuid,rnosymfollow,ro,rprivate,rrelatime,rro,rrw,rshared,rslave,\
        rstrictatime,rsuid,rsymfollow,runbindable,rw,shared,silent,slave,strictatime,suid,symfollow,\
        sync,tmpcopyup,unbindable,idmap,ridmap,mand,nomand";

    #[test]
    fn every_option_of_the_specification_is_known() {
        let options = parse(ALL);
        let of_the_file_system = ["async", "dirsync", "lazytime", "nolazytime", "sync", "mand", "nomand"];
        assert_eq!(options.data, of_the_file_system);
        assert_eq!((options.bind, options.id_map), (Some(true), Some(true)));
        assert!(options.copy_up && options.remount);
        assert_eq!(parse("rnoatime,rrelatime").attributes.clear_recursive, MOUNT_ATTR__ATIME);
    }

    fn parse(options: &str) -> Options {
        let options: Vec<String> = options.split(',').map(String::from).collect();
        parse_options(&options, "mounts[0].options").unwrap()
    }

    #[test]
    fn words_become_bits() {
        let options = parse("rbind,ro,nosuid,rnodev,rslave,size=65536k,mode=755");
        assert_eq!(options.attributes.set, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID);
        assert_eq!(options.attributes.set_recursive, MOUNT_ATTR_NODEV);
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.propagation, Propagation::from_word("rslave"));
        assert_eq!(options.data, ["size=65536k", "mode=755"]);
    }

    #[test]
    fn the_last_word_wins() {
        let attributes = parse("ro,rw").attributes;
        assert_eq!((attributes.set, attributes.clear), (0, MOUNT_ATTR_RDONLY));
        let attributes = parse("rw,ro").attributes;
        assert_eq!((attributes.set, attributes.clear), (MOUNT_ATTR_RDONLY, 0));
        let attributes = parse("noatime,strictatime").attributes;
        assert_eq!((attributes.set, attributes.clear), (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME));
        let attributes = parse("noatime,relatime").attributes;
        assert_eq!((attributes.set, attributes.clear), (0, MOUNT_ATTR__ATIME));
    }

    #[test]
    fn attributes_are_printed_as_words() {
        assert_eq!(parse("nosuid,noexec,nodev,ro").attributes.words(), ["ro", "nosuid", "nodev", "noexec"]);
        assert_eq!(parse("rro,noatime").attributes.words(), ["noatime", "rro"]);
        assert_eq!(parse("rw").attributes.words(), ["rw"]);
        assert_eq!(Propagation::from_word("rshared").unwrap().word(), "rshared");
    }
}
