//! From the desired state to tables.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{CalicoTables, Gateway, Networks, Policy, Residents, Tables, Ways};
use crate::spec::{self, NodeSpec};

/// Builds the tables of one generation. What a spec refers to and does not define becomes an adjacency that drops with a
/// reason, never a hole.
///
/// Of `previous` everything is kept whose part of the spec is the same, in memory or by value; path MTUs that were learnt
/// are kept in any case. The outcome is that of a compilation without `previous`, but for the serials of endpoints.
pub fn compile(spec: &NodeSpec, previous: Option<&Tables>, generation: u64) -> Tables {
    let residents = Residents::new(&spec.endpoints, previous.map(|tables| &tables.residents), generation);
    let ways = Ways::compile(spec, &residents, previous.map(|tables| &tables.ways), generation);
    let gateways: Vec<Gateway> = spec.gateways.iter().map(|gateway| self::gateway(gateway, spec)).collect();
    let mut by_gateway = HashMap::default();
    for (index, gateway) in gateways.iter().enumerate() {
        if let Some(ifindex) = gateway.ifindex {
            by_gateway.insert(ifindex, index as u32);
        }
    }
    Tables {
        generation,
        revision: spec.revision,
        ready: true,
        settings: spec.settings,
        vxlan: spec.vxlan,
        gateway_v4: spec.gateway_v4,
        gateway_v6: spec.gateway_v6,
        endpoints: Arc::clone(&ways.endpoints),
        residents,
        vteps: Arc::clone(&ways.peers.vteps),
        gateways,
        adjacencies: Arc::clone(&ways.adjacencies),
        by_gateway,
        direct_sources: Networks::new(&spec.direct_sources),
        policy: Policy::compile(spec, previous.map(|tables| &tables.policy)),
        calico: CalicoTables::compile(&spec.calico, &spec.settings, previous.map(|tables| &tables.calico)),
        ways,
    }
}

fn gateway(gateway: &spec::Gateway, spec: &NodeSpec) -> Gateway {
    Gateway {
        name: Arc::clone(&gateway.name),
        ifindex: gateway.ifindex,
        sources: Networks::new(&gateway.sources),
        address_v4: gateway.address_v4,
        address_v6: gateway.address_v6,
        host_endpoint: spec.host_endpoint_of(&gateway.name).map(|index| index as u32),
    }
}
