//! What is said of one network.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::calico::resources::IpPool;

/// Everything that names this very network. Where two contradict each other the first in order counts, so that it
/// does not matter who came first.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// By name.
    pools: BTreeMap<Box<str>, IpPool>,
    references: BTreeMap<(Reference, Arc<str>), usize>,
}

/// Why a network is said to be on a node. The later ones count more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// It is an IPAM block or a borrowed address.
    Block,
    /// It is the node's own address.
    Host,
    /// It is a workload's address.
    Workload,
    /// It is the address of the node's IP-in-IP tunnel.
    IpIpTunnel,
    /// It is the address of the node's VXLAN tunnel.
    VxlanTunnel,
}

impl Entry {
    /// Replaces a pool.
    pub fn set_pool(&mut self, name: &str, pool: Option<&IpPool>) {
        match pool {
            Some(pool) => self.pools.insert(name.into(), pool.clone()),
            None => self.pools.remove(name),
        };
    }

    /// One more (`1`) or less (`-1`) says so of a node.
    pub fn refer(&mut self, reference: Reference, node: &Arc<str>, change: isize) {
        let key = (reference, Arc::clone(node));
        let count = self.references.entry(key.clone()).or_default();
        *count = count.saturating_add_signed(change);
        if *count == 0 {
            self.references.remove(&key);
        }
    }

    /// Nobody names it any more.
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty() && self.references.is_empty()
    }

    /// The pool that counts.
    pub fn pool(&self) -> Option<&IpPool> {
        self.pools.values().next()
    }

    /// The node that counts among those for which this is said.
    pub fn node(&self, reference: Reference) -> Option<&Arc<str>> {
        let from = self.references.range((reference, "".into())..);
        from.map(|((kind, node), _)| (*kind == reference).then_some(node)).next()?
    }
}
