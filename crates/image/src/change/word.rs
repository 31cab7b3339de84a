//! Words of an instruction, as a Dockerfile has them: quotes, escapes, and variables.

use std::iter::Peekable;
use std::str::Chars;

/// Splits at blanks outside of quotes. Quotes and escapes stay in the words, for [`expand`].
pub(super) fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, ' ' | '\t') => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None | Some('"'), '\\') => {
                word.push(character);
                word.extend(characters.next());
                continue;
            }
            _ => {}
        }
        word.push(character);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Takes quotes and escapes away and puts the values of variables in: `$NAME`, `${NAME}`, and
/// `${NAME:-word}` with `-`, `+` and `?`, with or without the colon. The error says what is wrong.
pub(super) fn expand(word: &str, environment: &[String]) -> Result<String, String> {
    let mut expansion = Expansion { rest: word.chars().peekable(), environment, depth: 0 };
    expansion.until(None)
}

/// Words in words that `${…:-…}` may have.
const MAX_DEPTH: usize = 32;

struct Expansion<'a> {
    rest: Peekable<Chars<'a>>,
    environment: &'a [String],
    depth: usize,
}

impl Expansion<'_> {
    /// To the end, or to a character that is taken away too.
    fn until(&mut self, stop: Option<char>) -> Result<String, String> {
        let mut result = String::new();
        loop {
            match self.rest.next() {
                None if stop.is_none() => return Ok(result),
                None => return Err("unexpected end of statement: a variable's } is missing".to_owned()),
                next if next == stop => return Ok(result),
                Some('\'') => self.single_quoted(&mut result)?,
                Some('"') => self.double_quoted(&mut result)?,
                Some('$') => result.push_str(&self.variable()?),
                Some('\\') => result.extend(self.rest.next()),
                Some(character) => result.push(character),
            }
        }
    }

    fn single_quoted(&mut self, result: &mut String) -> Result<(), String> {
        loop {
            match self.rest.next() {
                Some('\'') => return Ok(()),
                Some(character) => result.push(character),
                None => {
                    return Err("unexpected end of statement while looking for matching single-quote".into());
                }
            }
        }
    }

    fn double_quoted(&mut self, result: &mut String) -> Result<(), String> {
        loop {
            match self.rest.next() {
                Some('"') => return Ok(()),
                Some('$') => result.push_str(&self.variable()?),
                Some('\\') => match self.rest.peek() {
                    Some('"' | '$' | '\\') => result.extend(self.rest.next()),
                    Some(_) => result.push('\\'),
                    None => {}
                },
                Some(character) => result.push(character),
                None => {
                    return Err("unexpected end of statement while looking for matching double-quote".into());
                }
            }
        }
    }

    /// What stands after a dollar sign.
    fn variable(&mut self) -> Result<String, String> {
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(if name.is_empty() { "$".to_owned() } else { self.value(&name).unwrap_or_default() });
        }
        let name = self.name();
        if name.is_empty() {
            return Err("syntax error: bad substitution".to_owned());
        }
        let value = self.value(&name);
        let has_colon = self.rest.next_if_eq(&':').is_some();
        let operator = self.rest.next();
        if operator == Some('}') && !has_colon {
            return Ok(value.unwrap_or_default());
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("variables are nested too deeply".to_owned());
        }
        let word = match operator {
            Some('-' | '+' | '?') => self.until(Some('}'))?,
            _ => return Err(format!("unsupported modifier in substitution of {name}")),
        };
        self.depth -= 1;
        let value = value.filter(|value| !has_colon || !value.is_empty());
        match (operator, value) {
            (Some('+'), value) => Ok(value.map(|_| word).unwrap_or_default()),
            (_, Some(value)) => Ok(value),
            (Some('?'), None) if word.is_empty() => Err(format!("{name}: is not allowed to be unset")),
            (Some('?'), None) => Err(format!("{name}: {word}")),
            (_, None) => Ok(word),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        // Special parameters are one character, and never set.
        let is_special = |character: &char| character.is_ascii_digit() || "@*#?-!".contains(*character);
        if let Some(special) = self.rest.next_if(is_special) {
            name.push(special);
            return name;
        }
        while let Some(character) = self.rest.next_if(|next| next.is_ascii_alphanumeric() || *next == '_') {
            name.push(character);
        }
        name
    }

    fn value(&self, name: &str) -> Option<String> {
        let variable = self.environment.iter().find_map(|variable| {
            let (known, value) = variable.split_once('=')?;
            (known == name).then_some(value)
        });
        variable.map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_quotes() {
        assert_eq!(split(r#"a=1  b="x y" c='d  e' f=g\ h"#), ["a=1", "b=\"x y\"", "c='d  e'", "f=g\\ h"]);
        assert_eq!(split(""), [""; 0]);
    }

    #[test]
    fn quotes_escapes_and_variables() {
        let environment = ["PATH=/bin".to_owned(), "EMPTY=".to_owned()];
        let cases = [
            (r"$PATH:/x", "/bin:/x"),
            (r#""${PATH}:/x y""#, "/bin:/x y"),
            ("'$PATH'", "$PATH"),
            (r"\$PATH", "$PATH"),
            (r#""\$PATH \x""#, r"$PATH \x"),
            ("$NONE|", "|"),
            ("${NONE:-d$PATH}", "d/bin"),
            ("${EMPTY:-d}${EMPTY-d}", "d"),
            ("${PATH:+yes}${EMPTY:+no}${EMPTY+set}", "yesset"),
            ("a$", "a$"),
            ("$1x", "x"),
        ];
        for (word, expected) in cases {
            assert_eq!(expand(word, &environment).as_deref(), Ok(expected), "{word}");
        }
        let nested = "${A:-".repeat(100);
        for word in ["'a", "\"a", "${PATH", "${}", "${PATH:x}", "${NONE?}", "${PATH/a/b}", &nested] {
            assert!(expand(word, &environment).is_err(), "{word}");
        }
    }
}
