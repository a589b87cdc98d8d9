//! Plain, slow builders of whole frames for the property tests, and an independent judge of their checksums.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::frame::{Frame, FramePool};
use crate::limits::SUPER_FRAME_BUFFER;
use crate::offload::{Checksum, Gso, GsoKind, Offload, Tunnel};

/// Everything that makes up the headers of one transport packet.
#[derive(Clone, Debug)]
pub struct Headers {
    pub macs: [u8; 12],
    pub v6: bool,
    pub udp: bool,
    pub source: [u8; 16],
    pub target: [u8; 16],
    pub tos: u8,
    pub ttl: u8,
    pub id: u16,
    pub dont_fragment: bool,
    /// IPv4 options, a multiple of four bytes.
    pub ip_options: Vec<u8>,
    pub flow_label: u32,
    pub ports: (u16, u16),
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    pub window: u16,
    /// TCP options, a multiple of four bytes.
    pub tcp_options: Vec<u8>,
}

impl Headers {
    /// Of a packet that nothing is special about: IPv4, TCP without flags and options.
    pub fn plain() -> Self {
        Self {
            macs: [2; 12],
            v6: false,
            udp: false,
            source: [10; 16],
            target: [11; 16],
            tos: 0,
            ttl: 63,
            id: 7,
            dont_fragment: false,
            ip_options: Vec::new(),
            flow_label: 0,
            ports: (80, 4000),
            sequence: 0,
            acknowledgement: 9,
            flags: 0,
            window: 500,
            tcp_options: Vec::new(),
        }
    }
}

/// Any headers; addresses are unicast ones.
pub fn headers() -> impl Strategy<Value = Headers> {
    let ip = (any::<bool>(), any::<[u8; 15]>(), any::<[u8; 15]>(), any::<u8>(), 1u8.., any::<u16>());
    let more_ip = (any::<bool>(), 0usize..3, 0u32..1 << 20, any::<[u8; 12]>());
    let transport = (any::<bool>(), any::<(u16, u16)>(), any::<(u32, u32)>(), any::<u8>(), any::<u16>());
    (ip, more_ip, transport, 0usize..4).prop_map(|(ip, more, transport, tcp_words)| {
        let address =
            |first: u8, rest: [u8; 15]| -> [u8; 16] { [&[first], &rest[..]].concat().try_into().unwrap() };
        Headers {
            macs: more.3,
            v6: ip.0,
            udp: transport.0,
            source: address(10, ip.1),
            target: address(10, ip.2),
            tos: ip.3,
            ttl: ip.4,
            id: ip.5,
            dont_fragment: more.0,
            ip_options: [1u8, 1, 1, 0].repeat(more.1),
            flow_label: more.2,
            ports: transport.1,
            sequence: transport.2.0,
            acknowledgement: transport.2.1,
            flags: transport.3,
            window: transport.4,
            tcp_options: [1u8, 1, 1, 0].repeat(tcp_words),
        }
    })
}

/// A payload of up to `max` bytes, cheaply made of a few random ones.
pub fn payload(max: usize) -> impl Strategy<Value = Vec<u8>> {
    (0..=max, vec(any::<u8>(), 1..40))
        .prop_map(|(len, seed)| seed.iter().copied().cycle().take(len).collect())
}

fn checksum(pieces: &[&[u8]]) -> u16 {
    let bytes = pieces.concat();
    let words =
        bytes.chunks(2).map(|pair| u64::from(pair[0]) * 256 + pair.get(1).map_or(0, |low| u64::from(*low)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = sum % 0x10000 + sum / 0x10000;
    }
    !(sum as u16)
}

/// The IP header of `protocol` with `len` bytes behind it (length fields truncated when they do not fit).
fn ip_header(h: &Headers, protocol: u8, len: usize) -> Vec<u8> {
    if h.v6 {
        let word = 6 << 28 | u32::from(h.tos) << 20 | h.flow_label;
        let mut header = word.to_be_bytes().to_vec();
        header.extend((len as u16).to_be_bytes());
        header.extend([protocol, h.ttl]);
        header.extend(h.source);
        header.extend(h.target);
        return header;
    }
    let header_len = 20 + h.ip_options.len();
    let mut header = vec![0x40 | (header_len / 4) as u8, h.tos];
    header.extend(((header_len + len) as u16).to_be_bytes());
    header.extend(h.id.to_be_bytes());
    header.extend(if h.dont_fragment { [0x40, 0] } else { [0, 0] });
    header.extend([h.ttl, protocol, 0, 0]);
    header.extend(&h.source[..4]);
    header.extend(&h.target[..4]);
    header.extend(&h.ip_options);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// The pseudo-header for `len` bytes of transport.
fn pseudo(h: &Headers, protocol: u8, len: usize) -> Vec<u8> {
    let addresses =
        if h.v6 { [h.source, h.target].concat() } else { [&h.source[..4], &h.target[..4]].concat() };
    [&addresses[..], &(len as u32).to_be_bytes(), &[0, 0, 0, protocol]].concat()
}

impl Headers {
    /// First byte of the transport header.
    pub fn transport(&self) -> usize {
        14 + if self.v6 { 40 } else { 20 + self.ip_options.len() }
    }

    /// The complete frame.
    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let protocol = if self.udp { 17 } else { 6 };
        let mut transport = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        if self.udp {
            transport.extend(((8 + payload.len()) as u16).to_be_bytes());
            transport.extend([0, 0]);
        } else {
            transport.extend(self.sequence.to_be_bytes());
            transport.extend(self.acknowledgement.to_be_bytes());
            transport.extend([((20 + self.tcp_options.len()) / 4 * 16) as u8, self.flags]);
            transport.extend(self.window.to_be_bytes());
            transport.extend([0, 0, 0, 0]);
            transport.extend(&self.tcp_options);
        }
        let len = transport.len() + payload.len();
        let mut sum = checksum(&[&pseudo(self, protocol, len), &transport, payload]);
        if self.udp && sum == 0 {
            sum = 0xffff;
        }
        let field = if self.udp { 6 } else { 16 };
        transport[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        let ether_type: [u8; 2] = if self.v6 { [0x86, 0xdd] } else { [8, 0] };
        [&self.macs[..], &ether_type, &ip_header(self, protocol, len), &transport, payload].concat()
    }

    /// The same frame with an unfinished transport checksum.
    pub fn unfinished(&self, payload: &[u8]) -> (Vec<u8>, Checksum) {
        let mut frame = self.frame(payload);
        let (start, offset) = (self.transport(), if self.udp { 6 } else { 16 });
        let len = frame.len() - start;
        let sum = !checksum(&[&pseudo(self, if self.udp { 17 } else { 6 }, len)]);
        frame[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
        (frame, Checksum::Partial { start: start as u16, offset: offset as u16 })
    }

    /// The offload of a super-frame with segments of `size` bytes.
    pub fn gso(&self, size: u16) -> Gso {
        let kind = match (self.udp, self.v6) {
            (true, _) => GsoKind::Udp,
            (false, false) => GsoKind::Tcp4,
            (false, true) => GsoKind::Tcp6,
        };
        Gso { kind, size, ecn: !self.udp && self.flags & 0x80 != 0 }
    }

    /// The packets that the super-frame of `payload` stands for, one by one.
    pub fn segments(&self, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
        let pieces: Vec<&[u8]> =
            if payload.is_empty() { vec![payload] } else { payload.chunks(size).collect() };
        let mut frames = Vec::new();
        for (i, piece) in pieces.iter().enumerate() {
            let mut own = self.clone();
            own.id = own.id.wrapping_add(i as u16);
            own.sequence = own.sequence.wrapping_add((i * size) as u32);
            if i > 0 {
                own.flags &= !0x80;
            }
            if i + 1 < pieces.len() {
                own.flags &= !0x09;
            }
            frames.push(own.frame(piece));
        }
        frames
    }
}

/// A VXLAN header around `inner`; `outer` gives addresses, identification and ports.
pub fn tunnelled(outer: &Headers, with_checksum: bool, inner: &[u8]) -> Vec<u8> {
    let mut outer = outer.clone();
    outer.udp = true;
    outer.ip_options.clear();
    let vxlan = [8, 0, 0, 0, 0, 0, 1, 0];
    let mut frame = outer.frame(&[&vxlan[..], inner].concat());
    if !with_checksum {
        let at = outer.transport() + 6;
        frame[at..at + 2].fill(0);
    }
    frame
}

/// Where the headers of a [`tunnelled`] frame are.
pub fn tunnel(outer: &Headers, outer_checksum: bool) -> Tunnel {
    let outer_transport = if outer.v6 { 54 } else { 34 };
    Tunnel { outer_v6: outer.v6, outer_transport, inner_network: outer_transport + 30, outer_checksum }
}

/// `offload` of an inner frame as seen behind `shift` more bytes.
pub fn shifted(offload: Offload, shift: u16) -> Offload {
    let checksum = match offload.checksum {
        Checksum::Partial { start, offset } => Checksum::Partial { start: start + shift, offset },
        other => other,
    };
    Offload { checksum, ..offload }
}

/// True when etherparse finds the packet whole and every checksum right.
pub fn verifies(frame: &[u8]) -> bool {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return false };
    let (ip_right, source_target) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            let right = header.header_checksum == header.calc_header_checksum();
            (
                right && usize::from(header.total_len) == frame.len() - 14,
                Some((header.source, header.destination)),
            )
        }
        Some(NetSlice::Ipv6(_)) => (true, None),
        _ => return false,
    };
    let v6 = packet.net.as_ref().and_then(|net| net.ipv6_ref()).map(|ip| ip.header().to_header());
    let transport_right = match (&packet.transport, source_target, &v6) {
        (Some(TransportSlice::Tcp(tcp)), Some((source, target)), _) => {
            tcp.to_header().calc_checksum_ipv4_raw(source, target, tcp.payload()).ok() == Some(tcp.checksum())
        }
        (Some(TransportSlice::Tcp(tcp)), None, Some(ip)) => {
            tcp.to_header().calc_checksum_ipv6(ip, tcp.payload()).ok() == Some(tcp.checksum())
        }
        (Some(TransportSlice::Udp(udp)), Some((source, target)), _) => {
            udp.to_header().calc_checksum_ipv4_raw(source, target, udp.payload()).ok() == Some(udp.checksum())
        }
        (Some(TransportSlice::Udp(udp)), None, Some(ip)) => {
            udp.to_header().calc_checksum_ipv6(ip, udp.payload()).ok() == Some(udp.checksum())
        }
        (Some(TransportSlice::Icmpv4(icmp)), Some(_), _) => checksum(&[icmp.slice()]) == 0,
        (Some(TransportSlice::Icmpv6(icmp)), None, Some(ip)) => {
            icmp.is_checksum_valid(ip.source, ip.destination)
        }
        (None, ..) => true,
        _ => return false,
    };
    ip_right && transport_right
}

/// A pool of large frames for one test case; its memory is touched only where it is used.
pub fn pool(count: usize) -> FramePool {
    FramePool::new(count, SUPER_FRAME_BUFFER)
}

/// A frame of `pool` that holds `packet`.
pub fn filled(pool: &mut FramePool, packet: &[u8]) -> Frame {
    let mut frame = pool.take().unwrap();
    assert!(frame.fill(packet));
    frame
}
