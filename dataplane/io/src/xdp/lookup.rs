//! One look-up in the kernel's own tables: route, then neighbour.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use canal_dataplane::port::IfIndex;

use crate::netlink::{Attributes, NLM_F_CREATE, Netlink, Request};

const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
/// A gateway of the other family.
const RTA_VIA: u16 = 18;
const RTN_UNICAST: u8 = 1;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// "Somebody uses it": the kernel asks for the neighbour, or makes sure that it is still there.
const NTF_USE: u8 = 1;

const AF_INET: u8 = libc::AF_INET as u8;
const AF_INET6: u8 = libc::AF_INET6 as u8;
/// Bytes of `struct rtmsg` and of `struct ndmsg`.
const FIXED: usize = 12;

/// States in which an entry's address is used: permanent, no ARP, reachable, probe, stale, delay.
const NUD_VALID: u16 = 0x80 | 0x40 | 0x02 | 0x10 | 0x04 | 0x08;
/// States in which the kernel has nothing to find out: permanent, no ARP, reachable.
const NUD_CONNECTED: u16 = 0x80 | 0x40 | 0x02;

/// Asks about one interface.
#[derive(Debug)]
pub struct Lookup {
    netlink: Netlink,
    ifindex: IfIndex,
}

impl Lookup {
    /// For what leaves by `ifindex`.
    pub fn open(ifindex: IfIndex) -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open(0)?, ifindex })
    }

    /// The interface.
    pub fn ifindex(&self) -> IfIndex {
        self.ifindex
    }

    /// The Ethernet address to which packets for `target` go, if the kernel has a route by this interface and knows the
    /// neighbour. Where it does not, or is not sure any more, it is made to find out.
    pub fn next_hop(&self, target: IpAddr) -> Option<[u8; 6]> {
        let neighbor = self.route(target)?;
        let (state, mac) = self.neighbor(neighbor).unwrap_or((0, None));
        if state & NUD_CONNECTED == 0 {
            self.nudge(neighbor);
        }
        mac.filter(|_| state & NUD_VALID != 0)
    }

    /// Whom packets for `target` are given to: the target itself or a gateway.
    fn route(&self, target: IpAddr) -> Option<IpAddr> {
        let (family, octets) = parts(target);
        let mut body = [0; FIXED];
        body[..2].copy_from_slice(&[family, octets.len() as u8 * 8]);
        let request = Request::new(RTM_GETROUTE, 0, &body)
            .with(RTA_DST, &octets)
            .with(RTA_OIF, &self.ifindex.to_ne_bytes());
        read_route(&self.netlink.ask(&request).ok()?, target, self.ifindex)
    }

    fn neighbor(&self, neighbor: IpAddr) -> Option<(u16, Option<[u8; 6]>)> {
        let request = self.about(RTM_GETNEIGH, 0, neighbor, 0);
        read_neighbor(&self.netlink.ask(&request).ok()?)
    }

    fn nudge(&self, neighbor: IpAddr) {
        let request = self.about(RTM_NEWNEIGH, NLM_F_CREATE, neighbor, NTF_USE).acknowledged();
        // Refused by very old kernels; then packets of the TAP port do it.
        let _ = self.netlink.ask(&request);
    }

    fn about(&self, kind: u16, flags: u16, neighbor: IpAddr, use_flag: u8) -> Request {
        let (family, octets) = parts(neighbor);
        let mut body = [0; FIXED];
        body[0] = family;
        body[4..8].copy_from_slice(&self.ifindex.to_ne_bytes());
        body[10] = use_flag;
        Request::new(kind, flags, &body).with(NDA_DST, &octets)
    }
}

fn parts(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => octets.first_chunk::<4>().map(|v4| Ipv4Addr::from(*v4).into()),
        _ => octets.first_chunk::<16>().map(|v6| Ipv6Addr::from(*v6).into()),
    }
}

/// Whom a route (an answer to `RTM_GETROUTE`) gives packets for `target` to, if it leads out of `ifindex`.
fn read_route(message: &[u8], target: IpAddr, ifindex: IfIndex) -> Option<IpAddr> {
    let attributes = message.get(FIXED..).filter(|_| message[7] == RTN_UNICAST)?;
    let (mut neighbor, mut leaves_here) = (Some(target), false);
    for (name, value) in Attributes(attributes) {
        match name {
            RTA_OIF => leaves_here = value == ifindex.to_ne_bytes(),
            RTA_GATEWAY => neighbor = address(value),
            // The family in front is told by the length.
            RTA_VIA => neighbor = value.get(2..).and_then(address),
            _ => {}
        }
    }
    neighbor.filter(|_| leaves_here)
}

/// State and Ethernet address of an entry (an answer to `RTM_GETNEIGH`).
fn read_neighbor(message: &[u8]) -> Option<(u16, Option<[u8; 6]>)> {
    let attributes = message.get(FIXED..)?;
    let state = u16::from_ne_bytes([message[8], message[9]]);
    let mac = Attributes(attributes).find(|(name, _)| *name == NDA_LLADDR);
    Some((state, mac.and_then(|(_, value)| value.try_into().ok())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(name: u16, value: &[u8]) -> Vec<u8> {
        [&((value.len() + 4) as u16).to_ne_bytes()[..], &name.to_ne_bytes(), value].concat()
    }

    fn route(kind: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[7] = kind;
        bytes.extend(attributes.concat());
        bytes
    }

    #[test]
    fn a_route_leads_to_its_gateway_or_to_the_target_itself() {
        let target: IpAddr = "192.0.2.7".parse().unwrap();
        let here = attribute(RTA_OIF, &3u32.to_ne_bytes());
        let read = |kind, attributes: &[Vec<u8>]| read_route(&route(kind, attributes), target, 3);
        assert_eq!(read(RTN_UNICAST, std::slice::from_ref(&here)), Some(target));
        let gateway = attribute(RTA_GATEWAY, &[192, 0, 2, 1]);
        assert_eq!(read(RTN_UNICAST, &[gateway, here.clone()]), Some("192.0.2.1".parse().unwrap()));
        let mut via = AF_INET6.to_ne_bytes().to_vec();
        via.push(0);
        via.extend("fe80::1".parse::<Ipv6Addr>().unwrap().octets());
        let via = attribute(RTA_VIA, &via);
        let padded = [via, vec![0; 2], here.clone()].concat();
        assert_eq!(read(RTN_UNICAST, &[padded]), Some("fe80::1".parse().unwrap()));
        const RTN_UNREACHABLE: u8 = 7;
        assert_eq!(read(RTN_UNREACHABLE, &[here]), None);
        assert_eq!(read(RTN_UNICAST, &[attribute(RTA_OIF, &4u32.to_ne_bytes())]), None);
        assert_eq!(read_route(&[0; 5], target, 3), None);
    }

    #[test]
    fn a_neighbor_without_an_address_is_known_to_be_unknown() {
        let mut message = vec![0; FIXED];
        message[8] = 0x02;
        assert_eq!(read_neighbor(&message), Some((2, None)));
        message.extend(attribute(NDA_LLADDR, &[2, 0, 0, 0, 0, 9]));
        assert_eq!(read_neighbor(&message), Some((2, Some([2, 0, 0, 0, 0, 9]))));
        assert_eq!(read_neighbor(&[0; 11]), None);
    }
}
