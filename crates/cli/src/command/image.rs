//! `ponton image …`, and the same commands under docker's older names.

mod check;
mod explore;
pub(crate) mod list;
mod pull;
mod squash;
mod transfer;
mod tree;

use ponton_api::image::DeleteResponseItem;
use ponton_api::unit;

use super::container::copy;
use super::inspect::IMAGE_INSPECT;
use super::prune::IMAGE_PRUNE;
use super::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::format::data::Data;
use crate::format::{self, Column, FORMAT, List, Row, ellipsis, short_id};
use crate::output;

pub(crate) use list::IMAGES;
pub(crate) use pull::{PULL, PUSH, fetch, platform_json};
pub(crate) use transfer::{IMPORT, LOAD, SAVE, chunks};

/// The commands of the noun.
pub(crate) static COMMANDS: &[&Command] = &[
    &check::CHECK,
    &explore::EXPLORE,
    &HISTORY,
    &IMPORT,
    &IMAGE_INSPECT,
    &LOAD,
    &list::LS,
    &IMAGE_PRUNE,
    &PULL,
    &PUSH,
    &RM,
    &SAVE,
    &squash::SQUASH,
    &TAG,
];

/// Repository and tag of a name; the tag may be empty.
pub(crate) fn split_name(name: &str) -> (String, String) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (name.to_owned(), String::new()),
    }
}

/// `ponton tag`.
pub(crate) static TAG: Command = Command::new(
    "tag",
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    |call| {
        Box::pin(async move {
            let target = &call.arguments[1];
            let reference: ponton_oci::reference::Reference = target.parse().map_err(|error| {
                Error::invalid(format!(
                    "Error parsing reference: {target:?} is not a valid repository/tag: {error}"
                ))
            })?;
            if reference.digest().is_some() {
                return Err(Error::invalid("refusing to create a tag with a digest reference"));
            }
            let (repository, tag) = split_name(target);
            call.context.client().await?.image_tag(&call.arguments[0], &repository, &tag).await?;
            Ok(0)
        })
    },
)
.arguments(Arguments::Exactly(2), Complete::Images);

/// `ponton rmi`.
pub(crate) static RMI: Command =
    Command::new("rmi", "[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", |call| {
        Box::pin(remove(call))
    })
    .flags(&[&[
        Flag::switch("force", "Remove it though it has more names or a stopped container").short('f'),
        Flag::switch("no-prune", "Keep parents that have no name"),
        Flag::list("platform", "Only what it has for a platform (os[/arch[/variant]])").named("strings"),
    ]])
    .arguments(Arguments::AtLeast(1), Complete::Images);

static RM: Command = copy(&RMI).renamed("rm", &["remove"]);

async fn remove(call: Invocation) -> Result<u8, Error> {
    let client = call.context.client().await?;
    let force = call.flags.on("force");
    let mut errors = Vec::new();
    let platforms = call.flags.all("platform").iter().flat_map(|text| text.split(','));
    let platforms = platforms.map(platform_json).collect::<Result<Vec<_>, _>>()?;
    let mut only_missing = true;
    for name in &call.arguments {
        match client.image_remove(name, force, call.flags.on("no-prune"), &platforms).await {
            Ok(items) => output::print(&removed(&items))?,
            Err(error) => {
                only_missing &= error.is_not_found();
                errors.push(error.to_string());
            }
        }
    }
    if errors.is_empty() {
        return Ok(0);
    }
    if force && only_missing {
        output::complain(&errors.join("\n"));
        return Ok(0);
    }
    Err(Error::invalid(errors.join("\n")))
}

fn removed(items: &[DeleteResponseItem]) -> String {
    let line = |item: &DeleteResponseItem| match (&item.deleted, &item.untagged) {
        (Some(id), _) => format!("Deleted: {id}\n"),
        (None, Some(name)) => format!("Untagged: {name}\n"),
        (None, None) => String::new(),
    };
    items.iter().map(line).collect()
}

/// `ponton history`.
pub(crate) static HISTORY: Command =
    Command::new("history", "[OPTIONS] IMAGE", "Show the history of an image", |call| {
        Box::pin(history(call))
    })
    .flags(&[&[
        FORMAT,
        Flag::switch("human", "Print sizes and times for people").short('H').default("true"),
        Flag::switch("no-trunc", "Do not cut anything off"),
        Flag::switch("quiet", "Only ids").short('q'),
        Flag::text("platform", "Platform of the image"),
    ]])
    .arguments(Arguments::Exactly(1), Complete::Images);

const COLUMNS: &[Column] = &[
    ("Comment", "COMMENT"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("CreatedSince", "CREATED"),
    ("ID", "IMAGE"),
    ("Size", "SIZE"),
];

const TABLE: &str = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const TABLE_FOR_PROGRAMS: &str = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

async fn history(call: Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    let platform = platform_json(flags.text("platform"))?;
    let items = call.context.client().await?.image_history(&call.arguments[0], &platform).await?;
    let (human, whole) = (flags.on("human"), flags.on("no-trunc"));
    let now = jiff::Timestamp::now().as_second();
    let rows = items.iter().map(|item| -> Row {
        let created_by = item.created_by.replace('\t', " ");
        let at = jiff::Timestamp::from_second(item.created)
            .map_or_else(|_| String::new(), |instant| instant.to_string());
        let since = match (human, item.created) {
            (false, _) => at.clone(),
            (true, ..=0) => "N/A".to_owned(),
            (true, created) => format!("{} ago", unit::human_duration(now - created)),
        };
        vec![
            ("Comment", item.comment.clone().into()),
            ("CreatedAt", at.into()),
            ("CreatedBy", if whole { created_by } else { ellipsis(&created_by, 45) }.into()),
            ("CreatedSince", since.into()),
            ("ID", if whole { item.id.clone() } else { short_id(&item.id) }.into()),
            (
                "Size",
                if human { Data::String(unit::human_size(item.size)) } else { item.size.to_string().into() },
            ),
        ]
    });
    let format = format::chosen(flags, "", "{{.ID}}");
    let default = if human { TABLE } else { TABLE_FOR_PROGRAMS };
    output::print(&List { columns: COLUMNS, default, format }.render(rows.collect())?)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::split_name;

    #[test]
    fn a_port_is_no_tag() {
        for (name, repository, tag) in [
            ("a", "a", ""),
            ("a:1", "a", "1"),
            ("host:5000/a", "host:5000/a", ""),
            ("host:5000/a:2", "host:5000/a", "2"),
        ] {
            assert_eq!(split_name(name), (repository.to_owned(), tag.to_owned()));
        }
    }
}
