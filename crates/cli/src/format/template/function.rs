//! The functions of templates.

use std::cmp::Ordering;

use crate::format::data::Data;

pub(super) const NAMES: &[&str] = &[
    "and", "eq", "ge", "gt", "html", "index", "join", "js", "json", "le", "len", "lower", "lt", "ne", "not",
    "or", "pad", "print", "printf", "println", "slice", "split", "title", "truncate", "upper", "urlquery",
];

pub(super) fn call(name: &str, arguments: &[Data]) -> Result<Data, String> {
    match (name, arguments) {
        ("and", [.., last]) => Ok(arguments.iter().find(|value| !value.is_true()).unwrap_or(last).clone()),
        ("or", [.., last]) => Ok(arguments.iter().find(|value| value.is_true()).unwrap_or(last).clone()),
        ("not", [value]) => Ok(Data::Bool(!value.is_true())),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => {
            Ok(Data::Bool(rest.iter().any(|other| same(first, other))))
        }
        ("ne", [left, right]) => Ok(Data::Bool(!same(left, right))),
        ("lt" | "le" | "gt" | "ge", [left, right]) => {
            let order = compare(left, right)?;
            Ok(Data::Bool(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            }))
        }
        ("index", [base, keys @ ..]) => keys.iter().try_fold(base.clone(), |value, key| index(&value, key)),
        ("len", [value]) => length(value).map(|length| Data::Int(length as i64)),
        ("slice", [value, bounds @ ..]) => slice(value, bounds),
        ("json", [value]) => Ok(Data::String(value.to_json())),
        ("join", [Data::Array(items), Data::String(separator)]) => {
            let items: Vec<String> = items.iter().map(Data::to_string).collect();
            Ok(Data::String(items.join(separator)))
        }
        ("join", [Data::Null, Data::String(_)]) => Ok(Data::from("")),
        ("split", [Data::String(text), Data::String(separator)]) => {
            Ok(Data::Array(text.split(separator.as_str()).map(Data::from).collect()))
        }
        ("lower", [Data::String(text)]) => Ok(Data::String(text.to_lowercase())),
        ("upper", [Data::String(text)]) => Ok(Data::String(text.to_uppercase())),
        ("title", [Data::String(text)]) => Ok(Data::String(title(text))),
        ("pad", [Data::String(text), Data::Int(before), Data::Int(after)]) => {
            if text.is_empty() {
                return Ok(Data::from(""));
            }
            let blanks = |count: &i64| " ".repeat(usize::try_from(*count).unwrap_or(0).min(1 << 16));
            Ok(Data::String(format!("{}{text}{}", blanks(before), blanks(after))))
        }
        ("truncate", [Data::String(text), Data::Int(length)]) => {
            Ok(Data::String(text.chars().take(usize::try_from(*length).unwrap_or(0)).collect()))
        }
        ("print", _) => Ok(Data::String(print(arguments))),
        ("println", _) => {
            let parts: Vec<String> = arguments.iter().map(Data::to_string).collect();
            Ok(Data::String(format!("{}\n", parts.join(" "))))
        }
        ("html", _) => Ok(Data::String(html(&value(arguments)))),
        ("js", _) => Ok(Data::String(js(&value(arguments)))),
        ("urlquery", _) => Ok(Data::String(urlquery(&value(arguments)))),
        ("printf", [Data::String(format), values @ ..]) => Ok(Data::String(printf(format, values))),
        _ => Err(format!("wrong arguments for {name}")),
    }
}

fn same(left: &Data, right: &Data) -> bool {
    match (left, right) {
        (Data::Null | Data::Missing, Data::Null | Data::Missing) => true,
        _ => left == right || compare(left, right) == Ok(Ordering::Equal),
    }
}

fn compare(left: &Data, right: &Data) -> Result<Ordering, String> {
    match (left, right) {
        (Data::Int(left), Data::Int(right)) => Ok(left.cmp(right)),
        (Data::String(left), Data::String(right)) => Ok(left.cmp(right)),
        (Data::Int(left), Data::Float(right)) => Ok((*left as f64).total_cmp(right)),
        (Data::Float(left), Data::Int(right)) => Ok(left.total_cmp(&(*right as f64))),
        (Data::Float(left), Data::Float(right)) => Ok(left.total_cmp(right)),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn index(value: &Data, key: &Data) -> Result<Data, String> {
    match (value, key) {
        (Data::Array(items), Data::Int(at)) => usize::try_from(*at)
            .ok()
            .and_then(|at| items.get(at).cloned())
            .ok_or_else(|| format!("index out of range: {at}")),
        (Data::Map(members) | Data::Struct(members), Data::String(name)) => {
            let found = members.iter().find(|(key, _)| key == name);
            // Go gives a map's zero value, which for Docker's maps is the empty string.
            Ok(found.map_or_else(|| Data::from(""), |(_, value)| value.clone()))
        }
        (Data::Null | Data::Missing, Data::String(_)) => Ok(Data::from("")),
        (Data::Null | Data::Missing, _) => Err("index of untyped nil".to_owned()),
        (value, key) => Err(format!("cannot index {value} with {key}")),
    }
}

fn length(value: &Data) -> Result<usize, String> {
    match value {
        Data::String(text) => Ok(text.len()),
        Data::Array(items) => Ok(items.len()),
        Data::Map(members) | Data::Struct(members) => Ok(members.len()),
        Data::Null | Data::Missing => Ok(0),
        other => Err(format!("len of {other}")),
    }
}

fn slice(value: &Data, bounds: &[Data]) -> Result<Data, String> {
    let bound = |at: usize, default: usize| match bounds.get(at) {
        Some(Data::Int(bound)) => usize::try_from(*bound).map_err(|_| format!("index out of range: {bound}")),
        None => Ok(default),
        Some(other) => Err(format!("cannot index slice with {other}")),
    };
    let (from, to) = (bound(0, 0)?, bound(1, length(value)?)?);
    let range = || format!("index out of range: {to}");
    match value {
        Data::String(text) => text.get(from..to).map(Data::from).ok_or_else(range),
        Data::Array(items) => items.get(from..to).map(|items| Data::Array(items.to_vec())).ok_or_else(range),
        other => Err(format!("can't slice {other}")),
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    let capitalise = |letter: char| {
        let upper = start;
        start = !letter.is_alphanumeric() && letter != '_';
        if upper { letter.to_uppercase().collect::<String>() } else { letter.to_string() }
    };
    text.chars().map(capitalise).collect()
}

/// Go's `Sprint`: a blank between two operands of which none is a string.
fn print(arguments: &[Data]) -> String {
    let mut out = String::new();
    for (index, value) in arguments.iter().enumerate() {
        let text = |value: &Data| matches!(value, Data::String(_));
        if index > 0 && !text(value) && !text(&arguments[index - 1]) {
            out.push(' ');
        }
        out.push_str(&value.to_string());
    }
    out
}

/// The text that is escaped: `nil` is no value here.
fn value(arguments: &[Data]) -> String {
    match arguments {
        [Data::Null] => Data::Missing.to_string(),
        _ => print(arguments),
    }
}

fn html(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\0' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// Escaped for a string of JavaScript.
fn js(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '\\' | '\'' | '"' => out.extend(['\\', letter]),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(letter))),
            letter if letter.is_control() && letter != '\x7f' => {
                out.push_str(&format!("\\u{:04X}", u32::from(letter)));
            }
            other => out.push(other),
        }
    }
    out
}

/// Escaped for a query of a URL.
fn urlquery(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => out.push(byte.into()),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Go's `Sprintf` with `%s %v %d %q %t %f %x %%`, a width, a precision, `-` and `0`.
fn printf(format: &str, values: &[Data]) -> String {
    let mut out = String::new();
    let mut values = values.iter();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let (mut left, mut zero, mut width, mut precision) = (false, false, 0usize, None);
        while let Some(flag) = letters.next_if(|letter| "-+ #0".contains(*letter)) {
            left |= flag == '-';
            zero |= flag == '0';
        }
        while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
            width = (width * 10 + digit as usize).min(1 << 16);
            letters.next();
        }
        if letters.next_if_eq(&'.').is_some() {
            let mut digits = 0usize;
            while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
                digits = (digits * 10 + digit as usize).min(1 << 10);
                letters.next();
            }
            precision = Some(digits);
        }
        let Some(verb) = letters.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let text = match values.next() {
            Some(value) => verb_text(verb, value, precision),
            None => format!("%!{verb}(MISSING)"),
        };
        let blanks = width.saturating_sub(text.chars().count());
        match (left, zero) {
            (true, _) => out.push_str(&format!("{text}{}", " ".repeat(blanks))),
            (false, true) => out.push_str(&format!("{}{text}", "0".repeat(blanks))),
            (false, false) => out.push_str(&format!("{}{text}", " ".repeat(blanks))),
        }
    }
    out
}

fn verb_text(verb: char, value: &Data, precision: Option<usize>) -> String {
    match (verb, value) {
        ('s' | 'v', Data::String(text)) => match precision {
            Some(length) => text.chars().take(length).collect(),
            None => text.clone(),
        },
        ('s' | 'v', value) => value.to_string(),
        ('d', Data::Int(value)) => value.to_string(),
        ('x', Data::Int(value)) => format!("{value:x}"),
        ('x', Data::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('q', Data::String(text)) => format!("{text:?}"),
        ('t', Data::Bool(value)) => value.to_string(),
        ('f', Data::Float(value)) => format!("{value:.*}", precision.unwrap_or(6)),
        (verb, value) => format!("%!{verb}({}={value})", go_type(value)),
    }
}

fn go_type(value: &Data) -> &'static str {
    match value {
        Data::Null | Data::Missing => "<nil>",
        Data::Bool(_) => "bool",
        Data::Int(_) => "int",
        Data::Float(_) => "float64",
        Data::String(_) => "string",
        Data::Array(_) => "[]interface {}",
        Data::Struct(_) | Data::Map(_) => "map[string]interface {}",
    }
}
