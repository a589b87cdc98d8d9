//! Endpoints of workloads and hosts.

use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::super::keys::WorkloadKey;
use super::super::resources::{HostEndpoint, NamedPort, Names, NetworkSet};
use super::super::v1::{self, NAMESPACE_LABEL};
use super::super::workload::{FloatingAddress, MAX_NETWORKS, WorkloadEndpoint};
use super::{Problem, labels};

/// Longest interface name, bytes (`IFNAMSIZ` less the final NUL).
const MAX_INTERFACE: usize = 15;

/// Longest name of an endpoint's port, bytes: as in a rule. Kubernetes has shorter ones, other orchestrators need not.
const MAX_PORT_NAME: usize = 128;

/// An interface of a workload.
///
/// # Errors
/// What it is refused for: with Felix, no interface or a port that is none; here also an interface that the kernel
/// would not take, a network of more than one address, an Ethernet address of no station, and two nodes.
pub fn workload(key: &WorkloadKey, endpoint: v1::WorkloadEndpoint) -> Result<WorkloadEndpoint, Problem> {
    let mut networks: Vec<IpNetwork> = endpoint.v4_nets.into_iter().chain(endpoint.v6_nets).collect();
    if networks.len() > MAX_NETWORKS {
        return Err(Problem::TooMany { part: "spec.ipNetworks", count: networks.len(), most: MAX_NETWORKS });
    }
    if let Some(wide) = networks.iter().find(|net| net.prefix() != if net.is_ipv4() { 32 } else { 128 }) {
        return Err(Problem::unreadable("spec.ipNetworks", wide.to_string(), "single address"));
    }
    networks.sort_unstable();
    networks.dedup();
    if let Some(mac) = endpoint.mac.filter(|mac| !mac.is_unicast() || *mac == canal_dataplane::net::Mac::ZERO)
    {
        return Err(Problem::unreadable("spec.mac", mac.to_string(), "Ethernet address of a station"));
    }
    // Whoever may write in a namespace must not put endpoints into another one.
    let mut labels = endpoint.labels;
    labels.insert(NAMESPACE_LABEL.to_owned(), key.namespace().to_owned());
    let floating = |nat: v1::IpNat| FloatingAddress { internal: nat.internal, external: nat.external };
    Ok(WorkloadEndpoint {
        node: node(key, endpoint.node)?.into(),
        interface: interface(endpoint.interface)?.into(),
        networks: networks.into(),
        mac: endpoint.mac,
        labels: Arc::new(labels.into_iter().collect()),
        profiles: names(endpoint.profiles),
        ports: ports(endpoint.ports)?.into(),
        floating: endpoint.nats.into_iter().map(floating).collect(),
    })
}

fn names(listed: Vec<String>) -> Names {
    listed.into_iter().map(Arc::from).collect()
}

/// Where it runs. Felix believes the name, other readers the spec; a liar would have it on two nodes.
fn node(key: &WorkloadKey, spec: String) -> Result<String, Problem> {
    match (key.segments(), spec.as_str()) {
        (None, "") => Err(Problem::Missing("spec.node")),
        (None, _) => Ok(spec),
        (Some([name, ..]), spec) if spec.is_empty() || spec == name => Ok(name),
        (Some([name, ..]), _) => Err(Problem::NodesDiffer { spec, name }),
    }
}

fn interface(name: String) -> Result<String, Problem> {
    if is_interface(&name) {
        Ok(name)
    } else {
        Err(Problem::unreadable("spec.interfaceName", name, "name of an interface"))
    }
}

/// Whether the kernel would take it.
fn is_interface(name: &str) -> bool {
    let fits = (1..=MAX_INTERFACE).contains(&name.len());
    let sound = name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    fits && sound && name != "." && name != ".."
}

fn ports(ports: Vec<v1::EndpointPort>) -> Result<Vec<NamedPort>, Problem> {
    let typed = ports.into_iter().map(|port| {
        let protocol = port.protocol.number().filter(|_| port.protocol.has_ports());
        let protocol = protocol.ok_or_else(|| {
            Problem::unreadable("spec.ports.protocol", port.protocol.to_string(), "protocol with ports")
        })?;
        if !is_port_name(&port.name) {
            return Err(Problem::unreadable("spec.ports.name", port.name, "name of a port"));
        }
        if port.port == 0 {
            return Err(Problem::unreadable("spec.ports.port", "0", "port"));
        }
        Ok(NamedPort { name: port.name.into(), protocol, port: port.port })
    });
    typed.collect()
}

/// Empty is allowed: host endpoints may have such ports, which nothing can refer to.
fn is_port_name(name: &str) -> bool {
    name.len() <= MAX_PORT_NAME
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// An interface of a host, and what of it cannot be read.
///
/// # Errors
/// What Felix refuses it for.
pub fn host_endpoint(endpoint: v1::HostEndpoint) -> Result<(HostEndpoint, Vec<Problem>), Problem> {
    labels::check(&endpoint.labels)?;
    let named = !endpoint.interface.is_empty() && endpoint.interface != "*";
    if named && !is_interface(&endpoint.interface) {
        return Err(Problem::unreadable("spec.interfaceName", endpoint.interface, "name of an interface"));
    }
    let typed = HostEndpoint {
        node: endpoint.node,
        interface: endpoint.interface,
        expected_ips: endpoint.expected_ips,
        profiles: names(endpoint.profiles),
        labels: Arc::new(endpoint.labels.into_iter().collect()),
        ports: ports(endpoint.ports)?,
    };
    Ok((typed, endpoint.unreadable))
}

/// A network set, and what of it cannot be read.
///
/// # Errors
/// What Felix refuses it for.
pub fn network_set(set: v1::NetworkSet) -> Result<(NetworkSet, Vec<Problem>), Problem> {
    labels::check(&set.labels)?;
    let labels = Arc::new(set.labels.into_iter().collect());
    let typed = NetworkSet { nets: set.nets, labels, profiles: names(set.profiles) };
    Ok((typed, set.unreadable))
}
