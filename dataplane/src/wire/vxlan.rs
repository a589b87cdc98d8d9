//! The VXLAN header (RFC 7348 §5).

use crate::net::Vni;

/// Bytes of the header.
pub const LEN: usize = 8;
/// UDP port assigned by IANA; Calico's default.
pub const PORT_IANA: u16 = 4789;
/// UDP port that Linux had before IANA assigned one; flannel's default.
pub const PORT_LINUX: u16 = 8472;
/// Bytes in front of the inner frame over IPv4: Ethernet, IPv4, UDP, VXLAN.
pub const OVERHEAD_V4: usize = 14 + 20 + 8 + LEN;
/// Bytes in front of the inner frame over IPv6.
pub const OVERHEAD_V6: usize = 14 + 40 + 8 + LEN;
/// What an outer IPv4 header, UDP, VXLAN and the inner Ethernet header take from the underlay's MTU.
pub const MTU_OVERHEAD_V4: u16 = 50;
/// What an outer IPv6 header, UDP, VXLAN and the inner Ethernet header take from the underlay's MTU.
pub const MTU_OVERHEAD_V6: u16 = 70;

/// UDP source port for an inner flow: its keyed hash in the dynamic range (RFC 7348 §5 recommends 49152–65535), so that
/// routers and NICs spread flows, a flow stays on one path, and nobody else can guess which port it has.
#[inline(always)]
pub const fn source_port(flow_hash: u64) -> u16 {
    0xc000 | (flow_hash >> 48) as u16 & 0x3fff
}

/// "The VNI is valid".
const FLAG_I: u8 = 0x08;

/// A received header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The network identifier; `None` when the I flag is clear.
    pub vni: Option<Vni>,
    /// Some bit that must be ignored on receipt was set (reserved, or another extension's such as the group policy).
    pub reserved_bits: bool,
}

impl Header {
    /// Reads a header. Reserved bits are noted, and never a reason to refuse it (RFC 7348 §5: ignored on receipt).
    #[inline]
    pub fn read(bytes: &[u8; LEN]) -> Self {
        let [flags, r1, r2, r3, a, b, c, r4] = *bytes;
        Self {
            vni: (flags & FLAG_I != 0).then_some(Vni::from_octets([a, b, c])),
            reserved_bits: (flags & !FLAG_I) | r1 | r2 | r3 | r4 != 0,
        }
    }

    /// The header to send: I flag, VNI, everything else zero.
    pub const fn write(vni: Vni) -> [u8; LEN] {
        let [a, b, c] = vni.octets();
        [FLAG_I, 0, 0, 0, a, b, c, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc7348_5_reserved_bits_are_ignored_on_receipt() {
        let vni = Vni::new(0x123456).unwrap();
        for bit in 0..64 {
            let mut bytes = Header::write(vni);
            bytes[bit / 8] ^= 0x80 >> (bit % 8);
            let header = Header::read(&bytes);
            match bit {
                4 => assert_eq!(header.vni, None),
                32..=55 => assert!(!header.reserved_bits),
                _ => assert_eq!(header, Header { vni: Some(vni), reserved_bits: true }, "bit {bit}"),
            }
        }
    }
}
