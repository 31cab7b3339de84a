//! Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write};

use crate::count::Timer;

/// What a family of samples is.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A page of metrics. All samples of a family follow its head.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// `labels` as [`Labels`] prints them.
    pub(super) fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    /// A family of one sample.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }

    /// A family of timers that one label tells apart.
    pub(super) fn timers(&mut self, name: &str, help: &str, label: &str, timers: &[(&str, &Timer)]) {
        self.family(name, Kind::Histogram, help);
        for (value, timer) in timers {
            let (upto, count, sum) = timer.read();
            let labels = Labels::default().with(label, value).0;
            for (bound, upto) in Timer::BOUNDS.iter().zip(upto) {
                self.sample(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), upto);
            }
            self.sample(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), count);
            self.sample(&format!("{name}_sum"), &labels, sum);
            self.sample(&format!("{name}_count"), &labels, count);
        }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// Labels of a sample, printed: `name="value",…`.
#[derive(Clone, Default)]
pub(super) struct Labels(pub(super) String);

impl Labels {
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        let _ = write!(self.0, "{name}=\"");
        for character in value.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
        self.0.push('"');
        self
    }
}

/// A label's name of any text: what no name may have becomes `_`, as in cAdvisor.
pub(super) fn label_name(prefix: &str, text: &str) -> String {
    let allowed = |character: char| if character.is_ascii_alphanumeric() { character } else { '_' };
    format!("{prefix}{}", text.chars().map(allowed).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped() {
        let labels = Labels::default().with("a", "x\\\"\n").with(&label_name("l_", "com.example/x-y"), "é");
        assert_eq!(labels.0, r#"a="x\\\"\n",l_com_example_x_y="é""#);
    }

    #[test]
    fn timers_are_histograms() {
        let mut page = Page::default();
        page.timers("t", "Time.", "action", &[("go", &Timer::default())]);
        let text = page.into_text();
        assert!(
            text.starts_with("# HELP t Time.\n# TYPE t histogram\nt_bucket{action=\"go\",le=\"0.005\"} 0\n")
        );
        assert!(text.ends_with(
            "t_bucket{action=\"go\",le=\"+Inf\"} 0\nt_sum{action=\"go\"} 0\nt_count{action=\"go\"} 0\n"
        ));
    }
}
