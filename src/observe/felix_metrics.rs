//! Felix's metrics, by its names, as far as they have a true value here: dashboards that are made for it go on.
//!
//! What is about iptables, kernel ipsets, routing tables and Felix's own insides has none, and is not there.

use super::exposition::Exposition;
use super::metrics::Facts;

/// What Felix calls the states of reading the datastore.
const WAIT_FOR_READY: u64 = 1;
const RESYNC: u64 = 2;
const IN_SYNC: u64 = 3;

/// Writes them all.
pub fn write(text: &mut Exposition, facts: &Facts) {
    let status = &facts.status;
    text.head("felix_host", "gauge", "Always 1; this node's name is in the label.");
    text.sample(&[("host", &status.node)], 1);
    let datastore = &status.datastore;
    let state = match (datastore.in_sync, datastore.connected) {
        (true, _) => IN_SYNC,
        (false, true) => RESYNC,
        (false, false) => WAIT_FOR_READY,
    };
    text.gauge("felix_resync_state", "Datastore: 1 waited for, 2 being read, 3 in sync.", state);
    let policy = status.policy.clone().unwrap_or_default();
    let local = policy.workloads + policy.host_endpoints;
    text.gauge("felix_active_local_endpoints", "Endpoints of this node.", local as u64);
    text.gauge(
        "felix_active_local_policies",
        "Policies that match an endpoint of this node.",
        policy.policies as u64,
    );
    text.gauge(
        "felix_active_local_selectors",
        "Sets of addresses that rules of these name.",
        policy.sets as u64,
    );
    text.head("felix_ipsets_calico", "gauge", "The same, by IP version: every set may have members of both.");
    for version in ["4", "6"] {
        text.sample(&[("ip_version", version)], policy.sets);
    }
    let cluster = &facts.cluster;
    let counts = [
        ("felix_cluster_num_hosts", "Nodes of the cluster.", cluster.nodes),
        ("felix_cluster_num_host_endpoints", "Host endpoints of the cluster.", cluster.host_endpoints),
        ("felix_cluster_num_workload_endpoints", "Workload endpoints of the cluster.", cluster.workloads),
        ("felix_cluster_num_policies", "Policies of the cluster.", cluster.policies),
        ("felix_cluster_num_profiles", "Profiles of the cluster.", cluster.profiles),
        ("felix_cluster_num_tiers", "Tiers of the cluster.", cluster.tiers),
    ];
    for (name, help, count) in counts {
        text.gauge(name, help, count as u64);
    }
    text.summary(
        "felix_int_dataplane_apply_time_seconds",
        "Time it took to put a change in force.",
        facts.applied.count,
        facts.applied.total_us,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::protocol::{DatastoreView, PolicyView, StatusView};

    #[test]
    fn the_state_of_reading_is_told_by_felix_numbers() {
        for (connected, in_sync, state) in
            [(false, false, 1), (true, false, 2), (true, true, 3), (false, true, 3)]
        {
            let datastore = DatastoreView { connected, in_sync, ..DatastoreView::default() };
            let policy = PolicyView { workloads: 2, host_endpoints: 1, sets: 4, ..PolicyView::default() };
            let status =
                StatusView { node: "n1".into(), datastore, policy: Some(policy), ..StatusView::default() };
            let mut text = Exposition::default();
            write(&mut text, &Facts { status, ..Facts::default() });
            let text = text.into_text();
            for sample in [
                &format!("felix_resync_state {state}\n"),
                "felix_host{host=\"n1\"} 1\n",
                "felix_active_local_endpoints 3\n",
                "felix_ipsets_calico{ip_version=\"6\"} 4\n",
            ] {
                assert!(text.contains(sample), "{sample}\n{text}");
            }
        }
    }
}
