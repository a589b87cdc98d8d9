//! New connections: both ends are asked, by the lists as they stand.

use std::net::IpAddr;

use super::connections::{Name, names};
use super::parse::Ip;
use super::{Sender, Way, passable};
use crate::packet::Asked;
use crate::policy::{self, Facts, Outcome, Transport};
use crate::spec::policy::EndpointToHost;
use crate::spec::{Endpoint, NodeSpec};
use crate::verdict::DropReason;

/// Somebody whom policy knows.
#[derive(Clone, Copy, Debug)]
enum Party<'a> {
    Workload(&'a Endpoint),
    /// The host, speaking for itself.
    Host,
    /// All others, and those for whom the host only forwards.
    Stranger,
}

/// Where a packet of a new connection goes, and which ways round policy lets it pass.
pub(super) fn new<'a>(
    spec: &'a NodeSpec,
    sender: Sender<'_>,
    ip: &Ip,
    mut asked: Asked,
) -> Result<(Way<'a>, Asked), DropReason> {
    let own = |address: IpAddr| spec.host_addresses.contains(&address);
    let from = match sender {
        Sender::Workload(endpoint) => Party::Workload(endpoint),
        Sender::Host if own(ip.source) => Party::Host,
        Sender::Host | Sender::Vtep(_) | Sender::Direct => Party::Stranger,
    };
    // Before the route is known only the sender's own policy is asked; whether it speaks with the host is known by the
    // address.
    let host = if own(ip.destination) { Party::Host } else { Party::Stranger };
    let mut reason = None;
    for way in [Asked::AS_IS, Asked::ANSWER] {
        if asked.contains(way)
            && let Party::Workload(endpoint) = from
            && let Err(why) = says(spec, endpoint, host, ip, way, way == Asked::AS_IS)
        {
            (asked, reason) = (asked.without(way), Some(why));
        }
    }
    if let Some(reason) = reason.filter(|_| asked.is_empty()) {
        return Err(reason);
    }
    let route = passable(spec, ip)?;
    let to_host_is_refused = spec.settings.endpoint_to_host == EndpointToHost::Drop;
    for way in [Asked::AS_IS, Asked::ANSWER] {
        if !asked.contains(way) {
            continue;
        }
        let answer = match (from, route) {
            (_, Way::Workload(endpoint)) => says(spec, endpoint, from, ip, way, way == Asked::ANSWER),
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
    let (as_opener, as_answer) = names(ip);
    // An answer to oneself is as good as a question: both ends are one.
    let name = if way == Asked::AS_IS { as_opener.or(as_answer) } else { as_answer.or(as_opener) };
    let facts = facts(&name.unwrap_or_else(|| unreachable!("only what has a connection is asked about")));
    match policy::judge(list, &spec.sets, &facts).outcome {
        Outcome::Allowed => Ok(()),
        Outcome::Denied | Outcome::Undecided => Err(reason),
    }
}

/// A connection as its opener's packets look to rules.
fn facts(name: &Name) -> Facts {
    let ((source, source_port), (destination, destination_port)) = (name.source, name.destination);
    let transport = match (name.protocol, name.icmp) {
        (6 | 17 | 132, _) => Transport::Ports(source_port, destination_port),
        (1, Some((kind, code))) if source.is_ipv4() => Transport::Icmp(kind, code),
        (58, Some((kind, code))) if source.is_ipv6() => Transport::Icmp(kind, code),
        _ => Transport::Other,
    };
    Facts { source, destination, protocol: name.protocol, transport }
}
