//! The server's tables of routes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::definition::Endpoint;

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    method: String,
    pattern: String,
    /// What its handler says instead of doing something.
    pub(super) unbuilt: Option<String>,
}

/// The routes, in the order of their files' names and lines.
pub(super) fn read(directory: &Path) -> Vec<Route> {
    let mut files: Vec<_> =
        fs::read_dir(directory).expect("routes").flatten().map(|entry| entry.path()).collect();
    files.sort();
    let texts: Vec<String> = files.iter().map(|file| fs::read_to_string(file).expect("routes")).collect();
    let refusals: BTreeMap<String, String> = texts.iter().flat_map(|text| refusals(text)).collect();
    texts
        .iter()
        .flat_map(|text| routes(text))
        .map(|(method, pattern, handler)| Route { method, pattern, unbuilt: refusals.get(&handler).cloned() })
        .collect()
}

/// `name "what is missing";` inside of `unbuilt! { … }`.
fn refusals(text: &str) -> Vec<(String, String)> {
    let Some((_, rest)) = text.split_once("\nunbuilt! {") else { return Vec::new() };
    let table = rest.split_once("\n}").map_or(rest, |(table, _)| table);
    table
        .lines()
        .filter_map(|line| {
            let (name, what) = line.trim().split_once(' ')?;
            Some((name.to_owned(), what.trim_matches(['"', ';']).to_owned()))
        })
        .collect()
}

/// `METHOD "pattern" => handler,` inside of `routes! { … }`.
fn routes(text: &str) -> Vec<(String, String, String)> {
    let Some((_, rest)) = text.split_once("\nroutes! {") else { return Vec::new() };
    let table = rest.split_once("\n}").map_or(rest, |(table, _)| table);
    table
        .lines()
        .filter_map(|line| {
            let (left, handler) = line.trim().split_once(" => ")?;
            let (method, pattern) = left.split_once(' ')?;
            Some((
                method.to_owned(),
                pattern.trim_matches('"').replace("{name*}", "{name}"),
                handler.trim_end_matches(',').to_owned(),
            ))
        })
        .collect()
}

/// The route of an endpoint: that which names it, or else one with a name in the place of a word.
pub(super) fn find<'a>(routes: &'a [Route], endpoint: &Endpoint) -> Option<&'a Route> {
    let named = |text: &str| -> Vec<String> {
        let part = |part: &str| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() };
        text.split('/').map(part).collect()
    };
    let wanted = named(&endpoint.path);
    let of_method = || routes.iter().filter(|route| route.method == endpoint.method);
    of_method().find(|route| named(&route.pattern) == wanted).or_else(|| {
        of_method().find(|route| {
            let pattern = named(&route.pattern);
            pattern.len() == wanted.len()
                && pattern.iter().zip(&wanted).all(|(ours, theirs)| ours == "{}" || ours == theirs)
        })
    })
}
