//! What `checkpoint` and `restore` have for options in common.

use std::path::{Path, PathBuf};

use ponton_runtime::criu;

use super::Failure;

#[derive(clap::Args)]
#[group(skip)]
pub(super) struct Options {
    /// Where the images are.
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    image_path: PathBuf,
    /// Where the logs go, if not to the images.
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Established TCP connections may be open.
    #[arg(long)]
    tcp_established: bool,
    /// Unix sockets may be connected to the outside.
    #[arg(long)]
    ext_unix_sk: bool,
    /// The session and the terminal may be of the outside.
    #[arg(long)]
    shell_job: bool,
    /// Files may be locked.
    #[arg(long)]
    file_locks: bool,
    /// Bring memory as it is asked for (not implemented).
    #[arg(long)]
    lazy_pages: bool,
    /// What to keep of control groups.
    #[arg(long, value_name = "MODE", default_value = "soft", value_parser = ["soft", "full", "strict"])]
    manage_cgroups_mode: String,
    /// Make this kind of namespace empty: network.
    #[arg(long, value_name = "KIND", value_parser = ["network"])]
    empty_ns: Option<String>,
    /// Keep each page once.
    #[arg(long)]
    auto_dedup: bool,
}

impl Options {
    /// As they are for this CRIU, if it works here.
    pub(super) fn of(&self, program: &Path) -> Result<criu::Options, Failure> {
        if self.lazy_pages {
            return Err("--lazy-pages: not implemented".into());
        }
        criu::check(program)?;
        Ok(criu::Options {
            work: self.work_path.clone(),
            tcp_established: self.tcp_established,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            auto_dedup: self.auto_dedup,
            empty_network: self.empty_ns.is_some(),
            manage_cgroups: self.manage_cgroups_mode.clone(),
            ..criu::Options::new(program, &self.image_path)
        })
    }
}
