//! `-p [[ip:]host:]container[/protocol]` with ranges, and `--expose`.

use ponton_api::container::{PortBinding, PortMap, PortSet};

use super::member;
use crate::error::Error;

/// The ports of the flags: exposed ones, and bindings.
pub(super) fn ports(publish: &[String], expose: &[String]) -> Result<(PortSet, PortMap), Error> {
    let mut exposed = PortSet::new();
    let mut bindings = PortMap::new();
    for text in publish {
        let text = if text.contains('=') { long_form(text)? } else { text.clone() };
        for (port, binding) in short_form(&text)? {
            exposed.extend([member(port.clone())]);
            bindings.entry(port).or_default().get_or_insert_default().push(binding);
        }
    }
    for text in expose {
        if text.contains(':') {
            return Err(Error::invalid(format!("invalid port format for --expose: {text}")));
        }
        let (range, protocol) = split_protocol(text);
        let (first, last) = parse_range(range).ok_or_else(|| {
            let reason = format!("strconv.ParseUint: parsing {range:?}: invalid syntax");
            Error::invalid(format!("invalid range format for --expose: {text}, error: {reason}"))
        })?;
        exposed.extend((first..=last).map(|port| member(format!("{port}/{protocol}"))));
    }
    Ok((exposed, bindings))
}

/// `target=80,published=8080,protocol=tcp` in the short form.
fn long_form(text: &str) -> Result<String, Error> {
    let (mut target, mut published, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("target", value)) => target = value,
            Some(("published", value)) => published = value,
            Some(("protocol", value)) => protocol = value,
            Some(("mode", "host" | "ingress")) => {}
            Some((key, _)) => return Err(Error::invalid(format!("invalid field key {key}"))),
            None => return Err(Error::invalid(format!("invalid field {field}"))),
        }
    }
    if target.is_empty() {
        return Err(Error::invalid("missing mandatory field \"target\""));
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

fn short_form(text: &str) -> Result<Vec<(String, PortBinding)>, Error> {
    let (address, host, container) = split_parts(text)?;
    let (container, protocol) = split_protocol(container);
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::invalid(format!("invalid proto: {protocol}")));
    }
    if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() {
        return Err(Error::invalid(format!("invalid IP address: {address}")));
    }
    if container.is_empty() {
        return Err(Error::invalid(format!("no port specified: {text}<empty>")));
    }
    let (first, last) = parse_range(container)
        .ok_or_else(|| Error::invalid(format!("invalid containerPort: {container}")))?;
    let host_range = match host {
        "" => None,
        host => Some(parse_range(host).ok_or_else(|| Error::invalid(format!("invalid hostPort: {host}")))?),
    };
    if let Some((host_first, host_last)) = host_range
        && host_last - host_first != last - first
        && first != last
    {
        return Err(Error::invalid(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        )));
    }
    let binding = |index: u16| {
        let host_port = match host_range {
            None => String::new(),
            // One container port takes the first free port of a host range.
            Some((low, high)) if first == last && low != high => format!("{low}-{high}"),
            Some((low, _)) => (low + index).to_string(),
        };
        PortBinding { host_ip: address.to_owned(), host_port }
    };
    Ok((first..=last).map(|port| (format!("{port}/{protocol}"), binding(port - first))).collect())
}

/// Address, host ports, container ports; an IPv6 address stands in brackets.
fn split_parts(text: &str) -> Result<(&str, &str, &str), Error> {
    let (rest, container) = text.rsplit_once(':').unwrap_or(("", text));
    if let Some(bracketed) = rest.strip_prefix('[') {
        return match bracketed.split_once(']') {
            Some((address, host)) => Ok((address, host.strip_prefix(':').unwrap_or(host), container)),
            None => Err(Error::invalid(format!("invalid IP address: {rest}"))),
        };
    }
    let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    Ok((address, host, container))
}

fn split_protocol(text: &str) -> (&str, &str) {
    text.split_once('/').unwrap_or((text, "tcp"))
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last > 0).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binds(text: &str) -> Vec<String> {
        let (_, bindings) = ports(&[text.to_owned()], &[]).unwrap();
        let mut lines = Vec::new();
        for (port, bindings) in bindings {
            for binding in bindings.unwrap() {
                lines.push(format!("{}|{}|{port}", binding.host_ip, binding.host_port));
            }
        }
        lines
    }

    #[test]
    fn forms() {
        assert_eq!(binds("80"), ["||80/tcp"]);
        assert_eq!(binds("8080:80"), ["|8080|80/tcp"]);
        assert_eq!(binds("53:53/udp"), ["|53|53/udp"]);
        assert_eq!(binds("127.0.0.1::80"), ["127.0.0.1||80/tcp"]);
        assert_eq!(binds("127.0.0.1:8080:80"), ["127.0.0.1|8080|80/tcp"]);
        assert_eq!(binds("[::1]:8080:80"), ["::1|8080|80/tcp"]);
        assert_eq!(binds("8080-8081:80-81/tcp"), ["|8080|80/tcp", "|8081|81/tcp"]);
        assert_eq!(binds("8080-8090:80"), ["|8080-8090|80/tcp"]);
        assert_eq!(binds("target=80,published=8080"), ["|8080|80/tcp"]);
    }

    #[test]
    fn refusals() {
        for (text, message) in [
            ("abc", "invalid containerPort: abc"),
            ("abc:80", "invalid hostPort: abc"),
            ("70000:80", "invalid hostPort: 70000"),
            ("80:80/xyz", "invalid proto: xyz"),
            ("999.1.1.1:80:80", "invalid IP address: 999.1.1.1"),
            ("1-3:80-81", "invalid ranges specified for container and host Ports: 80-81 and 1-3"),
        ] {
            assert_eq!(ports(&[text.to_owned()], &[]).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn expose() {
        let (exposed, bindings) = ports(&[], &["80".into(), "90-91/udp".into()]).unwrap();
        assert_eq!(exposed.keys().collect::<Vec<_>>(), ["80/tcp", "90/udp", "91/udp"]);
        assert!(bindings.is_empty());
    }
}
