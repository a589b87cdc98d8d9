//! The way into the device: one system call per frame, where it goes written into its Ethernet addresses.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use canal_dataplane::counters::Counter;
use canal_dataplane::frame::Frame;
use canal_dataplane::limits::ETHERNET;
use canal_dataplane::net::Mac;
use canal_dataplane::offload::{Caps, Offload};
use canal_dataplane::port::{Egress, IfIndex, PortStats};
use nix::errno::Errno;

use super::device::{TapDevice, TapQueue};
use super::{tag, vnet_hdr};
use crate::bpf::NextHops;

/// What became of frames, by all writers to one queue. They belong to one worker.
#[derive(Debug, Default)]
struct Sent {
    frames: Counter,
    bytes: Counter,
    full: Counter,
    errors: Counter,
}

/// Writes to one queue. Several writers of one worker may share it.
pub struct TapWriter {
    queue: Arc<TapQueue>,
    own: Mac,
    header: usize,
    caps: Caps,
    next_hops: Arc<NextHops>,
    known_next_hops: HashMap<Ipv6Addr, u32>,
    sent: Arc<Sent>,
}

impl TapWriter {
    pub(super) fn new(device: &TapDevice, queue: Arc<TapQueue>, next_hops: Arc<NextHops>) -> Self {
        Self {
            queue,
            own: device.mac,
            header: device.abilities.header_len(),
            caps: device.abilities.caps(),
            next_hops,
            known_next_hops: HashMap::new(),
            sent: Arc::default(),
        }
    }

    /// A writer to the same queue, for another port of the same worker. Both count together.
    pub(super) fn another(&self) -> Self {
        Self {
            queue: Arc::clone(&self.queue),
            next_hops: Arc::clone(&self.next_hops),
            known_next_hops: HashMap::new(),
            sent: Arc::clone(&self.sent),
            ..*self
        }
    }

    /// What the device takes off our hands.
    pub fn caps(&self) -> Caps {
        self.caps
    }

    /// What was sent to the queue, and what was not.
    pub fn stats(&self) -> PortStats {
        PortStats {
            tx_frames: self.sent.frames.get(),
            tx_bytes: self.sent.bytes.get(),
            tx_full: self.sent.full.get(),
            tx_errors: self.sent.errors.get(),
            ..PortStats::default()
        }
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
            Egress::Direct(next_hop) => return self.address_hop(frame, 0, next_hop),
            Egress::Gateway { ifindex, next_hop } => return self.address_hop(frame, ifindex, next_hop),
            Egress::Host => self.own.0,
        };
        write(frame, target, self.own.0)
    }

    /// Only routers need a place in the table of next hops: hosts on the link are told by the packet.
    fn address_hop(&mut self, frame: &mut Frame, ifindex: IfIndex, next_hop: IpAddr) -> bool {
        let hop = match next_hop {
            IpAddr::V4(address) => tag::Hop::V4(address),
            IpAddr::V6(address) if is_destination(frame.data(), address) => tag::Hop::Itself,
            IpAddr::V6(address) => match self.next_hop_index(address) {
                Some(index) => tag::Hop::V6(index),
                None => return false,
            },
        };
        write(frame, tag::to_next_hop(ifindex), hop.field())
    }

    fn next_hop_index(&mut self, next_hop: Ipv6Addr) -> Option<u32> {
        if let Some(index) = self.known_next_hops.get(&next_hop) {
            return Some(*index);
        }
        let index = self.next_hops.index_of(next_hop)?;
        self.known_next_hops.insert(next_hop, index);
        Some(index)
    }

    /// Sends one frame, which must be as the device takes it ([`Self::caps`]); what becomes of it is counted. Its memory stays
    /// with the caller, its Ethernet addresses are lost.
    pub fn send(&mut self, frame: &mut Frame, offload: &Offload, egress: Egress) {
        let len = frame.len();
        let mut header = [0; vnet_hdr::TUNNEL];
        let header = &mut header[..self.header];
        if !self.address(frame, egress) || !vnet_hdr::encode(header, offload, frame.data()) {
            self.sent.errors.add(1);
            return;
        }
        let Some(buffer) = frame.data_with_headroom(self.header) else {
            self.sent.errors.add(1);
            return;
        };
        buffer[..self.header].copy_from_slice(header);
        match retried(|| nix::unistd::write(&*self.queue, buffer)) {
            Ok(_) => {
                self.sent.frames.add(1);
                self.sent.bytes.add(len as u64);
            }
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => self.sent.full.add(1),
            Err(_) => self.sent.errors.add(1),
        }
    }
}

fn write(frame: &mut Frame, target: [u8; 6], source: [u8; 6]) -> bool {
    let Some(field) = frame.data_mut().first_chunk_mut::<ETHERNET>() else { return false };
    field[..6].copy_from_slice(&target);
    field[6..12].copy_from_slice(&source);
    true
}

/// Is the frame an IPv6 packet to this address?
fn is_destination(frame: &[u8], address: Ipv6Addr) -> bool {
    frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(38..54) == Some(&address.octets())
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
