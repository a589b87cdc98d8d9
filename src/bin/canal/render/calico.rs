//! A network of Calico's own.

use canal::observe::protocol::{CalicoNetworkView, CalicoRouteView, CalicoVtepView};

use super::{grid, listed, optional, or_none};

/// `canal show calico-routes`.
pub(super) fn routes(routes: &[CalicoRouteView]) -> String {
    let row = |route: &CalicoRouteView| {
        let way = match route.via {
            Some(via) => format!("{} {via}", route.way),
            None => route.way.clone(),
        };
        vec![
            route.prefix.clone(),
            route.kind.clone(),
            route.pool.clone(),
            optional(route.node.as_ref()),
            optional(route.node_ip),
            listed(&route.flags),
            way,
            optional(route.mtu),
        ]
    };
    let columns = ["PREFIX", "KIND", "POOL", "NODE", "NODE-IP", "FLAGS", "WAY", ">MTU"];
    or_none(routes.len(), "routes of Calico's", || grid(&columns, routes.iter().map(row)))
}

/// `canal show calico-vteps`.
pub(super) fn vteps(vteps: &[CalicoVtepView]) -> String {
    let row = |vtep: &CalicoVtepView| {
        let CalicoVtepView { node, address, mac, node_ip } = vtep;
        vec![node.clone(), address.to_string(), mac.clone(), node_ip.to_string()]
    };
    or_none(vteps.len(), "tunnel ends of Calico's", || {
        grid(&["NODE", "ADDRESS", "MAC", "NODE-IP"], vteps.iter().map(row))
    })
}

/// What there is of a network of Calico's own.
pub(super) fn network(view: &CalicoNetworkView) -> String {
    let CalicoNetworkView { vxlan_pools, ipip_pools, blocks, vxlan_nodes, ipip_nodes } = view;
    let counted = [
        (vxlan_pools, "VXLAN pools"),
        (ipip_pools, "IP-in-IP pools"),
        (blocks, "blocks"),
        (vxlan_nodes, "nodes with a VXLAN tunnel"),
        (ipip_nodes, "nodes with an IP-in-IP tunnel"),
    ];
    let there: Vec<String> = counted
        .iter()
        .filter(|(count, _)| **count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    format!("{}: not used, packets go as flannel's network says (canal show calico-routes)", there.join(", "))
}
