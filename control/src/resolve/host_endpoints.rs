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
        let (mut stands, mut judges) = (false, false);
        for interface in interfaces {
            let own = *owners.entry(interface).or_insert(name) == name;
            stands |= own;
            judges |= own && node.gateways.iter().any(|gateway| gateway == interface);
        }
        judges |= owners.get(EVERY_INTERFACE) == Some(&name.as_str()) && !node.gateways.is_empty();
        let key = format!("{}{name}", Kind::HostEndpoint.prefix());
        complaints.push(Complaint::new(
            key,
            match (stands, judges) {
                (_, true) => {
                    "enforced for what passes gateway interfaces (applyOnForward, preDNAT, doNotTrack); the host's own \
                     packets do not pass here"
                }
                (true, false) => "resolved, but not enforced: the host's own packets do not pass here",
                (false, false) => "it stands for no interface of this host",
            },
        ));
    }
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
