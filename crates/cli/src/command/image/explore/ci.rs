//! Thresholds for continuous integration, with dive's names, files and words.

use std::fmt::Write as _;
use std::path::Path;

use ponton_api::explore::Exploration;

use crate::error::Error;
use crate::flag::Flags;

/// `off` for a rule that is not applied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rules {
    lowest_efficiency: Option<f64>,
    highest_wasted_bytes: Option<u64>,
    highest_user_wasted: Option<f64>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { lowest_efficiency: Some(0.9), highest_wasted_bytes: None, highest_user_wasted: Some(0.1) }
    }
}

const EFFICIENCY: &str = "lowestEfficiency";
const WASTED_BYTES: &str = "highestWastedBytes";
const USER_WASTED: &str = "highestUserWastedPercent";

impl Rules {
    /// dive's defaults, changed by a file if it is there, and that by flags.
    pub(super) fn new(path: &str, flags: &Flags) -> Result<Self, Error> {
        let mut rules = Self::default();
        if Path::new(path).exists() || flags.is_set("ci-config") {
            let text = std::fs::read_to_string(path).map_err(|source| Error::file("read", path, source))?;
            rules.read(&text).map_err(|reason| Error::invalid(format!("{path}: {reason}")))?;
        }
        for name in [EFFICIENCY, WASTED_BYTES, USER_WASTED] {
            if let Some(value) = flags.given(name) {
                rules.set(name, value).map_err(Error::Invalid)?;
            }
        }
        Ok(rules)
    }

    /// Reads `rules:` with one `name: value` a line.
    fn read(&mut self, text: &str) -> Result<(), String> {
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let Some((name, value)) = line.split_once(':') else {
                if matches!(line, "" | "---") {
                    continue;
                }
                return Err(format!("{line:?} is not of the form name: value"));
            };
            let value = value.trim().trim_matches(['"', '\'']);
            if name.trim() != "rules" {
                self.set(name.trim(), value)?;
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let ratio = || {
            let number = value.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
            number.map(Some).ok_or_else(|| format!("{name}: {value:?} is not a number between 0 and 1"))
        };
        let is_off = value == "disabled";
        let plain = name.replace(['-', '_'], "").to_ascii_lowercase();
        match plain.as_str() {
            "lowestefficiency" => self.lowest_efficiency = if is_off { None } else { ratio()? },
            "highestuserwastedpercent" => self.highest_user_wasted = if is_off { None } else { ratio()? },
            "highestwastedbytes" if is_off => self.highest_wasted_bytes = None,
            "highestwastedbytes" => {
                self.highest_wasted_bytes =
                    Some(bytes(value).ok_or_else(|| format!("{name}: {value:?} is not a size"))?);
            }
            _ => return Err(format!("unknown rule {name:?}")),
        }
        Ok(())
    }

    /// The verdict in dive's words, and whether all is well.
    pub(super) fn judge(&self, image: &Exploration) -> (String, bool) {
        let wasted = self.highest_user_wasted.map(|limit| {
            let share = image.user_wasted;
            (share >= limit && share > 0.0).then(|| format!("too many bytes wasted, relative to the user bytes added (%-user-wasted-bytes={share} > threshold={limit})"))
        });
        let bytes = self.highest_wasted_bytes.map(|limit| {
            let bytes = image.wasted_bytes;
            (bytes > limit)
                .then(|| format!("too many bytes wasted (wasted-bytes={bytes} > threshold={limit})"))
        });
        let efficiency = self.lowest_efficiency.map(|limit| {
            let score = image.efficiency;
            (score < limit)
                .then(|| format!("image efficiency is too low (efficiency={score} < threshold={limit})"))
        });
        let (mut text, mut counts) = ("Results:\n".to_owned(), [0, 0, 0]);
        for (name, verdict) in [(USER_WASTED, wasted), (WASTED_BYTES, bytes), (EFFICIENCY, efficiency)] {
            // Writing to a string does not fail.
            let _ = match verdict {
                Some(None) => writeln!(text, "  PASS: {name}"),
                Some(Some(ref reason)) => writeln!(text, "  FAIL: {name}: {reason}"),
                None => writeln!(text, "  SKIP: {name}: rule disabled"),
            };
            counts[match verdict {
                Some(None) => 0,
                Some(Some(_)) => 1,
                None => 2,
            }] += 1;
        }
        let [passed, failed, skipped] = counts;
        let result = if failed == 0 { "PASS" } else { "FAIL" };
        let total = passed + failed + skipped;
        let _ = writeln!(
            text,
            "Result:{result} [Total:{total}] [Passed:{passed}] [Failed:{failed}] [Warn:0] [Skipped:{skipped}]"
        );
        (text, failed == 0)
    }
}

/// `20MB`, `1.5 MiB`, `100`.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let scale: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "ki" | "kib" => 1024.0,
        "mi" | "mib" => 1_048_576.0,
        "gi" | "gib" => 1_073_741_824.0,
        _ => return None,
    };
    Some((number * scale) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_dive_are_read() {
        let mut rules = Rules::default();
        rules
            .read("# ours\nrules:\n  lowestEfficiency: 0.95\n  highestWastedBytes: 20MB # much\n  highest-user-wasted-percent: \"disabled\"\n")
            .unwrap();
        let expected = Rules {
            lowest_efficiency: Some(0.95),
            highest_wasted_bytes: Some(20_000_000),
            highest_user_wasted: None,
        };
        assert_eq!(rules, expected);
        for (text, reason) in [
            ("nosuch: 1", "unknown rule \"nosuch\""),
            ("lowestEfficiency: 2", "lowestEfficiency: \"2\" is not a number between 0 and 1"),
            ("highestWastedBytes: 3 apples", "highestWastedBytes: \"3 apples\" is not a size"),
            ("rules", "\"rules\" is not of the form name: value"),
        ] {
            assert_eq!(rules.read(text).unwrap_err(), reason);
        }
        assert_eq!((bytes("1.5 MiB"), bytes("100"), bytes("x")), (Some(1_572_864), Some(100), None));
    }

    #[test]
    fn a_broken_rule_fails_all() {
        let image =
            Exploration { efficiency: 0.5, user_wasted: 0.05, wasted_bytes: 7, ..Exploration::default() };
        let (text, is_well) = Rules::default().judge(&image);
        assert!(!is_well);
        assert_eq!(
            text,
            "Results:\n  PASS: highestUserWastedPercent\n  SKIP: highestWastedBytes: rule disabled\n  \
             FAIL: lowestEfficiency: image efficiency is too low (efficiency=0.5 < threshold=0.9)\n\
             Result:FAIL [Total:3] [Passed:1] [Failed:1] [Warn:0] [Skipped:1]\n"
        );
        let limit = Rules { highest_wasted_bytes: Some(6), lowest_efficiency: None, ..Rules::default() };
        assert!(limit.judge(&image).0.contains("too many bytes wasted (wasted-bytes=7 > threshold=6)"));
        assert!(Rules { lowest_efficiency: Some(0.5), ..Rules::default() }.judge(&image).1);
    }
}
