//! The packet that the generator varies: complete but for lengths, ports and the checksums over them.

use super::{Direction, Ends};
use netns_tests::plan;
use std::net::Ipv4Addr;

/// Bytes the eBPF program copies; longer than both kinds of headers.
pub const LENGTH: usize = 96;
/// VXLAN network identifier.
pub const VNI: u32 = 1;
/// The first of the outer source ports that flows may have.
const FIRST_TUNNEL_PORT: u16 = 0xc000;

/// An Ethernet header in front of IPv4.
pub fn ethernet(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    [&to[..], &from, &[8, 0]].concat()
}

/// An IPv4 header with a total length of zero, and the checksum of that.
fn ipv4(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    let sum: u32 = header.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    header
}

/// A UDP header without checksum (RFC 768).
fn udp(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes(), [0; 2], [0; 2]].concat()
}

/// Headers of a tunnel from one address to another, with lengths of zero: Ethernet, IPv4, UDP, VXLAN.
fn tunnel(outer: Vec<u8>, from: Ipv4Addr, to: Ipv4Addr, from_port: u16) -> Vec<u8> {
    let vxlan = [[8, 0, 0, 0], (VNI << 8).to_be_bytes()].concat();
    [outer, ipv4(from, to), udp(from_port, plan::VXLAN_PORT), vxlan].concat()
}

/// Headers of everything that a forwarder sends to the other end of the tunnel: up to and with the inner Ethernet header,
/// which takes the place of the pod's.
pub fn outgoing(ends: &Ends) -> Vec<u8> {
    let outer = ethernet(ends.remote_underlay_mac, ends.underlay_mac);
    let outer = tunnel(outer, ends.vtep, ends.remote_vtep, FIRST_TUNNEL_PORT);
    [outer, ethernet(ends.remote_vtep_mac, ends.vtep_mac)].concat()
}

/// Headers of the packets of one direction.
pub fn template(direction: Direction, ends: &Ends) -> [u8; LENGTH] {
    let headers = match direction {
        Direction::Encap => {
            [ethernet(ends.router_mac, ends.pod_mac), ipv4(ends.pod, ends.remote_pod), udp(0, 0)].concat()
        }
        Direction::Decap => [
            tunnel(ethernet(ends.underlay_mac, ends.remote_underlay_mac), ends.remote_vtep, ends.vtep, 0),
            ethernet(ends.vtep_mac, ends.remote_vtep_mac),
            ipv4(ends.remote_pod, ends.pod),
            udp(0, 0),
        ]
        .concat(),
    };
    let mut template = [0; LENGTH];
    template[..headers.len()].copy_from_slice(&headers);
    template
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use netns_tests::frames;

    pub fn ends() -> Ends {
        Ends {
            pod: Ipv4Addr::new(10, 244, 1, 2),
            pod_mac: [2, 0, 0, 0, 0, 2],
            router_mac: [2, 0, 0, 0, 0, 6],
            remote_pod: Ipv4Addr::new(10, 244, 2, 2),
            vtep: Ipv4Addr::new(192, 168, 77, 10),
            underlay_mac: [2, 0, 0, 0, 0, 3],
            vtep_mac: [2, 0, 0, 0, 0, 4],
            remote_vtep: Ipv4Addr::new(192, 168, 77, 200),
            remote_underlay_mac: [2, 0, 0, 0, 0, 1],
            remote_vtep_mac: [2, 0, 0, 0, 0, 5],
        }
    }

    #[test]
    fn a_template_with_its_length_put_in_is_a_packet_of_its_two_ends() {
        let mut frame = template(Direction::Encap, &ends())[..64].to_vec();
        frame[16..18].copy_from_slice(&50_u16.to_be_bytes());
        frame[34..38].copy_from_slice(&[39, 16, 39, 17]);
        frame[38..40].copy_from_slice(&30_u16.to_be_bytes());
        let seen = frames::read(&frames::with_header_checksum(frame)).expect("a packet");
        assert_eq!(seen.udp, Some((10_000, 10_001)));
        assert_eq!((seen.from, seen.to), (ends().pod.into(), ends().remote_pod.into()));
    }

    #[test]
    fn a_tunnelled_template_has_both_packets() {
        let frame = template(Direction::Decap, &ends());
        assert_eq!(frame[36..38], plan::VXLAN_PORT.to_be_bytes());
        assert_eq!(frame[42..50], [8, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(frame[50..56], ends().vtep_mac);
        assert_eq!(frame[80..84], ends().pod.octets());
    }
}
