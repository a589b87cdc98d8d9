//! Endpoints of workloads and hosts.

use std::net::IpAddr;

use canal_dataplane::net::Mac;
use ipnetwork::IpNetwork;

use super::super::net;
use super::super::number::Protocol;
use super::super::problem::Problem;
use super::super::v3;
use super::{NAMESPACE_PREFIX, SERVICE_ACCOUNT_LABEL, SERVICE_ACCOUNT_PREFIX};

/// A WorkloadEndpoint.
#[derive(Debug)]
pub struct WorkloadEndpoint {
    /// `spec.node`; Felix believes the name instead.
    pub node: String,
    /// Host-side interface.
    pub interface: String,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// In order.
    pub profiles: Vec<String>,
    /// IPv4 networks, as listed.
    pub v4_nets: Vec<IpNetwork>,
    /// IPv6 networks, as listed.
    pub v6_nets: Vec<IpNetwork>,
    /// Floating addresses of both families.
    pub nats: Vec<IpNat>,
    /// Without those that only a namespace or a service account may give.
    pub labels: v3::Labels,
    /// Only checked.
    pub v4_gateway: Option<IpAddr>,
    /// Only checked.
    pub v6_gateway: Option<IpAddr>,
    /// Those with names.
    pub ports: Vec<EndpointPort>,
}

/// A floating address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpNat {
    /// The endpoint's own.
    pub internal: IpAddr,
    /// As others see it.
    pub external: IpAddr,
}

/// A port that an endpoint has a name for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Not empty with workloads.
    pub name: String,
    /// Absent as 0.
    pub protocol: Protocol,
    /// 0 is read, too.
    pub port: u16,
}

impl WorkloadEndpoint {
    /// Of a stored one; `None` = it has no addresses yet, or no longer: as if it were not there. One part that makes no
    /// sense costs the whole endpoint: half of one could reach further than its writer meant.
    ///
    /// # Errors
    /// [`Problem::Unreadable`] says which part.
    pub fn convert(metadata: v3::Metadata, spec: v3::WorkloadEndpointSpec) -> Result<Option<Self>, Problem> {
        if spec.ip_networks.is_empty() {
            return Ok(None);
        }
        let networks = spec.ip_networks.into_iter().map(|text| {
            net::network(&text)
                .ok_or_else(|| Problem::unreadable("spec.ipNetworks", text, "network or address"))
        });
        let (v4_nets, v6_nets) =
            networks.collect::<Result<Vec<_>, _>>()?.into_iter().partition(IpNetwork::is_ipv4);
        let nats = spec.ip_nats.iter().filter_map(|nat| {
            Some(IpNat {
                internal: net::address(&nat.internal_ip)?,
                external: net::address(&nat.external_ip)?,
            })
        });
        Ok(Some(Self {
            node: spec.node,
            interface: spec.interface_name,
            mac: mac(&spec.mac)?,
            profiles: spec.profiles,
            v4_nets,
            v6_nets,
            nats: nats.collect(),
            labels: own_labels(metadata.labels, spec.service_account_name),
            v4_gateway: gateway("spec.ipv4Gateway", &spec.ipv4_gateway)?,
            v6_gateway: gateway("spec.ipv6Gateway", &spec.ipv6_gateway)?,
            ports: spec
                .ports
                .into_iter()
                .map(EndpointPort::convert)
                .filter(|port| !port.name.is_empty())
                .collect(),
        }))
    }
}

impl EndpointPort {
    fn convert(port: v3::EndpointPort) -> Self {
        Self { name: port.name, protocol: port.protocol.unwrap_or(Protocol::Number(0)), port: port.port }
    }
}

/// A pod must not pretend to be in another namespace or to have another service account.
fn own_labels(mut labels: v3::Labels, service_account: String) -> v3::Labels {
    labels.retain(|label, _| {
        !label.starts_with(NAMESPACE_PREFIX) && !label.starts_with(SERVICE_ACCOUNT_PREFIX)
    });
    if !service_account.is_empty() {
        labels.insert(SERVICE_ACCOUNT_LABEL.to_owned(), service_account);
    }
    labels
}

fn mac(text: &str) -> Result<Option<Mac>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Problem::unreadable("spec.mac", text, "Ethernet address"))
}

fn gateway(part: &'static str, text: &str) -> Result<Option<IpAddr>, Problem> {
    match text {
        "" => Ok(None),
        text => net::address_of(text).map(Some).ok_or_else(|| Problem::unreadable(part, text, "address")),
    }
}

/// A HostEndpoint.
#[derive(Debug)]
pub struct HostEndpoint {
    /// Which host.
    pub node: String,
    /// `*` = all of them; empty = found by its addresses.
    pub interface: String,
    /// Those that are addresses.
    pub expected_ips: Vec<IpAddr>,
    /// Its own.
    pub labels: v3::Labels,
    /// In order.
    pub profiles: Vec<String>,
    /// Its ports.
    pub ports: Vec<EndpointPort>,
    /// Entries that are no addresses; they are left out.
    pub unreadable: Vec<Problem>,
}

impl HostEndpoint {
    /// Of a stored one.
    ///
    /// # Errors
    /// It names no node.
    pub fn convert(metadata: v3::Metadata, spec: v3::HostEndpointSpec) -> Result<Self, Problem> {
        if spec.node.is_empty() {
            return Err(Problem::Missing("spec.node"));
        }
        let mut unreadable = Vec::new();
        let addresses = spec.expected_ips.into_iter().filter_map(|text| {
            let found = net::address(&text);
            if found.is_none() {
                unreadable.push(Problem::unreadable("spec.expectedIPs", text, "address"));
            }
            found
        });
        Ok(Self {
            node: spec.node,
            interface: spec.interface_name,
            expected_ips: addresses.collect(),
            labels: metadata.labels,
            profiles: spec.profiles,
            ports: spec.ports.into_iter().map(EndpointPort::convert).collect(),
            unreadable,
        })
    }
}
