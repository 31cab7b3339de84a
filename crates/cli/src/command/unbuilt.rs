//! Commands of docker that Ponton does not have: each says so, instead of being unknown.

/// The words of a command, and what it is for. More words than these fit too.
pub(super) const UNBUILT: &[(&[&str], &str)] = &[
    (&["build"], "building images"),
    (&["builder"], "building images"),
    (&["buildx"], "building images"),
    (&["image", "build"], "building images"),
    (&["compose"], "compose; docker-compose works with Ponton's socket"),
    (&["network", "connect"], "networks of users"),
    (&["network", "create"], "networks of users"),
    (&["network", "disconnect"], "networks of users"),
    (&["network", "prune"], "networks of users"),
    (&["network", "remove"], "networks of users"),
    (&["network", "rm"], "networks of users"),
    (&["volume", "update"], "volumes of a cluster, in swarm mode"),
    (&["plugin"], "plugins"),
    (&["trust"], "content trust; Docker has retired it"),
    (&["config"], "swarm mode"),
    (&["node"], "swarm mode"),
    (&["secret"], "swarm mode"),
    (&["service"], "swarm mode"),
    (&["stack"], "swarm mode"),
    (&["swarm"], "swarm mode"),
];

/// What is said when `words` name one of them.
pub(super) fn refusal(words: &[String]) -> Option<String> {
    let named = |fixed: &[&str]| fixed.len() <= words.len() && fixed.iter().zip(words).all(|(a, b)| a == b);
    let (_, what) = UNBUILT.iter().find(|(fixed, _)| named(fixed))?;
    let shown: Vec<&str> =
        words.iter().map(String::as_str).take(2).take_while(|word| !word.starts_with('-')).collect();
    Some(format!("ponton: 'ponton {}' is not implemented: {what}", shown.join(" ")))
}
