//! Notes to the user, as docker's client writes them: `Info -> …`, on terminals in colours.

use std::io::IsTerminal;

/// A note for `stream`, its further lines indented below its first.
pub(crate) fn note(stream: &impl IsTerminal, text: &str) -> String {
    let colours = stream.is_terminal();
    let head = if colours {
        "\x1b[1m\x1b[106m\x1b[30mi\x1b[0m\x1b[0m \x1b[96mInfo → \x1b[0m\x1b[0m"
    } else {
        " Info -> "
    };
    let line = |line: &str| if colours { format!("\x1b[3m{line}\x1b[0m\n") } else { format!("{line}\n") };
    let lines: Vec<String> = text.split('\n').map(line).collect();
    format!("\n{head}{}", lines.join("         "))
}

#[cfg(test)]
mod tests {
    use super::note;

    #[test]
    fn lines_are_indented_as_dockers() {
        let pipe = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(note(&pipe, "One\ntwo"), "\n Info -> One\n         two\n");
    }
}
