//! `docs/api.md`: every endpoint and every field of a request of Docker's Engine API, and what becomes of it here.
//!
//! ```text
//!   docs/api/engine-1.53.txt     what there is: the published definition, without its prose
//!   crates/server/src/route/     which endpoints there are, and which say 501
//!   crates/*/tests, src          the tests: which endpoint they call, with which parameters; rows of fields
//!   docs/api/status.txt          what can't be seen in them: `METHOD PATH [PLACE FIELD]: STATUS`
//!     ──► docs/api.md
//! ```
//!
//! Nothing is taken on trust: a test that is named must be there, and its file must mention the field. A field without
//! a status is an error. Of several tests that fit, the one that the page names already is kept.

mod definition;
mod route;
mod status;
mod tests_of;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use definition::{Endpoint, Field};
use status::{Status, Statuses};
use tests_of::Tests;

const PAGE: &str = "docs/api.md";

/// Writes the page; complains of what has no status.
pub(crate) fn run() -> ExitCode {
    let root = Path::new(".");
    let (page, complaints) = page(root);
    for (line, tests) in superfluous(root) {
        println!("api: status.txt: {line}: {} sends it", tests.join(", "));
    }
    for complaint in &complaints {
        eprintln!("api: {complaint}");
    }
    fs::write(root.join(PAGE), page).expect(PAGE);
    if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The lines "not tested" of what tests send, and these tests.
fn superfluous(root: &Path) -> Vec<(String, Vec<String>)> {
    let endpoints = definition::read(&root.join("docs/api/engine-1.53.txt"));
    let tests = Tests::read(root);
    let statuses = Statuses::read(&root.join("docs/api/status.txt"), &endpoints, &tests, &mut Vec::new());
    let mut found = Vec::new();
    for endpoint in &endpoints {
        let calling = tests.calling(endpoint);
        if statuses.of(endpoint, None) == Some(Status::Untested) && !calling.is_empty() {
            found.push((endpoint.name(), calling));
        }
        for field in &endpoint.fields {
            if statuses.of(endpoint, Some(field)) == Some(Status::Untested)
                && let Some(Status::Shown { done, refused }) = tests.status(endpoint, field)
            {
                let name = format!("{} {} {}", endpoint.name(), field.place, field.name);
                found.push((name, [done, refused].concat()));
            }
        }
    }
    found
}

/// The page as it should be, and what is wrong.
fn page(root: &Path) -> (String, Vec<String>) {
    let endpoints = definition::read(&root.join("docs/api/engine-1.53.txt"));
    let routes = route::read(&root.join("crates/server/src/route"));
    let tests = Tests::read(root);
    let mut complaints = Vec::new();
    let statuses = Statuses::read(&root.join("docs/api/status.txt"), &endpoints, &tests, &mut complaints);
    let before = fs::read_to_string(root.join(PAGE)).unwrap_or_default();
    let mut writer = Writer { before: &before, text: String::new(), counts: BTreeMap::new() };
    let mut sections: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for endpoint in &endpoints {
        let found = found(endpoint, &routes, &tests, &statuses);
        let text = writer.endpoint(endpoint, &found, &mut complaints);
        sections.entry(section(&endpoint.path)).or_default().push(text);
    }
    for (section, endpoints) in sections {
        let _ = writeln!(
            writer.text,
            "\n## {}\n\n| request | type | status |\n| --- | --- | --- |",
            SECTIONS[section].0
        );
        for text in endpoints {
            writer.text.push_str(&text);
        }
    }
    let counts: Vec<String> = writer.counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let head = HEAD.replace("ENDPOINTS", &endpoints.len().to_string()).replace("COUNTS", &counts.join(", "));
    (head + &writer.text, complaints)
}

const HEAD: &str = "# The Engine API, endpoint by endpoint

Every endpoint and every field of a request in Docker's published definition of API 1.53, and what becomes of it. Written by
`cargo run -p ponton-xtask -- api`; a test fails when this page is not what that writes. The definition's extract and its
licence are in [api/engine-1.53.txt](api/engine-1.53.txt). A dot stands before a member, `[]` for the items of a list, `{}` for
the values of a map.

*Done* names a test that sends it; *refused* one that sees the error; *without effect* says why it has none in Docker
either; *501* is the answer of what is not built; what is *not tested* is read, and no test sends it. ENDPOINTS endpoints; with their fields: COUNTS.
";

/// The page's sections, by the beginnings of paths.
const SECTIONS: [(&str, &[&str]); 9] = [
    ("Containers", &["/containers", "/commit"]),
    ("Exec", &["/exec"]),
    ("Images", &["/images", "/distribution", "/auth"]),
    ("Volumes", &["/volumes"]),
    ("System", &["/info", "/version", "/_ping", "/events", "/system"]),
    ("Networks", &["/networks"]),
    ("Builds", &["/build", "/session"]),
    ("Plugins", &["/plugins"]),
    ("Swarm mode", &["/"]),
];

fn section(path: &str) -> usize {
    let fits =
        |(_, beginnings): &(&str, &[&str])| beginnings.iter().any(|beginning| path.starts_with(beginning));
    // `/containers/{id}/exec` makes an exec.
    if path.ends_with("/exec") { 1 } else { SECTIONS.iter().position(fits).unwrap_or(SECTIONS.len() - 1) }
}

/// What is known of an endpoint: of itself, and of each of its fields.
struct Found {
    own: Option<Status>,
    fields: Vec<Option<Status>>,
}

fn found(endpoint: &Endpoint, routes: &[route::Route], tests: &Tests, statuses: &Statuses) -> Found {
    let own = match route::find(routes, endpoint) {
        None => statuses.of(endpoint, None),
        Some(route) => match &route.unbuilt {
            Some(text) => Some(Status::Unbuilt(text.clone())),
            None => chosen(Status::done(tests.calling(endpoint)), statuses.of(endpoint, None)),
        },
    };
    let field = |field: &Field| match &own {
        Some(Status::Unbuilt(text)) => Some(Status::Unbuilt(text.clone())),
        _ => chosen(tests.status(endpoint, field), statuses.of(endpoint, Some(field))),
    };
    let fields = endpoint.fields.iter().map(field).collect();
    Found { own, fields }
}

/// What the tests show counts more than what the file says, unless that is "not tested" or "not built": a test may send
/// what is refused.
fn chosen(shown: Option<Status>, said: Option<Status>) -> Option<Status> {
    match (shown, said) {
        (_, Some(said @ (Status::Untested | Status::Unbuilt(_)))) => Some(said),
        (shown, said) => shown.or(said),
    }
}

struct Writer<'a> {
    before: &'a str,
    text: String,
    counts: BTreeMap<String, usize>,
}

impl Writer<'_> {
    /// The lines of an endpoint. One that isn't built has one line, with the number of its fields.
    fn endpoint(&mut self, endpoint: &Endpoint, found: &Found, complaints: &mut Vec<String>) -> String {
        let name = endpoint.name();
        let mut text = self.line(&format!("**`{name}`**"), "", found.own.as_ref());
        if found.own.is_none() {
            complaints.push(format!("{name}: no test calls it, and it does not say 501"));
        }
        if let Some(Status::Unbuilt(_)) = &found.own {
            *self.counts.entry("501".to_owned()).or_default() += endpoint.fields.len();
            if !endpoint.fields.is_empty() {
                let _ = writeln!(text, "| &emsp;all of its {} fields | | 501 |", endpoint.fields.len());
            }
            return text;
        }
        for (field, status) in endpoint.fields.iter().zip(&found.fields) {
            if status.is_none() {
                complaints.push(format!("{name} {} {}: no status", field.place, field.name));
            }
            let shown = format!("&emsp;{} `{}`", field.place, field.name);
            text.push_str(&self.line(&shown, &field.kind, status.as_ref()));
        }
        text
    }

    fn line(&mut self, name: &str, kind: &str, status: Option<&Status>) -> String {
        let head = format!("| {name} | {kind} | ");
        let before = self.before.lines().find_map(|line| line.strip_prefix(&head)).unwrap_or_default();
        let text = status.map_or("**no status**".to_owned(), |status| status.text(before));
        let kind = text.split(':').next().unwrap_or_default();
        *self.counts.entry(kind.to_owned()).or_default() += 1;
        format!("{head}{text} |\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_the_program_writes() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let (page, complaints) = page(&root);
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
        let there = fs::read_to_string(root.join(PAGE)).unwrap();
        assert!(page == there, "{PAGE} is out of date: run `cargo run -p ponton-xtask -- api`");
    }
}
