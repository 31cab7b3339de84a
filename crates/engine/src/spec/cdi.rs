//! Devices by the Container Device Interface: files of a vendor that say what a container needs for a device
//! (<https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>).
//!
//! `--device vendor.com/class=name` asks for one by its name; `--gpus` for those of `nvidia.com/gpu`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ponton_api::container::DeviceRequest;
use ponton_oci::runtime::{
    Device, DeviceRule, DeviceType, Hook, Hooks, IntelRdt, Linux, Mount, NetDevice, Spec,
};
use serde::Deserialize;
use yaml_rust2::{Yaml, YamlLoader};

use super::device;
use crate::error::{Error, Result};

/// The largest file that is read, in bytes.
const FILE_MAX: u64 = 4 << 20;
/// The kind of the devices that `--gpus` means.
const GPU: &str = "nvidia.com/gpu";

/// One file of a vendor.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    kind: String,
    devices: Vec<NamedDevice>,
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NamedDevice {
    name: String,
    container_edits: Edits,
}

/// What is changed in a container's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    net_devices: Vec<NetNode>,
    hooks: Vec<NamedHook>,
    mounts: Vec<MountEdit>,
    intel_rdt: Option<IntelRdt>,
    additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    path: String,
    host_path: String,
    r#type: String,
    major: i64,
    minor: i64,
    file_mode: Option<u32>,
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NetNode {
    host_interface_name: String,
    name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NamedHook {
    hook_name: String,
    #[serde(flatten)]
    hook: Hook,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MountEdit {
    host_path: String,
    container_path: String,
    options: Vec<String>,
    r#type: String,
}

/// The devices that a host's files tell of.
#[derive(Debug, Default)]
pub struct Registry {
    files: Vec<File>,
    /// `vendor.com/class=name` to the file and the device in it; none where two files of one directory say
    /// different things.
    devices: BTreeMap<String, Option<(usize, usize)>>,
}

impl Registry {
    /// Reads the files of these directories; a later directory goes before an earlier one. A file that cannot
    /// be understood is passed over, with a word in the log.
    pub fn read(directories: &[PathBuf]) -> Self {
        let mut registry = Self::default();
        for directory in directories {
            let mut here = BTreeMap::new();
            for path in files_of(directory) {
                match parse(&path) {
                    Ok(file) => registry.add(file, &mut here),
                    Err(error) => tracing::warn!(error, path = %path.display(), "read a CDI file"),
                }
            }
            registry.devices.extend(here);
        }
        registry
    }

    fn add(&mut self, file: File, here: &mut BTreeMap<String, Option<(usize, usize)>>) {
        let number = self.files.len();
        for (index, device) in file.devices.iter().enumerate() {
            let name = format!("{}={}", file.kind, device.name);
            here.entry(name).and_modify(|known| *known = None).or_insert(Some((number, index)));
        }
        self.files.push(file);
    }

    /// The names of all devices.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.devices.iter().filter(|(_, at)| at.is_some()).map(|(name, _)| name.as_str())
    }

    /// Changes a spec so that the container has the devices that are asked for.
    pub fn carry_out(&self, requests: &[DeviceRequest], spec: &mut Spec) -> Result<()> {
        for request in requests {
            let names = self.wanted(request)?;
            self.inject(&names, spec)?;
        }
        Ok(())
    }

    /// The names of the devices that a request means.
    fn wanted(&self, request: &DeviceRequest) -> Result<Vec<String>> {
        let ids = request.device_ids.clone().unwrap_or_default();
        if request.driver == "cdi" {
            if request.count != 0 {
                return Err(Error::invalid("unexpected count in CDI device request"));
            }
            if request.options.as_ref().is_some_and(|options| !options.is_empty()) {
                return Err(Error::invalid("unexpected options in CDI device request"));
            }
            return Ok(ids);
        }
        let is_gpu = |set: &Vec<String>| set.iter().any(|name| matches!(name.as_str(), "gpu" | "nvidia"));
        let gpus = request.capabilities.iter().flatten().any(is_gpu);
        let known = self.names().any(|name| name.starts_with(GPU));
        if !known || !(request.driver == "nvidia" || request.driver.is_empty() && gpus) {
            let sets: Vec<String> =
                request.capabilities.iter().flatten().map(|set| format!("[{}]", set.join(" "))).collect();
            let sets = sets.join(" ");
            let driver = &request.driver;
            return Err(Error::internal(format!(
                "could not select device driver {driver:?} with capabilities: [{sets}]"
            )));
        }
        let ids: Vec<String> = match (ids.is_empty(), request.count) {
            (false, 0) => ids,
            (false, _) => {
                return Err(Error::invalid("cannot set both Count and DeviceIDs on device request"));
            }
            (true, count) if count < 0 => vec!["all".to_owned()],
            (true, count) => (0..count).map(|number| number.to_string()).collect(),
        };
        Ok(ids.into_iter().map(|id| format!("{GPU}={id}")).collect())
    }

    fn inject(&self, names: &[String], spec: &mut Spec) -> Result<()> {
        let unresolvable: Vec<&str> = names
            .iter()
            .filter(|name| !matches!(self.devices.get(*name), Some(Some(_))))
            .map(String::as_str)
            .collect();
        if !unresolvable.is_empty() {
            return Err(Error::invalid(format!(
                "CDI device injection failed: unresolvable CDI devices {}",
                unresolvable.join(", ")
            )));
        }
        let mut seen = Vec::new();
        for (number, index) in names.iter().filter_map(|name| self.devices.get(name).copied().flatten()) {
            let file = &self.files[number];
            if !seen.contains(&number) {
                seen.push(number);
                apply(&file.container_edits, spec)?;
            }
            apply(&file.devices[index].container_edits, spec)?;
        }
        Ok(())
    }
}

fn files_of(directory: &Path) -> Vec<PathBuf> {
    // A directory that is not there has no files.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_spec = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| ["json", "yaml", "yml"].iter().any(|known| extension == *known))
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_spec).collect();
    files.sort();
    files
}

fn parse(path: &Path) -> Result<File, String> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_MAX).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    let file: File = if path.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_str(&text).map_err(|error| error.to_string())?
    } else {
        let documents = YamlLoader::load_from_str(&text).map_err(|error| error.to_string())?;
        let document = documents.first().ok_or("it is empty")?;
        serde_json::from_value(as_json(document)).map_err(|error| error.to_string())?
    };
    if file.kind.split_once('/').is_none_or(|(vendor, class)| vendor.is_empty() || class.is_empty()) {
        return Err(format!("invalid kind {:?}", file.kind));
    }
    Ok(file)
}

/// A YAML document as the JSON that it stands for.
fn as_json(yaml: &Yaml) -> serde_json::Value {
    use serde_json::Value;
    match yaml {
        Yaml::Real(text) => text.parse().map_or(Value::Null, Value::Number),
        Yaml::Integer(number) => Value::from(*number),
        Yaml::String(text) => Value::from(text.as_str()),
        Yaml::Boolean(value) => Value::from(*value),
        Yaml::Array(items) => items.iter().map(as_json).collect(),
        Yaml::Hash(members) => members
            .iter()
            .filter_map(|(key, value)| Some((key.as_str()?.to_owned(), as_json(value))))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Yaml::Alias(_) | Yaml::Null | Yaml::BadValue => Value::Null,
    }
}

fn apply(edits: &Edits, spec: &mut Spec) -> Result<()> {
    let user = spec.process.as_ref().map_or((0, 0), |process| (process.user.uid, process.user.gid));
    let linux = spec.linux.get_or_insert_with(Linux::default);
    for node in &edits.device_nodes {
        add_node(node, user, linux)?;
    }
    for device in &edits.net_devices {
        let name = device.name.clone();
        linux.net_devices.insert(device.host_interface_name.clone(), NetDevice { name: Some(name) });
    }
    if let Some(rdt) = &edits.intel_rdt {
        linux.intel_rdt = Some(rdt.clone());
    }
    if let Some(process) = &mut spec.process {
        for variable in &edits.env {
            let name = variable.split('=').next().unwrap_or_default();
            process.env.retain(|known| known.split('=').next() != Some(name));
            process.env.push(variable.clone());
        }
        for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
            if !process.user.additional_gids.contains(gid) {
                process.user.additional_gids.push(*gid);
            }
        }
    }
    for mount in &edits.mounts {
        spec.mounts.retain(|known| known.destination != mount.container_path);
        spec.mounts.push(Mount {
            destination: mount.container_path.clone(),
            source: mount.host_path.clone(),
            r#type: if mount.r#type.is_empty() { "bind".to_owned() } else { mount.r#type.clone() },
            options: mount.options.clone(),
            ..Mount::default()
        });
    }
    for NamedHook { hook_name, hook } in &edits.hooks {
        add_hook(hook_name, hook, spec.hooks.get_or_insert_with(Hooks::default))?;
    }
    Ok(())
}

fn add_node(node: &Node, (uid, gid): (u32, u32), linux: &mut Linux) -> Result<()> {
    let path = if node.host_path.is_empty() { &node.path } else { &node.host_path };
    let found = device::read(Path::new(path), &node.path)
        .map_err(|error| Error::invalid(format!("CDI device injection failed: device {path}: {error}")))?;
    let (r#type, major, minor) = match (node.r#type.as_str(), &found) {
        ("b", _) if node.major != 0 || node.minor != 0 => (DeviceType::B, node.major, node.minor),
        ("c" | "u", _) if node.major != 0 || node.minor != 0 => (DeviceType::C, node.major, node.minor),
        (_, Some(device)) => (device.r#type, device.major, device.minor),
        (_, None) => {
            return Err(Error::invalid(format!("CDI device injection failed: {path} is no device node")));
        }
    };
    let or_user = |given: Option<u32>, own: u32| given.or_else(|| (own > 0).then_some(own));
    linux.devices.retain(|known| known.path != node.path);
    linux.devices.push(Device {
        path: node.path.clone(),
        r#type,
        major,
        minor,
        file_mode: node.file_mode.or_else(|| found.and_then(|device| device.file_mode)),
        uid: or_user(node.uid, uid),
        gid: or_user(node.gid, gid),
    });
    let access = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
    let rule =
        DeviceRule { allow: true, r#type, major: Some(major), minor: Some(minor), access: access.to_owned() };
    linux.resources.get_or_insert_default().devices.push(rule);
    Ok(())
}

fn add_hook(name: &str, hook: &Hook, hooks: &mut Hooks) -> Result<()> {
    let list = match name {
        "prestart" => &mut hooks.prestart,
        "createRuntime" => &mut hooks.create_runtime,
        "createContainer" => &mut hooks.create_container,
        "startContainer" => &mut hooks.start_container,
        "poststart" => &mut hooks.poststart,
        "poststop" => &mut hooks.poststop,
        other => {
            return Err(Error::invalid(format!("CDI device injection failed: unknown hook name {other:?}")));
        }
    };
    list.push(hook.clone());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"cdiVersion": "0.6.0", "kind": "vendor.com/net",
        "containerEdits": {"env": ["ALL=1"]},
        "devices": [{"name": "a", "containerEdits": {
            "deviceNodes": [{"path": "/dev/own-null", "hostPath": "/dev/null", "permissions": "rw"}],
            "mounts": [{"hostPath": "/h", "containerPath": "/c", "options": ["ro", "rbind"]}],
            "hooks": [{"hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "x"]}],
            "additionalGids": [7]}},
          {"name": "b", "containerEdits": {"env": ["B=2"]}}]}"#;
    const YAML: &str = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits:\n    \
                        env:\n    - GPU=0\n- name: all\n  containerEdits:\n    env: [GPU=all]\n";

    fn registry(files: &[(&str, &str)]) -> (tempfile::TempDir, Registry) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let registry = Registry::read(&[directory.path().to_owned(), "/nosuch".into()]);
        (directory, registry)
    }

    fn request(driver: &str, ids: &[&str]) -> DeviceRequest {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        DeviceRequest { driver: driver.to_owned(), device_ids: Some(ids), ..DeviceRequest::default() }
    }

    fn env(registry: &Registry, request: &DeviceRequest) -> Result<Vec<String>> {
        let mut spec = Spec { process: Some(ponton_oci::runtime::Process::default()), ..Spec::default() };
        registry.carry_out(std::slice::from_ref(request), &mut spec)?;
        Ok(spec.process.unwrap().env)
    }

    #[test]
    fn devices_are_added_by_their_names() {
        let (_directory, registry) = registry(&[("a.json", JSON), ("broken.json", "{"), ("gpu.yaml", YAML)]);
        let names: Vec<&str> = registry.names().collect();
        assert_eq!(names, ["nvidia.com/gpu=0", "nvidia.com/gpu=all", "vendor.com/net=a", "vendor.com/net=b"]);
        let mut spec = Spec { process: Some(ponton_oci::runtime::Process::default()), ..Spec::default() };
        let both = request("cdi", &["vendor.com/net=a", "vendor.com/net=b"]);
        registry.carry_out(&[both], &mut spec).unwrap();
        let process = spec.process.as_ref().unwrap();
        assert_eq!(
            (process.env.as_slice(), process.user.additional_gids.as_slice()),
            (["ALL=1".to_owned(), "B=2".to_owned()].as_slice(), [7].as_slice())
        );
        let linux = spec.linux.as_ref().unwrap();
        assert_eq!((linux.devices[0].path.as_str(), linux.devices[0].minor), ("/dev/own-null", 3));
        assert_eq!(linux.resources.as_ref().unwrap().devices[0].access, "rw");
        assert_eq!((spec.mounts[0].source.as_str(), spec.mounts[0].r#type.as_str()), ("/h", "bind"));
        assert_eq!(spec.hooks.unwrap().create_container[0].args, ["hook", "x"]);
    }

    #[test]
    fn gpus_are_nvidias() {
        let (_directory, registry) = registry(&[("gpu.yaml", YAML)]);
        let gpus = |driver: &str, count, ids: &[&str]| {
            let capabilities = Some(vec![vec!["gpu".to_owned()]]);
            env(&registry, &DeviceRequest { count, capabilities, ..request(driver, ids) })
                .map_err(|error| error.message)
        };
        assert_eq!(gpus("", -1, &[]).unwrap(), ["GPU=all"]);
        assert_eq!(gpus("nvidia", 1, &[]).unwrap(), ["GPU=0"]);
        assert_eq!(gpus("", 0, &["0"]).unwrap(), ["GPU=0"]);
        assert_eq!(
            gpus("", 2, &[]).unwrap_err(),
            "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=1"
        );
        assert_eq!(
            gpus("amd", -1, &[]).unwrap_err(),
            "could not select device driver \"amd\" with capabilities: [[gpu]]"
        );
    }

    #[test]
    fn what_is_not_there_is_said_as_docker_says_it() {
        let (_directory, registry) = registry(&[("a.json", JSON), ("b.json", JSON)]);
        assert_eq!(registry.names().count(), 0, "two files of one directory say different things");
        let unknown = request("cdi", &["vendor.com/net=a", "x/y=z"]);
        assert_eq!(
            env(&registry, &unknown).unwrap_err().message,
            "CDI device injection failed: unresolvable CDI devices vendor.com/net=a, x/y=z"
        );
        let counted = DeviceRequest { count: 1, ..request("cdi", &[]) };
        assert_eq!(env(&registry, &counted).unwrap_err().message, "unexpected count in CDI device request");
        let gpus = DeviceRequest {
            count: -1,
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            ..DeviceRequest::default()
        };
        assert_eq!(
            env(&registry, &gpus).unwrap_err().message,
            "could not select device driver \"\" with capabilities: [[gpu]]"
        );
    }
}
