//! How Prometheus' text format is written.

use std::fmt::{Display, Write};

/// Text under construction; remembers whose samples are being written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    name: String,
}

impl Exposition {
    /// What was written.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Begins a metric.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.name = name.to_owned();
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// A sample of the metric that was begun last.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let name = self.name.clone();
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
        }
    }

    /// A metric with one sample and no label.
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "gauge", help);
        self.sample(&[], value);
    }

    /// A summary without quantiles: how many, and all of them together in seconds.
    pub fn summary(&mut self, name: &str, help: &str, count: u64, sum_us: u64) {
        self.head(name, "summary", help);
        let sum = format!("{}.{:06}", sum_us / 1_000_000, sum_us % 1_000_000);
        self.line(format_args!("{name}_sum {sum}"));
        self.line(format_args!("{name}_count {count}"));
    }

    fn line(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{arguments}");
    }
}

/// A part of a whole, between 0 and 1; of nothing nothing.
pub fn ratio(part: u64, whole: u64) -> String {
    let parts = (u128::from(part) * 10_000).checked_div(u128::from(whole)).unwrap_or(0);
    format!("{}.{:04}", parts / 10_000, parts % 10_000)
}

/// Milliseconds as seconds.
pub fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}

/// Nanoseconds as seconds.
pub fn nanoseconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_under_their_heads() {
        let mut text = Exposition::default();
        text.head("a", "counter", "A thing.");
        text.sample(&[("x", "1\"\\\n")], 5);
        text.gauge("b", "Another.", 7);
        text.summary("c", "Times.", 3, 1_002_003);
        let expected = "# HELP a A thing.\n# TYPE a counter\na{x=\"1\\\"\\\\\\n\"} 5\n\
                        # HELP b Another.\n# TYPE b gauge\nb 7\n\
                        # HELP c Times.\n# TYPE c summary\nc_sum 1.002003\nc_count 3\n";
        assert_eq!(text.into_text(), expected);
        assert_eq!(seconds(1_020), "1.020");
        assert_eq!(nanoseconds(3_000_000_020), "3.000000020");
    }
}
