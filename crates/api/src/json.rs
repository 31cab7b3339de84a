//! JSON read as Docker's daemon (Go's `encoding/json`) reads it.
//!
//! - The names of a struct's fields match in any case; unknown ones are ignored.
//! - `null` is the default of whatever it stands for; as a map's value, the key is kept.
//! - A wrong type is an error in Go's words, naming the field by its path.
//!
//! Integers must fit; a number with a fraction is no integer.

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use serde_json::Value;

/// Why JSON could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text ends before the value does, or is empty.
    #[error("{0}")]
    Truncated(&'static str),
    /// It isn't JSON.
    #[error("{0}")]
    Syntax(String),
    /// Something follows the value.
    #[error("unexpected content after JSON")]
    Trailing,
    /// It is JSON of another shape.
    #[error("{}", mismatch(.found, .field, .expected))]
    Type {
        /// What is there, as Go calls it.
        found: String,
        /// `Struct.Path.Of.Field`, empty for the value itself.
        field: String,
        /// Go's type that belongs there.
        expected: String,
    },
    /// It was refused for another reason.
    #[error("{0}")]
    Other(String),
}

fn mismatch(found: &str, field: &str, expected: &str) -> String {
    if field.is_empty() {
        format!("json: cannot unmarshal {found} into Go value of type {expected}")
    } else {
        format!("json: cannot unmarshal {found} into Go struct field {field} of type {expected}")
    }
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }
}

/// Reads one value that fills the whole text (white space around it is fine).
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    let mut stream = serde_json::Deserializer::from_slice(text);
    let value = Value::deserialize(&mut stream).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof if text.trim_ascii().is_empty() => Error::Truncated("EOF"),
        serde_json::error::Category::Eof => Error::Truncated("unexpected EOF"),
        _ => Error::Syntax(error.to_string()),
    })?;
    stream.end().map_err(|_| Error::Trailing)?;
    from_value(&value)
}

/// Reads a value that is parsed already.
pub fn from_value<'de, T: Deserialize<'de>>(value: &'de Value) -> Result<T, Error> {
    T::deserialize(Lenient { value, path: Path::Root })
}

/// For `deserialize_with`: one string is a list of one (Go's `strslice.StrSlice`).
pub fn string_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    struct StringOrList;
    impl<'de> Visitor<'de> for StringOrList {
        type Value = Option<Vec<String>>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("[]string")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(vec![text.to_owned()]))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(Some)
        }
    }
    deserializer.deserialize_any(StringOrList)
}

/// Where in a value we are; only an error prints it.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    /// A field of a struct; the struct's name is printed for the outermost only.
    Field {
        parent: &'a Path<'a>,
        of: &'static str,
        name: &'a str,
    },
    Key {
        parent: &'a Path<'a>,
        name: &'a str,
    },
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field { parent: Path::Root, of, name } => write!(f, "{of}.{name}"),
            Path::Field { parent, name, .. } | Path::Key { parent, name } => write!(f, "{parent}.{name}"),
        }
    }
}

struct Lenient<'de, 'a> {
    value: &'de Value,
    path: Path<'a>,
}

impl<'de> Lenient<'de, '_> {
    fn mismatch(&self, expected: &str) -> Error {
        let found = match self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
            Value::Number(number) if expected.contains("int") => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
        };
        Error::Type { found, field: self.path.to_string(), expected: expected.to_owned() }
    }

    fn items<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_seq(Items { items: [].iter(), path: self.path }),
            Value::Array(items) => visitor.visit_seq(Items { items: items.iter(), path: self.path }),
            _ => Err(self.mismatch("[]string")),
        }
    }
}

/// The integers: `null` is 0, and what doesn't fit is a mismatch.
macro_rules! integers {
    ($($method:ident $type:ty, $visit:ident, $go:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = match self.value {
                Value::Null => Some(0),
                Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                    (Some(signed), _) => <$type>::try_from(signed).ok(),
                    (None, Some(unsigned)) => <$type>::try_from(unsigned).ok(),
                    (None, None) => None,
                },
                _ => None,
            };
            match number {
                Some(number) => visitor.$visit(number),
                None => Err(self.mismatch($go)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Lenient<'de, '_> {
    type Error = Error;

    integers! {
        deserialize_i8 i8, visit_i8, "int8";
        deserialize_i16 i16, visit_i16, "int16";
        deserialize_i32 i32, visit_i32, "int32";
        deserialize_i64 i64, visit_i64, "int64";
        deserialize_u8 u8, visit_u8, "uint8";
        deserialize_u16 u16, visit_u16, "uint16";
        deserialize_u32 u32, visit_u32, "uint32";
        deserialize_u64 u64, visit_u64, "uint64";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Number(_) => {
                let path = self.path;
                self.value.deserialize_any(visitor).map_err(|error| located(&path, error))
            }
            Value::Array(_) => self.items(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.mismatch("bool")),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_f64(0.0),
            Value::Number(number) => visitor.visit_f64(number.as_f64().unwrap_or_default()),
            _ => Err(self.mismatch("float64")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_borrowed_str(""),
            Value::String(text) => visitor.visit_borrowed_str(text),
            _ => Err(self.mismatch("string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.items(visitor)
    }

    /// Go's arrays: `null` is all zero.
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        const ZEROS: &[Value] = &[const { Value::Null }; 8];
        match self.value {
            Value::Null if len <= ZEROS.len() => {
                visitor.visit_seq(Items { items: ZEROS[..len].iter(), path: self.path })
            }
            _ => self.items(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor
                .visit_map(de::value::MapDeserializer::<_, Error>::new(std::iter::empty::<(&str, &str)>())),
            Value::Object(members) => {
                visitor.visit_map(Members { rest: members.iter(), next: None, path: self.path })
            }
            _ => Err(self.mismatch("map[string]string")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => self.deserialize_map(visitor),
            Value::Object(members) => {
                // As with Go, the exact name wins over one that differs in case.
                let mut chosen: Vec<(&'static str, &'de Value)> = Vec::with_capacity(members.len());
                for field in fields {
                    let value = members.get(*field).or_else(|| {
                        members
                            .iter()
                            .find(|(key, _)| key.eq_ignore_ascii_case(field))
                            .map(|(_, value)| value)
                    });
                    if let Some(value) = value.filter(|value| !value.is_null()) {
                        chosen.push((*field, value));
                    }
                }
                visitor.visit_map(Fields { of: name, rest: chosen.into_iter(), next: None, path: self.path })
            }
            _ => Err(self.mismatch(name)),
        }
    }

    /// A variant without content, by its name.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            Value::String(text) => {
                let path = self.path;
                let variant = de::value::BorrowedStrDeserializer::<Error>::new(text);
                visitor.visit_enum(variant).map_err(|error| located(&path, error))
            }
            _ => Err(self.mismatch("string")),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 f32 char bytes byte_buf unit unit_struct tuple_struct ignored_any
    }
}

fn located(path: &Path, error: impl fmt::Display) -> Error {
    let path = path.to_string();
    Error::Other(if path.is_empty() { error.to_string() } else { format!("{path}: {error}") })
}

struct Items<'de, 'a> {
    items: std::slice::Iter<'de, Value>,
    path: Path<'a>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.items.next().map(|value| seed.deserialize(Lenient { value, path: self.path })).transpose()
    }
}

struct Fields<'de, 'a> {
    of: &'static str,
    rest: std::vec::IntoIter<(&'static str, &'de Value)>,
    next: Option<(&'static str, &'de Value)>,
    path: Path<'a>,
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next = self.rest.next();
        self.next.map(|(name, _)| seed.deserialize(name.into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (name, value) = self.next.unwrap_or(("", &Value::Null));
        seed.deserialize(Lenient { value, path: Path::Field { parent: &self.path, of: self.of, name } })
    }
}

struct Members<'de, 'a> {
    rest: serde_json::map::Iter<'de>,
    next: Option<(&'de str, &'de Value)>,
    path: Path<'a>,
}

impl<'de> MapAccess<'de> for Members<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next = self.rest.next().map(|(key, value)| (key.as_str(), value));
        self.next.map(|(key, _)| seed.deserialize(de::value::BorrowedStrDeserializer::new(key))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (name, value) = self.next.unwrap_or(("", &Value::Null));
        seed.deserialize(Lenient { value, path: Path::Key { parent: &self.path, name } })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Thing {
        name: String,
        size: u16,
        on: bool,
        list: Vec<String>,
        pair: [u32; 2],
        map: BTreeMap<String, Option<Vec<String>>>,
        inner: Option<Box<Thing>>,
    }

    fn read(text: &str) -> Result<Thing, String> {
        from_slice(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn null_is_the_default_of_anything() {
        let text = r#"{"Name":null,"Size":null,"On":null,"List":null,"Pair":null,"Map":null,"Inner":null}"#;
        assert_eq!(read(text), Ok(Thing::default()));
        assert_eq!(read("null"), Ok(Thing::default()));
        assert_eq!(read(r#"{"List":[null]}"#).unwrap().list, [""]);
        assert_eq!(read(r#"{"Map":{"k":null}}"#).unwrap().map["k"], None);
    }

    #[test]
    fn the_exact_name_wins() {
        assert_eq!(read(r#"{"NAME":"b","Name":"a"}"#).unwrap().name, "a");
        assert_eq!(read(r#"{"nAmE":"b"}"#).unwrap().name, "b");
        assert_eq!(read(r#"{"Map":{"KEY":["v"]}}"#).unwrap().map["KEY"], Some(vec!["v".into()]));
    }

    #[test]
    fn variants_are_names() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Change {
            Added,
        }
        let read = |text: &str| from_slice::<Vec<Change>>(text.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(read(r#"["added"]"#), Ok(vec![Change::Added]));
        assert_eq!(read(r#"["gone"]"#), Err("unknown variant `gone`, expected `added`".to_owned()));
        assert_eq!(read("[1]"), Err("json: cannot unmarshal number into Go value of type string".to_owned()));
    }

    #[test]
    fn errors_name_the_field() {
        let cases = [
            ("", "EOF"),
            ("{", "unexpected EOF"),
            ("[]", "json: cannot unmarshal array into Go value of type Thing"),
            (
                r#"{"Size":-1}"#,
                "json: cannot unmarshal number -1 into Go struct field Thing.Size of type uint16",
            ),
            (
                r#"{"Size":1.5}"#,
                "json: cannot unmarshal number 1.5 into Go struct field Thing.Size of type uint16",
            ),
            (r#"{"On":"yes"}"#, "json: cannot unmarshal string into Go struct field Thing.On of type bool"),
            (
                r#"{"Inner":{"Inner":{"Name":[]}}}"#,
                "json: cannot unmarshal array into Go struct field Thing.Inner.Inner.Name of type string",
            ),
            (
                r#"{"List":3}"#,
                "json: cannot unmarshal number into Go struct field Thing.List of type []string",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(read(text).unwrap_err(), message, "{text}");
        }
        assert_eq!(read("{} x").unwrap_err(), "unexpected content after JSON");
        assert_eq!(read("{x}").unwrap_err(), "key must be a string at line 1 column 2");
    }
}
