//! What is told about a container beside its lines: its tag, and labels and variables of one's choice.

use ponton_api::container::StringMap;
use serde_json::{Map, Value};

use crate::container::Settings;
use crate::error::{Error, Result};

/// A container, as tags and services know it.
pub(super) struct Facts<'a> {
    pub(super) settings: &'a Settings,
    /// Without a slash.
    pub(super) name: &'a str,
    pub(super) hostname: &'a str,
}

impl Facts<'_> {
    pub(super) fn command(&self) -> String {
        let program = std::iter::once(&self.settings.path);
        program.chain(&self.settings.args).map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn short_id(&self) -> &str {
        first(&self.settings.id)
    }

    /// The container's tag; its short id unless something else is asked for.
    pub(super) fn tag(&self, options: &StringMap) -> Result<String> {
        match options.get("tag").map(String::as_str) {
            None | Some("") => Ok(self.short_id().to_owned()),
            Some(template) => self.expand(template),
        }
    }

    /// Fills in the fields of a template, `{{.Name}}` and the like.
    fn expand(&self, template: &str) -> Result<String> {
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after
                .split_once("}}")
                .ok_or_else(|| Error::invalid("template: log-tag:1: unclosed action"))?;
            text.push_str(before);
            text.push_str(&self.field(action.trim())?);
            rest = after;
        }
        text.push_str(rest);
        Ok(text)
    }

    fn field(&self, action: &str) -> Result<String> {
        let Some(field) =
            action.strip_prefix('.').filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric()))
        else {
            return Err(Error::not_implemented(format!(
                "log opt tag: {{{{{action}}}}}: only fields such as {{{{.Name}}}} are implemented"
            )));
        };
        let settings = self.settings;
        Ok(match field {
            "ID" => self.short_id().to_owned(),
            "FullID" | "ContainerID" => settings.id.clone(),
            "Name" => self.name.to_owned(),
            "ContainerName" => format!("/{}", self.name),
            "ImageID" => first(&settings.image).to_owned(),
            "ImageFullID" | "ContainerImageID" => settings.image.clone(),
            "ImageName" | "ContainerImageName" => settings.config.image.clone(),
            "Command" => self.command(),
            "Hostname" => self.hostname.to_owned(),
            "ContainerEntrypoint" => settings.path.clone(),
            "ContainerCreated" => settings.created.to_string(),
            "DaemonName" => "docker".to_owned(),
            _ => {
                return Err(Error::invalid(format!(
                    "template: log-tag:1:2: executing \"log-tag\" at <.{field}>: can't evaluate field {field} in \
                     type *logger.Info"
                )));
            }
        })
    }

    /// The labels and variables that the options choose, by their names.
    pub(super) fn chosen(&self, options: &StringMap) -> Result<Vec<(String, String)>> {
        let config = &self.settings.config;
        let labels: Vec<(&str, &str)> =
            config.labels.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let variables: Vec<(&str, &str)> =
            config.env.iter().flatten().filter_map(|variable| variable.split_once('=')).collect();
        let mut chosen = std::collections::BTreeMap::new();
        for (all, option) in [(labels, "labels"), (variables, "env")] {
            let names: Vec<&str> = options.get(option).map_or(Vec::new(), |names| names.split(',').collect());
            let pattern = options.get(&format!("{option}-regex")).filter(|pattern| !pattern.is_empty());
            let pattern = pattern.map(|pattern| parse_regex(pattern)).transpose()?;
            let is_chosen = |name: &str| {
                names.contains(&name) || pattern.as_ref().is_some_and(|pattern| pattern.is_match(name))
            };
            chosen.extend(
                all.into_iter()
                    .filter(|(name, _)| is_chosen(name))
                    .map(|(name, value)| (name.to_owned(), value.to_owned())),
            );
        }
        Ok(chosen.into_iter().collect())
    }

    /// What each entry of a `json-file` has as its `attrs`; empty for nothing.
    pub(super) fn json(&self, options: &StringMap) -> Result<String> {
        let mut attributes: std::collections::BTreeMap<_, _> = self.chosen(options)?.into_iter().collect();
        if options.get("tag").is_some_and(|tag| !tag.is_empty()) {
            attributes.insert("tag".to_owned(), self.tag(options)?);
        }
        if attributes.is_empty() {
            return Ok(String::new());
        }
        let object: Map<String, Value> =
            attributes.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
        Ok(Value::Object(object).to_string())
    }
}

/// Checks the options as far as that can be done without a container.
pub(super) fn check(options: &StringMap) -> Result<()> {
    for option in ["labels-regex", "env-regex"] {
        if let Some(pattern) = options.get(option) {
            parse_regex(pattern)?;
        }
    }
    Ok(())
}

fn parse_regex(pattern: &str) -> Result<regex_lite::Regex> {
    regex_lite::Regex::new(pattern)
        .map_err(|error| Error::invalid(format!("error parsing regexp: {error}: `{pattern}`")))
}

fn first(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests;
