//! JSON with the order of its members kept, and Go's difference between a struct and a map.

use std::fmt::{self, Write as _};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value in a template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(String),
    Array(Vec<Data>),
    /// Named members; asking for one that is not there is an error.
    Struct(Vec<(String, Data)>),
    /// Keys that anybody chose; printed in order, and what is not there is no value.
    Map(Vec<(String, Data)>),
    /// What a map does not have.
    Missing,
}

/// Members of Docker's JSON whose value is a map, whatever is in it.
const MAPS: [&str; 20] = [
    "Annotations",
    "AuxiliaryAddresses",
    "Containers",
    "Data",
    "Details",
    "DriverOpts",
    "ExposedPorts",
    "IndexConfigs",
    "Labels",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "Runtimes",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
    "EndpointsConfig",
    "Attributes",
];

/// Members that Docker leaves out of the JSON when they are empty, and that templates may name all the same.
const OPTIONAL: [&str; 22] = [
    "Annotations",
    "ArgsEscaped",
    "CreatedAt",
    "ExposedPorts",
    "Health",
    "Healthcheck",
    "Init",
    "KernelMemory",
    "MacAddress",
    "Mounts",
    "NetworkDisabled",
    "RepoDigests",
    "Shell",
    "SizeRootFs",
    "SizeRw",
    "StopSignal",
    "StopTimeout",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "UsageData",
    "Variant",
];

impl From<&str> for Data {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Data {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl Data {
    /// A struct of named values.
    pub(crate) fn from_row(row: super::Row) -> Self {
        Self::Struct(row.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Marks the members that are maps in Docker's types.
    pub(crate) fn with_maps(self) -> Self {
        let convert = |(name, value): (String, Self)| {
            let value = value.with_maps();
            match value {
                Self::Struct(members) if MAPS.contains(&name.as_str()) => (name, Self::Map(members)),
                value => (name, value),
            }
        };
        match self {
            Self::Array(items) => Self::Array(items.into_iter().map(Self::with_maps).collect()),
            Self::Struct(members) => Self::Struct(members.into_iter().map(convert).collect()),
            other => other,
        }
    }

    /// A line of a list as it is printed whole: in the order of the names, without what is only asked for.
    pub(crate) fn printable(self) -> Self {
        match self {
            Self::Struct(mut members) => {
                members.retain(|(_, value)| !matches!(value, Self::Map(_)));
                members.sort_by(|left, right| left.0.cmp(&right.0));
                Self::Struct(members)
            }
            other => other,
        }
    }

    /// A member of a struct or map; `None` if a struct has no such member.
    pub(crate) fn member(&self, name: &str) -> Option<&Self> {
        let (Self::Struct(members) | Self::Map(members)) = self else { return None };
        let found = members.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let absent = match self {
            Self::Map(_) => Some(&Self::Missing),
            _ => OPTIONAL.contains(&name).then_some(&Self::Null),
        };
        found.or(absent)
    }

    /// Go's truth: anything but zero, the empty and nothing.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Null | Self::Missing => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::String(text) => !text.is_empty(),
            Self::Array(items) => !items.is_empty(),
            Self::Map(members) => !members.is_empty(),
            Self::Struct(_) => true,
        }
    }

    /// Members in the order of their keys.
    pub(crate) fn sorted_members(members: &[(String, Self)]) -> Vec<&(String, Self)> {
        let mut sorted: Vec<_> = members.iter().collect();
        sorted.sort_by(|left, right| left.0.cmp(&right.0));
        sorted
    }

    /// JSON on one line.
    pub(crate) fn to_json(&self) -> String {
        let mut text = String::new();
        self.write_json(&mut text, None);
        text
    }

    /// JSON with four blanks a level.
    pub(crate) fn to_indented_json(&self) -> String {
        let mut text = String::new();
        self.write_json(&mut text, Some(0));
        text
    }

    fn write_json(&self, out: &mut String, depth: Option<usize>) {
        let inner = depth.map(|depth| depth + 1);
        match self {
            Self::Null | Self::Missing => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(_) | Self::Float(_) => {
                let _ = write!(out, "{self}");
            }
            // Strings of a string always serialise.
            Self::String(text) => out.push_str(&serde_json::to_string(text).unwrap_or_default()),
            Self::Array(items) if items.is_empty() => out.push_str("[]"),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    separate(out, index, inner);
                    item.write_json(out, inner);
                }
                close(out, depth, ']');
            }
            Self::Struct(members) | Self::Map(members) if members.is_empty() => out.push_str("{}"),
            Self::Struct(members) | Self::Map(members) => {
                out.push('{');
                for (index, (key, value)) in members.iter().enumerate() {
                    separate(out, index, inner);
                    out.push_str(&serde_json::to_string(key).unwrap_or_default());
                    out.push_str(if depth.is_some() { ": " } else { ":" });
                    value.write_json(out, inner);
                }
                close(out, depth, '}');
            }
        }
    }
}

fn separate(out: &mut String, index: usize, depth: Option<usize>) {
    if index > 0 {
        out.push(',');
    }
    if let Some(depth) = depth {
        out.push('\n');
        out.extend(std::iter::repeat_n("    ", depth));
    }
}

fn close(out: &mut String, depth: Option<usize>, bracket: char) {
    if let Some(depth) = depth {
        out.push('\n');
        out.extend(std::iter::repeat_n("    ", depth));
    }
    out.push(bracket);
}

/// As Go's `%v` prints it.
impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<nil>"),
            Self::Missing => f.write_str("<no value>"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::String(text) => f.write_str(text),
            Self::Array(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index > 0 { " " } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Struct(members) => {
                f.write_str("{")?;
                for (index, (_, value)) in members.iter().enumerate() {
                    write!(f, "{}{value}", if index > 0 { " " } else { "" })?;
                }
                f.write_str("}")
            }
            Self::Map(members) => {
                f.write_str("map[")?;
                for (index, (key, value)) in Self::sorted_members(members).into_iter().enumerate() {
                    write!(f, "{}{key}:", if index > 0 { " " } else { "" })?;
                    // The only nothings in Docker's maps are lists of ports.
                    if *value == Self::Null { f.write_str("[]")? } else { write!(f, "{value}")? }
                }
                f.write_str("]")
            }
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
        Ok(Data::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
        Ok(Data::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Data, E> {
        Ok(i64::try_from(value).map_or(Data::Float(value as f64), Data::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Data, E> {
        Ok(Data::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Data, E> {
        Ok(Data::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Data, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Data::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Data, A::Error> {
        let mut members = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            members.push(entry);
        }
        Ok(Data::Struct(members))
    }
}
