//! Where frames come from and go to. The core knows ports by this trait only; kernel ports live in `canal-io`,
//! in-memory ones in [`mem`].

pub mod mem;

use std::net::IpAddr;

use crate::frame::{Frame, FramePool};
use crate::offload::{Caps, Offload};

/// The kernel's number of an interface.
pub type IfIndex = u32;

/// By which way a frame came in. The port says so; nothing in the frame can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// Sent by the workload behind this host-side interface. Source MAC is the port's business and means nothing.
    Workload(IfIndex),
    /// From the underlay: an outer Ethernet/IP/UDP/VXLAN frame addressed to our VTEP, or an ICMP error about one.
    Underlay,
    /// From the underlay, not encapsulated: a peer with direct routing sent it.
    Direct,
    /// A plain IP packet from a host behind this gateway interface, addressed to the interface's Ethernet address.
    Gateway(IfIndex),
    /// From this host's own IP stack.
    Host,
    /// Out of the tunnel already: another worker has decapsulated it, and this is the outer source it checked.
    Decapsulated(IpAddr),
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// To the workload behind this host-side interface; the Ethernet header is final.
    Workload(IfIndex),
    /// Encapsulated, to the VTEP in the outer destination address; the port (or the kernel behind it) resolves the
    /// outer next hop and writes the outer Ethernet addresses.
    Underlay,
    /// Plain, to this next hop on the underlay interface; the kernel behind the port writes the Ethernet addresses.
    Direct(IpAddr),
    /// Plain, to this next hop (it may be the packet's own destination) on a gateway interface; the port, or the kernel
    /// behind it, resolves it and writes the Ethernet addresses.
    Gateway {
        /// The interface.
        ifindex: IfIndex,
        /// Next hop on its link.
        next_hop: IpAddr,
    },
    /// To this host's own IP stack.
    Host,
}

/// A frame as a port delivers it.
#[derive(Debug)]
pub struct Received {
    /// Starts with its Ethernet header.
    pub frame: Frame,
    /// What is unfinished in it.
    pub offload: Offload,
    /// The way it came.
    pub ingress: Ingress,
}

/// A frame as a port takes it.
#[derive(Debug)]
pub struct Outgoing {
    /// Starts with its Ethernet header.
    pub frame: Frame,
    /// What is unfinished in it; within the port's [`Caps`].
    pub offload: Offload,
    /// Where it goes.
    pub egress: Egress,
}

impl Outgoing {
    /// Without a frame; to be written over in place.
    #[inline(always)]
    pub fn none() -> Self {
        Self { frame: Frame::none(), offload: Offload::NONE, egress: Egress::Host }
    }
}

/// What a port did since it was opened. Owned by one worker; read by copying.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames delivered (a super-frame counts once).
    pub rx_frames: u64,
    /// Bytes delivered.
    pub rx_bytes: u64,
    /// Frames that could not be delivered: unknown tag, too long, no free frame.
    pub rx_dropped: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames dropped because the port's queue was full.
    pub tx_full: u64,
    /// Frames the kernel refused.
    pub tx_errors: u64,
}

impl PortStats {
    /// These and those.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            rx_frames: self.rx_frames + other.rx_frames,
            rx_bytes: self.rx_bytes + other.rx_bytes,
            rx_dropped: self.rx_dropped + other.rx_dropped,
            tx_frames: self.tx_frames + other.tx_frames,
            tx_bytes: self.tx_bytes + other.tx_bytes,
            tx_full: self.tx_full + other.tx_full,
            tx_errors: self.tx_errors + other.tx_errors,
        }
    }
}

/// One queue of a device. Never blocks.
pub trait Port {
    /// What it takes off our hands on transmission.
    fn caps(&self) -> Caps;

    /// Is it the way out of gateway interfaces, too ([`Egress::Gateway`])? Otherwise the access port is.
    fn carries_gateways(&self) -> bool {
        false
    }

    /// Takes up to `limit` frames from the queue, appends them to `into`; memory comes from `pool`.
    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Received>, limit: usize);

    /// Sends all of `frames` in order and leaves it empty. What cannot be sent is counted and dropped; every frame's
    /// memory goes back to `pool`.
    fn transmit(&mut self, frames: &mut Vec<Outgoing>, pool: &mut FramePool);

    /// Counters so far.
    fn stats(&self) -> PortStats;
}
