//! `prune` under each noun.

use ponton_api::unit;

use super::container::filters;
use super::{Command, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::{output, value};

const FILTER: Flag =
    Flag::list("filter", "Only what matches (key=value)").named("filter").check(value::check_filter);
const FORCE: Flag = Flag::switch("force", "Do not ask").short('f');
const ALL: Flag = Flag::switch("all", "Every unused one, not just those without a name").short('a');

/// `ponton container prune`.
pub(crate) static CONTAINER_PRUNE: Command =
    Command::new("prune", "[OPTIONS]", "Remove all stopped containers", |call| {
        Box::pin(async move {
            if !agreed(&call, "This will remove all stopped containers.")? {
                return Ok(0);
            }
            let bytes = containers(&call).await?;
            reclaimed(bytes)
        })
    })
    .flags(&[&[FILTER, FORCE]]);

/// `ponton image prune`.
pub(crate) static IMAGE_PRUNE: Command = Command::new("prune", "[OPTIONS]", "Remove unused images", |call| {
    Box::pin(async move {
        let warning = if call.flags.on("all") {
            "This will remove all images without at least one container associated to them."
        } else {
            "This will remove all dangling images."
        };
        if !agreed(&call, warning)? {
            return Ok(0);
        }
        let bytes = images(&call).await?;
        reclaimed(bytes)
    })
})
.flags(&[&[ALL, FILTER, FORCE]]);

/// `ponton volume prune`.
pub(crate) static VOLUME_PRUNE: Command =
    Command::new("prune", "[OPTIONS]", "Remove unused local volumes", |call| {
        Box::pin(async move {
            let warning = if call.flags.on("all") {
                "This will remove all local volumes not used by at least one container."
            } else {
                "This will remove anonymous local volumes not used by at least one container."
            };
            if !agreed(&call, warning)? {
                return Ok(0);
            }
            let all = call.flags.on("all");
            let bytes = volumes(&call, all).await?;
            reclaimed(bytes)
        })
    })
    .flags(&[&[ALL, FILTER, FORCE]]);

/// `ponton system prune`.
pub(crate) static SYSTEM_PRUNE: Command =
    Command::new("prune", "[OPTIONS]", "Remove unused data", |call| Box::pin(system(call))).flags(&[&[
        ALL,
        FILTER,
        FORCE,
        Flag::switch("volumes", "Anonymous volumes too"),
    ]]);

async fn system(call: Invocation) -> Result<u8, Error> {
    let mut warning = "This will remove:\n  - all stopped containers\n".to_owned();
    if call.flags.on("volumes") {
        warning.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    warning.push_str(if call.flags.on("all") {
        "  - all images without at least one container associated to them\n"
    } else {
        "  - all dangling images\n"
    });
    if !agreed(&call, &warning)? {
        return Ok(0);
    }
    let mut bytes = containers(&call).await?;
    if call.flags.on("volumes") {
        bytes += volumes(&call, false).await?;
    }
    bytes += images(&call).await?;
    reclaimed(bytes)
}

fn agreed(call: &Invocation, warning: &str) -> Result<bool, Error> {
    if call.flags.on("force") {
        return Ok(true);
    }
    output::confirm(&format!("WARNING! {warning}\nAre you sure you want to continue?"))
}

fn reclaimed(bytes: u64) -> Result<u8, Error> {
    output::print_line(&format!("Total reclaimed space: {}", unit::human_size_precise(bytes as i64, 4)))?;
    Ok(0)
}

fn report(title: &str, lines: &[String]) -> Result<(), Error> {
    if lines.is_empty() {
        return Ok(());
    }
    output::print(&format!("{title}:\n{}\n\n", lines.join("\n")))
}

/// `--filter`, and those of the user's settings that don't contradict them.
fn chosen(call: &Invocation) -> Vec<String> {
    let mut given = call.flags.all("filter").to_vec();
    for settled in &call.context.config.prune_filters {
        let contrary = match settled.split_once('=') {
            Some(("label", value)) => format!("label!={value}"),
            Some(("label!", value)) => format!("label={value}"),
            _ => String::new(),
        };
        if !given.contains(&contrary) {
            given.push(settled.clone());
        }
    }
    given
}

async fn containers(call: &Invocation) -> Result<u64, Error> {
    let pruned = call.context.client().await?.container_prune(&filters(&chosen(call))).await?;
    report("Deleted Containers", &pruned.containers_deleted.unwrap_or_default())?;
    Ok(pruned.space_reclaimed)
}

async fn images(call: &Invocation) -> Result<u64, Error> {
    let mut given = chosen(call);
    given.push(format!("dangling={}", !call.flags.on("all")));
    let pruned = call.context.client().await?.image_prune(&filters(&given)).await?;
    let lines: Vec<String> = pruned
        .images_deleted
        .unwrap_or_default()
        .into_iter()
        .flat_map(|item| {
            let untagged = item.untagged.map(|name| format!("untagged: {name}"));
            untagged.into_iter().chain(item.deleted.map(|id| format!("deleted: {id}")))
        })
        .collect();
    report("Deleted Images", &lines)?;
    Ok(pruned.space_reclaimed)
}

async fn volumes(call: &Invocation, all: bool) -> Result<u64, Error> {
    let mut given = chosen(call);
    if all {
        given.push("all=true".to_owned());
    }
    let pruned = call.context.client().await?.volume_prune(&filters(&given)).await?;
    report("Deleted Volumes", &pruned.volumes_deleted.unwrap_or_default())?;
    Ok(pruned.space_reclaimed)
}
