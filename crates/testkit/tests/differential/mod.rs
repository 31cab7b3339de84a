//! The table of calls, `calls.txt`.

/// One call, and what is known of its answers.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Header lines.
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
    /// The words of the error are others, for a reason that the table gives.
    pub(crate) has_other_words: bool,
    /// The statuses, too.
    pub(crate) may_differ: bool,
}

/// The calls, in their order.
pub(crate) fn calls() -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for line in include_str!("calls.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        let Some(call) = calls.last_mut().filter(|_| first.len() == 1) else {
            let versioned = rest.starts_with("/v1.") || rest.starts_with("/_ping");
            let path = if versioned { rest.to_owned() } else { format!("/v1.41{rest}") };
            calls.push(Call { method: first.to_owned(), path, ..Call::default() });
            continue;
        };
        match first {
            "!" => call.headers.push_str(&format!("{rest}\r\n")),
            "|" => call.body = bytes(rest),
            "~" => call.has_other_words = true,
            "?" => call.may_differ = true,
            _ => panic!("a line that is not understood: {line}"),
        }
    }
    for call in &mut calls {
        if !call.body.is_empty() && call.headers.is_empty() {
            call.headers = "Content-Type: application/json\r\n".into();
        }
    }
    calls
}

/// `\xNN` is a byte.
fn bytes(text: &str) -> Vec<u8> {
    let mut parts = text.split("\\x");
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        out.push(u8::from_str_radix(&part[..2], 16).unwrap_or_else(|_| panic!("no byte: \\x{part}")));
        out.extend_from_slice(&part.as_bytes()[2..]);
    }
    out
}
