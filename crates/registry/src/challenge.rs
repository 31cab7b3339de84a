//! What a registry wants to see: `WWW-Authenticate` (RFC 9110, 11.6.1).

use std::collections::BTreeMap;

/// One challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// `bearer`, `basic`, in lower case.
    pub scheme: String,
    /// Parameters; names in lower case.
    pub parameters: BTreeMap<String, String>,
}

/// All challenges of a header. What can't be understood is passed over: a registry that makes no sense is one
/// that asks for nothing.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut rest = Rest(header);
    let mut challenges: Vec<Challenge> = Vec::new();
    loop {
        rest.skip(|c| c.is_ascii_whitespace() || c == ',');
        let word = rest.token();
        if word.is_empty() {
            // Whatever stands there, it is no word: go on behind it.
            if rest.0.is_empty() {
                return challenges;
            }
            rest.advance();
            continue;
        }
        let name = word.to_ascii_lowercase();
        rest.skip(|c| c.is_ascii_whitespace());
        match (rest.0.strip_prefix('='), challenges.last_mut()) {
            (Some(value), Some(challenge)) => {
                rest.0 = value;
                rest.skip(|c| c.is_ascii_whitespace());
                challenge.parameters.insert(name, rest.value());
            }
            (Some(value), None) => rest.0 = value,
            (None, _) => challenges.push(Challenge { scheme: name, parameters: BTreeMap::new() }),
        }
    }
}

struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip(&mut self, what: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(what);
    }

    fn advance(&mut self) {
        let mut characters = self.0.chars();
        characters.next();
        self.0 = characters.as_str();
    }

    fn token(&mut self) -> &'a str {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let end = self.0.find(|c| !is_token(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        token
    }

    /// A word or a quoted string. Words are taken up to the next comma: some registries forget the quotes.
    fn value(&mut self) -> String {
        let Some(quoted) = self.0.strip_prefix('"') else {
            let end = self.0.find([',', ' ', '\t']).unwrap_or(self.0.len());
            let (value, rest) = self.0.split_at(end);
            self.0 = rest;
            return value.to_owned();
        };
        let mut value = String::new();
        let mut characters = quoted.chars();
        while let Some(character) = characters.next() {
            match character {
                '"' => break,
                '\\' => value.extend(characters.next()),
                character => value.push(character),
            }
        }
        self.0 = characters.as_str();
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Challenge { scheme: scheme.to_owned(), parameters: parameters.collect() }
    }

    #[test]
    fn reads_what_registries_send() {
        let bearer = challenge(
            "bearer",
            &[
                ("realm", "https://auth.docker.io/token"),
                ("service", "registry.docker.io"),
                ("scope", "repository:library/x:pull,push"),
            ],
        );
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull,push""#;
        for header in [header, &header.replace(',', ", ").replace("l, p", "l,p")] {
            assert_eq!(parse(header), std::slice::from_ref(&bearer), "{header}");
        }
        for (header, expected) in [
            ("", vec![]),
            ("Basic", vec![challenge("basic", &[])]),
            ("Basic realm=\"a \\\"b\\\"\"", vec![challenge("basic", &[("realm", "a \"b\"")])]),
            (
                "Basic realm=\"x\", Bearer realm=http://y/z,service=s",
                vec![
                    challenge("basic", &[("realm", "x")]),
                    challenge("bearer", &[("realm", "http://y/z"), ("service", "s")]),
                ],
            ),
            ("BEARER Realm = \"x\"", vec![challenge("bearer", &[("realm", "x")])]),
            ("Bearer realm=\"unended", vec![challenge("bearer", &[("realm", "unended")])]),
            ("= , é \u{0} =x", vec![challenge("x", &[])]),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
    }
}
