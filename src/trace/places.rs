//! Who is meant by a name.

use std::net::IpAddr;

use canal_control::model::calico::WorkloadKey;
use canal_dataplane::spec::{Endpoint, Hop, NodeSpec};

/// Most names that an error lists.
const MAX_LISTED: usize = 10;

/// Why nobody is meant.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlaceError {
    /// Nobody.
    #[error(
        "{name:?} is no workload of this node, neither by name nor by address nor by interface{}",
        hint(known)
    )]
    Unknown {
        /// As given.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// More than one.
    #[error("{name:?} may be any of {}", known.join(", "))]
    Ambiguous {
        /// As given.
        name: String,
        /// Who it may be.
        known: Vec<String>,
    },
    /// A workload without an address of the family.
    #[error("{endpoint} has no IPv{family} address")]
    NoAddress {
        /// The workload.
        endpoint: String,
        /// 4 or 6.
        family: u8,
    },
    /// A workload whose interface is not there.
    #[error("the interface {interface} of {endpoint} does not exist, so that nothing can come from it")]
    Down {
        /// The workload.
        endpoint: String,
        /// Its interface.
        interface: String,
    },
    /// No gateway interface, or one that does not exist.
    #[error("{name} is no gateway interface of this node; these are asked for: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") })]
    NoGateway {
        /// As given.
        name: String,
        /// Those there shall be.
        known: Vec<String>,
    },
}

fn hint(known: &[String]) -> String {
    match known {
        [] => "; it has none".to_owned(),
        _ => format!("; there are {}", known.join(", ")),
    }
}

/// The local workload with this endpoint name, `namespace/pod`, pod name, address or interface.
///
/// # Errors
/// [`PlaceError::Unknown`], [`PlaceError::Ambiguous`].
pub fn workload<'a>(spec: &'a NodeSpec, name: &str) -> Result<(u32, &'a Endpoint), PlaceError> {
    let numbered = || (0u32..).zip(&spec.endpoints);
    let exact = |endpoint: &Endpoint| endpoint.name == name || endpoint.interface == name;
    if let Some(found) = numbered().find(|(_, endpoint)| exact(endpoint)) {
        return Ok(found);
    }
    let address: Option<IpAddr> = name.parse().ok();
    let meant = |endpoint: &Endpoint| match address {
        Some(address) => endpoint.networks.iter().any(|network| network.contains(address)),
        None => pod_names(&endpoint.name).is_some_and(|names| names.iter().any(|known| known == name)),
    };
    let mut found = numbered().filter(|(_, endpoint)| meant(endpoint));
    let listed = |endpoints: &mut dyn Iterator<Item = &Endpoint>| {
        endpoints.take(MAX_LISTED).map(|endpoint| endpoint.name.clone()).collect()
    };
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (Some((_, first)), Some((_, second))) => {
            let mut all = [first, second].into_iter().chain(found.map(|(_, endpoint)| endpoint));
            Err(PlaceError::Ambiguous { name: name.to_owned(), known: listed(&mut all) })
        }
        (None, _) => {
            Err(PlaceError::Unknown { name: name.to_owned(), known: listed(&mut spec.endpoints.iter()) })
        }
    }
}

/// What people call a workload: `namespace/pod` and `pod`.
fn pod_names(endpoint: &str) -> Option<[String; 2]> {
    let (namespace, name) = endpoint.split_once('/')?;
    let key = WorkloadKey::new(namespace, name);
    let [_, _, pod, _] = key.segments()?;
    Some([format!("{namespace}/{pod}"), pod])
}

/// Who has an address, from this node's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A workload of this node.
    Endpoint(u32),
    /// This host.
    Host,
    /// The node whose tunnel end point is at this outer address.
    Vtep(IpAddr),
    /// A peer with direct routing.
    Direct,
    /// A host behind this gateway interface.
    Gateway(u32),
    /// Nobody that there is a way to.
    Nobody,
}

/// Whose an address is: the longest prefix among everything that the tables are compiled from.
pub fn holder(spec: &NodeSpec, address: IpAddr) -> Holder {
    use canal_dataplane::spec::Via;

    if spec.host_addresses.contains(&address) {
        return Holder::Host;
    }
    // As in the tables, a workload goes before a route of the same length, and the later one before the earlier.
    let workloads = (0u32..).zip(&spec.endpoints).flat_map(|(index, endpoint)| {
        endpoint.networks.iter().map(move |network| (network, Holder::Endpoint(index)))
    });
    let routes = spec.routes.iter().map(|route| {
        let holder = match &route.via {
            Via::Vtep(outer) => Holder::Vtep(*outer),
            Via::Direct { .. } => Holder::Direct,
            Via::Gateway(hops) => behind(spec, hops).map_or(Holder::Nobody, Holder::Gateway),
            Via::Drop(_) => Holder::Nobody,
        };
        (&route.prefix, holder)
    });
    let containing = routes.chain(workloads).filter(|(network, _)| network.contains(address));
    containing.max_by_key(|(network, _)| network.prefix()).map_or(Holder::Nobody, |(_, holder)| holder)
}

/// Index of the gateway interface of this name.
///
/// # Errors
/// [`PlaceError::NoGateway`].
pub fn gateway(spec: &NodeSpec, name: &str) -> Result<u32, PlaceError> {
    let found = spec.gateways.iter().find(|gateway| *gateway.name == *name);
    found.and_then(|gateway| gateway.ifindex).ok_or_else(|| PlaceError::NoGateway {
        name: name.to_owned(),
        known: spec.gateways.iter().map(|gateway| gateway.name.to_string()).collect(),
    })
}

/// The first interface that there is among these ways.
fn behind(spec: &NodeSpec, hops: &[Hop]) -> Option<u32> {
    let gateway = |hop: &Hop| spec.gateways.iter().find(|gateway| gateway.name == hop.interface)?.ifindex;
    hops.iter().find_map(gateway)
}

/// An address of the workload, of the same family as `like`.
///
/// # Errors
/// [`PlaceError::NoAddress`].
pub fn address_like(endpoint: &Endpoint, v6: bool) -> Result<IpAddr, PlaceError> {
    let address = endpoint.networks.iter().find(|network| network.is_ipv6() == v6);
    address.map(|network| network.ip()).ok_or_else(|| PlaceError::NoAddress {
        endpoint: endpoint.name.clone(),
        family: if v6 { 6 } else { 4 },
    })
}
