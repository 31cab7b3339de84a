//! What two runs of one command never have in common.

use crate::Ran;

/// Ids, times and the program's own name become placeholders.
pub fn normalised(ran: &Ran) -> Ran {
    Ran { code: ran.code, stdout: placeholders(&ran.stdout), stderr: placeholders(&ran.stderr) }
}

/// As [`normalised`], of one text.
pub fn placeholders(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_alphanumeric() || "-:.".contains(c) {
            word.push(c);
            continue;
        }
        out.push_str(&placeholder(&word));
        word.clear();
        if c != '\0' {
            out.push(c);
        }
    }
    let mut out = out.replace("docker: ", "PROGRAM: ").replace("ponton: ", "PROGRAM: ");
    for before in ["'", "\"", "Usage:  "] {
        for program in ["docker", "ponton"] {
            out = out.replace(&format!("{before}{program} "), &format!("{before}PROGRAM "));
        }
    }
    out
}

fn placeholder(word: &str) -> String {
    let core = word.trim_end_matches(['.', ':']);
    let rest = &word[core.len()..];
    let hex = core.strip_prefix("sha256:").unwrap_or(core);
    let is_id = (hex.len() == 64 || hex.len() == 12) && hex.chars().all(|c| c.is_ascii_hexdigit());
    let is_time = core.len() >= 20 && core.ends_with('Z') && core.as_bytes().get(10) == Some(&b'T');
    if is_id {
        format!("ID{}{rest}", hex.len())
    } else if is_time {
        format!("TIME{rest}")
    } else {
        word.to_owned()
    }
}
