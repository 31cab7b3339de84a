use ponton_oci::reference::Reference;

use crate::command::{Arguments, Command, Complete};
use crate::error::Error;
use crate::flag::Flag;
use crate::output;

/// `ponton image squash`.
pub(super) static SQUASH: Command = Command::new(
    "squash",
    "[OPTIONS] IMAGE",
    "Make an image with the same files in one layer, and print its id",
    |call| {
        Box::pin(async move {
            let (mut repository, mut tag) = (String::new(), String::new());
            if let Some(name) = call.flags.given("tag") {
                let reference = Reference::parse(name).map_err(|error| Error::invalid(error.to_string()))?;
                if reference.digest().is_some() {
                    return Err(Error::invalid("refusing to create a tag with a digest reference"));
                }
                repository = reference.name();
                tag = reference.tag().unwrap_or_default().to_owned();
            }
            let from = call.flags.text("from");
            let client = call.context.client().await?;
            let image = client.image_squash(&call.arguments[0], from, &repository, &tag).await?;
            output::print_line(&image.id)?;
            Ok(0)
        })
    },
)
.flags(&[&[
    Flag::text("from", "Image whose layers stay as they are, below the new one"),
    Flag::text("tag", "Name of the new image (name[:tag])").short('t'),
]])
.arguments(Arguments::Exactly(1), Complete::Images);
