//! One queue of the TAP device as a [`Port`]: one system call per frame, header and frame in one piece of memory.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use canal_dataplane::frame::{Frame, FramePool};
use canal_dataplane::limits::{ETHERNET, MAX_IP};
use canal_dataplane::net::Mac;
use canal_dataplane::offload::{Caps, Checksum, GsoKind, Offload};
use canal_dataplane::port::{Egress, Ingress, Outgoing, Port, PortStats, Received};
use nix::errno::Errno;

use super::device::{TapDevice, TapQueue};
use super::{tag, vnet_hdr};
use crate::bpf::NextHops;
use crate::udp::{Outer, UdpReceiver, unpack};

/// A worker's queue of the TAP device.
pub struct TapPort {
    queue: TapQueue,
    own: Mac,
    header: usize,
    caps: Caps,
    next_hops: Arc<NextHops>,
    known_next_hops: HashMap<Ipv6Addr, u32>,
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
        Self {
            queue,
            own: device.mac,
            header: device.abilities.header_len(),
            caps: device.abilities.caps(),
            next_hops,
            known_next_hops: HashMap::new(),
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

    /// Writes the Ethernet addresses by which the program on the device knows where the frame goes.
    fn address(&mut self, frame: &mut Frame, egress: Egress) -> bool {
        let target = match egress {
            Egress::Workload(ifindex) => {
                let data = frame.data_mut();
                if data.len() < ETHERNET {
                    return false;
                }
                data.copy_within(..6, 6);
                data[..6].copy_from_slice(&tag::to_workload(ifindex));
                return true;
            }
            Egress::Underlay => tag::to_underlay(),
            Egress::Direct(IpAddr::V4(next_hop)) => tag::to_direct_v4(next_hop),
            Egress::Direct(IpAddr::V6(next_hop)) => match self.next_hop_index(next_hop) {
                Some(index) => tag::to_direct_v6(index),
                None => return false,
            },
            Egress::Host => self.own.0,
        };
        let Some(field) = frame.data_mut().first_chunk_mut::<ETHERNET>() else { return false };
        field[..6].copy_from_slice(&target);
        field[6..12].copy_from_slice(&self.own.0);
        true
    }

    fn next_hop_index(&mut self, next_hop: Ipv6Addr) -> Option<u32> {
        if let Some(index) = self.known_next_hops.get(&next_hop) {
            return Some(*index);
        }
        let index = self.next_hops.index_of(next_hop)?;
        self.known_next_hops.insert(next_hop, index);
        Some(index)
    }

    fn send(&mut self, frame: &mut Frame, offload: &Offload, egress: Egress) {
        let len = frame.len();
        let mut header = [0; vnet_hdr::TUNNEL];
        let header = &mut header[..self.header];
        if !self.address(frame, egress) || !vnet_hdr::encode(header, offload, frame.data()) {
            self.stats.tx_errors += 1;
            return;
        }
        let Some(buffer) = frame.data_with_headroom(self.header) else {
            self.stats.tx_errors += 1;
            return;
        };
        buffer[..self.header].copy_from_slice(header);
        match retried(|| nix::unistd::write(&self.queue, buffer)) {
            Ok(_) => {
                self.stats.tx_frames += 1;
                self.stats.tx_bytes += len as u64;
            }
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => self.stats.tx_full += 1,
            Err(_) => self.stats.tx_errors += 1,
        }
    }
}

/// Repeats a call that a signal interrupted.
fn retried<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
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
        self.caps
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
            self.send(&mut frame, &offload, egress);
            pool.give(frame);
        }
    }

    fn stats(&self) -> PortStats {
        let mut stats = self.stats;
        for received in self.fallback.iter().map(UdpReceiver::stats) {
            stats.rx_frames += received.rx_frames;
            stats.rx_bytes += received.rx_bytes;
            stats.rx_dropped += received.rx_dropped;
        }
        stats
    }
}
