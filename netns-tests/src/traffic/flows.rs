//! Many distinct UDP flows in little time: raw datagrams from one interface, counted when their answers come back.

use crate::frames::{self, Link};
use crate::packet_socket::PacketSocket;
use anyhow::{Result, bail, ensure};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// The lowest source port; everything from here to 65535 is used. Above both VXLAN ports: an answer to one of those is
/// dropped, as it should be.
const LOWEST: u16 = 10_000;
/// Source ports for each destination port.
pub const PER_PORT: usize = u16::MAX as usize - LOWEST as usize + 1;
/// Datagrams under way: few enough for every queue between the ends.
const WINDOW: usize = 256;
/// How often what stayed unanswered is sent again.
const PASSES: usize = 20;
/// Room for what is looked at of a frame.
const SEEN: usize = 128;
/// Where the ports lie in an untagged frame without IP options.
const PORTS_AT: usize = 14 + 20;

/// Flows from one address to an echo server; flow `n` has the `n`th pair of ports.
#[derive(Clone, Debug)]
pub struct Flows {
    template: Vec<u8>,
    to: SocketAddrV4,
}

/// What became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Flows that were answered.
    pub answered: usize,
    /// Datagrams that it took.
    pub sent: usize,
}

impl Flows {
    /// Flows from `from` over `link` to the ports of `to`'s host that begin with `to`'s.
    pub fn new(link: Link, from: Ipv4Addr, to: SocketAddrV4) -> Self {
        let ends = ((from.into(), LOWEST), ((*to.ip()).into(), to.port()));
        let mut template = frames::udp(link, ends.0, ends.1, 64, b"one of many flows.");
        // No checksum (RFC 768): one template serves every pair of ports.
        template[PORTS_AT + 6..PORTS_AT + 8].fill(0);
        Self { template, to }
    }

    /// Destination ports that `count` flows need.
    pub fn ports_for(count: usize) -> usize {
        count.div_ceil(PER_PORT)
    }

    /// The datagram of flow `n`.
    fn write(&mut self, n: usize) -> &[u8] {
        let from = LOWEST + (n % PER_PORT) as u16;
        let to = self.to.port() + (n / PER_PORT) as u16;
        self.template[PORTS_AT..PORTS_AT + 2].copy_from_slice(&from.to_be_bytes());
        self.template[PORTS_AT + 2..PORTS_AT + 4].copy_from_slice(&to.to_be_bytes());
        &self.template
    }

    /// The flow that `frame` answers.
    fn answered(&self, frame: &[u8]) -> Option<usize> {
        let ports = frame.get(PORTS_AT..PORTS_AT + 4)?;
        if frame[12..14] != [8, 0]
            || frame[14] != 0x45
            || frame[23] != 17
            || frame[26..30] != self.to.ip().octets()
        {
            return None;
        }
        let (from, to) = (u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]]));
        let block = usize::from(from.checked_sub(self.to.port())?);
        Some(block * PER_PORT + usize::from(to.checked_sub(LOWEST)?))
    }

    /// Sends one datagram of each of `count` flows from `socket`, and again those that stay without an answer.
    /// `progress` hears of every answer.
    pub fn drive(
        &mut self,
        socket: &PacketSocket,
        count: usize,
        mut progress: impl FnMut(usize),
    ) -> Result<Outcome> {
        ensure!(usize::from(self.to.port()) + Self::ports_for(count) <= 65_536, "too many flows");
        let (mut waiting, mut buffer) = (vec![true; count], [0; SEEN]);
        let mut outcome = Outcome { answered: 0, sent: 0 };
        for _ in 0..PASSES {
            let mut under_way = 0;
            for n in 0..count {
                if waiting[n] {
                    socket.send(self.write(n))?;
                    outcome.sent += 1;
                    under_way += 1;
                }
                // At the end of a pass everything is waited for.
                let most = if n + 1 < count { WINDOW } else { 0 };
                while under_way > most {
                    let Some(frame) = socket.receive(&mut buffer)? else {
                        under_way = 0;
                        break;
                    };
                    let answered = self.answered(frame).filter(|n| waiting.get(*n) == Some(&true));
                    if let Some(answered) = answered {
                        waiting[answered] = false;
                        under_way -= 1;
                        outcome.answered += 1;
                        progress(outcome.answered);
                    }
                }
            }
            if outcome.answered == count {
                break;
            }
        }
        Ok(outcome)
    }

    /// Sends the datagram of the first flow once a `gap` until an answer comes; returns how many it took.
    pub fn until_answered(&mut self, socket: &PacketSocket, gap: Duration, limit: Duration) -> Result<usize> {
        let (end, mut buffer, mut sent) = (Instant::now() + limit, [0; SEEN], 0);
        while Instant::now() < end {
            socket.send(self.write(0))?;
            sent += 1;
            std::thread::sleep(gap);
            while let Some(frame) = socket.receive_now(&mut buffer)? {
                if self.answered(frame) == Some(0) {
                    return Ok(sent);
                }
            }
        }
        bail!("no answer within {limit:?} to {sent} datagrams")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_has_its_own_ports_and_is_known_by_its_answer() {
        let link = Link { from: [2, 0, 0, 0, 0, 1], to: [2, 0, 0, 0, 0, 2] };
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let mut flows = Flows::new(link, a, SocketAddrV4::new(b, 7002));
        for n in [0, 1, PER_PORT - 1, PER_PORT, 999_999] {
            let sent = frames::read(flows.write(n)).unwrap();
            let (from, to) = sent.udp.unwrap();
            assert!(from >= LOWEST && (7002..7021).contains(&to), "{n}: {from} {to}");
            let answer = frames::udp(link, (b.into(), to), (a.into(), from), 60, b"x");
            assert_eq!(flows.answered(&answer), Some(n));
            let other = frames::udp(link, (a.into(), to), (a.into(), from), 60, b"x");
            assert_eq!(flows.answered(&other), None);
        }
        assert_eq!((Flows::ports_for(1), Flows::ports_for(1_000_000)), (1, 19));
    }
}
