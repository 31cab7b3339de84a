//! `ponton image explore`: what is in an image, layer by layer, and what of it is wasted.

mod ci;
mod frame;
mod report;
mod screen;
mod tree;
mod view;

use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::output;

/// `ponton image explore`.
pub(crate) static EXPLORE: Command = Command::new(
    "explore",
    "[OPTIONS] IMAGE",
    "Show the layers of an image, their files, and what space is wasted.\n\
     On a terminal the layers and files can be walked through, with dive's keys. With --ci, the exit code says\n\
     whether the image keeps to the thresholds of the flags or of a .dive-ci file.",
    |call| Box::pin(explore(call)),
)
.flags(&[&[
    Flag::switch("ci", "Only judge the image; also if the variable CI is true"),
    Flag::text("ci-config", "File with the thresholds").default(".dive-ci"),
    Flag::text("highestUserWastedPercent", "Most that may be wasted of the bytes above the lowest layer, from 0 to 1"),
    Flag::text("highestWastedBytes", "Most that may be wasted (20MB)"),
    Flag::switch("json", "Print everything as JSON"),
    Flag::text("lowestEfficiency", "Least efficiency, from 0 to 1"),
]])
.arguments(Arguments::Exactly(1), Complete::Images);

async fn explore(call: Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    let in_ci = std::env::var("CI").is_ok_and(|value| crate::value::parse_bool(&value) == Some(true));
    let judges = flags.on("ci") || in_ci && !flags.is_set("ci") && !flags.on("json");
    let rules = if judges { Some(ci::Rules::new(flags.text("ci-config"), flags)?) } else { None };
    let shows_screen = rules.is_none() && !flags.on("json") && screen::is_available();
    let client = call.context.client().await?;
    let image = client.image_explore(&call.arguments[0], shows_screen || flags.on("json")).await?;
    if flags.on("json") {
        let text = serde_json::to_string_pretty(&report::document(&image))
            .map_err(|error| Error::invalid(error.to_string()))?;
        output::print_line(&text)?;
    } else if rules.is_none() && shows_screen {
        return screen::explore(image).await;
    } else if rules.is_none() {
        output::print(&format!("{}\n{}", report::layers(&image), report::analysis(&image)))?;
    }
    let Some(rules) = rules else { return Ok(0) };
    let (verdict, is_well) = rules.judge(&image);
    if flags.on("json") {
        output::complain_raw(&verdict);
    } else {
        output::print(&format!("{}{verdict}", report::analysis(&image)))?;
    }
    Ok(u8::from(!is_well))
}
