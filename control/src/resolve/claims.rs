//! Who holds which addresses: leases checked against the network, against us and against one another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::{NodeFacts, masked};
use crate::datastore::Revision;
use crate::model::flannel::addr::{contains4, contains6};
use crate::model::flannel::{LeaseValue, Subnets};
use crate::state::{Complaint, State};

/// One node's hold on one subnet of one family. Never overlaps another claim nor our own subnet.
#[derive(Clone, Debug)]
pub(super) struct Claim<'a> {
    /// The lease's key.
    pub(super) key: &'a str,
    /// The subnet, without host bits.
    pub(super) subnet: IpNetwork,
    /// The node's address in the subnet's family; `None` when no packet can be sent to it: unreadable, unusable, or a
    /// newer lease has the same.
    pub(super) outer: Option<IpAddr>,
    /// What the node published; `None` when unreadable.
    pub(super) value: Option<&'a LeaseValue>,
    /// Networks of the subnet's family behind the node's gateways. They lie outside of the overlay's, and overlap nothing.
    pub(super) further: Vec<IpNetwork>,
}

/// Every claim that stands, and who lost.
#[derive(Debug, Default)]
pub(super) struct Settled<'a> {
    /// In order of subnets.
    pub(super) claims: Vec<Claim<'a>>,
    /// Keys of leases that lost against newer ones, whole or in part.
    pub(super) superseded: BTreeSet<String>,
}

/// A lease before it is compared with others.
struct Candidate<'a> {
    key: &'a str,
    mod_revision: Revision,
    subnets: Subnets,
    value: Option<&'a LeaseValue>,
}

/// Why a lease outside of the network is not that of a network behind a node's gateway.
#[derive(Debug, thiserror::Error)]
enum NotBehind {
    #[error("{0} is not inside the network; ignored")]
    Outside(IpNetwork),
    #[error("{0}, announced as behind a gateway, overlaps {1}; ignored")]
    Overlaps(IpNetwork, IpNetwork),
    #[error("{0}, announced as behind a gateway, holds a node's address {1}; ignored")]
    Node(IpNetwork, IpAddr),
}

/// The claims of other nodes. A lease outside of the network that says of its node exactly what one inside does is that of
/// a network behind that node's gateway.
///
/// Of two that overlap the one written last stands: it was made when the other had expired or been given up, as far
/// as its writer could see. The key decides where revisions are equal.
pub(super) fn settle<'a>(
    state: &'a State,
    node: &NodeFacts<'_>,
    host_addresses: &BTreeSet<IpAddr>,
    complaints: &mut Vec<Complaint>,
) -> Settled<'a> {
    let readable = state.leases().iter().map(|(key, lease)| Candidate {
        key,
        mod_revision: lease.mod_revision,
        subnets: lease.subnets,
        value: Some(&lease.value),
    });
    let unreadable = state.unreachable().iter().map(|(key, lease)| Candidate {
        key,
        mod_revision: lease.mod_revision,
        subnets: lease.subnets,
        value: None,
    });
    let ours = |candidate: &Candidate<'_>| candidate.subnets == node.subnets;
    let mut candidates: Vec<_> = readable.chain(unreadable).filter(|candidate| !ours(candidate)).collect();
    candidates.sort_unstable_by_key(|candidate| (std::cmp::Reverse(candidate.mod_revision), candidate.key));

    let mut board = Board::new(node, host_addresses);
    let mut settled = Settled::default();
    let mut outside = Vec::new();
    for candidate in &candidates {
        let (inside, rest) = board.inside(node, candidate);
        outside.extend(rest.into_iter().map(|network| (candidate, network)));
        for (subnet, outer) in inside {
            if let Some(holder) = board.holder_of(subnet) {
                complaints.push(Complaint::new(
                    candidate.key,
                    format!("{subnet} overlaps {holder}, which is newer or our own; ignored"),
                ));
                board.superseded.insert(candidate.key.to_owned());
                continue;
            }
            board.subnets.insert(range(subnet).0, (range(subnet).1, subnet));
            let outer = board.usable(candidate.key, outer, complaints);
            let (key, value) = (candidate.key, candidate.value);
            settled.claims.push(Claim { key, subnet, outer, value, further: Vec::new() });
        }
    }
    // Only now all subnets are known. A node's address inside one would draw that pod's packets away.
    for claim in &mut settled.claims {
        if let Some(subnet) = claim.outer.and_then(|outer| board.holder_of(host_route(outer))) {
            complaints.push(Complaint::new(
                claim.key,
                format!("its address lies inside the subnet {subnet}; packets for it are dropped"),
            ));
            claim.outer = None;
        }
    }
    for (candidate, network) in outside {
        if let Err(why) = board.announced(candidate, network, &mut settled.claims) {
            complaints.push(Complaint::new(candidate.key, why));
        }
    }
    settled.claims.sort_unstable_by_key(|claim| claim.subnet);
    settled.superseded = board.superseded;
    settled
}

/// What is taken so far.
struct Board<'a> {
    host_addresses: &'a BTreeSet<IpAddr>,
    own_public: Vec<IpAddr>,
    /// Ranges that do not overlap: first address → last address and the subnet.
    subnets: BTreeMap<(bool, u128), (u128, IpNetwork)>,
    outers: BTreeSet<IpAddr>,
    superseded: BTreeSet<String>,
}

impl<'a> Board<'a> {
    fn new(node: &NodeFacts<'_>, host_addresses: &'a BTreeSet<IpAddr>) -> Self {
        let external = node.external;
        let own_public =
            external.public_v4.map(IpAddr::from).into_iter().chain(external.public_v6.map(IpAddr::from));
        let own = node.own_subnets().into_iter().map(|subnet| (range(subnet).0, (range(subnet).1, subnet)));
        Self {
            host_addresses,
            own_public: own_public.collect(),
            subnets: own.collect(),
            outers: BTreeSet::new(),
            superseded: BTreeSet::new(),
        }
    }

    /// The parts of a lease that lie in the network, each with the address its packets go to, and those that do not.
    fn inside(
        &self,
        node: &NodeFacts<'_>,
        candidate: &Candidate<'_>,
    ) -> (Vec<(IpNetwork, Option<IpAddr>)>, Vec<IpNetwork>) {
        let (mut parts, mut outside) = (Vec::with_capacity(2), Vec::new());
        if let Some(pool) = node.config.v4 {
            let subnet = masked(candidate.subnets.v4.into());
            if contains4(pool.network, candidate.subnets.v4) {
                parts.push((subnet, candidate.value.map(|value| value.public_ip.into())));
            } else {
                outside.push(subnet);
            }
        }
        if let (Some(pool), Some(v6)) = (node.config.v6, candidate.subnets.v6) {
            let subnet = masked(v6.into());
            if contains6(pool.network, v6) {
                parts.push((subnet, candidate.value.and_then(|value| value.public_ipv6).map(IpAddr::from)));
            } else {
                outside.push(subnet);
            }
        }
        (parts, outside)
    }

    /// Gives a network outside of the overlay's to the node that announces it. What this node announces itself is not
    /// looked at.
    fn announced(
        &mut self,
        candidate: &Candidate<'_>,
        network: IpNetwork,
        claims: &mut [Claim<'_>],
    ) -> Result<(), NotBehind> {
        let public = candidate.value.map(|value| IpAddr::from(value.public_ip));
        if public.is_some_and(|public| self.own_public.contains(&public)) {
            return Ok(());
        }
        let same = |claim: &Claim<'_>| {
            let family = claim.subnet.is_ipv4() == network.is_ipv4();
            family && claim.outer.is_some() && claim.value.is_some() && claim.value == candidate.value
        };
        let owner = claims.iter().position(same).ok_or(NotBehind::Outside(network))?;
        if let Some(holder) = self.holder_of(network) {
            return Err(NotBehind::Overlaps(network, holder));
        }
        // It would draw the tunnel's own packets into the tunnel.
        let nodes = self.outers.iter().chain(&self.own_public);
        if let Some(node) = nodes.copied().find(|node| network.contains(*node)) {
            return Err(NotBehind::Node(network, node));
        }
        self.subnets.insert(range(network).0, (range(network).1, network));
        claims[owner].further.push(network);
        Ok(())
    }

    /// The claim or own subnet that overlaps this one.
    fn holder_of(&self, subnet: IpNetwork) -> Option<IpNetwork> {
        let ((family, first), last) = range(subnet);
        let (key, (end, holder)) = self.subnets.range(..=(family, last)).next_back()?;
        (key.0 == family && *end >= first).then_some(*holder)
    }

    /// `outer` if packets can be sent there and no newer lease has it; it is taken then.
    fn usable(
        &mut self,
        key: &str,
        outer: Option<IpAddr>,
        complaints: &mut Vec<Complaint>,
    ) -> Option<IpAddr> {
        let outer = outer?;
        let why = if !is_node_address(outer) {
            format!("{outer} is no node's address")
        } else if self.own_public.contains(&outer) || self.host_addresses.contains(&outer) {
            // Vagrant gives every machine 10.0.2.15; a left-over lease of our own looks the same.
            format!("it has this node's own address {outer} (another machine with it needs --public-ip)")
        } else if !self.outers.insert(outer) {
            self.superseded.insert(key.to_owned());
            format!("a newer lease has the same address {outer}")
        } else {
            return Some(outer);
        };
        complaints.push(Complaint::new(key, format!("{why}; packets for its subnet are dropped")));
        None
    }
}

/// Can a host be reached by it from elsewhere?
fn is_node_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            !(a.is_unspecified()
                || a.is_loopback()
                || a.is_multicast()
                || a.is_link_local()
                || a.octets()[0] == 0
                || a >= Ipv4Addr::new(240, 0, 0, 0))
        }
        // Link-local ones need a zone, which a lease cannot say.
        IpAddr::V6(a) => {
            !(a.is_unspecified() || a.is_loopback() || a.is_multicast() || a.is_unicast_link_local())
                && a.to_ipv4_mapped().is_none()
                && a != Ipv6Addr::UNSPECIFIED
        }
    }
}

/// A single address as a network.
pub(super) fn host_route(address: IpAddr) -> IpNetwork {
    IpNetwork::from(address)
}

/// First and last address, as numbers; the family goes in front.
fn range(net: IpNetwork) -> ((bool, u128), u128) {
    match net {
        IpNetwork::V4(n) => ((false, n.network().to_bits().into()), n.broadcast().to_bits().into()),
        IpNetwork::V6(n) => ((true, n.network().to_bits()), n.broadcast().to_bits()),
    }
}
