//! What a request says of a container's place in a network.

use serde_json::{Value, json};

use super::Expected::{Ours, Same};
use super::Look::{Inspect, Refused, Running};
use super::{Row, row};

/// What the engine fills in itself when the container starts.
fn own(field: &'static str, asked: impl Into<Value>) -> Row {
    let member = field.rsplit('.').next().expect("a name");
    row(field, endpoint(json!({member: asked.into()})), Running(member), Same)
}

fn endpoint(settings: Value) -> Value {
    json!({"HostConfig": {"NetworkMode": "bridge"}, "NetworkingConfig": {"EndpointsConfig": {"bridge": settings}}})
}

pub(super) fn rows() -> Vec<Row> {
    let address = |name: &str, address: &str| endpoint(json!({"IPAMConfig": {name: address}}));
    vec![
        row(
            "NetworkingConfig.EndpointsConfig{}.IPAMConfig",
            endpoint(json!({"IPAMConfig": {}})),
            Inspect("/HostConfig/NetworkMode"),
            Same,
        ),
        row(
            "NetworkingConfig.EndpointsConfig{}.IPAMConfig.IPv4Address",
            address("IPv4Address", "192.0.2.9"),
            Refused,
            Same,
        ),
        row(
            "NetworkingConfig.EndpointsConfig{}.IPAMConfig.IPv6Address",
            address("IPv6Address", "2001:db8::9"),
            Refused,
            Same,
        ),
        row(
            "NetworkingConfig.EndpointsConfig{}.IPAMConfig.LinkLocalIPs",
            endpoint(json!({"IPAMConfig": {"LinkLocalIPs": ["169.254.9.9"]}})),
            Refused,
            Ours("501 NetworkingConfig.EndpointsConfig.bridge.IPAMConfig.LinkLocalIPs is not implemented"),
        ),
        row(
            "NetworkingConfig.EndpointsConfig{}.Links",
            endpoint(json!({"Links": ["linked:db"]})),
            Refused,
            Ours("501 NetworkingConfig.EndpointsConfig.bridge.Links is not implemented"),
        ),
        row(
            "NetworkingConfig.EndpointsConfig{}.Aliases",
            endpoint(json!({"Aliases": ["other"]})),
            Refused,
            Same,
        ),
        row(
            "NetworkingConfig.EndpointsConfig{}.DriverOpts",
            endpoint(json!({"DriverOpts": {"a": "b"}})),
            Refused,
            Ours("501 NetworkingConfig.EndpointsConfig.bridge.DriverOpts is not implemented"),
        ),
        own("NetworkingConfig.EndpointsConfig{}.NetworkID", "0123456789ab"),
        own("NetworkingConfig.EndpointsConfig{}.EndpointID", "0123456789ab"),
        own("NetworkingConfig.EndpointsConfig{}.Gateway", "192.0.2.1"),
        own("NetworkingConfig.EndpointsConfig{}.IPAddress", "192.0.2.9"),
        own("NetworkingConfig.EndpointsConfig{}.IPPrefixLen", 24),
        own("NetworkingConfig.EndpointsConfig{}.IPv6Gateway", "2001:db8::1"),
        own("NetworkingConfig.EndpointsConfig{}.GlobalIPv6Address", "2001:db8::9"),
        own("NetworkingConfig.EndpointsConfig{}.GlobalIPv6PrefixLen", 64),
        row(
            "NetworkingConfig.EndpointsConfig{}.GwPriority",
            endpoint(json!({"GwPriority": 7})),
            Inspect("/NetworkSettings/Networks/bridge/GwPriority"),
            Ours("7"),
        ),
        row(
            "NetworkingConfig.EndpointsConfig{}.DNSNames",
            endpoint(json!({"DNSNames": ["other"]})),
            Running("DNSNames"),
            Ours("its own"),
        ),
    ]
}
