//! `ponton explain`: how a container stands with the kernel, as a page for people or as JSON.

mod page;

use ponton_api::explain::Explanation;

use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::{format, output, terminal};

/// `ponton explain`.
pub(crate) static EXPLAIN: Command = Command::new(
    "explain",
    "[OPTIONS] CONTAINER",
    "Show how a container stands with the kernel: namespaces, limits, mounts, rights, network, processes",
    |call| Box::pin(explain(call)),
)
.flags(&[&[Flag::text("format", "Print as json or by a Go template").short('f')]])
.arguments(Arguments::Exactly(1), Complete::Containers);

async fn explain(call: Invocation) -> Result<u8, Error> {
    let bytes = call.context.client().await?.container_explain_raw(&call.arguments[0]).await?;
    let text = match call.flags.text("format") {
        "" => {
            let explanation: Explanation = serde_json::from_slice(&bytes)
                .map_err(|error| Error::invalid(format!("decode the daemon's answer: {error}")))?;
            let width = terminal::size().map_or(80, |(_, columns)| usize::from(columns));
            page::page(&explanation, width.clamp(40, 160))
        }
        format => format::inspect_one(&bytes, format)?,
    };
    output::print(&text)?;
    Ok(0)
}
