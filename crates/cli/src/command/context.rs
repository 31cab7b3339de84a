//! `ponton context …`: which daemon the commands speak to, in docker's own store.

mod archive;

use bytes::Bytes;
use serde_json::json;

use super::{Arguments, Command, Complete, Invocation};
use crate::config;
use crate::context::host_variable;
use crate::context::store::{DEFAULT, DEFAULT_DESCRIPTION, Meta, Store, check_name};
use crate::error::Error;
use crate::flag::{Flag, Flags};
use crate::format::data::Data;
use crate::format::{self, Column, FORMAT, List, Row, ellipsis};
use crate::output;

/// The commands of the noun.
pub(crate) static COMMANDS: &[&Command] =
    &[&CREATE, &archive::EXPORT, &archive::IMPORT, &INSPECT, &LS, &RM, &SHOW, &UPDATE, &USE];

const DESCRIPTION: Flag = Flag::text("description", "Description of the context");
const DOCKER: Flag = Flag::list("docker", "Where its daemon is (host=unix:///path, or from=another context)")
    .named("stringToString")
    .default("[]");

static CREATE: Command = Command::new("create", "[OPTIONS] CONTEXT", "Create a context", |call| {
    Box::pin(async move { create(&call) })
})
.flags(&[&[DESCRIPTION, DOCKER, Flag::text("from", "Begin with a copy of another context")]])
.arguments(Arguments::Exactly(1), Complete::Nothing);

static UPDATE: Command = Command::new("update", "[OPTIONS] CONTEXT", "Update a context", |call| {
    Box::pin(async move { update(&call) })
})
.flags(&[&[DESCRIPTION, DOCKER]])
.arguments(Arguments::Exactly(1), Complete::Contexts);

static INSPECT: Command = Command::new(
    "inspect",
    "[OPTIONS] [CONTEXT] [CONTEXT...]",
    "Display detailed information on one or more contexts",
    |call| Box::pin(async move { inspect(&call) }),
)
.flags(&[&[Flag::text("format", "Print as json or by a Go template").short('f')]])
.arguments(Arguments::Any, Complete::Contexts);

static LS: Command =
    Command::new("ls", "[OPTIONS]", "List contexts", |call| Box::pin(async move { list(&call) }))
        .aliases(&["list"])
        .flags(&[&[FORMAT, Flag::switch("quiet", "Only names").short('q')]]);

static RM: Command = Command::new("rm", "CONTEXT [CONTEXT...]", "Remove one or more contexts", |call| {
    Box::pin(async move { remove(&call) })
})
.aliases(&["remove"])
.flags(&[&[Flag::switch("force", "Also one that is in use").short('f')]])
.arguments(Arguments::AtLeast(1), Complete::Contexts);

static SHOW: Command = Command::new("show", "", "Print the name of the current context", |call| {
    Box::pin(async move {
        output::print_line(&current(&call))?;
        Ok(0)
    })
});

static USE: Command =
    Command::new("use", "CONTEXT", "Set the current context", |call| Box::pin(async move { choose(&call) }))
        .arguments(Arguments::Exactly(1), Complete::Contexts);

fn current(call: &Invocation) -> String {
    call.context.globals.context_name(&call.context.config)
}

/// `default` as if it were in the store.
fn default(call: &Invocation) -> Meta {
    Meta::new(DEFAULT, "", &call.context.globals.default_host().0)
}

fn find(call: &Invocation, store: &Store, name: &str) -> Result<Meta, Error> {
    if name == DEFAULT { Ok(default(call)) } else { store.get(name) }
}

/// The host that `--docker` gives; `None` if it isn't there.
fn endpoint(call: &Invocation, store: &Store, flags: &Flags) -> Result<Option<String>, Error> {
    let failed = |reason: &str| Error::invalid(format!("unable to create docker endpoint config: {reason}"));
    let mut host = None;
    for part in flags.all("docker").iter().flat_map(|text| text.split(',')) {
        match part.split_once('=') {
            Some(("host", value)) => {
                let parsed: Result<ponton_client::Host, _> = value.parse();
                parsed
                    .map_err(|error| failed(&format!("unable to apply docker endpoint options: {error}")))?;
                host = Some(value.to_owned());
            }
            Some(("from", name)) => host = Some(find(call, store, name)?.host().to_owned()),
            Some((key @ ("ca" | "cert" | "key" | "skip-tls-verify"), _)) => {
                return Err(failed(&format!("{key}: daemons behind TLS are not implemented")));
            }
            Some((key, _)) => return Err(failed(&format!("unrecognized config key: {key}"))),
            None => return Err(Error::invalid(format!("{part} must be formatted as key=value"))),
        }
    }
    Ok(host)
}

fn create(call: &Invocation) -> Result<u8, Error> {
    let (store, flags, name) = (Store::of_user(), &call.flags, call.arguments[0].as_str());
    check_name(name)?;
    if store.has(name) {
        return Err(Error::invalid(format!("context {name:?} already exists")));
    }
    let host = endpoint(call, &store, flags)?;
    let from = flags.given("from");
    if from.is_some() && host.is_some() {
        return Err(Error::invalid("cannot use --docker flag when --from is set"));
    }
    let mut meta = match (from, host) {
        (None, Some(host)) => Meta::new(name, "", &host),
        (from, _) => {
            let source = from.map_or_else(|| current(call), str::to_owned);
            let mut meta = find(call, &store, &source)?;
            if source == DEFAULT {
                meta.describe(DEFAULT_DESCRIPTION);
            }
            meta.name = name.to_owned();
            meta
        }
    };
    if let Some(description) = flags.given("description") {
        meta.describe(description);
    }
    store.put(&meta)?;
    said(name, "created")
}

/// What docker says of a change: the name for programs, a sentence for people.
fn said(name: &str, done: &str) -> Result<u8, Error> {
    output::print_line(name)?;
    output::complain(&format!("Successfully {done} context {name:?}"));
    Ok(0)
}

fn update(call: &Invocation) -> Result<u8, Error> {
    let (store, name) = (Store::of_user(), call.arguments[0].as_str());
    check_name(name)?;
    let mut meta = store.get(name)?;
    if let Some(description) = call.flags.given("description") {
        meta.describe(description);
    }
    if let Some(host) = endpoint(call, &store, &call.flags)? {
        meta.endpoints.docker.get_or_insert_default().host = host;
    }
    store.put(&meta)?;
    said(name, "updated")
}

fn inspect(call: &Invocation) -> Result<u8, Error> {
    let store = Store::of_user();
    let here = [current(call)];
    let names = if call.arguments.is_empty() { &here[..] } else { &call.arguments[..] };
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        match find(call, &store, name) {
            Ok(meta) => documents.push(document(&store, &meta)?),
            Err(error) => errors.push(error.to_string()),
        }
    }
    let format = call.flags.text("format");
    let mut text = format::inspect(&documents, format)?;
    if matches!(format, "" | "json") {
        text = text.replace('<', "\\u003c").replace('>', "\\u003e");
    }
    output::print(&text)?;
    if errors.is_empty() { Ok(0) } else { Err(Error::invalid(errors.join("\n"))) }
}

fn document(store: &Store, meta: &Meta) -> Result<Bytes, Error> {
    let place = |path: std::path::PathBuf| {
        if meta.name == DEFAULT { "<IN MEMORY>".to_owned() } else { path.display().to_string() }
    };
    let keys: serde_json::Map<String, serde_json::Value> = if store.has_keys(&meta.name) {
        let files = std::fs::read_dir(store.tls_directory(&meta.name).join("docker"));
        let mut names: Vec<String> = files
            .into_iter()
            .flatten()
            .flatten()
            .map(|file| file.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        [("docker".to_owned(), json!(names))].into_iter().collect()
    } else {
        serde_json::Map::new()
    };
    let value = json!({
        "Name": meta.name, "Metadata": meta.metadata, "Endpoints": meta.endpoints, "TLSMaterial": keys,
        "Storage": {
            "MetadataPath": place(store.meta_directory(&meta.name)),
            "TLSPath": place(store.tls_directory(&meta.name)),
        },
    });
    serde_json::to_vec(&value).map(Bytes::from).map_err(|error| Error::invalid(error.to_string()))
}

const COLUMNS: &[Column] = &[
    ("Current", ""),
    ("Description", "DESCRIPTION"),
    ("DockerEndpoint", "DOCKER ENDPOINT"),
    ("Error", "ERROR"),
    ("Name", "NAME"),
];

fn list(call: &Invocation) -> Result<u8, Error> {
    let store = Store::of_user();
    let here = current(call);
    let mut rows: Vec<(String, Row)> = Vec::new();
    let mut add = |name: &str, description: &str, host: &str, error: &str| {
        let row = vec![
            ("Current", Data::Bool(name == here)),
            ("Description", description.into()),
            ("DockerEndpoint", host.into()),
            ("Error", error.into()),
            ("Name", name.into()),
        ];
        rows.push((name.to_owned(), row));
    };
    add(DEFAULT, DEFAULT_DESCRIPTION, default(call).host(), "");
    for meta in store.all() {
        add(&meta.name, meta.description(), meta.host(), "");
    }
    if here != DEFAULT
        && let Err(error) = store.get(&here)
    {
        add(&here, "", "", &ellipsis(&error.to_string(), 45));
    }
    rows.sort_by(|left, right| left.0.cmp(&right.0));
    let quiet = call.flags.on("quiet");
    let format = if quiet { "{{.Name}}" } else { call.flags.text("format") };
    let default = "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}";
    let rows = rows.into_iter().map(|(_, row)| row).collect();
    output::print(&List { columns: COLUMNS, default, format }.render(rows)?)?;
    if let (Some((name, _)), false, None) = (host_variable(), quiet, &call.context.globals.context) {
        output::complain(&format!(
            "Warning: {name} environment variable overrides the active context. To use a context, either set \
             the global --context flag, or unset {name} environment variable."
        ));
    }
    Ok(0)
}

fn remove(call: &Invocation) -> Result<u8, Error> {
    let store = Store::of_user();
    let here = current(call);
    let mut errors = Vec::new();
    for name in &call.arguments {
        let force = call.flags.on("force");
        let refusal = match name.as_str() {
            DEFAULT => Some(format!("context {name:?} cannot be removed")),
            name if !store.has(name) && !force => Some(format!("context {name:?} does not exist")),
            name if name == here && !force => {
                Some(format!("context {name:?} is in use, set -f flag to force remove"))
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            errors.push(refusal);
            continue;
        }
        store.remove(name)?;
        if *name == call.context.config.current_context {
            config::set_current_context(DEFAULT)?;
        }
        output::print_line(name)?;
    }
    if errors.is_empty() { Ok(0) } else { Err(Error::invalid(errors.join("\n"))) }
}

fn choose(call: &Invocation) -> Result<u8, Error> {
    let name = call.arguments[0].as_str();
    if name != DEFAULT {
        check_name(name)?;
        Store::of_user().get(name)?;
    }
    config::set_current_context(name)?;
    output::print_line(name)?;
    output::complain(&format!("Current context is now {name:?}"));
    if let (Some((variable, _)), true) = (host_variable(), name != DEFAULT) {
        output::complain(&format!(
            "Warning: {variable} environment variable overrides the active context. To use {name:?}, either \
             set the global --context flag, or unset {variable} environment variable."
        ));
    }
    Ok(0)
}
