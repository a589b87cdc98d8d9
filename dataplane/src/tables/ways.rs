//! Where packets can go: to other nodes, to the workloads of this one, into the host.

use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnetwork::IpNetwork;

use super::peers::{Peers, add};
use super::{Adjacency, Endpoint, HOST, Kind, Lpm, Networks, Residents, UNLIMITED};
use crate::net::Mac;
use crate::port::IfIndex;
use crate::reply::GATEWAY_MAC;
use crate::spec::{self, NodeSpec};
use crate::verdict::DropReason;

/// All ways of a spec. They stay, in memory, while nothing changes but who may talk to whom: by far the most that changes.
#[derive(Debug)]
pub(super) struct Ways {
    pub(super) peers: Arc<Peers>,
    places: Vec<Place>,
    host_addresses: Vec<IpAddr>,
    /// The generation in which any of this became what it is.
    pub(super) since: u64,
    pub(super) endpoints: Arc<[Endpoint]>,
    pub(super) adjacencies: Arc<[Adjacency]>,
    pub(super) by_ifindex: HashMap<IfIndex, u32, FixedState>,
    pub(super) routes: Lpm<u32>,
}

/// An endpoint without its policy.
#[derive(Debug)]
struct Place {
    name: String,
    ifindex: Option<IfIndex>,
    mac: Option<Mac>,
    networks: Vec<IpNetwork>,
    mtu: u16,
}

impl Place {
    fn of(endpoint: &spec::Endpoint) -> Self {
        Self {
            name: endpoint.name.clone(),
            ifindex: endpoint.ifindex,
            mac: endpoint.mac,
            networks: endpoint.networks.clone(),
            mtu: endpoint.mtu,
        }
    }

    fn is_of(&self, endpoint: &spec::Endpoint) -> bool {
        (self.ifindex, self.mac, self.mtu) == (endpoint.ifindex, endpoint.mac, endpoint.mtu)
            && self.name == endpoint.name
            && self.networks == endpoint.networks
    }
}

impl Ways {
    /// Those of a spec whose workloads are `residents`; `previous` itself if nothing is different.
    pub(super) fn compile(
        spec: &NodeSpec,
        residents: &Residents,
        previous: Option<&Arc<Self>>,
        generation: u64,
    ) -> Arc<Self> {
        let peers = Peers::compile(spec, previous.map(|ways| &ways.peers));
        if let Some(previous) = previous.filter(|ways| ways.are_of(spec, &peers)) {
            return Arc::clone(previous);
        }
        let (mut adjacencies, mut routes) = (peers.adjacencies.clone(), peers.routes.clone());
        let mut endpoints = Vec::with_capacity(spec.endpoints.len());
        let mut by_ifindex = HashMap::default();
        for (index, endpoint) in spec.endpoints.iter().enumerate() {
            let (kind, mtu) = way_to(endpoint, index as u32);
            let adjacency = add(&mut adjacencies, kind, mtu);
            for network in &endpoint.networks {
                routes.insert(*network, adjacency);
            }
            if let Some(ifindex) = endpoint.ifindex {
                by_ifindex.insert(ifindex, index as u32);
            }
            endpoints.push(Endpoint {
                name: endpoint.name.clone(),
                serial: residents.serial(index),
                networks: Networks::new(&endpoint.networks),
                adjacency,
            });
        }
        for address in &spec.host_addresses {
            routes.insert(IpNetwork::from(*address), HOST);
        }
        Arc::new(Self {
            peers,
            places: spec.endpoints.iter().map(Place::of).collect(),
            host_addresses: spec.host_addresses.clone(),
            since: generation,
            endpoints: endpoints.into(),
            adjacencies: adjacencies.into(),
            by_ifindex,
            routes,
        })
    }

    fn are_of(&self, spec: &NodeSpec, peers: &Arc<Peers>) -> bool {
        Arc::ptr_eq(&self.peers, peers)
            && self.host_addresses == spec.host_addresses
            && self.places.len() == spec.endpoints.len()
            && self.places.iter().zip(&spec.endpoints).all(|(place, endpoint)| place.is_of(endpoint))
    }
}

fn way_to(endpoint: &spec::Endpoint, index: u32) -> (Kind, u16) {
    let Some(ifindex) = endpoint.ifindex else {
        return (Kind::Drop(DropReason::EndpointDown), UNLIMITED);
    };
    let mut ethernet = [0; 12];
    // Without a known address the port still finds the interface; see `Egress::Workload`.
    ethernet[..6].copy_from_slice(&endpoint.mac.unwrap_or(Mac::BROADCAST).0);
    ethernet[6..].copy_from_slice(&GATEWAY_MAC.0);
    (Kind::Endpoint { endpoint: index, ifindex, ethernet }, endpoint.mtu)
}
