//! Where routes lead: other nodes, with their tunnel end points, and what is behind gateway interfaces.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::spread::{Spread, name};
use super::{Adjacency, Kind, Lpm, Networks, PathMtu, UNLIMITED, Vtep};
use crate::spec::{self, Gateway, Hop, NodeSpec, Route, Shared, Via, Vxlan};
use crate::verdict::DropReason;

/// What a spec says of other nodes, and what packets to them need. A node of a large cluster has a thousand of them: made
/// anew only when one of them, or our side of the tunnel, has changed.
#[derive(Debug)]
pub(super) struct Peers {
    from: Origin,
    pub(super) vteps: Arc<[Vtep]>,
    /// The host's first; see [`super::HOST`].
    pub(super) adjacencies: Vec<Adjacency>,
    pub(super) routes: Lpm<u32>,
    pub(super) by_outer_v4: HashMap<u32, u32, FixedState>,
    pub(super) by_outer_v6: HashMap<u128, u32, FixedState>,
}

/// Everything that [`Peers`] are made from.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    vteps: Shared<Vec<spec::Vtep>>,
    routes: Shared<Vec<Route>>,
    gateways: Vec<Gateway>,
    vxlan: Option<Vxlan>,
    outer_ttl: u8,
    outer_df: bool,
}

impl Origin {
    fn of(spec: &NodeSpec) -> Self {
        Self {
            vteps: spec.vteps.clone(),
            routes: spec.routes.clone(),
            gateways: spec.gateways.clone(),
            vxlan: spec.vxlan,
            outer_ttl: spec.settings.outer_ttl,
            outer_df: spec.settings.outer_df,
        }
    }
}

impl Peers {
    /// Those of a spec; `previous` itself if it was made from the same. Path MTUs that it has learnt are kept in any case.
    pub(super) fn compile(spec: &NodeSpec, previous: Option<&Arc<Self>>) -> Arc<Self> {
        let from = Origin::of(spec);
        if let Some(previous) = previous.filter(|previous| previous.from == from) {
            return Arc::clone(previous);
        }
        let mut adjacencies = vec![Adjacency::new(Kind::Host, UNLIMITED)];
        let mut vteps = Vec::with_capacity(spec.vteps.len());
        let mut ways = BTreeMap::new();
        for vtep in &spec.vteps {
            let path_mtu = previous.and_then(|peers| peers.path_mtu(vtep.outer)).unwrap_or_default();
            let header = (from.outer_ttl, from.outer_df);
            adjacencies.push(Adjacency::tunnel(from.vxlan, header, vtep.outer, vtep.mac, path_mtu));
            let adjacency = (adjacencies.len() - 1) as u32;
            ways.insert(Via::Vtep(vtep.outer), adjacency);
            vteps.push(Vtep { outer: vtep.outer, mac: vtep.mac, owns: Networks::new(&vtep.owns), adjacency });
        }
        let (mut by_outer_v4, mut by_outer_v6) = (HashMap::default(), HashMap::default());
        for (index, vtep) in vteps.iter().enumerate() {
            match vtep.outer {
                IpAddr::V4(outer) => by_outer_v4.insert(outer.to_bits(), index as u32),
                IpAddr::V6(outer) => by_outer_v6.insert(outer.to_bits(), index as u32),
            };
        }
        let mut routes = Lpm::default();
        for route in &spec.routes {
            let adjacency = ways.get(&route.via).copied().unwrap_or_else(|| {
                let (kind, mtu) = from.way(&route.via, &mut adjacencies);
                add(&mut adjacencies, kind, mtu)
            });
            ways.entry(route.via.clone()).or_insert(adjacency);
            routes.insert(route.prefix, adjacency);
        }
        Arc::new(Self { from, vteps: vteps.into(), adjacencies, routes, by_outer_v4, by_outer_v6 })
    }

    /// The VTEP at an outer address.
    #[inline]
    pub(super) fn vtep_at(&self, outer: IpAddr) -> Option<u32> {
        match outer {
            IpAddr::V4(outer) => self.by_outer_v4.get(&outer.to_bits()).copied(),
            IpAddr::V6(outer) => self.by_outer_v6.get(&outer.to_bits()).copied(),
        }
    }

    /// The cell of the VTEP at this address.
    fn path_mtu(&self, outer: IpAddr) -> Option<Arc<PathMtu>> {
        let vtep = &self.vteps[self.vtep_at(outer)? as usize];
        self.adjacencies[vtep.adjacency as usize].path_mtu().cloned()
    }
}

impl Origin {
    /// A way that is not that of a VTEP.
    fn way(&self, via: &Via, adjacencies: &mut Vec<Adjacency>) -> (Kind, u16) {
        match via {
            Via::Vtep(_) => (Kind::Drop(DropReason::UnresolvedVtep), UNLIMITED),
            Via::Direct { next_hop, mtu } => (Kind::Direct { next_hop: *next_hop }, *mtu),
            Via::Gateway(hops) => self.spread(hops, adjacencies),
            Via::Drop(reason) => (Kind::Drop(*reason), UNLIMITED),
        }
    }

    /// Over the ways whose interfaces exist.
    fn spread(&self, hops: &[Hop], adjacencies: &mut Vec<Adjacency>) -> (Kind, u16) {
        let ways: Vec<(&Hop, Kind, u16)> =
            hops.iter().filter_map(|hop| self.hop(hop).map(|(kind, mtu)| (hop, kind, mtu))).collect();
        match <[_; 1]>::try_from(ways) {
            Ok([(_, kind, mtu)]) => (kind, mtu),
            Err(ways) if ways.is_empty() => (Kind::Drop(DropReason::GatewayDown), UNLIMITED),
            Err(ways) => {
                let ways = ways
                    .into_iter()
                    .map(|(hop, kind, mtu)| (name(hop), hop.weight, add(adjacencies, kind, mtu)));
                (Kind::Spread(Spread::new(ways)), UNLIMITED)
            }
        }
    }

    /// `None` while the interface does not exist.
    fn hop(&self, hop: &Hop) -> Option<(Kind, u16)> {
        let gateway = self.gateways.iter().position(|gateway| gateway.name == hop.interface)?;
        let ifindex = self.gateways[gateway].ifindex?;
        let kind = Kind::Gateway { gateway: gateway as u32, ifindex, next_hop: hop.next_hop };
        Some((kind, self.gateways[gateway].mtu))
    }
}

/// Index of one more.
pub(super) fn add(adjacencies: &mut Vec<Adjacency>, kind: Kind, mtu: u16) -> u32 {
    adjacencies.push(Adjacency::new(kind, mtu));
    (adjacencies.len() - 1) as u32
}
