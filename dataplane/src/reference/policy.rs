//! New connections: both ends are asked, by the lists as they stand.

use std::net::IpAddr;

use super::connections::{Name, names};
use super::parse::Ip;
use super::{Sender, Way, passable};
use crate::net::HashSeed;
use crate::packet::Asked;
use crate::policy::{self, Facts, HostSide, Outcome, Passage, Transport};
use crate::spec::policy::{EndpointToHost, PolicyDirection};
use crate::spec::{Endpoint, Gateway, NodeSpec};
use crate::verdict::DropReason;

/// Somebody whom policy knows.
#[derive(Clone, Copy, Debug)]
enum Party<'a> {
    Workload(&'a Endpoint),
    /// Somebody behind a gateway interface, for whom its host endpoint speaks.
    Behind(&'a Gateway),
    /// The host, speaking for itself.
    Host,
    /// All others, and those for whom the host only forwards.
    Stranger,
}

/// Where a packet of a new connection goes, and which ways round policy lets it pass.
pub(super) fn new<'a>(
    spec: &'a NodeSpec,
    seed: HashSeed,
    sender: Sender<'_>,
    ip: &Ip,
    mut asked: Asked,
) -> Result<(Way<'a>, Asked), DropReason> {
    let own = |address: IpAddr| spec.host_addresses.contains(&address);
    let from = match sender {
        Sender::Workload(endpoint) => Party::Workload(endpoint),
        Sender::Gateway(gateway) => Party::Behind(gateway),
        Sender::Host if own(ip.source) => Party::Host,
        Sender::Host | Sender::Vtep(_) | Sender::Direct => Party::Stranger,
    };
    // Before the route is known only the sender's own policy is asked; whether it speaks with the host is known by the
    // address.
    let host = if own(ip.destination) { Party::Host } else { Party::Stranger };
    let mut reason = None;
    for way in [Asked::AS_IS, Asked::ANSWER] {
        let opener = way == Asked::AS_IS;
        let answer = match from {
            _ if !asked.contains(way) => Ok(()),
            Party::Workload(endpoint) => says(spec, endpoint, host, ip, way, opener),
            Party::Behind(gateway) => gateway_says(spec, gateway, host, ip, way, opener),
            Party::Host | Party::Stranger => Ok(()),
        };
        if let Err(why) = answer {
            (asked, reason) = (asked.without(way), Some(why));
        }
    }
    if let Some(reason) = reason.filter(|_| asked.is_empty()) {
        return Err(reason);
    }
    let route = passable(spec, seed, ip)?;
    let to_host_is_refused = spec.settings.endpoint_to_host == EndpointToHost::Drop;
    for way in [Asked::AS_IS, Asked::ANSWER] {
        if !asked.contains(way) {
            continue;
        }
        let answer = match (from, route) {
            (_, Way::Workload(endpoint)) => says(spec, endpoint, from, ip, way, way == Asked::ANSWER),
            (_, Way::Gateway { gateway, .. }) => {
                gateway_says(spec, gateway, from, ip, way, way == Asked::ANSWER)
            }
            _ => Ok(()),
        };
        // Who opens, and to whom?
        let opens_to_host = match way == Asked::AS_IS {
            true => matches!((from, route), (Party::Workload(_), Way::Host)),
            false => matches!((from, route), (Party::Host, Way::Workload(_))),
        };
        let answer = answer.and(match opens_to_host && to_host_is_refused {
            true => Err(DropReason::EndpointToHostDenied),
            false => Ok(()),
        });
        if let Err(why) = answer {
            (asked, reason) = (asked.without(way), Some(why));
        }
    }
    match reason {
        Some(reason) if asked.is_empty() => Err(reason),
        _ => Ok((route, asked)),
    }
}

/// What a workload says to a connection with `other`. `opener`: it is the workload that opens it.
fn says(
    spec: &NodeSpec,
    workload: &Endpoint,
    other: Party<'_>,
    ip: &Ip,
    way: Asked,
    opener: bool,
) -> Result<(), DropReason> {
    if let (Party::Host, false) = (other, opener) {
        return Ok(());
    }
    let (list, reason) = match opener {
        true => (&workload.policy.egress, DropReason::PolicyDeniedEgress),
        false => (&workload.policy.ingress, DropReason::PolicyDeniedIngress),
    };
    match policy::judge(list, &spec.sets, &facts(ip, way)).outcome {
        Outcome::Allowed => Ok(()),
        Outcome::Denied | Outcome::Undecided => Err(reason),
    }
}

/// What the host endpoint of a gateway interface says to a connection between somebody behind it and `other`. `opener`: it
/// comes in by the interface.
fn gateway_says(
    spec: &NodeSpec,
    gateway: &Gateway,
    other: Party<'_>,
    ip: &Ip,
    way: Asked,
    opener: bool,
) -> Result<(), DropReason> {
    let index = match (spec.host_endpoint_of(&gateway.name), other) {
        (None, _) | (_, Party::Host) => return Ok(()),
        (Some(index), _) => index,
    };
    let endpoint = &spec.host_endpoints[index];
    let (policy, direction, reason) = match opener {
        true => (&endpoint.ingress, PolicyDirection::Ingress, DropReason::GatewayDeniedIngress),
        false => (&endpoint.egress, PolicyDirection::Egress, DropReason::GatewayDeniedEgress),
    };
    let side = HostSide { policy, direction, failsafes: &spec.failsafes };
    let facts = facts(ip, way);
    // Of what the host sends only its own is asked about untracked.
    let untracked = match opener {
        true => policy::judge_untracked(side, &spec.sets, &facts).outcome,
        false => Outcome::Undecided,
    };
    let passage = Passage { original: None, forwarded: true, workload_interface: false };
    let outcome = match untracked {
        Outcome::Undecided => policy::judge_host(side, &spec.sets, &facts, passage).outcome,
        decided => decided,
    };
    if outcome == Outcome::Denied { Err(reason) } else { Ok(()) }
}

/// The connection of a packet as its opener's packets look to rules.
fn facts(ip: &Ip, way: Asked) -> Facts {
    let (as_opener, as_answer) = names(ip);
    // An answer to oneself is as good as a question: both ends are one.
    let name = if way == Asked::AS_IS { as_opener.or(as_answer) } else { as_answer.or(as_opener) };
    let name: Name = name.unwrap_or_else(|| unreachable!("only what has a connection is asked about"));
    let ((source, source_port), (destination, destination_port)) = (name.source, name.destination);
    let transport = match (name.protocol, name.icmp) {
        (6 | 17 | 132, _) => Transport::Ports(source_port, destination_port),
        (1, Some((kind, code))) if source.is_ipv4() => Transport::Icmp(kind, code),
        (58, Some((kind, code))) if source.is_ipv6() => Transport::Icmp(kind, code),
        _ => Transport::Other,
    };
    Facts { source, destination, protocol: name.protocol, transport }
}
