//! Packets a second through one node, and the processor time of each.
//!
//! What is found is the best rate over several offered loads: a forwarder in a process is kept from its work by more than it
//! can do, one in the kernel is not.

use crate::line::{Line, Rate};
use crate::packets::Direction;
use crate::packets::generator::Stream;
use crate::report::Samples;
use crate::scenario::opening;
use crate::site::Plan;
use anyhow::{Result, ensure};
use std::time::Duration;

/// Offered loads after the first, which is all the generator has: what was forwarded then, times this.
const LOADS: [f64; 3] = [0.85, 1.2, 1.5];
/// Flows of a smoke run, at most.
const SMOKE_FLOWS: u32 = 10_000;
/// Numbers of the established flows; those of new ones are far above.
const FIRST_FLOW: u32 = 0;

/// What packets look like.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Which way.
    pub direction: Direction,
    /// Bytes of a frame, without the tunnel's.
    pub length: u32,
    /// Seven frames of 64 bytes and four of 570 to each of `length`.
    pub mix: bool,
    /// Flows that take turns.
    pub flows: u32,
}

impl Traffic {
    /// Bytes of a frame, on average.
    fn mean_length(&self) -> f64 {
        let length = f64::from(self.length);
        if self.mix { (7.0 * 64.0 + 4.0 * 570.0 + length) / 12.0 } else { length }
    }

    /// The packets, so many a second; `None`: as many as there can be.
    pub fn stream(&self, rate: Option<f64>) -> Stream {
        let Self { direction, length, mix, flows } = *self;
        Stream { mix, flows, first: FIRST_FLOW, rate, ..Stream::new(direction, length) }
    }
}

/// Measures all arrangements of the peer.
pub fn measure(
    line: &mut Line<'_>,
    scenario: &str,
    traffic: &Traffic,
    plan: &Plan,
    samples: &mut Samples,
) -> Result<()> {
    let flows = plan.scale(traffic.flows, traffic.flows.min(SMOKE_FLOWS));
    let traffic = Traffic { flows, ..*traffic };
    for (arrangement, name) in line.arrangements(plan) {
        line.arrange(arrangement)?;
        opening::open(line, &traffic)?;
        let best = best(line, &traffic, plan)?;
        ensure!(best.forwarded > 0.0, "{name}: nothing came out");
        samples.add(&name, scenario, "offered_pps", best.offered);
        samples.add(&name, scenario, "pps", best.forwarded);
        samples.add(&name, scenario, "ns_per_packet", best.ns_per_packet().unwrap_or(f64::NAN));
        samples.add(&name, scenario, "gbit_per_s", best.forwarded * traffic.mean_length() * 8e-9);
        if best.wrong > 0.01 * best.forwarded {
            samples.add(&name, scenario, "wrong_per_s", best.wrong);
        }
    }
    Ok(())
}

/// The best rate over several offered loads.
pub fn best(line: &Line<'_>, traffic: &Traffic, plan: &Plan) -> Result<Rate> {
    let (warm, window) = plan.scale((400, 800), (100, 200));
    let once = |rate| {
        line.measure_rate(&traffic.stream(rate), Duration::from_millis(warm), Duration::from_millis(window))
    };
    let overloaded = once(None)?;
    let mut best = overloaded;
    if !line.peer.is_kernel() {
        for factor in LOADS {
            let rate = once(Some((overloaded.forwarded * factor).max(30_000.0)))?;
            if rate.forwarded > best.forwarded {
                best = rate;
            }
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_mostly_small() {
        let traffic = Traffic { direction: Direction::Encap, length: 1400, mix: true, flows: 1 };
        assert_eq!(traffic.mean_length(), 344.0);
    }
}
