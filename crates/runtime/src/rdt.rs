//! Classes of cache and memory bandwidth (config-linux.md, "IntelRdt"): directories of the resctrl
//! file system.
//!
//! ```text
//!   /sys/fs/resctrl/<class>/schemata                    what the class may use
//!                          /tasks                       who is in it
//!                          /mon_groups/<container>/tasks who is counted apart
//! ```
//!
//! A class without a name of its own is the container's, and is removed with it; a named one stays.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ponton_sys::Error;
use rustix::io::Errno;

use crate::plan::RdtPlan;

/// Where the kernel's documentation has the file system mounted.
const MOUNT: &str = "/sys/fs/resctrl";
/// linux/magic.h.
const RDTGROUP_MAGIC: i64 = 0x0765_5821;

/// The mounted file system.
#[derive(Clone, Debug)]
pub struct Resctrl {
    root: PathBuf,
}

impl Resctrl {
    /// The host's; an error where it is not mounted.
    pub fn mounted() -> Result<Self, Error> {
        let of = rustix::fs::statfs(MOUNT);
        let is_there = of.is_ok_and(|of| of.f_type == RDTGROUP_MAGIC);
        let errno = Errno::OPNOTSUPP;
        let missing = || Error::new("find", format!("a resctrl file system at {MOUNT}"), errno);
        is_there.then(|| Self { root: PathBuf::from(MOUNT) }).ok_or_else(missing)
    }

    /// Puts a process in the class of a plan, which is made where it is missing. On an error nothing
    /// new is left.
    pub(crate) fn join(&self, plan: &RdtPlan, pid: u32) -> Result<(), Error> {
        let class = self.root.join(&plan.class);
        let is_new = make(plan, &class)?;
        let join = || {
            if is_new || plan.is_own {
                plan.schemata.iter().try_for_each(|line| write_line(&class.join("schemata"), line))?;
            } else {
                plan.schemata.iter().try_for_each(|line| compare(&class.join("schemata"), line))?;
            }
            write_line(&class.join("tasks"), &pid.to_string())?;
            let Some(name) = &plan.monitor else { return Ok(()) };
            let group = class.join("mon_groups").join(name);
            fs::create_dir(&group).map_err(Error::of("mkdir", group.display()))?;
            write_line(&group.join("tasks"), &pid.to_string())
        };
        join().inspect_err(|_| {
            // What failed is told; that the rest could not be removed says nothing more.
            let _ = self.leave(plan);
            if is_new {
                let _ = fs::remove_dir(&class);
            }
        })
    }

    /// Changes what the class of a plan may use, by lines as of its `schemata`.
    pub fn update(&self, plan: &RdtPlan, schemata: &[&str]) -> Result<(), Error> {
        let path = self.root.join(&plan.class).join("schemata");
        schemata.iter().flat_map(|lines| lines.lines()).try_for_each(|line| write_line(&path, line))
    }

    /// Removes what was made for the container: its monitoring group, and the class if it is its own.
    pub(crate) fn leave(&self, plan: &RdtPlan) -> Result<(), Error> {
        let class = self.root.join(&plan.class);
        if let Some(name) = &plan.monitor {
            remove(&class.join("mon_groups").join(name))?;
        }
        if plan.is_own { remove(&class) } else { Ok(()) }
    }
}

/// Makes a class where it is missing; whether it was made now.
fn make(plan: &RdtPlan, class: &Path) -> Result<bool, Error> {
    if plan.must_exist {
        let failed = Error::of("find class", class.display());
        return fs::metadata(class).map(|_| false).map_err(failed);
    }
    match fs::create_dir(class) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !plan.is_own => Ok(false),
        Err(error) => Err(Error::new("mkdir", class.display(), error)),
    }
}

fn remove(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::new("rmdir", directory.display(), error))
        }
        _ => Ok(()),
    }
}

/// The file system takes a line a write.
fn write_line(path: &Path, line: &str) -> Result<(), Error> {
    let mut options = fs::OpenOptions::new();
    let file = options.append(true).open(path);
    let written = file.and_then(|mut file| io::Write::write_all(&mut file, format!("{line}\n").as_bytes()));
    written.map_err(Error::of(format!("write {line:?} to"), path.display()))
}

/// A class that was there must have what the container asks for: `L3:0=7f0;1=1f` in any order, with
/// any leading zeros.
fn compare(path: &Path, line: &str) -> Result<(), Error> {
    let has = fs::read_to_string(path).map_err(Error::of("read", path.display()))?;
    let (kind, wanted) = parts(line);
    let found = has.lines().map(parts).find(|(found, _)| *found == kind);
    let is_equal = found.is_some_and(|(_, found)| wanted.iter().all(|part| found.contains(part)));
    if is_equal {
        return Ok(());
    }
    let what = format!("{}: the class has not {line:?}", path.display());
    Err(Error::new("compare", what, Errno::INVAL))
}

fn parts(line: &str) -> (&str, Vec<(&str, &str)>) {
    let (kind, domains) = line.split_once(':').unwrap_or((line, ""));
    let domains = domains.split(';').filter_map(|domain| {
        let (id, value) = domain.split_once('=')?;
        Some((id.trim(), value.trim().trim_start_matches('0')))
    });
    (kind.trim(), domains.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree as the kernel's, as far as files can play it: new directories have their files only
    /// if they are put there first.
    fn fake() -> (tempfile::TempDir, Resctrl) {
        let directory = tempfile::tempdir().unwrap();
        let resctrl = Resctrl { root: directory.path().to_owned() };
        (directory, resctrl)
    }

    fn class(root: &Path, name: &str, schemata: &str) {
        let class = root.join(name);
        fs::create_dir_all(class.join("mon_groups")).unwrap();
        fs::write(class.join("schemata"), schemata).unwrap();
        fs::write(class.join("tasks"), "").unwrap();
    }

    fn plan(class: &str, schemata: &[&str]) -> RdtPlan {
        RdtPlan {
            class: class.into(),
            must_exist: schemata.is_empty(),
            is_own: false,
            schemata: schemata.iter().map(ToString::to_string).collect(),
            monitor: None,
        }
    }

    #[test]
    fn a_class_that_is_there_is_joined_if_it_is_as_asked_for() {
        let (directory, resctrl) = fake();
        class(directory.path(), "gold", "    L3:0=0007f;1=1f\n    MB:0=20;1=70\n");
        let tasks = || fs::read_to_string(directory.path().join("gold/tasks")).unwrap();
        resctrl.join(&plan("gold", &[]), 41).unwrap();
        resctrl.join(&plan("gold", &["L3:1=1f;0=7f", "MB:1=70"]), 42).unwrap();
        assert_eq!(tasks(), "41\n42\n");
        let error = resctrl.join(&plan("gold", &["L3:0=3"]), 43).unwrap_err().to_string();
        assert!(error.contains("the class has not \"L3:0=3\""), "{error}");
        assert!(resctrl.join(&plan("gold", &["L2:0=3"]), 43).is_err());
        assert_eq!(tasks(), "41\n42\n");
        assert_eq!(
            fs::read_to_string(directory.path().join("gold/schemata")).unwrap(),
            "    L3:0=0007f;1=1f\n    MB:0=20;1=70\n",
            "it is not written to"
        );
    }

    #[test]
    fn a_class_that_must_be_there_is_not_made() {
        let (directory, resctrl) = fake();
        let error = resctrl.join(&plan("gold", &[]), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!directory.path().join("gold").exists());
    }

    #[test]
    fn a_class_is_changed_line_by_line() {
        let (directory, resctrl) = fake();
        class(directory.path(), "gold", "");
        resctrl.update(&plan("gold", &[]), &["L3:0=7f\nL3:1=f", "MB:0=20"]).unwrap();
        let schemata = fs::read_to_string(directory.path().join("gold/schemata")).unwrap();
        assert_eq!(schemata, "L3:0=7f\nL3:1=f\nMB:0=20\n");
        let error = resctrl.update(&plan("silver", &[]), &["MB:0=20"]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_class_that_cannot_be_used_is_not_left() {
        let (directory, resctrl) = fake();
        // The files of a new directory are the kernel's to make: here there are none.
        assert!(resctrl.join(&plan("silver", &["L3:0=f"]), 1).is_err());
        assert!(!directory.path().join("silver").exists());
    }

    #[test]
    fn monitoring_groups_come_and_go() {
        let (directory, resctrl) = fake();
        class(directory.path(), "gold", "L3:0=f\n");
        let group = directory.path().join("gold/mon_groups/c1");
        let monitored = RdtPlan { monitor: Some("c1".into()), ..plan("gold", &[]) };
        assert!(resctrl.join(&monitored, 1).is_err(), "no tasks file in the fake's new group");
        assert!(!group.exists(), "and nothing is left");
        fs::create_dir(&group).unwrap();
        resctrl.leave(&monitored).unwrap();
        assert!(!group.exists() && directory.path().join("gold").exists());
        resctrl.leave(&monitored).unwrap();
    }
}
