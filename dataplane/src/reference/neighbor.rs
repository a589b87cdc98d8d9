//! ARP and neighbour discovery.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::parse::{Ip, v4_address, v6_address};
use super::{Outcome, endpoint, longest_prefix};
use crate::port::{Egress, Ingress};
use crate::reply::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6};
use crate::spec::{Endpoint, NodeSpec};
use crate::testing::verify::{checksum, pseudo_header};
use crate::verdict::DropReason;

const MALFORMED: DropReason = DropReason::MalformedNeighbor;

/// What must become of an ARP packet.
pub fn arp(spec: &NodeSpec, ingress: Ingress, frame: &[u8]) -> Result<Outcome, DropReason> {
    let Ingress::Workload(ifindex) = ingress else { return Err(DropReason::ForbiddenNeighbor) };
    let endpoint = endpoint(spec, ifindex).ok_or(DropReason::UnknownInterface)?;
    let arp = frame.get(14..14 + 28).ok_or(MALFORMED)?;
    let mac = &arp[8..14];
    let ethernet_ipv4 = arp[..6] == [0, 1, 8, 0, 6, 4];
    let request = match arp[6..8] {
        [0, 1] => true,
        [0, 2] => false,
        _ => return Err(MALFORMED),
    };
    if !ethernet_ipv4 || mac[0] & 1 == 1 || mac == [0; 6] {
        return Err(MALFORMED);
    }
    let (sender, target) = (v4_address(arp, 14), v4_address(arp, 24));
    let own = |address: IpAddr| owns(endpoint, address);
    let probe = request && sender == IpAddr::from(Ipv4Addr::UNSPECIFIED);
    if !probe && !own(sender) {
        return Err(DropReason::SpoofedNeighbor);
    }
    let IpAddr::V4(asked) = target else { return Err(MALFORMED) };
    let nobody = asked.is_unspecified() || asked.is_loopback() || asked.octets()[0] >= 224;
    let reached = asked == GATEWAY_V4 || longest_prefix(spec, target).is_some();
    if !request || target == sender || own(target) || nobody || !reached {
        return Err(DropReason::NeighborIgnored);
    }
    let ethernet = [mac, &GATEWAY_MAC.0, &[0x08, 0x06]].concat();
    let ends = [&GATEWAY_MAC.0[..], &arp[24..28], mac, &arp[14..18]].concat();
    let packet = [&ethernet[..], &[0, 1, 8, 0, 6, 4, 0, 2], &ends].concat();
    Ok(Outcome::Reply { egress: Egress::Workload(ifindex), packet })
}

fn owns(endpoint: &Endpoint, address: IpAddr) -> bool {
    endpoint.networks.iter().any(|network| network.contains(address))
}

/// What must become of an ICMPv6 packet from a workload if it is neighbour discovery; `None` if it is not.
pub fn discovery(
    spec: &NodeSpec,
    ingress: Ingress,
    frame: &[u8],
    ip: &Ip,
) -> Option<Result<Outcome, DropReason>> {
    let Ingress::Workload(ifindex) = ingress else { return None };
    let endpoint = endpoint(spec, ifindex)?;
    if ip.piece == super::Piece::Later {
        return None;
    }
    let message = &frame[14 + ip.header_len..];
    match message[0] {
        134 | 137 => Some(Err(DropReason::ForbiddenNeighbor)),
        133 | 135 | 136 if ip.header_len > 40 => Some(Err(MALFORMED)),
        133 | 135 | 136 => Some(answer(spec, endpoint, ifindex, frame, ip, message)),
        _ => None,
    }
}

fn answer(
    spec: &NodeSpec,
    endpoint: &Endpoint,
    ifindex: u32,
    frame: &[u8],
    ip: &Ip,
    message: &[u8],
) -> Result<Outcome, DropReason> {
    let pseudo = pseudo_header(ip.source, ip.destination, 58, message.len());
    if ip.ttl != 255 || message[1] != 0 || checksum(&[&pseudo[..], message].concat()) != 0 {
        return Err(MALFORMED);
    }
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (ip.source, ip.destination) else {
        return Err(MALFORMED);
    };
    let options = if message[0] == 133 { 8 } else { 24 };
    let link_address = link_address(message.get(options..).ok_or(MALFORMED)?)?;
    // A router solicitation has no target.
    let target = if message[0] == 133 { ip.source } else { v6_address(message, 8) };
    let IpAddr::V6(target) = target else { return Err(MALFORMED) };
    if source.is_multicast() || target.is_multicast() {
        return Err(MALFORMED);
    }
    let own = |address: Ipv6Addr| {
        address != GATEWAY_V6 && (address.is_unicast_link_local() || owns(endpoint, address.into()))
    };
    if !source.is_unspecified() && !own(source) {
        return Err(DropReason::SpoofedNeighbor);
    }
    match message[0] {
        133 => return Err(DropReason::NeighborIgnored),
        136 if own(source) && own(target) => return Err(DropReason::NeighborIgnored),
        136 => return Err(DropReason::SpoofedNeighbor),
        _ => {}
    }
    let octets = target.octets();
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&octets[13..]);
    let group = Ipv6Addr::from(group);
    let detection = source.is_unspecified();
    if detection && (destination != group || link_address.is_some()) {
        return Err(MALFORMED);
    }
    let addressed = destination == target || destination == group;
    let nobody = target.is_unspecified() || target.is_loopback();
    let reached = target == GATEWAY_V6 || longest_prefix(spec, target.into()).is_some();
    let silent = target == source || own(target) || detection && target != GATEWAY_V6;
    if silent || !addressed || nobody || !reached {
        return Err(DropReason::NeighborIgnored);
    }
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let (mac, to, flags) = if detection {
        (vec![0x33, 0x33, 0, 0, 0, 1], all_nodes, 0xa0)
    } else {
        (link_address.unwrap_or_else(|| frame[6..12].to_vec()), source, 0xe0)
    };
    let mut advertisement = [&[136, 0, 0, 0, flags, 0, 0, 0][..], &octets, &[2, 1], &GATEWAY_MAC.0].concat();
    let pseudo = pseudo_header(target.into(), to.into(), 58, advertisement.len());
    let sum = checksum(&[&pseudo[..], &advertisement].concat());
    advertisement[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = [&[0x60, 0, 0, 0, 0, 32, 58, 255][..], &octets, &to.octets()].concat();
    let packet = [&mac[..], &GATEWAY_MAC.0, &[0x86, 0xdd], &header, &advertisement].concat();
    Ok(Outcome::Reply { egress: Egress::Workload(ifindex), packet })
}

/// The last source link-layer address among the options; all of them must be whole.
fn link_address(mut options: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
    let mut found = None;
    let mut count = 0;
    while !options.is_empty() {
        let len = usize::from(*options.get(1).ok_or(MALFORMED)?) * 8;
        count += 1;
        if len == 0 || len > options.len() || count > 16 {
            return Err(MALFORMED);
        }
        if options[0] == 1 {
            let mac = &options[2..8];
            if len != 8 || mac[0] & 1 == 1 || mac == [0; 6] {
                return Err(MALFORMED);
            }
            found = Some(mac.to_vec());
        }
        options = &options[len..];
    }
    Ok(found)
}
