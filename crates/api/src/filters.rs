//! The query parameter `filters`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Filters by name; the values of one name are alternatives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

/// Why filters were refused, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilters {
    /// It isn't JSON, or not of one of the two shapes.
    #[error("invalid filter")]
    Malformed,
    /// A name that the call doesn't know.
    #[error("invalid filter '{0}'")]
    Unknown(String),
    /// A value that the name doesn't take.
    #[error("invalid filter '{name}={value}'")]
    Value {
        /// The filter.
        name: String,
        /// What it was given.
        value: String,
    },
}

impl Filters {
    /// Reads `{"name":["value"]}`, or the older `{"name":{"value":true}}`; an empty text is no filter.
    pub fn parse(text: &str) -> Result<Self, InvalidFilters> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let value: Value = serde_json::from_str(text).map_err(|_| InvalidFilters::Malformed)?;
        let members = match value {
            Value::Null => return Ok(Self::default()),
            Value::Object(members) => members,
            _ => return Err(InvalidFilters::Malformed),
        };
        members
            .into_iter()
            .map(|(name, values)| Ok((name, Self::values(values)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn values(value: Value) -> Result<BTreeSet<String>, InvalidFilters> {
        match value {
            Value::Null => Ok(BTreeSet::new()),
            Value::Array(items) => items
                .into_iter()
                .map(|item| match item {
                    Value::String(text) => Ok(text),
                    _ => Err(InvalidFilters::Malformed),
                })
                .collect(),
            Value::Object(members) => members
                .into_iter()
                .filter(|(_, set)| *set != Value::Bool(false))
                .map(|(text, set)| if set.is_boolean() { Ok(text) } else { Err(InvalidFilters::Malformed) })
                .collect(),
            _ => Err(InvalidFilters::Malformed),
        }
    }

    /// Adds one value of a filter.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.entry(name.into()).or_default().insert(value.into());
    }

    /// The values of a filter; none if it isn't there.
    pub fn get(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// True if the filter has a value.
    pub fn contains(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|values| !values.is_empty())
    }

    /// True if there is no filter at all.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(BTreeSet::is_empty)
    }

    /// True if the filter isn't there, or one of its values passes the test.
    pub fn matches(&self, name: &str, test: impl FnMut(&str) -> bool) -> bool {
        !self.contains(name) || self.get(name).any(test)
    }

    /// True if all `label` (`key` or `key=value`) values hold for these labels.
    pub fn matches_labels(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(name).all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        })
    }

    /// The filter's value as a truth value; `default` if it isn't there.
    pub fn boolean(&self, name: &str, default: bool) -> Result<bool, InvalidFilters> {
        let mut answer = None;
        for value in self.get(name) {
            let parsed = match value {
                "1" | "true" => true,
                "0" | "false" => false,
                _ => return Err(InvalidFilters::Value { name: name.into(), value: value.into() }),
            };
            if answer.is_some_and(|before| before != parsed) {
                return Err(InvalidFilters::Value { name: name.into(), value: value.into() });
            }
            answer = Some(parsed);
        }
        Ok(answer.unwrap_or(default))
    }

    /// Refuses filters whose names aren't known.
    pub fn check_known(&self, known: &[&str]) -> Result<(), InvalidFilters> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(InvalidFilters::Unknown(name.clone())),
            None => Ok(()),
        }
    }

    /// The JSON that [`Filters::parse`] reads, in the older shape that every version understands.
    pub fn to_json(&self) -> String {
        let object = self.0.iter().map(|(name, values)| {
            let set = values.iter().map(|value| (value.clone(), Value::Bool(true))).collect();
            (name.clone(), Value::Object(set))
        });
        Value::Object(object.collect()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_read() {
        let new = Filters::parse(r#"{"label":["a","b=c"],"name":[]}"#).unwrap();
        let old = Filters::parse(r#"{"label":{"a":true,"b=c":true,"no":false},"name":{}}"#).unwrap();
        assert_eq!(new, old);
        assert_eq!(new.get("label").collect::<Vec<_>>(), ["a", "b=c"]);
        assert!(!new.contains("name"));
        assert_eq!(Filters::parse(&new.to_json()).unwrap(), new);
        assert!(Filters::parse("").unwrap().is_empty());
    }

    #[test]
    fn bad_filters_are_refused() {
        for text in ["x", "[]", r#"{"a":1}"#, r#"{"a":[1]}"#, r#"{"a":{"b":"c"}}"#] {
            assert_eq!(Filters::parse(text), Err(InvalidFilters::Malformed), "{text}");
        }
        let filters = Filters::parse(r#"{"nosuch":["a"],"dangling":["maybe"]}"#).unwrap();
        assert_eq!(filters.check_known(&["dangling"]).unwrap_err().to_string(), "invalid filter 'nosuch'");
        assert_eq!(
            filters.boolean("dangling", true).unwrap_err().to_string(),
            "invalid filter 'dangling=maybe'"
        );
    }

    #[test]
    fn labels_must_all_match() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        let matches = |text| Filters::parse(text).unwrap().matches_labels("label", &labels);
        assert!(matches(r#"{"label":["a","b"]}"#));
        assert!(matches(r#"{"label":["a=1"]}"#));
        assert!(!matches(r#"{"label":["a=1","c"]}"#));
        assert!(!matches(r#"{"label":["a=2"]}"#));
        assert!(matches("{}"));
    }
}
