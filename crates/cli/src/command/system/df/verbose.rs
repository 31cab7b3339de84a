//! `system df --verbose`: each image, container and volume.

use ponton_api::container::Summary;
use ponton_api::system::DiskUsage;
use ponton_api::unit;
use serde_json::Value;

use crate::command::{container, image, volume};
use crate::error::Error;
use crate::format::data::Data;
use crate::format::template::Template;
use crate::format::{Column, List, Row, go_time};

const IMAGES: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}";
const CONTAINERS: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
const VOLUMES: &str = "{{.Name}}\t{{.Links}}\t{{.Size}}";
const CACHE: &str =
    "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}";
const CACHE_COLUMNS: &[Column] = &[
    ("CacheType", "CACHE TYPE"),
    ("CreatedSince", "CREATED"),
    ("ID", "CACHE ID"),
    ("LastUsedSince", "LAST USED"),
    ("Shared", "SHARED"),
    ("Size", "SIZE"),
    ("UsageCount", "USAGE"),
];

/// Four tables; or one record of four lists, as JSON or by a template.
pub(super) fn render(usage: &DiskUsage, format: &str, now: i64) -> Result<String, Error> {
    let is_table = format.is_empty() || format.starts_with("table");
    let images: Vec<Row> =
        usage.images.iter().flatten().flat_map(|image| image_rows(image, is_table, now)).collect();
    let containers: Vec<Row> =
        usage.containers.iter().flatten().map(|container| container_row(container, is_table, now)).collect();
    let volumes: Vec<Row> = usage.volumes.iter().flatten().map(volume::row).collect();
    let cache: Vec<Row> =
        usage.build_cache.iter().flatten().map(|record| cache_row(record, is_table, now)).collect();
    if is_table {
        let table = |title: &str, columns, default, rows| {
            let table = List { columns, default, format: "" }.render(rows)?;
            Ok::<_, Error>(format!("{title}\n\n{table}"))
        };
        let size: i64 = usage
            .build_cache
            .iter()
            .flatten()
            .filter(|record| record["Shared"] != true)
            .filter_map(|record| record["Size"].as_i64())
            .sum();
        return Ok(format!(
            "{}\n{}\n{}\n{}",
            table("Images space usage:", image::list::COLUMNS, IMAGES, images)?,
            table("Containers space usage:", container::list::COLUMNS, CONTAINERS, containers)?,
            table("Local Volumes space usage:", volume::COLUMNS, VOLUMES, volumes)?,
            table(&format!("Build cache usage: {}", unit::human_size(size)), CACHE_COLUMNS, CACHE, cache)?,
        ));
    }
    let list = |rows: Vec<Row>| Data::Array(rows.into_iter().map(Data::from_row).collect());
    let lists = [list(images), list(containers), list(volumes), list(cache)];
    let names = ["Images", "Containers", "Volumes", "BuildCache"].map(str::to_owned);
    let record = Data::Struct(names.into_iter().zip(lists).collect());
    match format {
        "json" | "{{json .}}" => Ok(crate::format::json_line(&without_maps(record))),
        format => Template::parse(&crate::format::escapes(format))?.execute(&record),
    }
}

/// The lists as they are printed whole.
fn without_maps(record: Data) -> Data {
    let Data::Struct(lists) = record else { return record };
    let list = |(name, list)| match list {
        Data::Array(rows) => (name, Data::Array(rows.into_iter().map(Data::printable).collect())),
        other => (name, other),
    };
    Data::Struct(lists.into_iter().map(list).collect())
}

/// What a container has written, without its image.
fn container_row(container: &Summary, is_table: bool, now: i64) -> Row {
    container::list::row(&Summary { size_root_fs: None, ..container.clone() }, !is_table, now)
}

/// One line for each name of an image; its digests are not told.
fn image_rows(image: &ponton_api::image::Summary, is_table: bool, now: i64) -> Vec<Row> {
    let names = image::list::names(image, false).into_iter();
    let mut rows: Vec<Row> = names.map(|name| image::list::row(image, name, !is_table, now)).collect();
    for (name, value) in rows.iter_mut().flatten() {
        if *name == "Digest" {
            *value = "".into();
        }
    }
    rows
}

fn cache_row(record: &Value, is_table: bool, now: i64) -> Row {
    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let time = |name: &str| text(name).parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second);
    let at = |name: &str| time(name).map(go_time).unwrap_or_default();
    let since = |name: &str| {
        time(name).map(|then| format!("{} ago", unit::human_duration(now - then))).unwrap_or_default()
    };
    let is = |name: &str| record[name].as_bool().unwrap_or_default().to_string();
    let id: String = text("ID").chars().take(if is_table { 12 } else { usize::MAX }).collect();
    let parents = record["Parents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let parents: Vec<&str> = parents.iter().filter_map(Value::as_str).collect();
    vec![
        ("CacheType", text("Type").into()),
        ("CreatedAt", at("CreatedAt").into()),
        ("CreatedSince", since("CreatedAt").into()),
        ("Description", text("Description").into()),
        ("ID", id.into()),
        ("InUse", is("InUse").into()),
        ("LastUsedAt", at("LastUsedAt").into()),
        ("LastUsedSince", since("LastUsedAt").into()),
        ("Parent", parents.join(", ").into()),
        ("Shared", is("Shared").into()),
        ("Size", unit::human_size(record["Size"].as_i64().unwrap_or_default()).into()),
        ("UsageCount", record["UsageCount"].as_i64().unwrap_or_default().to_string().into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> DiskUsage {
        let answer = r#"{"LayersSize":4500000,
            "Images":[{"Id":"sha256:ab12ab12ab12ab12","RepoTags":["busybox:latest"],"Created":1000,"Size":4500000,"SharedSize":500000,"Containers":1}],
            "Containers":[{"Id":"4f1c4f1c4f1c4f1c","Names":["/web"],"Image":"busybox","Command":"sh","Created":1000,"SizeRw":1234,"SizeRootFs":5555,"State":"running","Status":"Up 3 hours"}],
            "Volumes":[{"Driver":"local","Name":"v1","UsageData":{"RefCount":1,"Size":2048}}],
            "BuildCache":[{"ID":"abcdefghijklmnop","Type":"regular","Shared":true,"Size":1000,"CreatedAt":"1970-01-01T00:16:40Z","UsageCount":3}]}"#;
        serde_json::from_str(answer).unwrap()
    }

    /// Docker's client 28.2 prints the same of the same answer.
    #[test]
    fn tables() {
        assert_eq!(
            render(&usage(), "", 1_240).unwrap(),
            "Images space usage:\n\n\
             REPOSITORY   TAG       IMAGE ID       CREATED         SIZE      SHARED SIZE   UNIQUE SIZE   CONTAINERS\n\
             busybox      latest    ab12ab12ab12   4 minutes ago   4.5MB     500kB         4MB           1\n\n\
             Containers space usage:\n\n\
             CONTAINER ID   IMAGE     COMMAND   LOCAL VOLUMES   SIZE      CREATED         STATUS       NAMES\n\
             4f1c4f1c4f1c   busybox   \"sh\"      0               1.23kB    4 minutes ago   Up 3 hours   web\n\n\
             Local Volumes space usage:\n\n\
             VOLUME NAME   LINKS     SIZE\n\
             v1            1         2.048kB\n\n\
             Build cache usage: 0B\n\n\
             CACHE ID       CACHE TYPE   SIZE      CREATED         LAST USED   USAGE     SHARED\n\
             abcdefghijkl   regular      1kB       4 minutes ago               3         true\n"
        );
    }

    #[test]
    fn programs_get_records() {
        let json = render(&usage(), "json", 1_240).unwrap();
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["Images"][0]["ID"], "sha256:ab12ab12ab12ab12");
        assert_eq!(value["Volumes"][0]["Links"], "1");
        let template = "{{range .Images}}{{.Repository}} {{.SharedSize}}{{end}}";
        assert_eq!(render(&usage(), template, 1_240).unwrap(), "busybox 500kB");
    }
}
