//! How long packets wait while the daemon is ended and started anew: what is lost of a steady stream, divided by its rate.

use crate::line::Line;
use crate::packets::Direction;
use crate::packets::generator::{Generator, Stream};
use crate::report::Samples;
use anyhow::{Result, ensure};
use netns_tests::{Canal, wait};
use std::time::{Duration, Instant};

/// Packets a second: few enough that none is lost otherwise.
const RATE: f64 = 50_000.0;
/// Flows they belong to.
const FLOWS: u32 = 100;

/// A way to end the daemon.
type End = fn(&mut Canal<'_>) -> Result<()>;

/// Ends the daemon by SIGTERM, then by SIGKILL.
pub fn measure(line: &mut Line<'_>, samples: &mut Samples) -> Result<()> {
    let ends: [(_, End); 2] =
        [("terminated_blocked_ms", terminate), ("killed_blocked_ms", |canal| canal.kill())];
    for (metric, end) in ends {
        let stream = Stream { flows: FLOWS, rate: Some(RATE), ..Stream::new(Direction::Encap, 64) };
        let generator = line.start(&stream)?;
        wait_flowing(line, &generator)?;
        let (begin, sent, count) = (Instant::now(), generator.sent()?, line.count(Direction::Encap)?);
        end(line.node.daemon()?)?;
        line.node.daemon()?.restart()?;
        wait_flowing(line, &generator)?;
        let seconds = begin.elapsed().as_secs_f64();
        let (sent_after, after) = (generator.sent()?, line.count(Direction::Encap)?);
        let (offered, forwarded) = ((sent_after - sent) as f64, (after.good - count.good) as f64);
        let blocked = (offered - forwarded) / (offered / seconds);
        samples.add(&line.peer.to_string(), "restart", metric, blocked * 1e3);
    }
    Ok(())
}

fn terminate(canal: &mut Canal<'_>) -> Result<()> {
    let status = canal.terminate()?;
    ensure!(status.success(), "SIGTERM is an orderly end: {status}");
    Ok(())
}

/// Waits until what goes in comes out.
fn wait_flowing(line: &Line<'_>, generator: &Generator) -> Result<()> {
    wait::until("all packets pass", wait::SOON, || {
        let (sent, count) = (generator.sent()?, line.count(Direction::Encap)?);
        std::thread::sleep(Duration::from_millis(100));
        let sent = generator.sent()? - sent;
        let forwarded = line.count(Direction::Encap)?.good - count.good;
        Ok(sent > 0 && forwarded as f64 >= 0.99 * sent as f64)
    })
}
