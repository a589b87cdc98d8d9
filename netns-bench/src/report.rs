//! What was measured: single values while it runs, medians at the end.

use comfy_table::Table;
use serde::Serialize;
use std::time::Duration;

/// The peer that others are compared with.
const BASE: &str = "kernel-vxlan";

/// One measured value.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    peer: String,
    scenario: String,
    metric: &'static str,
    value: f64,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Samples {
    all: Vec<Sample>,
}

/// What the values of one metric have in common; the fields in the order in which they are printed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Who.
    pub peer: String,
    /// Doing what.
    pub scenario: String,
    /// What was measured, with its unit.
    pub metric: &'static str,
    /// The middle value, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many.
    pub n: usize,
}

impl Samples {
    /// Notes a value, and says it on standard error.
    pub fn add(&mut self, peer: &str, scenario: &str, metric: &'static str, value: f64) {
        let value = rounded(value);
        eprintln!("      {peer:<26} {scenario:<14} {metric:<22} {value}");
        self.all.push(Sample { peer: peer.to_owned(), scenario: scenario.to_owned(), metric, value });
    }

    /// Notes times that so many percent of `times` did not exceed, in milliseconds, each under a name of its own.
    pub fn add_percentiles(
        &mut self,
        peer: &str,
        scenario: &str,
        mut times: Vec<Duration>,
        metrics: &[(&'static str, f64)],
    ) {
        times.sort_unstable();
        for (metric, percent) in metrics {
            let rank = (times.len() as f64 * percent / 100.0).ceil() as usize;
            if let Some(time) = times.get(rank.saturating_sub(1)) {
                self.add(peer, scenario, metric, time.as_secs_f64() * 1e3);
            }
        }
    }

    /// One summary for each peer, scenario and metric, in the order of first appearance.
    pub fn summaries(&self) -> Vec<Summary> {
        let mut groups: Vec<(&Sample, Vec<f64>)> = Vec::new();
        for sample in &self.all {
            let same = |s: &Sample| {
                (&s.peer, &s.scenario, s.metric) == (&sample.peer, &sample.scenario, sample.metric)
            };
            match groups.iter_mut().find(|(first, _)| same(first)) {
                Some((_, values)) => values.push(sample.value),
                None => groups.push((sample, vec![sample.value])),
            }
        }
        groups.into_iter().map(|(first, values)| summary(first, values)).collect()
    }

    /// One JSON object a line.
    pub fn json(&self) -> String {
        let line = |summary: &Summary| serde_json::to_string(summary).expect("numbers and names");
        self.summaries().iter().map(|summary| line(summary) + "\n").collect()
    }

    /// For people: what belongs together stands together, with the ratio to the kernel's VXLAN device without policy.
    pub fn table(&self) -> String {
        let mut summaries = self.summaries();
        let place = |s: &Summary| (s.scenario.clone(), s.metric);
        let order: Vec<_> = summaries.iter().map(place).collect();
        summaries.sort_by_key(|s| order.iter().position(|o| *o == place(s)));
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_header(["SCENARIO", "METRIC", "PEER", "MEDIAN", "MIN", "MAX", "N", "÷ KERNEL-VXLAN"]);
        for s in &summaries {
            let base = summaries.iter().find(|b| b.peer == BASE && place(b) == place(s));
            let ratio = base.map_or("-".to_owned(), |b| format!("{:.3}", s.median / b.median));
            let [median, min, max] = [s.median, s.min, s.max].map(|v| v.to_string());
            table.add_row([
                s.scenario.clone(),
                s.metric.to_owned(),
                s.peer.clone(),
                median,
                min,
                max,
                s.n.to_string(),
                ratio,
            ]);
        }
        table.to_string()
    }
}

/// To what a reader of the number may believe: three digits behind the point for small ones, none for large ones.
fn rounded(value: f64) -> f64 {
    let digits = if value.abs() >= 1000.0 { 1.0 } else { 1000.0 };
    (value * digits).round() / digits
}

fn summary(first: &Sample, mut values: Vec<f64>) -> Summary {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    Summary {
        peer: first.peer.clone(),
        scenario: first.scenario.clone(),
        metric: first.metric,
        median: rounded(f64::midpoint(values[(n - 1) / 2], values[n / 2])),
        min: values[0],
        max: values[n - 1],
        n,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        let mut samples = Samples::default();
        for value in values {
            samples.add("canal-tap", "tcp-1", "gbit_per_s", *value);
        }
        samples
    }

    #[test]
    fn the_median_is_the_middle_or_between_two() {
        assert_eq!(samples(&[3.0, 1.0, 2.0]).summaries()[0].median, 2.0);
        assert_eq!(samples(&[4.0, 1.0, 2.0, 3.0]).summaries()[0].median, 2.5);
    }

    #[test]
    fn percentiles_are_taken_by_rank() {
        let mut samples = Samples::default();
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        samples.add_percentiles("canal-tap", "overload", times, &[("p50_ms", 50.0), ("max_ms", 100.0)]);
        let medians: Vec<f64> = samples.summaries().iter().map(|s| s.median).collect();
        assert_eq!(medians, [100.0, 200.0]);
    }

    #[test]
    fn a_line_of_json_has_the_fields_in_their_order() {
        assert_eq!(
            samples(&[1.5, 2.5, 1.0]).json(),
            "{\"peer\":\"canal-tap\",\"scenario\":\"tcp-1\",\"metric\":\"gbit_per_s\",\"median\":1.5,\"min\":1.0,\"max\":2.5,\"n\":3}\n"
        );
    }

    #[test]
    fn the_table_compares_with_the_kernel() {
        let mut samples = samples(&[5.0]);
        samples.add(BASE, "tcp-1", "gbit_per_s", 10.0);
        let table = samples.table();
        let canal = table.lines().find(|line| line.contains("canal-tap")).expect("a row");
        assert!(canal.contains("0.500"), "{table}");
    }
}
