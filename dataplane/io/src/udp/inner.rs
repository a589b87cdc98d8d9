//! The inner packet of a datagram from a socket: is it finished, and is it one packet or many?
//!
//! A sender on the same machine (veth) or hypervisor (virtio) leaves the innermost checksum, and cutting, to a device
//! that never comes; its receive path carries both facts along with the packet, but a socket hides them. What gives
//! them away: the checksum field holds the sum of the pseudo-header, and the packet is longer than any that the
//! underlay carries. One right checksum in 65,536 looks the same, and finishing it gives the same value again.

use std::net::IpAddr;

use canal_dataplane::checksum;
use canal_dataplane::limits::ETHERNET;
use canal_dataplane::offload::{Checksum, Gso, GsoKind, Offload, Tunnel};

use super::outer;
use super::run::NETWORK;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// The TCP flag by which virtio's ECN bit is known.
const CWR: u8 = 0x80;

/// What is unfinished in a frame whose inner part is `datagram`, from the VXLAN header on, `outer_len` bytes behind the
/// begin. A TCP packet of more than `mtu` bytes is a super-frame of segments that fit; a UDP packet is one when the
/// kernel has said how long its segments are (`udp_size`).
///
/// The checksum of a super-frame is verified, and left to whoever cuts it; without a right one it is none.
pub fn offload(datagram: &mut [u8], outer_len: usize, mtu: usize, udp_size: Option<u16>) -> Offload {
    describe(datagram, NETWORK, outer_len, Some(tunnel(outer_len)), mtu, udp_size)
}

/// The same for a plain Ethernet frame.
pub fn plain_offload(frame: &mut [u8], mtu: usize) -> Offload {
    describe(frame, ETHERNET, 0, None, mtu, None)
}

/// What is unfinished in the packet at `network` of `bytes`, which begin at `outer_len` of the frame.
fn describe(
    bytes: &mut [u8],
    network: usize,
    outer_len: usize,
    tunnel: Option<Tunnel>,
    mtu: usize,
    udp_size: Option<u16>,
) -> Offload {
    let Some(inner) = Inner::read(bytes, network) else { return Offload::NONE };
    let unfinished = inner.is_unfinished(bytes);
    let partial = Offload {
        checksum: Checksum::Partial {
            start: (outer_len + inner.transport) as u16,
            offset: inner.field() as u16,
        },
        ..Offload::NONE
    };
    match inner.gso(bytes, mtu, udp_size) {
        Some(gso) if unfinished || inner.verifies(bytes) => {
            let pseudo = checksum::fold(inner.pseudo(bytes));
            let field = inner.transport + inner.field();
            bytes[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
            Offload { gso: Some(gso), tunnel, ..partial }
        }
        _ if unfinished => partial,
        _ => Offload::NONE,
    }
}

/// Where the inner packet of a super-frame is.
pub fn tunnel(outer_len: usize) -> Tunnel {
    Tunnel {
        outer_v6: outer_len == outer::LEN_V6,
        outer_transport: (outer_len - 8) as u16,
        inner_network: (outer_len + NETWORK) as u16,
        outer_checksum: false,
    }
}

/// Where `datagram` goes to, if it looks like a TCP packet with at least `payload` bytes of it, give or take options. A guess
/// that is cheap; who acts on it looks again.
#[inline]
pub fn tcp_segment_target(datagram: &[u8], payload: usize) -> Option<IpAddr> {
    segment_target(datagram, NETWORK, payload)
}

/// The same for a plain Ethernet frame, with payload or without.
#[inline]
pub fn plain_tcp_target(frame: &[u8]) -> Option<IpAddr> {
    segment_target(frame, ETHERNET, 0)
}

#[inline]
fn segment_target(bytes: &[u8], network: usize, payload: usize) -> Option<IpAddr> {
    let ip = bytes.get(network..)?;
    let (protocol, target, headers) = match bytes[network - 2..network] {
        [0x08, 0x00] => (*ip.get(9)?, IpAddr::from(*ip.get(16..)?.first_chunk::<4>()?), 20 + 20),
        [0x86, 0xdd] => (*ip.get(6)?, IpAddr::from(*ip.get(24..)?.first_chunk::<16>()?), 40 + 20),
        _ => return None,
    };
    (protocol == TCP && ip.len() >= headers + payload).then_some(target)
}

/// Is `datagram` one UDP packet to its very end?
pub fn is_one_udp_packet(datagram: &[u8]) -> bool {
    Inner::read(datagram, NETWORK).is_some_and(|inner| inner.protocol == UDP)
}

/// A TCP or UDP packet that ends where the bytes do that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inner {
    v6: bool,
    protocol: u8,
    /// First byte of the IP header.
    network: usize,
    /// First byte of the transport header.
    transport: usize,
}

impl Inner {
    /// The packet at `network`, behind an Ethernet type.
    fn read(bytes: &[u8], network: usize) -> Option<Self> {
        let packet = bytes.get(network..)?;
        let (v6, protocol, ip_len, packet_len) = match bytes[network - 2..network] {
            [0x08, 0x00] => {
                let ip: &[u8; 20] = packet.first_chunk()?;
                let whole = ip[0] >> 4 == 4 && ip[6] & 0x3f == 0 && ip[7] == 0;
                let len = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
                (false, whole.then_some(ip[9])?, usize::from(ip[0] & 15) * 4, len)
            }
            [0x86, 0xdd] => {
                let ip: &[u8; 40] = packet.first_chunk()?;
                let len = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
                (true, (ip[0] >> 4 == 6).then_some(ip[6])?, 40, len)
            }
            _ => return None,
        };
        let header_len = match protocol {
            TCP => 20,
            UDP => 8,
            _ => return None,
        };
        // What is unfinished is summed up to the end of the frame: nothing may follow the packet.
        if ip_len < 20 || packet_len != packet.len() || packet_len < ip_len + header_len {
            return None;
        }
        Some(Self { v6, protocol, network, transport: network + ip_len })
    }

    /// Of the checksum, in the transport header.
    fn field(self) -> usize {
        if self.protocol == TCP { 16 } else { 6 }
    }

    /// Sum of the pseudo-header.
    fn pseudo(self, bytes: &[u8]) -> u64 {
        let addresses = if self.v6 { 8..40 } else { 12..20 };
        let addresses = self.network + addresses.start..self.network + addresses.end;
        let len = bytes.len() - self.transport;
        checksum::sum(&bytes[addresses], u64::from(self.protocol) + len as u64)
    }

    fn is_unfinished(self, bytes: &[u8]) -> bool {
        let field = self.transport + self.field();
        bytes[field..field + 2] == checksum::fold(self.pseudo(bytes)).to_be_bytes()
    }

    fn verifies(self, bytes: &[u8]) -> bool {
        checksum::fold(crate::checksum::sum(&bytes[self.transport..], self.pseudo(bytes))) == 0xffff
    }

    fn gso(self, bytes: &[u8], mtu: usize, udp_size: Option<u16>) -> Option<Gso> {
        if self.protocol == UDP {
            return udp_size.map(|size| Gso { kind: GsoKind::Udp, size, ecn: false });
        }
        if bytes.len() - self.network <= mtu {
            return None;
        }
        let tcp = &bytes[self.transport..];
        let headers = self.transport - self.network + usize::from(tcp[12] >> 4) * 4;
        let size = mtu.checked_sub(headers).filter(|size| *size > 0)?;
        let kind = if self.v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 };
        Some(Gso { kind, size: u16::try_from(size).ok()?, ecn: tcp[13] & CWR != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canal_dataplane::segment::{MAX_HEADERS, Segmenter};
    use proptest::prelude::*;

    fn state(bytes: &[u8]) -> Checksum {
        offload(&mut bytes.to_vec(), 42, 1450, None).checksum
    }

    fn datagram(v6: bool, tcp: bool, payload: &[u8]) -> (Vec<u8>, usize, usize) {
        let mut bytes = vec![0; NETWORK - 2];
        let protocol = if tcp { TCP } else { UDP };
        let len = (if tcp { 20 } else { 8 } + payload.len()) as u16;
        if v6 {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(len.to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend((0..32).map(|i| i * 3));
        } else {
            bytes.extend([8, 0, 0x45, 0]);
            bytes.extend((len + 20).to_be_bytes());
            bytes.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        let transport = bytes.len();
        let field = if tcp { 16 } else { 6 };
        bytes.resize(transport + usize::from(len) - payload.len(), 3);
        let addresses = if v6 { transport - 32..transport } else { transport - 8..transport };
        let pseudo = checksum::fold(checksum::sum(&bytes[addresses], u64::from(protocol) + u64::from(len)));
        bytes[transport + field..transport + field + 2].copy_from_slice(&pseudo.to_be_bytes());
        bytes.extend(payload);
        (bytes, transport, field)
    }

    proptest! {
        #[test]
        fn an_unfinished_checksum_is_found_and_a_finished_one_left(
            v6: bool, tcp: bool, payload in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let (mut bytes, transport, field) = datagram(v6, tcp, &payload);
            let partial = Checksum::Partial { start: (42 + transport) as u16, offset: field as u16 };
            prop_assert_eq!(state(&bytes), partial);
            let unfinished = bytes.clone();
            checksum::finish_partial(&mut bytes, transport as u16, field as u16).unwrap();
            if bytes != unfinished {
                prop_assert_eq!(state(&bytes), Checksum::Complete);
            }
            let mut padded = unfinished;
            padded.push(0);
            prop_assert_eq!(state(&padded), Checksum::Complete);
        }

        #[test]
        fn a_plain_frame_is_as_the_packet_in_a_datagram(
            v6: bool, tcp: bool, finished: bool, payload in proptest::collection::vec(any::<u8>(), 0..3000)
        ) {
            let (mut bytes, transport, field) = datagram(v6, tcp, &payload);
            if tcp {
                bytes[transport + 12] = 0x50;
            }
            if finished {
                checksum::finish_partial(&mut bytes, transport as u16, field as u16).unwrap();
            }
            let mut plain = bytes[NETWORK - ETHERNET..].to_vec();
            let (inner, own) = (offload(&mut bytes, 50, 1450, None), plain_offload(&mut plain, 1450));
            prop_assert_eq!(&plain, &bytes[NETWORK - ETHERNET..]);
            prop_assert_eq!((own.gso, own.tunnel), (inner.gso, None));
            let moved = |checksum| match checksum {
                Checksum::Partial { start, offset } => Some((start, offset)),
                _ => None,
            };
            let by = (50 + NETWORK - ETHERNET) as u16;
            prop_assert_eq!(moved(own.checksum).map(|(start, offset)| (start + by, offset)), moved(inner.checksum));
        }

        #[test]
        fn a_tcp_packet_beyond_the_mtu_is_a_super_frame_of_segments_that_fit(
            v6: bool, outer_v6: bool, finished: bool, cwr: bool,
            payload in proptest::collection::vec(any::<u8>(), 200..6000)
        ) {
            let outer_len = if outer_v6 { outer::LEN_V6 } else { outer::LEN_V4 };
            let (mut bytes, transport, field) = datagram(v6, true, &payload);
            bytes[transport + 12] = 0x50;
            bytes[transport + 13] = if cwr { 0x90 } else { 0x10 };
            let unfinished = bytes.clone();
            if finished {
                checksum::finish_partial(&mut bytes, transport as u16, field as u16).unwrap();
            }
            let mtu = bytes.len() - NETWORK;
            prop_assert_eq!(offload(&mut bytes.clone(), outer_len, mtu, None).gso, None);
            let mtu = mtu - 100;
            let told = offload(&mut bytes, outer_len, mtu, None);
            prop_assert!(bytes == unfinished, "the checksum is left to whoever cuts it");
            let mut frame = vec![0; outer_len];
            frame.extend(&bytes);
            let address = |last: u8| -> std::net::IpAddr {
                if outer_v6 { [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into() } else { [192, 0, 2, last].into() }
            };
            outer::Outer { source: address(1), target: address(2), ports: (50_000, 8472), tos: 0 }.write(&mut frame);
            let mut segments = Segmenter::new(&frame, &told).unwrap();
            let mut header = [0; MAX_HEADERS];
            let (mut longest, mut total) = (0, 0);
            while let Some(segment) = segments.next(&mut header) {
                longest = longest.max(segment.header_len - outer_len - NETWORK + segment.payload.len());
                total += segment.payload.len();
            }
            prop_assert_eq!((longest, total), (mtu, payload.len()));
            prop_assert_eq!(told.gso.unwrap().ecn, cwr);
        }

        #[test]
        fn a_damaged_super_frame_is_none(v6: bool, at in 0usize..2000, bit in 0u32..8) {
            let (mut bytes, transport, field) = datagram(v6, true, &[0x55; 2000]);
            bytes[transport + 12] = 0x50;
            checksum::finish_partial(&mut bytes, transport as u16, field as u16).unwrap();
            bytes[transport + 20 + at] ^= 1 << bit;
            let before = bytes.clone();
            prop_assert_eq!(offload(&mut bytes, 42, 1450, None), Offload::NONE);
            prop_assert_eq!(bytes, before);
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..90), v6: bool, len in 0u8..90) {
            if let Some(head) = bytes.get_mut(NETWORK - 2..NETWORK + 10) {
                head[..2].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
                let ip = if v6 { [0x60, 0, 0, 0, 0, len, 6, 9] } else { [0x45 + len % 3, 0, 0, len, 0, 0, 0, 0] };
                head[2..10].copy_from_slice(&ip);
            }
            let before = bytes.clone();
            let told = offload(&mut bytes, 42, 41, Some(4));
            if let Checksum::Partial { start, offset } = told.checksum {
                prop_assert!(usize::from(start + offset) + 2 <= 42 + bytes.len());
            }
            prop_assert!(told.gso.is_some() || bytes == before);
        }
    }
}
