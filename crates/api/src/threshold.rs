//! What an image must keep to: the rules of dive's CI mode, and its file `.dive-ci`.

use serde::{Deserialize, Serialize};

use crate::explore::Exploration;

/// The rules. `None` is a rule that is off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Thresholds {
    /// Least efficiency, 0 to 1.
    pub lowest_efficiency: Option<f64>,
    /// Most wasted bytes.
    pub highest_wasted_bytes: Option<u64>,
    /// Most wasted bytes by the bytes of the layers above the lowest, 0 to 1.
    pub highest_user_wasted_percent: Option<f64>,
}

/// dive's own.
impl Default for Thresholds {
    fn default() -> Self {
        Self {
            lowest_efficiency: Some(0.9),
            highest_wasted_bytes: None,
            highest_user_wasted_percent: Some(0.1),
        }
    }
}

/// What became of one rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Verdict {
    /// The rule: `lowestEfficiency` and the like.
    pub rule: String,
    /// Whether the image keeps to it; `None` for a rule that is off.
    pub passed: Option<bool>,
    /// Why not, or else the rule's value.
    pub message: String,
}

/// A rule that is not known, or a value that it cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidThreshold {
    /// There is no such rule.
    #[error("unknown rule {0:?}")]
    Rule(String),
    /// No number.
    #[error("invalid {rule} config value, given {value:?}")]
    Value {
        /// The rule.
        rule: &'static str,
        /// What was given.
        value: String,
    },
    /// No share.
    #[error("{rule} config value is outside allowed range (0-1), given {value:?}")]
    Range {
        /// The rule.
        rule: &'static str,
        /// What was given.
        value: String,
    },
}

const EFFICIENCY: &str = "lowestEfficiency";
const BYTES: &str = "highestWastedBytes";
const PERCENT: &str = "highestUserWastedPercent";

impl Thresholds {
    /// Sets one rule, by its name in either of dive's spellings (`lowestEfficiency`,
    /// `lowest-efficiency`). `disabled`, `off`, `false` and nothing switch it off.
    pub fn set(&mut self, rule: &str, value: &str) -> Result<(), InvalidThreshold> {
        let plain = rule.replace(['-', '_'], "").to_ascii_lowercase();
        let value = value.trim();
        let is_off = matches!(value.to_ascii_lowercase().as_str(), "" | "disabled" | "off" | "false");
        match plain.as_str() {
            "lowestefficiency" => {
                self.lowest_efficiency = if is_off { None } else { Some(share(EFFICIENCY, value)?) };
            }
            "highestwastedbytes" => {
                self.highest_wasted_bytes = if is_off { None } else { Some(bytes(value)?) };
            }
            "highestuserwastedpercent" => {
                self.highest_user_wasted_percent = if is_off { None } else { Some(share(PERCENT, value)?) };
            }
            _ => return Err(InvalidThreshold::Rule(rule.to_owned())),
        }
        Ok(())
    }

    /// Reads a `.dive-ci`: YAML of one map `rules` from names to values. Rules that it does not name
    /// are dive's own.
    pub fn from_dive_ci(text: &str) -> Result<Self, InvalidThreshold> {
        let mut thresholds = Self::default();
        for line in text.lines() {
            let line = line.split(" #").next().unwrap_or_default().trim();
            let Some((name, value)) = line.split_once(':').filter(|_| !line.starts_with('#')) else {
                continue;
            };
            let name = name.trim().trim_matches(['"', '\'']);
            if name != "rules" {
                thresholds.set(name, value.trim().trim_matches(['"', '\'']))?;
            }
        }
        Ok(thresholds)
    }

    /// What becomes of each rule, by name. The image fails if one did not pass.
    pub fn check(&self, image: &Exploration) -> Vec<Verdict> {
        let verdict = |rule: &str, threshold: Option<String>, failure: Option<String>| Verdict {
            rule: rule.to_owned(),
            passed: threshold.is_some().then_some(failure.is_none()),
            message: failure.or(threshold).unwrap_or_else(|| "disabled".to_owned()),
        };
        let percent = self.highest_user_wasted_percent;
        let most = self.highest_wasted_bytes;
        let least = self.lowest_efficiency;
        vec![
            verdict(
                PERCENT,
                percent.map(|value| value.to_string()),
                percent.filter(|value| image.user_wasted > *value).map(|value| {
                    format!(
                        "too many bytes wasted, relative to the user bytes added \
                         (%-user-wasted-bytes={:.2} > threshold={value})",
                        image.user_wasted
                    )
                }),
            ),
            verdict(
                BYTES,
                most.map(|value| value.to_string()),
                most.filter(|value| image.wasted_bytes > *value).map(|value| {
                    format!("too many bytes wasted (wasted-bytes={} > threshold={value})", image.wasted_bytes)
                }),
            ),
            verdict(
                EFFICIENCY,
                least.map(|value| value.to_string()),
                least.filter(|value| *value > image.efficiency).map(|value| {
                    format!(
                        "image efficiency is too low (efficiency={:.2} < threshold={value})",
                        image.efficiency
                    )
                }),
            ),
        ]
    }
}

fn share(rule: &'static str, value: &str) -> Result<f64, InvalidThreshold> {
    let number: f64 = value.parse().map_err(|_| InvalidThreshold::Value { rule, value: value.to_owned() })?;
    if (0.0..=1.0).contains(&number) {
        Ok(number)
    } else {
        Err(InvalidThreshold::Range { rule, value: value.to_owned() })
    }
}

/// A size as dive reads it: `20MB` is decimal, `20MiB` binary.
fn bytes(value: &str) -> Result<u64, InvalidThreshold> {
    let invalid = || InvalidThreshold::Value { rule: BYTES, value: value.to_owned() };
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',').unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    let number: f64 = number.replace(',', "").parse().map_err(|_| invalid())?;
    let unit = unit.trim().to_ascii_lowercase();
    let (prefix, base) = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('i')) {
        // Bytes have no binary form.
        Some("") => return Err(invalid()),
        Some(prefix) => (prefix, 1024f64),
        None => (unit.strip_suffix('b').unwrap_or(&unit), 1000f64),
    };
    let power = match prefix {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        "e" => 6,
        _ => return Err(invalid()),
    };
    let bytes = number * base.powi(power);
    if (0.0..u64::MAX as f64).contains(&bytes) { Ok(bytes as u64) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dives_file() {
        let text = "# our rules\nrules:\n  # comment\n  lowest-efficiency: 0.95 # high\n  \
                    highestWastedBytes: \"20MB\"\n  highest-user-wasted-percent: disabled\n";
        let thresholds = Thresholds::from_dive_ci(text).unwrap();
        let expected = Thresholds {
            lowest_efficiency: Some(0.95),
            highest_wasted_bytes: Some(20_000_000),
            highest_user_wasted_percent: None,
        };
        assert_eq!(thresholds, expected);
        assert_eq!(Thresholds::from_dive_ci("").unwrap(), Thresholds::default());
        assert!(Thresholds::from_dive_ci("rules:\n  other: 1").is_err());
        assert!(Thresholds::from_dive_ci("lowestEfficiency: 95").is_err());
        assert!(Thresholds::from_dive_ci("lowestEfficiency: x").is_err());
    }

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        let sizes = [("12", 12), ("1.5 kB", 1500), ("2KiB", 2048), ("1,000 b", 1000), ("3gi", 3 << 30)];
        for (text, size) in sizes {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "x", "1x", "1ib", "-1"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rules_pass_fail_or_are_off() {
        let image =
            Exploration { efficiency: 0.9, wasted_bytes: 100, user_wasted: 0.25, ..Exploration::default() };
        let passed = |thresholds: &Thresholds| -> Vec<Option<bool>> {
            thresholds.check(&image).into_iter().map(|verdict| verdict.passed).collect()
        };
        assert_eq!(passed(&Thresholds::default()), [Some(false), None, Some(true)]);
        let mut thresholds = Thresholds::default();
        for (rule, value) in [(EFFICIENCY, "0.91"), (BYTES, "100"), (PERCENT, "0.25")] {
            thresholds.set(rule, value).unwrap();
        }
        assert_eq!(passed(&thresholds), [Some(true), Some(true), Some(false)]);
        assert!(thresholds.check(&image)[2].message.contains("(efficiency=0.90 < threshold=0.91)"));
    }
}
