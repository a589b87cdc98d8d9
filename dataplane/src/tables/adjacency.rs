//! How a packet leaves: everything about the next hop, worked out once per table generation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::UNLIMITED;
use super::path_mtu::PathMtu;
use super::spread::Spread;
use crate::net::{Mac, Vni};
use crate::port::IfIndex;
use crate::spec::{LocalVtep, Vxlan};
use crate::verdict::DropReason;
use crate::wire::vxlan;

/// Where and how a packet goes.
#[derive(Clone, Debug)]
pub struct Adjacency {
    /// The kind with its data.
    pub kind: Kind,
    /// Largest IP packet this way takes, by configuration.
    pub mtu: u16,
    /// Packets up to this length fit whatever path MTU has been learnt.
    pub fits: u16,
}

/// The kinds of next hop.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Into this host's IP stack.
    Host,
    /// To a local workload.
    Endpoint {
        /// Its index in the tables.
        endpoint: u32,
        /// Host-side interface.
        ifindex: IfIndex,
        /// Destination and source address; the EtherType follows the packet.
        ethernet: [u8; 12],
    },
    /// Through the tunnel over IPv4.
    VxlanV4(Arc<TemplateV4>),
    /// Through the tunnel over IPv6.
    VxlanV6(Arc<TemplateV6>),
    /// Plain, over the underlay.
    Direct {
        /// Next hop.
        next_hop: IpAddr,
    },
    /// Plain, out of a gateway interface.
    Gateway {
        /// Its index in the tables.
        gateway: u32,
        /// The interface.
        ifindex: IfIndex,
        /// Next hop; `None` = the packet's own destination.
        next_hop: Option<IpAddr>,
    },
    /// Several ways of which each connection takes one: what a route may lead to, and no packet goes by.
    Spread(Spread),
    /// Nowhere.
    Drop(DropReason),
}

/// Outer headers over IPv4 and the inner Ethernet header, as they are in every packet to one VTEP.
#[derive(Clone, Debug)]
pub struct TemplateV4 {
    /// Ethernet (addresses zero: the port resolves them), IPv4, UDP, VXLAN, inner Ethernet. Zero where the packet decides:
    /// TOS, total length, identification, header checksum; source port, UDP length and checksum; inner EtherType.
    pub bytes: [u8; vxlan::OVERHEAD_V4 + 14],
    /// One's-complement sum of the IPv4 header as it stands.
    pub ip_sum: u32,
    /// Sum of the pseudo-header without the length.
    pub pseudo_sum: u32,
    /// Outer destination.
    pub outer: Ipv4Addr,
    /// Lowered by ICMP errors.
    pub path_mtu: Arc<PathMtu>,
}

/// As [`TemplateV4`], over IPv6.
#[derive(Clone, Debug)]
pub struct TemplateV6 {
    /// See [`TemplateV4::bytes`]; zero are traffic class, payload length, source port, UDP length, checksum, inner EtherType.
    pub bytes: [u8; vxlan::OVERHEAD_V6 + 14],
    /// See [`TemplateV4::pseudo_sum`].
    pub pseudo_sum: u32,
    /// Outer destination.
    pub outer: Ipv6Addr,
    /// Lowered by ICMP errors.
    pub path_mtu: Arc<PathMtu>,
}

/// What a template says beyond addresses.
#[derive(Clone, Copy, Debug)]
struct Tunnel {
    /// The overlay.
    vni: Vni,
    /// UDP destination port.
    port: u16,
    /// Outer TTL.
    ttl: u8,
    /// Outer DF bit (IPv4).
    df: bool,
}

fn sum16(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn inner_ethernet(destination: Mac, source: Mac) -> [u8; 14] {
    let mut header = [0; 14];
    header[..6].copy_from_slice(&destination.0);
    header[6..12].copy_from_slice(&source.0);
    header
}

impl TemplateV4 {
    /// The template for packets from `local` to the VTEP at `outer` with inner address `mac`.
    fn new(
        local: LocalVtep<Ipv4Addr>,
        outer: Ipv4Addr,
        mac: Mac,
        tunnel: Tunnel,
        path_mtu: Arc<PathMtu>,
    ) -> Self {
        let mut bytes = [0; vxlan::OVERHEAD_V4 + 14];
        bytes[12..14].copy_from_slice(&[0x08, 0x00]);
        bytes[14] = 0x45;
        bytes[20] = if tunnel.df { 0x40 } else { 0 };
        bytes[22] = tunnel.ttl;
        bytes[23] = 17;
        bytes[26..30].copy_from_slice(&local.address.octets());
        bytes[30..34].copy_from_slice(&outer.octets());
        bytes[36..38].copy_from_slice(&tunnel.port.to_be_bytes());
        bytes[42..50].copy_from_slice(&vxlan::Header::write(tunnel.vni));
        bytes[50..64].copy_from_slice(&inner_ethernet(mac, local.mac));
        let ip_sum = sum16(&bytes[14..34]);
        let pseudo_sum = sum16(&bytes[26..34]) + 17;
        Self { bytes, ip_sum, pseudo_sum, outer, path_mtu }
    }
}

impl TemplateV6 {
    /// The template for packets from `local` to the VTEP at `outer` with inner address `mac`.
    fn new(
        local: LocalVtep<Ipv6Addr>,
        outer: Ipv6Addr,
        mac: Mac,
        tunnel: Tunnel,
        path_mtu: Arc<PathMtu>,
    ) -> Self {
        let mut bytes = [0; vxlan::OVERHEAD_V6 + 14];
        bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
        bytes[14] = 0x60;
        bytes[20] = 17;
        bytes[21] = tunnel.ttl;
        bytes[22..38].copy_from_slice(&local.address.octets());
        bytes[38..54].copy_from_slice(&outer.octets());
        bytes[56..58].copy_from_slice(&tunnel.port.to_be_bytes());
        bytes[62..70].copy_from_slice(&vxlan::Header::write(tunnel.vni));
        bytes[70..84].copy_from_slice(&inner_ethernet(mac, local.mac));
        let pseudo_sum = sum16(&bytes[22..54]) + 17;
        Self { bytes, pseudo_sum, outer, path_mtu }
    }
}

impl Adjacency {
    /// With the MTU that is configured for it.
    pub fn new(kind: Kind, mtu: u16) -> Self {
        let tunnel = matches!(kind, Kind::VxlanV4(_) | Kind::VxlanV6(_));
        let fits = if tunnel { mtu.min(PathMtu::MIN_INNER) } else { mtu };
        Self { kind, mtu, fits }
    }

    /// Through the tunnel of the overlay `vxlan` to the tunnel end at `outer` with the inner address `mac`; nowhere if we have
    /// no end of our own in that family. `ttl` and `df` are those of the outer header.
    pub fn tunnel(
        vxlan: Option<Vxlan>,
        (ttl, df): (u8, bool),
        outer: IpAddr,
        mac: Mac,
        path_mtu: Arc<PathMtu>,
    ) -> Self {
        let nowhere = || Self::new(Kind::Drop(DropReason::NoUnderlay), UNLIMITED);
        let Some(vxlan) = vxlan else { return nowhere() };
        let tunnel = Tunnel { vni: vxlan.vni, port: vxlan.port, ttl, df };
        match (outer, vxlan.v4, vxlan.v6) {
            (IpAddr::V4(outer), Some(local), _) => {
                let template = TemplateV4::new(local, outer, mac, tunnel, path_mtu);
                Self::new(Kind::VxlanV4(Arc::new(template)), local.mtu)
            }
            (IpAddr::V6(outer), _, Some(local)) => {
                let template = TemplateV6::new(local, outer, mac, tunnel, path_mtu);
                Self::new(Kind::VxlanV6(Arc::new(template)), local.mtu)
            }
            _ => nowhere(),
        }
    }

    /// The cell that ICMP errors lower, if this is a tunnel.
    pub fn path_mtu(&self) -> Option<&Arc<PathMtu>> {
        match &self.kind {
            Kind::VxlanV4(template) => Some(&template.path_mtu),
            Kind::VxlanV6(template) => Some(&template.path_mtu),
            _ => None,
        }
    }

    /// Largest IP packet this way takes now.
    #[inline]
    pub fn mtu_at(&self, now_ms: u64) -> u16 {
        match self.path_mtu().and_then(|cell| cell.current(now_ms)) {
            Some(limit) => limit.min(self.mtu),
            None => self.mtu,
        }
    }
}
