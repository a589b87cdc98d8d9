//! May they talk? The workload at either end of a new connection is asked, as far as it is one of this node; and the host
//! endpoint of the gateway interface, where an end is behind one.
//!
//! Packets of known connections are not looked at. Both ends are asked the same way round (see [`Asked`]), and it takes
//! both to let a packet pass. What the host itself opens is not for its workloads' policy to refuse; what it forwards for
//! others is.

use super::Context;
use crate::net::Direction;
use crate::packet::{Asked, Connection, Packet, Source};
use crate::policy::{Facts, Outcome, Question};
use crate::spec::policy::EndpointToHost;
use crate::tables::policy::Program;
use crate::tables::{HOST, Kind, Tables};
use crate::verdict::{DropReason, Verdict};

/// The ends of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// Who is asked.
#[derive(Clone, Copy)]
enum Party {
    /// The workload with this index.
    Workload(u32),
    /// The host endpoint of the gateway with this index.
    Gateway(u32),
}

/// One way round of a question, with the direction in which the key is read for it.
type Way = (Asked, Direction);

/// Asks those that new connections' packets come from.
#[inline(never)]
pub fn of_source(batch: &mut [Packet], cx: &mut Context<'_>) {
    for packet in batch.iter_mut() {
        if packet.verdict == Verdict::Pending && packet.connection == Connection::New {
            match packet.source {
                Source::Endpoint(index) => ask(packet, Party::Workload(index), End::Source, cx),
                Source::Gateway(index) => ask(packet, Party::Gateway(index), End::Source, cx),
                Source::Vtep(_) | Source::Direct | Source::Host | Source::Unknown => {}
            }
        }
    }
}

/// Asks those that new connections' packets go to; and the setting for those that go to the host.
#[inline(never)]
pub fn of_destination(batch: &mut [Packet], cx: &mut Context<'_>) {
    for packet in batch.iter_mut().filter(|p| p.connection == Connection::New) {
        let Verdict::Decided(adjacency) = packet.verdict else { continue };
        match (&cx.tables.adjacencies[adjacency as usize].kind, packet.source) {
            (Kind::Endpoint { endpoint, .. }, _) => {
                ask(packet, Party::Workload(*endpoint), End::Destination, cx);
            }
            (Kind::Gateway { gateway, .. }, _) => ask(packet, Party::Gateway(*gateway), End::Destination, cx),
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

/// Asks who is at one end of a packet about every way that is left, and drops the packet when none remains.
fn ask(packet: &mut Packet, party: Party, end: End, cx: &mut Context<'_>) {
    for way in packet.asked.ways(packet.headers.direction) {
        let left = packet.asked.without(way.0);
        let answer = match party {
            Party::Workload(index) => refusal(packet, index, end, way, left.is_empty(), cx),
            Party::Gateway(index) => refusal_of_gateway(packet, index, end, way, left.is_empty(), cx),
        };
        if let Err(reason) = answer {
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
    (way, direction): Way,
    last: bool,
    cx: &mut Context<'_>,
) -> Result<(), DropReason> {
    let opener = is_opener(way, end);
    if !opener && is_with_host(packet, end, cx.tables) {
        return Ok(());
    }
    let programs = cx.tables.policy.endpoint(endpoint);
    let (program, reason) = match opener {
        true => (&programs.egress, DropReason::PolicyDeniedEgress),
        false => (&programs.ingress, DropReason::PolicyDeniedIngress),
    };
    let name = &cx.tables.endpoints[endpoint as usize].name;
    let question = question(packet, direction, program, name, (cx.tables, cx.now_ms));
    let ruling = cx.judge.ask(&question);
    let allowed = ruling.outcome == Outcome::Allowed;
    cx.counters.verdict(program.direction(), allowed);
    if !allowed {
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

/// One question to the host endpoint of a gateway interface: its lists for what is forwarded, in their order. Towards the
/// host is what comes in by the interface, whoever it is for. See [`crate::policy::judge_host`].
#[cold]
fn refusal_of_gateway(
    packet: &Packet,
    gateway: u32,
    end: End,
    (way, direction): Way,
    last: bool,
    cx: &mut Context<'_>,
) -> Result<(), DropReason> {
    let Some(index) = cx.tables.gateways[gateway as usize].host_endpoint else { return Ok(()) };
    // What the host says or hears itself is not forwarded.
    if is_with_host(packet, end, cx.tables) {
        return Ok(());
    }
    let policy = &cx.tables.policy;
    let host = policy.host_endpoint(index as usize);
    let (programs, reason) = match is_opener(way, end) {
        true => (&host.ingress, DropReason::GatewayDeniedIngress),
        false => (&host.egress, DropReason::GatewayDeniedEgress),
    };
    for program in policy.of_forwarded(programs, &Facts::of(&packet.headers.key, direction)) {
        let question = question(packet, direction, program, &host.name, (cx.tables, cx.now_ms));
        let ruling = cx.judge.ask(&question);
        match ruling.outcome {
            Outcome::Allowed => break,
            Outcome::Undecided => {}
            Outcome::Denied => {
                cx.counters.verdict(program.direction(), false);
                if last {
                    cx.judge.denied(&question, ruling);
                }
                return Err(reason);
            }
        }
    }
    cx.counters.verdict(programs.direction(), true);
    Ok(())
}

/// Who is at this end has opened the connection if the packet goes the opener's way and comes from there, or neither.
fn is_opener(way: Asked, end: End) -> bool {
    (way == Asked::AS_IS) == (end == End::Source)
}

fn question<'a>(
    packet: &'a Packet,
    direction: Direction,
    program: &'a Program,
    endpoint: &'a str,
    (tables, now_ms): (&'a Tables, u64),
) -> Question<'a> {
    Question {
        policy: &tables.policy,
        program,
        endpoint,
        key: &packet.headers.key,
        direction,
        bytes: packet.headers.ip_len,
        generation: tables.generation,
        now_ms,
    }
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
