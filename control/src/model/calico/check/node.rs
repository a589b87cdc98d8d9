//! Nodes, tiers and blocks.

use canal_dataplane::net::Mac;
use ipnetwork::IpNetwork;

use super::super::net;
use super::super::resources::{Block, Node, Tier};
use super::super::{v1, v3};
use super::Problem;

/// Order of a tier that has none.
const DEFAULT_ORDER: f64 = 1_000_000.0;

/// What an affinity begins with that is a node's.
const HOST_AFFINITY: &str = "host:";

/// A node, and what of it cannot be read.
pub fn node(node: v1::Node) -> (Node, Vec<Problem>) {
    let mut problems = node.unreadable;
    let mut mac = |part: &'static str, text: String| -> Option<Mac> {
        if text.is_empty() {
            return None;
        }
        let parsed = text.parse().ok().filter(|mac: &Mac| mac.is_unicast() && *mac != Mac::ZERO);
        if parsed.is_none() {
            problems.push(Problem::unreadable(part, text, "Ethernet address of a station"));
        }
        parsed
    };
    let typed = Node {
        ipv4: node.v4.host,
        ipv4_network: node.v4.network,
        ipv6: node.v6.host,
        ipv6_network: node.v6.network,
        vxlan_v4: node.v4.vxlan,
        vxlan_v6: node.v6.vxlan,
        vxlan_mac: mac("spec.vxlanTunnelMACAddr", node.vxlan_mac),
        vxlan_mac_v6: mac("spec.vxlanTunnelMACAddrV6", node.vxlan_mac_v6),
        ipip_v4: node.ipip_v4,
        addresses: node.addresses,
        pod_cidrs: node.pod_cidrs,
    };
    (typed, problems)
}

/// A tier.
pub fn tier(spec: &v3::TierSpec) -> Tier {
    Tier { order: spec.order.unwrap_or(DEFAULT_ORDER), ends_with_pass: spec.default_action == "Pass" }
}

/// A block, and which of its allocations make no sense.
///
/// # Errors
/// It says that it is another one than its key does.
pub fn block(key: IpNetwork, block: v3::Block) -> Result<(Block, Vec<Problem>), Problem> {
    if net::cidr(&block.cidr).map(|(cidr, _)| cidr) != Some(key) {
        return Err(Problem::OtherBlock { key, said: block.cidr });
    }
    let mut problems = Vec::new();
    let mut allocations = Vec::new();
    for (ordinal, attributes) in block.allocations.iter().enumerate() {
        let Some(number) = attributes else { continue };
        let found = usize::try_from(*number).ok().and_then(|number| block.attributes.get(number));
        match (found, u32::try_from(ordinal)) {
            (Some(found), Ok(place)) if is_inside(key, place) => {
                allocations
                    .push((place, found.secondary.get("node").filter(|node| !node.is_empty()).cloned()));
            }
            _ => problems.push(Problem::LostAttributes { ordinal }),
        }
    }
    let affinity = block.affinity.as_deref().map(|text| text.strip_prefix(HOST_AFFINITY));
    let node = affinity.unwrap_or(block.host_affinity.as_deref()).filter(|node| !node.is_empty());
    Ok((Block { cidr: key, node: node.map(str::to_owned), allocations }, problems))
}

/// Whether a block is large enough to have this address.
fn is_inside(cidr: IpNetwork, ordinal: u32) -> bool {
    let bits = if cidr.is_ipv4() { 32 } else { 128 } - cidr.prefix();
    u64::from(ordinal).checked_shr(bits.into()).is_none_or(|beyond| beyond == 0)
}
