//! The virtio-net header in front of every frame of the TAP device (VIRTIO 1.2 §5.1.6; the tunnel fields are those of
//! `struct virtio_net_hdr_v1_hash_tunnel`, Linux ≥ 6.17), to and from the core's [`Offload`].

use canal_dataplane::offload::{Checksum, Gso, GsoKind, Offload, Tunnel};

/// Bytes of the header without tunnel fields (`struct virtio_net_hdr_v1`).
pub const PLAIN: usize = 12;
/// Bytes of the header with tunnel fields.
pub const TUNNEL: usize = 24;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const F_UDP_TUNNEL_CSUM: u8 = 8;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_UDP_TUNNEL_IPV4: u8 = 0x20;
const GSO_UDP_TUNNEL_IPV6: u8 = 0x40;
const GSO_ECN: u8 = 0x80;

fn read(header: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([header[at], header[at + 1]])
}

fn write(header: &mut [u8], at: usize, value: u16) {
    header[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// What the header says; `None` for a kind of super-frame that we never offered to take.
///
/// # Panics
/// When `header` has neither [`PLAIN`] nor [`TUNNEL`] bytes: a programmer's error.
#[inline]
pub fn decode(header: &[u8]) -> Option<Offload> {
    let (flags, gso_type) = (header[0], header[1]);
    let checksum = if flags & F_NEEDS_CSUM != 0 {
        Checksum::Partial { start: read(header, 6), offset: read(header, 8) }
    } else if flags & F_DATA_VALID != 0 {
        Checksum::Verified
    } else {
        Checksum::Complete
    };
    if gso_type == GSO_NONE {
        return Some(Offload { checksum, gso: None, tunnel: None });
    }
    let outer = gso_type & (GSO_UDP_TUNNEL_IPV4 | GSO_UDP_TUNNEL_IPV6);
    let kind = match gso_type & !(outer | GSO_ECN) {
        GSO_TCPV4 => GsoKind::Tcp4,
        GSO_TCPV6 => GsoKind::Tcp6,
        GSO_UDP_L4 => GsoKind::Udp,
        _ => return None,
    };
    let gso = Some(Gso { kind, size: read(header, 4), ecn: gso_type & GSO_ECN != 0 });
    let tunnel = match outer {
        0 => None,
        _ if header.len() < TUNNEL => return None,
        _ => Some(Tunnel {
            outer_v6: outer == GSO_UDP_TUNNEL_IPV6,
            outer_transport: read(header, 20),
            inner_network: read(header, 22),
            outer_checksum: flags & F_UDP_TUNNEL_CSUM != 0,
        }),
    };
    Some(Offload { checksum, gso, tunnel })
}

/// Writes the header of `frame` into `header`; false when the header is too short for what `offload` says.
///
/// # Panics
/// When `header` is shorter than [`PLAIN`]: a programmer's error.
#[inline]
#[must_use]
pub fn encode(header: &mut [u8], offload: &Offload, frame: &[u8]) -> bool {
    header.fill(0);
    match offload.checksum {
        Checksum::Partial { start, offset } => {
            header[0] = F_NEEDS_CSUM;
            write(header, 6, start);
            write(header, 8, offset);
        }
        Checksum::Verified => header[0] = F_DATA_VALID,
        Checksum::Complete => {}
    }
    let Some(gso) = offload.gso else { return true };
    header[1] = match gso.kind {
        GsoKind::Tcp4 => GSO_TCPV4,
        GsoKind::Tcp6 => GSO_TCPV6,
        GsoKind::Udp => GSO_UDP_L4,
    } | if gso.ecn { GSO_ECN } else { 0 };
    write(header, 2, headers_len(offload, gso.kind, frame));
    write(header, 4, gso.size);
    if let Some(tunnel) = offload.tunnel {
        if header.len() < TUNNEL {
            return false;
        }
        header[0] |= if tunnel.outer_checksum { F_UDP_TUNNEL_CSUM } else { 0 };
        header[1] |= if tunnel.outer_v6 { GSO_UDP_TUNNEL_IPV6 } else { GSO_UDP_TUNNEL_IPV4 };
        write(header, 20, tunnel.outer_transport);
        write(header, 22, tunnel.inner_network);
    }
    true
}

/// Length of all headers: how much the kernel puts into the linear part of its buffer. A hint, so a frame too short
/// to look into gets none.
fn headers_len(offload: &Offload, kind: GsoKind, frame: &[u8]) -> u16 {
    let Checksum::Partial { start, .. } = offload.checksum else { return 0 };
    match kind {
        GsoKind::Udp => start.saturating_add(8),
        GsoKind::Tcp4 | GsoKind::Tcp6 => {
            let words = frame.get(usize::from(start) + 12).map_or(0, |octet| u16::from(octet >> 4));
            start.saturating_add(words * 4)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(offload: Offload, frame: &[u8]) -> [u8; TUNNEL] {
        let mut header = [0xff; TUNNEL];
        assert!(encode(&mut header, &offload, frame));
        assert_eq!(decode(&header), Some(offload));
        if offload.tunnel.is_none() {
            let mut short = [0xff; PLAIN];
            assert!(encode(&mut short, &offload, frame));
            assert_eq!(short, header[..PLAIN]);
            assert_eq!(decode(&short), Some(offload));
        }
        header
    }

    #[test]
    fn finished_and_unfinished_packets_round_trip() {
        assert_eq!(round_trip(Offload::NONE, &[]), [0; TUNNEL]);
        round_trip(Offload { checksum: Checksum::Verified, ..Offload::NONE }, &[]);
        let header = round_trip(
            Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, ..Offload::NONE },
            &[],
        );
        assert_eq!(header[..12], [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
    }

    #[test]
    fn super_frames_round_trip_with_the_length_of_their_headers() {
        let mut frame = [0u8; 200];
        frame[34 + 12] = 0x80;
        let gso = |kind, ecn| Offload {
            checksum: Checksum::Partial { start: 34, offset: 16 },
            gso: Some(Gso { kind, size: 1448, ecn }),
            tunnel: None,
        };
        let header = round_trip(gso(GsoKind::Tcp4, false), &frame);
        assert_eq!(header[..6], [1, 1, 66, 0, 0xa8, 0x05]);
        let header = round_trip(gso(GsoKind::Tcp6, true), &frame);
        assert_eq!(header[1], 0x84);
        let header = round_trip(gso(GsoKind::Udp, false), &frame);
        assert_eq!(header[1..4], [5, 42, 0]);
    }

    #[test]
    fn tunnels_round_trip_and_need_the_long_header() {
        for outer_v6 in [false, true] {
            let offload = Offload {
                checksum: Checksum::Partial { start: 84, offset: 16 },
                gso: Some(Gso { kind: GsoKind::Tcp4, size: 1398, ecn: false }),
                tunnel: Some(Tunnel {
                    outer_v6,
                    outer_transport: 34,
                    inner_network: 64,
                    outer_checksum: !outer_v6,
                }),
            };
            let header = round_trip(offload, &[0; 300]);
            assert_eq!(header[1], if outer_v6 { 0x41 } else { 0x21 });
            assert_eq!(header[20..], [34, 0, 64, 0]);
            assert!(!encode(&mut [0; PLAIN], &offload, &[0; 300]));
            assert_eq!(decode(&header[..PLAIN]), None);
        }
    }

    #[test]
    fn ip_fragmentation_offload_is_refused() {
        let mut header = [0; TUNNEL];
        header[1] = 3;
        assert_eq!(decode(&header), None);
    }
}
