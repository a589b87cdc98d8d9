//! How much of the flow tables each local workload has, and of what it may have.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use canal_dataplane::tables::Tables;

/// Most workloads that are shown one by one: every one is a series of its own at whoever collects them.
pub const MAX_LISTED: usize = 256;

/// What one workload has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowShare {
    /// The endpoint's name.
    pub endpoint: String,
    /// Connections that it opened and that are remembered, at all workers.
    pub flows: u64,
    /// The most of them at one worker: its quota counts for each.
    pub most: u64,
}

/// What local workloads have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowShares {
    /// Those with the most connections first, then by name; up to [`MAX_LISTED`].
    pub listed: Vec<FlowShare>,
    /// Connections of all others, of those that have gone among them.
    pub unlisted: u64,
}

/// From what the workers say: for each, serials of endpoints with the number of their connections.
pub fn shares(workers: &[Vec<(u32, u32)>], tables: &Tables) -> FlowShares {
    let mut by_serial: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for (serial, flows) in workers.iter().flatten() {
        let (all, most) = by_serial.entry(*serial).or_default();
        *all += u64::from(*flows);
        *most = (*most).max(u64::from(*flows));
    }
    let mut listed: Vec<FlowShare> = Vec::with_capacity(tables.endpoints.len());
    for endpoint in tables.endpoints.iter() {
        let (flows, most) = by_serial.remove(&endpoint.serial).unwrap_or_default();
        listed.push(FlowShare { endpoint: endpoint.name.clone(), flows, most });
    }
    listed.sort_by(|a, b| (Reverse(a.flows), &a.endpoint).cmp(&(Reverse(b.flows), &b.endpoint)));
    let rest = listed.split_off(listed.len().min(MAX_LISTED));
    let gone = by_serial.values().map(|(flows, _)| flows);
    let unlisted = rest.iter().map(|share| &share.flows).chain(gone).sum();
    FlowShares { listed, unlisted }
}

#[cfg(test)]
mod tests {
    use canal_dataplane::spec::policy::EndpointPolicy;
    use canal_dataplane::spec::{Endpoint, NodeSpec};
    use canal_dataplane::tables::compile;

    use super::*;

    fn tables(count: usize) -> Tables {
        let endpoint = |number: usize| Endpoint {
            name: format!("default/{number:03}"),
            interface: format!("cali{number}"),
            ifindex: None,
            mac: None,
            networks: vec![],
            mtu: 1450,
            policy: EndpointPolicy::default(),
        };
        let endpoints: Vec<Endpoint> = (0..count).map(endpoint).collect();
        compile(&NodeSpec { endpoints: endpoints.into(), ..NodeSpec::default() }, None, 1)
    }

    #[test]
    fn a_workload_has_what_all_workers_remember_for_it() {
        let tables = tables(3);
        let serial = |index: usize| tables.endpoints[index].serial;
        let gone = 1000;
        let workers = [vec![(serial(1), 5), (gone, 3)], vec![(serial(1), 7), (serial(2), 12)]];
        let share = |endpoint: &str, flows, most| FlowShare { endpoint: endpoint.into(), flows, most };
        let listed =
            vec![share("default/001", 12, 7), share("default/002", 12, 12), share("default/000", 0, 0)];
        assert_eq!(shares(&workers, &tables), FlowShares { listed, unlisted: 3 });
    }

    #[test]
    fn beyond_the_limit_only_the_sum_is_shown() {
        let tables = tables(MAX_LISTED + 2);
        let busy = (tables.endpoints[MAX_LISTED + 1].serial, 9);
        let everybody = tables.endpoints.iter().map(|endpoint| (endpoint.serial, 1)).collect();
        let shares = shares(&[everybody, vec![busy]], &tables);
        assert_eq!((shares.listed.len(), shares.unlisted), (MAX_LISTED, 2));
        assert_eq!((shares.listed[0].flows, shares.listed[0].most), (10, 9));
    }
}
