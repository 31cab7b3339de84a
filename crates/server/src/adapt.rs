//! What differs between versions of the API: answers in the newest shape to those of older versions.
//!
//! The engine speaks one shape, which has every field of every version that is served; here fields
//! that a version doesn't have are dropped, and those that only old ones have are added. Where two
//! versions differ by a field more that old clients ignore, nothing is done.

use bytes::Bytes;
use hyper::Response;
use ponton_api::container::Stats;
use ponton_api::image::Summary;
use ponton_api::system::DiskUsage;
use ponton_api::version::ApiVersion;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::answer::{self, Body};

/// A value's JSON, changed.
pub(crate) fn value<T: Serialize>(value: &T, change: impl FnOnce(&mut Value)) -> Value {
    let mut value = serde_json::to_value(value).unwrap_or_default();
    change(&mut value);
    value
}

/// An answer of a value's JSON, changed.
pub(crate) fn ok<T: Serialize>(of: &T, change: impl FnOnce(&mut Value)) -> Response<Body> {
    answer::ok(&value(of, change))
}

const fn v(minor: u16) -> ApiVersion {
    ApiVersion::new(1, minor)
}

fn object<'a>(value: &'a mut Value, member: &str) -> Option<&'a mut Map<String, Value>> {
    value.get_mut(member)?.as_object_mut()
}

fn drop_members(of: Option<&mut Map<String, Value>>, names: &[&str]) {
    if let Some(members) = of {
        members.retain(|name, _| !names.contains(&name.as_str()));
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

fn drop_empty(of: Option<&mut Map<String, Value>>, names: &[&str]) {
    if let Some(members) = of {
        members.retain(|name, value| !(names.contains(&name.as_str()) && is_empty(value)));
    }
}

/// `GET /containers/{id}/json`.
pub(crate) fn container(value: &mut Value, version: ApiVersion) {
    const TOP_LEVEL_ADDRESSES: &[&str] = &[
        "Bridge",
        "HairpinMode",
        "LinkLocalIPv6Address",
        "LinkLocalIPv6PrefixLen",
        "SecondaryIPAddresses",
        "SecondaryIPv6Addresses",
        "EndpointID",
        "Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "MacAddress",
    ];
    if version >= v(52) {
        drop_members(object(value, "NetworkSettings"), TOP_LEVEL_ADDRESSES);
        drop_members(object(value, "HostConfig"), &["KernelMemoryTCP"]);
        drop_empty(object(value, "Config"), &["OnBuild"]);
    }
    if version < v(42)
        && let Some(host_config) = object(value, "HostConfig")
    {
        host_config.entry("KernelMemory").or_insert(json!(0));
        host_config.entry("KernelMemoryTCP").or_insert(json!(0));
    }
}

/// An item of `GET /images/json`: there may be thousands, so it is changed before it is JSON.
pub(crate) fn image_summary(image: &mut Summary, version: ApiVersion) {
    if version < v(44) {
        image.virtual_size = Some(image.size);
    }
    if version < v(51) {
        image.containers = -1;
    }
    if version < v(43) && image.repo_tags.is_empty() && image.repo_digests.is_empty() {
        image.repo_tags = vec!["<none>:<none>".into()];
        image.repo_digests = vec!["<none>@<none>".into()];
    }
}

/// `GET /images/{name}/json`.
pub(crate) fn image(value: &mut Value, version: ApiVersion) {
    const NOT_OF_IMAGES: &[&str] = &[
        "Hostname",
        "Domainname",
        "AttachStdin",
        "AttachStdout",
        "AttachStderr",
        "Tty",
        "OpenStdin",
        "StdinOnce",
        "Image",
        "NetworkDisabled",
        "MacAddress",
        "StopTimeout",
    ];
    const OF_IMAGES: &[&str] =
        &["Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "User", "Volumes", "WorkingDir"];
    if version >= v(50) {
        drop_members(object(value, "Config"), NOT_OF_IMAGES);
    }
    if version >= v(52) {
        drop_empty(object(value, "Config"), OF_IMAGES);
        drop_empty(value.as_object_mut(), &["Parent", "Comment", "DockerVersion", "Author"]);
    }
    let size = value.get("Size").cloned().unwrap_or_default();
    let Some(image) = value.as_object_mut() else { return };
    if version < v(48) {
        image.remove("Descriptor");
    }
    if version < v(44) {
        image.insert("VirtualSize".into(), size);
    }
    if version < v(45) {
        let config = ponton_api::container::Config::default();
        image.insert("Container".into(), json!(""));
        image.insert("ContainerConfig".into(), serde_json::to_value(config).unwrap_or_default());
    }
}

/// `GET /info`.
pub(crate) fn info(value: &mut Value, version: ApiVersion) {
    if version >= v(50) {
        drop_members(value.as_object_mut(), &["BridgeNfIptables", "BridgeNfIp6tables"]);
    }
    let expected = if version < v(49) { &["ContainerdCommit", "RuncCommit", "InitCommit"][..] } else { &[] };
    for name in expected {
        let id = value[*name]["ID"].clone();
        if let Some(commit) = object(value, name) {
            commit.insert("Expected".into(), id);
        }
    }
    if version < v(42) {
        let memory = value.get("MemoryLimit").cloned().unwrap_or_default();
        let v1 = value.get("CgroupVersion").is_some_and(|version| version == "1");
        if let Some(info) = value.as_object_mut().filter(|_| v1) {
            info.insert("KernelMemory".into(), memory.clone());
            info.insert("KernelMemoryTCP".into(), memory);
        }
    }
}

/// Whether this version has events without the deprecated doubles.
pub(crate) fn is_event_plain(version: ApiVersion) -> bool {
    version >= v(52)
}

/// An item of `GET /events`.
pub(crate) fn event(value: &mut Value, version: ApiVersion) {
    if is_event_plain(version) {
        drop_members(value.as_object_mut(), &["status", "id", "from"]);
    }
}

/// A sample of `GET /containers/{id}/stats`, as a line: there may be many of them, so it is printed as it is.
pub(crate) fn stats(sample: &Stats, version: ApiVersion) -> Bytes {
    let mut text = serde_json::to_vec(sample).unwrap_or_default();
    if version >= v(52) && text.pop() == Some(b'}') {
        text.extend_from_slice(br#","os_type":"linux"}"#);
    }
    text.push(b'\n');
    text.into()
}

/// `GET /system/df`: since 1.52 with sums by kind, and with lists only where `verbose` asks for them.
pub(crate) fn disk_usage(value: &mut Value, usage: &DiskUsage, version: ApiVersion, verbose: bool) {
    if let Some(mut images) = usage.images.clone() {
        for image in &mut images {
            // Here the count is computed for every version.
            let count = image.containers;
            image_summary(image, version);
            image.containers = count;
        }
        value["Images"] = json!(images);
    }
    if version < v(42) {
        value["BuilderSize"] = json!(0);
    }
    if version < v(52) {
        return;
    }
    let sums = usage_by_kind(usage);
    let Some(members) = value.as_object_mut() else { return };
    let lists = [("ImageUsage", "Images"), ("ContainerUsage", "Containers"), ("VolumeUsage", "Volumes")];
    for (name, mut sum) in sums {
        if verbose {
            let list = lists.iter().find(|(sum, _)| *sum == name).and_then(|(_, list)| members.get(*list));
            sum["Items"] = list.cloned().unwrap_or_else(|| json!([]));
        }
        members.insert(name.into(), sum);
    }
    if verbose {
        drop_members(Some(members), &["LayersSize", "Images", "Containers", "Volumes", "BuildCache"]);
    }
}

fn usage_by_kind(usage: &DiskUsage) -> Vec<(&'static str, Value)> {
    let sum = |active: usize, total: usize, size: i64, reclaimable: i64| json!({"ActiveCount": active, "TotalCount": total, "TotalSize": size, "Reclaimable": reclaimable});
    let mut sums = Vec::new();
    if let Some(images) = &usage.images {
        let used = images.iter().filter(|image| image.containers > 0);
        let used_size: i64 = used.clone().map(|image| image.size - image.shared_size.max(0)).sum();
        let size = usage.layers_size;
        sums.push(("ImageUsage", sum(used.count(), images.len(), size, (size - used_size).max(0))));
    }
    if let Some(containers) = &usage.containers {
        let size = |container: &ponton_api::container::Summary| container.size_rw.unwrap_or_default();
        let is_active = |container: &&ponton_api::container::Summary| {
            ["running", "paused", "restarting"].contains(&container.state.as_str())
        };
        let active = containers.iter().filter(is_active);
        let total: i64 = containers.iter().map(size).sum();
        let held: i64 = active.clone().map(size).sum();
        sums.push(("ContainerUsage", sum(active.count(), containers.len(), total, total - held)));
    }
    if let Some(volumes) = &usage.volumes {
        let data = |volume: &ponton_api::volume::Volume| volume.usage_data.clone().unwrap_or_default();
        let used = volumes.iter().map(data).filter(|data| data.ref_count > 0);
        let total: i64 = volumes.iter().map(|volume| data(volume).size.max(0)).sum();
        let held: i64 = used.clone().map(|data| data.size.max(0)).sum();
        sums.push(("VolumeUsage", sum(used.count(), volumes.len(), total, total - held)));
    }
    if usage.build_cache.is_some() {
        sums.push(("BuildCacheUsage", sum(0, 0, 0, 0)));
    }
    sums
}

#[cfg(test)]
mod tests {
    use ponton_api::{container, image, system};

    use super::*;

    #[test]
    fn containers_lose_their_top_level_address_in_1_52() {
        let shaped = |minor| value(&container::Inspect::default(), |value| super::container(value, v(minor)));
        assert_eq!(shaped(51)["NetworkSettings"]["IPAddress"], "");
        assert_eq!(shaped(52)["NetworkSettings"].get("IPAddress"), None);
        assert!(shaped(52)["NetworkSettings"].get("Ports").is_some());
        assert_eq!(shaped(41)["HostConfig"]["KernelMemory"], 0);
        assert_eq!(shaped(42)["HostConfig"].get("KernelMemory"), None);
    }

    #[test]
    fn images_change_with_the_version() {
        let summary = image::Summary { size: 7, containers: 2, ..image::Summary::default() };
        let shaped = |minor| {
            let mut summary = summary.clone();
            image_summary(&mut summary, v(minor));
            value(&summary, |_| {})
        };
        assert_eq!(shaped(43)["VirtualSize"], 7);
        assert_eq!(shaped(44).get("VirtualSize"), None);
        assert_eq!((&shaped(50)["Containers"], &shaped(51)["Containers"]), (&json!(-1), &json!(2)));
        assert_eq!(shaped(42)["RepoTags"], json!(["<none>:<none>"]));
        assert_eq!(shaped(43)["RepoTags"], json!([]));
        let shaped = |minor| value(&image::Inspect::default(), |value| super::image(value, v(minor)));
        assert_eq!(shaped(44)["ContainerConfig"]["Hostname"], "");
        assert_eq!(shaped(49)["Config"]["Hostname"], "");
        assert_eq!(shaped(50)["Config"].get("Hostname"), None);
        assert_eq!(shaped(51)["Config"]["Cmd"], Value::Null);
        assert_eq!(shaped(52)["Config"].get("Cmd"), None);
        assert_eq!(shaped(52).get("Parent"), None);
    }

    #[test]
    fn disk_usage_is_summed_since_1_52() {
        let usage = DiskUsage {
            layers_size: 100,
            images: Some(vec![
                image::Summary { size: 60, containers: 1, ..image::Summary::default() },
                image::Summary { size: 40, ..image::Summary::default() },
            ]),
            containers: Some(vec![
                container::Summary {
                    size_rw: Some(5),
                    state: "running".into(),
                    ..container::Summary::default()
                },
                container::Summary {
                    size_rw: Some(3),
                    state: "exited".into(),
                    ..container::Summary::default()
                },
            ]),
            volumes: Some(vec![]),
            build_cache: Some(vec![]),
            ..system::DiskUsage::default()
        };
        let shaped = |minor, verbose| value(&usage, |value| disk_usage(value, &usage, v(minor), verbose));
        let (old, new, verbose) = (shaped(41, false), shaped(52, false), shaped(53, true));
        assert_eq!((&old["BuilderSize"], old.get("ImageUsage")), (&json!(0), None));
        assert_eq!(old["Images"][0]["Containers"], 1);
        assert_eq!(
            new["ImageUsage"],
            json!({"ActiveCount": 1, "TotalCount": 2, "TotalSize": 100, "Reclaimable": 40})
        );
        assert_eq!(
            new["ContainerUsage"],
            json!({"ActiveCount": 1, "TotalCount": 2, "TotalSize": 8, "Reclaimable": 3})
        );
        assert_eq!(new["Images"].as_array().map(Vec::len), Some(2));
        assert_eq!(verbose.get("Images"), None);
        assert_eq!(verbose["ImageUsage"]["Items"].as_array().map(Vec::len), Some(2));
    }
}
