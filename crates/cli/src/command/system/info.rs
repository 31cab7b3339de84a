use std::fmt::Write as _;

use ponton_api::system::Info;
use ponton_api::unit;

use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::format::data::Data;
use crate::format::template::Template;
use crate::output;

/// `ponton info`.
pub(crate) static INFO: Command =
    Command::new("info", "[OPTIONS]", "Display system-wide information", |call| Box::pin(info(call)))
        .flags(&[&[Flag::text("format", "Print as json or by a Go template").short('f')]])
        .arguments(Arguments::None, Complete::Nothing);

async fn info(call: Invocation) -> Result<u8, Error> {
    let format = call.flags.text("format");
    if !format.is_empty() {
        let raw = call.context.client().await?.system_info_raw().await?;
        let data: Data = serde_json::from_slice(&raw).map_err(|error| Error::invalid(error.to_string()))?;
        let data = data.with_maps();
        let text = match format {
            "json" => data.to_json(),
            format => Template::parse(format)?.execute(&data)?,
        };
        output::print_line(&text)?;
        return Ok(0);
    }
    let client =
        format!("Client:\n Version:    {}\n Debug Mode: false\n\nServer:\n", env!("CARGO_PKG_VERSION"));
    output::print(&client)?;
    let connected = call.context.client().await;
    let info = match connected {
        Ok(client) => client.system_info().await.map_err(Error::from),
        Err(error) => Err(error),
    };
    match info {
        Ok(info) => {
            output::print(&plain(&info))?;
            for warning in info.warnings.iter().flatten() {
                output::complain(warning);
            }
            Ok(0)
        }
        Err(error) => Err(Error::invalid(format!("{error}\nerrors pretty printing info"))),
    }
}

fn plain(info: &Info) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, " {label}: {value}");
    };
    line("Containers", &info.containers);
    line(" Running", &info.containers_running);
    line(" Paused", &info.containers_paused);
    line(" Stopped", &info.containers_stopped);
    line("Images", &info.images);
    line("Server Version", &info.server_version);
    line("Storage Driver", &info.driver);
    for [name, value] in &info.driver_status {
        line(&format!(" {name}"), value);
    }
    line("Logging Driver", &info.logging_driver);
    line("Cgroup Driver", &info.cgroup_driver);
    line("Cgroup Version", &info.cgroup_version);
    let _ = writeln!(text, " Plugins:");
    let mut plugins = |label: &str, names: &[String]| {
        if !names.is_empty() {
            let _ = writeln!(text, "  {label}: {}", names.join(" "));
        }
    };
    plugins("Volume", &info.plugins.volume);
    plugins("Network", &info.plugins.network);
    plugins("Authorization", info.plugins.authorization.as_deref().unwrap_or_default());
    plugins("Log", &info.plugins.log);
    text.push_str(&engine(info));
    text
}

fn engine(info: &Info) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, " {label}: {value}");
    };
    line("Swarm", &info.swarm.local_node_state);
    let runtimes: Vec<&str> = info.runtimes.keys().map(String::as_str).collect();
    line("Runtimes", &runtimes.join(" "));
    line("Default Runtime", &info.default_runtime);
    line("Init Binary", &info.init_binary);
    for (label, commit) in [
        ("containerd version", &info.containerd_commit),
        ("runc version", &info.runc_commit),
        ("init version", &info.init_commit),
    ] {
        line(label, &commit.id);
    }
    if !info.security_options.is_empty() {
        let _ = writeln!(text, " Security Options:");
        for option in &info.security_options {
            for (index, part) in option.split(',').enumerate() {
                let (key, value) = part.split_once('=').unwrap_or((part, ""));
                let _ = match (index, key) {
                    (_, "name") => writeln!(text, "  {value}"),
                    (_, "profile") => writeln!(text, "   Profile: {value}"),
                    (_, key) => writeln!(text, "   {key}: {value}"),
                };
            }
        }
    }
    let mut line = |label: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, " {label}: {value}");
    };
    line("Kernel Version", &info.kernel_version);
    line("Operating System", &info.operating_system);
    line("OSType", &info.os_type);
    line("Architecture", &info.architecture);
    line("CPUs", &info.n_cpu);
    line("Total Memory", &unit::binary_size(info.mem_total));
    line("Name", &info.name);
    line("ID", &info.id);
    line("Docker Root Dir", &info.docker_root_dir);
    line("Debug Mode", &info.debug);
    for (label, proxy) in
        [("HTTP Proxy", &info.http_proxy), ("HTTPS Proxy", &info.https_proxy), ("No Proxy", &info.no_proxy)]
    {
        if !proxy.is_empty() {
            line(label, proxy);
        }
    }
    if !info.labels.is_empty() {
        line("Labels", &format!("\n  {}", info.labels.join("\n  ")));
    }
    line("Experimental", &info.experimental_build);
    if !info.registry_config.insecure_registry_cidrs.is_empty() {
        let _ = writeln!(text, " Insecure Registries:");
        for range in &info.registry_config.insecure_registry_cidrs {
            let _ = writeln!(text, "  {range}");
        }
    }
    let _ = writeln!(text, " Live Restore Enabled: {}\n", info.live_restore_enabled);
    text
}
