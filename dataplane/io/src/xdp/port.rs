//! The port of one worker: the sockets of its queues, and the way around them.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use canal_dataplane::checksum;
use canal_dataplane::frame::{Frame, FramePool};
use canal_dataplane::limits::ETHERNET;
use canal_dataplane::net::Mac;
use canal_dataplane::offload::{Caps, Checksum, Offload};
use canal_dataplane::port::{Egress, Outgoing, Port, PortStats, Received};
use canal_dataplane::segment::{Finish, MAX_HEADERS, Segment, Segmenter, lower};
use crossbeam::queue::ArrayQueue;

use super::gather::gather;
use super::neighbors::Hops;
use super::region::Region;
use super::ring::Descriptor;
use super::socket::Socket;
use crate::tun::TapWriter;
use crate::udp::{Outer, finish_segment};

/// Frames that a worker may have beyond, or below, its share before it does something about it.
const SLACK: usize = 256;

/// Calls after which the kernel is left alone with what it has not sent: one is enough where it takes all that can wait, and
/// without that each takes 32.
const KICKS: usize = 64;

/// A socket and what it is owed.
pub(super) struct Queue {
    pub socket: Socket,
    /// Frames received and not yet replaced.
    pub owed: usize,
}

/// What all ports of an interface have in common.
pub(super) struct Common {
    pub region: &'static Region,
    /// Frames of workers that have too many, for those that have too few.
    pub surplus: ArrayQueue<Frame>,
    /// The interface's own address.
    pub mac: Mac,
    /// Bytes of the longest frame that may be on the wire.
    pub longest: usize,
    /// MTU of the overlay.
    pub overlay_mtu: usize,
}

/// AF_XDP sockets of one worker. Takes super-frames: it cuts them itself; delivers some: it merges what comes in pieces.
///
/// Before it can send it needs a way around itself ([`Self::set_detour`]): for what has no neighbour yet, or is too long.
pub struct XdpPort {
    // Before what they refer to.
    queues: Vec<Queue>,
    common: Arc<Common>,
    /// Frames of the region at hand.
    spare: Vec<Frame>,
    share: usize,
    hops: Hops,
    detour: Option<TapWriter>,
    /// Frames received and not yet looked at.
    arrived: Vec<Frame>,
    /// Pieces for the detour.
    pieces: Vec<Outgoing>,
    /// The queue that is looked at first.
    turn: usize,
    stats: PortStats,
}

impl XdpPort {
    pub(super) fn new(queues: Vec<Queue>, common: Arc<Common>, spare: Vec<Frame>, hops: Hops) -> Self {
        let share = spare.len();
        Self {
            queues,
            common,
            spare,
            share,
            hops,
            detour: None,
            arrived: Vec::new(),
            pieces: Vec::new(),
            turn: 0,
            stats: PortStats::default(),
        }
    }

    /// The way for frames that the sockets cannot send (yet): the same worker's TAP queue, behind which the kernel knows, or
    /// finds out, how to.
    pub fn set_detour(&mut self, detour: TapWriter) {
        self.detour = Some(detour);
    }

    /// The sockets that frames arrive at, for [`crate::waiter::Waiter::watch`].
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.queues.iter().map(|queue| queue.socket.as_fd())
    }

    /// Takes frames of the region out of the pool, where others have left them, and evens out between workers.
    fn settle(&mut self, pool: &mut FramePool) {
        while let Some(frame) = pool.take_guest() {
            // What belongs to an interface that is gone has no other use; it is lost with it.
            if self.common.region.owns(&frame) {
                self.spare.push(frame);
            }
        }
        let owed: usize = self.queues.iter().map(|queue| queue.owed).sum();
        if self.spare.len() > self.share + SLACK {
            for frame in self.spare.drain(self.share..) {
                // There is room for all there are.
                let _ = self.common.surplus.push(frame);
            }
        } else if self.spare.len() + SLACK < self.share + owed {
            while self.spare.len() < self.share + owed {
                let Some(frame) = self.common.surplus.pop() else { return };
                self.spare.push(frame);
            }
        }
    }

    /// Takes back what has been sent.
    fn reap(&mut self) {
        for Queue { socket, .. } in &mut self.queues {
            while let Some(address) = socket.completion.pop() {
                self.spare.extend(self.common.region.take_back(address));
            }
            socket.completion.release();
        }
    }

    /// Takes up to `limit` frames from queue `index` and replaces them.
    fn take_from(&mut self, index: usize, limit: usize) {
        let region = self.common.region;
        let Queue { socket, owed } = &mut self.queues[index];
        let mut taken = 0;
        while taken < limit
            && let Some(Descriptor { address, len, .. }) = socket.rx.pop()
        {
            taken += 1;
            match region.receive(address, len as usize) {
                Some(frame) => {
                    self.stats.rx_frames += 1;
                    self.stats.rx_bytes += u64::from(len);
                    self.arrived.push(frame);
                }
                None => self.stats.rx_dropped += 1,
            }
        }
        if taken > 0 {
            socket.rx.release();
        }
        *owed += taken;
        if *owed == 0 {
            return;
        }
        while *owed > 0
            && socket.fill.room(1) > 0
            && let Some(frame) = self.spare.pop()
        {
            let Ok(address) = region.lend(frame) else { unreachable!("spare frames are the region's") };
            let pushed = socket.fill.push(address);
            debug_assert!(pushed, "there was room");
            *owed -= 1;
        }
        socket.fill.publish();
        if socket.fill.needs_wakeup() {
            socket.wake_receiver();
        }
    }

    /// An empty frame of the region.
    fn spare(&mut self) -> Option<Frame> {
        if self.spare.is_empty() {
            self.reap();
            if self.spare.is_empty() {
                self.kick();
                self.reap();
            }
        }
        self.spare.pop()
    }

    /// Sends a finished packet.
    fn send(&mut self, mut frame: Frame, mac: [u8; 6], pool: &mut FramePool) {
        if !self.common.region.owns(&frame) {
            // It came from the TAP device, whose frames have room for 64 KB; the kernel's chunks have none.
            let Some(mut own) = self.spare() else {
                self.stats.tx_full += 1;
                pool.give(frame);
                return;
            };
            let fits = own.fill(frame.data());
            debug_assert!(fits, "frames up to the MTU fit a chunk");
            pool.give(std::mem::replace(&mut frame, own));
        }
        self.put(frame, mac);
    }

    /// Cuts a super-frame and sends its segments. False when it is none.
    fn send_segments(&mut self, frame: &Frame, offload: &Offload, mac: [u8; 6]) -> bool {
        let Ok(segmenter) = Segmenter::new(frame.data(), offload) else { return false };
        if segmenter.header_len() + usize::from(offload.gso.map_or(0, |gso| gso.size)) > self.common.longest {
            return false;
        }
        let ours = matches!(offload.checksum, Checksum::Partial { .. });
        let mut segmenter = segmenter.finish(if ours { Finish::Partial } else { Finish::Complete });
        let mut header = [0; MAX_HEADERS];
        while let Some(Segment { header_len, payload }) = segmenter.next(&mut header) {
            let payload = &frame.data()[payload];
            finish_segment(&mut header[..header_len], payload, offload);
            let Some(mut piece) = self.spare() else {
                self.stats.tx_full += 1;
                continue;
            };
            let fits = piece.set_len(header_len + payload.len());
            debug_assert!(fits, "frames up to the MTU fit a chunk");
            let (front, back) = piece.data_mut().split_at_mut(header_len);
            front.copy_from_slice(&header[..header_len]);
            back.copy_from_slice(payload);
            self.put(piece, mac);
        }
        true
    }

    /// Addresses a frame of the region and puts it into the ring.
    fn put(&mut self, mut frame: Frame, mac: [u8; 6]) {
        let Some(ethernet) = frame.data_mut().first_chunk_mut::<ETHERNET>() else {
            self.stats.tx_errors += 1;
            self.spare.push(frame);
            return;
        };
        ethernet[..6].copy_from_slice(&mac);
        ethernet[6..12].copy_from_slice(&self.common.mac.0);
        if self.queues[0].socket.tx.room(1) == 0 {
            self.kick();
            if self.queues[0].socket.tx.room(1) == 0 {
                self.stats.tx_full += 1;
                self.spare.push(frame);
                return;
            }
        }
        let len = frame.len() as u32;
        match self.common.region.lend(frame) {
            Ok(address) => {
                let pushed = self.queues[0].socket.tx.push(Descriptor { address, len, options: 0 });
                debug_assert!(pushed, "there was room");
                self.stats.tx_frames += 1;
                self.stats.tx_bytes += u64::from(len);
            }
            Err(_) => unreachable!("only frames of the region come here"),
        }
    }

    /// Has the kernel send what is in the ring.
    fn kick(&mut self) {
        let Socket { tx, .. } = &mut self.queues[0].socket;
        tx.publish();
        for _ in 0..KICKS {
            let socket = &mut self.queues[0].socket;
            if socket.tx.pending() == 0 || !socket.tx.needs_wakeup() {
                return;
            }
            match socket.kick() {
                Ok(()) => {}
                // It has done its share of one call.
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                // The device is full, or down: the next call tries again.
                Err(_) => return,
            }
        }
    }

    /// Leaves a frame to the TAP device.
    fn go_around(&mut self, mut frame: Frame, offload: Offload, egress: Egress, pool: &mut FramePool) {
        let Some(detour) = &mut self.detour else {
            self.stats.tx_errors += 1;
            pool.give(frame);
            return;
        };
        if offload.is_finished() {
            detour.send(&mut frame, &offload, egress);
            pool.give(frame);
            return;
        }
        if lower(frame, offload, detour.caps(), egress, pool, &mut self.pieces).is_err() {
            self.stats.tx_errors += 1;
        }
        for Outgoing { mut frame, offload, egress } in self.pieces.drain(..) {
            detour.send(&mut frame, &offload, egress);
            pool.give(frame);
        }
    }
}

impl Drop for XdpPort {
    fn drop(&mut self) {
        // As if the kernel had them: the next device takes over what the sockets of this one were lent.
        for frame in self.spare.drain(..).chain(self.arrived.drain(..)) {
            let _ = self.common.region.lend(frame);
        }
    }
}

impl Port for XdpPort {
    fn caps(&self) -> Caps {
        Caps::ALL
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Received>, limit: usize) {
        self.settle(pool);
        self.reap();
        if self.queues[0].socket.tx.pending() > 0 {
            self.kick();
        }
        self.turn = self.turn.wrapping_add(1);
        for step in 0..self.queues.len() {
            let left = limit - self.arrived.len();
            self.take_from((self.turn + step) % self.queues.len(), left);
        }
        self.stats.rx_dropped += gather(&mut self.arrived, self.common.overlay_mtu, pool, into);
    }

    fn transmit(&mut self, frames: &mut Vec<Outgoing>, pool: &mut FramePool) {
        for Outgoing { mut frame, offload, egress } in frames.drain(..) {
            let mac = Outer::read(frame.data()).and_then(|outer| self.hops.mac(outer.target));
            let fits = frame.len() <= self.common.longest;
            match (mac, offload.gso, offload.checksum) {
                (Some(mac), Some(_), _) => {
                    if self.send_segments(&frame, &offload, mac) {
                        pool.give(frame);
                    } else {
                        self.go_around(frame, offload, egress, pool);
                    }
                }
                (Some(mac), None, Checksum::Partial { start, offset }) if fits => {
                    if checksum::finish_partial(frame.data_mut(), start, offset).is_ok() {
                        self.send(frame, mac, pool);
                    } else {
                        self.stats.tx_errors += 1;
                        pool.give(frame);
                    }
                }
                (Some(mac), None, _) if fits => self.send(frame, mac, pool),
                _ => self.go_around(frame, offload, egress, pool),
            }
        }
        self.kick();
    }

    /// Of the sockets. What went around them is counted by the TAP port.
    fn stats(&self) -> PortStats {
        let mut stats = self.stats;
        for queue in &self.queues {
            let lost = queue.socket.losses();
            stats.rx_dropped += lost.rx_dropped + lost.rx_ring_full;
            stats.tx_errors += lost.invalid;
        }
        stats
    }
}
