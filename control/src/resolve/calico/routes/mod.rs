//! Where Calico's pools, blocks, nodes and workloads say that addresses are.
//!
//! Every network that one of them names is an entry; what a route says is put together from the entry of its network
//! and those of all wider ones (`merge`): the pool tells about encapsulation, the block inside of it about the node, a
//! workload inside of that about itself.

mod entry;
mod merge;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use canal_dataplane::spec::calico::CalicoRoute;
use ipnetwork::IpNetwork;

pub use self::entry::{Entry, Reference};
pub use self::merge::{NodeAddresses, merge};
use crate::model::calico::resources::{Block, IpPool, Node};

/// Where it is said on which node a workload's address is: Felix's `RouteSource`, and its way with `USE_POD_CIDR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RouteSource {
    /// In IPAM blocks.
    #[default]
    Blocks,
    /// In the workloads themselves.
    Workloads,
    /// In the nodes' pod CIDRs.
    PodCidrs,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Routes {
    nodename: Arc<str>,
    source: RouteSource,
    entries: BTreeMap<IpNetwork, Entry>,
    nodes: HashMap<Arc<str>, NodeFacts>,
    /// Networks whose route may have changed.
    dirty: BTreeSet<IpNetwork>,
}

#[derive(Debug, Default)]
struct NodeFacts {
    addresses: Option<NodeAddresses>,
    /// Networks that an entry says are on this node, and how often.
    networks: BTreeMap<IpNetwork, usize>,
}

impl Routes {
    /// None, as seen by the node of this name.
    pub fn new(nodename: &str, source: RouteSource) -> Self {
        Self {
            nodename: nodename.into(),
            source,
            entries: BTreeMap::new(),
            nodes: HashMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// Replaces a pool. Of two with the same network the one with the lower name counts.
    pub fn set_pool(&mut self, name: &str, before: Option<&IpPool>, now: Option<&IpPool>) {
        for (pool, there) in [(before, false), (now, true)] {
            let Some(pool) = pool else { continue };
            self.change(pool.cidr, |entry| entry.set_pool(name, there.then_some(pool)));
            // It tells about everything inside.
            self.touch(pool.cidr);
        }
    }

    /// Replaces an IPAM block.
    pub fn set_block(&mut self, before: Option<&Block>, now: Option<&Block>) {
        if self.source != RouteSource::Blocks {
            return;
        }
        for (block, change) in [(before, -1), (now, 1)] {
            for (cidr, node) in block.into_iter().flat_map(block_routes) {
                self.refer(cidr, Reference::Block, node, change);
            }
        }
    }

    /// Replaces a workload's addresses on its node.
    pub fn set_workload<'a>(
        &mut self,
        before: Option<(&'a str, &'a [IpNetwork])>,
        now: Option<(&'a str, &'a [IpNetwork])>,
    ) {
        for (workload, change) in [(before, -1), (now, 1)] {
            let Some((node, networks)) = workload else { continue };
            if self.source == RouteSource::Workloads || *node == *self.nodename {
                networks.iter().for_each(|cidr| self.refer(*cidr, Reference::Workload, node, change));
            }
        }
    }

    /// Replaces a node.
    pub fn set_node(&mut self, name: &str, before: Option<&Node>, now: Option<&Node>) {
        for (node, change) in [(before, -1), (now, 1)] {
            let Some(node) = node else { continue };
            for (cidr, reference) in node_routes(node, self.source) {
                self.refer(cidr, reference, name, change);
            }
        }
        let addresses = now.map(NodeAddresses::of);
        let facts = self.nodes.entry(name.into()).or_default();
        if facts.addresses != addresses {
            facts.addresses = addresses;
            let networks: Vec<IpNetwork> = facts.networks.keys().copied().collect();
            networks.into_iter().for_each(|cidr| self.touch(cidr));
            if *name == *self.nodename {
                // All others are measured by our subnet.
                self.dirty.extend(self.entries.keys());
            }
        }
        self.forget_node(name);
    }

    /// Brings `routes` up to date. If all stay as they are the map stays where it is.
    pub fn flush(&mut self, routes: &mut Arc<BTreeMap<IpNetwork, CalicoRoute>>) {
        for cidr in std::mem::take(&mut self.dirty) {
            let now = self.entries.contains_key(&cidr).then(|| self.route(cidr));
            if routes.get(&cidr) == now.as_ref() {
                continue;
            }
            let routes = Arc::make_mut(routes);
            match now {
                Some(route) => routes.insert(cidr, route),
                None => routes.remove(&cidr),
            };
        }
    }

    /// What the entries of this network and of all wider ones say together.
    fn route(&self, cidr: IpNetwork) -> CalicoRoute {
        let wider = (0..=cidr.prefix()).map(|length| widened(cidr, length));
        let path = wider.filter_map(|cidr| Some((cidr, self.entries.get(&cidr)?)));
        merge(path, &self.nodename, |node| self.nodes.get(node)?.addresses)
    }

    fn refer(&mut self, cidr: IpNetwork, reference: Reference, node: &str, change: isize) {
        let node: Arc<str> = match self.nodes.get_key_value(node) {
            Some((name, _)) => Arc::clone(name),
            None => node.into(),
        };
        let facts = self.nodes.entry(Arc::clone(&node)).or_default();
        let count = facts.networks.entry(cidr).or_default();
        *count = count.saturating_add_signed(change);
        if *count == 0 {
            facts.networks.remove(&cidr);
            self.forget_node(&node);
        }
        self.change(cidr, |entry| entry.refer(reference, &node, change));
        // A block tells about what is inside of it.
        self.touch(cidr);
    }

    /// Routes of a network and of those inside.
    fn touch(&mut self, cidr: IpNetwork) {
        let inside = self.entries.range(cidr..).map(|(inner, _)| *inner);
        self.dirty.extend(inside.take_while(|inner| covers(cidr, *inner)));
        self.dirty.insert(cidr);
    }

    /// Unless somebody still speaks of it.
    fn forget_node(&mut self, name: &str) {
        if self.nodes.get(name).is_some_and(|facts| facts.addresses.is_none() && facts.networks.is_empty()) {
            self.nodes.remove(name);
        }
    }

    fn change(&mut self, cidr: IpNetwork, edit: impl FnOnce(&mut Entry)) {
        let entry = self.entries.entry(cidr).or_default();
        edit(entry);
        if entry.is_empty() {
            self.entries.remove(&cidr);
        }
    }
}

/// Networks that a block says are on a node: itself on the node it belongs to, addresses that another one borrowed on
/// that one.
pub fn block_routes(block: &Block) -> impl Iterator<Item = (IpNetwork, &str)> {
    let own = block.node.as_deref().map(|node| (block.cidr, node));
    let borrowed = block.allocations.iter().filter_map(|(ordinal, node)| {
        let node = node.as_deref().filter(|node| Some(*node) != block.node.as_deref())?;
        Some((nth(block.cidr, *ordinal)?, node))
    });
    own.into_iter().chain(borrowed)
}

/// Networks that a node says are on it. A node without address of its family has none.
pub fn node_routes(node: &Node, source: RouteSource) -> Vec<(IpNetwork, Reference)> {
    let mut routes: BTreeSet<(IpNetwork, Reference)> = BTreeSet::new();
    let mut add = |address: Option<IpAddr>, reference| {
        let known = address.filter(|address| if address.is_ipv4() { node.ipv4 } else { node.ipv6 }.is_some());
        routes.extend(known.map(|address| (IpNetwork::from(address), reference)));
    };
    let own = [node.ipv4, node.ipv6].into_iter().flatten();
    own.chain(node.addresses.iter().copied()).for_each(|address| add(Some(address), Reference::Host));
    add(node.ipip_v4, Reference::IpIpTunnel);
    [node.vxlan_v4, node.vxlan_v6].into_iter().for_each(|address| add(address, Reference::VxlanTunnel));
    if source == RouteSource::PodCidrs {
        routes.extend(node.pod_cidrs.iter().map(|cidr| (*cidr, Reference::Block)));
    }
    routes.into_iter().collect()
}

/// The `ordinal`-th address of a network.
fn nth(cidr: IpNetwork, ordinal: u32) -> Option<IpNetwork> {
    let address: IpAddr = match cidr.network() {
        IpAddr::V4(base) => std::net::Ipv4Addr::from(u32::from(base).checked_add(ordinal)?).into(),
        IpAddr::V6(base) => std::net::Ipv6Addr::from(u128::from(base).checked_add(ordinal.into())?).into(),
    };
    cidr.contains(address).then(|| address.into())
}

/// The network of this length around another one.
fn widened(cidr: IpNetwork, length: u8) -> IpNetwork {
    let wide = IpNetwork::new(cidr.ip(), length).unwrap_or(cidr);
    IpNetwork::new(wide.network(), length).unwrap_or(cidr)
}

/// Whether one network lies in another one, or is it. In order of networks those inside follow the outer one.
fn covers(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.is_ipv4() == inner.is_ipv4() && outer.prefix() <= inner.prefix() && outer.contains(inner.ip())
}
