//! A port whose wire is a pair of queues in memory: tests, simulations, benches, `canal trace`.

use std::collections::VecDeque;

use super::{Egress, Ingress, Outgoing, Port, PortStats, Received};
use crate::frame::FramePool;
use crate::offload::{Caps, Offload};

/// A packet outside of any frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its bytes.
    pub packet: Vec<u8>,
    /// What is unfinished in it.
    pub offload: Offload,
    /// Where it went.
    pub egress: Egress,
}

/// Queues in memory; unbounded on the sending side, since whoever reads it is a test.
#[derive(Debug, Default)]
pub struct MemPort {
    caps: Caps,
    gateways: bool,
    incoming: VecDeque<(Ingress, Offload, Vec<u8>)>,
    sent: Vec<Sent>,
    stats: PortStats,
}

impl MemPort {
    /// A port that takes what `caps` says.
    pub fn new(caps: Caps) -> Self {
        Self { caps, ..Self::default() }
    }

    /// The same as the way out of gateway interfaces.
    #[must_use]
    pub fn carrying_gateways(self) -> Self {
        Self { gateways: true, ..self }
    }

    /// Puts a packet on the wire towards us.
    pub fn inject(&mut self, ingress: Ingress, offload: Offload, packet: impl Into<Vec<u8>>) {
        self.incoming.push_back((ingress, offload, packet.into()));
    }

    /// Takes everything that was sent so far.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }
}

impl Port for MemPort {
    fn caps(&self) -> Caps {
        self.caps
    }

    fn carries_gateways(&self) -> bool {
        self.gateways
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Received>, limit: usize) {
        for _ in 0..limit.min(self.incoming.len()) {
            let Some(mut frame) = pool.take() else { return };
            let Some((ingress, offload, packet)) = self.incoming.pop_front() else { return };
            if frame.fill(&packet) {
                self.stats.rx_frames += 1;
                self.stats.rx_bytes += packet.len() as u64;
                into.push(Received { frame, offload, ingress });
            } else {
                self.stats.rx_dropped += 1;
                pool.give(frame);
            }
        }
    }

    fn transmit(&mut self, frames: &mut Vec<Outgoing>, pool: &mut FramePool) {
        for Outgoing { frame, offload, egress } in frames.drain(..) {
            self.stats.tx_frames += 1;
            self.stats.tx_bytes += frame.len() as u64;
            self.sent.push(Sent { packet: frame.data().to_vec(), offload, egress });
            pool.give(frame);
        }
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}
