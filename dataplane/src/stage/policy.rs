//! May they talk? The workload at either end of a new connection is asked, as far as it is one of this node.
//!
//! Packets of known connections are not looked at. Both ends are asked the same way round (see [`Asked`]), and it takes
//! both to let a packet pass. What the host itself opens is not for its workloads' policy to refuse; what it forwards for
//! others is.

use super::Context;
use crate::net::Direction;
use crate::packet::{Asked, Connection, Packet, Source};
use crate::policy::Question;
use crate::spec::policy::EndpointToHost;
use crate::tables::{HOST, Kind, Tables};
use crate::verdict::{DropReason, Verdict};

/// The ends of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// Asks the workloads that new connections' packets come from.
#[inline(never)]
pub fn of_source(batch: &mut [Packet], cx: &mut Context<'_>) {
    for packet in batch.iter_mut() {
        if packet.verdict == Verdict::Pending
            && packet.connection == Connection::New
            && let Source::Endpoint(index) = packet.source
        {
            ask(packet, index, End::Source, cx);
        }
    }
}

/// Asks the workloads that new connections' packets go to; and the setting for those that go to the host.
#[inline(never)]
pub fn of_destination(batch: &mut [Packet], cx: &mut Context<'_>) {
    for packet in batch.iter_mut().filter(|p| p.connection == Connection::New) {
        let Verdict::Decided(adjacency) = packet.verdict else { continue };
        match (&cx.tables.adjacencies[adjacency as usize].kind, packet.source) {
            (Kind::Endpoint { endpoint, .. }, _) => ask(packet, *endpoint, End::Destination, cx),
            (Kind::Host, Source::Endpoint(_)) if host_refuses(cx.tables) => {
                packet.asked = packet.asked.without(Asked::AS_IS);
                if packet.asked.is_empty() {
                    packet.verdict = Verdict::Drop(DropReason::EndpointToHostDenied);
                }
            }
            _ => {}
        }
    }
}

/// Asks the workload at one end of a packet about every way that is left, and drops the packet when none remains.
fn ask(packet: &mut Packet, endpoint: u32, end: End, cx: &mut Context<'_>) {
    for (way, direction) in packet.asked.ways(packet.headers.direction) {
        let left = packet.asked.without(way);
        if let Err(reason) = refusal(packet, endpoint, end, (way, direction), left.is_empty(), cx) {
            packet.asked = left;
            if left.is_empty() {
                packet.verdict = Verdict::Drop(reason);
            }
        }
    }
}

/// One question to one workload; `last`: if it says no, nobody else is asked.
fn refusal(
    packet: &Packet,
    endpoint: u32,
    end: End,
    (way, direction): (Asked, Direction),
    last: bool,
    cx: &mut Context<'_>,
) -> Result<(), DropReason> {
    // The workload has opened the connection if the packet goes the opener's way and comes from it, or neither.
    let opener = (way == Asked::AS_IS) == (end == End::Source);
    if !opener && is_with_host(packet, end, cx.tables) {
        return Ok(());
    }
    let programs = cx.tables.policy.endpoint(endpoint);
    let (program, reason) = match opener {
        true => (&programs.egress, DropReason::PolicyDeniedEgress),
        false => (&programs.ingress, DropReason::PolicyDeniedIngress),
    };
    let question = Question {
        policy: &cx.tables.policy,
        program,
        endpoint: &cx.tables.endpoints[endpoint as usize].name,
        key: &packet.headers.key,
        direction,
        bytes: packet.headers.ip_len,
        generation: cx.tables.generation,
        now_ms: cx.now_ms,
    };
    let ruling = cx.judge.ask(&question);
    cx.counters.verdict(program.direction(), ruling.allowed);
    if !ruling.allowed {
        if last {
            cx.judge.denied(&question, ruling);
        }
        return Err(reason);
    }
    // The other way round, the route says whether the host is meant.
    if opener && end == End::Destination && host_refuses(cx.tables) && is_with_host(packet, end, cx.tables) {
        return Err(DropReason::EndpointToHostDenied);
    }
    Ok(())
}

/// Is the host itself at the end of the packet where this workload is not?
fn is_with_host(packet: &Packet, end: End, tables: &Tables) -> bool {
    let headers = &packet.headers;
    let route = match (end, headers.is_v6()) {
        (End::Source, false) => tables.route_v4(headers.destination_v4()),
        (End::Source, true) => tables.route_v6(headers.destination_v6()),
        // Nobody else is believed to be the host, and the host forwards packets that are not its own.
        (End::Destination, _) if packet.source != Source::Host => return false,
        (End::Destination, false) => tables.route_v4(headers.source_v4()),
        (End::Destination, true) => tables.route_v6(headers.source_v6()),
    };
    route == Some(HOST)
}

fn host_refuses(tables: &Tables) -> bool {
    tables.settings.endpoint_to_host == EndpointToHost::Drop
}
