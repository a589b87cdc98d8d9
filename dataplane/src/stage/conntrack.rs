//! Have we seen this connection? A plain packet of one that has been judged carries the decision with it, if that was by
//! the current tables, or by earlier ones that had the same ways and the connection has been answered since;
//! the rest goes on to be decided, or ends here because it belongs to no connection.
//!
//! All packets of a batch are looked up before any of them is decided: an answer in the same batch as what it answers
//! finds no connection yet.

use super::Context;
use crate::flow::{Admission, Era, FlowId, Opening, Owner, Request, Side, State, Step, opening};
use crate::net::Direction;
use crate::packet::{Asked, Connection, Headers, Packet, Role, Source};
use crate::spec::policy::Established;
use crate::tables::Tables;
use crate::verdict::{DropReason, Verdict};

/// Looks every pending packet's connection up; returns whether any packet is left to be decided.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) -> bool {
    for packet in batch.iter_mut().filter(|p| p.verdict == Verdict::Pending) {
        packet.guess = cx.flows.guess(packet.hash);
    }
    let (now, era) = (cx.now_ms as u32, era(cx.tables));
    let (mut hits, mut undecided) = (0, false);
    for packet in batch.iter_mut().filter(|p| p.verdict == Verdict::Pending) {
        if let Some(adjacency) = cx.flows.pass(packet.guess, &packet.headers, era, now) {
            packet.verdict = Verdict::Forward(adjacency);
            hits += 1;
        } else {
            packet.verdict = look_up(packet, &mut hits, cx).unwrap_or_else(Verdict::Drop);
            undecided |= packet.verdict == Verdict::Pending;
        }
    }
    cx.counters.flow_hits.add(hits);
    undecided
}

fn era(tables: &Tables) -> Era {
    Era { generation: tables.generation as u32, since: tables.decisions_since() as u32 }
}

/// What could not be guessed.
fn look_up(packet: &mut Packet, hits: &mut u64, cx: &mut Context<'_>) -> Result<Verdict, DropReason> {
    let Some(id) = cx.flows.find(packet.hash, &packet.headers.key) else { return unknown(packet, cx) };
    match cx.flows.pass(id, &packet.headers, era(cx.tables), cx.now_ms as u32) {
        Some(adjacency) => {
            *hits += 1;
            Ok(Verdict::Forward(adjacency))
        }
        None => known(packet, id, cx),
    }
}

/// A packet whose connection has an entry, but that is not plain, or not of a connection that these tables have decided.
fn known(packet: &mut Packet, id: FlowId, cx: &mut Context<'_>) -> Result<Verdict, DropReason> {
    let generation = cx.tables.generation as u32;
    let current = cx.flows.judged(id).1 == generation;
    if !current && is_cut(id, packet, cx) {
        cut(id, cx);
        return unknown(packet, cx);
    }
    // Before the packet counts as an answer itself.
    let answered = cx.flows.is_answered(id);
    match cx.flows.step(id, &packet.headers, &cx.tables.settings.timeouts, cx.now_ms as u32) {
        Step::To(_) | Step::Closes(_) => {}
        Step::Invalid => return Err(DropReason::ConntrackInvalid),
        Step::Reopens => {
            cx.flows.remove(id);
            return unknown(packet, cx);
        }
    }
    packet.flow = Some(id);
    let direction = packet.headers.direction;
    if current {
        packet.connection = Connection::Known;
        return Ok(cx.flows.action(id, direction).adjacency.map_or(Verdict::Pending, Verdict::Forward));
    }
    (packet.connection, packet.asked) =
        match (cx.tables.settings.established, cx.flows.side(id, direction), answered) {
            (Established::Keep, Side::Origin, false) => (Connection::New, Asked::AS_IS),
            (Established::Keep, ..) => (Connection::Known, Asked::AS_IS),
            (Established::Revalidate, Side::Origin, _) => (Connection::New, Asked::AS_IS),
            (Established::Revalidate, Side::Reply, _) => (Connection::New, Asked::ANSWER),
        };
    Ok(Verdict::Pending)
}

/// A packet whose connection has no entry.
fn unknown(packet: &mut Packet, cx: &mut Context<'_>) -> Result<Verdict, DropReason> {
    if packet.headers.role == Role::Error {
        return related(packet, cx);
    }
    packet.asked = match opening(&packet.headers) {
        Opening::Opens(_) => Asked::AS_IS,
        Opening::Midstream(_) if cx.pickup => Asked::EITHER,
        Opening::Midstream(_) | Opening::Orphan => return Err(DropReason::NoConnection),
        Opening::Invalid => return Err(DropReason::ConntrackInvalid),
    };
    Ok(Verdict::Pending)
}

/// An ICMP error: it passes if it goes to the sender of a packet of a connection that these tables let pass.
#[cold]
fn related(packet: &mut Packet, cx: &mut Context<'_>) -> Result<Verdict, DropReason> {
    let quote = packet.quote().ok_or(DropReason::ConntrackInvalid)?;
    if quote.source() != packet.headers.destination_address() {
        return Err(DropReason::ConntrackInvalid);
    }
    let hash = quote.key.hash(cx.flows.seed());
    let id = cx.flows.find(hash, &quote.key).ok_or(DropReason::NoConnection)?;
    if cx.flows.judged(id).1 != cx.tables.generation as u32 {
        let kept = cx.tables.settings.established == Established::Keep && cx.flows.is_answered(id);
        let parties = cx.tables.residents.parties(&quote.key);
        // Its next packet decides whether there is still a connection to tell about.
        if !kept || cx.flows.judged(id).0 != parties {
            return Err(DropReason::NoConnection);
        }
    }
    packet.connection = Connection::Related;
    Ok(Verdict::Pending)
}

/// Is one of the ends no longer who it was when the connection was judged?
fn is_cut(id: FlowId, packet: &Packet, cx: &Context<'_>) -> bool {
    let (parties, generation) = cx.flows.judged(id);
    let since = cx.tables.residents.since() as u32;
    // Nobody has come or gone since then (low bits: generations wrap).
    let unchanged = generation.wrapping_sub(since) < u32::MAX / 2;
    !unchanged && parties != cx.tables.residents.parties(&packet.headers.key)
}

fn cut(id: FlowId, cx: &mut Context<'_>) {
    cx.flows.remove(id);
    cx.counters.flows_cut.add(1);
}

/// Remembers what the stages in between decided.
#[inline(never)]
pub fn commit(batch: &mut [Packet], cx: &mut Context<'_>) {
    for packet in batch.iter_mut() {
        match packet.verdict {
            Verdict::Decided(adjacency) => {
                packet.verdict = remember(packet, adjacency, cx)
                    .map_or_else(Verdict::Drop, |()| Verdict::Forward(adjacency));
            }
            Verdict::Drop(_) if packet.flow.is_some() && packet.connection == Connection::New => {
                forget(packet, cx)
            }
            _ => {}
        }
    }
}

/// A connection that was judged again and may not go on.
fn forget(packet: &Packet, cx: &mut Context<'_>) {
    // Its entry may have gone, and its place may be another's, since it was looked up.
    if let Some(id) = cx.flows.find(packet.hash, &packet.headers.key)
        && cx.flows.judged(id).1 != cx.tables.generation as u32
    {
        cut(id, cx);
    }
}

fn remember(packet: &mut Packet, adjacency: u32, cx: &mut Context<'_>) -> Result<(), DropReason> {
    if packet.connection == Connection::Related {
        return Ok(());
    }
    let headers = &packet.headers;
    let (generation, now) = (cx.tables.generation as u32, cx.now_ms as u32);
    // What was found when the packet was looked up may have gone, and an earlier packet of this batch may have made an entry.
    if let Some(id) = cx.flows.find(packet.hash, &headers.key) {
        if packet.flow.is_none()
            && !matches!(
                cx.flows.step(id, headers, &cx.tables.settings.timeouts, now),
                Step::To(_) | Step::Closes(_)
            )
        {
            return Err(DropReason::ConntrackInvalid);
        }
        cx.flows.decide(id, headers.direction, adjacency, generation);
        packet.flow = Some(id);
        return Ok(());
    }
    if packet.connection == Connection::Known {
        return Ok(());
    }
    let (origin, state) = first_state(packet);
    let request = Request {
        hash: packet.hash,
        key: headers.key,
        origin,
        state,
        parties: cx.tables.residents.parties(&headers.key),
        owner: owner(packet.source, cx.tables),
        generation,
    };
    let id = match cx.flows.create(&request, headers, &cx.tables.settings.timeouts, now) {
        Admission::Created(id) => id,
        Admission::Evicted(id) => {
            cx.counters.flows_evicted.add(1);
            id
        }
        Admission::OverQuota => return Err(DropReason::EndpointQuota),
        Admission::Full => return Err(DropReason::FlowTableFull),
    };
    cx.counters.flows_created.add(1);
    cx.flows.decide(id, headers.direction, adjacency, generation);
    packet.flow = Some(id);
    Ok(())
}

/// Who has opened the connection, and how far it has come with this packet.
fn first_state(packet: &Packet) -> (Direction, State) {
    let Headers { key, direction, .. } = packet.headers;
    let origin = if packet.asked.contains(Asked::AS_IS) { direction } else { key.opened_before(direction) };
    match opening(&packet.headers) {
        Opening::Opens(state) | Opening::Midstream(state) => (origin, state),
        // Judged again, and its entry was evicted in this batch: what is left of it is a connection under way.
        Opening::Orphan | Opening::Invalid => (origin, State::Established),
    }
}

/// Who is charged with the entry.
fn owner(source: Source, tables: &Tables) -> Owner {
    match source {
        Source::Endpoint(index) => Owner::workload(tables.endpoints[index as usize].serial),
        Source::Vtep(index) => Owner::vtep(tables.vteps[index as usize].outer),
        Source::Direct => Owner::DIRECT,
        Source::Gateway(index) => Owner::gateway(tables.gateways[index as usize].ifindex.unwrap_or(0)),
        Source::Host | Source::Unknown => Owner::HOST,
    }
}
