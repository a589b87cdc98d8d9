//! From the desired state to tables.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use ipnetwork::IpNetwork;

use super::adjacency::Tunnel;
use super::spread::{Spread, name};
use super::{
    Adjacency, Endpoint, Gateway, Kind, Lpm, Networks, PathMtu, Policy, Residents, Tables, TemplateV4,
    TemplateV6, Vtep,
};
use crate::net::Mac;
use crate::reply::GATEWAY_MAC;
use crate::spec::{self, Hop, NodeSpec, Via};
use crate::verdict::DropReason;

/// No limit but that of IP itself.
const UNLIMITED: u16 = u16::MAX;

/// Builds the tables of one generation. Path MTUs learnt under `previous` are kept. What a spec refers to and does not
/// define becomes an adjacency that drops with a reason, never a hole.
pub fn compile(spec: &NodeSpec, previous: Option<&Tables>, generation: u64) -> Tables {
    let mut build = Builder {
        spec,
        previous,
        adjacencies: vec![Adjacency::new(Kind::Host, UNLIMITED)],
        routes: Lpm::default(),
        others: BTreeMap::new(),
    };
    let vteps: Vec<Vtep> = spec.vteps.iter().map(|vtep| build.vtep(vtep)).collect();
    let mut by_outer_v4 = HashMap::default();
    let mut by_outer_v6 = HashMap::default();
    for (index, vtep) in vteps.iter().enumerate() {
        match vtep.outer {
            IpAddr::V4(a) => by_outer_v4.insert(a.to_bits(), index as u32),
            IpAddr::V6(a) => by_outer_v6.insert(a.to_bits(), index as u32),
        };
    }
    let vtep_adjacency: BTreeMap<IpAddr, u32> = vteps.iter().map(|v| (v.outer, v.adjacency)).collect();
    for route in &spec.routes {
        let adjacency = build.via(&route.via, &vtep_adjacency);
        build.routes.insert(route.prefix, adjacency);
    }
    let gateways: Vec<Gateway> = spec.gateways.iter().map(|gateway| build.gateway(gateway)).collect();
    let mut by_gateway = HashMap::default();
    for (index, gateway) in gateways.iter().enumerate() {
        if let Some(ifindex) = gateway.ifindex {
            by_gateway.insert(ifindex, index as u32);
        }
    }
    let residents = Residents::new(&spec.endpoints, previous.map(|tables| &tables.residents), generation);
    let endpoints: Vec<Endpoint> = spec
        .endpoints
        .iter()
        .enumerate()
        .map(|(index, endpoint)| build.endpoint(index, endpoint, residents.serial(index)))
        .collect();
    let mut by_ifindex = HashMap::default();
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        if let Some(ifindex) = endpoint.ifindex {
            by_ifindex.insert(ifindex, index as u32);
        }
    }
    for address in &spec.host_addresses {
        build.routes.insert(IpNetwork::from(*address), super::HOST);
    }
    Tables {
        generation,
        revision: spec.revision,
        ready: true,
        settings: spec.settings,
        vxlan: spec.vxlan,
        gateway_v4: spec.gateway_v4,
        gateway_v6: spec.gateway_v6,
        endpoints,
        residents,
        vteps,
        gateways,
        adjacencies: build.adjacencies,
        by_ifindex,
        by_gateway,
        by_outer_v4,
        by_outer_v6,
        routes: build.routes,
        direct_sources: Networks::new(&spec.direct_sources),
        policy: Policy::compile(spec, previous.map(|tables| &tables.policy)),
    }
}

struct Builder<'a> {
    spec: &'a NodeSpec,
    previous: Option<&'a Tables>,
    adjacencies: Vec<Adjacency>,
    routes: Lpm<u32>,
    /// Adjacencies that several routes share.
    others: BTreeMap<Via, u32>,
}

impl Builder<'_> {
    fn add(&mut self, kind: Kind, mtu: u16) -> u32 {
        self.adjacencies.push(Adjacency::new(kind, mtu));
        (self.adjacencies.len() - 1) as u32
    }

    fn endpoint(&mut self, index: usize, endpoint: &spec::Endpoint, serial: u32) -> Endpoint {
        let adjacency = match endpoint.ifindex {
            None => self.add(Kind::Drop(DropReason::EndpointDown), UNLIMITED),
            Some(ifindex) => {
                let mut ethernet = [0; 12];
                // Without a known address the port still finds the interface; see `Egress::Workload`.
                ethernet[..6].copy_from_slice(&endpoint.mac.unwrap_or(Mac::BROADCAST).0);
                ethernet[6..].copy_from_slice(&GATEWAY_MAC.0);
                self.add(Kind::Endpoint { endpoint: index as u32, ifindex, ethernet }, endpoint.mtu)
            }
        };
        for network in &endpoint.networks {
            self.routes.insert(*network, adjacency);
        }
        let networks = Networks::new(&endpoint.networks);
        Endpoint { name: endpoint.name.clone(), serial, networks, adjacency }
    }

    fn vtep(&mut self, vtep: &spec::Vtep) -> Vtep {
        let (kind, mtu) = self.tunnel_to(vtep);
        let adjacency = self.add(kind, mtu);
        Vtep { outer: vtep.outer, mac: vtep.mac, owns: Networks::new(&vtep.owns), adjacency }
    }

    fn tunnel_to(&self, vtep: &spec::Vtep) -> (Kind, u16) {
        let Some(vxlan) = self.spec.vxlan else { return (Kind::Drop(DropReason::NoUnderlay), UNLIMITED) };
        let settings = self.spec.settings;
        let tunnel =
            Tunnel { vni: vxlan.vni, port: vxlan.port, ttl: settings.outer_ttl, df: settings.outer_df };
        let path_mtu = self.path_mtu(vtep.outer);
        match (vtep.outer, vxlan.v4, vxlan.v6) {
            (IpAddr::V4(outer), Some(local), _) => {
                let template = TemplateV4::new(local, outer, vtep.mac, tunnel, path_mtu);
                (Kind::VxlanV4(Box::new(template)), local.mtu)
            }
            (IpAddr::V6(outer), _, Some(local)) => {
                let template = TemplateV6::new(local, outer, vtep.mac, tunnel, path_mtu);
                (Kind::VxlanV6(Box::new(template)), local.mtu)
            }
            _ => (Kind::Drop(DropReason::NoUnderlay), UNLIMITED),
        }
    }

    /// The cell of this VTEP, the same one as in the generation before.
    fn path_mtu(&self, outer: IpAddr) -> Arc<PathMtu> {
        let known = self.previous.and_then(|tables| {
            let vtep = &tables.vteps[tables.vtep_at(outer)? as usize];
            tables.adjacencies[vtep.adjacency as usize].path_mtu().cloned()
        });
        known.unwrap_or_default()
    }

    fn gateway(&self, gateway: &spec::Gateway) -> Gateway {
        Gateway {
            name: Arc::clone(&gateway.name),
            ifindex: gateway.ifindex,
            sources: Networks::new(&gateway.sources),
            address_v4: gateway.address_v4,
            address_v6: gateway.address_v6,
            host_endpoint: self.spec.host_endpoint_of(&gateway.name).map(|index| index as u32),
        }
    }

    fn via(&mut self, via: &Via, vteps: &BTreeMap<IpAddr, u32>) -> u32 {
        if let Via::Vtep(outer) = via
            && let Some(adjacency) = vteps.get(outer)
        {
            return *adjacency;
        }
        if let Some(adjacency) = self.others.get(via) {
            return *adjacency;
        }
        let (kind, mtu) = match via {
            Via::Vtep(_) => (Kind::Drop(DropReason::UnresolvedVtep), UNLIMITED),
            Via::Direct { next_hop, mtu } => (Kind::Direct { next_hop: *next_hop }, *mtu),
            Via::Gateway(hops) => self.spread(hops),
            Via::Drop(reason) => (Kind::Drop(*reason), UNLIMITED),
        };
        let adjacency = self.add(kind, mtu);
        self.others.insert(via.clone(), adjacency);
        adjacency
    }

    /// Over the ways whose interfaces exist.
    fn spread(&mut self, hops: &[Hop]) -> (Kind, u16) {
        let ways: Vec<(&Hop, Kind, u16)> =
            hops.iter().filter_map(|hop| self.hop(hop).map(|(kind, mtu)| (hop, kind, mtu))).collect();
        match <[_; 1]>::try_from(ways) {
            Ok([(_, kind, mtu)]) => (kind, mtu),
            Err(ways) if ways.is_empty() => (Kind::Drop(DropReason::GatewayDown), UNLIMITED),
            Err(ways) => {
                let ways = ways.into_iter().map(|(hop, kind, mtu)| (name(hop), self.add(kind, mtu)));
                (Kind::Spread(Spread::new(ways)), UNLIMITED)
            }
        }
    }

    /// `None` while the interface does not exist.
    fn hop(&self, hop: &Hop) -> Option<(Kind, u16)> {
        let gateway = self.spec.gateways.iter().position(|gateway| gateway.name == hop.interface)?;
        let ifindex = self.spec.gateways[gateway].ifindex?;
        let kind = Kind::Gateway { gateway: gateway as u32, ifindex, next_hop: hop.next_hop };
        Some((kind, self.spec.gateways[gateway].mtu))
    }
}
