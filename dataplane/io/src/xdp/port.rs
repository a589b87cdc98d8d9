//! The port of one worker: its sockets on all interfaces, the frames at hand, and the way around.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use canal_dataplane::frame::{Frame, FramePool};
use canal_dataplane::offload::{Caps, Checksum, Offload};
use canal_dataplane::port::{Egress, IfIndex, Outgoing, Port, PortStats, Received};
use canal_dataplane::segment::{Finish, MAX_HEADERS, Segment, Segmenter, lower};

use super::memory::Memory;
use super::wire::Wire;
use crate::tun::TapWriter;
use crate::udp::{Outer, finish_segment};

/// Frames that a worker may have beyond, or below, its share before it does something about it.
const SLACK: usize = 256;

/// AF_XDP sockets of one worker. Takes super-frames: it cuts them itself; delivers some: it merges what comes in pieces.
///
/// What its sockets cannot send goes around them: what has no neighbour yet, is too long, or is for another interface.
pub struct XdpPort {
    // Before what they refer to.
    wires: Vec<Wire>,
    memory: Arc<Memory>,
    /// Frames of the region at hand.
    spare: Vec<Frame>,
    /// How many there should be.
    share: usize,
    /// The same worker's TAP queue, behind which the kernel knows, or finds out, how to send.
    detour: TapWriter,
    /// Room for frames received and not yet looked at.
    arrived: Vec<Frame>,
    /// Pieces for the detour.
    pieces: Vec<Outgoing>,
    /// The interface that is looked at first.
    turn: usize,
    /// Of interfaces that are gone, and of what could not go around.
    past: PortStats,
}

impl XdpPort {
    /// A port with `wire` as its first.
    pub fn new(wire: Wire, detour: TapWriter) -> Self {
        let mut port = Self {
            wires: Vec::new(),
            memory: Arc::clone(&wire.interface.memory),
            spare: Vec::new(),
            share: 0,
            detour,
            arrived: Vec::new(),
            pieces: Vec::new(),
            turn: 0,
            past: PortStats::default(),
        };
        port.add(wire);
        port
    }

    /// Can this port have `wire`? Not if its frames are of other memory.
    pub fn goes_with(&self, wire: &Wire) -> bool {
        Arc::ptr_eq(&self.memory, &wire.interface.memory)
    }

    /// Takes over the sockets of a further interface.
    ///
    /// # Panics
    /// When they do not go with this port ([`Self::goes_with`]): a programmer's error.
    pub fn add(&mut self, mut wire: Wire) {
        assert!(self.goes_with(&wire), "all interfaces of a port have the same memory");
        self.spare.extend(wire.take_hands());
        self.wires.push(wire);
        self.share = self.wires.iter().map(|wire| wire.share).sum();
    }

    /// Closes the sockets of an interface.
    pub fn remove(&mut self, ifindex: IfIndex) {
        for wire in self.wires.extract_if(.., |wire| wire.ifindex() == ifindex) {
            self.past = self.past.and(wire.stats());
        }
        self.share = self.wires.iter().map(|wire| wire.share).sum();
    }

    /// Has it sockets on the underlay?
    pub fn carries_underlay(&self) -> bool {
        self.wires.iter().any(|wire| !wire.is_gateway())
    }

    /// Does something wait for a device that is full? It is offered again at every [`Port::receive`], and not by itself.
    pub fn is_held_up(&self) -> bool {
        self.wires.iter().any(Wire::is_held_up)
    }

    /// Sockets of the interfaces.
    pub fn wires(&self) -> &[Wire] {
        &self.wires
    }

    /// The sockets that frames arrive at, for [`crate::waiter::Waiter::watch`].
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.wires.iter().flat_map(Wire::sockets)
    }

    /// Takes frames of the region out of the pool, where others have left them, and evens out between workers.
    fn settle(&mut self, pool: &mut FramePool) {
        self.spare.extend(self.memory.take_from(pool));
        let owed: usize = self.wires.iter().map(Wire::owed).sum();
        if self.spare.len() > self.share + owed + SLACK {
            self.spare.drain(self.share + owed..).for_each(|frame| self.memory.put_aside(frame));
        } else if self.spare.len() + SLACK < self.share + owed {
            while self.spare.len() < self.share + owed {
                let Some(frame) = self.memory.spare() else { return };
                self.spare.push(frame);
            }
        }
    }

    /// Takes back what has been sent: where frames are wanted, and before more is sent. Not at every look for something to
    /// receive, since where the kernel writes it down, frame by frame, is another core's as long as nobody looks.
    fn reap(&mut self) {
        self.wires.iter_mut().for_each(|wire| wire.reap(&mut self.spare));
    }

    /// An empty frame of the region.
    fn spare(&mut self) -> Option<Frame> {
        if self.spare.is_empty() {
            self.reap();
            if self.spare.is_empty() {
                self.wires.iter_mut().for_each(Wire::kick);
                self.reap();
            }
        }
        self.spare.pop()
    }

    /// The interface that a frame leaves by, and the Ethernet address to which; `None` if the TAP device has to see to it.
    #[inline]
    fn way(&mut self, egress: Egress, frame: &Frame) -> Option<(usize, [u8; 6])> {
        let (target, ifindex) = match egress {
            Egress::Underlay => (Outer::read(frame.data())?.target, None),
            Egress::Gateway { ifindex, next_hop } => (next_hop, Some(ifindex)),
            _ => return None,
        };
        let leaves_by = |wire: &Wire| match ifindex {
            None => !wire.is_gateway(),
            Some(ifindex) => wire.is_gateway() && wire.ifindex() == ifindex,
        };
        let index = self.wires.iter().position(leaves_by)?;
        self.wires[index].hops.mac(target).map(|mac| (index, mac))
    }

    /// Sends a finished packet by interface `index`.
    fn send(&mut self, index: usize, mut frame: Frame, mac: [u8; 6], pool: &mut FramePool) {
        if !self.memory.region().owns(&frame) {
            // It came from the TAP device, whose frames have room for 64 KB; the kernel's chunks have none.
            let Some(mut own) = self.spare() else {
                self.wires[index].stats.tx_full += 1;
                pool.give(frame);
                return;
            };
            let fits = own.fill(frame.data());
            debug_assert!(fits, "frames up to the MTU fit a chunk");
            pool.give(std::mem::replace(&mut frame, own));
        }
        self.wires[index].put(frame, mac, &mut self.spare);
    }

    /// Cuts a super-frame and sends its segments by interface `index`. False when it is none.
    fn send_segments(&mut self, index: usize, frame: &Frame, offload: &Offload, mac: [u8; 6]) -> bool {
        let Ok(segmenter) = Segmenter::new(frame.data(), offload) else { return false };
        let longest = self.wires[index].interface.longest;
        if segmenter.header_len() + usize::from(offload.gso.map_or(0, |gso| gso.size)) > longest {
            return false;
        }
        let ours = matches!(offload.checksum, Checksum::Partial { .. });
        let mut segmenter = segmenter.finish(if ours { Finish::Partial } else { Finish::Complete });
        let mut header = [0; MAX_HEADERS];
        while let Some(Segment { header_len, payload }) = segmenter.next(&mut header) {
            let payload = &frame.data()[payload];
            finish_segment(&mut header[..header_len], payload, offload);
            let Some(mut piece) = self.spare() else {
                self.wires[index].stats.tx_full += 1;
                continue;
            };
            let fits = piece.set_len(header_len + payload.len());
            debug_assert!(fits, "frames up to the MTU fit a chunk");
            let (front, back) = piece.data_mut().split_at_mut(header_len);
            front.copy_from_slice(&header[..header_len]);
            back.copy_from_slice(payload);
            self.wires[index].put(piece, mac, &mut self.spare);
        }
        true
    }

    /// Leaves a frame to the TAP device.
    fn go_around(&mut self, mut frame: Frame, offload: Offload, egress: Egress, pool: &mut FramePool) {
        if offload.is_finished() {
            self.detour.send(&mut frame, &offload, egress);
            pool.give(frame);
            return;
        }
        if lower(frame, offload, self.detour.caps(), egress, pool, &mut self.pieces).is_err() {
            self.past.tx_errors += 1;
        }
        for Outgoing { mut frame, offload, egress } in self.pieces.drain(..) {
            self.detour.send(&mut frame, &offload, egress);
            pool.give(frame);
        }
    }
}

impl Drop for XdpPort {
    fn drop(&mut self) {
        self.spare.drain(..).chain(self.arrived.drain(..)).for_each(|frame| self.memory.put_aside(frame));
    }
}

impl Port for XdpPort {
    fn caps(&self) -> Caps {
        Caps::ALL
    }

    fn carries_gateways(&self) -> bool {
        self.wires.iter().any(Wire::is_gateway)
    }

    /// By turns each interface is the first: under load each gets its share of `limit` frames.
    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Received>, limit: usize) {
        self.settle(pool);
        if self.spare.len() < limit || self.wires.iter().any(|wire| wire.owed() > 0) {
            self.reap();
        }
        self.wires.iter_mut().for_each(Wire::kick);
        self.turn = self.turn.wrapping_add(1);
        let (count, mut left) = (self.wires.len(), limit);
        let through = count > 1;
        for step in 0..count {
            let wire = &mut self.wires[(self.turn + step) % count];
            left -= wire.receive(left, &mut self.spare, &mut self.arrived, pool, into, through);
        }
    }

    fn transmit(&mut self, frames: &mut Vec<Outgoing>, pool: &mut FramePool) {
        if !frames.is_empty() {
            self.reap();
        }
        for Outgoing { mut frame, offload, egress } in frames.drain(..) {
            let Some((index, mac)) = self.way(egress, &frame) else {
                self.go_around(frame, offload, egress, pool);
                continue;
            };
            let fits = frame.len() <= self.wires[index].interface.longest;
            match (offload.gso, offload.checksum) {
                (Some(_), _) => {
                    if self.send_segments(index, &frame, &offload, mac) {
                        pool.give(frame);
                    } else {
                        self.go_around(frame, offload, egress, pool);
                    }
                }
                (None, Checksum::Partial { start, offset }) if fits => {
                    if crate::checksum::finish_partial(frame.data_mut(), start, offset).is_ok() {
                        self.send(index, frame, mac, pool);
                    } else {
                        self.wires[index].stats.tx_errors += 1;
                        pool.give(frame);
                    }
                }
                (None, _) if fits => self.send(index, frame, mac, pool),
                _ => self.go_around(frame, offload, egress, pool),
            }
        }
        self.wires.iter_mut().for_each(Wire::kick);
    }

    /// Of the sockets. What went around them is counted by the TAP port.
    fn stats(&self) -> PortStats {
        self.wires.iter().map(Wire::stats).fold(self.past, PortStats::and)
    }
}
