use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::format::table;
use crate::output;

/// `ponton top`.
pub(crate) static TOP: Command =
    Command::new("top", "CONTAINER [ps OPTIONS]", "Display the running processes of a container", |call| {
        Box::pin(top(call))
    })
    .arguments(Arguments::AtLeast(1), Complete::RunningContainers)
    .strict();

async fn top(call: Invocation) -> Result<u8, Error> {
    let client = call.context.client().await?;
    let top = client.container_top(&call.arguments[0], &call.arguments[1..].join(" ")).await?;
    let mut rows = vec![top.titles];
    rows.extend(top.processes);
    output::print(&table::align(&rows, 20))?;
    Ok(0)
}
