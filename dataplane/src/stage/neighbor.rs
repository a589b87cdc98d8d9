//! ARP and neighbour discovery: the daemon itself is every workload's gateway, and believes nobody's claims.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Context;
use crate::offload::Offload;
use crate::packet::Packet;
use crate::port::Ingress;
use crate::reply::arp::{self, Arp, ArpError};
use crate::reply::nd::{self, Nd, NdError};
use crate::reply::{GATEWAY_V4, GATEWAY_V6};
use crate::tables::{Networks, Tables};
use crate::verdict::{DropReason, Verdict};

const ICMPV6: u8 = 58;

/// Answers, or ends, every pending ARP and ND packet.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) {
    for packet in batch.iter_mut().filter(|p| p.verdict == Verdict::Pending) {
        if packet.arp {
            packet.verdict = answer_arp(packet, cx.tables);
        } else if packet.headers.is_v6() && packet.headers.protocol() == ICMPV6 {
            packet.verdict = answer_nd(packet, cx.tables);
        }
        if packet.verdict == Verdict::Reply {
            // What was unfinished was the question; the answer is whole.
            packet.offload = Offload::NONE;
        }
    }
}

/// The addresses of the workload a packet came from; ARP and ND are spoken with nobody else.
fn asker<'a>(packet: &Packet, tables: &'a Tables) -> Result<&'a Networks, DropReason> {
    let Ingress::Workload(ifindex) = packet.ingress else { return Err(DropReason::ForbiddenNeighbor) };
    let index = tables.endpoint_at(ifindex).ok_or(DropReason::UnknownInterface)?;
    Ok(&tables.endpoints[index as usize].networks)
}

fn answer_arp(packet: &mut Packet, tables: &Tables) -> Verdict {
    let networks = match asker(packet, tables) {
        Ok(networks) => networks,
        Err(reason) => return Verdict::Drop(reason),
    };
    let allowed = |address: Ipv4Addr| networks.contains_v4(address.to_bits());
    // As the kernel's proxy ARP on Calico's interfaces: the gateway answers for whatever it can reach.
    let answered = |address: Ipv4Addr| address == GATEWAY_V4 || tables.route_v4(address.to_bits()).is_some();
    match arp::answer(&mut packet.frame, answered, allowed) {
        Ok(Arp::Replied) => Verdict::Reply,
        Ok(Arp::NotAnswered | Arp::OwnAddress | Arp::Reply) => Verdict::Drop(DropReason::NeighborIgnored),
        Err(ArpError::Malformed) => Verdict::Drop(DropReason::MalformedNeighbor),
        Err(ArpError::Spoofed { .. }) => Verdict::Drop(DropReason::SpoofedNeighbor),
    }
}

fn answer_nd(packet: &mut Packet, tables: &Tables) -> Verdict {
    // From anywhere but a workload it is either routed, and worthless by its hop limit (RFC 4861 §7.1), or link-local,
    // and ended by the route stage.
    let Ok(networks) = asker(packet, tables) else { return Verdict::Pending };
    // Link-local addresses are the workload's own business on its own link.
    let allowed = |address: Ipv6Addr| {
        address != GATEWAY_V6 && (address.is_unicast_link_local() || networks.contains_v6(address.to_bits()))
    };
    let answered = |address: Ipv6Addr| address == GATEWAY_V6 || tables.route_v6(address.to_bits()).is_some();
    match nd::answer(&mut packet.frame, packet.offload.checksum, answered, allowed) {
        Ok(Nd::Other) => Verdict::Pending,
        Ok(Nd::Replied) => Verdict::Reply,
        Ok(Nd::NotAnswered | Nd::OwnAddress | Nd::Advertisement | Nd::RouterSolicitation) => {
            Verdict::Drop(DropReason::NeighborIgnored)
        }
        Err(NdError::RouterAdvertisement | NdError::Redirect) => Verdict::Drop(DropReason::ForbiddenNeighbor),
        Err(NdError::Spoofed { .. }) => Verdict::Drop(DropReason::SpoofedNeighbor),
        Err(_) => Verdict::Drop(DropReason::MalformedNeighbor),
    }
}
