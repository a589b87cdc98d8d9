//! Routes and tunnel ends as the dataplane's tables have them, against Felix's, and against the tables' slow twin.

use std::net::IpAddr;
use std::sync::Arc;

use canal_control::resolve::calico::Resolution;
use canal_dataplane::reference::calico as twin;
use canal_dataplane::spec::NodeSpec;
use canal_dataplane::spec::calico::{CalicoNetwork, CalicoWay};
use canal_dataplane::tables::{CalicoTables, compile};
use ipnetwork::IpNetwork;
use serde_json::Value;

/// What comes out of a resolution.
pub fn tables(resolution: &Resolution) -> (NodeSpec, Arc<CalicoTables>) {
    let routes = Arc::clone(&resolution.routes);
    let calico = CalicoNetwork { routes, vteps: Arc::clone(&resolution.vteps), vxlan: None };
    let spec = NodeSpec { calico, ..NodeSpec::default() };
    let tables = compile(&spec, None, 1).calico;
    (spec, tables)
}

/// Looks up the first and the last address of every network of theirs: the longest of their networks must be found, the way
/// must be the twin's, and what goes through a tunnel must end at a tunnel end of theirs.
pub fn compare(resolution: &Resolution, routes: &Value, vteps: &Value) -> Result<(), String> {
    let (spec, tables) = tables(resolution);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let networks: Vec<IpNetwork> =
        list(routes).iter().map(|route| route["dst"].as_str().unwrap().parse().unwrap()).collect();
    let ends: Vec<IpAddr> =
        list(vteps).iter().map(|vtep| vtep["parent_device_ip"].as_str().unwrap().parse().unwrap()).collect();
    for address in networks.iter().flat_map(|network| [network.network(), network.broadcast()]) {
        let around = networks.iter().filter(|network| network.contains(address));
        let longest = around.max_by_key(|network| network.prefix()).copied();
        let entry = tables.route(address);
        let found = entry.map(|entry| entry.prefix);
        let way = entry.map(|entry| entry.way);
        // Felix says nothing of the tunnels of nodes that it does not route to.
        if found != longest
            && !entry.is_some_and(|entry| entry.route.tunnels.vxlan || entry.route.tunnels.ipip)
        {
            return Err(format!("{address}: expected {longest:?}, found {found:?}"));
        }
        if way != twin::way(&spec, address) {
            return Err(format!("{address}: {way:?}, and the twin says {:?}", twin::way(&spec, address)));
        }
        if let Some(CalicoWay::Vxlan(node_ip)) = way
            && (!ends.contains(&node_ip) || tables.adjacency(node_ip).is_none())
        {
            return Err(format!("{address}: there is no tunnel end at {node_ip}"));
        }
    }
    Ok(())
}
