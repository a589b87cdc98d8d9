//! Rates of TCP streams, by iperf3.

use crate::pair::Pair;
use crate::report::Samples;
use crate::site::Plan;
use anyhow::Result;
use netns_tests::traffic::iperf;

/// Measures so many streams at once, after a second that is not counted.
pub fn measure(pair: &Pair<'_>, streams: usize, plan: &Plan, samples: &mut Samples) -> Result<()> {
    let (here, there) = (pair.overlay.pod(0), pair.overlay.pod(1));
    let seconds = plan.seconds.as_secs() as u32;
    let extra = ["-O", "1", "-P", &streams.to_string()];
    let bits = iperf::iperf3(&here.ns, &there.ns, there.v4.into(), seconds, &extra)?;
    samples.add(&pair.peer.to_string(), &format!("tcp-{streams}"), "gbit_per_s", bits / 1e9);
    Ok(())
}
