use std::fs::{File, OpenOptions};
use std::io::Write;

use ponton_api::container::CreateRequest;
use ponton_client::Client;
use ponton_oci::reference::Reference;

use super::request;
use crate::command::image::fetch;
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::config::Config;
use crate::error::Error;
use crate::flag::Flags;
use crate::progress::Target;
use crate::{output, terminal};

/// `ponton create`.
pub(crate) static CREATE: Command =
    Command::new("create", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", |call| {
        Box::pin(async move { create(call).await.map_err(|error| named("create", error)) })
    })
    .flags(&[request::CREATE])
    .arguments(Arguments::AtLeast(1), Complete::Images)
    .strict();

async fn create(call: Invocation) -> Result<u8, Error> {
    let mut request = resolve(&call.flags, &call.arguments)?;
    let client = call.context.client().await?;
    add_proxies(&mut request, &call.context.config, client);
    if call.flags.on("plan") {
        return print_plan(client, &call.flags, &request).await;
    }
    let id = create_container(client, &call.flags, &request).await?;
    output::print_line(&id)?;
    Ok(0)
}

/// The request that the flags make.
pub(super) fn resolve(flags: &Flags, arguments: &[String]) -> Result<CreateRequest, Error> {
    let console = match terminal::size() {
        Some((rows, columns)) if flags.on("tty") => [u32::from(rows), u32::from(columns)],
        _ => [0, 0],
    };
    let pull = flags.text("pull");
    if !matches!(pull, "always" | "missing" | "never" | "") {
        return Err(Error::invalid(format!(
            "invalid pull option: '{pull}': must be one of \"always\", \"missing\" or \"never\""
        )));
    }
    if let Some(image) = arguments.first() {
        check_image(image)?;
    }
    request::resolve(flags, arguments, console)
}

/// Tells the container the proxies of the user's settings, unless its own variables say something else.
pub(super) fn add_proxies(request: &mut CreateRequest, config: &Config, client: &Client) {
    let env = request.config.env.get_or_insert_default();
    for variable in config.proxy_variables(&client.host().to_string()) {
        let name = variable.split('=').next().unwrap_or_default();
        if !env.iter().any(|given| given.split('=').next() == Some(name)) {
            env.push(variable);
        }
    }
    if env.is_empty() {
        request.config.env = None;
    }
}

fn reference(image: &str) -> Result<Reference, Error> {
    image.parse().map_err(|error: ponton_oci::reference::ParseError| Error::invalid(error.to_string()))
}

/// Refuses what cannot be the name of an image before anything is asked of the daemon.
fn check_image(image: &str) -> Result<(), Error> {
    let is_id = image.len() == 64 && image.bytes().all(|byte| byte.is_ascii_hexdigit());
    match reference(image) {
        Err(error) if !is_id && !image.starts_with("sha256:") => Err(error),
        _ => Ok(()),
    }
}

/// `--plan`: what starting it would do.
pub(super) async fn print_plan(client: &Client, flags: &Flags, request: &CreateRequest) -> Result<u8, Error> {
    let plan = client.container_plan(flags.text("name"), request).await?;
    output::print_bytes(&plan)?;
    Ok(0)
}

/// Creates the container, pulling the image if it is not there; gives its id back.
pub(super) async fn create_container(
    client: &Client,
    flags: &Flags,
    request: &CreateRequest,
) -> Result<String, Error> {
    let id_file = IdFile::new(flags.text("cidfile"))?;
    let (name, platform) = (flags.text("name"), flags.text("platform"));
    let image = &request.config.image;
    let quiet = flags.on("quiet");
    let target = if quiet { Target::Nowhere } else { Target::Stderr };
    if flags.text("pull") == "always" {
        fetch(client, &reference(image)?, platform, target).await?;
    }
    let created = match client.container_create(name, platform, request).await {
        Err(error) if error.is_not_found() && error.to_string().contains("No such image") => {
            if flags.text("pull") == "never" {
                return Err(error.into());
            }
            // An id names nothing in a registry.
            let Ok(reference) = reference(image) else { return Err(error.into()) };
            if !quiet {
                output::complain(&format!("Unable to find image '{}' locally", reference.familiar()));
            }
            fetch(client, &reference, platform, target).await?;
            client.container_create(name, platform, request).await
        }
        other => other,
    };
    let created = created?;
    for warning in &created.warnings {
        output::complain(&format!("WARNING: {warning}"));
    }
    if let Some(file) = id_file {
        file.write(&created.id)?;
    }
    Ok(created.id)
}

/// The file of `--cidfile`, removed again if no id comes to be in it.
struct IdFile {
    path: String,
    file: File,
    written: bool,
}

impl IdFile {
    fn new(path: &str) -> Result<Option<Self>, Error> {
        if path.is_empty() {
            return Ok(None);
        }
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(file) => Ok(Some(Self { path: path.to_owned(), file, written: false })),
            Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::invalid(format!(
                    "container ID file found, make sure the other container isn't running or delete {path}"
                )))
            }
            Err(source) => Err(Error::file("failed to create the container ID file: open", path, source)),
        }
    }

    fn write(mut self, id: &str) -> Result<(), Error> {
        self.file
            .write_all(id.as_bytes())
            .map_err(|source| Error::file("failed to write the container ID: write", &*self.path, source))?;
        self.written = true;
        Ok(())
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.written {
            // It was made for the id only.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// `-d` together with `-a`.
pub(super) const DETACHED_AND_ATTACHED: &str =
    "conflicting options: cannot specify both --attach and --detach";

/// Names the command in the error, and gives it Docker's exit code: 127 for a command that is not there,
/// 126 for one that cannot be run, 125 for the rest.
pub(super) fn named(command: &'static str, error: Error) -> Error {
    match &error {
        Error::Exit(_) | Error::Usage { .. } => return error,
        // Docker says these before it knows what it runs.
        Error::Invalid(text) if text == terminal::NO_TTY || text == DETACHED_AND_ATTACHED => return error,
        _ => {}
    }
    let text = error.to_string();
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    let code = if command == "create" || !matches!(error, Error::Client(_)) {
        125
    } else if has(&[
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
    ]) {
        127
    } else if has(&["permission denied", "is a directory"]) {
        126
    } else {
        125
    };
    Error::Named { command, source: Box::new(error), code }
}
