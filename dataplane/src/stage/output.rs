//! To the ports: what can be sent is sent, what a port cannot take is made to fit, everything else is accounted for.

use std::net::IpAddr;

use super::Context;
use crate::offload::{Caps, Checksum, GsoKind, Offload};
use crate::packet::{Batch, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Packet, Source};
use crate::port::{Egress, Ingress, Outgoing, Received};
use crate::segment;
use crate::tables::{Kind, Tables};
use crate::verdict::{DropReason, Verdict};

/// Largest outer IP packet: the field has 16 bits.
const MAX_OUTER: usize = 65_535;

/// Where the packets of a batch leave.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Towards workloads, the host's stack, gateway interfaces and plain next hops.
    pub access: Vec<Outgoing>,
    /// Towards VTEPs; out of gateway interfaces as well, where that is the port for it.
    pub underlay: Vec<Outgoing>,
    /// Towards other workers, with the worker's number.
    pub handover: Vec<(u32, Received)>,
}

/// What the ports take.
#[derive(Clone, Copy, Debug)]
pub struct OutputCaps {
    /// Of the access port.
    pub access: Caps,
    /// Of the underlay port.
    pub underlay: Caps,
    /// The underlay port is the way out of gateway interfaces, too.
    pub gateways_by_underlay: bool,
}

/// Empties the batch: every frame goes to a port, to another worker, or back to the pool with a reason.
#[inline]
pub fn run(batch: &mut Batch, caps: OutputCaps, out: &mut Outputs, cx: &mut Context<'_>) {
    let (mut forwarded, mut bytes) = (0, 0);
    for packet in batch.iter_mut() {
        let adjacency = match packet.verdict {
            Verdict::Forward(adjacency) => adjacency,
            Verdict::Reply => {
                cx.counters.replies.add(1);
                match egress_back(packet.ingress) {
                    Some(egress) => emit(packet, egress, caps.access, &mut out.access, cx),
                    None => discard(packet, DropReason::NeighborIgnored, cx),
                }
                continue;
            }
            Verdict::Handover(worker) => {
                cx.counters.handed_over.add(1);
                let (frame, offload, ingress) =
                    (packet.frame.take(), packet.offload, handed_ingress(packet, cx.tables));
                out.handover.push((worker, Received { frame, offload, ingress }));
                continue;
            }
            Verdict::Drop(reason) => {
                discard(packet, reason, cx);
                continue;
            }
            Verdict::Pending
            | Verdict::Decided(_)
            | Verdict::Fragment { .. }
            | Verdict::TooBig(_)
            | Verdict::Expired => {
                unreachable!("a stage left a packet undecided")
            }
        };
        forwarded += 1;
        bytes += packet.frame.len() as u64;
        match &cx.tables.adjacencies[adjacency as usize].kind {
            Kind::Host => {
                cx.counters.to_host.add(1);
                emit(packet, Egress::Host, caps.access, &mut out.access, cx);
            }
            Kind::Endpoint { ifindex, .. } => {
                emit(packet, Egress::Workload(*ifindex), caps.access, &mut out.access, cx)
            }
            Kind::Direct { next_hop } => {
                emit(packet, Egress::Direct(*next_hop), caps.access, &mut out.access, cx)
            }
            Kind::Gateway { ifindex, next_hop, .. } => {
                match next_hop.or_else(|| destination(packet.frame.data())) {
                    Some(next_hop) => {
                        let egress = Egress::Gateway { ifindex: *ifindex, next_hop };
                        if caps.gateways_by_underlay {
                            emit(packet, egress, caps.underlay, &mut out.underlay, cx);
                        } else {
                            emit(packet, egress, caps.access, &mut out.access, cx);
                        }
                    }
                    None => discard(packet, DropReason::MalformedEthernet, cx),
                }
            }
            Kind::VxlanV4(_) | Kind::VxlanV6(_) => {
                emit(packet, Egress::Underlay, caps.underlay, &mut out.underlay, cx);
            }
            Kind::Drop(reason) => discard(packet, *reason, cx),
            Kind::Spread(_) => unreachable!("the route stage picks one of several ways"),
        }
    }
    // Every frame has been taken out of its packet.
    batch.clear();
    cx.counters.forwarded.add(forwarded);
    cx.counters.forwarded_bytes.add(bytes);
}

/// Where the IP packet in a frame goes: an answer to a packet goes elsewhere than what was parsed.
fn destination(frame: &[u8]) -> Option<IpAddr> {
    match *frame.get(12..14)?.first_chunk::<2>()? {
        ETHERTYPE_IPV4 => Some(IpAddr::from(*frame.get(30..)?.first_chunk::<4>()?)),
        ETHERTYPE_IPV6 => Some(IpAddr::from(*frame.get(38..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

/// An answer goes out where the question came in.
fn egress_back(ingress: Ingress) -> Option<Egress> {
    match ingress {
        Ingress::Workload(ifindex) => Some(Egress::Workload(ifindex)),
        Ingress::Host => Some(Egress::Host),
        Ingress::Underlay | Ingress::Direct | Ingress::Gateway(_) | Ingress::Decapsulated(_) => None,
    }
}

/// By which way the next worker shall think that a packet came: its tables may be of another generation, so what it is
/// told is an address, not an index.
fn handed_ingress(packet: &Packet, tables: &Tables) -> Ingress {
    match packet.source {
        Source::Vtep(index) => Ingress::Decapsulated(tables.vteps[index as usize].outer),
        _ => packet.ingress,
    }
}

/// Sends a packet, after making it fit if the port does not take it as it is.
#[inline(always)]
fn emit(packet: &mut Packet, egress: Egress, caps: Caps, out: &mut Vec<Outgoing>, cx: &mut Context<'_>) {
    // Written in place, field by field: put together on the stack and copied as a whole, it would be read back before its
    // pieces have left the store buffer, which costs more than the rest of the stage.
    out.push(Outgoing::none());
    let Some(outgoing) = out.last_mut() else { unreachable!("just pushed") };
    std::mem::swap(&mut outgoing.frame, &mut packet.frame);
    outgoing.egress = egress;
    if !packet.offload.is_finished() {
        outgoing.offload = packet.offload;
        if !fits(&packet.offload, caps) || outgoing.frame.len() > MAX_OUTER + 14 {
            make_fit(caps, out, cx);
        }
    }
}

/// Does the port take this packet as it is?
#[inline]
fn fits(offload: &Offload, caps: Caps) -> bool {
    let checksum = caps.checksum || !matches!(offload.checksum, Checksum::Partial { .. });
    let segments = match offload.gso.map(|gso| gso.kind) {
        None => true,
        Some(GsoKind::Tcp4 | GsoKind::Tcp6) => caps.tso,
        Some(GsoKind::Udp) => caps.uso,
    };
    checksum && segments && (offload.tunnel.is_none() || caps.tunnel)
}

/// Replaces the last packet by what the port takes: finishes checksums, segments, or cuts a super-frame whose outer length has outgrown its field.
#[cold]
fn make_fit(caps: Caps, out: &mut Vec<Outgoing>, cx: &mut Context<'_>) {
    let Some(Outgoing { frame, offload, egress }) = out.pop() else { return };
    let result = if fits(&offload, caps) {
        segment::split_oversized(frame, offload, MAX_OUTER, egress, cx.pool, out)
    } else {
        segment::lower(frame, offload, caps, egress, cx.pool, out)
    };
    if result.is_err() {
        cx.counters.drop(DropReason::OffloadUnsupported);
    }
}

#[inline]
fn discard(packet: &mut Packet, reason: DropReason, cx: &mut Context<'_>) {
    cx.counters.drop(reason);
    cx.pool.give(packet.frame.take());
}
