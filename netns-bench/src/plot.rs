//! Bars for people: one picture for each scenario and metric, as SVG.

use crate::report::Summary;
use anyhow::{Context, Result};
use std::path::Path;

/// Width of a picture. Pixels.
const WIDTH: f64 = 860.0;
/// Room for the names on the left.
const NAMES: f64 = 220.0;
/// Room for the values behind the bars.
const VALUES: f64 = 130.0;
/// Height of a bar with the space below it.
const ROW: f64 = 24.0;
/// Height of the title.
const TITLE: f64 = 40.0;

/// Writes a picture of each scenario and metric into `dir`, and says where.
pub fn write_all(dir: &Path, summaries: &[Summary]) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let mut done: Vec<(&str, &str)> = Vec::new();
    for first in summaries {
        let key = (first.scenario.as_str(), first.metric);
        if done.contains(&key) {
            continue;
        }
        done.push(key);
        let of_key = |s: &&Summary| (s.scenario.as_str(), s.metric) == key;
        let bars: Vec<&Summary> = summaries.iter().filter(of_key).collect();
        let path = dir.join(format!("{}-{}.svg", key.0, key.1));
        std::fs::write(&path, picture(&format!("{}, {}", key.0, key.1), &bars))
            .with_context(|| format!("writing {}", path.display()))?;
        eprintln!("==> {}", path.display());
    }
    Ok(())
}

/// One bar a peer: its length is the median, the line over it reaches from the least to the greatest value.
fn picture(title: &str, bars: &[&Summary]) -> String {
    let most = bars.iter().map(|b| b.max).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - NAMES - VALUES) / most;
    let height = TITLE + ROW * bars.len() as f64 + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"10\" y=\"24\" font-size=\"16\">{}</text>\n",
        escaped(title)
    );
    for (n, bar) in bars.iter().enumerate() {
        let (top, middle) = (TITLE + ROW * n as f64, TITLE + ROW * (n as f64 + 0.4));
        let [length, from, to] = [bar.median, bar.min, bar.max].map(|value| value.max(0.0) * scale);
        let colour = if bar.peer.starts_with("canal") { "#2b6cb0" } else { "#a0aec0" };
        svg += &format!(
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\n",
            NAMES - 8.0,
            middle + 5.0,
            escaped(&bar.peer)
        );
        svg += &format!(
            "<rect x=\"{NAMES}\" y=\"{top:.0}\" width=\"{length:.1}\" height=\"{:.0}\" fill=\"{colour}\"/>\n",
            ROW * 0.8
        );
        svg += &format!(
            "<line x1=\"{:.1}\" y1=\"{middle:.0}\" x2=\"{:.1}\" y2=\"{middle:.0}\" stroke=\"black\"/>\n",
            NAMES + from,
            NAMES + to
        );
        svg +=
            &format!("<text x=\"{:.0}\" y=\"{:.0}\">{}</text>\n", NAMES + to + 6.0, middle + 5.0, bar.median);
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_belongs_to_the_greatest_value() {
        let bar = |peer: &str, median| Summary {
            peer: peer.to_owned(),
            scenario: "encap-64".to_owned(),
            metric: "pps",
            median,
            min: median,
            max: median,
            n: 1,
        };
        let (a, b) = (bar("kernel-vxlan", 100.0), bar("canal-tap", 50.0));
        let svg = picture("encap-64, pps", &[&a, &b]);
        let widths: Vec<&str> = svg
            .lines()
            .filter(|line| line.contains("<rect x="))
            .filter_map(|line| line.split("width=\"").nth(1)?.split('"').next())
            .collect();
        assert_eq!(widths, ["510.0", "255.0"], "{svg}");
    }
}
