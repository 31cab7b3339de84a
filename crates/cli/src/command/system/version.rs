use std::fmt::Write as _;

use ponton_api::system::Version;
use ponton_client::API_VERSION;

use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::format::data::Data;
use crate::format::template::Template;
use crate::output;

/// `ponton version`.
pub(crate) static VERSION: Command =
    Command::new("version", "[OPTIONS]", "Show the version information", |call| Box::pin(version(call)))
        .flags(&[&[Flag::text("format", "Print as json or by a Go template").short('f')]])
        .arguments(Arguments::None, Complete::Nothing);

const ARCHITECTURE: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"aarch64" => "arm64",
    _ => std::env::consts::ARCH,
};

async fn version(call: Invocation) -> Result<u8, Error> {
    let format = call.flags.text("format");
    let mut failure = None;
    let mut server = None;
    let mut api_version = API_VERSION.to_owned();
    match call.context.client().await {
        Ok(client) => {
            match client.system_version().await {
                Ok(version) => server = Some(version),
                Err(error) => failure = Some(Error::from(error)),
            }
            api_version = client.version();
        }
        Err(error) => failure = Some(error),
    }
    let text = match format {
        "" => plain(&api_version, server.as_ref()),
        _ => {
            let data = data(&api_version, server.as_ref())?;
            match format {
                "json" => format!("{}\n", data.to_json()),
                format => format!("{}\n", Template::parse(format)?.execute(&data)?),
            }
        }
    };
    output::print(&text)?;
    match failure {
        Some(error) => Err(error),
        None => Ok(0),
    }
}

fn data(api_version: &str, server: Option<&Version>) -> Result<Data, Error> {
    let json = serde_json::json!({
        "Client": {
            "Version": env!("CARGO_PKG_VERSION"), "ApiVersion": api_version, "DefaultAPIVersion": API_VERSION,
            "APIVersion": api_version, "Os": std::env::consts::OS, "Arch": ARCHITECTURE,
        },
        "Server": server,
    });
    let mut data: Data = serde_json::from_value(json).map_err(|error| Error::invalid(error.to_string()))?;
    // Templates call the version of the daemon's API another way than its JSON does.
    if let (Data::Struct(members), Some(server)) = (&mut data, server) {
        for (_, value) in members.iter_mut().filter(|(name, _)| name == "Server") {
            if let Data::Struct(members) = value {
                members.push(("APIVersion".to_owned(), Data::from(server.api_version.as_str())));
            }
        }
    }
    Ok(data.with_maps())
}

fn plain(api_version: &str, server: Option<&Version>) -> String {
    let mut text = String::from("Client:\n");
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, " {:<19}{value}", format!("{label}:"));
    };
    line("Version", env!("CARGO_PKG_VERSION"));
    if api_version == API_VERSION {
        line("API version", api_version);
    } else {
        line("API version", &format!("{api_version} (downgraded from {API_VERSION})"));
    }
    line("OS/Arch", &format!("{}/{ARCHITECTURE}", std::env::consts::OS));
    let Some(server) = server else { return text };
    let _ = writeln!(
        text,
        "\nServer:{}",
        match server.platform.name.as_str() {
            "" => String::new(),
            name => format!(" {name}"),
        }
    );
    for component in &server.components {
        let _ = writeln!(text, " {}:", component.name);
        let detail = |name: &str| {
            component.details.as_ref().and_then(|details| details.get(name)).map_or("", String::as_str)
        };
        let mut line = |label: &str, value: String| {
            let _ = writeln!(text, "  {:<18}{value}", format!("{label}:"));
        };
        line("Version", component.version.clone());
        if component.name == "Engine" {
            line(
                "API version",
                format!("{} (minimum version {})", detail("ApiVersion"), detail("MinAPIVersion")),
            );
            for (label, name) in
                [("Go version", "GoVersion"), ("Git commit", "GitCommit"), ("Built", "BuildTime")]
            {
                if !detail(name).is_empty() {
                    line(label, detail(name).to_owned());
                }
            }
            line("OS/Arch", format!("{}/{}", detail("Os"), detail("Arch")));
            line("Experimental", detail("Experimental").to_owned());
        } else if let Some(details) = &component.details {
            for (name, value) in details {
                line(name, value.clone());
            }
        }
    }
    text
}
