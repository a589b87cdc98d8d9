//! Frames in words, a line for each header, from the outside in.

use std::net::{IpAddr, Ipv4Addr};

use canal_dataplane::net::Mac;
use canal_dataplane::wire::vxlan;
use etherparse::{IpNumber, Ipv6ExtensionSlice, LinkSlice, NetSlice, SlicedPacket, TransportSlice};

use super::question::TcpFlags;

/// How deep tunnels are looked into: ours, and one inside of it.
const MAX_TUNNELS: usize = 2;

/// The layers of a frame. UDP to `tunnel_port` is taken for VXLAN.
pub fn layers(frame: &[u8], tunnel_port: Option<u16>) -> Vec<String> {
    let mut lines = Vec::new();
    read(frame, tunnel_port, MAX_TUNNELS, &mut lines);
    lines
}

fn read(frame: &[u8], tunnel_port: Option<u16>, tunnels: usize, lines: &mut Vec<String>) {
    let packet = match SlicedPacket::from_ethernet(frame) {
        Ok(packet) => packet,
        Err(error) => return lines.push(format!("{} bytes that make no sense: {error}", frame.len())),
    };
    if let Some(LinkSlice::Ethernet2(link)) = &packet.link {
        lines.push(ethernet(Mac(link.destination()), Mac(link.source())));
    }
    match &packet.net {
        Some(NetSlice::Ipv4(ip)) => lines.push(ipv4(&ip.header().to_header())),
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let ends = ends(header.source_addr().into(), header.destination_addr().into());
            let len = 40 + usize::from(header.payload_length());
            let extensions = extensions(ip.extensions().clone().into_iter());
            lines.push(format!("IPv6 {ends}, hop limit {}, {len} bytes{extensions}", header.hop_limit()));
        }
        Some(NetSlice::Arp(_)) => lines.push("ARP".to_owned()),
        None => lines.push("no IP".to_owned()),
    }
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let flags = tcp.to_header().to_bytes()[13];
            let ports = format!("TCP {} > {}", tcp.source_port(), tcp.destination_port());
            lines.push(format!("{ports}, {}, {} bytes of data", TcpFlags(flags), tcp.payload().len()));
        }
        Some(TransportSlice::Udp(udp)) => {
            let ports = format!("UDP {} > {}", udp.source_port(), udp.destination_port());
            let inner = udp.payload().split_first_chunk::<{ vxlan::LEN }>();
            match inner.filter(|_| tunnels > 0 && tunnel_port == Some(udp.destination_port())) {
                Some((header, inner)) => {
                    lines.push(ports);
                    let vni = vxlan::Header::read(header).vni;
                    let vni =
                        vni.map_or_else(|| "without VNI".to_owned(), |vni| format!("VNI {}", vni.get()));
                    lines.push(format!("VXLAN {vni}"));
                    read(inner, tunnel_port, tunnels - 1, lines);
                }
                None => lines.push(format!("{ports}, {} bytes of data", udp.payload().len())),
            }
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            lines.push(format!("ICMP type {} code {}", icmp.type_u8(), icmp.code_u8()));
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            lines.push(format!("ICMPv6 type {} code {}", icmp.type_u8(), icmp.code_u8()));
        }
        Some(TransportSlice::Igmp(_)) => lines.push("IGMP".to_owned()),
        None => other(&packet, lines),
    }
}

/// Where the kernel writes the addresses they are zero here.
fn ethernet(destination: Mac, source: Mac) -> String {
    if destination == Mac::ZERO && source == Mac::ZERO {
        "Ethernet, addresses left to the kernel".to_owned()
    } else {
        format!("Ethernet {source} > {destination}")
    }
}

fn ends(source: IpAddr, destination: IpAddr) -> String {
    format!("{source} > {destination}")
}

fn ipv4(header: &etherparse::Ipv4Header) -> String {
    let ends = ends(Ipv4Addr::from(header.source).into(), Ipv4Addr::from(header.destination).into());
    let mut line = format!("IPv4 {ends}, TTL {}, {} bytes", header.time_to_live, header.total_len);
    if header.dont_fragment {
        line.push_str(", DF");
    }
    if header.is_fragmenting_payload() {
        line.push_str(&fragment(header.fragment_offset.byte_offset().into(), header.more_fragments));
    }
    line
}

fn fragment(offset: usize, more: bool) -> String {
    format!(", fragment from byte {offset}{}", if more { "" } else { ", the last" })
}

fn extensions<'a>(chain: impl Iterator<Item = Ipv6ExtensionSlice<'a>>) -> String {
    chain
        .map(|extension| match extension {
            Ipv6ExtensionSlice::Fragment(header) => {
                fragment(header.fragment_offset().byte_offset().into(), header.more_fragments())
            }
            _ => ", extension header".to_owned(),
        })
        .collect()
}

/// What has no header that is known, or not in this piece.
fn other(packet: &SlicedPacket<'_>, lines: &mut Vec<String>) {
    let Some(payload) = packet.ip_payload() else { return };
    match (payload.ip_number, payload.payload) {
        (IpNumber::SCTP, &[a, b, c, d, ..]) if !payload.fragmented => {
            let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let chunk = payload.payload.get(12).copied();
            let chunk = chunk.map_or_else(String::new, |chunk| format!(", chunk type {chunk}"));
            lines.push(format!("SCTP {source} > {destination}{chunk}"));
        }
        (number, bytes) => lines.push(format!("{} bytes of protocol {}", bytes.len(), number.0)),
    }
}
