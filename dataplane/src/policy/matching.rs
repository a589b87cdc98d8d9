//! Does a rule match a packet, and if not: why?

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::facts::{Facts, Shape, Transport};
use crate::spec::policy::{Family, Icmp, IpSet, Members, Ports, Rule, SetId, Side};

/// The first criterion of a rule that a packet does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The end of the packet that it is about; `None` = the packet.
    pub end: Option<End>,
    /// The criterion.
    pub criterion: Criterion,
}

/// The ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its sender.
    Source,
    /// Its receiver.
    Destination,
}

/// What a rule can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// A set that the rule names does not exist.
    MissingSet(SetId),
    /// IP family.
    Family,
    /// IP protocol.
    Protocol,
    /// Any protocol but one.
    NotProtocol,
    /// ICMP type and code.
    Icmp,
    /// Any ICMP message but some.
    NotIcmp,
    /// In some networks, or: all of the rule's networks are of the other family.
    Nets,
    /// In none of some networks, or: all of these are of the other family.
    NotNets,
    /// Member of this set.
    Set(SetId),
    /// No member of this set.
    NotSet(SetId),
    /// Port.
    Ports,
    /// Any port but some.
    NotPorts,
    /// Address, protocol and port together in this set.
    EndpointSet(SetId),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            Some(End::Source) => f.write_str("source ")?,
            Some(End::Destination) => f.write_str("destination ")?,
            None => {}
        }
        match &self.criterion {
            Criterion::MissingSet(id) => write!(f, "set {id} does not exist"),
            Criterion::Family => f.write_str("is of the other IP family"),
            Criterion::Protocol => f.write_str("protocol is another one"),
            Criterion::NotProtocol => f.write_str("protocol is the excluded one"),
            Criterion::Icmp => f.write_str("is not the ICMP message asked for"),
            Criterion::NotIcmp => f.write_str("is the excluded ICMP message"),
            Criterion::Nets => f.write_str("address is not in the networks"),
            Criterion::NotNets => f.write_str("address is in the excluded networks"),
            Criterion::Set(id) => write!(f, "address is not in set {id}"),
            Criterion::NotSet(id) => write!(f, "address is in the excluded set {id}"),
            Criterion::Ports => f.write_str("port is not among those asked for"),
            Criterion::NotPorts => f.write_str("port is among the excluded ones"),
            Criterion::EndpointSet(id) => write!(f, "address and port are not in set {id}"),
        }
    }
}

/// Asks whether `rule` matches a packet; `sets` are those of the spec, sorted by id.
///
/// # Errors
/// The first criterion that is not met.
pub fn check(rule: &Rule, sets: &[Arc<IpSet>], facts: &Facts) -> Result<(), Mismatch> {
    let met = |criterion, is_met| if is_met { Ok(()) } else { Err(Mismatch { end: None, criterion }) };
    let source = (End::Source, &rule.source, facts.source);
    let destination = (End::Destination, &rule.destination, facts.destination);
    for (end, side, _) in [source, destination] {
        if let Some(id) = missing_set(side, sets) {
            return Err(Mismatch { end: Some(end), criterion: Criterion::MissingSet(id.clone()) });
        }
    }
    met(Criterion::Family, rule.family.is_none_or(|family| family == facts.family()))?;
    met(Criterion::Protocol, rule.protocol.is_none_or(|protocol| protocol == facts.protocol))?;
    met(Criterion::NotProtocol, rule.not_protocol != Some(facts.protocol))?;
    met(Criterion::Icmp, rule.icmp.is_none_or(|icmp| is_message(icmp, facts) == Some(true)))?;
    met(Criterion::NotIcmp, rule.not_icmp.is_none_or(|icmp| is_message(icmp, facts) == Some(false)))?;
    for (end, side, address) in [source, destination] {
        let port = port(end, facts);
        check_side(side, sets, address, facts.protocol, port)
            .map_err(|criterion| Mismatch { end: Some(end), criterion })?;
    }
    Ok(())
}

/// What is known about the port at one end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Is(u16),
    /// The protocol has none.
    None,
    /// It is in another fragment.
    Unseen,
}

fn port(end: End, facts: &Facts) -> Port {
    match (facts.transport, end) {
        (Transport::Ports(source, _), End::Source) => Port::Is(source),
        (Transport::Ports(_, destination), End::Destination) => Port::Is(destination),
        (Transport::Unseen, _) if Shape::of(facts.protocol, facts.family() == Family::V6) == Shape::Ports => {
            Port::Unseen
        }
        _ => Port::None,
    }
}

/// Is the packet this ICMP message? `None` = another fragment knows.
fn is_message(icmp: Icmp, facts: &Facts) -> Option<bool> {
    let shape = Shape::of(facts.protocol, facts.family() == Family::V6);
    match facts.transport {
        Transport::Icmp(kind, code) => Some(kind == icmp.kind && icmp.code.is_none_or(|c| c == code)),
        Transport::Unseen if shape == Shape::Icmp => None,
        _ => Some(false),
    }
}

fn check_side(
    side: &Side,
    sets: &[Arc<IpSet>],
    address: IpAddr,
    protocol: u8,
    port: Port,
) -> Result<(), Criterion> {
    let met = |criterion, is_met| if is_met { Ok(()) } else { Err(criterion) };
    // A list that is empty from the beginning matches nothing; one that this family empties keeps the rule from matching.
    if let Some(nets) = &side.nets {
        met(Criterion::Nets, nets.iter().any(|net| net.contains(address)))?;
    }
    let not_nets = of_family(&side.not_nets, address);
    let emptied = not_nets.is_empty() && !side.not_nets.is_empty();
    met(Criterion::NotNets, !emptied && !not_nets.iter().any(|net| net.contains(address)))?;
    for id in &side.sets {
        met(Criterion::Set(id.clone()), has_address(sets, id, address))?;
    }
    for id in &side.not_sets {
        met(Criterion::NotSet(id.clone()), !has_address(sets, id, address))?;
    }
    let among = |ports: &Ports, port| {
        ports.ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
            || ports.named.iter().any(|id| has_port(sets, id, (address, protocol, port)))
    };
    match (&side.ports, port) {
        (None, _) => {}
        (Some(ports), Port::Is(port)) => met(Criterion::Ports, among(ports, port))?,
        (Some(_), Port::None | Port::Unseen) => return Err(Criterion::Ports),
    }
    match port {
        _ if side.not_ports.is_empty() => {}
        Port::Is(port) => met(Criterion::NotPorts, !among(&side.not_ports, port))?,
        // What has no port has none of these.
        Port::None => {}
        Port::Unseen => return Err(Criterion::NotPorts),
    }
    for id in &side.endpoint_sets {
        let member = match port {
            Port::Is(port) => has_port(sets, id, (address, protocol, port)),
            Port::None | Port::Unseen => false,
        };
        met(Criterion::EndpointSet(id.clone()), member)?;
    }
    Ok(())
}

fn of_family(nets: &[IpNetwork], address: IpAddr) -> Vec<&IpNetwork> {
    nets.iter().filter(|net| net.is_ipv4() == address.is_ipv4()).collect()
}

fn find<'a>(sets: &'a [Arc<IpSet>], id: &SetId) -> Option<&'a Members> {
    let at = sets.binary_search_by(|set| set.id.cmp(id)).ok()?;
    Some(&sets[at].members)
}

/// The first set that a side names and that is not there, or holds something else.
fn missing_set<'a>(side: &'a Side, sets: &[Arc<IpSet>]) -> Option<&'a SetId> {
    let addresses = side.sets.iter().chain(&side.not_sets);
    let named = side.ports.iter().flat_map(|ports| &ports.named).chain(&side.not_ports.named);
    let ports = named.chain(&side.endpoint_sets);
    let mut no_addresses = addresses.filter(|id| !matches!(find(sets, id), Some(Members::Nets(_))));
    let mut no_ports = ports.filter(|id| !matches!(find(sets, id), Some(Members::Ports(_))));
    no_addresses.next().or_else(|| no_ports.next())
}

fn has_address(sets: &[Arc<IpSet>], id: &SetId, address: IpAddr) -> bool {
    match find(sets, id) {
        Some(Members::Nets(nets)) => nets.iter().any(|net| net.contains(address)),
        _ => false,
    }
}

fn has_port(sets: &[Arc<IpSet>], id: &SetId, member: (IpAddr, u8, u16)) -> bool {
    match find(sets, id) {
        Some(Members::Ports(members)) => members.contains(&member),
        _ => false,
    }
}
