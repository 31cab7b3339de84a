//! The processes of a container.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use ponton_api::container::TopResponse;

use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::lifecycle::State;

/// The columns of `ps -ef`.
const TITLES: &[&str] = &["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
/// Ticks of the kernel's clock in a second (USER_HZ).
const TICKS: u64 = 100;

impl Engine {
    /// The processes. `ps_args` as for ps(1); empty for `-ef`.
    pub async fn top(self: &Arc<Self>, name: &str, ps_args: &str) -> Result<TopResponse> {
        check_arguments(ps_args)?;
        let container = self.find(name)?;
        if matches!(container.view().life.state, State::Restarting { .. }) {
            return Err(Error::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        let group = container
            .change(|task| {
                Box::pin(async move {
                    if !task.is_running() {
                        return Err(Error::not_running(task.id()));
                    }
                    task.control_group()
                })
            })
            .await?;
        super::emit(self, &container.id, &container.view(), "top", &[]);
        let args: Vec<String> = ps_args.split_whitespace().map(str::to_owned).collect();
        blocking(move || {
            let pids: BTreeSet<u32> = group.pids()?.into_iter().collect();
            match args.is_empty() || args == ["-ef"] {
                true => Ok(full_listing(&pids)),
                false => listing_by_ps(&args, &pids),
            }
        })
        .await
    }
}

/// Docker looks for the column PID: no other may be called so.
fn check_arguments(ps_args: &str) -> Result<()> {
    let mut words = ps_args.split_whitespace().skip(1);
    let renamed = words.find_map(|word| {
        let (column, title) = word.split_once('=')?;
        (column != "pid" && title.starts_with("PID")).then_some((column, title))
    });
    match renamed {
        Some((column, title)) => {
            Err(Error::invalid(format!("specifying \"{column}={title}\" is not allowed")))
        }
        None => Ok(()),
    }
}

fn full_listing(pids: &BTreeSet<u32>) -> TopResponse {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let boot = boot_time();
    let now = jiff::Timestamp::now().as_second();
    let processes = pids.iter().filter_map(|pid| row(*pid, &users, boot, now)).collect();
    TopResponse { titles: TITLES.iter().map(|&title| title.to_owned()).collect(), processes }
}

/// A process as `ps -ef` prints it; `None` when it has ended meanwhile.
fn row(pid: u32, users: &str, boot: i64, now: i64) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    // The name in parentheses may have spaces and parentheses of its own.
    let (head, rest) = stat.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)?;
    let started = boot + (number(19)? / TICKS) as i64;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?;
    let percent = ticks / TICKS * 100 / u64::try_from(now - started).unwrap_or(0).max(1);
    let seconds = ticks / TICKS;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    let command = match command.is_empty() {
        true => format!("[{}]", head.split_once('(')?.1),
        false => command,
    };
    Some(vec![
        user_name(users, uid),
        pid.to_string(),
        fields.get(1)?.to_string(),
        percent.to_string(),
        start_time(started, now),
        terminal(number(4)?),
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        command,
    ])
}

fn user_name(users: &str, uid: &str) -> String {
    users
        .lines()
        .find(|line| line.split(':').nth(2) == Some(uid))
        .and_then(|line| line.split(':').next())
        .unwrap_or(uid)
        .to_owned()
}

/// The hour, or the day of a process that has run longer.
fn start_time(started: i64, now: i64) -> String {
    let Ok(time) = jiff::Timestamp::from_second(started) else { return "?".into() };
    let local = time.to_zoned(jiff::tz::TimeZone::system());
    let format = if now - started < 24 * 3600 { "%H:%M" } else { "%b%d" };
    local.strftime(format).to_string()
}

/// The name of a terminal by its device number.
fn terminal(device: u64) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    match major {
        0 => "?".into(),
        4 => format!("tty{minor}"),
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        _ => "?".into(),
    }
}

fn boot_time() -> i64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0)
}

/// What the host's ps prints for these processes.
fn listing_by_ps(args: &[String], pids: &BTreeSet<u32>) -> Result<TopResponse> {
    let output = Command::new("ps").args(args).output().map_err(|error| {
        let hint = "ps options other than -ef need the ps program on the host";
        Error::failed(format!("run ps ({hint})"), error)
    })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Error::invalid(format!("error running ps: {}: {}", output.status, text.trim())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let Some(column) = titles.iter().position(|title| title == "PID") else {
        return Err(Error::invalid("Couldn't find PID field in ps output"));
    };
    let processes = lines
        .filter_map(|line| fields(line, titles.len()))
        .filter(|fields| {
            fields.get(column).and_then(|pid| pid.parse().ok()).is_some_and(|pid| pids.contains(&pid))
        })
        .collect();
    Ok(TopResponse { titles, processes })
}

/// The words of a line; all that is too much belongs to the last one.
fn fields(line: &str, count: usize) -> Option<Vec<String>> {
    let mut rest = line.trim_start();
    let mut fields = Vec::with_capacity(count);
    while fields.len() + 1 < count {
        let end = rest.find(char::is_whitespace)?;
        fields.push(rest[..end].to_owned());
        rest = rest[end..].trim_start();
    }
    fields.push(rest.to_owned());
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_field_takes_the_rest() {
        assert_eq!(fields("  1 root  sh -c true", 3).unwrap(), ["1", "root", "sh -c true"]);
        assert_eq!(fields("1", 2), None);
    }

    #[test]
    fn no_other_column_is_called_pid() {
        assert!(check_arguments("").is_ok() && check_arguments("-eo pid,comm").is_ok());
        let error = check_arguments("-e -o comm=PID").unwrap_err();
        assert_eq!(error.message, "specifying \"comm=PID\" is not allowed");
    }

    #[test]
    fn this_process_is_listed() {
        let pid = std::process::id();
        let response = full_listing(&BTreeSet::from([pid]));
        assert_eq!(response.titles, TITLES);
        assert_eq!(response.processes[0][1], pid.to_string());
        assert!(response.processes[0][7].contains("ponton_engine"));
    }
}
