use ponton_api::image::Summary;
use ponton_api::unit;

use super::tree;
use crate::command::container::{FILTER, copy, filters};
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::format::{self, Column, FORMAT, List, Row, go_time, short_id};
use crate::output;

/// `ponton images`.
pub(crate) static IMAGES: Command =
    Command::new("images", "[OPTIONS] [REPOSITORY[:TAG]]", "List images", |call| Box::pin(list(call)))
        .flags(&[FLAGS])
        .arguments(Arguments::Between(0, 1), Complete::Images);

/// `ponton image ls`.
pub(crate) static LS: Command = copy(&IMAGES).renamed("ls", &["list"]);

static FLAGS: &[Flag] = &[
    Flag::switch("all", "Show intermediate images too").short('a'),
    Flag::switch("digests", "Show digests"),
    FILTER,
    FORMAT,
    Flag::switch("no-trunc", "Do not cut anything off"),
    Flag::switch("quiet", "Only ids").short('q'),
    Flag::switch("tree", "Show the platforms of each image below it"),
];

pub(crate) const COLUMNS: &[Column] = &[
    ("Containers", "CONTAINERS"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("SharedSize", "SHARED SIZE"),
    ("Size", "SIZE"),
    ("Tag", "TAG"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "SIZE"),
];
const TABLE: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const TABLE_WITH_DIGESTS: &str =
    "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

async fn list(call: Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    let mut given = flags.all("filter").to_vec();
    given.extend(call.arguments.first().map(|name| format!("reference={name}")));
    if flags.on("tree") {
        return tree::show(&call, &filters(&given)).await;
    }
    let images = call.context.client().await?.image_list(flags.on("all"), false, &filters(&given)).await?;
    let whole = flags.on("no-trunc");
    let quiet = flags.on("quiet") && matches!(flags.text("format"), "" | "table");
    let format =
        if quiet { "{{.ID}}" } else { format::chosen(flags, &call.context.config.images_format, "") };
    let digests = flags.on("digests") || format.contains(".Digest");
    let now = jiff::Timestamp::now().as_second();
    let rows = images.iter().flat_map(|image| {
        let names = names(image, digests);
        let count = if quiet { 1 } else { names.len() };
        names.into_iter().take(count).map(|name| row(image, name, whole, now)).collect::<Vec<_>>()
    });
    let default = if flags.on("digests") { TABLE_WITH_DIGESTS } else { TABLE };
    output::print(&List { columns: COLUMNS, default, format }.render(rows.collect())?)?;
    Ok(0)
}

/// One name of an image.
pub(crate) struct Name {
    repository: String,
    tag: String,
    digest: String,
}

const NONE: &str = "<none>";

/// The names of an image: one for each tag, and with `digests` for each digest of its repository.
pub(crate) fn names(image: &Summary, digests: bool) -> Vec<Name> {
    let mut names = Vec::new();
    let known: Vec<(&str, &str)> = image
        .repo_digests
        .iter()
        .filter_map(|text| text.split_once('@'))
        .filter(|(repository, _)| *repository != NONE)
        .collect();
    for text in image.repo_tags.iter().filter(|text| *text != "<none>:<none>") {
        let Some((repository, tag)) = text.rsplit_once(':') else { continue };
        let mut of: Vec<&str> =
            known.iter().filter(|(name, _)| *name == repository).map(|(_, digest)| *digest).collect();
        if of.is_empty() || !digests {
            of = vec![of.first().copied().filter(|_| digests).unwrap_or(NONE)];
        }
        names.extend(of.into_iter().map(|digest| Name {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            digest: digest.to_owned(),
        }));
    }
    if names.is_empty() {
        names.extend(known.iter().take(if digests { usize::MAX } else { 1 }).map(|(repository, digest)| {
            Name { repository: (*repository).to_owned(), tag: NONE.to_owned(), digest: (*digest).to_owned() }
        }));
    }
    if names.is_empty() {
        names.push(Name { repository: NONE.to_owned(), tag: NONE.to_owned(), digest: NONE.to_owned() });
    }
    names
}

pub(crate) fn row(image: &Summary, name: Name, whole: bool, now: i64) -> Row {
    let count = |number: i64| if number < 0 { "N/A".to_owned() } else { number.to_string() };
    let size = |bytes: i64| if bytes < 0 { "N/A".to_owned() } else { unit::human_size(bytes) };
    let unique = if image.shared_size < 0 { -1 } else { image.size - image.shared_size };
    vec![
        ("Containers", count(image.containers).into()),
        ("CreatedAt", go_time(image.created).into()),
        ("CreatedSince", since(now, image.created).into()),
        ("Digest", name.digest.into()),
        ("ID", if whole { image.id.clone() } else { short_id(&image.id) }.into()),
        ("Repository", name.repository.into()),
        ("SharedSize", size(image.shared_size).into()),
        ("Size", unit::human_size_precise(image.size, 3).into()),
        ("Tag", name.tag.into()),
        ("UniqueSize", size(unique).into()),
        ("VirtualSize", unit::human_size_precise(image.virtual_size.unwrap_or(image.size), 4).into()),
    ]
}

fn since(now: i64, created: i64) -> String {
    if created <= 0 { "N/A".to_owned() } else { format!("{} ago", unit::human_duration(now - created)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(tags: &[&str], digests: &[&str]) -> Summary {
        Summary {
            id: "sha256:36fbbf2ebf31aaaaaaaa".to_owned(),
            repo_tags: tags.iter().map(|text| (*text).to_owned()).collect(),
            repo_digests: digests.iter().map(|text| (*text).to_owned()).collect(),
            created: 1_000,
            size: 1_984_000,
            shared_size: -1,
            containers: -1,
            ..Summary::default()
        }
    }

    #[test]
    fn one_line_for_each_name() {
        let images =
            [image(&["busybox:latest", "host:5000/a:1"], &[]), image(&[], &["x@sha256:1"]), image(&[], &[])];
        let rows = images
            .iter()
            .flat_map(|image| {
                names(image, false).into_iter().map(|name| row(image, name, false, 4_700)).collect::<Vec<_>>()
            })
            .collect();
        let text = List { columns: COLUMNS, default: TABLE, format: "" }.render(rows).unwrap();
        assert_eq!(
            text,
            "REPOSITORY    TAG       IMAGE ID       CREATED             SIZE\n\
             busybox       latest    36fbbf2ebf31   About an hour ago   1.98MB\n\
             host:5000/a   1         36fbbf2ebf31   About an hour ago   1.98MB\n\
             x             <none>    36fbbf2ebf31   About an hour ago   1.98MB\n\
             <none>        <none>    36fbbf2ebf31   About an hour ago   1.98MB\n"
        );
    }
}
