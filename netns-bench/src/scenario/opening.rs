//! Connections are opened before packets of established ones are measured: as fast as the peer can, until all of them are.

use crate::interrupt;
use crate::line::Line;
use crate::packets::generator::Stream;
use crate::scenario::rate::Traffic;
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Packets a second of the first pass over the flows.
const FASTEST: f64 = 150_000.0;
/// Part of a pass that may be lost: more is lost by one that is too fast.
const LOSS: f64 = 0.1;
/// Part of the flows that may be left out in the end.
const LEFT_OUT: f64 = 0.01;
/// Packets of a pass at least, so that those are few that are lost while somebody wakes up: of few flows each sends several.
const LEAST: u32 = 15_000;
/// Time for all passes. It is no use to be slower: the kernel forgets what is not answered within 30 seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Nothing has come out for so long: what is missing is lost.
const SILENCE: Duration = Duration::from_millis(100);

/// Opens the connections, and answers in each: what is not answered is asked about again by some.
///
/// # Errors
/// When there are too many for the peer.
pub fn open(line: &Line<'_>, traffic: &Traffic) -> Result<()> {
    let there = Traffic { length: 64, mix: false, ..*traffic };
    let back = Traffic { direction: there.direction.back(), ..there };
    let end = Instant::now() + PATIENCE;
    for (traffic, replies, done) in
        [(there, false, "opened"), (back, true, "answered"), (there, false, "opened")]
    {
        let flows = traffic.flows;
        let rounds = LEAST.div_ceil(flows);
        let packets = u64::from(flows) * u64::from(rounds);
        let stream = Stream { replies, packets: Some(packets), ..traffic.stream(None) };
        let outcome = adapt(flows, rounds, |rate| match Instant::now() < end {
            true => pass(line, &Stream { rate: Some(rate), ..stream }, packets, end).map(Some),
            false => Ok(None),
        })?;
        if let Outcome::TimeIsOver { most } = outcome {
            let seconds = PATIENCE.as_secs();
            bail!("{} of {flows} flows {done} within {seconds} s", most / u64::from(rounds));
        }
    }
    Ok(())
}

/// How the passes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Every flow is open.
    Open,
    /// Of the best pass so many packets came out, and there was time for no more.
    TimeIsOver { most: u64 },
}

/// Passes over all flows, with `rounds` packets of each, until hardly any can have been left out by all of those that lost
/// little, as if they lost any; after one that lost more, at half of the rate. What is too fast opens flows as well: its time
/// is not wasted. A pass is told its rate and says how many packets came out; `None`: time is over.
fn adapt(flows: u32, rounds: u32, mut pass: impl FnMut(f64) -> Result<Option<u64>>) -> Result<Outcome> {
    let packets = f64::from(flows) * f64::from(rounds);
    let (mut rate, mut left_out, mut most) = (FASTEST, 1.0, 0);
    while let Some(came) = pass(rate)? {
        most = most.max(came);
        let lost = 1.0 - came as f64 / packets;
        if lost > LOSS {
            rate /= 2.0;
            continue;
        }
        left_out *= lost.powf(f64::from(rounds));
        if left_out <= LEFT_OUT {
            return Ok(Outcome::Open);
        }
    }
    Ok(Outcome::TimeIsOver { most })
}

/// Sends the stream, until `end` at the latest; how many packets came out.
fn pass(line: &Line<'_>, stream: &Stream, packets: u64, end: Instant) -> Result<u64> {
    let came_out = || Ok::<_, anyhow::Error>(line.count(stream.direction)?.good);
    let before = came_out()?;
    let generator = line.start(stream)?;
    while generator.sent()? < packets && Instant::now() < end {
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(10));
    }
    // Nothing may have come out yet.
    let mut came = u64::MAX;
    loop {
        let now = came_out()? - before;
        if now == came || now >= packets {
            return Ok(now);
        }
        came = now;
        std::thread::sleep(SILENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that opens `opens` connections a second, carries all that are open, and loses `loss` of each pass besides, over so
    /// many seconds in all; how it ended, and the rates of all passes.
    fn opened(opens: f64, loss: f64, seconds: f64) -> (Outcome, Vec<f64>) {
        let flows = 100_000.0;
        let (mut open, mut left, mut rates) = (0.0, seconds, Vec::new());
        let outcome = adapt(100_000, 1, |rate| {
            let length = (flows / rate).min(left);
            if length <= 0.0 {
                return Ok(None);
            }
            left -= length;
            rates.push(rate);
            let (sent, new) = (rate * length, opens * length);
            let came = sent.min(sent * open / flows + new);
            open = (open + new).min(flows);
            Ok(Some((came * (1.0 - loss)) as u64))
        });
        (outcome.expect("no pass fails"), rates)
    }

    #[test]
    fn who_is_fast_enough_gets_one_pass() {
        assert_eq!(opened(200_000.0, 0.0, 60.0), (Outcome::Open, vec![150_000.0]));
        assert_eq!(opened(200_000.0, 0.009, 60.0).1, [150_000.0]);
    }

    #[test]
    fn who_always_loses_a_little_gets_another() {
        assert_eq!(opened(200_000.0, 0.08, 60.0), (Outcome::Open, vec![150_000.0; 2]));
    }

    #[test]
    fn of_few_flows_each_has_been_carried_once() {
        let mut passes = 0;
        let outcome = adapt(100, 10, |_| {
            passes += 1;
            Ok(Some(920))
        });
        assert_eq!((outcome.expect("no pass fails"), passes), (Outcome::Open, 1));
    }

    #[test]
    fn who_is_slow_gets_slower_passes_until_one_loses_little() {
        assert_eq!(opened(70_000.0, 0.0, 60.0), (Outcome::Open, vec![150_000.0, 75_000.0]));
        let (outcome, rates) = opened(7_000.0, 0.0, 60.0);
        assert_eq!((outcome, rates.last()), (Outcome::Open, Some(&9_375.0)), "{rates:?}");
    }

    #[test]
    fn who_is_too_slow_is_found_out_when_time_is_over() {
        let (outcome, rates) = opened(600.0, 0.0, 60.0);
        let Outcome::TimeIsOver { most } = outcome else { panic!("{rates:?}") };
        assert!((10_000..40_000).contains(&most), "{most} at {rates:?}");
        assert_eq!(opened(0.0, 0.0, 60.0).0, Outcome::TimeIsOver { most: 0 });
        assert!(matches!(opened(200_000.0, 0.2, 60.0).0, Outcome::TimeIsOver { .. }), "a loss at any rate");
    }

    #[test]
    fn an_error_of_a_pass_ends_it() {
        assert!(adapt(1, 1, |_| bail!("the generator has not started")).is_err());
    }
}
