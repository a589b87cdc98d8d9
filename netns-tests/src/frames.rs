//! Frames built byte by byte for the tests of what must be dropped, and readers for what arrives.

use etherparse::{EtherType, Icmpv4Type, PacketBuilder, SlicedPacket, TransportSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Six bytes of a MAC address written `aa:bb:…`.
///
/// # Panics
/// On anything else: the addresses are the tests' own.
pub fn mac(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> = text.split(':').map(|b| u8::from_str_radix(b, 16).expect("hex")).collect();
    bytes.try_into().expect("six bytes")
}

/// The address as ip(8) writes it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Ethernet addresses of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Source.
    pub from: [u8; 6],
    /// Destination.
    pub to: [u8; 6],
}

/// A UDP datagram in its Ethernet frame.
pub fn udp(link: Link, from: (IpAddr, u16), to: (IpAddr, u16), ttl: u8, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(link.from, link.to);
    let builder = match (from.0, to.0) {
        (IpAddr::V4(a), IpAddr::V4(b)) => builder.ipv4(a.octets(), b.octets(), ttl),
        (IpAddr::V6(a), IpAddr::V6(b)) => builder.ipv6(a.octets(), b.octets(), ttl),
        _ => panic!("two families in one datagram"),
    };
    finish(builder.udp(from.1, to.1), payload)
}

/// Flags of a TCP segment made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpFlags {
    /// Opens a connection.
    Syn,
    /// Acknowledges.
    Ack,
    /// Resets.
    Rst,
}

/// A TCP segment in its Ethernet frame, IPv4.
pub fn tcp(
    link: Link,
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    flags: TcpFlags,
    payload: &[u8],
) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(link.from, link.to).ipv4(from.0.octets(), to.0.octets(), 64);
    let builder = builder.tcp(from.1, to.1, 1_000, 65_535);
    let builder = match flags {
        TcpFlags::Syn => builder.syn(),
        TcpFlags::Ack => builder.ack(1),
        TcpFlags::Rst => builder.rst(),
    };
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).expect("a frame that fits");
    frame
}

fn finish(builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).expect("a frame that fits");
    frame
}

/// The same IPv4 frame with another TOS byte (DSCP and ECN).
pub fn with_tos(mut frame: Vec<u8>, tos: u8) -> Vec<u8> {
    frame[15] = tos;
    with_header_checksum(frame)
}

/// The same IPv4 frame without DF, which every frame made here carries.
pub fn may_fragment(mut frame: Vec<u8>) -> Vec<u8> {
    frame[20] &= !0x40;
    with_header_checksum(frame)
}

/// The same IPv4 frame with the right header checksum.
pub fn with_header_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    frame[24..26].fill(0);
    let sum: u32 = frame[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame
}

/// The same frame with an 802.1Q tag of VLAN `id` behind its addresses.
pub fn with_vlan(mut frame: Vec<u8>, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    frame.splice(12..12, [0x81, 0x00, high, low]);
    frame
}

/// Header of a VXLAN packet: flags as given, reserved bytes as given, RFC 7348 section 5.
#[derive(Clone, Copy, Debug)]
pub struct Vxlan {
    /// First byte; 0x08 is the I flag.
    pub flags: u8,
    /// Bytes 1 to 3 and byte 7: reserved, or GBP's group in bytes 2 and 3.
    pub reserved: [u8; 4],
    /// Network identifier, 24 bits.
    pub vni: u32,
}

impl Vxlan {
    /// What an ordinary sender writes.
    pub fn plain(vni: u32) -> Self {
        Self { flags: 0x08, reserved: [0; 4], vni }
    }

    /// The header followed by `inner`: the payload of the outer datagram.
    pub fn wrap(&self, inner: &[u8]) -> Vec<u8> {
        let [r1, r2, r3, r7] = self.reserved;
        let [_, a, b, c] = self.vni.to_be_bytes();
        let mut payload = vec![self.flags, r1, r2, r3, a, b, c, r7];
        payload.extend_from_slice(inner);
        payload
    }
}

/// An ARP packet (RFC 826); `operation` 1 asks, 2 answers.
pub fn arp(link: Link, operation: u8, sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    let mut frame = Vec::with_capacity(60);
    frame.extend_from_slice(&link.to);
    frame.extend_from_slice(&link.from);
    frame.extend_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation]);
    frame.extend_from_slice(&sender.0);
    frame.extend_from_slice(&sender.1.octets());
    frame.extend_from_slice(&target.0);
    frame.extend_from_slice(&target.1.octets());
    frame.resize(60, 0);
    frame
}

/// A router advertisement (RFC 4861 section 4.2) that offers its sender as default router.
pub fn router_advertisement(from_mac: [u8; 6], from: Ipv6Addr) -> Vec<u8> {
    let link = Link { from: from_mac, to: [0x33, 0x33, 0, 0, 0, 1] };
    let everyone = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let builder = PacketBuilder::ethernet2(link.from, link.to)
        .ipv6(from.octets(), everyone.octets(), 255)
        // Current hop limit 64, no flags, lifetime 1800 s.
        .icmpv6_raw(134, 0, [64, 0, 0x07, 0x08]);
    let mut body = vec![0; 8];
    body.extend_from_slice(&[1, 1]);
    body.extend_from_slice(&from_mac);
    let mut frame = Vec::with_capacity(builder.size(body.len()));
    builder.write(&mut frame, &body).expect("a frame that fits");
    frame
}

/// ICMP "fragmentation needed" (RFC 1191) from `from`, quoting the first bytes of `quoted` (an IP packet).
pub fn frag_needed(link: Link, from: Ipv4Addr, to: Ipv4Addr, mtu: u16, quoted: &[u8]) -> Vec<u8> {
    let [high, low] = mtu.to_be_bytes();
    let builder = PacketBuilder::ethernet2(link.from, link.to)
        .ipv4(from.octets(), to.octets(), 64)
        .icmpv4_raw(3, 4, [0, 0, high, low]);
    let quoted = &quoted[..quoted.len().min(28)];
    let mut frame = Vec::with_capacity(builder.size(quoted.len()));
    builder.write(&mut frame, quoted).expect("a frame that fits");
    frame
}

/// The answer to an ICMP echo request over IPv4; `None` to anything else.
pub fn echo_reply(request: &[u8]) -> Option<Vec<u8>> {
    let Some(TransportSlice::Icmpv4(icmp)) = SlicedPacket::from_ethernet(request).ok()?.transport else {
        return None;
    };
    let Icmpv4Type::EchoRequest(echo) = icmp.icmp_type() else { return None };
    let asked = read(request)?;
    let (IpAddr::V4(from), IpAddr::V4(to)) = (asked.from, asked.to) else { return None };
    let builder = PacketBuilder::ethernet2(asked.to_mac, asked.from_mac)
        .ipv4(to.octets(), from.octets(), 64)
        .icmpv4_echo_reply(echo.id, echo.seq);
    let mut frame = Vec::with_capacity(builder.size(asked.payload.len()));
    builder.write(&mut frame, &asked.payload).expect("a frame that fits");
    Some(frame)
}

/// The parts of a received IP datagram that tests look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Ethernet source.
    pub from_mac: [u8; 6],
    /// Ethernet destination.
    pub to_mac: [u8; 6],
    /// IP source.
    pub from: IpAddr,
    /// IP destination.
    pub to: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DSCP and ECN as one byte.
    pub tos: u8,
    /// Source and destination port, for UDP.
    pub udp: Option<(u16, u16)>,
    /// What follows the transport header.
    pub payload: Vec<u8>,
}

/// Reads an Ethernet frame with an IP packet in it; `None` for anything else.
pub fn read(frame: &[u8]) -> Option<Seen> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let to_mac = frame.get(..6)?.try_into().ok()?;
    let from_mac = frame.get(6..12)?.try_into().ok()?;
    let (from, to, ttl, tos) = match packet.net? {
        etherparse::NetSlice::Ipv4(ip) => {
            let h = ip.header();
            let tos = h.dcp().value() << 2 | h.ecn().value();
            (h.source_addr().into(), h.destination_addr().into(), h.ttl(), tos)
        }
        etherparse::NetSlice::Ipv6(ip) => {
            let h = ip.header();
            (h.source_addr().into(), h.destination_addr().into(), h.hop_limit(), h.traffic_class())
        }
        _ => return None,
    };
    let (udp, payload) = match packet.transport {
        Some(TransportSlice::Udp(udp)) => {
            (Some((udp.source_port(), udp.destination_port())), udp.payload().to_vec())
        }
        Some(TransportSlice::Icmpv4(icmp)) => (None, icmp.payload().to_vec()),
        Some(TransportSlice::Icmpv6(icmp)) => (None, icmp.payload().to_vec()),
        Some(TransportSlice::Tcp(tcp)) => (None, tcp.payload().to_vec()),
        _ => (None, Vec::new()),
    };
    Some(Seen { from_mac, to_mac, from, to, ttl, tos, udp, payload })
}

/// Reads a VXLAN datagram to `port`: the outer packet, the 8 header bytes and the inner frame.
pub fn read_vxlan(frame: &[u8], port: u16) -> Option<(Seen, [u8; 8], Vec<u8>)> {
    let outer = read(frame)?;
    if outer.udp?.1 != port {
        return None;
    }
    let header = outer.payload.get(..8)?.try_into().ok()?;
    let inner = outer.payload.get(8..)?.to_vec();
    Some((outer, header, inner))
}

/// True for an Ethernet frame of this EtherType.
pub fn is_type(frame: &[u8], ether_type: EtherType) -> bool {
    frame.get(12..14) == Some(&ether_type.0.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { from: [2, 0, 0, 0, 0, 1], to: [2, 0, 0, 0, 0, 2] };

    #[test]
    fn a_nested_frame_is_read_back() {
        let a = (IpAddr::from([10, 0, 0, 1]), 1000);
        let b = (IpAddr::from([10, 0, 0, 2]), 2000);
        let inner = udp(LINK, a, b, 7, b"hello");
        let outer = udp(LINK, (a.0, 40_000), (b.0, 8472), 64, &Vxlan::plain(0x0001_0203).wrap(&inner));
        let (seen, header, found) = read_vxlan(&outer, 8472).unwrap();
        assert_eq!((seen.ttl, header, found), (64, [8, 0, 0, 0, 1, 2, 3, 0], inner));
        assert_eq!(read(&outer[50..]).unwrap().payload, b"hello");
    }

    #[test]
    fn another_tos_keeps_the_header_checksum_right() {
        let (a, b) = ((IpAddr::from([10, 0, 0, 1]), 1), (IpAddr::from([10, 0, 0, 2]), 2));
        let frame = may_fragment(with_tos(udp(LINK, a, b, 9, b"x"), 0b1011_1011));
        let (header, _) = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap();
        assert_eq!(header.calc_header_checksum(), header.header_checksum);
        assert!(!header.dont_fragment);
        assert_eq!(read(&frame).unwrap().tos, 0b1011_1011);
        assert!(is_type(&with_vlan(frame, 5), EtherType::VLAN_TAGGED_FRAME));
    }

    #[test]
    fn router_advertisements_have_the_shape_of_the_rfc() {
        let frame = router_advertisement(LINK.from, "fe80::1".parse().unwrap());
        assert_eq!(frame.len(), 14 + 40 + 24);
        assert_eq!((frame[54], frame[58]), (134, 64));
        assert_eq!(&frame[70..78], &[1, 1, 2, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn arp_fields_are_in_order() {
        let frame = arp(LINK, 1, (LINK.from, [10, 0, 0, 1].into()), ([0; 6], [10, 0, 0, 2].into()));
        assert!(is_type(&frame, EtherType::ARP));
        assert_eq!(&frame[20..32], &[0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1]);
    }
}
