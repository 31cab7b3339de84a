//! What of the host's hardware is given to a container as a whole: network devices
//! (config-linux.md, "Network Devices") and classes of cache and memory bandwidth ("IntelRdt").

use ponton_oci::runtime::{IntelRdt, Linux, NamespaceType};
use serde::{Deserialize, Serialize};

use super::PlanError;

/// A network device that is moved into the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetDevicePlan {
    /// Its name on the host.
    pub host: String,
    /// Its name in the container; the kernel puts the first free number for `%d`.
    pub name: String,
}

/// The class of the container in the resctrl file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdtPlan {
    /// The class's directory, or that of the container's id.
    pub class: String,
    /// The class is the container's own: it is made for it and removed with it.
    pub is_own: bool,
    /// The class must be there already.
    pub must_exist: bool,
    /// The lines of its schemata file, each whole.
    pub schemata: Vec<String>,
    /// The container gets a monitoring group of this name in the class.
    pub monitor: Option<String>,
}

/// The kernel's `IFNAMSIZ` less the null byte.
const NAME_MAX: usize = 15;

pub(super) fn net_devices(linux: &Linux) -> Result<Vec<NetDevicePlan>, PlanError> {
    if linux.net_devices.is_empty() {
        return Ok(Vec::new());
    }
    let has_own = linux.namespaces.iter().any(|namespace| namespace.r#type == NamespaceType::Network);
    if !has_own {
        return Err(PlanError::invalid("linux.netDevices", "needs a network namespace"));
    }
    let mut devices: Vec<NetDevicePlan> = Vec::new();
    for (host, device) in &linux.net_devices {
        let field = format!("linux.netDevices[{host}]");
        let name = device.name.as_ref().filter(|name| !name.is_empty()).unwrap_or(host);
        if !is_name(host) || host.contains('%') {
            return Err(PlanError::invalid(field, "is no name of a network device"));
        }
        let is_template = name.strip_suffix("%d").is_some_and(|prefix| !prefix.contains('%'));
        if !is_name(name) || (name.contains('%') && !is_template) {
            let message = format!("{name:?} is no name of a network device");
            return Err(PlanError::invalid(format!("{field}.name"), message));
        }
        if !is_template && devices.iter().any(|other| other.name == *name) {
            return Err(PlanError::invalid(format!("{field}.name"), format!("a second {name:?}")));
        }
        devices.push(NetDevicePlan { host: host.clone(), name: name.clone() });
    }
    Ok(devices)
}

fn is_name(name: &str) -> bool {
    let is_fine = |byte: u8| !byte.is_ascii_whitespace() && !matches!(byte, b'/' | b':' | 0);
    (1..=NAME_MAX).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(is_fine)
}

pub(super) fn rdt(spec: &IntelRdt, id: &str) -> Result<RdtPlan, PlanError> {
    let invalid = |field: &str, message: &str| PlanError::invalid(format!("linux.intelRdt.{field}"), message);
    let class = if spec.clos_id.is_empty() { id } else { &spec.clos_id };
    if class == "." || class == ".." || class.contains(['/', '\n', '\0']) {
        return Err(invalid("closID", "is no name of a directory"));
    }
    let mut schemata = Vec::new();
    for line in spec.l3_cache_schema.lines() {
        // The line of the memory's bandwidth is that of its own field.
        if !line.trim_start().starts_with("MB:") {
            schemata.push(line.to_owned());
        }
    }
    if !spec.mem_bw_schema.is_empty() {
        if !spec.mem_bw_schema.starts_with("MB:") || spec.mem_bw_schema.contains('\n') {
            return Err(invalid("memBwSchema", "must be one line that starts with MB:"));
        }
        schemata.push(spec.mem_bw_schema.clone());
    }
    if spec.schemata.iter().any(|line| line.contains('\n')) {
        return Err(invalid("schemata", "a line contains a newline"));
    }
    schemata.extend(spec.schemata.iter().filter(|line| !line.is_empty()).cloned());
    let monitors = spec.enable_monitoring || spec.enable_cmt || spec.enable_mbm;
    Ok(RdtPlan {
        class: class.to_owned(),
        is_own: spec.clos_id.is_empty(),
        must_exist: !spec.clos_id.is_empty() && schemata.is_empty(),
        schemata,
        monitor: monitors.then(|| id.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use ponton_oci::runtime::{Namespace, NetDevice};

    use super::*;

    fn devices(host: &str, name: Option<&str>, own_namespace: bool) -> Result<Vec<NetDevicePlan>, PlanError> {
        let device = NetDevice { name: name.map(String::from) };
        let network = Namespace { r#type: NamespaceType::Network, path: None };
        net_devices(&Linux {
            net_devices: [(host.to_owned(), device)].into(),
            namespaces: own_namespace.then_some(network).into_iter().collect(),
            ..Linux::default()
        })
    }

    #[test]
    fn a_device_keeps_its_name_or_gets_one() {
        assert_eq!(devices("eth1", None, true).unwrap()[0].name, "eth1");
        assert_eq!(devices("eth1", Some("lan%d"), true).unwrap()[0].name, "lan%d");
        for (host, name) in
            [("eth1", "a/b"), ("eth1", "longer-than-15-b"), ("eth1", "%dx"), ("eth1", "%s%d"), ("..", "eth0")]
        {
            assert!(devices(host, Some(name), true).is_err(), "{host} {name}");
        }
        let error = devices("eth1", None, false).unwrap_err().to_string();
        assert_eq!(error, "linux.netDevices: needs a network namespace");
    }

    #[test]
    fn schemata_are_put_together_as_the_specification_says() {
        let spec = IntelRdt {
            l3_cache_schema: "L3:0=f\nMB:0=10".into(),
            mem_bw_schema: "MB:0=20".into(),
            schemata: vec!["L2:0=3".into()],
            ..IntelRdt::default()
        };
        let plan = rdt(&spec, "c1").unwrap();
        assert_eq!(plan.schemata, ["L3:0=f", "MB:0=20", "L2:0=3"]);
        assert_eq!((plan.class.as_str(), plan.must_exist, plan.monitor), ("c1", false, None));
        let spec = IntelRdt { clos_id: "gold".into(), enable_monitoring: true, ..IntelRdt::default() };
        let plan = rdt(&spec, "c1").unwrap();
        assert_eq!((plan.class.as_str(), plan.must_exist), ("gold", true));
        assert_eq!(plan.monitor.as_deref(), Some("c1"));
        for clos_id in ["..", "a/b"] {
            let error = rdt(&IntelRdt { clos_id: clos_id.into(), ..IntelRdt::default() }, "c1").unwrap_err();
            assert_eq!(error.to_string(), "linux.intelRdt.closID: is no name of a directory");
        }
        let spec = IntelRdt { mem_bw_schema: "L3:0=f".into(), ..IntelRdt::default() };
        assert!(rdt(&spec, "c1").unwrap_err().to_string().starts_with("linux.intelRdt.memBwSchema"));
    }
}
