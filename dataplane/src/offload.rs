//! What the kernel left undone in a packet, and what it may leave undone for us: checksums and segmentation.
//!
//! The vocabulary is that of the virtio-net header (VIRTIO 1.2 §5.1.6), because that is what TAP devices speak.

/// State of the innermost transport checksum. Offsets count from the first byte of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Checksum {
    /// Complete in the packet, as far as anybody knows; not verified.
    #[default]
    Complete,
    /// The field at `start + offset` holds the pseudo-header sum only; whoever puts the packet on a wire sums from
    /// `start` to the end and stores the result there.
    Partial {
        /// First byte of the transport header.
        start: u16,
        /// Of the checksum field, from `start`.
        offset: u16,
    },
    /// Complete, and somebody we trust (the NIC, the sending kernel on this machine) says it is right.
    Verified,
}

/// What kind of transport segments a super-frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of equal length, over either family (USO).
    Udp,
}

/// A super-frame: many transport segments under one set of headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// The innermost transport.
    pub kind: GsoKind,
    /// Payload bytes of each segment but the last.
    pub size: u16,
    /// The TCP segments carry CWR (virtio's ECN bit): only the first may keep it.
    pub ecn: bool,
}

/// A super-frame that sits inside a UDP tunnel. Offsets count from the first byte of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The outer header is IPv6.
    pub outer_v6: bool,
    /// First byte of the outer UDP header.
    pub outer_transport: u16,
    /// First byte of the inner IP header.
    pub inner_network: u16,
    /// The outer UDP header has a checksum (its field holds the pseudo-header sum until segmented).
    pub outer_checksum: bool,
}

/// Everything unfinished about one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Offload {
    /// The innermost transport checksum.
    pub checksum: Checksum,
    /// Set for super-frames.
    pub gso: Option<Gso>,
    /// Set for super-frames inside a tunnel.
    pub tunnel: Option<Tunnel>,
}

impl Offload {
    /// A finished packet.
    pub const NONE: Self = Self { checksum: Checksum::Complete, gso: None, tunnel: None };

    /// True when nothing is left to be done: any port takes it.
    #[inline(always)]
    pub fn is_finished(&self) -> bool {
        !matches!(self.checksum, Checksum::Partial { .. }) && self.gso.is_none()
    }
}

/// What a port takes off our hands on transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Caps {
    /// Finishes `Checksum::Partial`.
    pub checksum: bool,
    /// Segments plain TCP super-frames.
    pub tso: bool,
    /// Segments plain UDP super-frames.
    pub uso: bool,
    /// Segments super-frames inside a VXLAN tunnel (kind as allowed by `tso`, `uso`).
    pub tunnel: bool,
}

impl Caps {
    /// Wire-ready frames of MTU size only.
    pub const NONE: Self = Self { checksum: false, tso: false, uso: false, tunnel: false };
    /// Takes everything.
    pub const ALL: Self = Self { checksum: true, tso: true, uso: true, tunnel: true };
}
