//! Local workload endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use canal_dataplane::spec::Endpoint;
use canal_dataplane::spec::policy::EndpointPolicy;
use ipnetwork::IpNetwork;

use super::{NodeFacts, saturate};
use crate::host::view::Link;
use crate::model::calico::{WorkloadEndpoint, WorkloadKey};
use crate::state::{Complaint, State};

/// Our endpoints, sorted by name. One whose interface or addresses are somebody else's keeps the rest. Without `policy`
/// everything is allowed; whoever is not in it is denied everything.
pub(super) fn endpoints(
    state: &State,
    node: &NodeFacts<'_>,
    policy: Option<&BTreeMap<WorkloadKey, EndpointPolicy>>,
    host_addresses: &BTreeSet<IpAddr>,
    peers: &BTreeSet<IpAddr>,
    complaints: &mut Vec<Complaint>,
) -> Vec<Endpoint> {
    let mut attach = Attach {
        node,
        policy,
        host_addresses,
        peers,
        interfaces: BTreeMap::new(),
        addresses: BTreeMap::new(),
        complaints,
        // With an underlay too small there is nothing to attach to, but the workloads can still talk to one another.
        mtu: node.mtu().unwrap_or(node.external.mtu),
    };
    state.local_workloads().map(|(key, endpoint)| attach.endpoint(key, endpoint)).collect()
}

/// One value for all endpoints, so that what is compiled of it is shared.
static OPEN: LazyLock<EndpointPolicy> = LazyLock::new(EndpointPolicy::allow_all);

/// Denies everything.
static CLOSED: LazyLock<EndpointPolicy> = LazyLock::new(EndpointPolicy::default);

struct Attach<'a, 'b> {
    node: &'a NodeFacts<'a>,
    policy: Option<&'a BTreeMap<WorkloadKey, EndpointPolicy>>,
    host_addresses: &'a BTreeSet<IpAddr>,
    peers: &'a BTreeSet<IpAddr>,
    interfaces: BTreeMap<&'b str, &'b WorkloadKey>,
    addresses: BTreeMap<IpNetwork, &'b WorkloadKey>,
    complaints: &'a mut Vec<Complaint>,
    mtu: u32,
}

impl<'b> Attach<'_, 'b> {
    fn endpoint(&mut self, key: &'b WorkloadKey, endpoint: &'b WorkloadEndpoint) -> Endpoint {
        let link = match self.interface(key, &endpoint.interface) {
            Ok(link) => link.map(|link| (link.index, link.mtu)),
            Err(why) => {
                self.complain(key, why);
                None
            }
        };
        let mut networks = Vec::with_capacity(endpoint.networks.len());
        for network in &endpoint.networks {
            match self.address(key, *network) {
                Ok(()) => networks.push(*network),
                Err(why) => self.complain(key, why),
            }
        }
        Endpoint {
            name: key.to_string(),
            interface: endpoint.interface.to_string(),
            ifindex: link.map(|(index, _)| index),
            mac: endpoint.mac,
            networks,
            mtu: saturate(link.map_or(self.mtu, |(_, mtu)| mtu)),
            policy: self.policy(key),
        }
    }

    fn policy(&self, key: &WorkloadKey) -> EndpointPolicy {
        match self.policy {
            None => OPEN.clone(),
            Some(policy) => policy.get(key).unwrap_or(&CLOSED).clone(),
        }
    }

    /// The link, if it exists and a workload may have it. A typing error here must not cut the host off its network.
    fn interface(&mut self, key: &'b WorkloadKey, name: &'b str) -> Result<Option<&Link>, NotIts> {
        if !self.node.felix.is_workload_interface(name) {
            return Err(NotIts::Prefix(name.to_owned()));
        }
        if let Some(holder) = self.interfaces.get(name) {
            return Err(NotIts::Interface(name.to_owned(), holder.to_string()));
        }
        self.interfaces.insert(name, key);
        let Some(link) = self.node.host.link_by_name(name) else { return Ok(None) };
        let hosts = link.loopback
            || link.kind.is_none()
            || link.index == self.node.external.ifindex
            || link.name == self.node.device;
        if hosts { Err(NotIts::HostInterface(name.to_owned())) } else { Ok(Some(link)) }
    }

    fn address(&mut self, key: &'b WorkloadKey, network: IpNetwork) -> Result<(), NotIts> {
        let address = network.ip();
        if !is_workload_address(address) {
            return Err(NotIts::Martian(address));
        }
        if self.host_addresses.contains(&address) {
            return Err(NotIts::HostAddress(address));
        }
        if self.peers.contains(&address) {
            return Err(NotIts::NodeAddress(address));
        }
        if let Some(holder) = self.addresses.get(&network) {
            return Err(NotIts::Address(address, holder.to_string()));
        }
        self.addresses.insert(network, key);
        Ok(())
    }

    fn complain(&mut self, key: &WorkloadKey, why: NotIts) {
        self.complaints.push(Complaint::new(key.key(), why));
    }
}

/// Why an endpoint does not get what it names.
#[derive(Debug, thiserror::Error)]
enum NotIts {
    #[error("the interface {0} is already that of {1}; this endpoint is not attached")]
    Interface(String, String),
    #[error(
        "the interface {0} does not begin as Felix's InterfacePrefix says; this endpoint is not attached"
    )]
    Prefix(String),
    #[error("the interface {0} is the host's own; this endpoint is not attached")]
    HostInterface(String),
    #[error("{0} is no address for a workload; ignored")]
    Martian(IpAddr),
    #[error("{0} is this host's own address; ignored")]
    HostAddress(IpAddr),
    #[error("{0} is another node's address; ignored")]
    NodeAddress(IpAddr),
    #[error("{0} is already an address of {1}; ignored")]
    Address(IpAddr, String),
}

fn is_workload_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            // 169.254.0.0/16 holds the gateway that we answer for.
            !(a.is_loopback() || a.is_multicast() || a.is_link_local() || a.octets()[0] == 0)
                && a < Ipv4Addr::new(240, 0, 0, 0)
        }
        IpAddr::V6(a) => {
            !(a.is_loopback() || a.is_multicast() || a.is_unicast_link_local() || a.is_unspecified())
        }
    }
}
