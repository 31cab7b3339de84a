use ponton_api::check::CheckReport;
use ponton_api::unit;

use crate::command::{Command, Invocation};
use crate::error::Error;
use crate::flag::Flag;
use crate::output;
use crate::progress::{self, Target};

/// `ponton image check`.
pub(super) static CHECK: Command = Command::new(
    "check",
    "[OPTIONS]",
    "Verify every blob, layer and record of the store against its digest.\n\
     The exit code is 1 if anything is wrong that was not repaired.",
    |call| Box::pin(check(call)),
)
.flags(&[&[
    Flag::text("format", "Print the report as json"),
    Flag::switch("quiet", "Say nothing of the progress").short('q'),
    Flag::switch("repair", "Repair what can be repaired"),
]]);

async fn check(call: Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    if !matches!(flags.text("format"), "" | "json") {
        return Err(Error::invalid("invalid format: the only one is json"));
    }
    let messages = call.context.client().await?.image_check(flags.on("repair")).await?;
    let target = if flags.on("quiet") { Target::Nowhere } else { Target::Stderr };
    let mut last = None;
    progress::show(messages, target, |value| last = Some(value)).await?;
    let decode = |value| serde_json::from_value::<CheckReport>(value).map_err(|error| error.to_string());
    let last = last.ok_or_else(|| Error::invalid("the daemon's answer ended without a report"))?;
    if flags.text("format") == "json" {
        output::print_line(&last.to_string())?;
    }
    let report =
        decode(last).map_err(|error| Error::invalid(format!("decode the daemon's report: {error}")))?;
    if flags.text("format").is_empty() {
        output::print(&text(&report))?;
    }
    Ok(u8::from(report.problems.iter().any(|problem| !problem.repaired)))
}

fn text(report: &CheckReport) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let end = if problem.repaired { " (repaired)" } else { "" };
        text.push_str(&format!("{} {}: {}{end}\n", problem.kind, problem.id, problem.message));
    }
    let count = report.problems.len();
    let left = report.problems.iter().filter(|problem| !problem.repaired).count();
    let found = match (count, left) {
        (0, _) => "nothing is wrong".to_owned(),
        (1, 0) => "1 problem was repaired".to_owned(),
        (_, 0) => format!("{count} problems were repaired"),
        (1, _) => "1 problem was found".to_owned(),
        (_, left) if left == count => format!("{count} problems were found"),
        _ => format!("{count} problems were found, {left} of them not repaired"),
    };
    text.push_str(&format!(
        "Checked images: {}, layers: {}, blobs: {} ({}): {found}\n",
        report.images,
        report.layers,
        report.blobs,
        unit::human_size(report.bytes as i64)
    ));
    text
}

#[cfg(test)]
mod tests {
    use ponton_api::check::Problem;

    use super::*;

    #[test]
    fn the_report_names_what_is_wrong() {
        let mut report = CheckReport { images: 2, layers: 3, blobs: 9, bytes: 1_500, problems: Vec::new() };
        assert_eq!(text(&report), "Checked images: 2, layers: 3, blobs: 9 (1.5kB): nothing is wrong\n");
        let problem = |id: &str, repaired| Problem {
            kind: "blob".to_owned(),
            id: id.to_owned(),
            message: "has other bytes than its digest says".to_owned(),
            repaired,
        };
        report.problems = vec![problem("a", true), problem("b", false)];
        assert_eq!(
            text(&report),
            "blob a: has other bytes than its digest says (repaired)\n\
             blob b: has other bytes than its digest says\n\
             Checked images: 2, layers: 3, blobs: 9 (1.5kB): 2 problems were found, 1 of them not repaired\n"
        );
    }
}
