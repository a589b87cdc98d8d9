//! Connections opened a second: every packet is the first of its flow, so that each asks policy.

use crate::line::{CONNECTIONS, Line, Rate};
use crate::packets::Direction;
use crate::packets::generator::Stream;
use crate::report::Samples;
use crate::site::Plan;
use anyhow::{Result, ensure};
use std::time::Duration;

/// Offered loads after the first, which is all the generator has: what was forwarded then, times this.
const LOADS: [f64; 2] = [1.0, 1.5];

/// Measures all arrangements of the peer.
pub fn measure(line: &mut Line<'_>, plan: &Plan, samples: &mut Samples) -> Result<()> {
    let load = if line.peer.is_kernel() { Load::overload() } else { Load::search() };
    for (arrangement, name) in line.arrangements(plan) {
        line.arrange(arrangement)?;
        report(line, &name, &load, plan, samples)?;
    }
    Ok(())
}

/// How the best offered load is looked for.
struct Load {
    further: &'static [f64],
}

impl Load {
    /// What the forwarder does not take costs it nothing.
    fn overload() -> Self {
        Self { further: &[] }
    }

    /// A process is kept from its work by more than it can do.
    fn search() -> Self {
        Self { further: &LOADS }
    }
}

fn report(line: &mut Line<'_>, name: &str, load: &Load, plan: &Plan, samples: &mut Samples) -> Result<()> {
    let mut best = once(line, None, plan)?;
    for factor in load.further {
        let rate = once(line, Some((best.forwarded * factor).max(20_000.0)), plan)?;
        if rate.forwarded > best.forwarded {
            best = rate;
        }
    }
    ensure!(best.forwarded > 0.0, "{name}: nothing came out");
    samples.add(name, "newflows", "flows_per_s", best.forwarded);
    samples.add(name, "newflows", "ns_per_flow", best.ns_per_packet().unwrap_or(f64::NAN));
    if best.wrong > 0.01 * best.forwarded {
        samples.add(name, "newflows", "wrong_per_s", best.wrong);
    }
    Ok(())
}

fn once(line: &mut Line<'_>, rate: Option<f64>, plan: &Plan) -> Result<Rate> {
    let (warm, window) = plan.scale((500, 1000), (100, 200));
    // More than anybody opens in that time: no flow comes twice.
    let flows = 20_000_000;
    let first = line.fresh_flows(flows);
    let stream = Stream { flows, first, rate, ..Stream::new(Direction::Encap, 64) };
    let seen = line.measure_rate(&stream, Duration::from_millis(warm), Duration::from_millis(window))?;
    line.forget_connections()?;
    let opened = seen.forwarded * 1e-3 * (warm + window) as f64;
    ensure!(opened < CONNECTIONS as f64, "{opened} connections are more than there is room for");
    Ok(seen)
}
