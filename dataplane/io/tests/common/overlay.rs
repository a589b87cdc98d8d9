//! A layer-2 VXLAN by hand: what encap and decap of the core do, in the fewest lines, to test ports without the core.

use std::net::IpAddr;

use canal_dataplane::offload::{Checksum, Offload, Tunnel};
use canal_dataplane::port::Received;

/// The two ends.
#[derive(Clone, Copy)]
pub struct Overlay {
    pub local: IpAddr,
    pub remote: IpAddr,
    pub port: u16,
    pub vni: u32,
    /// Super-frames get an outer checksum.
    pub outer_checksum: bool,
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

impl Overlay {
    /// Bytes of all outer headers.
    pub fn overhead(&self) -> usize {
        if self.local.is_ipv4() { 50 } else { 70 }
    }

    /// Puts outer headers in front, `tos` into the outer IP header.
    pub fn encapsulate(&self, packet: &mut Received, tos: u8) {
        let inner = packet.frame.len();
        assert!(packet.frame.grow_front(self.overhead()));
        let header = packet.frame.data_mut();
        let udp_len = (inner + 16) as u16;
        let (ip_len, ether_type) = if self.local.is_ipv4() { (20, 0x0800u16) } else { (40, 0x86dd) };
        header[12..14].copy_from_slice(&ether_type.to_be_bytes());
        let mut pseudo = u64::from(udp_len) + 17;
        match (self.local, self.remote) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                header[14..34]
                    .copy_from_slice(&[0x45, tos, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                header[16..18].copy_from_slice(&(udp_len + 20).to_be_bytes());
                header[26..30].copy_from_slice(&from.octets());
                header[30..34].copy_from_slice(&to.octets());
                let checksum = !fold(sum(&header[14..34]));
                header[24..26].copy_from_slice(&checksum.to_be_bytes());
                pseudo += sum(&header[26..34]);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                header[14..22].copy_from_slice(&[0x60 | tos >> 4, tos << 4, 0, 0, 0, 0, 17, 64]);
                header[18..20].copy_from_slice(&udp_len.to_be_bytes());
                header[22..38].copy_from_slice(&from.octets());
                header[38..54].copy_from_slice(&to.octets());
                pseudo += sum(&header[22..54]);
            }
            _ => unreachable!("one family"),
        }
        let udp = 14 + ip_len;
        header[udp..udp + 2].copy_from_slice(&50_000u16.to_be_bytes());
        header[udp + 2..udp + 4].copy_from_slice(&self.port.to_be_bytes());
        header[udp + 4..udp + 6].copy_from_slice(&udp_len.to_be_bytes());
        let with_checksum = self.outer_checksum && packet.offload.gso.is_some();
        let checksum = if with_checksum { fold(pseudo) } else { 0 };
        header[udp + 6..udp + 8].copy_from_slice(&checksum.to_be_bytes());
        header[udp + 8..udp + 12].copy_from_slice(&[8, 0, 0, 0]);
        header[udp + 12..udp + 16].copy_from_slice(&(self.vni << 8).to_be_bytes());
        let tunnel = Tunnel {
            outer_v6: self.local.is_ipv6(),
            outer_transport: udp as u16,
            inner_network: (udp + 16 + 14) as u16,
            outer_checksum: with_checksum,
        };
        packet.offload = shifted(packet.offload, self.overhead() as i32);
        packet.offload.tunnel = packet.offload.gso.map(|_| tunnel);
    }

    /// Takes the outer headers off; false for what is not VXLAN of this overlay.
    pub fn decapsulate(&self, packet: &mut Received) -> bool {
        let overhead = self.overhead();
        let data = packet.frame.data();
        if data.len() < overhead + 14 || data[overhead - 14..overhead - 12] != self.port.to_be_bytes() {
            return false;
        }
        assert_eq!(data[overhead - 4..overhead - 1], self.vni.to_be_bytes()[1..]);
        assert!(packet.frame.trim_front(overhead));
        packet.offload = shifted(packet.offload, -(overhead as i32));
        packet.offload.tunnel = None;
        true
    }
}

fn shifted(offload: Offload, by: i32) -> Offload {
    match offload.checksum {
        Checksum::Partial { start, offset } => {
            // An unfinished outer checksum goes with the outer headers.
            let start = u16::try_from(i32::from(start) + by);
            let checksum = start.map_or(Checksum::Complete, |start| Checksum::Partial { start, offset });
            Offload { checksum, ..offload }
        }
        _ => offload,
    }
}
