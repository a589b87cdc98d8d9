//! What an object has to give to a set.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::model::calico::WorkloadEndpoint;
use crate::model::calico::resources::{HostEndpoint, Labels, NamedPort, NetworkSet};

/// Something with labels and addresses.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// Of any node.
    Workload(Arc<WorkloadEndpoint>),
    /// Of any node. One without `expectedIPs` has no addresses.
    Host(Arc<HostEndpoint>),
    /// With or without namespace.
    NetworkSet(Arc<NetworkSet>),
}

/// An address with IP protocol and port.
pub type Member = (IpAddr, u8, u16);

impl Object {
    /// Its own labels.
    pub fn labels(&self) -> &Arc<Labels> {
        match self {
            Self::Workload(endpoint) => &endpoint.labels,
            Self::Host(endpoint) => &endpoint.labels,
            Self::NetworkSet(set) => &set.labels,
        }
    }

    /// Profiles that it inherits labels of, in order of precedence.
    pub fn profiles(&self) -> &[Arc<str>] {
        match self {
            Self::Workload(endpoint) => &endpoint.profiles,
            Self::Host(endpoint) => &endpoint.profiles,
            Self::NetworkSet(set) => &set.profiles,
        }
    }

    /// Where it is. Network sets are nowhere.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Workload(endpoint) => Some(&endpoint.node),
            Self::Host(endpoint) => Some(&endpoint.node),
            Self::NetworkSet(_) => None,
        }
    }

    /// Its addresses.
    pub fn nets(&self) -> Box<dyn Iterator<Item = IpNetwork> + '_> {
        match self {
            Self::Workload(endpoint) => Box::new(endpoint.networks.iter().copied()),
            Self::Host(endpoint) => Box::new(endpoint.expected_ips.iter().copied().map(IpNetwork::from)),
            Self::NetworkSet(set) => Box::new(set.nets.iter().copied()),
        }
    }

    /// Its ports of this protocol and name. Network sets have none.
    pub fn ports<'a>(&'a self, protocol: u8, name: &'a str) -> impl Iterator<Item = Member> + 'a {
        let meant = move |port: &&NamedPort| port.protocol == protocol && *port.name == *name;
        self.named_ports()
            .iter()
            .filter(meant)
            .flat_map(move |port| self.nets().map(move |net| (net.ip(), protocol, port.port)))
    }

    fn named_ports(&self) -> &[NamedPort] {
        match self {
            Self::Workload(endpoint) => &endpoint.ports,
            Self::Host(endpoint) => &endpoint.ports,
            Self::NetworkSet(_) => &[],
        }
    }

    /// Whether it gives to every set the same as the other one does.
    pub fn gives_as(&self, other: &Self) -> bool {
        self.named_ports() == other.named_ports() && self.nets().eq(other.nets())
    }
}
