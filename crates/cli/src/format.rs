//! Printing: tables, Go templates, spans of time.

pub(crate) mod data;
pub(crate) mod table;
pub(crate) mod template;

use std::fmt::Write as _;

use data::Data;
use template::Template;

use crate::error::Error;
use crate::flag::{Flag, Flags};
use crate::output;

/// One column of a list: the name in templates, the heading in tables.
pub(crate) type Column = (&'static str, &'static str);

/// One line of a list, by the names of its columns.
pub(crate) type Row = Vec<(&'static str, Data)>;

/// `--format` of a list.
pub(crate) const FORMAT: Flag =
    Flag::text("format", "Print as json, or by a Go template, or 'table TEMPLATE'");

/// `--format`; where it is not given, what `--quiet` stands for, or else the user's settings.
pub(crate) fn chosen<'a>(flags: &'a Flags, settled: &'a str, quiet: &'a str) -> &'a str {
    match flags.text("format") {
        "" if flags.has("quiet") && flags.on("quiet") => quiet,
        "" => settled,
        format => format,
    }
}

/// How a list is printed.
#[derive(Debug)]
pub(crate) struct List<'a> {
    /// Every column that a template may name.
    pub(crate) columns: &'a [Column],
    /// The template of the table that is printed without `--format`.
    pub(crate) default: &'a str,
    /// `--format`.
    pub(crate) format: &'a str,
}

impl List<'_> {
    /// Prints the rows: as a table, as JSON lines, or by a template.
    pub(crate) fn render(&self, rows: Vec<Row>) -> Result<String, Error> {
        let objects = rows.into_iter().map(Data::from_row);
        match self.format {
            "" | "table" => self.table(self.default, objects),
            "json" | "{{json .}}" => {
                let mut text = String::new();
                for object in objects {
                    let _ = writeln!(text, "{}", json_line(&object.printable()));
                }
                Ok(text)
            }
            format => match format.strip_prefix("table") {
                Some(template) => self.table(template.trim(), objects),
                None => {
                    let template = Template::parse(&escapes(format))?;
                    let mut text = String::new();
                    for object in objects {
                        text.push_str(&template.execute(&object)?);
                        text.push('\n');
                    }
                    Ok(text)
                }
            },
        }
    }

    fn table(&self, template: &str, rows: impl Iterator<Item = Data>) -> Result<String, Error> {
        let template = Template::parse(&escapes(template))?;
        let heading = |(name, heading): &Column| (*name, Data::String((*heading).to_owned()));
        let headings = Data::from_row(self.columns.iter().map(heading).collect());
        let mut lines = vec![template.without_functions().execute(&headings)?];
        for row in rows {
            lines.push(template.execute(&row)?);
        }
        let cells: Vec<Vec<String>> =
            lines.iter().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
        Ok(table::align(&cells, 10))
    }
}

/// JSON on one line; Go's encoder makes lists safe for HTML, whoever reads them.
pub(crate) fn json_line(data: &Data) -> String {
    data.to_json().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// `\t` and `\n` as users write them in a shell.
pub(crate) fn escapes(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

/// `docker inspect`: raw JSON documents as one indented array, or each by a template. Where a template can't be
/// executed, an empty line is printed.
pub(crate) fn inspect(documents: &[bytes::Bytes], format: &str) -> Result<String, Error> {
    let found = inspected(documents, format);
    if let Err(Error::Invalid(_)) = found {
        output::print("\n")?;
    }
    found
}

fn inspected(documents: &[bytes::Bytes], format: &str) -> Result<String, Error> {
    let parse = |bytes: &[u8]| {
        serde_json::from_slice::<Data>(bytes)
            .map(Data::with_maps)
            .map_err(|source| Error::invalid(format!("decode the daemon's answer: {source}")))
    };
    match format {
        "" => {
            let documents = documents.iter().map(|bytes| parse(bytes)).collect::<Result<Vec<_>, _>>()?;
            Ok(format!("{}\n", Data::Array(documents).to_indented_json()))
        }
        "json" => {
            let documents = documents.iter().map(|bytes| parse(bytes)).collect::<Result<Vec<_>, _>>()?;
            Ok(format!("{}\n", Data::Array(documents).to_json()))
        }
        format => {
            let template = Template::parse(format).map_err(|error| {
                let text = error.to_string().replace("failed to parse template", "template parsing error");
                Error::Usage { text, code: 64 }
            })?;
            let mut text = String::new();
            for document in documents {
                let executed = template.execute(&parse(document)?).map_err(|error| raw_error(&error))?;
                text.push_str(&executed);
                text.push('\n');
            }
            Ok(text)
        }
    }
}

/// One raw JSON document: indented for `json`, or by a template.
pub(crate) fn inspect_one(document: &bytes::Bytes, format: &str) -> Result<String, Error> {
    if format != "json" {
        return inspect(std::slice::from_ref(document), format);
    }
    let data: Data = serde_json::from_slice(document)
        .map_err(|source| Error::invalid(format!("decode the daemon's answer: {source}")))?;
    Ok(format!("{}\n", data.to_indented_json()))
}

/// The error of a template as docker words it for raw JSON.
fn raw_error(error: &Error) -> Error {
    let text = error.to_string().replace("failed to execute template", "template parsing error");
    Error::invalid(match text.split_once("can't evaluate field ") {
        Some((before, field)) => format!("{before}map has no entry for key {field:?}"),
        None => text,
    })
}

/// The first characters of an id, without the algorithm of a digest.
pub(crate) fn short_id(id: &str) -> String {
    let bare = id.split_once(':').map_or(id, |(_, hex)| hex);
    bare.chars().take(12).collect()
}

/// At most `width` characters, the last of them `…` if some were cut off.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// `a=b,c=d`.
pub(crate) fn labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let pairs: Vec<String> = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// What `{{.Label "name"}}` looks in.
pub(crate) fn label_map<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Data {
    Data::Map(labels.into_iter().map(|(key, value)| (key.clone(), Data::from(value.as_str()))).collect())
}

/// The instant of `seconds` since 1970 as Go prints it in this time zone.
pub(crate) fn go_time(seconds: i64) -> String {
    let Ok(instant) = jiff::Timestamp::from_second(seconds) else { return String::new() };
    instant.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[("ID", "CONTAINER ID"), ("Names", "NAMES")];

    fn rows() -> Vec<Row> {
        let row = |id: &str, name: &str| vec![("ID", Data::from(id)), ("Names", Data::from(name))];
        vec![row("4f1c", "web"), row("77aa", "a longer name")]
    }

    fn render(format: &str) -> String {
        let list = List { columns: COLUMNS, default: "{{.ID}}\t{{.Names}}", format };
        list.render(rows()).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn lists() {
        assert_eq!(render(""), "CONTAINER ID   NAMES\n4f1c           web\n77aa           a longer name\n");
        assert_eq!(render("{{.Names}}"), "web\na longer name\n");
        assert_eq!(
            render("table {{.Names}}\\t{{.ID | upper}}"),
            "NAMES           CONTAINER ID\nweb             4F1C\na longer name   77AA\n"
        );
        assert_eq!(
            render("json"),
            "{\"ID\":\"4f1c\",\"Names\":\"web\"}\n{\"ID\":\"77aa\",\"Names\":\"a longer name\"}\n"
        );
        assert_eq!(
            render("{{.Foo}}"),
            "failed to execute template: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo"
        );
    }

    #[test]
    fn inspection() {
        let document = bytes::Bytes::from_static(br#"{"Z":1,"A":[],"Labels":{"b":"2","a":"<1>"},"E":{}}"#);
        assert_eq!(
            inspect(std::slice::from_ref(&document), "").unwrap(),
            "[\n    {\n        \"Z\": 1,\n        \"A\": [],\n        \"Labels\": {\n            \"b\": \"2\",\n            \"a\": \"<1>\"\n        },\n        \"E\": {}\n    }\n]\n"
        );
        assert_eq!(
            inspect(std::slice::from_ref(&document), "{{.Labels.a}} {{.Labels}}").unwrap(),
            "<1> map[a:<1> b:2]\n"
        );
        assert_eq!(
            inspect(&[document], "{{.Foo}}").unwrap_err().to_string(),
            "template parsing error: template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\""
        );
        assert_eq!(inspect(&[], "").unwrap(), "[]\n");
    }
}
