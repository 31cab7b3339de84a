//! The tests, and what they send: found in their text.
//!
//! A test program is cut into its functions and constants. What one of them sends is sent by the tests that reach it by
//! name. Three things are looked for: literals that are paths of the API, with a method before them; names of members in
//! the JSON that follows; and rows of tables whose first literal is a field's name (`"HostConfig.Memory"`, of other calls
//! than create `"Update.Memory"` and `"Commit.Cmd"`). A table of calls may stand in a file of its own that is included: lines `METHOD PATH`, and below them `| BODY`.
//!
//! What is asked of things that are not there (`nosuch`, `bad`) shows nothing of what is carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::definition::{Endpoint, Field};
use super::status::Status;

/// As far behind a path its body is looked for.
const BODY: usize = 600;
/// As far before a path its method is looked for.
const METHOD: usize = 160;

/// All tests.
pub(super) struct Tests {
    /// `crate/tests/file::function`, and the text of its program.
    known: BTreeMap<String, usize>,
    programs: Vec<String>,
    calls: Vec<Call>,
    rows: Vec<Row>,
}

/// A request that tests make.
struct Call {
    method: String,
    path: String,
    /// Names of the query's parameters.
    query: Vec<String>,
    /// What follows the path.
    after: String,
    tests: Vec<String>,
}

/// A row of a table of fields.
struct Row {
    /// The path of the endpoint.
    path: &'static str,
    field: String,
    refused: bool,
    /// The function that has the row.
    text: String,
    tests: Vec<String>,
}

impl Tests {
    pub(super) fn read(root: &Path) -> Self {
        let mut all =
            Self { known: BTreeMap::new(), programs: Vec::new(), calls: Vec::new(), rows: Vec::new() };
        let mut crates: Vec<PathBuf> =
            fs::read_dir(root.join("crates")).expect("crates").flatten().map(|entry| entry.path()).collect();
        crates.sort();
        for directory in crates {
            let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // This program's own tests speak of tests.
            if name == "xtask" {
                continue;
            }
            for program in programs(&directory) {
                all.add(&name, &program);
            }
        }
        all
    }

    fn add(&mut self, crate_name: &str, program: &Program) {
        let items: Vec<Item> = program.texts.iter().flat_map(|text| items(text)).collect();
        let number = self.programs.len();
        self.programs.push(program.texts.concat());
        let id = |item: &Item| format!("{crate_name}/{}::{}", program.name, item.name);
        for item in items.iter().filter(|item| item.is_test) {
            self.known.insert(id(item), number);
        }
        // A file's own tests speak to no daemon.
        if !program.name.starts_with("tests/") {
            return;
        }
        for (index, item) in items.iter().enumerate() {
            let tests: Vec<String> =
                reaching(&items, index).into_iter().map(|test| id(&items[test])).collect();
            if tests.is_empty() {
                continue;
            }
            self.calls.extend(calls(&item.text, &tests));
            for (_, _, literal) in literals(&item.text) {
                if let Some(table) = program.tables.get(literal) {
                    self.calls.extend(table_calls(table, &tests));
                }
            }
            self.rows.extend(rows(&item.text, &tests));
        }
    }

    pub(super) fn has(&self, test: &str) -> bool {
        self.known.contains_key(test)
    }

    /// Whether the program of a test has this word.
    pub(super) fn mentions(&self, test: &str, word: &str) -> bool {
        self.known.get(test).is_some_and(|program| has_word(&self.programs[*program], word))
    }

    /// Whether the program of a test has this text.
    pub(super) fn contain(&self, test: &str, text: &str) -> bool {
        self.known.get(test).is_some_and(|program| self.programs[*program].contains(text))
    }

    fn calls_of<'a>(&'a self, endpoint: &'a Endpoint) -> impl Iterator<Item = &'a Call> {
        self.calls.iter().filter(|call| call.method == endpoint.method && endpoint.fits(&call.path))
    }

    /// The tests that call an endpoint.
    pub(super) fn calling(&self, endpoint: &Endpoint) -> Vec<String> {
        let tests: BTreeSet<String> = self.calls_of(endpoint).flat_map(|call| call.tests.clone()).collect();
        tests.into_iter().collect()
    }

    /// What becomes of a field, if a test sends it.
    pub(super) fn status(&self, endpoint: &Endpoint, field: &Field) -> Option<Status> {
        if field.place == "body"
            && let Some(status) = self.of_rows(&endpoint.path, &field.name)
        {
            return Some(status);
        }
        let sends = |call: &&Call| match field.place.as_str() {
            "query" => call.query.contains(&field.name),
            "body" if field.name == "." => false,
            _ => call.after.contains(&format!("\"{}\":", field.last())),
        };
        let tests: BTreeSet<String> =
            self.calls_of(endpoint).filter(sends).flat_map(|call| call.tests.clone()).collect();
        Status::done(tests.into_iter().collect())
    }

    /// A field with rows of its own, or one of whose object's rows sends it.
    fn of_rows(&self, path: &str, name: &str) -> Option<Status> {
        let of_path = || self.rows.iter().filter(|row| row.path == path);
        let shown = |rows: &[&Row]| {
            let tests = |refused: bool| -> Vec<String> {
                let rows = rows.iter().filter(|row| row.refused == refused);
                let tests: BTreeSet<String> = rows.flat_map(|row| row.tests.clone()).collect();
                tests.into_iter().collect()
            };
            Status::shown(tests(false), tests(true))
        };
        let own: Vec<&Row> = of_path().filter(|row| row.field == name).collect();
        if !own.is_empty() {
            return shown(&own);
        }
        let (object, member) = name.rsplit_once('.')?;
        let object = object.trim_end_matches(['[', ']', '{', '}']);
        let sends = |row: &&Row| {
            let inside = row.field == object || row.field.starts_with(&format!("{object}."));
            inside && row.text.contains(&format!("\"{member}\":"))
                || row.field == format!("{object}.{member}")
        };
        shown(&of_path().filter(sends).collect::<Vec<_>>())
    }
}

/// The texts of one test program, or of one file with tests in it.
struct Program {
    /// `tests/file`, `src/file`.
    name: String,
    texts: Vec<String>,
    /// Tables that are included, by their files' names.
    tables: BTreeMap<String, String>,
}

fn programs(directory: &Path) -> Vec<Program> {
    let mut found = Vec::new();
    for file in rust_files(&directory.join("tests")) {
        let relative = file.strip_prefix(directory).unwrap_or(&file).with_extension("");
        let parts: Vec<String> = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let name = match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [tests, file] => format!("{tests}/{file}"),
            [tests, folder, "main"] => format!("{tests}/{folder}"),
            _ => continue,
        };
        let text = fs::read_to_string(&file).unwrap_or_default();
        let here = file.parent().unwrap_or(directory);
        let places = |module: &str| [here.join(format!("{module}.rs")), here.join(module).join("mod.rs")];
        // A folder of the program's own name, too: its modules are declared with a path.
        let own = rust_files(&file.with_extension(""));
        let places = modules_of(&text).flat_map(places).chain(own);
        let mut texts: Vec<String> = places.filter_map(|place| fs::read_to_string(place).ok()).collect();
        let folders = modules_of(&text)
            .map(|module| here.join(module))
            .chain([here.to_owned(), file.with_extension("")]);
        let files = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
        let tables =
            files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "txt"));
        let tables = tables
            .filter_map(|path| {
                let name = path.file_name()?.to_string_lossy().into_owned();
                Some((name, fs::read_to_string(&path).ok()?))
            })
            .collect();
        texts.push(text);
        found.push(Program { name, texts, tables });
    }
    for file in rust_files(&directory.join("src")) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if text.contains("#[test]") || text.contains("#[tokio::test") {
            let relative = file.strip_prefix(directory).unwrap_or(&file).with_extension("");
            found.push(Program {
                name: relative.to_string_lossy().into_owned(),
                texts: vec![text],
                tables: BTreeMap::new(),
            });
        }
    }
    found
}

/// The modules that a file declares.
fn modules_of(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.trim().strip_prefix("mod ")?.strip_suffix(';'))
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A function or constant.
struct Item {
    name: String,
    is_test: bool,
    text: String,
}

/// Cuts a file, as rustfmt writes it: an item ends at the first line that closes at its own depth.
fn items(text: &str) -> Vec<Item> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(name) = item_name(line.trim_start()) else { continue };
        let depth = &line[..line.len() - line.trim_start().len()];
        let closes = |line: &&str| {
            line.strip_prefix(depth).is_some_and(|rest| matches!(rest, "}" | "];" | ");" | "};" | "]);"))
        };
        let whole = line.ends_with(';') || line.ends_with('}');
        let length = if whole { 1 } else { lines[number..].iter().position(closes).map_or(1, |end| end + 1) };
        let is_test = lines[..number]
            .iter()
            .rev()
            .take_while(|line| line.trim_start().starts_with(['#', '/']))
            .any(|line| line.contains("#[test]") || line.contains("#[tokio::test"));
        found.push(Item { name, is_test, text: lines[number..number + length].join("\n") });
    }
    found
}

fn item_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub") || *word == "async");
    let keyword = words.next()?;
    if !["fn", "const", "static"].contains(&keyword) {
        return None;
    }
    let name = words.next()?.split(['(', ':', '<']).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The tests that reach an item by name.
fn reaching(items: &[Item], index: usize) -> Vec<usize> {
    let (mut seen, mut left) = (BTreeSet::from([index]), vec![index]);
    while let Some(here) = left.pop() {
        for (other, item) in items.iter().enumerate() {
            if !seen.contains(&other) && has_word(&item.text, &items[here].name) {
                seen.insert(other);
                left.push(other);
            }
        }
    }
    seen.into_iter().filter(|item| items[*item].is_test).collect()
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part =
        |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    text.match_indices(word).any(|(at, _)| {
        !is_part(text[..at].chars().next_back()) && !is_part(text[at + word.len()..].chars().next())
    })
}

/// The string literals of a text: where each ends, and what is in it.
fn literals(text: &str) -> Vec<(usize, usize, &str)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find('"').map(|place| at + place + 1) {
        // The letter '"' is no literal.
        if start >= 2 && bytes[start - 2] == b'\'' && bytes.get(start) == Some(&b'\'') {
            at = start + 1;
            continue;
        }
        let raw = text[..start - 1].ends_with("r#");
        let mut end = start;
        while end < bytes.len() && !(bytes[end] == b'"' && (!raw || bytes.get(end + 1) == Some(&b'#'))) {
            end += if bytes[end] == b'\\' && !raw { 2 } else { 1 };
        }
        let end = end.min(bytes.len());
        if let Some(literal) = text.get(start..end) {
            found.push((start, end, literal));
        }
        at = (end + 1).min(bytes.len());
        if !text.is_char_boundary(at) {
            break;
        }
    }
    found
}

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "HEAD"];

fn calls(text: &str, tests: &[String]) -> Vec<Call> {
    let mut found = Vec::new();
    for (start, end, literal) in literals(text) {
        let (own, target) = match literal.split_once(' ') {
            Some((method, rest)) if METHODS.contains(&method) => {
                (Some(method.to_owned()), rest.split(' ').next().unwrap_or_default())
            }
            _ => (None, literal),
        };
        let Some(target) = without_version(target) else { continue };
        let Some(method) = own.or_else(|| method_before(text, start)) else { continue };
        let after: String = text[end..].chars().take(BODY).collect();
        found.extend(call(method, target, after, tests));
    }
    found
}

fn call(method: String, target: &str, after: String, tests: &[String]) -> Option<Call> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path.contains("nosuch") || query.contains("name=bad") || query.contains("nosuch") {
        return None;
    }
    let query = query.split('&').filter_map(|pair| pair.split('=').next()).map(str::to_owned).collect();
    Some(Call { method, path: path.to_owned(), query, after, tests: tests.to_vec() })
}

/// The calls of a table: `METHOD PATH`, and what belongs to it in the lines below.
fn table_calls(table: &str, tests: &[String]) -> Vec<Call> {
    let mut found = Vec::new();
    let lines: Vec<&str> = table.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let Some((method, target)) = line.split_once(' ').filter(|(method, _)| METHODS.contains(method))
        else {
            continue;
        };
        let below = lines[number + 1..].iter().take_while(|line| line.starts_with(['|', '!', '<', '>', '~']));
        let after = below.copied().collect::<Vec<_>>().join("\n");
        // A refused call shows nothing of what it sends.
        let refused = after.lines().any(|line| line.starts_with("> 4") || line.starts_with("> 5"));
        if let (false, Some(target)) = (refused, without_version(target)) {
            found.extend(call(method.to_owned(), target, after, tests));
        }
    }
    found
}

/// The path without `/v1.41`, if it is one.
fn without_version(target: &str) -> Option<&str> {
    let rest = target.strip_prefix('/')?;
    let (first, _) = rest.split_once('/').unwrap_or((rest, ""));
    let is_version = first.starts_with('v')
        && first[1..].starts_with(|letter: char| letter.is_ascii_digit() || letter == '{');
    let path = if is_version { &target[first.len() + 1..] } else { target };
    (path.len() > 1).then_some(path)
}

/// The last method that is named shortly before.
fn method_before(text: &str, at: usize) -> Option<String> {
    let mut from = at.saturating_sub(METHOD);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let before = &text[from..at];
    let place = |method: &&str| {
        let lower = method.to_lowercase();
        [format!("\"{method}\""), format!("Method::{method}"), format!(".{lower}("), format!("{lower}(")]
            .iter()
            .filter_map(|form| before.rfind(form.as_str()))
            .max()
    };
    METHODS
        .iter()
        .filter_map(|method| Some((place(method)?, method)))
        .max()
        .map(|(_, method)| (*method).to_owned())
}

/// The endpoint of a row, and the field; `None` of what is no field's name.
fn field_of_row(literal: &str) -> Option<(&'static str, &str)> {
    const CREATE: &str = "/containers/create";
    if !literal.chars().all(|letter| letter.is_ascii_alphanumeric() || ".[]{}".contains(letter)) {
        return None;
    }
    match literal.split_once('.')? {
        ("Config", field) => Some((CREATE, field)),
        ("HostConfig" | "NetworkingConfig", _) => Some((CREATE, literal)),
        ("Update", field) => Some(("/containers/{id}/update", field)),
        ("Commit", field) => Some(("/commit", field)),
        _ => None,
    }
}

fn rows(text: &str, tests: &[String]) -> Vec<Row> {
    let fields: Vec<(usize, &str, &str)> = literals(text)
        .into_iter()
        .filter_map(|(start, _, literal)| {
            let (path, field) = field_of_row(literal)?;
            Some((start, path, field))
        })
        .collect();
    let mut found = Vec::new();
    for (index, (start, path, field)) in fields.iter().enumerate() {
        let end = fields.get(index + 1).map_or(text.len(), |(next, ..)| *next);
        found.push(Row {
            path,
            field: (*field).to_owned(),
            refused: has_word(&text[*start..end], "Refused"),
            text: text.to_owned(),
            tests: tests.to_vec(),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
fn rows() -> Vec<Row> {
    vec![
        host("HostConfig.Memory", json!(1), Inside("x"), Same),
        host("HostConfig.Isolation", json!("x"), Refused, Same),
        host("HostConfig.Ulimits", json!([{"Name": "nofile", "Soft": 1}]), Inside("ulimit"), Same),
        only("Update.Init", json!(true), Refused, Same),
    ]
}

fn unused() {
    api.request("GET", "/info", None);
}

#[test]
fn a_test() {
    let rows = rows();
    api.request("POST", &format!("/v1.41/containers/{id}/exec?x=1"), Some(&json!({"Cmd": ["true"]})));
    raw("DELETE /containers/a?force=1&v=1 HTTP/1.1");
}
"#;

    #[test]
    fn what_tests_send_is_found() {
        let all = items(TEXT);
        let names: Vec<(&str, bool)> = all.iter().map(|item| (item.name.as_str(), item.is_test)).collect();
        assert_eq!(names, [("rows", false), ("unused", false), ("a_test", true)]);
        assert_eq!(reaching(&all, 0), [2]);
        assert!(reaching(&all, 1).is_empty());
        let found = calls(&all[2].text, &[]);
        let shown: Vec<_> = found
            .iter()
            .map(|call| (call.method.as_str(), call.path.as_str(), call.query.join(",")))
            .collect();
        assert_eq!(
            shown,
            [
                ("POST", "/containers/{id}/exec", "x".to_owned()),
                ("DELETE", "/containers/a", "force,v".to_owned())
            ]
        );
        assert!(found[0].after.contains("\"Cmd\":"));
        let rows = rows(&all[0].text, &[]);
        let shown: Vec<_> = rows.iter().map(|row| (row.field.as_str(), row.refused)).collect();
        assert_eq!(
            shown,
            [
                ("HostConfig.Memory", false),
                ("HostConfig.Isolation", true),
                ("HostConfig.Ulimits", false),
                ("Init", true)
            ]
        );
        assert_eq!((rows[0].path, rows[3].path), ("/containers/create", "/containers/{id}/update"));
    }
}
