//! `ponton system …`, `info`, `version`, `events`.

mod df;
mod info;
mod version;

use ponton_api::event::Message;

use super::container::{FILTER, filters};
use super::prune::SYSTEM_PRUNE;
use super::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::format::data::Data;
use crate::format::template::Template;
use crate::{output, time};

pub(crate) use info::INFO;
pub(crate) use version::VERSION;

/// The commands of the noun.
pub(crate) static COMMANDS: &[&Command] = &[&df::DF, &EVENTS, &INFO, &SYSTEM_PRUNE];

/// `ponton events`.
pub(crate) static EVENTS: Command =
    Command::new("events", "[OPTIONS]", "Get real time events from the server", |call| {
        Box::pin(events(call))
    })
    .flags(&[&[
        FILTER,
        Flag::text("format", "Print as json or by a Go template"),
        Flag::text("since", "Begin with those after a time"),
        Flag::text("until", "End with those before a time"),
    ]])
    .arguments(Arguments::None, Complete::Nothing);

async fn events(call: Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    let now = jiff::Timestamp::now();
    let read = |name: &str| match flags.text(name) {
        "" => Ok(String::new()),
        text => time::parse(text, now).map_err(Error::Invalid),
    };
    let template = match flags.text("format") {
        "" | "json" => None,
        format => Some(Template::parse(format)?),
    };
    let client = call.context.client().await?;
    let mut stream =
        client.system_events(&read("since")?, &read("until")?, &filters(flags.all("filter"))).await?;
    while let Some(message) = stream.next().await? {
        let line = match &template {
            Some(template) => template.execute(&data(&message)?)?,
            None if flags.text("format") == "json" => {
                serde_json::to_string(&message).map_err(|error| Error::invalid(error.to_string()))?
            }
            None => line(&message),
        };
        output::print_line(&line)?;
    }
    Ok(0)
}

/// An event under the names that templates use.
fn data(message: &Message) -> Result<Data, Error> {
    let json = serde_json::json!({
        "Type": message.r#type, "Action": message.action, "Actor": message.actor, "Status": message.status,
        "ID": message.id, "From": message.from, "Scope": message.scope,
        "Time": message.time, "TimeNano": message.time_nano,
    });
    serde_json::from_value::<Data>(json)
        .map(Data::with_maps)
        .map_err(|error| Error::invalid(error.to_string()))
}

/// `2026-01-01T00:00:00.000000000Z container start 4f1c (image=busybox, name=web)`.
fn line(message: &Message) -> String {
    let at = match message.time_nano {
        0 => i128::from(message.time) * 1_000_000_000,
        nano => i128::from(nano),
    };
    let time = jiff::Timestamp::from_nanosecond(at).map_or_else(
        |_| String::new(),
        |instant| {
            let zoned = instant.to_zoned(jiff::tz::TimeZone::system());
            let offset = match zoned.offset().seconds() {
                0 => "Z".to_owned(),
                _ => zoned.strftime("%:z").to_string(),
            };
            format!("{}{offset}", zoned.strftime("%Y-%m-%dT%H:%M:%S.%9f"))
        },
    );
    let mut line = format!("{time} {} {} {}", message.r#type, message.action, message.actor.id);
    if !message.actor.attributes.is_empty() {
        let pairs: Vec<String> =
            message.actor.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        line.push_str(&format!(" ({})", pairs.join(", ")));
    }
    line
}
