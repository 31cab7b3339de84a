//! What containers and images have to do with each other. Needs root.
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use futures_util::StreamExt;
use ponton_api::container::Config;
use ponton_api::filters::Filters;
use ponton_engine::ErrorKind;
use ponton_engine::request::{
    CommitRequest, DiskUsageOptions, EventsRequest, ImageListOptions, PullRequest, StopOptions,
};

mod lab;
use lab::{Lab, request, shell};

/// The actions that the event stream told of one kind, in order.
async fn actions(lab: &Lab, kind: &str) -> Vec<String> {
    let mut filters = Filters::default();
    filters.add("type", kind);
    let request = EventsRequest {
        since: Some(jiff::Timestamp::UNIX_EPOCH),
        until: Some(jiff::Timestamp::now()),
        filters,
    };
    let events = lab.engine.events(request).await.unwrap();
    events.map(|event| event.unwrap().action.clone()).collect().await
}

async fn bytes(stream: ponton_engine::request::Stream<Bytes>) -> Vec<u8> {
    stream.map(|chunk| chunk.unwrap()).collect::<Vec<_>>().await.concat()
}

fn entries(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().display().to_string().trim_end_matches('/').to_owned(), content)
    });
    entries.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_the_root_alone() {
    let lab = Lab::new().await;
    let mut request = shell("echo text > /file; echo volume > /data/inside; sleep 1000");
    request.config.volumes = Some(BTreeMap::from([("/data".to_owned(), ponton_api::Empty::default())]));
    lab.create("exported", request).await;
    lab.engine.start("exported", None).await.unwrap();
    let root = lab.engine.inspect("exported", false).await.unwrap().state.pid;
    lab::wait_for(|| std::path::Path::new(&format!("/proc/{root}/root/data/inside")).exists()).await;
    let running = bytes(lab.engine.export("exported").await.unwrap()).await;
    lab.engine.stop("exported", StopOptions { timeout: Some(0), signal: None }).await.unwrap();
    let stopped = bytes(lab.engine.export("exported").await.unwrap()).await;
    for tar in [running, stopped] {
        let entries = entries(&tar);
        assert_eq!(entries.get("file").map(Vec::as_slice), Some(&b"text\n"[..]));
        for (directory, _) in [("proc", 0), ("sys", 0), ("dev", 0), ("data", 0)] {
            assert!(entries.contains_key(directory), "{directory} is missing");
            let inside = entries.keys().find(|path| path.starts_with(&format!("{directory}/")));
            assert_eq!(inside, None, "of {directory}");
        }
    }
    let told = actions(&lab, "container").await;
    assert_eq!(told.iter().filter(|action| *action == "export").count(), 2, "{told:?}");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_has_the_changes_and_the_configuration() {
    let lab = Lab::new().await;
    let (code, _) = lab.run("source", shell("echo new > /file; rm /etc/group")).await;
    assert_eq!(code, 0);
    let id = lab
        .engine
        .commit(CommitRequest {
            container: "source".into(),
            reference: Some("made:1".into()),
            comment: "why".into(),
            author: "who".into(),
            changes: vec!["ENV A=b".into(), "LABEL l=1".into(), r#"CMD ["cat", "/file"]"#.into()],
            pause: true,
            config: None,
        })
        .await
        .unwrap();
    let image = lab.engine.image_inspect("made:1", None, false).await.unwrap();
    assert_eq!(
        (image.id.as_str(), image.author.as_str(), image.comment.as_str()),
        (id.as_str(), "who", "why")
    );
    assert_eq!(image.config.cmd.as_deref(), Some(&["cat".to_owned(), "/file".to_owned()][..]));
    assert_eq!(image.config.env.as_deref(), Some(&["A=b".to_owned()][..]));
    assert_eq!(image.root_fs.layers.len(), 2);
    let history = lab.engine.image_history("made:1", None).await.unwrap();
    assert_eq!((history.len(), history[0].comment.as_str()), (2, "why"));
    let mut run = request(&["sh", "-c", "cat /file; ls /etc; echo $A"]);
    run.config.image = "made:1".into();
    let (code, text) = lab.run("target", run).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("new\n") && !text.contains("group") && text.ends_with("b\n"), "{text}");
    // One layer is shared, and each of the images has a container.
    let all = ImageListOptions { shared_size: true, containers: true, ..ImageListOptions::default() };
    let images = lab.engine.image_list(all).await.unwrap();
    assert_eq!(images.len(), 2);
    for image in &images {
        assert!(image.shared_size > 0 && image.shared_size <= image.size, "{image:?}");
        assert_eq!(image.containers, 1);
    }
    let kinds = DiskUsageOptions { images: true, containers: true, volumes: false, build_cache: true };
    let usage = lab.engine.df(kinds).await.unwrap();
    assert_eq!((usage.containers.map(|list| list.len()), usage.volumes), (Some(2), None));
    assert!(usage.layers_size >= images.iter().map(|image| image.size).max().unwrap());
    let told = actions(&lab, "container").await;
    assert_eq!(told.iter().filter(|action| *action == "commit").count(), 1, "{told:?}");
    assert_eq!(actions(&lab, "image").await, ["import", "tag"]);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_leaves_a_container_running() {
    let lab = Lab::new().await;
    lab.create("busy", request(&["sleep", "1000"])).await;
    lab.engine.start("busy", None).await.unwrap();
    let commit = |changes: Vec<String>| CommitRequest {
        container: "busy".into(),
        changes,
        pause: true,
        config: Some(Config { user: "1".into(), ..Config::default() }),
        ..CommitRequest::default()
    };
    let refused = lab.engine.commit(commit(vec!["NOSUCH x".into()])).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Invalid);
    let id = lab.engine.commit(commit(Vec::new())).await.unwrap();
    let state = lab.engine.inspect("busy", false).await.unwrap().state;
    assert_eq!((state.running, state.paused), (true, false));
    let config = lab.engine.image_inspect(&id, None, false).await.unwrap().config;
    assert_eq!(
        (config.user.as_str(), config.cmd.map(|cmd| cmd.join(" ")).as_deref()),
        ("1", Some("sleep 1000"))
    );
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_those_of_the_container() {
    let lab = Lab::new().await;
    let (code, text) =
        lab.run("changed", shell("echo x > /tmp/new; rm /etc/group; echo y >> /etc/passwd")).await;
    assert_eq!(code, 0, "{text}");
    let changes = lab.engine.changes("changed").await.unwrap();
    let changes: Vec<(String, u8)> = changes.into_iter().map(|change| (change.path, change.kind)).collect();
    let expected = [("/etc", 0), ("/etc/group", 2), ("/etc/passwd", 0), ("/tmp", 0), ("/tmp/new", 1)];
    assert_eq!(changes, expected.map(|(path, kind)| (path.to_owned(), kind)));
    lab.run("unchanged", request(&["true"])).await;
    assert_eq!(lab.engine.changes("unchanged").await.unwrap(), []);
    let commit = CommitRequest { container: "unchanged".into(), ..CommitRequest::default() };
    let id = lab.engine.commit(commit).await.unwrap();
    let image = lab.engine.image_inspect(&id, None, false).await.unwrap();
    assert_eq!(image.root_fs.layers.len(), 1, "a layer of nothing");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_not_there_is_told() {
    let lab = Lab::new().await;
    // A port that was free a moment ago, and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let request =
        PullRequest { image: format!("127.0.0.1:{port}/a"), tag: "1".into(), ..PullRequest::default() };
    let Err(error) = lab.engine.image_pull(request).await else { panic!("it was pulled") };
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(error.message.contains(&format!("127.0.0.1:{port}")), "{}", error.message);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_ends_its_pull() {
    let lab = Lab::new().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let request = PullRequest { image: format!("{address}/a"), tag: "1".into(), ..PullRequest::default() };
    let engine = lab.engine.clone();
    let pull = tokio::spawn(async move { engine.image_pull(request).await.map(drop) });
    // A registry that takes the connection and says nothing.
    let accepted = tokio::task::spawn_blocking(move || listener.accept().unwrap().0).await.unwrap();
    pull.abort();
    let closed = tokio::task::spawn_blocking(move || {
        let mut accepted = accepted;
        accepted.set_read_timeout(Some(lab::PATIENCE)).unwrap();
        // What was asked, and then the end.
        accepted.read_to_end(&mut Vec::new())
    });
    let closed = closed.await.unwrap();
    assert!(
        closed.as_ref().err().is_none_or(|error| error.kind() == std::io::ErrorKind::ConnectionReset),
        "the connection stays: {closed:?}"
    );
    lab.close().await;
}
