//! `ponton inspect`, and `inspect` under each noun.

use bytes::Bytes;
use ponton_client::Client;

use super::image::platform_json;
use super::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::{format, output};

const FORMAT: Flag = Flag::text("format", "Print as json or by a Go template").short('f');
const KIND: Flag = Flag::text("type", "Only objects of a kind: container, image, network, volume").one_of(&[
    "container",
    "image",
    "network",
    "volume",
]);
const SIZE: Flag = Flag::switch("size", "Show how much a container is on disk").short('s');

/// `ponton inspect`.
pub(crate) static INSPECT: Command = Command::new(
    "inspect",
    "[OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on the engine's objects",
    |call| Box::pin(inspect(call)),
)
.flags(&[&[FORMAT, SIZE, KIND]])
.arguments(Arguments::AtLeast(1), Complete::Objects);

/// `ponton container inspect`.
pub(crate) static CONTAINER_INSPECT: Command = Command::new(
    "inspect",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Display detailed information on one or more containers",
    |call| Box::pin(inspect_kind(call, Kind::Container)),
)
.flags(&[&[FORMAT, SIZE]])
.arguments(Arguments::AtLeast(1), Complete::Containers);

/// `ponton image inspect`.
pub(crate) static IMAGE_INSPECT: Command = Command::new(
    "inspect",
    "[OPTIONS] IMAGE [IMAGE...]",
    "Display detailed information on one or more images",
    |call| Box::pin(inspect_kind(call, Kind::Image)),
)
.flags(&[&[FORMAT, Flag::text("platform", "The image of this platform (os[/arch[/variant]])")]])
.arguments(Arguments::AtLeast(1), Complete::Images);

/// `ponton network inspect`.
pub(crate) static NETWORK_INSPECT: Command = Command::new(
    "inspect",
    "[OPTIONS] NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    |call| Box::pin(inspect_kind(call, Kind::Network)),
)
.flags(&[&[FORMAT, Flag::switch("verbose", "Print more for diagnostics").short('v')]])
.arguments(Arguments::AtLeast(1), Complete::Networks);

/// `ponton volume inspect`.
pub(crate) static VOLUME_INSPECT: Command = Command::new(
    "inspect",
    "[OPTIONS] VOLUME [VOLUME...]",
    "Display detailed information on one or more volumes",
    |call| Box::pin(inspect_kind(call, Kind::Volume)),
)
.flags(&[&[FORMAT]])
.arguments(Arguments::AtLeast(1), Complete::Volumes);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

/// In the order in which a name is looked for.
const KINDS: [(Kind, &str); 4] = [
    (Kind::Container, "container"),
    (Kind::Image, "image"),
    (Kind::Network, "network"),
    (Kind::Volume, "volume"),
];

async fn inspect(call: Invocation) -> Result<u8, Error> {
    let wanted = call.flags.text("type");
    if call.flags.is_set("type") && wanted.is_empty() {
        return Err(Error::invalid(
            "type is empty: must be one of \"container\", \"image\", \"network\", \"volume\"",
        ));
    }
    if !wanted.is_empty() {
        let Some((kind, _)) = KINDS.iter().find(|(_, name)| *name == wanted) else {
            return Err(Error::invalid(format!(
                "unknown type: {wanted:?}: must be one of \"container\", \"image\", \"network\", \"volume\""
            )));
        };
        return inspect_kind(call, *kind).await;
    }
    let client = call.context.client().await?;
    let size = call.flags.on("size");
    let mut results = Vec::new();
    for name in &call.arguments {
        results.push(find(client, name, size).await);
    }
    print(&call, results)
}

/// The first object of that name, whatever it is.
async fn find(client: &Client, name: &str, size: bool) -> Result<Bytes, Error> {
    for (kind, _) in KINDS {
        match fetch(client, kind, name, &Details { size, ..Details::default() }).await {
            Err(error) if error.is_not_found() => {}
            other => return other.map_err(Into::into),
        }
    }
    Err(Error::invalid(format!("Error: No such object: {name}")))
}

async fn inspect_kind(call: Invocation, kind: Kind) -> Result<u8, Error> {
    let client = call.context.client().await?;
    let is_container = matches!(kind, Kind::Container);
    let size = is_container && call.flags.on("size");
    let verbose = matches!(kind, Kind::Network) && call.flags.on("verbose");
    let platform = match kind {
        Kind::Image if call.flags.has("platform") => platform_json(call.flags.text("platform"))?,
        _ => String::new(),
    };
    let details = Details { size, verbose, platform };
    let mut results = Vec::new();
    for name in &call.arguments {
        results.push(fetch(client, kind, name, &details).await.map_err(Error::from));
    }
    print(&call, results)
}

/// What of an object is asked for beside it, where its kind has that.
#[derive(Debug, Default)]
struct Details {
    size: bool,
    verbose: bool,
    /// As JSON.
    platform: String,
}

async fn fetch(
    client: &Client,
    kind: Kind,
    name: &str,
    details: &Details,
) -> Result<Bytes, ponton_client::Error> {
    match kind {
        Kind::Container => client.container_inspect_raw(name, details.size).await,
        Kind::Image => client.image_inspect_raw(name, &details.platform).await,
        Kind::Network => client.network_inspect_raw(name, details.verbose).await,
        Kind::Volume => client.volume_inspect_raw(name).await,
    }
}

/// Prints what was found, then says what was not.
fn print(call: &Invocation, results: Vec<Result<Bytes, Error>>) -> Result<u8, Error> {
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(bytes) => found.push(bytes),
            Err(error) => errors.push(error.to_string()),
        }
    }
    let format = call.flags.text("format");
    if found.is_empty() && !format.is_empty() && format != "json" {
        output::print("\n")?;
    } else {
        output::print(&format::inspect(&found, format)?)?;
    }
    if errors.is_empty() { Ok(0) } else { Err(Error::invalid(errors.join("\n"))) }
}
