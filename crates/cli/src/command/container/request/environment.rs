//! `-e`, `--env-file`, `-l`, `--label-file`.

use ponton_api::container::StringMap;

use crate::error::Error;
use crate::value;

/// The variables of the files, then those of the flags; `KEY` alone takes the caller's value, and is left
/// out if the caller has none.
pub(crate) fn environment(given: &[String], files: &[String]) -> Result<Vec<String>, Error> {
    let mut variables = Vec::new();
    for file in files {
        for line in lines(file)? {
            check_key(&line, file, "variable")?;
            variables.extend(with_caller_value(&line));
        }
    }
    for text in given {
        value::check_env(text).map_err(Error::Invalid)?;
        // Without a value in the caller's environment, the bare key tells the daemon to drop the image's.
        variables.push(with_caller_value(text).unwrap_or_else(|| text.clone()));
    }
    Ok(variables)
}

fn with_caller_value(text: &str) -> Option<String> {
    if text.contains('=') {
        return Some(text.to_owned());
    }
    let value = std::env::var_os(text)?;
    Some(format!("{text}={}", value.to_string_lossy()))
}

/// The labels of the files, then those of the flags.
pub(crate) fn labels(given: &[String], files: &[String]) -> Result<StringMap, Error> {
    let mut all = Vec::new();
    for file in files {
        for line in lines(file)? {
            check_key(&line, file, "label")?;
            all.push(line);
        }
    }
    all.extend(given.iter().cloned());
    let split = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (key.to_owned(), value.to_owned())
    };
    Ok(all.iter().map(split).collect())
}

/// The lines that are neither empty nor comments.
fn lines(path: &str) -> Result<Vec<String>, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::file("open", path, source))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::invalid(format!("invalid env file ({path}): invalid utf8 bytes")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect())
}

fn check_key(line: &str, file: &str, what: &str) -> Result<(), Error> {
    let key = line.split_once('=').map_or(line, |(key, _)| key);
    if key.is_empty() {
        return Err(Error::invalid(format!("invalid env file ({file}): no {what} name on line '{line}'")));
    }
    if key.contains(char::is_whitespace) {
        return Err(Error::invalid(format!(
            "invalid env file ({file}): {what} '{key}' contains whitespaces"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn files_come_first_and_comments_do_not_count() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"\xef\xbb\xbf# comment\n\nA=1\n  B=two words\nNO_SUCH_VARIABLE_HERE\n").unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let got = environment(&["C=3".to_owned(), "NO_SUCH_VARIABLE_HERE".to_owned()], &[path]).unwrap();
        assert_eq!(got, ["A=1", "B=two words", "C=3", "NO_SUCH_VARIABLE_HERE"]);
    }

    #[test]
    fn a_bad_line_names_its_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"A B=1\n").unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let message = environment(&[], std::slice::from_ref(&path)).unwrap_err().to_string();
        assert_eq!(message, format!("invalid env file ({path}): variable 'A B' contains whitespaces"));
    }
}
