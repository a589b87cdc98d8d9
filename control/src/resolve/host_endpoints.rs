//! Which of the host's interfaces a host endpoint stands for.

use std::collections::BTreeMap;
use std::sync::Arc;

use canal_dataplane::spec::policy::HostEndpoint;

use super::NodeFacts;
use super::calico::{Resolution, ResolvedHost};
use crate::host::view::Link;
use crate::model::calico::kind::Kind;
use crate::state::Complaint;

/// Interface of a host endpoint that stands for all which have none of their own.
const EVERY_INTERFACE: &str = "*";

/// Sorted by name, then interface. An interface belongs to the first by name of those that name it or, without naming
/// one, expect an address that it has. One that exists only in the datastore counts, too: it may come.
pub(super) fn host_endpoints(
    resolution: &Resolution,
    node: &NodeFacts<'_>,
    complaints: &mut Vec<Complaint>,
) -> Vec<HostEndpoint> {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, resolved) in &resolution.host_endpoints {
        let interfaces = match resolved.endpoint.interface.as_str() {
            "" => interfaces_of(resolved, node),
            interface if node.felix.is_host_interface(interface) => vec![interface],
            _ => Vec::new(),
        };
        for interface in interfaces {
            owners.entry(interface).or_insert(name);
        }
    }
    complaints.extend(resolution.host_endpoints.keys().map(|name| told(name, &owners, node)));
    let endpoint = |(interface, name): (&str, &str)| {
        let lists = &resolution.host_endpoints[name].lists;
        HostEndpoint {
            name: name.into(),
            interface: (interface != EVERY_INTERFACE).then(|| Arc::from(interface)),
            ingress: lists.ingress.clone(),
            egress: lists.egress.clone(),
        }
    };
    let mut endpoints: Vec<HostEndpoint> = owners.into_iter().map(endpoint).collect();
    endpoints.sort_by(|a, b| (&a.name, &a.interface).cmp(&(&b.name, &b.interface)));
    endpoints
}

/// How far it is enforced.
fn told(name: &str, owners: &BTreeMap<&str, &str>, node: &NodeFacts<'_>) -> Complaint {
    let stands = owners.values().any(|owner| *owner == name);
    let judge = |gateway: &String| owners.get(gateway.as_str()).or_else(|| owners.get(EVERY_INTERFACE));
    let judges = node.gateways.iter().filter_map(judge).any(|owner| *owner == name);
    let sentence = match (stands, judges) {
        (_, true) => {
            "enforced for what passes gateway interfaces (applyOnForward, preDNAT, doNotTrack); the host's own traffic \
             is not taken off the interface"
        }
        (true, false) => {
            "resolved, but not enforced: it judges no gateway interface, and the host's own traffic is not taken off \
             the interface"
        }
        (false, false) => "it stands for no interface of this host",
    };
    Complaint::new(format!("{}{name}", Kind::HostEndpoint.prefix()), sentence)
}

/// Links that have one of the addresses it expects; in order of their names.
fn interfaces_of<'a>(resolved: &ResolvedHost, node: &NodeFacts<'a>) -> Vec<&'a str> {
    let host = node.host;
    let expected = |link: &&Link| {
        let addresses = host.addresses.iter().filter(|address| address.ifindex == link.index);
        addresses.into_iter().any(|address| resolved.endpoint.expected_ips.contains(&address.net.ip()))
    };
    let own = |link: &&Link| link.name == node.device || !node.felix.is_host_interface(&link.name);
    let mut names: Vec<&str> = host
        .links
        .iter()
        .filter(|link| expected(link) && !own(link))
        .map(|link| link.name.as_str())
        .collect();
    names.sort_unstable();
    names
}
