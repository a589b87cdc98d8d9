//! Round trips of a pod through one node, alone or beside packets of others that go the same way.

use crate::line::Line;
use crate::packets::Direction;
use crate::packets::generator::Stream;
use crate::pair::{GAP, LOAD_FLOWS, PROBES, add_trips};
use crate::report::Samples;
use crate::scenario::Scenario;
use crate::site::Plan;
use anyhow::Result;
use netns_tests::traffic::rtt;
use std::time::{Duration, Instant};

/// Measures round trips beside `load` packets a second.
pub fn measure(
    line: &mut Line<'_>,
    scenario: Scenario,
    load: Option<f64>,
    plan: &Plan,
    samples: &mut Samples,
) -> Result<()> {
    let (name, scenario) = (line.peer.to_string(), scenario.name());
    let (to, count) = (line.remote.echo, plan.scale(PROBES, 200));
    let probe = |line: &Line<'_>| line.station.ns.enter(move || rtt::probe(to, count, GAP));
    let Some(load) = load else {
        return add_trips(&probe(line)?, &name, scenario, samples);
    };
    let stream = Stream { flows: LOAD_FLOWS, rate: Some(load), ..Stream::new(Direction::Encap, 64) };
    let generator = line.start(&stream)?;
    std::thread::sleep(Duration::from_millis(300));
    let (begin, sent, count) = (Instant::now(), generator.sent()?, line.count(Direction::Encap)?);
    add_trips(&probe(line)?, &name, scenario, samples)?;
    let seconds = begin.elapsed().as_secs_f64();
    let (sent_after, after) = (generator.sent()?, line.count(Direction::Encap)?);
    samples.add(&name, scenario, "offered_pps", (sent_after - sent) as f64 / seconds);
    samples.add(&name, scenario, "pps", (after.good - count.good) as f64 / seconds);
    Ok(())
}
