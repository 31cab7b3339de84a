//! What becomes of a request, and the file that says what can't be derived.
//!
//! ```text
//! POST /containers/{id}/attach: done TEST
//! GET /containers/{id}/top query ps_args: done TEST as $D top life -o
//! POST /containers/create body HostConfig.Isolation: refused TEST
//! POST /containers/create body HostConfig.Mounts[].*: done TEST
//! GET /images/json query digests: without effect, REASON
//! PUT /volumes/{name}: not built, WHAT
//! POST /commit body *: not tested
//! ```
//!
//! A TEST is `crate/file::function`, without `.rs`. Its program must have the text behind `as`, or else the field's name.
//! What is done and has no test of its own is listed as not tested: a new field isn't, by itself. Such a line counts
//! until it is taken out, so that a new test changes nothing by itself; the program tells which lines can go.

use std::fs;
use std::path::Path;

use super::definition::{Endpoint, Field};
use super::tests_of::Tests;

/// What becomes of a request or a field of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Status {
    /// Tests show it carried out, or refused; some fields are both, by their value.
    Shown { done: Vec<String>, refused: Vec<String> },
    /// It means nothing, and why.
    WithoutEffect(String),
    /// 501, with this text; of an endpoint without a route, what it would be.
    Unbuilt(String),
    /// It may be carried out; no test sends it.
    Untested,
}

impl Status {
    /// Done, if a test shows it.
    pub(super) fn done(tests: Vec<String>) -> Option<Self> {
        Self::shown(tests, Vec::new())
    }

    /// Done or refused, if a test shows it.
    pub(super) fn shown(done: Vec<String>, refused: Vec<String>) -> Option<Self> {
        (!done.is_empty() || !refused.is_empty()).then_some(Self::Shown { done, refused })
    }

    /// As the page says it; `before` is what it said, which is kept as long as it is true.
    pub(super) fn text(&self, before: &str) -> String {
        match self {
            Self::Shown { done, refused } => {
                let lines = |kind: &str, tests: &[String]| -> Vec<String> {
                    let mut lines: Vec<String> =
                        tests.iter().map(|test| format!("{kind}: `{test}`")).collect();
                    lines.sort();
                    lines
                };
                let all = [lines("done", done), lines("refused", refused)].concat();
                let kept = all.iter().find(|line| before == format!("{line} |"));
                kept.or(all.first()).cloned().unwrap_or_default()
            }
            Self::WithoutEffect(reason) => format!("without effect: {reason}"),
            Self::Unbuilt(what) => format!("501: {what}"),
            Self::Untested => "not tested".to_owned(),
        }
    }
}

/// The lines of the file.
pub(super) struct Statuses(Vec<Line>);

struct Line {
    endpoint: String,
    /// Place and name; the name may end in `*`.
    field: Option<(String, String)>,
    status: Status,
    /// What the test's program must have; empty for the field's name.
    shown_by: String,
}

impl Line {
    fn covers(&self, endpoint: &Endpoint, field: Option<&Field>) -> bool {
        self.endpoint == endpoint.name()
            && match (&self.field, field) {
                (None, None) => true,
                (Some((place, name)), Some(field)) => {
                    *place == field.place
                        && match name.strip_suffix('*') {
                            Some(beginning) => field.name.starts_with(beginning),
                            None => *name == field.name,
                        }
                }
                _ => false,
            }
    }
}

impl Statuses {
    pub(super) fn read(
        path: &Path,
        endpoints: &[Endpoint],
        tests: &Tests,
        complaints: &mut Vec<String>,
    ) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut lines = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            match parse(line) {
                Some(parsed) => {
                    check(&parsed, line, endpoints, tests, complaints);
                    lines.push(parsed);
                }
                None => complaints.push(format!("{}: can't be read: {line}", path.display())),
            }
        }
        Self(lines)
    }

    /// What the file says; the first line that fits.
    pub(super) fn of(&self, endpoint: &Endpoint, field: Option<&Field>) -> Option<Status> {
        self.0.iter().find(|line| line.covers(endpoint, field)).map(|line| line.status.clone())
    }
}

fn parse(line: &str) -> Option<Line> {
    let (left, right) = line.split_once(": ")?;
    let words: Vec<&str> = left.split(' ').collect();
    let (endpoint, field) = match words[..] {
        [method, path] => (format!("{method} {path}"), None),
        [method, path, place, name] => {
            (format!("{method} {path}"), Some((place.to_owned(), name.to_owned())))
        }
        _ => return None,
    };
    let (right, shown_by) = right.split_once(" as ").unwrap_or((right, ""));
    let tests = |text: &str| text.split(' ').map(str::to_owned).collect();
    let status = match right.split_once(' ')? {
        ("done", rest) => Status::Shown { done: tests(rest), refused: Vec::new() },
        ("refused", rest) => Status::Shown { done: Vec::new(), refused: tests(rest) },
        ("without", rest) => Status::WithoutEffect(rest.strip_prefix("effect, ")?.to_owned()),
        ("not", "tested") => Status::Untested,
        ("not", rest) => Status::Unbuilt(rest.strip_prefix("built, ")?.to_owned()),
        _ => return None,
    };
    Some(Line { endpoint, field, status, shown_by: shown_by.to_owned() })
}

/// A line must speak of something that there is, and name tests that there are and that mention it.
fn check(line: &Line, text: &str, endpoints: &[Endpoint], tests: &Tests, complaints: &mut Vec<String>) {
    let covered: Vec<(&Endpoint, Option<&Field>)> = endpoints
        .iter()
        .flat_map(|endpoint| {
            [None].into_iter().chain(endpoint.fields.iter().map(Some)).map(move |field| (endpoint, field))
        })
        .filter(|(endpoint, field)| line.covers(endpoint, *field))
        .collect();
    if covered.is_empty() {
        complaints.push(format!("status.txt: there is no such thing: {text}"));
    }
    let Status::Shown { done, refused } = &line.status else { return };
    for test in done.iter().chain(refused) {
        if !tests.has(test) {
            complaints.push(format!("status.txt: there is no test {test}: {text}"));
            continue;
        }
        if !line.shown_by.is_empty() {
            if !tests.contain(test, &line.shown_by) {
                complaints.push(format!("status.txt: {test} has no {:?}: {text}", line.shown_by));
            }
            continue;
        }
        for field in covered.iter().filter_map(|(_, field)| *field).filter(|field| field.name != ".") {
            if !tests.mentions(test, field.last()) {
                complaints.push(format!("status.txt: {test} does not mention {}: {text}", field.last()));
            }
        }
    }
}
