//! Round trips of small UDP datagrams, one at a time: the latency of an idle path.

use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Bytes of a probe.
const SIZE: usize = 64;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(200);

/// Sorted round-trip times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundTrips {
    sorted: Vec<Duration>,
    /// Probes without an answer in time.
    pub lost: usize,
}

impl RoundTrips {
    /// The time that `percent` of the probes did not exceed; `None` without any answer.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let last = self.sorted.len().checked_sub(1)?;
        let rank = (percent / 100.0 * self.sorted.len() as f64).ceil() as usize;
        Some(self.sorted[rank.saturating_sub(1).min(last)])
    }
}

/// Sends `count` probes, `gap` apart, to an echo server, and waits 200 ms for each answer; the first tenth warms up and is not
/// counted.
pub fn probe(to: SocketAddr, count: usize, gap: Duration) -> Result<RoundTrips> {
    probe_within(to, count, gap, PATIENCE)
}

/// [`probe`] with another time to wait: where many answers are lost.
pub fn probe_within(to: SocketAddr, count: usize, gap: Duration, patience: Duration) -> Result<RoundTrips> {
    let any: IpAddr = if to.is_ipv4() { "0.0.0.0".parse()? } else { "::".parse()? };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    let (mut sorted, mut lost) = (Vec::with_capacity(count), 0);
    let mut answer = [0; SIZE];
    for number in 0..count as u64 {
        let mut probe = [0; SIZE];
        probe[..8].copy_from_slice(&number.to_be_bytes());
        let begin = Instant::now();
        socket.send(&probe).context("sending a probe")?;
        // Late answers to earlier probes are not this probe's.
        let answered = loop {
            match socket.recv(&mut answer) {
                Ok(SIZE) if answer == probe => break true,
                Ok(_) => {}
                Err(_) => break false,
            }
        };
        let took = begin.elapsed();
        if number >= count as u64 / 10 {
            if answered {
                sorted.push(took);
            } else {
                lost += 1;
            }
        }
        std::thread::sleep(gap);
    }
    sorted.sort_unstable();
    ensure!(!sorted.is_empty(), "no probe was answered by {to}");
    Ok(RoundTrips { sorted, lost })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_by_rank() {
        let trips = RoundTrips { sorted: (1..=100).map(Duration::from_micros).collect(), lost: 0 };
        assert_eq!(trips.percentile(50.0), Some(Duration::from_micros(50)));
        assert_eq!(trips.percentile(99.0), Some(Duration::from_micros(99)));
        assert_eq!(trips.percentile(100.0), Some(Duration::from_micros(100)));
        assert_eq!(RoundTrips { sorted: vec![], lost: 3 }.percentile(50.0), None);
    }
}
