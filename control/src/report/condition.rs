//! How a workload's interface is, in Felix's words.

use std::collections::{BTreeMap, BTreeSet};

use canal_dataplane::port::IfIndex;
use canal_dataplane::spec::Endpoint;
use serde::{Deserialize, Serialize};

use crate::host::HostView;
use crate::model::calico::WorkloadKey;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It is there and has a carrier, and its packets are ours.
    Up,
    /// It is not there, or not up.
    Down,
    /// It is there, but it could not be taken up.
    Error,
}

/// Of all endpoints, as the host has their interfaces; `steered` are those whose packets reach the dataplane.
pub fn conditions(
    endpoints: &[Endpoint],
    view: &HostView,
    steered: &BTreeSet<IfIndex>,
) -> BTreeMap<WorkloadKey, Condition> {
    let links: BTreeMap<&str, _> = view.links.iter().map(|link| (link.name.as_str(), link)).collect();
    let of = |endpoint: &Endpoint| {
        let (namespace, name) = endpoint.name.split_once('/')?;
        let key = WorkloadKey::new(namespace, name);
        let condition = match links.get(endpoint.interface.as_str()) {
            None => Condition::Down,
            // Without an index it was refused its interface, e.g. for being the host's own.
            Some(_) if endpoint.ifindex.is_none_or(|ifindex| !steered.contains(&ifindex)) => Condition::Error,
            Some(link) if link.up && link.running => Condition::Up,
            Some(_) => Condition::Down,
        };
        Some((key, condition))
    };
    endpoints.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use canal_dataplane::spec::policy::EndpointPolicy;

    use super::*;
    use crate::host::view::Link;

    #[test]
    fn an_interface_is_up_when_it_has_a_carrier_and_is_ours() {
        let link = |index, name: &str, running| Link {
            name: name.into(),
            running,
            ..crate::host::fake::link(index, name)
        };
        let view = HostView {
            links: vec![
                link(1, "up", true),
                link(2, "down", false),
                link(3, "refused", true),
                link(4, "failed", true),
            ],
            ..HostView::default()
        };
        let endpoint = |name: &str, ifindex| Endpoint {
            name: format!("ns/{name}"),
            interface: name.to_owned(),
            ifindex,
            mac: None,
            networks: Vec::new(),
            mtu: 1500,
            policy: EndpointPolicy::default(),
        };
        let endpoints = [
            endpoint("up", Some(1)),
            endpoint("down", Some(2)),
            endpoint("refused", None),
            endpoint("failed", Some(4)),
            endpoint("gone", None),
        ];
        let conditions = conditions(&endpoints, &view, &BTreeSet::from([1, 2, 3]));
        let of = |name: &str| conditions[&WorkloadKey::new("ns", name)];
        assert_eq!(of("up"), Condition::Up);
        assert_eq!(of("down"), Condition::Down);
        assert_eq!(of("refused"), Condition::Error);
        assert_eq!(of("failed"), Condition::Error);
        assert_eq!(of("gone"), Condition::Down);
        assert_eq!(conditions.len(), 5);
    }
}
