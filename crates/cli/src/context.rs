//! Which daemon a command speaks to, and how it comes to be there.

use std::fs::{File, OpenOptions};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ponton_client::{Client, Host};

use crate::error::Error;
use crate::output;

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_HOST: &str = "unix:///run/ponton/ponton.sock";
/// Where a daemon that the command line started writes what it has to say.
const DAEMON_LOG: &str = "/var/log/ponton.log";
const START_TIMEOUT: Duration = Duration::from_secs(20);
const OTHER_DAEMON_TIMEOUT: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_millis(3);

/// What every command gets.
#[derive(Debug)]
pub(crate) struct Context {
    client: Client,
    /// The user named the host; such a daemon is not ours to start.
    chosen: bool,
}

impl Context {
    pub(crate) fn new(host: Option<&str>) -> Result<Self, Error> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let chosen =
            host.map(str::to_owned).or_else(|| variable("PONTON_HOST")).or_else(|| variable("DOCKER_HOST"));
        let host: Host = chosen.as_deref().unwrap_or(DEFAULT_HOST).parse()?;
        Ok(Self { client: Client::new(host, variable("DOCKER_API_VERSION")), chosen: chosen.is_some() })
    }

    /// The client, connected; the daemon is started first if it is ours to start.
    pub(crate) async fn client(&self) -> Result<&Client, Error> {
        match self.client.connect().await {
            Ok(()) => Ok(&self.client),
            Err(error) if error.is_connect() && !self.chosen && rustix::process::geteuid().is_root() => {
                self.start_daemon().await?;
                Ok(&self.client)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The client, if a daemon answers.
    pub(crate) async fn client_if_running(&self) -> Result<&Client, Error> {
        self.client.connect().await?;
        Ok(&self.client)
    }

    async fn start_daemon(&self) -> Result<(), Error> {
        let mut daemon = spawn_daemon()?;
        output::complain(&format!("Started the Ponton daemon (its log is {DAEMON_LOG})"));
        let mut deadline = Instant::now() + START_TIMEOUT;
        let mut ended = None;
        loop {
            let error = match self.client.connect().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if ended.is_none()
                && let Ok(Some(status)) = daemon.try_wait()
            {
                // Somebody else may have started one at the same moment: theirs is given the time to answer.
                ended = Some(status);
                deadline = Instant::now() + OTHER_DAEMON_TIMEOUT;
            }
            if !error.is_connect() || Instant::now() > deadline {
                return Err(match ended {
                    Some(status) => {
                        Error::invalid(format!("the daemon ended at once ({status}): see {DAEMON_LOG}"))
                    }
                    None => error.into(),
                });
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
}

fn spawn_daemon() -> Result<Child, Error> {
    let program =
        std::env::current_exe().map_err(|source| Error::file("readlink", "/proc/self/exe", source))?;
    let open = || -> std::io::Result<(File, File)> {
        let log = OpenOptions::new().create(true).append(true).open(DAEMON_LOG)?;
        let second = log.try_clone()?;
        Ok((log, second))
    };
    let (stdout, stderr) = open().map_err(|source| Error::file("open", DAEMON_LOG, source))?;
    Command::new(&program)
        .args(["daemon", "--new-session"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(|source| Error::file("exec", program.display().to_string(), source))
}
