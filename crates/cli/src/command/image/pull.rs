//! Images from registries and to them.

use ponton_client::Client;
use ponton_oci::platform::Platform;
use ponton_oci::reference::{DEFAULT_TAG, Reference};

use crate::command::{Arguments, Command, Complete, Invocation};
use crate::credentials::auth_for;
use crate::error::Error;
use crate::flag::{Flag, Flags};
use crate::progress::{self, Target};
use crate::{note, output};

const NO_TRUST: Flag =
    Flag::switch("disable-content-trust", "Accepted for docker's sake: nothing is signed or verified")
        .default("true");
const QUIET: Flag = Flag::switch("quiet", "Say nothing of the progress").short('q');

/// `ponton pull`.
pub(crate) static PULL: Command =
    Command::new("pull", "[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", |call| {
        Box::pin(pull(call))
    })
    .flags(&[&[
        Flag::switch("all-tags", "Download all images of the repository").short('a'),
        NO_TRUST,
        Flag::text("platform", "Platform of the image, if there are several (os[/arch[/variant]])"),
        QUIET,
    ]])
    .arguments(Arguments::Exactly(1), Complete::Images);

async fn pull(call: Invocation) -> Result<u8, Error> {
    let reference = named(&call.arguments[0], &call.flags)?;
    let client = call.context.client().await?;
    let target = if call.flags.on("quiet") { Target::Nowhere } else { Target::Stdout };
    fetch(client, &reference, call.flags.text("platform"), target).await?;
    output::print_line(&reference.to_string())?;
    Ok(0)
}

/// Pulls an image, or all of a repository if neither tag nor digest is named, and shows the progress.
pub(crate) async fn fetch(
    client: &Client,
    reference: &Reference,
    platform: &str,
    target: Target,
) -> Result<(), Error> {
    let tag = match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or_default().to_owned(),
    };
    let auth = auth_for(reference.registry());
    let platform = platform.to_ascii_lowercase();
    let messages = client.image_pull(&reference.name(), &tag, &platform, &auth).await?;
    progress::show(messages, target, drop).await
}

/// `ponton push`.
pub(crate) static PUSH: Command =
    Command::new("push", "[OPTIONS] NAME[:TAG]", "Upload an image to a registry", |call| {
        Box::pin(push(call))
    })
    .flags(&[&[
        Flag::switch("all-tags", "Push all tags of the repository").short('a'),
        NO_TRUST,
        Flag::text(
            "platform",
            "Push the image of one platform only, without the index that names it (os[/arch[/variant]])",
        ),
        QUIET,
    ]])
    .arguments(Arguments::Exactly(1), Complete::Images);

const ONE_PLATFORM: &str =
    "Using --platform pushes only the specified platform manifest of a multi-platform image index.
Other components, like attestations, will not be included.
To push the complete multi-platform image, remove the --platform flag.
";

async fn push(call: Invocation) -> Result<u8, Error> {
    let platform = platform_json(call.flags.text("platform"))?;
    if !platform.is_empty() {
        output::print(&note::note(&std::io::stdout(), ONE_PLATFORM))?;
    }
    let reference = named(&call.arguments[0], &call.flags)?;
    if reference.digest().is_some() {
        return Err(Error::invalid("cannot push a digest reference"));
    }
    let quiet = call.flags.on("quiet");
    let auth = auth_for(reference.registry());
    let client = call.context.client().await?;
    let tag = reference.tag().unwrap_or_default();
    let messages = client.image_push(&reference.name(), tag, &platform, &auth).await?;
    progress::show(messages, if quiet { Target::Nowhere } else { Target::Stdout }, drop).await?;
    if quiet {
        output::print_line(&reference.to_string())?;
    }
    Ok(0)
}

/// The image that is meant: with the tag `latest` if there is none, unless all are meant.
fn named(text: &str, flags: &Flags) -> Result<Reference, Error> {
    let invalid = |error: ponton_oci::reference::ParseError| Error::invalid(error.to_string());
    let reference = Reference::parse_exact(text).map_err(invalid)?;
    let is_whole = reference.tag().is_some() || reference.digest().is_some();
    match flags.on("all-tags") {
        true if is_whole => Err(Error::invalid("tag can't be used with --all-tags/-a")),
        true => Ok(reference),
        false if is_whole => Ok(reference),
        false => {
            if !flags.on("quiet") {
                output::print_line(&format!("Using default tag: {DEFAULT_TAG}"))?;
            }
            reference.with_tag(DEFAULT_TAG).map_err(invalid)
        }
    }
}

/// A platform as the API's parameters have it; empty for none.
pub(crate) fn platform_json(text: &str) -> Result<String, Error> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let platform: Platform = text.parse().map_err(|_| {
        Error::invalid(format!(
            "invalid platform: {text:?}: cannot parse platform specifier: invalid argument"
        ))
    })?;
    // A record of strings always serialises.
    Ok(serde_json::to_string(&platform).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_json() {
        assert_eq!(platform_json("").unwrap(), "");
        let json = platform_json("linux/arm64/v8").unwrap();
        assert_eq!(json, r#"{"architecture":"arm64","os":"linux"}"#);
        assert_eq!(
            platform_json("a/b/c/d").unwrap_err().to_string(),
            "invalid platform: \"a/b/c/d\": cannot parse platform specifier: invalid argument"
        );
    }
}
