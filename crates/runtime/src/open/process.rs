//! The program of a plan, with everything that execve will want laid out.

use std::ffi::CString;

use ponton_sys as sys;
use ponton_sys::path::Root;
use ponton_sys::process::CStrings;
use ponton_sys::seccomp::Filter;
use rustix::io::Errno;

use crate::plan::{ProcessPlan, SeccompPlan};
use crate::{Error, user};

/// A program ready to be executed.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) plan: ProcessPlan,
    pub(crate) args: CStrings,
    /// The files that are tried, in order.
    pub(crate) candidates: Vec<CString>,
    pub(crate) filter: Option<Filter>,
    /// Who it is; none where the root could not be read before the clone.
    pub(crate) identity: Option<Identity>,
}

/// Who a program is, and the environment that follows from it.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) env: CStrings,
}

impl Program {
    /// Lays `plan` out; `root` is the container's, where it can be read already.
    pub(super) fn new(plan: &ProcessPlan, root: Option<&Root>) -> Result<Self, Error> {
        let args: Vec<CString> = plan.args.iter().map(|arg| c_string(arg)).collect::<Result<_, _>>()?;
        let candidates = candidates(plan)?;
        let filter = plan.seccomp.as_ref().map(read_filter).transpose()?;
        let identity = root.map(|root| finish_identity(plan, root)).transpose()?;
        Ok(Self { plan: plan.clone(), args: CStrings::new(args), candidates, filter, identity })
    }
}

fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| step("process", sys::Error::new("execve", text, Errno::INVAL)))
}

fn step(step: &str, source: sys::Error) -> Error {
    Error::Step { step: step.to_owned(), source }
}

/// The files that the program's name may mean, by the `PATH` of its own environment.
fn candidates(plan: &ProcessPlan) -> Result<Vec<CString>, Error> {
    let name = plan.args.first().map_or("", String::as_str);
    if name.contains('/') {
        return Ok(vec![c_string(name)?]);
    }
    let path = plan.env.iter().rev().find_map(|variable| variable.strip_prefix("PATH="));
    let directories = path.unwrap_or_default().split(':');
    // An empty part would be the working directory, which is no place to take a program from.
    let directories = directories.filter(|directory| directory.starts_with('/') && !name.is_empty());
    directories.map(|directory| c_string(&format!("{directory}/{name}"))).collect()
}

fn read_filter(seccomp: &SeccompPlan) -> Result<Filter, Error> {
    let path = seccomp.path.display();
    let bytes = std::fs::read(&seccomp.path)
        .map_err(|error| step("seccomp load", sys::Error::new("read", &path, error)))?;
    Filter::from_bytes(&bytes).map_err(|error| step(&format!("seccomp load {path}"), error))
}

/// Looks the user up in the container's files, and adds `HOME` where it is missing.
pub(crate) fn finish_identity(plan: &ProcessPlan, root: &Root) -> Result<Identity, Error> {
    let mut env: Vec<CString> =
        plan.env.iter().map(|variable| c_string(variable)).collect::<Result<_, _>>()?;
    let has_home = plan.env.iter().any(|variable| variable.starts_with("HOME="));
    let (uid, gid, mut additional_gids, home) = match &plan.user.name {
        Some(name) => {
            let user = user::resolve(root, name)?;
            // As Docker: the first group is among the additional ones too, so that a program that
            // changes its group has no more rights by it.
            let mut gids = vec![user.gid];
            gids.extend(user.additional_gids.into_iter().filter(|gid| *gid != user.gid));
            (user.uid, user.gid, gids, Some(user.home))
        }
        None => (plan.user.uid, plan.user.gid, Vec::new(), None),
    };
    additional_gids.extend(&plan.user.additional_gids);
    additional_gids.extend(user::resolve_groups(root, &plan.user.groups)?);
    if !has_home {
        let home = match home {
            Some(home) => home,
            None => user::home(root, uid)?,
        };
        // A home with a null byte in an untrusted file is no home.
        env.extend(CString::new(format!("HOME={home}")));
    }
    Ok(Identity { uid, gid, additional_gids, env: CStrings::new(env) })
}
