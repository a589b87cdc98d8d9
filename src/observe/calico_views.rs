//! From Calico's network to what is shown of it.

use canal_control::status::CalicoNetworkStatus;
use canal_dataplane::spec::calico::{CalicoWay, PoolKind, RouteKind};
use canal_dataplane::tables::{CalicoEntry, CalicoTables, Kind};

use super::protocol::{CalicoNetworkView, CalicoRouteView, CalicoVtepView};

/// Every route, by prefix.
pub fn routes(tables: &CalicoTables) -> Vec<CalicoRouteView> {
    tables.entries().iter().map(|entry| route(entry, tables)).collect()
}

fn route(entry: &CalicoEntry, tables: &CalicoTables) -> CalicoRouteView {
    let CalicoEntry { prefix, route, way } = entry;
    let flags = [
        (route.same_subnet, "same_subnet"),
        (route.nat_outgoing, "nat_outgoing"),
        (route.local_workload, "local_workload"),
        (route.tunnels.ipip, "ipip_tunnel"),
        (route.tunnels.vxlan, "vxlan_tunnel"),
    ];
    let (way, via) = match *way {
        CalicoWay::Workload => ("workload", None),
        CalicoWay::Host => ("host", None),
        CalicoWay::Vxlan(node_ip) => ("vxlan", Some(node_ip)),
        CalicoWay::IpIp(node_ip) => ("ipip", Some(node_ip)),
        CalicoWay::Plain(node_ip) => ("plain", Some(node_ip)),
        CalicoWay::HostRoutes => ("host routes", None),
        CalicoWay::Unassigned => ("unassigned", None),
        CalicoWay::Unresolved => ("unresolved", None),
    };
    let adjacency = via.filter(|_| way == "vxlan").and_then(|node_ip| tables.adjacency(node_ip));
    let tunnel = adjacency.filter(|adjacency| !matches!(adjacency.kind, Kind::Drop(_)));
    CalicoRouteView {
        prefix: prefix.to_string(),
        kind: kind(route.kind).into(),
        pool: pool(route.pool).into(),
        node: route.node.as_deref().map(str::to_owned),
        node_ip: route.node_ip,
        flags: flags.into_iter().filter(|(is, _)| *is).map(|(_, name)| name.to_owned()).collect(),
        way: way.into(),
        via,
        mtu: tunnel.map(|adjacency| adjacency.mtu),
    }
}

const fn kind(kind: RouteKind) -> &'static str {
    match kind {
        RouteKind::Pool => "CIDR_INFO",
        RouteKind::LocalWorkload => "LOCAL_WORKLOAD",
        RouteKind::RemoteWorkload => "REMOTE_WORKLOAD",
        RouteKind::LocalHost => "LOCAL_HOST",
        RouteKind::RemoteHost => "REMOTE_HOST",
        RouteKind::LocalTunnel => "LOCAL_TUNNEL",
        RouteKind::RemoteTunnel => "REMOTE_TUNNEL",
    }
}

const fn pool(pool: PoolKind) -> &'static str {
    match pool {
        PoolKind::None => "NONE",
        PoolKind::Plain => "NO_ENCAP",
        PoolKind::Vxlan => "VXLAN",
        PoolKind::IpIp => "IPIP",
    }
}

/// Every tunnel end, by node, IPv4 first.
pub fn vteps(tables: &CalicoTables) -> Vec<CalicoVtepView> {
    let ends = tables.vteps().map(|((node, _), vtep)| CalicoVtepView {
        node: node.to_string(),
        address: vtep.address,
        mac: vtep.mac.to_string(),
        node_ip: vtep.node_ip,
    });
    ends.collect()
}

/// What there is of it; `None` = nothing.
pub fn network(status: CalicoNetworkStatus) -> Option<CalicoNetworkView> {
    let CalicoNetworkStatus { vxlan_pools, ipip_pools, blocks, vxlan_nodes, ipip_nodes } = status;
    let view = CalicoNetworkView { vxlan_pools, ipip_pools, blocks, vxlan_nodes, ipip_nodes };
    (view != CalicoNetworkView::default()).then_some(view)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use canal_dataplane::net::{Mac, Vni};
    use canal_dataplane::spec::calico::{CalicoNetwork, CalicoRoute, CalicoVtep, Tunnels};
    use canal_dataplane::spec::{LocalVtep, NodeSpec, Vxlan};
    use canal_dataplane::tables::compile;

    use super::*;

    fn spec() -> NodeSpec {
        let pool = CalicoRoute {
            kind: RouteKind::Pool,
            pool: PoolKind::Vxlan,
            node: None,
            node_ip: None,
            same_subnet: false,
            nat_outgoing: true,
            local_workload: false,
            tunnels: Tunnels::default(),
        };
        let block = CalicoRoute {
            kind: RouteKind::RemoteWorkload,
            node: Some("there".into()),
            node_ip: "192.0.2.2".parse().ok(),
            ..pool.clone()
        };
        let end = CalicoVtep {
            address: "10.9.2.0".parse().unwrap(),
            mac: Mac([2, 0, 0, 0, 0, 2]),
            node_ip: "192.0.2.2".parse().unwrap(),
        };
        let local = LocalVtep { address: [192, 0, 2, 1].into(), mac: Mac([2, 0, 0, 0, 0, 1]), mtu: 1450 };
        let routes =
            [("10.9.0.0/16", pool), ("10.9.2.0/26", block)].map(|(net, route)| (net.parse().unwrap(), route));
        let calico = CalicoNetwork {
            routes: Arc::new(BTreeMap::from(routes)),
            vteps: Arc::new(BTreeMap::from([(("there".into(), false), end)])),
            vxlan: Some(Vxlan { vni: Vni::CALICO, port: 4789, v4: Some(local), v6: None }),
        };
        NodeSpec { calico, ..NodeSpec::default() }
    }

    #[test]
    fn a_route_says_where_packets_would_go() {
        let tables = compile(&spec(), None, 1);
        let shown = routes(&tables.calico);
        let pool = CalicoRouteView {
            prefix: "10.9.0.0/16".into(),
            kind: "CIDR_INFO".into(),
            pool: "VXLAN".into(),
            flags: vec!["nat_outgoing".into()],
            way: "host routes".into(),
            ..CalicoRouteView::default()
        };
        let block = CalicoRouteView {
            prefix: "10.9.2.0/26".into(),
            kind: "REMOTE_WORKLOAD".into(),
            node: Some("there".into()),
            node_ip: "192.0.2.2".parse().ok(),
            way: "vxlan".into(),
            via: "192.0.2.2".parse().ok(),
            mtu: Some(1450),
            ..pool.clone()
        };
        assert_eq!(shown, [pool, block]);
        let end = vteps(&tables.calico).remove(0);
        assert_eq!((end.node.as_str(), end.mac.as_str()), ("there", "02:00:00:00:00:02"));
    }

    #[test]
    fn without_a_tunnel_end_of_our_own_no_mtu_is_shown() {
        let mut spec = spec();
        spec.calico.vxlan = None;
        let shown = routes(&compile(&spec, None, 1).calico);
        assert_eq!((shown[1].way.as_str(), shown[1].mtu), ("vxlan", None));
    }

    #[test]
    fn nothing_is_said_where_there_is_nothing() {
        assert_eq!(network(CalicoNetworkStatus::default()), None);
        let view = network(CalicoNetworkStatus { blocks: 2, ..CalicoNetworkStatus::default() });
        assert_eq!(view, Some(CalicoNetworkView { blocks: 2, ..CalicoNetworkView::default() }));
    }
}
