use ponton_api::image::SearchResult;

use crate::command::container::{FILTER, filters};
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::credentials::auth_for;
use crate::error::Error;
use crate::flag::Flag;
use crate::format::{Column, FORMAT, List, Row, ellipsis};
use crate::output;

/// `ponton search`.
pub(crate) static SEARCH: Command =
    Command::new("search", "[OPTIONS] TERM", "Search Docker Hub for images", |call| Box::pin(search(call)))
        .flags(&[&[
            FILTER,
            FORMAT,
            Flag::int("limit", "At most so many results"),
            Flag::switch("no-trunc", "Do not cut anything off"),
        ]])
        .arguments(Arguments::Exactly(1), Complete::Nothing);

const COLUMNS: &[Column] =
    &[("Description", "DESCRIPTION"), ("IsOfficial", "OFFICIAL"), ("Name", "NAME"), ("StarCount", "STARS")];

async fn search(call: Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    let term = &call.arguments[0];
    let filters = filters(flags.all("filter"));
    let client = call.context.client().await?;
    let auth = auth_for(registry(term));
    let results = client.image_search(term, flags.int("limit"), &filters, &auth).await?;
    let format = flags.text("format");
    let for_people = !matches!(format, "json" | "{{json .}}");
    let rows = results.iter().map(|result| row(result, flags.on("no-trunc"), for_people)).collect();
    let default = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
    output::print(&List { columns: COLUMNS, default, format }.render(rows)?)?;
    Ok(0)
}

/// The registry that a term names before its first slash, if it does.
fn registry(term: &str) -> &str {
    match term.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

fn row(result: &SearchResult, whole: bool, for_people: bool) -> Row {
    let description = result.description.replace(['\n', '\r'], " ");
    let official = match (for_people, result.is_official) {
        (true, official) => if official { "[OK]" } else { "" }.to_owned(),
        (false, official) => official.to_string(),
    };
    vec![
        ("Description", if whole { description } else { ellipsis(&description, 45) }.into()),
        ("IsOfficial", official.into()),
        ("Name", result.name.clone().into()),
        ("StarCount", result.star_count.to_string().into()),
    ]
}
