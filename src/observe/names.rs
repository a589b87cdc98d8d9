//! Names for people, the same wherever something is shown: protocols, whose an address is, what decided.

use std::net::IpAddr;

use canal_dataplane::policy::{Decider, RuleId};
use canal_dataplane::tables::{Adjacency, Kind, Tables};

use super::protocol::DeciderView;

/// An IP protocol.
pub fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmp6".into(),
        132 => "sctp".into(),
        other => other.to_string(),
    }
}

/// Whose an address is, by the way that leads there: a workload of this node, `host`, `vtep ADDRESS`, `direct ADDRESS`.
pub fn holder(address: IpAddr, tables: &Tables) -> Option<String> {
    let adjacency = &tables.adjacencies[tables.route(address)? as usize];
    next_hop(adjacency, tables).filter(|_| !matches!(adjacency.kind, Kind::Drop(_)))
}

/// Where an adjacency leads, `drop REASON` included.
pub fn next_hop(adjacency: &Adjacency, tables: &Tables) -> Option<String> {
    Some(match &adjacency.kind {
        Kind::Host => "host".into(),
        Kind::Endpoint { endpoint, .. } => tables.endpoints.get(*endpoint as usize)?.name.clone(),
        Kind::VxlanV4(template) => format!("vtep {}", template.outer),
        Kind::VxlanV6(template) => format!("vtep {}", template.outer),
        Kind::Direct { next_hop } => format!("direct {next_hop}"),
        Kind::Gateway { gateway, next_hop, .. } => {
            let interface = &tables.gateways.get(*gateway as usize)?.name;
            format!("gateway {}", hop(interface, *next_hop))
        }
        Kind::Spread(spread) => {
            let ways = spread.adjacencies().filter_map(|way| tables.adjacencies.get(way as usize));
            ways.filter_map(|way| next_hop(way, tables)).collect::<Vec<_>>().join(", ")
        }
        Kind::Drop(reason) => format!("drop {}", reason.label()),
    })
}

/// A way out of a gateway interface: its name, and the router's address unless the destinations are on its link.
pub fn hop(interface: &str, next_hop: Option<IpAddr>) -> String {
    match next_hop {
        Some(address) => format!("{interface} {address}"),
        None => interface.to_owned(),
    }
}

/// What decides about a connection.
pub fn decider(decider: &Decider) -> DeciderView {
    let text = decider.to_string();
    match decider {
        Decider::Rule(RuleId { tier, origin, index, .. }) => DeciderView {
            tier: tier.as_ref().map(ToString::to_string),
            kind: Some(origin.kind.to_string()),
            name: Some(origin.name.to_string()),
            rule: Some(*index),
            text,
        },
        Decider::TierEnd(tier) => {
            DeciderView { tier: Some(tier.to_string()), text, ..DeciderView::default() }
        }
        Decider::End | Decider::Failsafe => DeciderView { text, ..DeciderView::default() },
    }
}
