use std::io::{self, IsTerminal, Read};

use ponton_api::auth::AuthConfig;
use ponton_client::Client;
use ponton_registry::Credentials;
use ponton_registry::credentials::{CredentialStore, server};

use crate::command::{Arguments, Command, Complete, Invocation};
use crate::config;
use crate::credentials::{auth_config, store};
use crate::error::Error;
use crate::flag::{Flag, Flags};
use crate::{note, output, terminal};

const DOCKER_HUB: &str = "docker.io";

/// `ponton login`.
pub(crate) static LOGIN: Command = Command::new(
    "login",
    "[OPTIONS] [SERVER]",
    "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
    |call| Box::pin(login(call)),
)
.flags(&[&[
    Flag::text("password", "Password or access token; others on this machine may see it").short('p'),
    Flag::switch("password-stdin", "Read the password or access token from standard input"),
    Flag::text("username", "Name of the user").short('u'),
]])
.arguments(Arguments::Between(0, 1), Complete::Nothing);

/// `ponton logout`.
pub(crate) static LOGOUT: Command = Command::new(
    "logout",
    "[SERVER]",
    "Log out from a registry.\nDefaults to Docker Hub if no server is specified.",
    |call| Box::pin(async move { logout(&call) }),
)
.arguments(Arguments::Between(0, 1), Complete::Nothing);

async fn login(call: Invocation) -> Result<u8, Error> {
    let (username, password) = (call.flags.text("username").trim(), password(&call.flags)?);
    let store = store();
    let registry = match call.arguments.first().map(String::as_str) {
        None | Some("" | "docker.io") => DOCKER_HUB,
        Some(given) => hostname(given),
    };
    let client = call.context.client().await?;
    let mut offered = None;
    if username.is_empty() && password.is_empty() {
        let known = store.get(registry).unwrap_or_default();
        offered = store.username(registry).ok().flatten();
        if matches!(known, Credentials::Basic { .. })
            && let Some(status) = with_stored(client, registry, known).await
        {
            output::print_line(&status)?;
            return Ok(0);
        }
    }
    let (username, password) = ask(registry, username, password, offered).await?;
    let auth = auth_config(registry, Credentials::Basic { username: username.clone(), password });
    let answer = client.registry_login(&auth).await?;
    keep(&store, registry, &username, auth, answer.identity_token)?;
    if !answer.status.is_empty() {
        output::print_line(&answer.status)?;
    }
    Ok(0)
}

/// `--password` or what `--password-stdin` reads; empty if it is to be asked for.
fn password(flags: &Flags) -> Result<String, Error> {
    if !flags.on("password-stdin") {
        if !flags.text("password").is_empty() {
            output::complain("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        }
        return Ok(flags.text("password").trim().to_owned());
    }
    if flags.is_set("password") {
        return Err(Error::invalid(
            "conflicting options: cannot specify both --password and --password-stdin",
        ));
    }
    if flags.text("username").is_empty() {
        return Err(Error::invalid("the --password-stdin option requires --username to be set"));
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|source| Error::file("read", "/dev/stdin", source))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text {
        "" => Err(Error::invalid("password is empty")),
        text => Ok(text.to_owned()),
    }
}

/// Tries what is stored already; the status if the registry takes it.
async fn with_stored(client: &Client, registry: &str, credentials: Credentials) -> Option<String> {
    let auth = auth_config(registry, credentials);
    output::complain(&format!("Authenticating with existing credentials... [Username: {}]", auth.username));
    let hint = "To login with a different account, run 'ponton logout' followed by 'ponton login'";
    output::complain_raw(&format!("{}\n\n", note::note(&io::stderr(), hint)));
    match client.registry_login(&auth).await {
        Ok(answer) => Some(answer.status),
        Err(error) if error.status() == Some(401) => {
            output::complain("Stored credentials invalid or expired");
            None
        }
        Err(error) => {
            output::complain(&format!("Login did not succeed, error: {error}"));
            None
        }
    }
}

/// Asks for what was not given.
async fn ask(
    registry: &str,
    username: &str,
    password: String,
    offered: Option<String>,
) -> Result<(String, String), Error> {
    let interactive = || match io::stdin().is_terminal() {
        true => Ok(()),
        false => Err(Error::invalid("Error: Cannot perform an interactive login from a non TTY device")),
    };
    let mut username = username.to_owned();
    if username.is_empty() {
        interactive()?;
        let prompt = match &offered {
            Some(name) => format!("Username ({name}): "),
            None => "Username: ".to_owned(),
        };
        username = terminal::ask(&prompt, true).await?.trim().to_owned();
        if username.is_empty() {
            username = offered.unwrap_or_default();
        }
        if username.is_empty() {
            return Err(Error::invalid("Error: Non-null Username Required"));
        }
    }
    if !password.is_empty() {
        return Ok((username, password));
    }
    interactive()?;
    if registry == DOCKER_HUB {
        let hint = "A Personal Access Token (PAT) can be used instead.\n\
                    To create a PAT, visit https://app.docker.com/settings\n\n";
        output::complain_raw(&note::note(&io::stderr(), hint));
    }
    match terminal::ask("Password: ", false).await?.trim() {
        "" => Err(Error::invalid("Error: Password Required")),
        password => Ok((username, password.to_owned())),
    }
}

fn keep(
    store: &CredentialStore,
    registry: &str,
    username: &str,
    auth: AuthConfig,
    token: String,
) -> Result<(), Error> {
    let credentials = match token.is_empty() {
        true => Credentials::Basic { username: auth.username, password: auth.password },
        false => Credentials::IdentityToken(token),
    };
    let is_password = matches!(credentials, Credentials::Basic { .. });
    let is_plain = store
        .store(registry, username, &credentials)
        .map_err(|error| Error::invalid(format!("Error saving credentials: {error}")))?;
    if is_plain && is_password {
        output::complain(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n",
            config::file().display()
        ));
    }
    Ok(())
}

fn logout(call: &Invocation) -> Result<u8, Error> {
    let registry = match call.arguments.first().map(String::as_str) {
        None | Some("") => DOCKER_HUB,
        Some(given) => hostname(given),
    };
    output::print_line(&format!("Removing login credentials for {}", server(registry)))?;
    if let Err(error) = store().erase(registry) {
        output::complain(&format!("WARNING: could not erase credentials:\n{registry}: {error}"));
    }
    Ok(0)
}

/// The host of a registry's address: without scheme and path.
fn hostname(address: &str) -> &str {
    let bare = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
    let bare = bare.unwrap_or(address);
    bare.split('/').next().unwrap_or(bare)
}

#[cfg(test)]
mod tests {
    use super::hostname;

    #[test]
    fn addresses_become_hosts() {
        for (address, host) in [
            ("h:5000", "h:5000"),
            ("https://h:5000/v2/", "h:5000"),
            ("http://h", "h"),
            ("https://index.docker.io/v1/", "index.docker.io"),
        ] {
            assert_eq!(hostname(address), host);
        }
    }
}
