//! Which daemon a command speaks to, and how it comes to be there.

pub(crate) mod store;

use std::fs::{File, OpenOptions};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ponton_client::{Client, Host};

use crate::config::Config;
use crate::error::Error;
use crate::output;
use store::{DEFAULT, Store};

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_HOST: &str = "unix:///run/ponton/ponton.sock";
/// Where a daemon that the command line started writes what it has to say.
const DAEMON_LOG: &str = "/var/log/ponton.log";
const START_TIMEOUT: Duration = Duration::from_secs(20);
const OTHER_DAEMON_TIMEOUT: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_millis(3);

/// What the flags before the command say of the daemon.
#[derive(Debug, Default, Clone)]
pub(crate) struct Globals {
    /// `-H`.
    pub(crate) host: Option<String>,
    /// `--context`.
    pub(crate) context: Option<String>,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The variable that names a daemon's address, if one does; ours comes before docker's.
pub(crate) fn host_variable() -> Option<(&'static str, String)> {
    ["PONTON_HOST", "DOCKER_HOST"].into_iter().find_map(|name| variable(name).map(|value| (name, value)))
}

impl Globals {
    /// The name of the context in use, by docker's rules: what is said nearest to the command counts.
    pub(crate) fn context_name(&self, config: &Config) -> String {
        if let Some(name) = &self.context {
            return name.clone();
        }
        if self.host.is_some() || host_variable().is_some() {
            return DEFAULT.to_owned();
        }
        let named = variable("DOCKER_CONTEXT").unwrap_or_else(|| config.current_context.clone());
        if named.is_empty() { DEFAULT.to_owned() } else { named }
    }

    /// The address of the default context, and whether the user chose it.
    pub(crate) fn default_host(&self) -> (String, bool) {
        match self.host.clone().or_else(|| host_variable().map(|(_, value)| value)) {
            Some(host) => (host, true),
            None => (DEFAULT_HOST.to_owned(), false),
        }
    }
}

/// What every command gets.
#[derive(Debug)]
pub(crate) struct Context {
    /// Or why there is none; told to commands that need it.
    client: Result<Client, String>,
    /// The user named the host; such a daemon is not ours to start.
    chosen: bool,
    /// What was said before the command.
    pub(crate) globals: Globals,
    /// The user's settings.
    pub(crate) config: Config,
}

impl Context {
    pub(crate) fn new(globals: Globals, config: Config) -> Result<Self, Error> {
        let name = globals.context_name(&config);
        let (address, chosen) = match name.as_str() {
            DEFAULT => {
                let (host, chosen) = globals.default_host();
                (Ok(host), chosen)
            }
            name => (of_context(name), true),
        };
        let client = match address {
            Ok(address) => {
                let host: Host = address.parse()?;
                let client = Client::new(host, variable("DOCKER_API_VERSION"));
                Ok(client.with_headers(&config.http_headers).map_err(Error::Invalid)?)
            }
            Err(reason) => Err(format!("unable to resolve docker endpoint: {reason}")),
        };
        Ok(Self { client, chosen, globals, config })
    }

    /// The client, connected; the daemon is started first if it is ours to start.
    pub(crate) async fn client(&self) -> Result<&Client, Error> {
        let client = self.client_at_rest()?;
        match client.connect().await {
            Ok(()) => Ok(client),
            Err(error) if error.is_connect() && !self.chosen && rustix::process::geteuid().is_root() => {
                self.start_daemon(client).await?;
                Ok(client)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The client, if a daemon answers.
    pub(crate) async fn client_if_running(&self) -> Result<&Client, Error> {
        let client = self.client_at_rest()?;
        client.connect().await?;
        Ok(client)
    }

    /// The client, which may have nobody to speak to.
    pub(crate) fn client_at_rest(&self) -> Result<&Client, Error> {
        self.client.as_ref().map_err(|reason| Error::invalid(reason.clone()))
    }

    /// `--detach-keys`, or those of the user's settings.
    pub(crate) fn detach_keys<'a>(&'a self, given: &'a str) -> &'a str {
        if given.is_empty() { &self.config.detach_keys } else { given }
    }

    async fn start_daemon(&self, client: &Client) -> Result<(), Error> {
        let mut daemon = spawn_daemon()?;
        output::complain(&format!("Started the Ponton daemon (its log is {DAEMON_LOG})"));
        let mut deadline = Instant::now() + START_TIMEOUT;
        let mut ended = None;
        loop {
            let error = match client.connect().await {
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

/// The address of a context of docker's store, or why there is none.
fn of_context(name: &str) -> Result<String, String> {
    let store = Store::of_user();
    let meta = store.get(name).map_err(|error| error.to_string())?;
    match meta.host() {
        "" => Err(format!("context {name:?} has no docker endpoint")),
        _ if store.has_keys(name) => {
            Err(format!("context {name:?} is of a daemon behind TLS: the client speaks no TLS"))
        }
        host => Ok(host.to_owned()),
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
