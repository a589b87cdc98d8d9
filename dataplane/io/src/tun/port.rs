//! One queue of the TAP device as a [`Port`]: one system call per frame, header and frame in one piece of memory.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use canal_dataplane::frame::{Frame, FramePool};
use canal_dataplane::limits::{ETHERNET, MAX_IP};
use canal_dataplane::net::Mac;
use canal_dataplane::offload::{Caps, Checksum, GsoKind, Offload};
use canal_dataplane::port::{Ingress, Outgoing, Port, PortStats, Received};
use nix::errno::Errno;

use super::device::{TapDevice, TapQueue};
use super::writer::TapWriter;
use super::{tag, vnet_hdr};
use crate::bpf::NextHops;
use crate::udp::{Outer, UdpReceiver, unpack};

/// A worker's queue of the TAP device.
pub struct TapPort {
    queue: Arc<TapQueue>,
    own: Mac,
    header: usize,
    writer: TapWriter,
    fallback: Vec<UdpReceiver>,
    turns: u32,
    stats: PortStats,
}

/// Bytes after which a turn takes no more frames: what was copied in is to be in the second-level cache still when it is
/// copied out.
const TURN_BYTES: usize = 128 * 1024;

/// Turns of the loop between two looks at the fallback sockets: there is hardly ever something.
const FALLBACK_TURNS: u32 = 64;

impl AsFd for TapPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

impl TapPort {
    /// The port over `queue` of `device`; `next_hops` comes from the steering programs.
    pub fn new(device: &TapDevice, queue: TapQueue, next_hops: Arc<NextHops>) -> Self {
        let queue = Arc::new(queue);
        Self {
            queue: Arc::clone(&queue),
            own: device.mac,
            header: device.abilities.header_len(),
            writer: TapWriter::new(device, queue, next_hops),
            fallback: Vec::new(),
            turns: 0,
            stats: PortStats::default(),
        }
    }

    /// Receives from these sockets at the VXLAN port as well: what the steering program leaves to the kernel (outer
    /// fragments, IPv4 options, IPv6 extension headers) arrives there. One worker is enough. They also keep the port
    /// taken, so that nobody answers our peers with "port unreachable". Replaces those given before.
    pub fn set_fallback(&mut self, sockets: Vec<UdpReceiver>) {
        self.fallback = sockets;
    }

    /// Another way to write to the same queue, for a port that leaves some frames to this device.
    pub fn writer(&self) -> TapWriter {
        self.writer.another()
    }

    /// The fallback sockets, for [`crate::waiter::Waiter::watch`].
    pub fn fallback(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.fallback.iter().map(AsFd::as_fd)
    }

    /// Appends a frame that was read. Several VXLAN datagrams under one outer header (a sender on this machine used
    /// UDP_SEGMENT, or the NIC coalesced them) are taken apart.
    fn deliver(
        &mut self,
        frame: Frame,
        offload: Offload,
        ingress: Ingress,
        pool: &mut FramePool,
        into: &mut Vec<Received>,
    ) {
        self.stats.rx_frames += 1;
        self.stats.rx_bytes += frame.len() as u64;
        match offload.gso {
            Some(gso) if ingress == Ingress::Underlay && offload.tunnel.is_none() => {
                match Outer::read(frame.data()) {
                    Some(outer) if gso.kind == GsoKind::Udp => {
                        // Segments inside of a tunnel have a description of their own here.
                        self.stats.rx_dropped +=
                            unpack(frame, outer.len(), gso.size.into(), MAX_IP, pool, into);
                    }
                    _ => {
                        self.stats.rx_dropped += 1;
                        pool.give(frame);
                    }
                }
            }
            _ => {
                let offload = if ingress == Ingress::Underlay { underlay_offload(offload) } else { offload };
                into.push(Received { frame, offload, ingress });
            }
        }
    }

    /// Reads one frame into `frame`; `Ok(None)` for one that means nothing to us.
    fn read(&mut self, frame: &mut Frame) -> Result<Option<(Offload, Ingress)>, Errno> {
        let room = frame.receive_buffer().len();
        let whole = frame.set_len(room);
        debug_assert!(whole, "the receive buffer is the frame's own memory");
        let Some(buffer) = frame.data_with_headroom(self.header) else {
            unreachable!("an empty frame's headroom holds the header (limits::HEADROOM)")
        };
        let len = nix::unistd::read(&self.queue, buffer)?;
        let Some(len) = len.checked_sub(self.header).filter(|len| *len >= ETHERNET) else { return Ok(None) };
        let offload = vnet_hdr::decode(&buffer[..self.header]);
        let cut = frame.set_len(len);
        debug_assert!(cut, "the kernel wrote into the buffer it was given");
        let source = frame.data()[6..12].first_chunk().copied();
        let ingress = source.and_then(|source| tag::ingress(source, self.own));
        Ok(offload.zip(ingress))
    }
}

/// What the kernel says of an underlay frame's checksum, in terms of the innermost one: "valid" may speak of the outer
/// header only, so it is worth nothing.
fn underlay_offload(offload: Offload) -> Offload {
    match offload.checksum {
        Checksum::Verified => Offload { checksum: Checksum::Complete, ..offload },
        _ => offload,
    }
}

impl Port for TapPort {
    fn caps(&self) -> Caps {
        self.writer.caps()
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Received>, limit: usize) {
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(FALLBACK_TURNS) {
            for socket in &mut self.fallback {
                socket.receive(pool, into, limit);
            }
        }
        let mut bytes = 0;
        for _ in 0..limit {
            if bytes >= TURN_BYTES {
                return;
            }
            let Some(mut frame) = pool.take() else { return };
            match self.read(&mut frame) {
                Ok(Some((offload, ingress))) => {
                    bytes += frame.len();
                    self.deliver(frame, offload, ingress, pool, into);
                }
                Ok(None) => {
                    self.stats.rx_dropped += 1;
                    pool.give(frame);
                }
                Err(errno) => {
                    pool.give(frame);
                    // EAGAIN: empty. Anything else (the device was deleted) shows up as a port that gets nothing.
                    if errno != Errno::EINTR {
                        return;
                    }
                }
            }
        }
    }

    fn transmit(&mut self, frames: &mut Vec<Outgoing>, pool: &mut FramePool) {
        for Outgoing { mut frame, offload, egress } in frames.drain(..) {
            self.writer.send(&mut frame, &offload, egress);
            pool.give(frame);
        }
    }

    fn stats(&self) -> PortStats {
        let sent = self.writer.stats();
        let mut stats = PortStats {
            tx_frames: sent.tx_frames,
            tx_bytes: sent.tx_bytes,
            tx_full: sent.tx_full,
            tx_errors: sent.tx_errors,
            ..self.stats
        };
        for received in self.fallback.iter().map(UdpReceiver::stats) {
            stats.rx_frames += received.rx_frames;
            stats.rx_bytes += received.rx_bytes;
            stats.rx_dropped += received.rx_dropped;
        }
        stats
    }
}
