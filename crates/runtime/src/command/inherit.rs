//! Descriptors that are handed on to the container: those of socket activation (sd_listen_fds(3)) and
//! those of `--preserve-fds`. They keep their numbers, from 3 on.

use super::Failure;

/// What is handed on.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    /// How many descriptors.
    pub(super) count: u32,
    /// What tells the program about them.
    pub(super) env: Vec<String>,
}

impl Inherited {
    /// What was inherited, `preserved` beside those of socket activation. To be asked before anything
    /// is opened.
    pub(super) fn find(preserved: u32) -> Result<Self, Failure> {
        let listening = listening(
            std::env::var("LISTEN_PID").ok().as_deref(),
            std::env::var("LISTEN_FDS").ok().as_deref(),
            std::process::id(),
        );
        let count = listening.saturating_add(preserved);
        // More than a process may have is none the less one clear error.
        for number in 3..count.saturating_add(3) {
            if !std::path::Path::new("/proc/self/fd").join(number.to_string()).exists() {
                return Err(format!("--preserve-fds: there is no descriptor {number}").into());
            }
        }
        let mut env = Vec::new();
        if listening > 0 {
            env.extend([format!("LISTEN_FDS={listening}"), "LISTEN_PID=1".to_owned()]);
            env.extend(std::env::var("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}")));
        }
        Ok(Self { count, env })
    }
}

/// How many descriptors of socket activation are meant for the process `own`.
fn listening(pid: Option<&str>, count: Option<&str>, own: u32) -> u32 {
    let is_ours = pid.and_then(|pid| pid.parse().ok()) == Some(own);
    count.and_then(|count| count.parse().ok()).filter(|_| is_ours).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::listening;

    #[test]
    fn sockets_for_others_are_not_ours() {
        assert_eq!(listening(Some("7"), Some("2"), 7), 2);
        assert_eq!(listening(Some("8"), Some("2"), 7), 0);
        assert_eq!(listening(None, Some("2"), 7), 0);
        assert_eq!(listening(Some("7"), Some("x"), 7), 0);
        assert_eq!(listening(Some("7"), None, 7), 0);
    }
}
