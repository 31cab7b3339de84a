use futures_util::StreamExt;
use ponton_api::stream::StreamKind;
use ponton_client::LogsOptions;

use super::streams::Demultiplexer;
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::{output, time};

/// `ponton logs`.
pub(crate) static LOGS: Command =
    Command::new("logs", "[OPTIONS] CONTAINER", "Fetch the logs of a container", |call| Box::pin(logs(call)))
        .flags(&[FLAGS])
        .arguments(Arguments::Exactly(1), Complete::Containers);

static FLAGS: &[Flag] = &[
    Flag::switch("details", "Show what else the log says of a line"),
    Flag::switch("follow", "Go on with what is logged from now on").short('f'),
    Flag::text("since", "Only after a time, or that long ago (42m)"),
    Flag::text("tail", "Only so many lines from the end").short('n').default("all"),
    Flag::switch("timestamps", "Show the time of each line").short('t'),
    Flag::text("until", "Only before a time, or that long ago"),
];

async fn logs(call: Invocation) -> Result<u8, Error> {
    let client = call.context.client().await?;
    let container = &call.arguments[0];
    let flags = &call.flags;
    let now = jiff::Timestamp::now();
    let read = |name: &str| match flags.text(name) {
        "" => Ok(String::new()),
        text => time::parse(text, now)
            .map_err(|reason| Error::invalid(format!("invalid value for \"{name}\": {reason}"))),
    };
    let options = LogsOptions {
        stdout: true,
        stderr: true,
        follow: flags.on("follow"),
        timestamps: flags.on("timestamps"),
        details: flags.on("details"),
        since: read("since")?,
        until: read("until")?,
        tail: flags.text("tail").to_owned(),
    };
    let answer = client.container_logs(container, &options).await?;
    // Older daemons announce no frames where there are some.
    let is_raw = !answer.is_multiplexed() && client.container_inspect(container).await?.config.tty;
    let mut stream = answer.stream();
    let mut demultiplexer = Demultiplexer::default();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if is_raw {
            output::print_bytes(&chunk)?;
            continue;
        }
        demultiplexer.feed(&chunk);
        while let Some((kind, text)) = demultiplexer.run()? {
            match kind {
                StreamKind::Stderr => output::complain_bytes(&text)?,
                _ => output::print_bytes(&text)?,
            }
        }
    }
    Ok(0)
}
