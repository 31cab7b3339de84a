//! The crate bollard against the daemon that DOCKER_HOST names: the calls of a usual user.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::body_full;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::StartExecResults;
use bollard::query_parameters as query;
use futures_util::{StreamExt, TryStreamExt};
use serde_json::json;
use tokio::io::AsyncWriteExt;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tour())?;
    println!("bollard: done");
    Ok(())
}

async fn tour() -> Result<()> {
    let docker = Docker::connect_with_defaults()?.with_timeout(PATIENCE).negotiate_version().await?;
    assert_eq!(docker.ping().await?, "OK");
    assert_eq!(docker.info().await?.containers, Some(0));
    let filters = HashMap::from([("type", vec!["container"])]);
    let events = docker.events(Some(query::EventsOptionsBuilder::new().since("1").filters(&filters).build()));
    let until_destroyed = async {
        let mut seen = Vec::new();
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.try_next().await? {
            let action = event.action.unwrap_or_default();
            seen.push(action.clone());
            if action == "destroy" {
                break;
            }
        }
        Ok::<_, Error>(seen)
    };
    let (seen, lived) = tokio::join!(tokio::time::timeout(PATIENCE, until_destroyed), life(&docker));
    lived?;
    let seen = seen??;
    for wanted in ["create", "start", "pause", "unpause", "rename", "update", "kill", "die", "destroy"] {
        assert!(seen.iter().any(|action| action == wanted), "{wanted} is not among {seen:?}");
    }
    Ok(())
}

async fn life(docker: &Docker) -> Result<()> {
    let volume = serde_json::from_value::<bollard::models::VolumeCreateRequest>(json!({"Name": "crate-data"}))?;
    assert_eq!(docker.create_volume(volume).await?.name, "crate-data");
    let script = "trap 'exit 7' TERM; echo out; echo err >&2; while :; do sleep 0.05; done";
    let body: bollard::models::ContainerCreateBody = serde_json::from_value(json!({
        "Image": "busybox", "Cmd": ["sh", "-c", script], "Env": ["A=B"],
        "HostConfig": {"Memory": 64 << 20, "Binds": ["crate-data:/data"]},
    }))?;
    let options = query::CreateContainerOptionsBuilder::new().name("crate").build();
    docker.create_container(Some(options), body).await?;
    docker.start_container("crate", None).await?;
    let inspected = docker.inspect_container("crate", None).await?;
    assert_eq!(inspected.state.and_then(|state| state.running), Some(true));
    let listed = docker.list_containers(None).await?;
    assert_eq!(listed[0].names, Some(vec!["/crate".to_owned()]));

    exec(docker).await?;
    copy(docker).await?;

    let stream = query::StatsOptionsBuilder::new().stream(true).build();
    let stats: Vec<_> = docker.stats("crate", Some(stream)).take(2).try_collect().await?;
    assert_eq!(stats.len(), 2);
    assert!(stats[1].memory_stats.as_ref().and_then(|memory| memory.usage) > Some(0));
    assert!(!docker.top_processes("crate", None).await?.processes.unwrap_or_default().is_empty());

    docker.pause_container("crate").await?;
    docker.unpause_container("crate").await?;
    docker.rename_container("crate", query::RenameContainerOptionsBuilder::new().name("crate2").build()).await?;
    let update = serde_json::from_value(json!({"Memory": 32 << 20, "MemorySwap": 64 << 20}))?;
    docker.update_container("crate2", update).await?;
    let waited = docker.wait_container("crate2", None).try_collect::<Vec<_>>();
    let stop = query::StopContainerOptionsBuilder::new().t(100).build();
    let (waited, stopped) = tokio::join!(waited, docker.stop_container("crate2", Some(stop)));
    stopped?;
    assert!(matches!(waited, Err(Error::DockerContainerWaitError { code: 7, .. })), "{waited:?}");

    let both = query::LogsOptionsBuilder::new().stdout(true).stderr(true).follow(true).build();
    let logs: Vec<_> = docker.logs("crate2", Some(both)).try_collect().await?;
    assert_eq!(split(logs), ("out\n".to_owned(), "err\n".to_owned()));
    refused(docker.remove_volume("crate-data", None::<query::RemoveVolumeOptions>).await, 409);
    docker.remove_container("crate2", None).await?;
    refused(docker.inspect_container("crate2", None).await.map(drop), 404);
    docker.remove_volume("crate-data", None::<query::RemoveVolumeOptions>).await?;
    Ok(())
}

async fn exec(docker: &Docker) -> Result<()> {
    let config: bollard::models::ExecConfig = serde_json::from_value(json!({
        "Cmd": ["sh", "-c", "cat; echo $A >&2; exit 5"],
        "AttachStdin": true, "AttachStdout": true, "AttachStderr": true,
    }))?;
    let made = docker.create_exec("crate", config).await?;
    let StartExecResults::Attached { output, mut input } = docker.start_exec(&made.id, None).await? else {
        return Err("it was to be attached".into());
    };
    input.write_all(b"typed\n").await?;
    input.shutdown().await?;
    assert_eq!(split(output.try_collect().await?), ("typed\n".to_owned(), "B\n".to_owned()));
    assert_eq!(docker.inspect_exec(&made.id).await?.exit_code, Some(5));
    Ok(())
}

async fn copy(docker: &Docker) -> Result<()> {
    let mut packed = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_uid(12);
    header.set_cksum();
    packed.append_data(&mut header, "given", &b"12345"[..])?;
    let into = query::UploadToContainerOptionsBuilder::new().path("/data").build();
    docker.upload_to_container("crate", Some(into), body_full(packed.into_inner()?.into())).await?;
    let from = query::DownloadFromContainerOptionsBuilder::new().path("/data/given").build();
    let parts: Vec<bytes::Bytes> = docker.download_from_container("crate", Some(from)).try_collect().await?;
    let mut archive = tar::Archive::new(std::io::Cursor::new(parts.concat()));
    let entry = archive.entries()?.next().ok_or("an empty archive")??;
    assert_eq!((entry.path()?.to_str(), entry.header().uid()?, entry.size()), (Some("given"), 12, 5));
    Ok(())
}

/// What came on the two streams.
fn split(parts: Vec<LogOutput>) -> (String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    for part in parts {
        match part {
            LogOutput::StdErr { message } => err.push_str(&String::from_utf8_lossy(&message)),
            other => out.push_str(&String::from_utf8_lossy(&other.into_bytes())),
        }
    }
    (out, err)
}

#[track_caller]
fn refused(result: std::result::Result<(), Error>, status: u16) {
    match result {
        Err(Error::DockerResponseServerError { status_code, .. }) => assert_eq!(status_code, status),
        other => panic!("{other:?} instead of {status}"),
    }
}
